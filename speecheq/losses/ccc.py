"""Lin's concordance correlation coefficient (CCC), and the EIS loss (equation 3, Algorithm 1)."""

import torch
from torch import Tensor

from speecheq.seqm import EIS_MAX, EIS_MIN

LABEL_IGNORE = ("fill", "drop")
EPSILON = 1e-8


def ccc(predicted: Tensor, gold: Tensor) -> Tensor:
    """Predicted and gold values (N,) -> CCC () in float32: 2 cov / (var + var + (difference of means)^2).

    The variances are biased. If either side has no variance (one element, or all equal) the CCC is 0, without a
    gradient, even if both sides are equal. EPSILON in the denominator keeps this case, and gradients near it, finite;
    it changes other values by less than EPSILON over the sum of the variances.
    """
    predicted, gold = predicted.float(), gold.float()
    predicted_mean, gold_mean = predicted.mean(), gold.mean()
    predicted_offset, gold_offset = predicted - predicted_mean, gold - gold_mean
    covariance = (predicted_offset * gold_offset).mean()
    variances = predicted_offset.square().mean() + gold_offset.square().mean()
    return 2 * covariance / (variances + (predicted_mean - gold_mean).square() + EPSILON)


def eis_loss(predicted: Tensor, gold: Tensor, label_ignore: str = "fill") -> Tensor:
    """Predicted and gold EIS (N,) -> 1 - CCC () (equation 3); gold EIS below 0 are unknown (section 2.4).

    ``label_ignore`` is the treatment of unknown EIS. ``fill``, as in Algorithm 1: they are replaced by the clipped
    prediction, without a gradient, which counts them as concordant and so raises the CCC. (Algorithm 1 tests the
    prediction, the paper's text the label, as here.) ``drop`` leaves them out. If all are unknown the loss is 0, with
    gradients of 0: filled, such a batch would pull predictions outside [0, 4] towards each other.

    Keep gold EIS on the CPU, since reading them on a GPU synchronises. Raises ValueError for another ``label_ignore``.
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
