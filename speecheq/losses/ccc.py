"""Lin's concordance correlation coefficient and the EIS loss made of it (equation 3, Algorithm 1)."""

import torch
from torch import Tensor

from speecheq.seqm import EIS_MAX, EIS_MIN

LABEL_IGNORE = ("fill", "drop")
EPSILON = 1e-8


def ccc(predicted: Tensor, gold: Tensor) -> Tensor:
    """2 cov / (var + var + (difference of means)^2), with biased variances, of two (N,) tensors; a float32 scalar.

    Where either side has no variance (one element, or all alike) the CCC is 0 with no gradient, even if both sides
    are equal: nothing concords. EPSILON below the line keeps that, and the gradients near it, finite; it moves other
    values by less than EPSILON over the sum of the variances.
    """
    predicted, gold = predicted.float(), gold.float()
    predicted_mean, gold_mean = predicted.mean(), gold.mean()
    predicted_offset, gold_offset = predicted - predicted_mean, gold - gold_mean
    covariance = (predicted_offset * gold_offset).mean()
    variances = predicted_offset.square().mean() + gold_offset.square().mean()
    return 2 * covariance / (variances + (predicted_mean - gold_mean).square() + EPSILON)


def eis_loss(predicted: Tensor, gold: Tensor, label_ignore: str = "fill") -> Tensor:
    """1 - CCC of predicted and gold EIS (N,), with section 2.4's label ignore mechanism for gold labels below 0.

    ``fill``, as in Algorithm 1: such a label becomes the clipped prediction, held constant. (Algorithm 1 prints the
    test on the prediction; the text, and sense, have it on the label.) This counts the element as concordant and so
    raises the CCC. ``drop`` leaves these elements out. Where no label remains both give a zero with a graph: a
    batch without labels teaches nothing, while filled it would pull predictions outside [0, 4] towards each other.
    Gold labels are best kept on the CPU: on a GPU a look at them waits for all that the GPU has still to do.
    """
    if label_ignore not in LABEL_IGNORE:
        raise ValueError(f"label_ignore is {label_ignore!r}; it must be one of {', '.join(LABEL_IGNORE)}")
    predicted, gold = predicted.float(), gold.float()
    labelled = gold >= 0
    if not bool(labelled.any()):
        return predicted.sum() * 0.0
    if label_ignore == "drop":
        kept = labelled.nonzero().squeeze(1)
        predicted, gold = predicted.index_select(0, kept.to(predicted.device, non_blocking=True)), gold[kept]
    gold = gold.to(predicted.device, non_blocking=True)
    if label_ignore == "fill":
        gold = torch.where(gold >= 0, gold, predicted.detach().clamp(EIS_MIN, EIS_MAX))
    return 1 - ccc(predicted, gold)
