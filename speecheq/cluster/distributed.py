"""The collectives of distributed training under torchrun: shares of mini-batches, gradients, decisions.

Every process iterates over the same mini-batches and takes its share of each: process r of W takes clips r, r + W, ...
Batch norm statistics and losses are computed from the rows of all processes, and gradients are summed: W processes
take the same step as one. A mini-batch with fewer clips than processes is not split: each process computes all of it
and contributes 1/W of the gradient.

Model tensors use nccl between GPUs and gloo between CPUs; decisions (a request to stop, an error, scores) use gloo.
In a single process every function here returns its input.
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

# Imported now: if torch's optimizers imported it later, it would keep the process group as a default argument, gloo's
# threads would outlive destroy_process_group, and freeing a tensor at exit could abort the process.
import torch.distributed.nn
from torch import Tensor, nn

from speecheq.cluster.connections import end_dead_connections, split_endpoint
from speecheq.common.errors import InputError, first_line
from speecheq.common.log import log

T = TypeVar("T")

# Timeout of collectives. The longest wait is for the statistics of global normalisation, which rank 0 computes alone.
PATIENCE = timedelta(minutes=30)
# Set by torchrun or another launcher.
ENVIRONMENT = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

_between_gpus: dist.ProcessGroup | None = None  # nccl
_clips: int | None = None  # in the current mini-batch, if it is split


def launched() -> bool:
    """Whether torchrun started this process."""
    return all(name in os.environ for name in ENVIRONMENT)


def size() -> int:
    """The number of processes (world size)."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if size() > 1 else 0


def is_first() -> bool:
    """Whether this process (rank 0) writes files and logs."""
    return rank() == 0


def _local_rank() -> int:
    return int(os.environ["LOCAL_RANK"]) if size() > 1 else 0


@contextmanager
def process_group(rendezvous: str | None = None) -> Iterator[None]:
    """Inside this context, this process trains with the others that torchrun started; only rank 0 logs.

    They meet at ``rendezvous`` (HOST:PORT, with several nodes) or where torchrun says; raises InputError if they do
    not.
    """
    if not launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    global _between_gpus
    where = rendezvous or f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    options: dict[str, Any] = {}
    try:
        if rendezvous:  # torchrun uses the host name, which may resolve to the loopback
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
        any_rank(0)  # rank 0 may still be writing
    except KeyboardInterrupt:
        if _local_rank() == 0:
            raise
        raise SystemExit(130) from None  # local rank 0 reports it
    finally:
        dist.destroy_process_group()
        _between_gpus = None


def set_device(device: torch.device) -> torch.device:
    """The device of this process: the GPU of its local rank, or the CPU. All processes must call it."""
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
    """The exception for an error that all processes have: only local rank 0 of each machine reports it."""
    return InputError(sentence) if _local_rank() == 0 else SystemExit(1)


@contextmanager
def _end_if_one_is_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise error_on_all_ranks(
            "another process of this training has ended early; run the same command again to continue from the last "
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
    """The maximum over the processes: as a flag, 0 only if it is 0 in all of them."""
    if size() == 1:
        return number
    largest = torch.tensor(number)
    with _end_if_one_is_lost():
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


@contextmanager
def raise_together() -> Iterator[None]:
    """Inside this context, an InputError of one process ends all of them; it is reported once a machine.

    Code inside must not wait for another process. Other exceptions end this process, and so the others too.
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
    """Call ``make`` on rank 0 and return its result in all processes; its InputError ends all."""
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
    """All items in their original order, from the processes' shares."""
    items: list[Any] = [None] * sum(map(len, shares))
    for process, taken in enumerate(shares):
        items[process :: len(shares)] = taken
    return items


def map_shared(work: Callable[[list[T]], list[Any]], items: list[T]) -> list[Any]:
    """The results of ``work``, one an item, in order: each process computes its share and gets all results."""
    with raise_together():
        own = work(share(items))
    return interleaved(all_gather_objects(own)) if len(own) < len(items) else own


@contextmanager
def mini_batch(clips: int) -> Iterator[None]:
    """Inside this context (forward and backward pass), all processes compute one mini-batch of ``clips`` clips."""
    global _clips
    _clips = clips if 1 < size() <= clips else None
    try:
        yield
    finally:
        _clips = None


def is_shared_out() -> bool:
    """Whether the mini-batch is split between the processes."""
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
    """Row numbers in this process' share -> row numbers in the mini-batch."""
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
    """Sum the gradients over the processes, in one message. The same parameters must have gradients in all of them."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if size() == 1 or not gradients:
        return
    flat = _sum(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, summed in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(summed.view_as(gradient))
