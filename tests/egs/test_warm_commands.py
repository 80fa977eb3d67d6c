"""Commands of the warm environment do what those of the environment itself do (tests/warm_commands.py)."""

import os
import signal
import subprocess
import sys

import pytest
from warm_commands import LIMIT

LINE = '. "$0/path.sh"; cd "$0"; exec "$@"'


def run(venv, root, *command):
    """(exit status, standard output, standard error without times) of a command in a recipe's shell."""
    done = subprocess.run(
        ["bash", "-c", LINE, str(root), *map(str, command)],
        env={**os.environ, "SPEECHEQ_VENV": str(venv)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, [line.split(" ", 2)[-1] for line in done.stderr.splitlines()]


@pytest.mark.parametrize(
    "command",
    [
        ("speecheq", "unify", "--help"),
        ("speecheq", "unify", "--target", "casia"),
        ("speecheq", "corpora", "--prepared", "no/such/folder", "casia"),
        ("local/prepare_casia.py", "no/such/folder", "out"),
        ("python", "-c", "import sys; sys.exit(3)"),
    ],
    ids=" ".join,
)
def test_a_command_ends_and_answers_as_it_does_elsewhere(warm_venv, toys, command):
    found = run(warm_venv, toys.root, *command)
    assert found == run(sys.prefix, toys.root, *command)
    assert found[0] == (0 if "--help" in command else 3 if "-c" in command else 1)


SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
print(sys.stdin.readline(), end="", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 5), (signal.SIGUSR1, -signal.SIGUSR1)])
def test_it_reads_standard_input_and_is_ended_by_signals(warm_venv, tmp_path, number, status):
    (tmp_path / "prepare_toy.py").write_text(SCRIPT)
    with subprocess.Popen(
        [warm_venv / "bin/python", tmp_path / "prepare_toy.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        started.stdin.write("a line\n")
        started.stdin.flush()
        assert started.stdout.readline() == "a line\n"
        started.send_signal(number)
        # the outputs end with the command, which does not outlive who asked for it
        assert started.communicate(timeout=LIMIT)[0] == ""
        assert started.returncode == status
