"""A recipe as its users run it: ./run.sh in a shell."""

import os
import signal
import subprocess
import sys
from pathlib import Path

EGS = Path(__file__).resolve().parent.parent / "egs"
NANO = Path(__file__).resolve().parent / "egs" / "nano.yaml"


class Recipe:
    """``egs/<name>/run.sh`` in the environment of the tests, or in ``venv`` (see warm_commands.py)."""

    def __init__(self, name, venv=sys.prefix):
        self.folder, self.venv = EGS / name, venv

    def _command(self, arguments):
        return [str(self.folder / "run.sh"), *map(str, arguments)]

    def _environment(self):
        return {**os.environ, "SPEECHEQ_VENV": str(self.venv)}

    def run(self, *arguments, check=True, cwd=None):
        done = subprocess.run(
            self._command(arguments), capture_output=True, text=True, env=self._environment(), cwd=cwd
        )
        assert "Traceback" not in done.stderr, done.stderr
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def refused(self, *arguments):
        """The sentence with which the recipe refuses its arguments."""
        done = self.run(*arguments, check=False)
        assert done.returncode == 1, done.stderr
        return done.stderr.strip().splitlines()[-1]

    def start(self, log, *arguments):
        """The recipe as a process group of its own, which writes to the file ``log`` what it tells."""
        with open(log, "w") as told:
            # Ctrl-C is ignored by what a script starts in the background, which the tests may be
            return subprocess.Popen(
                self._command(arguments),
                stdout=subprocess.DEVNULL,
                stderr=told,
                env=self._environment(),
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    @staticmethod
    def where(folder):
        return [
            "--data",
            folder / "data",
            "--exp",
            folder / "exp",
            "--results",
            folder / "RESULTS.md",
            "--config",
            NANO,
            "--folds",
            "1",
        ]
