"""An environment whose ``speecheq`` and prep scripts run in forks of a process that has imported the package.

Tests that start recipes over and over take it as SPEECHEQ_VENV: run.sh is the same, its shell is the same, and each
command has a process of its own, but none imports torch and lhotse again, which takes longer than most commands do.
What is about processes, such as signals and kills, runs in the real environment, and so does a first whole walk.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

TESTS = Path(__file__).resolve().parent
LIMIT = 240.0  # far beyond what the start of the server takes
START = '. "$1/path.sh" && exec python "$2" "$3"'


def write_environment(venv: Path, socket: Path) -> None:
    """All programs of this environment, with others in place of ``speecheq`` and of Python where it has a script."""
    (venv / "bin").mkdir(parents=True)
    for name in ("pyvenv.cfg", "speecheq-stack", "speecheq-stamp"):
        if (Path(sys.prefix) / name).exists():
            shutil.copy(Path(sys.prefix) / name, venv)
    for program in (Path(sys.prefix) / "bin").iterdir():
        if program.name != "speecheq" and not program.name.startswith("python"):
            (venv / "bin" / program.name).symlink_to(program)
    python = shlex.quote(str(Path(sys.prefix) / "bin" / "python"))
    ask = f"exec {python} -ISE {shlex.quote(str(TESTS / 'warm_client.py'))} {shlex.quote(str(socket))}"
    # trainings note by which command they were started: the same as elsewhere
    scripts = {"speecheq": f'{ask} {shlex.quote(str(Path(sys.prefix) / "bin" / "speecheq"))} "$@"\n'}
    for name in ("python", "python3"):
        scripts[name] = f'case ${{1-}} in */prepare_*.py) {ask} "$@" ;; *) exec {python} "$@" ;; esac\n'
    for name, script in scripts.items():
        (venv / "bin" / name).write_text(f"#!/bin/sh\n{script}")
        (venv / "bin" / name).chmod(0o755)


@contextmanager
def warm_environment(root: Path):
    """Such an environment for the package in the checkout ``root``: its folder."""
    with ExitStack() as opened:
        # not pytest's: the name of a socket has room for 107 bytes
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="warm-")))
        socket, log = folder / "socket", folder / "log"
        write_environment(folder / "venv", socket)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment["SPEECHEQ_VENV"] = sys.prefix
        server = subprocess.Popen(
            ["bash", "-c", START, "-", str(root), str(TESTS / "warm_server.py"), str(socket)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=opened.enter_context(open(log, "w")),
            start_new_session=True,
        )
        opened.callback(server.wait)
        opened.callback(server.stdin.close)
        end = time.monotonic() + LIMIT
        while not socket.exists():
            assert server.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield folder / "venv"
