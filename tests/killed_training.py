"""Names for programs that kill trainings (training_runs.run_program).

The program's own process never trains, so that it may fork: every attempt is a child that is as fresh as a new
process, without the seconds that importing torch takes.
"""

import json
import os
import random  # noqa: F401  for the programs
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import torch
import torch.utils.tensorboard
from training_runs import toy_job

from speecheq.common.log import set_up_logging
from speecheq.models import checkpoint
from speecheq.training import trainer
from speecheq.training.train import train

torch.set_num_threads(1)
set_up_logging()
data, folder = Path(sys.argv[1]), Path(sys.argv[2])


def attempt(out, sabotage=None, arguments=(), **settings):
    """Train into ``out`` in a child, after ``sabotage(*arguments)``; its exit status."""
    child = os.fork()
    if not child:
        try:
            if sabotage:
                sabotage(*arguments)
            train(toy_job(data, out, **settings))
            os._exit(0)
        except SystemExit as ended:
            os._exit(ended.code)
        except BaseException:
            traceback.print_exc()
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def report(**values):
    print(json.dumps(values), flush=True)


# ---- sabotages


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def at_moment(seconds):
    threading.Timer(seconds, die).start()


def in_step(number):
    """Die in a step when the optimiser has stepped, and nothing else knows of it."""
    original, calls = trainer.train_step, []

    def step(*arguments):
        row = original(*arguments)
        calls.append(1)
        if len(calls) == number:
            die()
        return row

    trainer.train_step = step


def terminated(number):
    """Get a SIGTERM before a step."""
    original, calls = trainer.train_step, []

    def step(*arguments):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    trainer.train_step = step


def writing(number, name, when):
    """Die in the number-th write of a file: half of it is there, or all of it but its name, or its name too."""
    original, calls = checkpoint.whole_file, []

    def file(path):
        context = original(path)
        if Path(path).name != name:
            return context
        calls.append(1)
        return context if len(calls) < number else Dying(context, when)

    checkpoint.whole_file = file


class Dying:
    """A file that is being written."""

    def __init__(self, context, when):
        self.context, self.when = context, when

    def __enter__(self):
        self.temporary = self.context.__enter__()
        return self if self.when == "half" else self.temporary

    def write_bytes(self, content):
        self.temporary.write_bytes(content[: len(content) // 2])
        die()

    def __exit__(self, *error):
        if self.when == "before its name":
            die()
        self.context.__exit__(*error)
        die()


def while_workers_start():
    """Die between the start of a worker and its first own step."""
    from speecheq.dataset import loader

    original = loader._end_with_training

    def late(worker):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(0.3)
        original(worker)

    loader._end_with_training = late
