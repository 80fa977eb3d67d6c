"""The picture of a recording: it shows what was predicted, at any length."""

import re

import numpy as np
import pytest
import soundfile

from speecheq.inference.prediction import Prediction
from speecheq.inference.recordings import Segment
from speecheq.inference.timeline_plot import COLUMNS, EIS_COLUMNS, clock, draw, eis_curve, envelope_of
from speecheq.inference.whole_recording import wholes_of

CLASSES = ("anger", "joy", "neutral")


def predictions(count, seconds, channel=None):
    """Segments of equal length, every second of the rest a pause."""
    step = seconds / count
    rng = np.random.default_rng(0)
    return [
        Prediction(
            "a.wav",
            number * step,
            (number + 0.5) * step,
            CLASSES[number % 2],
            eis=float(rng.uniform(0, 4)),
            posterior={"anger": 0.6, "joy": 0.3, "neutral": 0.1},
            channel=channel,
        )
        for number in range(count)
    ]


def test_the_envelope_is_that_of_the_samples(tmp_path):
    samples = np.zeros((70 * 8000, 2))
    samples[8000:16000, 1] = 0.5
    soundfile.write(tmp_path / "a.wav", samples, 8000)
    left, right = (envelope_of(Segment("a", tmp_path / "a.wav", channel=channel)) for channel in (1, 2))
    assert left.peaks.max() == 0 and right.peaks.max() == pytest.approx(0.5, abs=1e-3)
    assert len(right.peaks) <= COLUMNS and right.seconds == 70
    loud = np.flatnonzero(right.rms > 0.25) * right.step
    assert loud[0] == pytest.approx(1, abs=0.1) and loud[-1] == pytest.approx(2, abs=0.1)


def test_the_curve_shows_each_segment_of_a_short_recording_and_the_range_of_a_long_one():
    few = predictions(4, 20)
    times, low, mean, high = eis_curve(few, 20)
    for one in few:
        inside = (times > one.start) & (times < one.end)
        assert inside.any() and mean[inside] == pytest.approx(one.eis)
    many = predictions(900, 3600)
    times, low, mean, high = eis_curve(many, 3600)
    assert len(times) <= EIS_COLUMNS and (low < mean).all() and (mean < high).all()
    assert eis_curve([], 10)[0].size == 0


@pytest.mark.parametrize("seconds", [20, 1200, 3600])
def test_bars_can_be_seen_at_any_length(seconds, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 8000), 8000)
    envelope = envelope_of(Segment("a", tmp_path / "a.wav"))._replace(seconds=seconds)
    own = predictions(seconds // 4, seconds)
    figure = draw(own, wholes_of(own, lambda posterior, eis: ("anger", "rage")), {None: envelope}, CLASSES)
    figure.draw_without_rendering()
    waveform, band, curve = figure.axes
    assert waveform.get_title("left").startswith("a.wav: rage, EIS ") and band.get_xlim() == (0, seconds)
    assert [label.get_text() for label in band.get_yticklabels()] == ["anger", "joy"]
    for bars in band.collections:
        widths = [path.get_extents().width for path in bars.get_paths()]
        assert min(widths) >= seconds / 800 - 1e-6
    assert curve.get_ylim()[0] < 0 and curve.get_ylim()[1] > 4
    if seconds == 20:  # each segment by itself
        (lines,) = curve.collections
        drawn = np.array([path.vertices for path in lines.get_paths()])
        assert drawn[:, :, 0] == pytest.approx(np.array([(one.start, one.end) for one in own]))
        assert drawn[:, 0, 1] == pytest.approx(np.array([one.eis for one in own]))


def test_clock():
    assert [clock(seconds) for seconds in (0, 75, 3675)] == ["0:00", "1:15", "1:01:15"]


def test_the_command_writes_each_kind_and_replaces_it(predict, write_noise, tmp_path):
    wav = write_noise(tmp_path / "a <b>.wav", 8)
    for kind in ("svg", "png", "html"):
        path = tmp_path / f"out.{kind}"
        for _ in range(2 if kind == "svg" else 1):  # the second replaces the first
            status, out, err = predict("--plot", path, "--window", 2, wav)
            assert status == 0 and out and f"the picture is in {path}" in err
        content = path.read_bytes()
        assert content.startswith({"svg": b"<svg", "png": b"\x89PNG", "html": b"<!DOCTYPE html>"}[kind])
    page = (tmp_path / "out.html").read_text()
    assert "a &lt;b&gt;.wav" in page and page.count("<tr>") == 1 + len(out.splitlines())
    assert not re.search(r"(src|href)=.http", page)
