"""A step as Algorithm 1 prints it: three mini-batches, four losses, one update."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from speecheq.cluster import distributed
from speecheq.common.log import log
from speecheq.config.schema import Config
from speecheq.dataset.batch import LABEL_FREE_STREAMS, MultitaskBatch, TaskBatch
from speecheq.features.augment_features import Mixup
from speecheq.losses import LossWeights, combine, ctc_loss, eis_loss, focal_loss, reconstruction_loss
from speecheq.models import Predictions
from speecheq.models.normalisation import Normalised
from speecheq.seqm import UNSPECIFIED
from speecheq.training.precision import NotFinite, Precision, enough_memory, restore, snapshot

# The heads that each stream's loss needs, beside those of MTL-AUG (LABEL_FREE_STREAMS).
TASKS = {"emotion": ("esc", "eis"), "gender": ("gender",), "phoneme": ("phoneme",), "unlabelled": ()}


def in_short(values: dict[str, Any]) -> str:
    """Numbers by name as one piece of a log line."""
    return " ".join(f"{name} {value:.3f}" for name, value in values.items() if value is not None)


def classification_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    mixup: Mixup | None,
    config: Config,
    class_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """The focal loss of logits (N, K) with targets (N,); one that ``mixup`` has mixed is its two labels by shares."""
    clip_weights = None
    if mixup is not None:
        logits, targets = torch.cat([logits, logits]), torch.cat([targets, targets[mixup.partners]])
        clip_weights = torch.cat([mixup.shares, 1 - mixup.shares])
    return focal_loss(logits, targets, config.loss.gamma, class_weights, config.loss.label_smoothing, clip_weights)


def label_free_losses(
    model: Normalised, stream: TaskBatch, predictions: Predictions, tasks: Sequence[str]
) -> dict[str, torch.Tensor]:
    """The losses of those of MTL-AUG's tasks that are trained, by task.

    The decoder gives normalised features, as the model takes them, and is held against the clean ones.
    """
    losses: dict[str, torch.Tensor] = {}
    if "augmentation" in tasks:
        targets = distributed.gather_rows(stream.targets["augmentation"])
        losses["augmentation"] = focal_loss(
            distributed.gather_rows(predictions.augmentation_logits), targets, gamma=0.0
        )
    if "reconstruction" in tasks:
        with torch.no_grad():
            clean = model.cmvn(stream.clean, stream.lengths)
        loss = reconstruction_loss(predictions.reconstruction, clean, stream.lengths)
        losses["reconstruction"] = distributed.whole_mean(loss, stream.lengths.sum())
    return losses


def stream_loss(
    model: Normalised,
    name: str,
    stream: TaskBatch,
    config: Config,
    ctc_backend: str,
    weights: LossWeights,
    precision: Precision,
    class_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor], list[str]]:
    """The part of equation 4 that one stream's mini-batch gives, its single losses by task, and who is left out.

    MTL-AUG adds the losses that need no labels; those of the unlabelled stream are named unlabelled_<task>. Left out of
    CTC are utterances with fewer frames than their phones need. ``class_weights`` (K,) are those of ESC. Of a
    mini-batch that is shared out these are the losses of the whole, with the gradients of this process' share.
    """
    whole, mixup = distributed.gather_rows, stream.changes.mixup
    if mixup is not None:
        mixup = Mixup(whole(distributed.rows_in_whole(mixup.partners)), whole(mixup.shares))
    with precision.autocast():
        change = stream.changes.to(stream.inputs.device).apply
        label_free = config.label_free_tasks() if name in LABEL_FREE_STREAMS else ()
        predictions = model(stream.inputs, stream.lengths, change, tasks=(*TASKS[name], *label_free))
    losses = label_free_losses(model, stream, predictions, label_free)
    left_out: list[str] = []
    if name == "emotion":
        esc, eis = whole(stream.targets["esc"]), whole(stream.targets["eis"])
        eis = eis if mixup is None else mixup.mix_eis(eis, UNSPECIFIED)
        losses["esc"] = classification_loss(whole(predictions.esc_logits), esc, mixup, config, class_weights)
        losses["eis"] = eis_loss(whole(predictions.eis), eis, config.loss.label_ignore)
    elif name == "gender":
        gender = whole(stream.targets["gender"])
        losses["gender"] = classification_loss(whole(predictions.gender_logits), gender, mixup, config)
    elif name == "phoneme":
        result = ctc_loss(predictions.phoneme_logits, predictions.lengths, stream.targets["phones"], ctc_backend)
        losses["phoneme"] = distributed.whole_mean(result.loss, result.feasible.sum())
        feasible = whole(result.feasible.int()).tolist()
        left_out = [utterance for utterance, kept in zip(stream.all_ids, feasible) if not kept]
    shown = {f"unlabelled_{task}" if name == "unlabelled" else task: loss.detach() for task, loss in losses.items()}
    return combine(losses, weights), shown, left_out


def gradients(
    model: Normalised,
    batch: MultitaskBatch,
    config: Config,
    ctc_backend: str,
    device: torch.device,
    weights: LossWeights,
    precision: Precision,
    class_weights: torch.Tensor | None = None,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], list[str]]:
    """Add the gradients of equation 4; (the streams' parts of it, the losses by task, who is left out of CTC).

    Each stream is passed backward by itself: the same gradient as that of the sum, in a third of the memory. Every
    process of several adds its part of the gradient only (distributed.sum_gradients). With batch_statistics per_stream
    the unlabelled stream leaves the running statistics alone: no unlabelled clip is ever scored with them.
    """
    model.train()
    parts: dict[str, torch.Tensor] = {}
    losses: dict[str, torch.Tensor] = {}
    left_out: list[str] = []
    for name, stream in batch.streams().items():
        apart = name == "unlabelled" and config.model.batch_statistics == "per_stream"
        buffers = snapshot(model) if apart else None
        with enough_memory(name, stream), distributed.mini_batch(len(stream.all_ids)):
            loss, of_tasks, without_ctc = stream_loss(
                model, name, stream.to(device), config, ctc_backend, weights, precision, class_weights
            )
            precision.scaler.scale(distributed.scale_for_sum(loss)).backward()
        if apart:
            restore(model, buffers)
        parts[name] = loss.detach()
        losses.update(of_tasks)
        left_out += without_ctc
    return parts, losses, left_out


def train_step(
    model: Normalised,
    optimizer: torch.optim.Optimizer,
    batch: MultitaskBatch,
    config: Config,
    ctc_backend: str,
    device: torch.device,
    weights: LossWeights,
    precision: Precision,
    class_weights: torch.Tensor | None = None,
) -> dict[str, float]:
    """One update (Algorithm 1, lines 4 to 22); returns every loss, their sum and the gradient's norm.

    NotFinite, which names the utterances, where a loss or the gradient is not finite; nothing is updated then but the
    statistics of batch norm. Under fp16 a norm that is not finite is returned while the loss' scale is searched.
    """
    optimizer.zero_grad(set_to_none=True)
    parts, losses, left_out = gradients(model, batch, config, ctc_backend, device, weights, precision, class_weights)
    distributed.sum_gradients(model.parameters())
    precision.scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_gradient or float("inf"))
    # the one time in a step that is waited for the device
    values = torch.stack([*parts.values(), *losses.values(), norm.to(device)]).tolist()
    totals, values = dict(zip(parts, values)), values[len(parts) :]
    report = {"total": sum(totals.values()), **dict(zip(losses, values)), "gradient_norm": values[-1]}
    if "phoneme" in parts:
        report["ctc_left_out"] = len(left_out)
        if left_out:
            log.warning("CTC leaves out, for too few frames: %s", " ".join(left_out))
    for name, total in totals.items():
        if not math.isfinite(total):
            raise NotFinite(
                f"the loss of the {name} batch is {total} ({in_short(report)}); its utterances: "
                f"{' '.join(getattr(batch, name).all_ids)}."
            )
    if not math.isfinite(report["gradient_norm"]) and not precision.may_lower_scale():
        utterances = [utterance for stream in batch.streams().values() for utterance in stream.all_ids]
        raise NotFinite(
            f"the gradient's norm is {report['gradient_norm']} ({in_short(report)}); the utterances of the step: "
            f"{' '.join(utterances)}."
        )
    precision.scaler.step(optimizer)  # skips by itself where fp16's gradients overflowed
    precision.scaler.update()
    return report


def check_memory(
    model: Normalised,
    largest: MultitaskBatch,
    config: Config,
    ctc_backend: str,
    device: torch.device,
    weights: LossWeights,
    precision: Precision,
) -> None:
    """Pass the ``largest`` mini-batches through the model; InputError if the GPU's memory does not hold them."""
    buffers = snapshot(model)
    gradients(model, largest, config, ctc_backend, device, weights, precision)
    restore(model, buffers)
    model.zero_grad(set_to_none=True)
    if device.type == "cuda":
        log.info(
            "the largest mini-batches take %.1f GiB of the GPU's memory",
            torch.cuda.max_memory_allocated(device) / 2**30,
        )
