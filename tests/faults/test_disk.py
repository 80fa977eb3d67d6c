"""A disk that is full, or may not be written to, in every stage: one sentence, what was there stays, and on it goes.

The disk is a small tmpfs, for which one must be root; elsewhere these tests are skipped.
"""

import os
import shutil
import subprocess

import pytest
from walks import TEMPORARY, check_equal, results

from speecheq import cli
from speecheq.progress import set_up_logging

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


class Stages:
    """The stages of the Mandarin recipe in this process; each function returns an exit status."""

    def __init__(self, root, corpora, prepare, recipes):
        self.root, self.corpora, self.prepare = root, corpora, prepare
        self.runs = ["--data", root / "data", "--exp", root / "exp", "--config", recipes / "nano.yaml", "--systems",
                     "speecheq", "--target", "casia", "--protocol", "random10", "--folds", "1"]
        self.conf = recipes.parent.parent / "egs" / "mandarin" / "conf"
        # what each writes, in the order of the recipe
        self.written = {
            "synthesise": "corpora/casia", "manifests": "data/manifests/casia", "features": "data/fbank/casia",
            "unify": "data/msud/casia.random10/fold1", "phonemes": "data/phonemes/aishell",
            "train": "exp/nano-speecheq/casia.random10/fold1/seed1",
            "score": "exp/nano-speecheq/casia.random10/fold1/seed1", "report": "exp/tables",
        }

    def cli(self, *arguments):
        return cli.main(list(map(str, arguments)))

    def run(self, stage):
        return getattr(self, stage)()

    def synthesise(self):
        return self.cli("synth", "--out", self.root / "corpora", "--size", "nano", "--corpora", "casia")

    def manifests(self):
        return max(self.prepare(name, self.corpora / name, self.root / "data" / "manifests" / name, "--partial", "true")
                   for name in ("casia", "aishell"))

    def features(self):
        return self.cli("features", "--data", self.root / "data", "--corpora", "casia", "aishell", "--nj", 1)

    def unify(self):
        return self.cli("unify", "--data", self.root / "data", "--target", "casia", "--protocol", "random10",
                        "--folds", "1", "--corpora", "casia")

    def phonemes(self):
        return self.cli("phonemes", "--data", self.root / "data", "--corpus", "aishell")

    def train(self, exp=None):
        return self.cli("train", *self.runs, "--phonemes", "aishell", "--systems-file", self.conf / "systems.yaml",
                        "--set", "run.checkpoint_steps=1", *(["--exp", exp] if exp else []))

    def score(self):
        return self.cli("score", *self.runs, "--train-clips")

    def report(self):
        return self.cli("report", "--exp", self.root / "exp", "--title", "faults", "--results",
                        self.root / "RESULTS.md", "--table", self.conf / "table.yaml")


NAMES = ("synthesise", "manifests", "features", "unify", "phonemes", "train", "score", "report")


@pytest.fixture(scope="module")
def stages(disk, nano, prepare, pytestconfig):
    """All stages done on the disk, and what they left."""
    made = Stages(disk, nano("casia", "aishell"), prepare, pytestconfig.rootpath / "tests" / "egs")
    for name in NAMES:
        assert made.run(name) == 0
    return made, results(disk)


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


def check_kept(found, before):
    check_equal({name: found.get(name) for name in before}, before)
    assert not [name for name in found if any(part.startswith(TEMPORARY) for part in name.split("/"))]


def undone(stages, stage):
    """Take away what a stage wrote; what is left."""
    folder = stages.root / stages.written[stage]
    if stage == "score":
        for name in ("scored", "scored_embeddings", "scored_training"):
            shutil.rmtree(folder / name)
        for name in ("scores.tsv", "metrics.json", "phones.tsv", "embeddings.npz", "train_scores.tsv"):
            (folder / name).unlink()
    else:
        shutil.rmtree(folder)
    if stage == "report":
        (stages.root / "RESULTS.md").unlink()
        (stages.root / "exp" / "report.html").unlink()
    return results(stages.root)


@pytest.mark.parametrize("stage", NAMES)
def test_a_full_disk(stages, disk, stage, capfd):
    made, expected = stages
    before = undone(made, stage)
    set_up_logging()
    failed = 0
    for free in FREE:
        filler = filled(disk, free)
        capfd.readouterr()
        status = made.run(stage)
        filler.unlink(missing_ok=True)
        if status == 0:
            break
        failed += 1
        assert status == 1
        one_sentence(capfd.readouterr().err, disk, "no space left on device; free some space and run the same command")
        check_kept(results(disk), before)
    assert status == 0 and failed
    for later in NAMES[NAMES.index(stage):]:  # a training that is made anew has lost its scores
        assert made.run(later) == 0
    check_equal(results(disk), expected)


@pytest.fixture
def read_only(disk):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


@pytest.mark.parametrize("stage", NAMES)
def test_a_disk_that_may_not_be_written_to(stages, disk, stage, capfd, request):
    made, expected = stages
    before = undone(made, stage)
    set_up_logging()
    capfd.readouterr()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        status = made.run(stage)
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert status == 1
    one_sentence(capfd.readouterr().err, disk, "read-only file system; make its folder writable, or name another")
    check_equal(results(disk), before)
    for later in NAMES[NAMES.index(stage):]:
        assert made.run(later) == 0
    check_equal(results(disk), expected)


def test_data_that_may_only_be_read_can_be_trained_on(stages, read_only, tmp_path):
    made, _ = stages
    assert made.train(exp=tmp_path / "exp") == 0
    assert list(tmp_path.glob("exp/*/*/fold1/seed1/best.pt"))
