"""Focal loss, for ESC and gender (equation 2)."""

from collections.abc import Mapping

import torch
from torch import Tensor

UNLABELLED = -1


def inverse_weights(counts: Mapping[int, int], num_classes: int) -> Tensor:
    """Weights (num_classes,) inverse to the classes' numbers of clips ``counts``, with mean 1 over all clips.

    A class without clips has the weight 0. Raises ValueError if no class has any.
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
    shares: Tensor | None = None,
) -> Tensor:
    """Equation 2: the mean () over utterances of -(1 - p)^gamma log p, with p the probability of the target class.

    ``logits`` (N, K), ``targets`` (N,) int in 0..K-1, or -1 if unlabelled. Unlabelled utterances are left out; if all
    are, the loss is 0, with gradients of 0. gamma 0 is cross-entropy. ``class_weights`` (K,) and ``label_smoothing``
    are those of torch's cross_entropy. ``clip_weights`` (N,) are weights of the rows: an utterance with two targets,
    after mixup, is two rows. ``shares`` (N, K) are soft labels, rows that sum to 1, in place of the target classes: the
    loss is that of every class, weighted by its share.

    Keep targets on the CPU, since reading them on a GPU synchronises. Raises ValueError for a negative gamma or invalid
    targets.
    """
    if gamma < 0:
        raise ValueError(f"gamma is {gamma}; it must be at least 0")
    logits = logits.float()
    if bool(((targets < UNLABELLED) | (targets >= logits.shape[1])).any()):
        raise ValueError(f"targets must be in 0..{logits.shape[1] - 1}, or {UNLABELLED} if unlabelled")
    labelled = targets != UNLABELLED
    if not bool(labelled.any()):
        return logits.sum() * 0.0
    if not bool(labelled.all()):
        kept = labelled.nonzero().squeeze(1)
        logits, targets = logits.index_select(0, kept.to(logits.device, non_blocking=True)), targets[kept]
        shares = None if shares is None else shares[kept]
    targets = targets.long().to(logits.device, non_blocking=True)
    log_p = torch.log_softmax(logits, dim=1)
    classes = torch.eye(logits.shape[1], device=logits.device)
    losses = -log_p  # (N, K), for every class as the target
    if gamma > 0:
        # 1 - p as the sum over the other classes is exact if p rounds to 1; the floor keeps the derivative of a power
        # below 1 finite there
        others = log_p.exp() @ (1 - classes)
        losses = others.clamp(min=torch.finfo(torch.float32).eps) ** gamma * losses
    gold = classes[targets] if shares is None else shares.to(logits, non_blocking=True)
    labels = gold * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    class_weights = logits.new_ones(logits.shape[1]) if class_weights is None else class_weights.to(logits)
    clip_weights = labelled.float() if clip_weights is None else clip_weights.to(labelled.device)
    clip_weights = clip_weights[labelled].to(logits, non_blocking=True)
    total = clip_weights @ (labels * class_weights * losses).sum(1)
    return total / (clip_weights @ (gold @ class_weights))
