"""Measuring side by side: each thing in a process of its own, a turn a round, so that all feel the same machine."""

import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

# before torch starts its threads: one that spins while it waits takes the core from the process that is measured
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch


class Measured(NamedTuple):
    """``seconds`` is the median over the rounds; ``mebibytes`` the peak of memory beyond what loading took."""

    seconds: float
    fastest: float
    slowest: float
    mebibytes: float
    result: Any  # what the work returned last


def _serve(pipe: Any, threads: int, device: torch.device, prepare: Callable, arguments: tuple) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        work = prepare(*arguments, device)
        for _ in range(2 if device.type == "cpu" else 10):
            result = work()
    except ImportError as error:
        pipe.send(str(error))
        return
    pipe.send(None)
    # seconds of the processor, where they are those that the work would take with the core to itself
    clock = time.process_time if device.type == "cpu" and threads == 1 else time.perf_counter
    while pipe.recv():
        start = clock()
        result = work()
        pipe.send(clock() - start)
    if device.type == "cuda":
        pipe.send((torch.cuda.max_memory_allocated(device) / 2**20, result))
    else:
        pipe.send(((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10, result))


class Turns:
    """Processes that wait for their turns; one that lacks a library is named and left out."""

    def __init__(self, device: str, threads: int):
        self.device, self.threads = torch.device(device), threads
        self.pipes: dict[str, Any] = {}
        os.environ["OMP_NUM_THREADS"] = str(threads)

    def add(self, name: str, prepare: Callable, *arguments: Any) -> None:
        """Start a process that calls ``prepare(*arguments, device)`` and then, at its turns, what that returned.

        The work ends by fetching something from the device, so that nothing is left to do when it returns.
        """
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        context.Process(target=_serve, args=(there, self.threads, self.device, prepare, arguments), daemon=True).start()
        there.close()
        refusal = here.recv()
        if refusal is None:
            self.pipes[name] = here
        else:
            print(f"{name} is not measured: {refusal} (benchmarks/README.md says how to install what is compared with)")

    def take(self, rounds: int) -> dict[str, Measured]:
        """Give each process a turn a round; what was measured, by name."""
        times: dict[str, list[float]] = {name: [] for name in self.pipes}
        for _ in range(rounds):
            for name, pipe in self.pipes.items():
                pipe.send(True)
                times[name].append(pipe.recv())
        measured = {}
        for name, pipe in self.pipes.items():
            pipe.send(False)
            took = times[name]
            measured[name] = Measured(statistics.median(took), min(took), max(took), *pipe.recv())
        return measured
