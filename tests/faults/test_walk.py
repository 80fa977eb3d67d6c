"""A whole recipe that is killed, ended or started twice at once, and started again, ends as one that was not.

The moments of the kills are parts of the time that an unbroken run takes, drawn with a fixed seed, one in each of as
many equal spans. SPEECHEQ_KILLS is their number (``make faults``: 50); else each stack takes every other one of 8.
"""

import os
import random
import re
import signal
import time
from importlib.util import find_spec

import pytest
from walks import check_kept, results, wait_until

KILLS = int(os.environ.get("SPEECHEQ_KILLS", "0"))


def moments(number):
    """Parts of a run's time, in (0, 1)."""
    drawn = random.Random(f"{number} kills")
    return [(span + drawn.random()) / number for span in range(number)]


def chosen():
    return moments(KILLS) if KILLS else moments(8)[find_spec("k2") is None :: 2]


@pytest.fixture(scope="module")
def unbroken(walk):
    """What an unbroken run leaves, and the seconds that it takes."""
    started = time.monotonic()
    walk.run()
    seconds = time.monotonic() - started
    return results(walk.folder), seconds


def stage_in(told):
    return ([int(number) for number in re.findall(r" stage (\d): ", told)] or [0])[-1]


@pytest.mark.parametrize("moment", chosen(), ids="{:.3f}".format)
def test_a_killed_recipe_goes_on_and_ends_as_an_unbroken_one(unbroken, fresh, moment, tmp_path, record_property):
    expected, seconds = unbroken
    killed = fresh.start(tmp_path / "log")
    time.sleep(moment * seconds)  # nothing is asserted of where it is then
    fresh.end(killed, signal.SIGKILL)
    told = (tmp_path / "log").read_text()
    assert "Traceback" not in told
    record_property("stage", stage_in(told))
    fresh.go_on()
    check_kept(results(fresh.folder), expected)


def test_an_ended_recipe_leaves_nothing_half(fresh, tmp_path):
    """As a scheduler ends it, in the midst of a stage that is no training."""
    log = tmp_path / "log"
    started = fresh.start(log)
    wait_until(lambda: "stage 2: features" in log.read_text(), "stage 2")
    os.killpg(started.pid, signal.SIGCONT)
    assert fresh.end(started, signal.SIGTERM) in (-signal.SIGTERM, 128 + signal.SIGTERM)
    assert "Traceback" not in log.read_text()
    check_kept(results(fresh.folder), {})


def test_two_at_once_wait_or_are_refused(unbroken, fresh, tmp_path):
    logs = [tmp_path / name for name in "ab"]
    started = [fresh.start(log) for log in logs]
    statuses = [process.wait() for process in started]
    for status, log in zip(statuses, logs):
        told = log.read_text()
        errors = [line for line in told.splitlines() if " ERROR " in line]
        assert "Traceback" not in told
        assert status == 0 and not errors or status == 1 and len(errors) == 1 and "wait until it has ended" in errors[0]
    assert 0 in statuses
    fresh.go_on()
    check_kept(results(fresh.folder), unbroken[0])
