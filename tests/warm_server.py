"""A process that has imported the package, and forks for each command that a client (warm_client.py) brings it.

    python warm_server.py SOCKET

The command then runs in a process of its own, with the arguments, folder, environment, input and outputs of the client:
all but the seconds that importing torch and lhotse takes. The server ends when its standard input does.
"""

import atexit
import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path

# What the commands of a recipe import when they run.
MODULES = """
    numpy sklearn.manifold torch torch.utils.tensorboard
    cli.main common.stages
    corpora.audio_folder corpora.exchange corpora.prep_script corpora.prepare
    features.encoders features.speech_activity features.storage
    dataset.msud dataset.phoneme_cuts dataset.phones.english dataset.phones.mandarin dataset.shard_writer
    training.train evaluation.score evaluation.robustness.run_trials
    reporting.recipe_status reporting.report
"""


def import_all() -> None:
    for name in MODULES.split():
        import_module(name if name.split(".")[0] in ("numpy", "sklearn", "torch") else f"speecheq.{name}")
    torch = sys.modules["torch"]
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # torch 2 imports seconds' worth with the first one


def received(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = connection.recv(size - len(content))
        if not part:
            sys.exit("the client is gone")
        content += part
    return content


def run(request: dict, streams: list[int]) -> int:
    """Become the command, as far as a fork can; its exit status."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()
    sys.modules["numpy"].random.seed()
    sys.argv = request["arguments"]
    sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[0])))
    status = 0
    try:
        if sys.argv[0].endswith(".py"):
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            sys.exit(sys.modules["speecheq.cli.main"].main())
    except SystemExit as ended:
        status = ended.code
        if not isinstance(status, (int, type(None))):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    return status or 0


def serve(connection: socket.socket) -> None:
    """Run what one client asks for; pass on to it the signals of the client, and to the client how it ended."""
    _, streams, *_ = socket.recv_fds(connection, 1, 3)
    (size,) = struct.unpack("I", received(connection, 4))
    request = json.loads(received(connection, size))
    command = os.fork()
    if not command:
        connection.close()
        os._exit(run(request, streams))
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(command)
    while ended not in (ready := select.select([connection, ended], [], [])[0]):
        told = connection.recv(1) if ready else b""
        os.kill(command, told[0] if told else signal.SIGKILL)
        if not told:
            break
    status = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    connection.sendall(struct.pack("i", status))


def wait_for_ended() -> None:
    """Of the processes that serve, those that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main() -> None:
    sys.path.remove(str(Path(__file__).resolve().parent))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(sys.argv[1])
    listening.listen(64)
    import_all()
    gc.collect()
    gc.freeze()  # else collections in the forks copy all of it
    while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
        connection, _ = listening.accept()
        if not os.fork():
            listening.close()
            try:
                serve(connection)
            finally:
                os._exit(0)
        connection.close()
        wait_for_ended()


if __name__ == "__main__":
    main()
