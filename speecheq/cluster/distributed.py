"""One training over several processes, on one machine or many, as torchrun starts them: who takes what, how they agree.

Every process walks through the same mini-batches and takes its share of each: process r of W the clips r, r + W, ...
What depends on the whole mini-batch, that is the statistics of batch norm and the losses, is computed from what all
processes have, and the gradients of all are added up: W processes take the step that one would take. A mini-batch of
fewer clips than processes is not shared out, each process computes all of it and adds a W-th part of the gradient.

Tensors of the model travel by nccl between GPUs and by gloo between CPUs; what the processes agree on (an end asked
for, a fault, scores) travels by gloo. With one process all functions here give back what they are given.
"""

import ctypes
import fcntl
import ipaddress
import logging
import math
import os
import re
import signal
import socket
import stat
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist

# Imported later, as torch's optimizers do, it would keep the group of all processes as a default argument: gloo's
# threads would outlive destroy_process_group, and one that frees a tensor while Python ends aborts the process.
import torch.distributed.nn
from torch import Tensor, nn

from speecheq.common.errors import InputError
from speecheq.common.log import log

T = TypeVar("T")

# A process that waits longer for another takes it for lost, though its machine answers. The longest work of one process
# alone is the first one's, on the statistics of global normalisation.
PATIENCE = timedelta(minutes=30)
# Seconds without an answer after which a machine is taken for lost: one that was switched off does not say so.
LOST_AFTER = 60
# Seconds that torchrun waits, when all has ended on a node, for the other ones to end.
TO_END_TOGETHER = 30.0
# What torchrun, or who starts the processes in its place, tells each of them.
ENVIRONMENT = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

# An address of no machine: to connect to it by UDP sends nothing, but tells by which address this machine would.
ELSEWHERE = "192.0.2.1"
ADDRESS_OF_INTERFACE, END_WITH_PARENT = 0x8915, 1  # Linux' SIOCGIFADDR and PR_SET_PDEATHSIG

_between_gpus: dist.ProcessGroup | None = None  # nccl's
_clips: int | None = None  # of the mini-batch that is shared out at the moment


def launched() -> bool:
    """Whether this is one of the processes that torchrun has started."""
    return all(name in os.environ for name in ENVIRONMENT)


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if size() > 1 else 0


def is_first() -> bool:
    """Whether this is the process that writes files and logs."""
    return rank() == 0


def _place() -> int:
    """The number of this process on its machine."""
    return int(os.environ["LOCAL_RANK"]) if size() > 1 else 0


@contextmanager
def processes(rendezvous: str | None = None) -> Iterator[None]:
    """Join the other processes of a training that torchrun has started; of these only the first logs.

    They meet where ``launch`` was told that nodes meet, or where torchrun says; InputError where they do not.
    """
    if not launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    global _between_gpus
    where = rendezvous or f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    met = {}
    try:
        if rendezvous:  # torchrun names a machine by its host name, which may lead to the machine itself
            host, port = _endpoint(rendezvous)
            met = {
                "store": dist.PrefixStore("speecheq", dist.TCPStore(host, port, timeout=PATIENCE)),
                "rank": int(os.environ["RANK"]),
                "world_size": int(os.environ["WORLD_SIZE"]),
            }
        dist.init_process_group("gloo", timeout=PATIENCE, **met)
    except RuntimeError as error:
        raise InputError(
            f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} does not reach the others at {where} "
            f"({_first_line(error)})."
        ) from error
    _watch_connections()
    if not is_first():
        log.setLevel(logging.ERROR)
    try:
        yield
        any_rank(0)  # the first process may still be writing
    except KeyboardInterrupt:
        if _place() == 0:
            raise
        raise SystemExit(130) from None  # the first process of the machine tells it
    finally:
        dist.destroy_process_group()
        _between_gpus = None


def set_device(device: torch.device) -> torch.device:
    """The device of this process: of GPUs the one of its number on its machine. All processes call it."""
    global _between_gpus
    if size() == 1 or device.type != "cuda":
        return device
    own = torch.device("cuda", _place())
    torch.cuda.set_device(own)
    if _between_gpus is None:
        _between_gpus = dist.new_group(backend="nccl", timeout=PATIENCE)
    return own


def _watch_connections() -> None:
    """Let the system end those connections of this process whose other side has not answered for LOST_AFTER seconds.

    Neither gloo nor torch's store asks for that, and without it a cut cable is noticed by nobody.
    """
    for name in os.listdir("/proc/self/fd"):
        try:
            own = os.dup(int(name))
        except OSError:  # closed since
            continue
        if not stat.S_ISSOCK(os.fstat(own).st_mode):
            os.close(own)
            continue
        with socket.socket(fileno=own) as connection:
            if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in (
                    (socket.TCP_KEEPIDLE, LOST_AFTER // 4),
                    (socket.TCP_KEEPINTVL, LOST_AFTER // 12),
                    (socket.TCP_USER_TIMEOUT, 1000 * LOST_AFTER),
                ):
                    connection.setsockopt(socket.IPPROTO_TCP, option, value)


@contextmanager
def _connections_watched() -> Iterator[None]:
    """While it is entered, also those that are opened later."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOST_AFTER / 12):
            _watch_connections()

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()


# ---- exchange


def fault_of_all(sentence: str) -> BaseException:
    """To be raised by every process for what all of them have found: the first of each machine tells it."""
    return InputError(sentence) if _place() == 0 else SystemExit(1)


@contextmanager
def _all_reached() -> Iterator[None]:
    """A process that is lost ends this one."""
    try:
        yield
    except RuntimeError as error:
        raise fault_of_all(
            "another process of this training has ended before its time; the same command goes on from the last "
            "checkpoint."
        ) from error


def _group(tensor: Tensor) -> dist.ProcessGroup | None:
    return _between_gpus if tensor.is_cuda else None


def _sum(tensor: Tensor) -> Tensor:
    """The sum of what all processes have, in place."""
    with _all_reached():
        dist.all_reduce(tensor, group=_group(tensor))
    return tensor


def gather(tensor: Tensor) -> Tensor:
    """Tensors of one shape (...) -> (W, ...), by process, without a gradient."""
    tensor = tensor.detach().contiguous()
    found = [torch.empty_like(tensor) for _ in range(size())]
    with _all_reached():
        dist.all_gather(found, tensor, group=_group(tensor))
    return torch.stack(found)


def all_gather_objects(value: Any) -> list[Any]:
    """What each process gives, by process, in all of them."""
    if size() == 1:
        return [value]
    found: list[Any] = [None] * size()
    with _all_reached():
        dist.all_gather_object(found, value)
    return found


def any_rank(number: int) -> int:
    """The largest of the numbers that the processes give, in all of them."""
    if size() == 1:
        return number
    largest = torch.tensor(number)
    with _all_reached():
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


@contextmanager
def raise_together() -> Iterator[None]:
    """What is done inside succeeds in all processes, or an InputError in one of them ends all, told once a machine.

    Nothing inside may wait for another process. Faults of other kinds end the process, and so the others too.
    """
    if size() == 1:
        yield
        return
    fault = None
    try:
        yield
    except InputError as error:
        fault = error
    if any_rank(int(fault is not None)):
        faults = all_gather_objects(fault and str(fault))
        raise fault_of_all(next(sentence for sentence in faults if sentence is not None)) from fault


def broadcast(make: Callable[[], T]) -> T:
    """What ``make`` gives in the first process, in all of them; its InputError ends all."""
    if size() == 1:
        return make()
    box: list[Any] = [None]
    with raise_together():
        if is_first():
            box[0] = make()
    with _all_reached():
        dist.broadcast_object_list(box)
    return box[0]


# ---- shares of work


def share(items: list[T]) -> list[T]:
    """What this process takes of ``items``; all of them where they are fewer than the processes."""
    return items[rank() :: size()] if len(items) >= size() else items


def interleaved(shares: Sequence[Sequence[T]]) -> list[T]:
    """The items in their order, from what each process took of them."""
    items: list[Any] = [None] * sum(map(len, shares))
    for process, taken in enumerate(shares):
        items[process :: len(shares)] = taken
    return items


def results_of(work: Callable[[list[T]], list[Any]], items: list[T]) -> list[Any]:
    """``work`` of all items, a result each and in their order, shared out and known to all processes."""
    with raise_together():
        own = work(share(items))
    return interleaved(all_gather_objects(own)) if len(own) < len(items) else own


@contextmanager
def mini_batch(clips: int) -> Iterator[None]:
    """While it is entered, forward and backward, a mini-batch of so many clips is computed by all processes."""
    global _clips
    _clips = clips if 1 < size() <= clips else None
    try:
        yield
    finally:
        _clips = None


def is_shared_out() -> bool:
    """Whether what is computed is this process' share of a mini-batch."""
    return _clips is not None


def gather_rows(own: Tensor) -> Tensor:
    """(n, ...) of this process' share -> (N, ...) of the mini-batch, in its order; gradients go to the own rows."""
    if _clips is None:
        return own
    rows = math.ceil(_clips / size())
    own = torch.cat([own, own.new_zeros(rows - len(own), *own.shape[1:])])
    by_process = list(gather(own))
    by_process[rank()] = own
    return torch.stack(by_process, 1).flatten(0, 1)[:_clips]


def rows_in_whole(rows: Tensor) -> Tensor:
    """Rows of this process' share -> the same clips' rows in the mini-batch."""
    return rows if _clips is None else rows * size() + rank()


def whole_mean(mean: Tensor, count: int) -> Tensor:
    """The mean () over ``count`` elements of this process' share -> over all; gradients go to the own elements."""
    if _clips is None:
        return mean
    own = mean * count
    total, elements = _sum(torch.stack([own.detach(), own.new_tensor(float(count))]))
    return (own + (total - own.detach())) / elements.clamp(min=1)


def scale_for_sum(loss: Tensor) -> Tensor:
    """What a process passes backward of the loss of a mini-batch, so that the gradients of all add up to its own."""
    return loss if is_shared_out() or size() == 1 else loss / size()


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the processes' gradients, all in one message. The same parameters have one in every process."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if size() == 1 or not gradients:
        return
    flat = _sum(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, summed in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(summed.view_as(gradient))


# ---- starting them


def check_numbers(devices: Iterable[torch.device], number: int, nodes: int, rendezvous: str | None) -> None:
    """InputError unless ``number`` processes on each of ``nodes`` machines can share trainings on such ``devices``."""
    if nodes > 1 and not re.fullmatch(r"[^:\s]+:\d{1,5}", rendezvous or ""):
        raise InputError(
            f"--nodes is {nodes}, so --rendezvous must be HOST:PORT, one of the nodes and a free port of it (the same "
            f"for all nodes){f', not {rendezvous!r}' if rendezvous else ''}."
        )
    if nodes == 1 and rendezvous:
        raise InputError("--rendezvous is where several nodes meet: give --nodes N too.")
    if any(device.type == "cuda" for device in devices) and torch.cuda.device_count() < number:
        raise InputError(f"--gpus is {number}, but torch finds {torch.cuda.device_count()} on this machine.")


def _endpoint(rendezvous: str) -> tuple[str, int]:
    host, _, port = rendezvous.rpartition(":")
    return host, int(port)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _is_own(host: str) -> bool:
    """Whether a host's name or address is this machine's: others cannot be bound to."""
    try:
        found = {(family, address) for family, _, _, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise InputError(
            f"--rendezvous: {host} is not known on this machine ({error.strerror}); name a node by an "
            "address that all of them reach."
        ) from error
    for family, address in found:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            try:
                tried.bind(address)
                return True
            except OSError:
                pass
    return False


def _interface_to(host: str) -> str | None:
    """The interface by which this machine reaches a host, or others, where the host is itself; None: it is not known.

    Gloo would take the one of the machine's name, which on many machines is the loopback.
    """
    for target in (host, ELSEWHERE):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            try:
                asked.connect((target, 9))
            except OSError:
                continue
            address = asked.getsockname()[0]
            if ipaddress.ip_address(address).is_loopback and target != ELSEWHERE and not _is_loopback(host):
                continue  # its own name, of which others may know another address
            for _, name in socket.if_nameindex():
                try:
                    told = fcntl.ioctl(asked, ADDRESS_OF_INTERFACE, struct.pack("256s", name.encode()))
                except OSError:  # it has no such address
                    continue
                if socket.inet_ntoa(told[20:24]) == address:
                    return name
    return None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def _in_child(host: str) -> None:
    """Go on in a child; this process hands signals on to it, and tells in a sentence where it was aborted.

    So torch 1.13 ends a process whose store, which lies on ``host``, is lost: in a thread of its own, without a word
    that Python could catch.
    """
    child = 0
    watched = [number for number in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda number, _: os.kill(child, number)) for number in watched}
    child = os.fork()
    if not child:
        os.setpgid(0, 0)  # Ctrl-C is to come once: through the parent
        ctypes.CDLL(None).prctl(END_WITH_PARENT, signal.SIGTERM)
        for number, handler in before.items():
            signal.signal(number, handler)
        return
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -signal.SIGABRT:
        raise InputError(
            f"the node that all meet at, {host}, is lost or does not answer; the same command goes on "
            "from the last checkpoint."
        )
    raise SystemExit(status if status >= 0 else 128 - status)


def launch(arguments: Sequence[str], number: int, nodes: int = 1, rendezvous: str | None = None) -> None:
    """Run ``speecheq`` with ``arguments`` in ``number`` processes on this machine, through torchrun's own functions.

    With several ``nodes`` the same is called on each of them. SystemExit with the status of a process that failed and
    has told why, or 128 + the signal that this process was sent (torchrun then gives the others half a minute to save);
    InputError where a process ended by a signal, or the nodes do not meet.
    """
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher import api

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // number)))
    interface, endpoint, settings = "lo", "localhost:0", {}  # of one machine, whose name need not resolve
    if nodes > 1:
        host, port = _endpoint(rendezvous)
        interface, endpoint = _interface_to(host), rendezvous
        # torchrun too knows a machine by its host name: it is told which one all meet at
        if _is_own(host):
            endpoint = f"localhost:{port}"
        else:
            settings = {"is_host": False}
            _in_child(host)
    if interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    with tempfile.TemporaryDirectory(prefix="speecheq-") as logs:
        config = api.LaunchConfig(
            nodes,
            nodes,
            number,
            run_id="speecheq",
            rdzv_backend="c10d",
            rdzv_endpoint=endpoint,
            rdzv_configs=settings,
            max_restarts=0,
            monitor_interval=0.5,
            **_log_folder(api.LaunchConfig, logs),
        )
        # by default it waits for five minutes, also for a node that is lost; its configuration does not know of that
        api.LocalElasticAgent = partial(LocalElasticAgent, exit_barrier_timeout=TO_END_TOGETHER)
        try:
            with _connections_watched():
                api.elastic_launch(config, sys.executable)("-m", "speecheq.cli", *arguments)
        except ChildFailedError as error:
            statuses = {number: failure.exitcode for number, failure in error.failures.items()}
            for number, status in statuses.items():
                if status < 0:
                    raise InputError(
                        f"process {number} of the training was ended by signal {-status}; the same command goes on "
                        "from the last checkpoint."
                    ) from None
            raise SystemExit(max(statuses.values())) from None
        except SignalException as error:
            raise SystemExit(128 + error.sigval) from None
        except RendezvousError as error:
            raise InputError(
                f"the {nodes} nodes did not meet at {rendezvous}, or lost each other "
                f"({_first_line(error)}); the same command goes on from the last checkpoint."
            ) from error


def _log_folder(config: Any, folder: str) -> dict[str, Any]:
    """Where torchrun keeps notes on its processes; by default a temporary folder that it never removes."""
    if "log_dir" in {item.name for item in fields(config)}:  # until torch 2.2
        return {"log_dir": folder}
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs

    return {"logs_specs": DefaultLogsSpecs(log_dir=folder)}
