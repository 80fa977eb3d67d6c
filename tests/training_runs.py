"""What tests of whole trainings share: toy data, jobs, programs that run trainings, comparisons of the outcome."""

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import yaml
from encoder_models import write_whisper

from speecheq.config.schema import Config
from speecheq.corpora.prepare import PrepareRequest, prepare
from speecheq.dataset.msud import unify
from speecheq.dataset.msud_recipe import Recipe
from speecheq.dataset.phoneme_cuts import phonemes
from speecheq.features.storage import compute_features
from speecheq.models import checkpoint
from speecheq.training.job import Job

ROOT = Path(__file__).resolve().parent.parent
STEPS = 27
# What docs/method.md promises: relative to the largest of a tensor. Ten steps of Adam carry rounding on, so the losses
# of a training are held to TOLERANCE and its parameters to ten times that.
TOLERANCE = 1e-4
# Batch norm, or the softmax of the attention, takes these out again: their gradients are nothing but rounding, which
# Adam turns into whole steps. The running mean behind them moves along.
WITHOUT_EFFECT = ("pooled_norm.bias", "fc.bias", "pooling.scores.bias", "embedding_norm.running_mean")


# ---- data and jobs


def compute_toy_features(toys, name: str, corpus: Path, folder: Path) -> None:
    """Stages 1 and 2 on a toy corpus."""
    script = toys.script(name)
    request = PrepareRequest(corpus, partial=True)
    prepare(getattr(script, name.upper()), script.find_utterances, request, folder / "manifests" / name)
    compute_features(name, folder / "manifests" / name, folder / "fbank" / name)


def unify_toy_data(folder: Path, target: str, protocol: str) -> None:
    """Stage 3 on one emotion corpus and AISHELL-1."""
    unify(Recipe(target, protocol, [target]), "1", folder / "manifests", folder / "fbank", folder / "msud")
    phonemes("aishell", folder / "manifests", folder / "fbank", folder / "phonemes" / "aishell")


def make_toy_data(toys, folder: Path, target: str, protocol: str) -> Path:
    """Stages 1 to 3 on one toy emotion corpus and toy AISHELL-1; returns ``folder``."""
    for name in (target, "aishell"):
        compute_toy_features(toys, name, getattr(toys, name)(folder / "corpora" / name), folder)
    unify_toy_data(folder, target, protocol)
    return folder


# A light model that learns for four steps.
LIGHT = {
    "model": {"kind": "light", "projection": 16, "channels": 16, "bottleneck": 8, "embedding_dim": 16},
    "loss": {"gamma": 0.0},
    "optim": {"epochs": None, "max_steps": 4, "learning_rate": 3e-3},
    "data": {"batch_size": 8, "workers": 0},
    "run": {"threads": 1},
}


def make_encoder_recipe(toys, folder: Path) -> Path:
    """Toy SEQD and AISHELL-1 with filter banks, conf/ with LIGHT and the feature set tiny, and a tiny Whisper."""
    make_toy_data(toys, folder / "data", "seqd", "official")
    write_whisper(folder / "whisper", layers=3, dim=8)
    conf = folder / "conf"
    (conf / "features").mkdir(parents=True)
    described = dict(model="some/id", layers="1 2", normalise="level", licence="MIT", stored_as="float32")
    (conf / "features" / "tiny.yaml").write_text(yaml.safe_dump(described))
    (conf / "light.yaml").write_text(yaml.safe_dump(LIGHT))
    (conf / "systems.yaml").write_bytes((ROOT / "egs/mandarin/conf/systems.yaml").read_bytes())
    return folder


def small_config(**settings) -> Config:
    """A SpeechEQ that learns nano corpora in 45 steps; settings such as ``optim__max_steps=2`` change it."""
    config = Config()
    for name, value in dict(channels=16, mfa_channels=32, scale=4, bottleneck=16, embedding_dim=16).items():
        setattr(config.model, name, value)
    config.optim.epochs, config.optim.max_steps, config.optim.learning_rate = None, 45, 3e-3
    config.data.batch_size, config.data.workers = 8, 0
    config.loss.gamma, config.loss.ctc_backend = 1.0, "torch"
    apply_settings(config, settings)
    return config


def toy_job(data: Path, folder: Path, **settings) -> Job:
    """A training on toy CASIA of a few seconds; settings such as ``optim__max_steps=2`` change it."""
    config = Config()
    config.model = dataclasses.replace(
        config.model, channels=8, mfa_channels=16, scale=2, bottleneck=8, embedding_dim=8, dropout=0.3
    )
    config.optim.epochs, config.optim.max_steps, config.optim.learning_rate = None, STEPS, 1e-3
    config.optim.warmup_steps, config.optim.finetune = 3, 0.3
    config.data.batch_size, config.data.workers, config.data.max_seconds = 7, 0, 0.15
    config.loss.gamma, config.loss.ctc_backend, config.run.checkpoint_steps = 1.0, "torch", 3
    config.run.threads = 1
    apply_settings(config, settings)
    return Job(config, "toy", (), "speecheq", data / "msud/casia.speaker", 1, data / "phonemes/aishell", folder)


def seqd_job(data: Path, folder: Path, **settings) -> Job:
    """The same on toy SEQD, without dropout, which processes draw each for itself."""
    settings = {"model__dropout": 0.0, "optim__max_steps": 10, "optim__learning_rate": 3e-4, **settings}
    return dataclasses.replace(toy_job(data, folder, **settings), msud=data / "msud" / "seqd.official")


def apply_settings(config: Config, settings: dict) -> None:
    """Set what is named as ``part__key``."""
    for name, value in settings.items():
        part, key = name.split("__")
        setattr(getattr(config, part), key, value)


# ---- running them


def run_program(driver: str, program: str, data: Path, out: Path, timeout: float = 300) -> tuple[list, str]:
    """Run a program with all names of the module ``driver`` in a process of its own, which gets the two folders.

    Returns: what it printed, a JSON value a line; what it wrote to standard error.
    """
    done = subprocess.run(
        [sys.executable, "-c", f"from {driver} import *\n{textwrap.dedent(program)}", str(data), str(out)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def train_command(data: Path, folder: Path, *options) -> list:
    """The arguments of ``speecheq`` for a training of four steps on toy SEQD, in nano-speecheq below ``folder``."""
    text = f"--config {ROOT}/tests/egs/nano.yaml --systems-file {ROOT}/egs/mandarin/conf/systems.yaml"
    text += " --systems speecheq --target seqd --protocol official --folds 1 --phonemes aishell"
    return ["train", "--data", data, "--exp", folder, *text.split(), "--set", "loss.ctc_backend=torch", *options]


def last_step(folder: Path) -> int:
    """The last saved step of the training that ``train_command`` runs."""
    return checkpoint.read(folder / "nano-speecheq/seqd.official/fold1/seed1/last.pt")["step"]


def error_lines(shown: str) -> list[str]:
    """The errors in a log, without their times; there must be no traceback."""
    assert "Traceback" not in shown, shown
    return [line.split(" ERROR ", 1)[1] for line in shown.splitlines() if " ERROR " in line]


# ---- what they leave


def scalars(folder: Path) -> dict[str, list]:
    """The (step, value) pairs of each of a training's curves."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def assert_same(one: Path, other: Path) -> None:
    """Two experiment folders hold the same model, bit by bit, and the same way there."""

    def compare(a, b, where):
        assert type(a) is type(b), where
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b), where
        elif isinstance(a, dict):
            assert a.keys() == b.keys(), where
            for key in a:
                if where + [key] not in (["last.pt", "seconds"], ["last.pt", "config"], ["best.pt", "config"]):
                    compare(a[key], b[key], where + [key])
        elif isinstance(a, (list, tuple)):
            assert len(a) == len(b), where
            for index, (x, y) in enumerate(zip(a, b)):
                compare(x, y, where + [index])
        else:
            assert a == b, where

    for name in ("last.pt", "best.pt"):
        compare(checkpoint.read(one / name), checkpoint.read(other / name), [name])
    runs = [json.loads((folder / "run.json").read_text()) for folder in (one, other)]
    assert runs[0]["best"] == runs[1]["best"] and runs[0]["steps"] == runs[1]["steps"]
    curves = [scalars(folder) for folder in (one, other)]
    assert curves[0].keys() == curves[1].keys()
    for tag, values in curves[0].items():
        assert values == curves[1][tag], tag
        assert tag.startswith("dev/") or [step for step, _ in values] == list(range(1, len(values) + 1)), tag


def assert_near(one: Path, other: Path) -> None:
    """Two experiment folders hold nearly the same model, and the same way there as far as the other's curves go."""
    curves = scalars(one)
    for tag, values in scalars(other).items():
        expected = dict(curves[tag])
        assert values[-1][0] == max(expected)
        for step, value in values:
            assert value == pytest.approx(expected[step], rel=TOLERANCE if "norm" not in tag else 0.01, abs=1e-5), tag
    last, other_last = (checkpoint.read(folder / "last.pt") for folder in (one, other))
    assert last["positions"] == other_last["positions"] and last["epoch"] == other_last["epoch"]
    for name, value in last["model"].items():
        difference = (value.double() - other_last["model"][name].double()).abs().max()
        if not name.endswith(WITHOUT_EFFECT):
            assert difference <= 10 * TOLERANCE * max(1e-3, value.abs().max()), (name, difference)
