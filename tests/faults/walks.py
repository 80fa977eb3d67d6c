"""What goes wrong around a recipe: the Mandarin one on nano corpora, and what it must leave whatever happened to it."""

import gzip
import json
import os
import re
import shutil
import sys
import time

import torch
from recipes import EGS, NANO, Recipe

from speecheq.cli import main as cli
from speecheq.models import checkpoint

# Far beyond what anything here takes, also on a machine with other work: a test that waits so long has failed.
LIMIT = 240.0
TEMPORARY = (".tmp", ".old")
# What two runs with the same results differ in: times, and sizes of gzip files, whose header holds a temporary name.
TIMES = ("seconds", "train_seconds", "started", "outputs")
TEXTS = (".html", ".md", ".csv", ".tex")
# Seconds, the line of a report that says when a training began, and the program's revision, which may change meanwhile.
UNLIKE = re.compile(r"\b\d+(\.\d+)? s\b|<tr>.*\d\d:\d\d:\d\d.*</tr>|\b[0-9a-f]{10}(-dirty)?\b")


def without_times(value):
    if isinstance(value, dict):
        return {
            name: without_times(item)
            for name, item in value.items()
            if name not in TIMES and not str(name).endswith(".gz")
        }
    if isinstance(value, list):
        return [without_times(item) for item in value]
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    return UNLIKE.sub("", value) if isinstance(value, str) else value


def content(path):
    """What a file says, times aside."""
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".json":
        return without_times(json.loads(path.read_text()))
    if path.suffix == ".pt":
        return without_times(checkpoint.read(path))
    if path.suffix in TEXTS:
        return UNLIKE.sub("", path.read_text())
    return path.read_bytes()


def results(folder):
    """What a walk leaves: name -> content. Logs and the curves' events tell what happened; locks hold nothing."""
    return {
        str(path.relative_to(folder)): content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".log", ".lock") and path.parent.name != "tensorboard"
    }


def check_equal(found, expected):
    """Without the long comparison that pytest would print."""
    assert found.keys() == expected.keys()
    differing = [name for name in expected if found[name] != expected[name]]
    assert not differing


def wait_until(true, what):
    """Poll ``true`` until it is; AssertionError that says ``what`` was waited for."""
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end, f"waited {LIMIT:.0f} s in vain for {what}"
        time.sleep(0.05)


def is_group(number):
    """Whether a process group has a living process."""
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


class Walk:
    """The Mandarin recipe, all stages, on given corpora in one folder."""

    def __init__(self, folder, corpora, warm_venv):
        self.folder, self.recipe, self.warm = folder, Recipe("mandarin"), Recipe("mandarin", warm_venv)
        self.arguments = [
            "--casia",
            corpora / "casia",
            "--aishell",
            corpora / "aishell",
            "--partial",
            "true",
            *self.recipe.where(folder),
            "--set",
            "run.checkpoint_steps=1",
        ]

    def run(self, *options, check=True):
        return self.recipe.run(*self.arguments, *options, check=check)

    def go_on(self):
        """The same command after something happened to it."""
        return self.warm.run(*self.arguments)

    def start(self, log, *options):
        return self.recipe.start(log, *self.arguments, *options)

    def end(self, process, number):
        """Send a signal to the recipe and all its children, and wait until none is left; its exit status."""
        os.killpg(process.pid, number)
        status = process.wait(LIMIT)
        wait_until(lambda: not is_group(process.pid), "the recipe's children to end")
        return status


def check_kept(found, before):
    """All that was there before is as it was, and nothing temporary beside it."""
    check_equal({name: found.get(name) for name in before}, before)
    assert not [name for name in found if any(part.startswith(TEMPORARY) for part in name.split("/"))]


# The stages, in the order of the recipe.
NAMES = ("synthesise", "manifests", "features", "unify", "phonemes", "shards", "train", "score", "report")


class Child:
    """A child of this process that does ``work``, and something ``then`` when it is about to write, rename or remove
    its n-th file or folder below ``root`` (n is ``place``)."""

    EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")

    def __init__(self, work, root, place=0, then=None):
        self.root, self.place, self.then, self.touched = str(root), place, then, 0
        self.reading, writing = os.pipe()
        self.process = os.fork()
        if not self.process:
            status = 70  # of a fault that was not foreseen
            try:
                sys.addaudithook(self._heed)
                status = work()
            except SystemExit as ended:
                status = ended.code
            finally:
                os.write(writing, str(self.touched).encode())
                os._exit(status)
        os.close(writing)

    def _heed(self, event, arguments):
        if event in self.EVENTS or event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE:
            if self.root in str(arguments[0]):
                self.touched += 1
                if self.touched == self.place:
                    self.then()

    def end(self):
        """(exit status as a shell has it, how many files and folders were touched)."""
        with os.fdopen(self.reading) as pipe:
            touched = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        return 128 - status if status < 0 else status, int(touched or 0)


class Stages:
    """The stages of the Mandarin recipe in this process, all done in a folder; each gives its exit status."""

    def __init__(self, root, corpora, prepare):
        self.root, self.corpora, self.prepare = root, corpora, prepare
        self.runs = [
            "--data",
            root / "data",
            "--exp",
            root / "exp",
            "--config",
            NANO,
            "--systems",
            "speecheq",
            "--target",
            "casia",
            "--protocol",
            "random10",
            "--folds",
            "1",
        ]
        self.conf = EGS / "mandarin" / "conf"
        self.learned_from = ["--phonemes", "aishell", "--systems-file", self.conf / "systems.yaml"]
        # the folder of each
        self.written = {
            "synthesise": "corpora/casia",
            "manifests": "data/manifests/casia",
            "features": "data/fbank/casia",
            "unify": "data/msud/casia.random10/fold1",
            "phonemes": "data/phonemes/aishell",
            "shards": "data/shar/stored/casia.random10/fold1",
            "train": "exp/nano-speecheq/casia.random10/fold1/seed1",
            "score": "exp/nano-speecheq/casia.random10/fold1/seed1",
            "report": "exp/tables",
        }
        for name in NAMES:
            assert self.run(name) == 0
        self.expected = results(root)

    def run_from(self, first):
        """A stage and all after it; the report, which takes longest, only where its scores were made anew."""
        for name in NAMES[NAMES.index(first) :]:
            if name != "report" or first in ("train", "score", "report"):
                assert self.run(name) == 0

    def undo(self, stage):
        """Take away what a stage wrote."""
        folder = self.root / self.written[stage]
        if stage == "score":
            for name in ("scored", "scored_embeddings", "scored_training"):
                shutil.rmtree(folder / name)
            for name in ("scores.tsv", "metrics.json", "phones.tsv", "embeddings.npz", "train_scores.tsv"):
                (folder / name).unlink()
        else:
            shutil.rmtree(folder)
        if stage == "report":
            (self.root / "RESULTS.md").unlink()
            (self.root / "exp" / "report.html").unlink()

    def cli(self, *arguments):
        return cli.main(list(map(str, arguments)))

    def run(self, stage, *options):
        return getattr(self, stage)(*options)

    def child(self, stage, place=0, then=None):
        """The stage in a child of this process."""
        return Child(lambda: self.run(stage), self.root, place, then)

    def synthesise(self):
        return self.cli("synth", "--out", self.root / "corpora", "--size", "nano", "--corpora", "casia")

    def manifests(self):
        return max(
            self.prepare(name, self.corpora / name, self.root / "data" / "manifests" / name, "--partial", "true")
            for name in ("casia", "aishell")
        )

    def features(self):
        return self.cli("features", "--data", self.root / "data", "--corpora", "casia", "aishell", "--nj", 1)

    def unify(self, *options):
        return self.cli(
            "unify",
            "--data",
            self.root / "data",
            "--target",
            "casia",
            "--protocol",
            "random10",
            "--folds",
            "1",
            "--corpora",
            "casia",
            *options,
        )

    def phonemes(self):
        return self.cli("phonemes", "--data", self.root / "data", "--corpus", "aishell")

    def shards(self):
        return self.cli("shar", *self.runs, *self.learned_from, "--shard-clips", 8, "--nj", 1)

    def train(self, exp=None):
        return self.cli(
            "train", *self.runs, *self.learned_from, "--set", "run.checkpoint_steps=1", *(["--exp", exp] if exp else [])
        )

    def score(self):
        return self.cli("score", *self.runs, "--train-clips")

    def report(self):
        return self.cli(
            "report",
            "--exp",
            self.root / "exp",
            "--title",
            "faults",
            "--results",
            self.root / "RESULTS.md",
            "--table",
            self.conf / "table.yaml",
        )
