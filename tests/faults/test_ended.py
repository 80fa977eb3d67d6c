"""Every stage, ended by a signal in the middle of its work with files: nothing half is left, and on it goes.

A child of this process runs the stage, and sends itself the signal when it is about to write, rename or remove its
n-th file or folder. Which n is tried is drawn with a fixed seed, another on each stack; with SPEECHEQ_KILLS in the
environment (``make faults``) they are more.
"""

import os
import random
import signal
import sys

import pytest
from walks import NAMES, TEMPORARY, Stages, check_equal, results

from speecheq.common.log import set_up_logging

PLACES = 20 if os.environ.get("SPEECHEQ_KILLS") else 1


@pytest.fixture(scope="module")
def stages(nano, prepare, tmp_path_factory):
    return Stages(tmp_path_factory.mktemp("ended"), nano("casia", "aishell"), prepare)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("stage", NAMES)
def test_a_stage_that_is_ended_anywhere_goes_on(stages, stage, number, capfd):
    set_up_logging()
    stages.undo(stage)
    status, touched = stages.child(stage).end()
    assert status == 0 and touched > 1
    drawn = random.Random(f"{stage} {number} {sys.version_info}")
    for place in drawn.sample(range(1, touched + 1), min(touched, PLACES)):
        stages.undo(stage)
        capfd.readouterr()
        status, _ = stages.child(stage, place, lambda: os.kill(os.getpid(), number)).end()
        told = capfd.readouterr().err
        assert "Traceback" not in told, told
        if number == signal.SIGKILL:
            assert status == 128 + number
        else:
            # a training may have made its last step
            assert status == 128 + number or status == 0 and stage == "train", told
            assert not [path for path in stages.root.rglob("*") if path.name.startswith(TEMPORARY)], place
        stages.run_from(stage)
        assert not [path for path in stages.root.rglob("*") if path.name.startswith(TEMPORARY)], place
        check_equal(results(stages.root), stages.expected)
