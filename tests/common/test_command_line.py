"""Lists of numbers on the command line, what is refused, and what every command checks first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from speecheq.common.command_line import parse_numbers
from speecheq.common.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "text, numbers",
    [
        ("1", [1]),
        ("1 3-5", [1, 3, 4, 5]),
        ("2,1", [2, 1]),
        ("all", list(range(1, 11))),
        ("3 2-4", [3, 2, 4]),
        ("4-4", [4]),
    ],
)
def test_numbers(text, numbers):
    assert parse_numbers(text, "fold", 10) == numbers


@pytest.mark.parametrize(
    "text, words",
    [
        ("11", "fold 11 does not exist; there are folds 1 to 10"),
        ("0", "fold 0 does not exist"),
        ("9-1000000000000", "fold 1000000000000 does not exist"),
        ("one", "'one' is not a fold number"),
        ("1-", "'1-' is not a fold number"),
        ("-1", "'-1' is not a fold number"),
        ("5-3", "the range 5-3 ends before it begins"),
        (" ", "names no fold"),
    ],
)
def test_numbers_that_are_refused(text, words):
    with pytest.raises(InputError) as refused:
        parse_numbers(text, "fold", 10)
    assert words in str(refused.value)


def test_seeds_have_no_list_of_all():
    assert parse_numbers("0 7", "seed") == [0, 7]
    with pytest.raises(InputError, match="--seeds all: there is no list of all seeds"):
        parse_numbers("all", "seed")


@pytest.mark.parametrize(
    "command", [["-m", "speecheq.cli", "predict", "a.wav"], [f"{ROOT}/local/prepare_casia.py", "a", "b"]]
)
def test_a_working_folder_that_was_deleted_is_one_sentence(tmp_path, command):
    """Loading torch there would end the process with words about MKL."""
    folder = tmp_path / "gone"
    folder.mkdir()
    in_shell = ["bash", "-c", 'rmdir ../gone; exec "$@"', "bash", sys.executable, *command]
    done = subprocess.run(
        in_shell, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and "ERROR the working folder does not exist any more" in line
