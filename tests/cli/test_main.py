"""The console command: what it answers to faults, whoever finds them."""

import errno
import subprocess
import sys

import pytest

from speecheq.cli import main
from speecheq.common.errors import InputError


def test_help_answers_without_loading_torch():
    program = "import sys; from speecheq import cli; cli.parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        "synth",
        "features",
        "phonemes",
        "unify",
        "train",
        "score",
        "report",
        "predict",
        "package",
        "export-model",
        "compare-models",
    ],
)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main.main([command, "--help"])
    assert ended.value.code == 0 and "usage: speecheq" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["dance"], "invalid choice"),
        ([], "required"),
        (["features", "--corpora", "casia", "--nj", "0"], "not a whole number above 0"),
        (["features", "--corpora", "casia", "--data", "nowhere"], "stage 1"),
        (["report", "--exp", "nowhere", "--title", "t", "--results", "r"], "no experiment has been scored"),
    ],
)
def test_faults_are_one_line_and_exit_1(arguments, sentence, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main.main(arguments) == 1
    printed = capsys.readouterr().err
    assert sentence in printed and len(printed.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "error, sentence",
    [
        (InputError("the sentence."), "the sentence."),
        (OSError(errno.ENOSPC, "x"), "no space left on device"),
        (PermissionError(errno.EACCES, "x", "/some/file"), "/some/file: permission denied"),
    ],
)
def test_errors_of_the_system_are_sentences_too(error, sentence, capsys, monkeypatch):
    def fail(_):
        raise error

    monkeypatch.setattr(main, "_report", fail)
    assert main.main(["report", "--title", "t", "--results", "r"]) == 1
    assert sentence in capsys.readouterr().err


def test_a_fault_of_the_program_is_not_hidden(monkeypatch):
    def fail(_):
        raise ZeroDivisionError

    monkeypatch.setattr(main, "_report", fail)
    with pytest.raises(ZeroDivisionError):
        main.main(["report", "--title", "t", "--results", "r"])
