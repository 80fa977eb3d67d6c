"""docs/own_data.md: its commands are taken from the page and run, with trainings of two steps."""

import csv
import itertools
import shlex

import pytest
import soundfile
from doc_pages import blocks, inline_code, tables
from lhotse import CutSet, Recording
from speech_like import speech_like

from speecheq.cli import main
from speecheq.inference.own_data import start as starts

PAGE = "docs/own_data.md"


@pytest.fixture
def home(tmp_path, monkeypatch, no_pictures):
    """A folder in which what the page names lies where the page has it."""
    heading = next(csv.reader(dict(blocks(PAGE))["csv"].splitlines()))
    rows = []
    for number, (label, speaker) in enumerate(itertools.product(("happy", "neutral", "angry"), ("anna", "ben", "eva"))):
        for take in range(2):
            name = f"clips/{number:03}{take}.wav"
            (tmp_path / "clips").mkdir(exist_ok=True)
            soundfile.write(tmp_path / name, speech_like(0.6, pitch=100 + 20 * number + 5 * take), 16000)
            rows.append([name, label, speaker, "M" if speaker == "ben" else "F", ("weak", "strong")[take]])
    with open(tmp_path / "my.csv", "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([heading, *rows])
    soundfile.write(tmp_path / "some.wav", speech_like(1.0), 16000)
    cut = Recording.from_file(tmp_path / "some.wav").to_cut()
    CutSet.from_cuts([cut]).to_file(tmp_path / "cuts.jsonl.gz")
    monkeypatch.setitem(starts.ADAPT["optim"], "max_steps", 2)
    monkeypatch.setitem(starts.ADAPT["optim"], "warmup_steps", 0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_every_command_of_the_page_runs(home, capsys):
    pytest.importorskip("pyarrow", reason="needs the extra `parquet`")
    lines = [line for language, code in blocks(PAGE) if language == "sh" for line in code.splitlines()]
    assert len(lines) == 5
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "speecheq"
        assert main.main([*words[1:], *(["--nj", "1"] if words[1] == "finetune" else [])]) == 0, line
    said = capsys.readouterr().out
    assert "my, speaker: WA" in said and "some.wav: " in said
    assert (home / "mymodel.work" / "exp" / "report.html").is_file()
    for name in ("clips.npz", "clips.parquet", "states.jsonl.gz"):
        assert (home / name).is_file()


def test_the_starts_of_the_page_are_those_of_the_command():
    heading, *rows = next(table for table in tables(PAGE) if table[0][0] == "`--from`")
    named = [inline_code(row[0])[0] for row in rows if row[0].startswith("`")]
    assert named == [starts.STARTER, starts.WHISPER, starts.NOTHING]
