"""Focal loss, for ESC and gender (equation 2)."""

from typing import Optional

import torch
from torch import Tensor

UNLABELLED = -1


def focal_loss(logits: Tensor, targets: Tensor, gamma: float, class_weights: Optional[Tensor] = None) -> Tensor:
    """Mean over the labelled utterances of -(1 - p)^gamma log p, p the probability of the target class.

    ``logits`` (N, K), ``targets`` (N,) int in 0..K-1, or -1 for "unlabelled": those are left out, and without any
    label the loss is a zero that still has a gradient (of zeros). gamma 0 is cross-entropy. ``class_weights``
    (K,) make it a weighted mean, as in torch's cross_entropy. ValueError for negative gamma or other targets.
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
    target_log_p = log_p.gather(1, targets.unsqueeze(1)).squeeze(1)
    losses = -target_log_p
    if gamma > 0:
        # 1 - p from its sum over the other classes, not by subtraction: exact where p rounds to 1; the floor keeps
        # the derivative of a power below 1 finite there.
        others = log_p.exp().scatter(1, targets.unsqueeze(1), 0.0).sum(1)
        losses = others.clamp(min=torch.finfo(torch.float32).eps) ** gamma * losses
    if class_weights is None:
        return losses.mean()
    weights = class_weights.to(logits)[targets]
    return (weights * losses).sum() / weights.sum()
