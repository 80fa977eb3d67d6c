"""Focal loss, for ESC and gender (equation 2)."""

from collections.abc import Mapping

import torch
from torch import Tensor

UNLABELLED = -1


def inverse_weights(counts: Mapping[int, int], num_classes: int) -> Tensor:
    """Weights (num_classes,) of classes with so many clips each: inverse to that number, of mean 1 over all clips.

    A class without clips has the weight 0. ValueError where none has any.
    """
    present = sum(count > 0 for count in counts.values())
    if not present:
        raise ValueError("there are no clips, so the classes have no weights")
    clips = sum(counts.values())
    return torch.tensor([clips / (present * counts[k]) if counts.get(k) else 0.0 for k in range(num_classes)])


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    gamma: float,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    clip_weights: Tensor | None = None,
) -> Tensor:
    """Mean over the labelled utterances of -(1 - p)^gamma log p, p the probability of the target class.

    ``logits`` (N, K), ``targets`` (N,) int in 0..K-1, or -1 for "unlabelled": those are left out, and without any
    label the loss is a zero that still has a gradient (of zeros). gamma 0 is cross-entropy. ``class_weights``
    (K,) make it a weighted mean and ``label_smoothing`` spreads that part of each label evenly over all K classes,
    both as in torch's cross_entropy. ``clip_weights`` (N,) weigh the utterances: two targets of one utterance, as
    mixup gives it, are two rows. ValueError for negative gamma or other targets.
    Targets are best kept on the CPU: on a GPU a look at them waits for all that the GPU has still to do.
    """
    if gamma < 0:
        raise ValueError(f"gamma is {gamma}; it must be at least 0")
    logits = logits.float()
    if bool(((targets < UNLABELLED) | (targets >= logits.shape[1])).any()):
        raise ValueError(f"targets must lie in 0..{logits.shape[1] - 1}, or be {UNLABELLED} where unlabelled")
    labelled = targets != UNLABELLED
    if not bool(labelled.any()):
        return logits.sum() * 0.0
    if not bool(labelled.all()):
        kept = labelled.nonzero().squeeze(1)
        logits, targets = logits.index_select(0, kept.to(logits.device, non_blocking=True)), targets[kept]
    targets = targets.long().to(logits.device, non_blocking=True)
    log_p = torch.log_softmax(logits, dim=1)
    classes = torch.eye(logits.shape[1], device=logits.device)
    losses = -log_p  # (N, K): of every class, were it the target
    if gamma > 0:
        # 1 - p from its sum over the other classes, not by subtraction: exact where p rounds to 1; the floor keeps
        # the derivative of a power below 1 finite there.
        others = log_p.exp() @ (1 - classes)
        losses = others.clamp(min=torch.finfo(torch.float32).eps) ** gamma * losses
    labels = classes[targets] * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    class_weights = logits.new_ones(logits.shape[1]) if class_weights is None else class_weights.to(logits)
    clip_weights = labelled.float() if clip_weights is None else clip_weights.to(labelled.device)
    clip_weights = clip_weights[labelled].to(logits, non_blocking=True)
    total = clip_weights @ (labels * class_weights * losses).sum(1)
    return total / (clip_weights @ class_weights[targets])
