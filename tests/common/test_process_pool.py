"""A process pool whose processes end, or are killed."""

import os
import signal

import pytest

from speecheq.common.errors import InputError
from speecheq.common.process_pool import in_processes


def work(number, _):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.fixture
def sigpipe_ends_it():
    """As in the command line."""
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGPIPE, before)


@pytest.mark.parametrize("size", [1, 10_000_000], ids=["short tasks", "tasks longer than a pipe"])
def test_a_killed_process_ends_the_work_with_one_sentence(size, sigpipe_ends_it):
    tasks = ((number, bytes(size)) for number in range(20))
    with pytest.raises(InputError, match="stage 2: one of 2 processes was killed"):
        list(in_processes(work, tasks, 2, "stage 2"))


def test_results_of_processes_are_complete():
    assert sorted(in_processes(abs, ((-number,) for number in range(20)), 3, "")) == list(range(20))
