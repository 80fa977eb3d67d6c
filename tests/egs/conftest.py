"""A recipe as its users run it: ./run.sh in a shell, on synthesised nano corpora."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EGS = Path(__file__).resolve().parents[2] / "egs"


class Recipe:
    """``egs/<name>/run.sh`` with the environment of the tests."""

    def __init__(self, name):
        self.folder = EGS / name

    def run(self, *arguments, check=True, cwd=None):
        environment = {**os.environ, "SPEECHEQ_VENV": sys.prefix}
        command = [str(self.folder / "run.sh"), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)
        assert "Traceback" not in done.stderr, done.stderr
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def refused(self, *arguments):
        """The sentence with which the recipe refuses its arguments."""
        done = self.run(*arguments, check=False)
        assert done.returncode == 1, done.stderr
        return done.stderr.strip().splitlines()[-1]

    @staticmethod
    def where(folder):
        return ["--data", folder / "data", "--exp", folder / "exp", "--results", folder / "RESULTS.md",
                "--config", Path(__file__).with_name("nano.yaml"), "--folds", "1"]


@pytest.fixture(scope="session")
def recipe():
    return Recipe
