"""Two processes at the same stage of the same folder: the second waits, or is refused, and nothing is spoilt."""

import os
import sys

import pytest
from walks import NAMES, Child, Stages, check_equal, check_kept, results, wait_until

from speecheq.common.log import set_up_logging

# The first is held when it is about to touch its so many-th file: it has its lock then.
PLACE = 4


@pytest.fixture(scope="module")
def stages(nano, prepare, tmp_path_factory):
    return Stages(tmp_path_factory.mktemp("twice"), nano("casia", "aishell"), prepare)


class Held:
    """A stage in a child of this process that is held in the midst of its work, until it is told to go on."""

    def __init__(self, stages, stage):
        self.at_place, at_place = os.pipe()
        go_on, self.go_on = os.pipe()

        def wait():
            os.close(self.go_on)
            os.write(at_place, b"x")
            os.read(go_on, 1)

        self.child = stages.child(stage, PLACE, wait)
        assert os.read(self.at_place, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.go_on)  # what waits goes on, also after a failure here

    def end(self):
        os.write(self.go_on, b"x")
        return self.child.end()[0]


@pytest.mark.parametrize("stage", NAMES)
def test_the_second_waits_or_is_refused(stages, stage, tmp_path):
    stages.undo(stage)
    log, refused = tmp_path / "log", stage == "train"

    def second():
        sys.stderr = open(log, "w", buffering=1)
        set_up_logging()
        return stages.run(stage)

    with Held(stages, stage) as first:
        other = Child(second, stages.root)
        words = (
            "is writing there; wait until it has ended" if refused else "is writing there; waiting until it has ended"
        )
        wait_until(lambda: log.exists() and words in log.read_text(), f"the second to say that the first {words}")
        if refused:
            assert other.end()[0] == 1
        assert first.end() == 0
        assert refused or other.end()[0] == 0
    told = log.read_text()
    assert "Traceback" not in told
    assert refused or told.count("skipped") >= (stage != "report"), "a report is always written"
    stages.run_from(stage)
    check_kept(results(stages.root), stages.expected)


def test_what_a_training_reads_is_not_changed_under_it(stages, capfd):
    set_up_logging()
    stages.undo("train")
    before = results(stages.root)
    with Held(stages, "train") as training:
        capfd.readouterr()
        assert stages.run("unify", "--dev", "speaker") == 1
        told = capfd.readouterr().err
        assert "fold1: another process is reading this folder, which would be changed; wait until it has ended" in told
        check_kept(results(stages.root), before)
        assert training.end() == 0
    stages.run_from("train")
    check_equal(results(stages.root), stages.expected)
