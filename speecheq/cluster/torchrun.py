"""Start the processes of distributed training on one machine or several nodes, with torchrun's own code.

Beyond torchrun's command, ``launch`` uses a rendezvous address that all nodes reach, notices lost machines within a
minute, and reports every end with one sentence and an exit status.
"""

import ctypes
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import Any

import torch

from speecheq.cluster.connections import dead_connections_ended, interface_to, is_own_host, split_endpoint
from speecheq.common.errors import InputError, first_line
from speecheq.common.process_pool import usable_cores

# Seconds that torchrun waits for the other nodes when all processes of a node have ended.
EXIT_BARRIER_SECONDS = 30.0
PR_SET_PDEATHSIG = 1  # prctl number on Linux: signal on the parent's end


def check_process_numbers(devices: Iterable[torch.device], processes: int, nodes: int, rendezvous: str | None) -> None:
    """Raise InputError unless ``processes`` on each of ``nodes`` machines can train together on such ``devices``."""
    if nodes > 1 and not re.fullmatch(r"[^:\s]+:\d{1,5}", rendezvous or ""):
        raise InputError(
            f"--nodes is {nodes}, so --rendezvous must be HOST:PORT, one of the nodes and a free port of it (the same "
            f"for all nodes){f', not {rendezvous!r}' if rendezvous else ''}."
        )
    if nodes == 1 and rendezvous:
        raise InputError("--rendezvous is the meeting point of several nodes: give --nodes N too.")
    if processes * nodes > 1 and sys.platform != "linux":
        raise InputError("training in several processes (--gpus, --nodes) is for Linux; leave these options out.")
    if any(device.type == "cuda" for device in devices) and torch.cuda.device_count() < processes:
        raise InputError(f"--gpus is {processes}, but torch finds {torch.cuda.device_count()} on this machine.")


def _continue_in_child(host: str) -> None:
    """Return in a child process only; the parent forwards signals to it and exits with its status.

    If the store on ``host`` is lost, a thread of torch 1.13 aborts the process, which Python cannot catch; the parent
    then reports the loss as an InputError.
    """
    child = 0

    def pass_on(number: int, _: FrameType | None) -> None:
        os.kill(child, number)

    handled = [number for number in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in handled}
    child = os.fork()
    if not child:
        os.setpgid(0, 0)  # Ctrl-C must arrive once: through the parent
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        for number, handler in before.items():
            signal.signal(number, handler)
        return
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -signal.SIGABRT:
        raise InputError(
            f"the rendezvous node {host} is lost or does not answer; run the same command again to continue from the "
            "last checkpoint."
        )
    raise SystemExit(status if status >= 0 else 128 - status)


def launch(arguments: Sequence[str], processes: int, nodes: int = 1, rendezvous: str | None = None) -> None:
    """Run ``speecheq`` with ``arguments`` in ``processes`` processes on this machine.

    With several ``nodes``, each of them calls this with the same arguments; they meet at ``rendezvous``, HOST:PORT.
    Raises SystemExit with the status of a process that failed and said why, or with 128 + the signal that this process
    received (the others then have half a minute to save); raises InputError if a process was ended by a signal, or if
    the nodes do not meet.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // processes)))
    hosts = True
    interface: str | None = "lo"  # for a single machine, whose name need not resolve
    options = ["--rdzv_endpoint=localhost:0"]
    if nodes > 1:
        assert rendezvous is not None, "check_process_numbers ensures this"
        host, port = split_endpoint(rendezvous)
        interface = interface_to(host)
        # torchrun compares host names only, so state explicitly whether this machine is the rendezvous
        hosts = is_own_host(host)
        if hosts:
            options = [f"--rdzv_endpoint=localhost:{port}"]
        else:
            options = [f"--rdzv_endpoint={rendezvous}", "--rdzv_conf=is_host=false"]
            _continue_in_child(host)
    if interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    options += [f"--nnodes={nodes}", f"--nproc_per_node={processes}"]
    not_met = f"the {nodes} nodes did not meet at {rendezvous}"
    with dead_connections_ended():
        _run_torchrun([*options, "-m", "speecheq.cli", *arguments], hosts, not_met)


def _agent_class(hosts: bool) -> Any:
    """torchrun's agent, with a wait for the other nodes at its end; ``hosts``: the nodes meet at this one."""
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

    class Agent(LocalElasticAgent):
        def _exit_barrier(self) -> None:
            # torch's own waits five minutes for a lost node, and lets a node that holds a store leave while others
            # still ask it: these then report a lost connection, with a traceback
            store: Any = self._store
            nodes: Any = self._worker_group.group_world_size
            deadline = time.monotonic() + EXIT_BARRIER_SECONDS

            def wait_for_all(key: str) -> None:
                while store.add(key, 0) < nodes and time.monotonic() < deadline:
                    time.sleep(0.1)

            try:
                store.add("speecheq/ended", 1)
                wait_for_all("speecheq/ended")
                store.add("speecheq/leaving", 1)
                if hosts:  # the store is lost with this node
                    wait_for_all("speecheq/leaving")
            except RuntimeError:  # the store is lost with its node: there is nothing to wait for
                return

    return Agent


def _run_torchrun(arguments: Sequence[str], hosts: bool, not_met: str) -> None:
    """Run torchrun's command in this process; ``not_met`` begins the InputError if the nodes do not meet."""
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher import api

    fixed = ["--rdzv_backend=c10d", "--rdzv_id=speecheq", "--max_restarts=0", "--monitor_interval=0.5"]
    api.LocalElasticAgent = _agent_class(hosts)  # type: ignore[misc]  # there is no option for another agent
    # by default its logs go to a temporary folder that it never removes
    with tempfile.TemporaryDirectory(prefix="speecheq-") as notes:
        try:
            torchrun.run(torchrun.parse_args([*fixed, f"--log_dir={notes}", *arguments]))
        except ChildFailedError as error:
            statuses = {number: failure.exitcode for number, failure in error.failures.items()}
            for number, status in statuses.items():
                if status < 0:
                    raise InputError(
                        f"process {number} of the training was ended by signal {-status}; run the same command "
                        "again to continue from the last checkpoint."
                    ) from None
            raise SystemExit(max(statuses.values())) from None
        except SignalException as error:
            raise SystemExit(128 + error.sigval) from None
        except RendezvousError as error:
            raise InputError(
                f"{not_met}, or lost each other ({first_line(error)}); run the same command again to "
                "continue from the last checkpoint."
            ) from error
