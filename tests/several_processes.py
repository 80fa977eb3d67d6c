"""Names for programs that train in several processes (training_runs.run_program).

The program forks them, so that only one process has to import torch; each then has a network of its own.
"""

import json
import os
import signal  # noqa: F401  for the programs
import sys
import time
import traceback
from pathlib import Path

import torch
import torch.utils.tensorboard
from training_runs import seqd_job

from speecheq.cluster import distributed
from speecheq.cluster.run_task import free_port
from speecheq.common.command_line import exit_status
from speecheq.common.errors import InputError  # noqa: F401  for the programs
from speecheq.common.log import set_up_logging
from speecheq.dataset import batch as batch_module  # noqa: F401  for the programs
from speecheq.models import checkpoint  # noqa: F401  for the programs
from speecheq.training import trainer
from speecheq.training.train import train

torch.set_num_threads(1)
torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # torch 2 imports seconds' worth with the first one
set_up_logging()
data, folder = Path(sys.argv[1]), Path(sys.argv[2])


def processes(size, work, *arguments):
    """Run ``work(rank, *arguments)`` in so many processes.

    Returns: their exit statuses; the seconds from the first end to the last.
    """
    port, children = free_port(), []
    for rank in range(size):
        child = os.fork()
        if child:
            children.append(child)
            continue
        if size > 1:
            places = dict(WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), GLOO_SOCKET_IFNAME="lo", **places)
        os._exit(_status_of(work, rank, *arguments))
    statuses, ends = {}, []
    while len(ends) < size:
        child, status = os.wait()
        statuses[child] = os.waitstatus_to_exitcode(status)
        ends.append(time.monotonic())
    return [statuses[child] for child in children], ends[-1] - ends[0]


def _status_of(work, rank, *arguments):
    def action():
        with distributed.process_group():
            work(rank, *arguments)

    try:
        return exit_status(action)
    except SystemExit as ended:
        return ended.code
    except BaseException:
        traceback.print_exc()
        return 99


def trained(size, out, sabotage=lambda rank: None, **settings):
    """Train on toy SEQD in so many processes, each after ``sabotage(rank)``, and print how they ended."""

    def work(rank):
        sabotage(rank)
        train(seqd_job(data, folder / out, **settings))

    statuses, seconds = processes(size, work)
    print(json.dumps({"statuses": statuses, "seconds": seconds}), flush=True)


def in_step(rank, number, do):
    """A sabotage: call ``do`` in process ``rank`` before its step ``number``."""

    def sabotage(process):
        original, calls = trainer.train_step, []

        def step(*arguments):
            calls.append(1)
            if len(calls) == number:
                do()
            return original(*arguments)

        if process == rank:
            trainer.train_step = step

    return sabotage
