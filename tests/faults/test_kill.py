"""A recipe that is killed at any moment, and started again, ends as one that was not.

The moments are parts of the time that an unbroken run takes, drawn with a fixed seed, one in each of as many equal
spans. SPEECHEQ_KILLS is their number (``make faults``: 50); else each stack takes every other one of 8.
"""

import os
import random
import re
import time
from importlib.util import find_spec

import pytest
from walks import TEMPORARY, check_equal, results

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
    fresh.kill(killed)
    told = (tmp_path / "log").read_text()
    assert "Traceback" not in told
    record_property("stage", stage_in(told))
    fresh.run()
    found = results(fresh.folder)
    left = [name for name in found if any(part.startswith(TEMPORARY) for part in name.split("/"))]
    assert not left, "of the killed run"
    check_equal(found, expected)
