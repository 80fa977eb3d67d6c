"""A step of Algorithm 1: three mini-batches, four losses, one update."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from speecheq.cluster import distributed
from speecheq.common.log import log
from speecheq.config.schema import Config
from speecheq.dataset.batch import LABEL_FREE_STREAMS, MultitaskBatch, TaskBatch
from speecheq.dataset.phones.lattice import CtcGraph, ctc_graph, first_of
from speecheq.features.augment_features import Mixup
from speecheq.losses import (
    LossWeights,
    combine,
    ctc_loss,
    eis_loss,
    emitted,
    emotion_ctc_loss,
    focal_loss,
    reconstruction_loss,
)
from speecheq.models import Predictions
from speecheq.models.normalisation import Normalised
from speecheq.seqm import UNSPECIFIED
from speecheq.training.precision import NotFinite, Precision, copy_buffers, explain_out_of_memory, restore_buffers

# The heads that each stream's loss needs, beside those of MTL-AUG (LABEL_FREE_STREAMS).
TASKS = {"emotion": ("esc", "eis"), "gender": ("gender",), "phoneme": ("phoneme",), "unlabelled": ()}

# Why CTC leaves out an utterance, by number: not at all, too few frames, nothing left of its lattice.
REASONS = ("", "", " (no path is left after pruning)")


@dataclass(frozen=True)
class StepSetup:
    """The settings common to all steps of a training.

    ``ctc_backend`` is k2 or torch (none: no phonemes are learned), ``precision`` also names the device, and
    ``class_weights`` (K,) weigh the ESC classes (None: all alike).
    """

    config: Config
    ctc_backend: str
    precision: Precision
    class_weights: Tensor | None = None

    @property
    def device(self) -> torch.device:
        return self.precision.device


class StreamLoss(NamedTuple):
    """What one stream's mini-batch gives: its part () of equation 4, the losses () by task, utterances without CTC."""

    total: Tensor
    by_task: dict[str, Tensor]
    ctc_left_out: list[str]


class StepLosses(NamedTuple):
    """What all mini-batches of a step give: the parts () of equation 4 by stream, and as in StreamLoss."""

    by_stream: dict[str, Tensor]
    by_task: dict[str, Tensor]
    ctc_left_out: list[str]


def format_values(values: dict[str, Any]) -> str:
    """Numbers by name as a piece of a log line; those that are None are left out."""
    return " ".join(f"{name} {value:.3f}" for name, value in values.items() if value is not None)


def class_shares(stream: TaskBatch, num_classes: int) -> Tensor:
    """The soft labels (N, num_classes) of an emotion mini-batch: each clip's votes, or all of its own class."""
    shares = torch.eye(num_classes)[stream.targets["esc"]]
    for row, voted in zip(shares, stream.targets["class_shares"]):
        if len(voted):
            row.copy_(voted)
    return shares


def classification_loss(
    logits: Tensor,
    targets: Tensor,
    mixup: Mixup | None,
    config: Config,
    class_weights: Tensor | None = None,
    shares: Tensor | None = None,
) -> Tensor:
    """The focal loss () of logits (N, K) and targets (N,), or soft labels ``shares`` (N, K).

    Of a clip that ``mixup`` mixed, both labels count by their parts.
    """
    clip_weights = None
    if mixup is not None:
        logits, targets = torch.cat([logits, logits]), torch.cat([targets, targets[mixup.partners]])
        shares = None if shares is None else torch.cat([shares, shares[mixup.partners]])
        clip_weights = torch.cat([mixup.shares, 1 - mixup.shares])
    return focal_loss(
        logits, targets, config.loss.gamma, class_weights, config.loss.label_smoothing, clip_weights, shares
    )


def label_free_losses(
    model: Normalised, stream: TaskBatch, predictions: Predictions, tasks: Sequence[str]
) -> dict[str, Tensor]:
    """The losses () of MTL-AUG by task, for those of its tasks in ``tasks``.

    The decoder predicts normalised features, as the model takes them, and is compared with the clean ones.
    """
    losses: dict[str, Tensor] = {}
    if "augmentation" in tasks:
        assert predictions.augmentation_logits is not None
        logits = distributed.gather_rows(predictions.augmentation_logits)
        losses["augmentation"] = focal_loss(logits, distributed.gather_rows(stream.targets["augmentation"]), gamma=0.0)
    if "reconstruction" in tasks:
        assert predictions.reconstruction is not None
        with torch.no_grad():
            clean = model.cmvn(stream.clean, stream.lengths)
        loss = reconstruction_loss(predictions.reconstruction, clean, stream.lengths)
        losses["reconstruction"] = distributed.mini_batch_mean(loss, stream.lengths.sum())
    return losses


def ctc_graphs(stream: TaskBatch, config: Config) -> list[CtcGraph]:
    """The CTC graph of each utterance of a phoneme mini-batch, of what the settings ``phonemes`` sum over."""
    every = config.phonemes.pronunciations == "all"
    return [
        ctc_graph(words if every else first_of(words), config.phonemes.pause(config.model.num_phones))
        for words in stream.targets["words"]
    ]


def ctc_emotion_losses(predictions: Predictions, classes: Tensor, setup: StepSetup) -> tuple[Tensor, dict[str, Tensor]]:
    """Of a model that learns emotions by CTC: the loss () of ESC for this process' classes (N,), and what it emits.

    The share of blank and the labels of a clip stand beside the losses, since a model that collapses to blank has a
    loss that still falls.
    """
    logits, lengths, repeats = predictions.esc_frame_logits, predictions.lengths, predictions.esc_labels
    assert logits is not None and repeats is not None
    backend = "torch" if setup.ctc_backend == "none" else setup.ctc_backend
    result = emotion_ctc_loss(logits, lengths, classes, repeats, backend)
    counts = result.feasible.sum()
    found = emitted(logits, lengths)
    means = {"esc_blank": found.blank, "esc_emitted": found.labels}
    clips = torch.tensor(len(classes))
    return (
        distributed.mini_batch_mean(result.loss, counts),
        {name: distributed.mini_batch_mean(mean, clips) for name, mean in means.items()},
    )


def stream_loss(model: Normalised, name: str, stream: TaskBatch, setup: StepSetup, weights: LossWeights) -> StreamLoss:
    """The losses of one stream's mini-batch.

    CTC leaves out utterances with fewer frames than their phones need, and those whose paths k2 has pruned away.
    MTL-AUG adds the losses that need no labels; those of the unlabelled stream are named unlabelled_<task>. If the
    mini-batch is split between processes, these are the losses of all of it, with the gradients of this process' share.
    """
    config, gather_rows, mixup = setup.config, distributed.gather_rows, stream.changes.mixup
    if mixup is not None:
        mixup = Mixup(gather_rows(distributed.mini_batch_rows(mixup.partners)), gather_rows(mixup.shares))
    with setup.precision.autocast():
        change = stream.changes.to(stream.inputs.device).apply
        label_free = config.label_free_tasks() if name in LABEL_FREE_STREAMS else ()
        predictions = model(stream.inputs, stream.lengths, change, tasks=(*TASKS[name], *label_free))
    losses = label_free_losses(model, stream, predictions, label_free)
    left_out: list[str] = []
    shown: dict[str, Tensor] = {}  # beside the losses
    if name == "emotion":
        esc, eis = gather_rows(stream.targets["esc"]), gather_rows(stream.targets["eis"])
        eis = eis if mixup is None else mixup.mix_eis(eis, UNSPECIFIED)
        if predictions.esc_frame_logits is not None:
            losses["esc"], shown = ctc_emotion_losses(predictions, stream.targets["esc"], setup)
        else:
            logits = gather_rows(predictions.esc_logits)
            shares = gather_rows(class_shares(stream, logits.shape[1])) if config.loss.soft_labels else None
            losses["esc"] = classification_loss(logits, esc, mixup, config, setup.class_weights, shares)
        losses["eis"] = eis_loss(gather_rows(predictions.eis), eis, config.loss.label_ignore)
    elif name == "gender":
        gender = gather_rows(stream.targets["gender"])
        losses["gender"] = classification_loss(gather_rows(predictions.gender_logits), gender, mixup, config)
    elif name == "phoneme":
        graphs = ctc_graphs(stream, config) if config.phonemes.lattices else None
        result = ctc_loss(
            predictions.phoneme_logits, predictions.lengths, stream.targets["phones"], setup.ctc_backend, graphs
        )
        losses["phoneme"] = distributed.mini_batch_mean(result.loss, result.feasible.sum())
        reasons = gather_rows(torch.where(result.feasible, 0, 1 + result.pathless.int())).tolist()
        left_out = [f"{name}{REASONS[reason]}" for name, reason in zip(stream.all_ids, reasons) if reason]
    prefix = "unlabelled_" if name == "unlabelled" else ""
    return StreamLoss(
        combine(losses, weights),
        {f"{prefix}{task}": loss.detach() for task, loss in (*losses.items(), *shown.items())},
        left_out,
    )


def gradients(model: Normalised, batch: MultitaskBatch, setup: StepSetup, weights: LossWeights) -> StepLosses:
    """Add the gradients of equation 4 to the model's parameters; returns the losses, without gradients.

    Each stream is passed backward by itself: the same gradient as that of the sum, in a third of the memory. Every
    process of several adds its part of the gradient only (distributed.sum_gradients). With batch_statistics per_stream
    the unlabelled stream leaves the running statistics alone: no unlabelled clip is ever scored with them.
    """
    model.train()
    found = StepLosses({}, {}, [])
    for name, stream in batch.streams().items():
        buffers = None
        if name == "unlabelled" and setup.config.model.batch_statistics == "per_stream":
            buffers = copy_buffers(model)
        with explain_out_of_memory(name, stream), distributed.mini_batch(len(stream.all_ids)):
            loss = stream_loss(model, name, stream.to(setup.device), setup, weights)
            setup.precision.scaler.scale(distributed.scale_for_sum(loss.total)).backward()
        if buffers is not None:
            restore_buffers(model, buffers)
        found.by_stream[name] = loss.total.detach()
        found.by_task.update(loss.by_task)
        found.ctc_left_out.extend(loss.ctc_left_out)
    return found


def train_step(
    model: Normalised, optimizer: torch.optim.Optimizer, batch: MultitaskBatch, setup: StepSetup, weights: LossWeights
) -> dict[str, float]:
    """One update (Algorithm 1, lines 4 to 22); returns every loss, their sum and the gradient's norm, by name.

    Raises NotFinite, which names the utterances, if a loss or the gradient is not finite; only the statistics of batch
    norm are updated then. Under fp16 a norm that is not finite is returned while the loss' scale is searched.
    """
    optimizer.zero_grad(set_to_none=True)
    losses = gradients(model, batch, setup, weights)
    distributed.sum_gradients(model.parameters())
    scaler = setup.precision.scaler
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), setup.config.optim.clip_gradient or float("inf"))
    # the only synchronisation with the device in a step
    values = torch.stack([*losses.by_stream.values(), *losses.by_task.values(), norm.to(setup.device)]).tolist()
    totals, values = dict(zip(losses.by_stream, values)), values[len(losses.by_stream) :]
    row = {"total": sum(totals.values()), **dict(zip(losses.by_task, values)), "gradient_norm": values[-1]}
    if "phoneme" in totals:
        row["ctc_left_out"] = len(losses.ctc_left_out)
        if losses.ctc_left_out:
            log.warning("CTC leaves out, for too few frames or as said: %s", " ".join(losses.ctc_left_out))
    for name, total in totals.items():
        if not math.isfinite(total):
            raise NotFinite(
                f"the loss of the {name} batch is {total} ({format_values(row)}); its utterances: "
                f"{' '.join(batch.streams()[name].all_ids)}."
            )
    if not math.isfinite(row["gradient_norm"]) and not setup.precision.may_lower_scale():
        utterances = [utterance for stream in batch.streams().values() for utterance in stream.all_ids]
        raise NotFinite(
            f"the gradient's norm is {row['gradient_norm']} ({format_values(row)}); the utterances of the step: "
            f"{' '.join(utterances)}."
        )
    scaler.step(optimizer)  # does nothing by itself if fp16's gradients overflowed
    scaler.update()
    return row


def check_memory(model: Normalised, largest: MultitaskBatch, setup: StepSetup, weights: LossWeights) -> None:
    """Pass the ``largest`` mini-batches through the model; raises InputError if the GPU's memory does not hold them."""
    buffers = copy_buffers(model)
    gradients(model, largest, setup, weights)
    restore_buffers(model, buffers)
    model.zero_grad(set_to_none=True)
    if setup.device.type == "cuda":
        log.info(
            "the largest mini-batches take %.1f GiB of the GPU's memory",
            torch.cuda.max_memory_allocated(setup.device) / 2**30,
        )
