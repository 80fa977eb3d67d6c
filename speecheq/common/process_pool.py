"""Work that is shared between processes, a bounded part of it in memory at a time."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

import torch

from speecheq.common.errors import InputError


def in_processes(work: Callable, tasks: Iterable[tuple], nj: int, what: str) -> Iterator[Any]:
    """``work(*task)`` of every task, in ``nj`` processes (of one: here); the results come as they are ready.

    InputError that begins with ``what`` where one of the processes was killed.
    """
    if nj <= 1:
        for task in tasks:
            yield work(*task)
        return
    tasks = iter(tasks)
    try:
        with ProcessPoolExecutor(
            nj,
            multiprocessing.get_context("fork"),
            initializer=torch.set_num_threads,  # the processes are the parallelism
            initargs=(1,),
        ) as pool:
            running = {pool.submit(work, *task) for task in islice(tasks, 2 * nj)}
            try:
                while running:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for job in done:
                        yield job.result()
                    for task in islice(tasks, len(done)):
                        running.add(pool.submit(work, *task))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    except BrokenProcessPool as error:
        raise InputError(
            f"{what}: one of {nj} processes was killed, perhaps for want of memory; run the same command again with a "
            "smaller --nj."
        ) from error
