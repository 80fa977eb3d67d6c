import time
from types import SimpleNamespace

from speecheq.common import progress as module
from speecheq.common.progress import Progress, progress


def test_without_a_terminal_there_are_plain_lines_with_the_count(caplog):
    with Progress("work", total=3, unit="clips", terminal=False) as shown:
        shown.update(2)
        shown.update(1, note="loss 0.5")
    assert "work: 3/3 clips" in caplog.text and "loss 0.5" in caplog.text


def test_lines_come_at_intervals_not_for_every_unit(caplog, monkeypatch):
    monkeypatch.setattr(module, "PLAIN_LINE_INTERVAL", 0.0)
    with Progress("work", total=5, terminal=False) as shown:
        for _ in range(5):
            shown.update()
    often = len(caplog.records)
    caplog.clear()
    monkeypatch.setattr(module, "PLAIN_LINE_INTERVAL", 1e9)
    with Progress("work", total=5, terminal=False) as shown:
        for _ in range(5):
            shown.update()
    assert often > len(caplog.records) == 1


def test_on_a_terminal_there_is_a_bar(capsys):
    with Progress("work", total=2, terminal=True) as shown:
        shown.update(2, note="loss 1")
    assert "2/2" in capsys.readouterr().err


def test_what_was_done_before_counts_but_not_for_the_speed(caplog, capsys, monkeypatch):
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 100.0))
    with Progress("work", total=10, unit="steps", terminal=False, done=8) as shown:
        shown.started -= 2.0
        shown.update(1)
        shown._log_line()
    first = caplog.records[0].getMessage()
    assert first.startswith("work: 9/10 steps in 2 s (0.5/s, 2 s left)")
    with Progress("work", total=10, terminal=True, done=8) as shown:
        shown.update(1)
    assert "9/10" in capsys.readouterr().err


def test_items_pass_through_in_order():
    assert list(progress(range(4), "work")) == [0, 1, 2, 3]


def test_a_bar_goes_on_where_the_clock_is_set_back(monkeypatch, capsys):
    monkeypatch.setattr(module, "BAR_INTERVAL", 0.0)
    with Progress("clips", 10, "clips", terminal=True) as shown:
        monkeypatch.setattr(time, "time", lambda: 0.0)
        shown.update(4)
        assert shown.bar.format_dict["elapsed"] >= 0 and "4/10" in capsys.readouterr().err
