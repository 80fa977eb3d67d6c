"""The console command: its help, and what it answers to faults, whoever finds them."""

import errno
import subprocess
import sys

import pytest

from speecheq.cli import main
from speecheq.common.errors import InputError

COMMANDS = (
    *("synth", "corpora", "download", "import", "export", "check", "features", "phonemes", "unify", "shar", "train"),
    *("jobs", "score", "robustness", "probe", "report", "readme", "status"),
    *("predict", "align", "embed", "finetune", "listen", "package", "export-model", "compare-models"),
)
HELP_WITHOUT_LIBRARIES = """
import sys
from speecheq.cli.main import main
for arguments in ([], *([command] for command in sys.argv[1:])):
    try:
        main([*arguments, "--help"])
    except SystemExit as ended:
        assert not ended.code
    loaded = {"torch", "lhotse", "numpy", "matplotlib", "soundfile", "tqdm"} & set(sys.modules)
    assert not loaded, (arguments, loaded)
"""


def test_help_answers_without_loading_a_large_library():
    """Loading them would take seconds. Each command in turn: the first that loads one is named."""
    command = [sys.executable, "-c", HELP_WITHOUT_LIBRARIES, *COMMANDS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_has_help_for_each_option(capsys):
    (commands,) = (action for action in main.parser()._actions if action.dest == "command")
    assert set(commands.choices) == set(COMMANDS)
    for name, command in commands.choices.items():
        for action in command._actions:
            assert action.help, f"{name} {action.option_strings or action.dest}"
        with pytest.raises(SystemExit) as ended:
            main.main([name, "--help"])
        assert ended.value.code == 0 and f"usage: speecheq {name}" in capsys.readouterr().out


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


@pytest.fixture
def report_that_raises(monkeypatch):
    """``report_that_raises(error)``: the exit status of ``speecheq report`` where it meets this error."""

    def run(error):
        def fail(*_):
            raise error

        monkeypatch.setattr("speecheq.reporting.report.report", fail)
        return main.main(["report", "--title", "t", "--results", "r"])

    return run


@pytest.mark.parametrize(
    "error, sentence",
    [
        (InputError("the sentence."), "the sentence."),
        (OSError(errno.ENOSPC, "x"), "no space left on device"),
        (PermissionError(errno.EACCES, "x", "/some/file"), "/some/file: permission denied"),
    ],
)
def test_errors_of_the_system_are_sentences_too(error, sentence, capsys, report_that_raises):
    assert report_that_raises(error) == 1
    assert sentence in capsys.readouterr().err


def test_a_fault_of_the_program_is_not_hidden(report_that_raises):
    with pytest.raises(ZeroDivisionError):
        report_that_raises(ZeroDivisionError())
