"""A disk that is full, or may not be written to, in every stage: one sentence, what was there stays, and on it goes.

The disk is a small tmpfs, for which one must be root; elsewhere these tests are skipped.
"""

import os
import subprocess

import pytest
from walks import NAMES, Stages, check_equal, check_kept, results

from speecheq.common.log import set_up_logging

SIZE = 64 << 20
# Bytes that are left free, one after the other until the stage can be done.
FREE = [0, *(1 << power for power in range(12, 26, 2))]


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disk")
    give_up = pytest.fail if os.environ.get("SPEECHEQ_CI") and os.geteuid() == 0 else pytest.skip
    if os.geteuid() != 0:
        give_up("only root can mount a tmpfs")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        give_up(f"no tmpfs can be mounted: {mounted.stderr.decode()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="module")
def stages(disk, nano, prepare):
    return Stages(disk, nano("casia", "aishell"), prepare)


def filled(disk, free):
    """A file that leaves so many bytes on the disk."""
    path, room = disk / "filler", os.statvfs(disk)
    size = room.f_bavail * room.f_frsize - free
    if size > 0:
        with open(path, "wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, size)
    return path


def one_sentence(shown, disk, words):
    assert "Traceback" not in shown and "Logging error" not in shown, shown
    errors = [line for line in shown.splitlines() if " ERROR " in line]
    assert len(errors) == 1 and words in errors[0] and str(disk) in errors[0] and errors[0].endswith("."), shown
    assert ".tmp" not in errors[0], "the name that the user knows"


@pytest.mark.parametrize("stage", NAMES)
def test_a_full_disk(stages, disk, stage, capfd):
    stages.undo(stage)
    before = results(disk)
    set_up_logging()
    failed = 0
    for free in FREE:
        filler = filled(disk, free)
        capfd.readouterr()
        status = stages.run(stage)
        filler.unlink(missing_ok=True)
        if status == 0:
            break
        failed += 1
        assert status == 1
        one_sentence(capfd.readouterr().err, disk, "no space left on device; free some space and run the same command")
        check_kept(results(disk), before)
    assert status == 0 and failed
    stages.run_from(stage)
    check_equal(results(disk), stages.expected)


@pytest.fixture
def read_only(disk):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


@pytest.mark.parametrize("stage", NAMES)
def test_a_disk_that_may_not_be_written_to(stages, disk, stage, capfd):
    stages.undo(stage)
    before = results(disk)
    set_up_logging()
    capfd.readouterr()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        status = stages.run(stage)
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert status == 1
    one_sentence(capfd.readouterr().err, disk, "read-only file system; make its folder writable, or name another")
    check_equal(results(disk), before)
    stages.run_from(stage)
    check_equal(results(disk), stages.expected)


def test_data_that_may_only_be_read_can_be_trained_on(stages, read_only, tmp_path):
    assert stages.train(exp=tmp_path / "exp") == 0
    assert list(tmp_path.glob("exp/*/*/fold1/seed1/best.pt"))
