"""docs/prediction.md: its commands and its Python are taken from the page and run."""

import re
import shlex

import pytest

from speecheq import cli
from speecheq.cli import parser


@pytest.fixture(scope="module")
def page(toys):
    return (toys.root / "docs" / "prediction.md").read_text(encoding="utf-8")


@pytest.fixture
def home(experiment, toys, tmp_path, monkeypatch):
    """A folder in which what the page names lies where the page has it."""
    (tmp_path / "data").symlink_to(experiment.parents[4])
    toys.write_wav(tmp_path / "some.wav", 0.5)
    monkeypatch.chdir(tmp_path)
    return experiment


def blocks(page, language=""):
    """The code blocks of the page in a language."""
    return [code for name, code in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.M | re.S) if name == language]


def test_every_command_of_the_page_runs(page, home, tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="needs the extra `export`")
    pytest.importorskip("onnx", reason="needs the extra `export`")
    lines = [line for block in blocks(page) for line in block.splitlines()]
    assert len(lines) == 5
    for line in lines:
        words = shlex.split(line.replace("exp/.../fold1/seed1", str(home)))
        assert words[0] == "speecheq" and cli.main(words[1:]) == 0, line
    printed = capsys.readouterr().out
    assert printed.startswith("some.wav: ") and "| model.int8.onnx |" in printed
    assert cli.main(["predict", "--model", "my-model", "some.wav"]) == 0
    assert capsys.readouterr().out == printed.splitlines(keepends=True)[0]


def test_the_python_of_the_page_runs(page, home, capsys):
    code, = blocks(page, "python")
    exec(code.replace("exp/.../fold1/seed1", str(home)), {})
    assert capsys.readouterr().out.startswith("0.0 0.5 ")


def test_the_options_of_the_page_are_options_of_predict(page):
    start = page.index("| to | give |")
    options = set(re.findall(r"--[a-z][a-z-]+", page[start : page.index("\n\n", start)]))
    help_text = parser()._subparsers._group_actions[0].choices["predict"].format_help()
    assert options and all(option in help_text for option in options)
