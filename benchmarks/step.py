#!/usr/bin/env python3
"""Speed and memory of a training step, against SpeechBrain's ECAPA-TDNN of the same width on the same batches.

    python benchmarks/step.py [--device cuda] [--threads 1] [--clips 32] [--seconds 3] [--rounds 7]

Each row runs in a process of its own; the processes take turns, a step a round, so that what else goes on on the
machine falls on all of them. README.md beside this file says what a row is and how SpeechBrain is installed.
"""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from turns import Turns

from speecheq.common.yaml_files import read_yaml
from speecheq.config.layers import apply_layer, flat
from speecheq.config.schema import Config
from speecheq.dataset.batch import MultitaskBatch, TaskBatch
from speecheq.losses import LossWeights, resolve_ctc_backend
from speecheq.models import checkpoint
from speecheq.models.ecapa import AttentiveStatisticsPooling, Res2Convolution, SqueezeExcitation, TdnnUnit
from speecheq.training.precision import Precision
from speecheq.training.step import StepSetup, train_step

SMALL = Path(__file__).resolve().parent.parent / "egs/mandarin/conf/small.yaml"
PHONES_A_SECOND = 9  # of Mandarin read aloud


class Row(NamedTuple):
    """What is trained: ``system`` speecheq or speechbrain, with ``settings`` over the paper's."""

    system: str
    settings: dict[str, object]
    precision: str = "fp32"
    compiled: bool = False


def rows_of(device: str) -> dict[str, Row]:
    """The rows of the table by title; each SpeechEQ is compared with the last SpeechBrain above it."""
    plain = {"model.res_bigru": "none"}
    rows = {
        "SpeechBrain ECAPA-TDNN": Row("speechbrain", {}),
        "SpeechEQ": Row("speecheq", {}),
        "SpeechEQ without Res-BiGRU": Row("speecheq", plain),
    }
    if device == "cuda":
        rows["SpeechBrain ECAPA-TDNN, bf16, compiled"] = Row("speechbrain", {}, "bf16", True)
        rows["SpeechEQ, bf16, compiled"] = Row("speecheq", {}, "bf16", True)
        rows["SpeechEQ without Res-BiGRU, bf16, compiled"] = Row("speecheq", plain, "bf16", True)
    small = flat(read_yaml(SMALL))
    narrow = {name: value for name, value in small.items() if name.startswith(("model.", "loss."))}
    rows["SpeechBrain ECAPA-TDNN, width of small.yaml"] = Row("speechbrain", narrow)
    rows["SpeechEQ, small.yaml"] = Row("speecheq", narrow)
    return rows


def settings_of(row: Row) -> Config:
    """The paper's settings with those of the row."""
    config = Config()
    apply_layer(config, {**row.settings, "run.precision": row.precision}, "benchmarks/step.py")
    return config


def made_up_batch(clips: int, seconds: float, shortest: float, config: Config) -> MultitaskBatch:
    """Three mini-batches of noise with random labels, the same for every row; clips of ``shortest`` to ``seconds``."""
    randomness = torch.Generator().manual_seed(0)
    frames = round(100 * seconds)
    lengths = torch.linspace(frames, 100 * shortest, clips).round().long()

    def of(high: int, *size: int, low: int = 0) -> torch.Tensor:
        return torch.randint(low, high, size, generator=randomness)

    def stream(targets):
        inputs = torch.randn(clips, frames, config.model.feature_dim, generator=randomness)
        inputs[torch.arange(frames) >= lengths[:, None]] = 0
        return TaskBatch(inputs, lengths, [str(number) for number in range(clips)], targets)

    phones = [of(config.model.num_phones, int(length) * PHONES_A_SECOND // 100, low=1) for length in lengths]
    return MultitaskBatch(
        stream({"esc": of(config.model.num_esc, clips), "eis": 4 * torch.rand(clips, generator=randomness)}),
        stream({"gender": of(config.model.num_genders, clips)}),
        stream({"phones": phones}),
    )


def speecheq_step(row: Row, batch: MultitaskBatch, device: torch.device) -> tuple[Callable[[], object], int]:
    """A training step of SpeechEQ, as stage 4 makes it, and the parameters."""
    config = settings_of(row)
    model = checkpoint.new_model(config).to(device)
    if row.compiled:  # all but the GRUs, which stay cuDNN's
        for part in model.modules():
            if isinstance(part, (TdnnUnit, Res2Convolution, SqueezeExcitation, AttentiveStatisticsPooling)):
                part.compile()
    optim = config.optim
    optimizer = torch.optim.Adam(model.parameters(), optim.learning_rate, weight_decay=optim.weight_decay)
    backend = resolve_ctc_backend(config.loss.ctc_backend, device)
    setup = StepSetup(config, backend, Precision(row.precision, device))
    weights = LossWeights(config.loss.alpha, config.loss.beta, config.loss.eta)
    parameters = sum(p.numel() for p in model.parameters())
    return lambda: train_step(model, optimizer, batch, setup, weights), parameters


def speechbrain_step(row: Row, batch: MultitaskBatch, device: torch.device) -> tuple[Callable[[], object], int]:
    """The same update of SpeechBrain's ECAPA-TDNN and its own classifier and loss, on the same three mini-batches."""
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, Classifier
    from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper

    config = settings_of(row)
    size = config.model
    network = ECAPA_TDNN(
        size.feature_dim,
        lin_neurons=size.embedding_dim,
        channels=[size.channels] * 4 + [size.mfa_channels],
        attention_channels=size.bottleneck,
        se_channels=size.bottleneck,
    ).to(device)
    classifier = Classifier(size.embedding_dim, out_neurons=size.num_esc).to(device)
    loss_of = LogSoftmaxWrapper(AdditiveAngularMargin(margin=0.2, scale=30))
    parameters = [*network.parameters(), *classifier.parameters()]
    optimizer = torch.optim.Adam(parameters, config.optim.learning_rate, weight_decay=config.optim.weight_decay)
    precision = Precision(row.precision, device)
    run = torch.compile(network, mode="reduce-overhead") if row.compiled else network
    labels = batch.emotion.targets["esc"].unsqueeze(1)

    def work():
        optimizer.zero_grad(set_to_none=True)
        losses = []
        for stream in batch.streams().values():
            moved = stream.to(device)
            relative = (moved.lengths / moved.inputs.shape[1]).to(device)
            with precision.autocast():
                outputs = classifier(run(moved.inputs, relative))
            losses.append(loss_of(outputs.float(), labels.to(device)))
            losses[-1].backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.optim.clip_gradient)
        optimizer.step()
        return torch.stack([loss.detach() for loss in losses]).tolist()

    return work, sum(p.numel() for p in parameters)


def prepare(row: Row, given: argparse.Namespace, device: torch.device) -> Callable[[], int]:
    """What makes a step of a row; it returns the number of parameters."""
    batch = made_up_batch(given.clips, given.seconds, given.shortest or given.seconds, settings_of(row))
    work, parameters = (speechbrain_step if row.system == "speechbrain" else speecheq_step)(row, batch, device)

    def steps() -> int:
        for _ in range(given.steps):
            work()  # its last line fetches the losses, and so waits for the device
        return parameters

    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1, help="of each process on the CPU")
    parser.add_argument("--clips", type=int, default=32, help="of each of the three mini-batches")
    parser.add_argument("--seconds", type=float, default=3.0, help="of the longest clip")
    parser.add_argument("--shortest", type=float, help="seconds of the shortest clip (default: all as the longest)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=1, help="timed together, a round")
    parser.add_argument("--only", default="", help="rows whose title holds this text")
    given = parser.parse_args()
    print(
        f"torch {torch.__version__}, {given.device}, CPU threads: {given.threads}; 3 x {given.clips} clips of "
        f"{given.seconds:g} s a step, {given.rounds} rounds"
    )
    rows = {title: row for title, row in rows_of(given.device).items() if given.only in title}
    turns = Turns(given.device, given.threads)
    for title, row in rows.items():
        turns.add(title, prepare, row, given)
    print(f"{'':44s} {'M par.':>6s} {'s/step':>7s} {'(min':>7s} {'max)':>7s} {'clips/s':>8s} {'ratio':>6s} {'MiB':>7s}")
    against = math.nan
    for title, measured in turns.take(given.rounds).items():
        seconds, fastest, slowest = (value / given.steps for value in measured[:3])
        if rows[title].system == "speechbrain":
            against = seconds
        print(
            f"{title:44s} {measured.result / 1e6:6.2f} {seconds:7.3f} {fastest:7.3f} {slowest:7.3f} "
            f"{3 * given.clips / seconds:8.1f} {against / seconds:6.2f} {measured.mebibytes:7.0f}"
        )


if __name__ == "__main__":
    main()
