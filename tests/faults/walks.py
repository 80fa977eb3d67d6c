"""What goes wrong around a recipe: the Mandarin one on nano corpora, and what it must leave whatever happened to it."""

import gzip
import json
import os
import re
import signal

import torch
from recipes import Recipe

from speecheq import checkpoint

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
        return {name: without_times(item) for name, item in value.items()
                if name not in TIMES and not str(name).endswith(".gz")}
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
    return {str(path.relative_to(folder)): content(path) for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix not in (".log", ".lock") and path.parent.name != "tensorboard"}


def check_equal(found, expected):
    """Without the long comparison that pytest would print."""
    assert found.keys() == expected.keys()
    differing = [name for name in expected if found[name] != expected[name]]
    assert not differing


class Walk:
    """The Mandarin recipe, all stages, on given corpora in one folder."""

    def __init__(self, folder, corpora):
        self.folder, self.recipe = folder, Recipe("mandarin")
        self.arguments = ["--casia", corpora / "casia", "--aishell", corpora / "aishell", "--partial", "true",
                          *self.recipe.where(folder), "--set", "run.checkpoint_steps=1"]

    def run(self, *options, check=True):
        return self.recipe.run(*self.arguments, *options, check=check)

    def start(self, log, *options):
        return self.recipe.start(log, *self.arguments, *options)

    def kill(self, process):
        """At once and with all its children, as a power cut does."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
