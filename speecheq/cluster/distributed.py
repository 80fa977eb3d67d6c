"""The collectives of a training in several processes, as torchrun starts them: shares of work, gradients, decisions.

Every process walks through the same mini-batches and takes its share of each: process r of W the clips r, r + W, ...
What depends on the whole mini-batch (the statistics of batch norm, the losses) is computed from the rows of all
processes, and the gradients of all are added up: W processes take the step that one would take. A mini-batch of fewer
clips than processes is not shared out: each process computes all of it and adds a W-th part of the gradient.

Tensors of the model travel by nccl between GPUs and by gloo between CPUs; what the processes agree on (a request to
stop, an error, scores) travels by gloo. In a single process every function here gives back what it is given.
"""

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

# Imported later, as torch's optimizers do, it would keep the group of all processes as a default argument: gloo's
# threads would outlive destroy_process_group, and one that frees a tensor while Python ends aborts the process.
import torch.distributed.nn
from torch import Tensor, nn

from speecheq.cluster.connections import end_dead_connections, split_endpoint
from speecheq.common.errors import InputError, first_line
from speecheq.common.log import log

T = TypeVar("T")

# A process that waits longer for another takes it for lost, though its machine answers. What takes longest while the
# others wait are the statistics of global normalisation, which the first process computes alone.
PATIENCE = timedelta(minutes=30)
# Set by torchrun, or by whatever starts the processes in its place.
ENVIRONMENT = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

_between_gpus: dist.ProcessGroup | None = None  # of nccl
_clips: int | None = None  # in the mini-batch that is being shared out


def launched() -> bool:
    """Whether torchrun started this process."""
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


def _local_rank() -> int:
    return int(os.environ["LOCAL_RANK"]) if size() > 1 else 0


@contextmanager
def process_group(rendezvous: str | None = None) -> Iterator[None]:
    """While it is entered, this process trains together with the others that torchrun started; only the first logs.

    They meet at ``rendezvous`` (HOST:PORT, with several nodes) or where torchrun says; InputError if they do not.
    """
    if not launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    global _between_gpus
    where = rendezvous or f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    options: dict[str, Any] = {}
    try:
        if rendezvous:  # torchrun names a machine by its host name, which may resolve to the loopback
            host, port = split_endpoint(rendezvous)
            options = {
                "store": dist.PrefixStore("speecheq", dist.TCPStore(host, port, timeout=PATIENCE)),
                "rank": int(os.environ["RANK"]),
                "world_size": int(os.environ["WORLD_SIZE"]),
            }
        dist.init_process_group("gloo", timeout=PATIENCE, **options)
    except RuntimeError as error:
        raise InputError(
            f"process {os.environ['RANK']} of {os.environ['WORLD_SIZE']} does not reach the others at {where} "
            f"({first_line(error)})."
        ) from error
    end_dead_connections()
    if not is_first():
        log.setLevel(logging.ERROR)
    try:
        yield
        any_rank(0)  # the first process may still be writing
    except KeyboardInterrupt:
        if _local_rank() == 0:
            raise
        raise SystemExit(130) from None  # the first process of the machine reports it
    finally:
        dist.destroy_process_group()
        _between_gpus = None


def set_device(device: torch.device) -> torch.device:
    """The device of this process: the GPU with its number on this machine, or the CPU. All processes call it."""
    global _between_gpus
    if size() == 1 or device.type != "cuda":
        return device
    own = torch.device("cuda", _local_rank())
    torch.cuda.set_device(own)
    if _between_gpus is None:
        _between_gpus = dist.new_group(backend="nccl", timeout=PATIENCE)
    return own


# ---- collectives


def error_on_all_ranks(sentence: str) -> BaseException:
    """What every process raises for an error that all have met: only the first of each machine reports it."""
    return InputError(sentence) if _local_rank() == 0 else SystemExit(1)


@contextmanager
def _end_if_one_is_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise error_on_all_ranks(
            "another process of this training has ended before its time; the same command goes on from the last "
            "checkpoint."
        ) from error


def _group(tensor: Tensor) -> dist.ProcessGroup | None:
    return _between_gpus if tensor.is_cuda else None


def _sum(tensor: Tensor) -> Tensor:
    """Sum over the processes, in place."""
    with _end_if_one_is_lost():
        dist.all_reduce(tensor, group=_group(tensor))
    return tensor


def gather(tensor: Tensor) -> Tensor:
    """A tensor (...) of each process, all of one shape -> (W, ...), in the order of the ranks, without a gradient."""
    tensor = tensor.detach().contiguous()
    found = [torch.empty_like(tensor) for _ in range(size())]
    with _end_if_one_is_lost():
        dist.all_gather(found, tensor, group=_group(tensor))
    return torch.stack(found)


def all_gather_objects(value: Any) -> list[Any]:
    """The values of all processes, in the order of their ranks."""
    if size() == 1:
        return [value]
    found: list[Any] = [None] * size()
    with _end_if_one_is_lost():
        dist.all_gather_object(found, value)
    return found


def any_rank(number: int) -> int:
    """The largest of the processes' numbers: as a flag, 0 only if it is 0 in all of them."""
    if size() == 1:
        return number
    largest = torch.tensor(number)
    with _end_if_one_is_lost():
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


@contextmanager
def raise_together() -> Iterator[None]:
    """An InputError that one process raises inside ends all of them; it is reported once a machine.

    Nothing inside may wait for another process. Exceptions of other kinds end this process, and so the others too.
    """
    if size() == 1:
        yield
        return
    own = None
    try:
        yield
    except InputError as error:
        own = error
    if any_rank(int(own is not None)):
        sentences = all_gather_objects(own and str(own))
        raise error_on_all_ranks(next(sentence for sentence in sentences if sentence is not None)) from own


def broadcast(make: Callable[[], T]) -> T:
    """Call ``make`` in the first process and give its result to all; its InputError ends all."""
    if size() == 1:
        return make()
    box: list[Any] = [None]
    with raise_together():
        if is_first():
            box[0] = make()
    with _end_if_one_is_lost():
        dist.broadcast_object_list(box)
    return box[0]


# ---- shares of work


def share(items: list[T]) -> list[T]:
    """This process' share of ``items``; all of them if they are fewer than the processes."""
    return items[rank() :: size()] if len(items) >= size() else items


def interleaved(shares: Sequence[Sequence[T]]) -> list[T]:
    """All items in their order, from the shares that the processes took."""
    items: list[Any] = [None] * sum(map(len, shares))
    for process, taken in enumerate(shares):
        items[process :: len(shares)] = taken
    return items


def map_shared(work: Callable[[list[T]], list[Any]], items: list[T]) -> list[Any]:
    """The results of ``work``, one an item in their order: each process does its share, all have all results."""
    with raise_together():
        own = work(share(items))
    return interleaved(all_gather_objects(own)) if len(own) < len(items) else own


@contextmanager
def mini_batch(clips: int) -> Iterator[None]:
    """While it is entered (forward and backward pass), all processes compute one mini-batch of so many clips."""
    global _clips
    _clips = clips if 1 < size() <= clips else None
    try:
        yield
    finally:
        _clips = None


def is_shared_out() -> bool:
    """Whether this process computes a share of a mini-batch, not all of it."""
    return _clips is not None


def gather_rows(own: Tensor) -> Tensor:
    """Rows (n, ...) of the share -> all rows (N, ...) of the mini-batch, in order; gradients reach the own ones."""
    if _clips is None:
        return own
    rows = math.ceil(_clips / size())
    own = torch.cat([own, own.new_zeros(rows - len(own), *own.shape[1:])])
    by_process = list(gather(own))
    by_process[rank()] = own
    return torch.stack(by_process, 1).flatten(0, 1)[:_clips]


def mini_batch_rows(rows: Tensor) -> Tensor:
    """Row numbers in this process' share -> the same clips' row numbers in the mini-batch."""
    return rows if _clips is None else rows * size() + rank()


def mini_batch_mean(mean: Tensor, count: int | Tensor) -> Tensor:
    """The mean () over ``count`` elements of the share -> over those of all; gradients reach the own elements only."""
    if _clips is None:
        return mean
    own = mean * count
    total, elements = _sum(torch.stack([own.detach(), own.new_tensor(float(count))]))
    return (own + (total - own.detach())) / elements.clamp(min=1)


def scale_for_sum(loss: Tensor) -> Tensor:
    """A mini-batch's loss (), scaled so that the gradients of all processes add up to its gradient."""
    return loss if is_shared_out() or size() == 1 else loss / size()


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the processes' gradients, all in one message. In every process the same parameters have a gradient."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if size() == 1 or not gradients:
        return
    flat = _sum(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, summed in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(summed.view_as(gradient))
