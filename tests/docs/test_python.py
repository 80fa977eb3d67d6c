"""docs/python.md: its Python runs as it stands, with the starter, where the recordings lie that it names."""

import re

import numpy as np
import pytest
import soundfile
from doc_pages import blocks, inline_code, prose
from speech_like import RATE, silence, speech_like

import speecheq
from speecheq.cli import main

PAGE = "docs/python.md"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with what the page names."""
    soundfile.write(tmp_path / "some.wav", speech_like(1.0), RATE)
    (tmp_path / "clips").mkdir()
    for number, pitch in enumerate((100, 180)):
        soundfile.write(tmp_path / "clips" / f"{number}.wav", speech_like(0.8, pitch), RATE)
    first, second = speech_like(1.0), speech_like(1.0, 200)
    channels = np.concatenate((first, silence(2))), np.concatenate((silence(2), second))
    soundfile.write(tmp_path / "call.wav", np.stack(channels, axis=1), RATE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_of_the_page_runs(home, capsys):
    pytest.importorskip("pandas", reason="pandas is not installed")
    names = {}
    for language, code in blocks(PAGE):
        assert language == "python"
        exec(compile(code, PAGE, "exec"), names)
    assert "\n1 missing.wav: " in capsys.readouterr().out
    assert [one.source for one in names["predictions"]] == ["some.wav"]
    assert (home / "predictions.csv").read_text().count("\n") == 4
    assert {one.channel for one in names["timeline"].segments} == {1, 2}
    assert (home / "call.html").read_text().startswith("<!DOCTYPE html>")
    assert names["answers"][0] == names["answers"][2] and names["answers"][1] == names["answers"][3]


def test_the_table_has_every_option_of_the_command(capsys):
    with pytest.raises(SystemExit):
        main.main(["predict", "--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    on_page = {word for code in inline_code(prose(PAGE)) for word in re.findall(r"--[a-z-]+", code)}
    assert options == on_page


def test_the_names_of_the_page_are_public():
    code = "".join(code for _, code in blocks(PAGE))
    names = {name for names in re.findall(r"from speecheq import (.*)", code) for name in names.split(", ")}
    assert names <= set(speecheq.__all__)
