"""The cores of this machine, and a process pool with bounded memory."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any

from speecheq.common.errors import InputError


def usable_cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _use_one_thread() -> None:
    """One torch thread a process, since the processes already use all cores."""
    import torch

    torch.set_num_threads(1)


def _end_feeding(pool: ProcessPoolExecutor) -> None:
    """Let a broken pool end: older Pythons wait forever to write a long task that nobody reads (gh-94777)."""
    queue = getattr(pool, "_call_queue", None)
    if queue is not None:
        queue._reader.close()


@contextmanager
def _without_sigpipe() -> Iterator[None]:
    """A pool whose process was killed writes to a closed pipe: an error it expects, not the end of this process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGPIPE, before)


def in_processes(work: Callable, tasks: Iterable[tuple], nj: int, what: str) -> Iterator[Any]:
    """Yield ``work(*task)`` for every task, computed in ``nj`` processes (with 1: in this one).

    Results come in order of completion. Raises InputError, which begins with ``what``, if a process was killed or
    crashed.
    """
    if nj <= 1:
        for task in tasks:
            yield work(*task)
        return
    tasks = iter(tasks)
    try:
        with _without_sigpipe(), ProcessPoolExecutor(nj, multiprocessing.get_context("fork"), _use_one_thread) as pool:
            running = {pool.submit(work, *task) for task in islice(tasks, 2 * nj)}
            try:
                while running:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for job in done:
                        yield job.result()
                    running |= {pool.submit(work, *task) for task in islice(tasks, len(done))}
            except BaseException as error:
                if isinstance(error, BrokenProcessPool):
                    _end_feeding(pool)
                pool.shutdown(cancel_futures=True)
                raise
    except BrokenProcessPool as error:
        raise InputError(
            f"{what}: one of {nj} processes was killed, perhaps for lack of memory, or crashed; run the same command "
            "again with a smaller --nj."
        ) from error
