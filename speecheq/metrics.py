"""Scores of predictions. Plain arrays in, plain numbers out; None where a score is not defined.

WA (weighted accuracy) is the overall accuracy, UA (unweighted accuracy) the mean of the recalls of the
classes that occur, MSE and CCC are taken over clips whose EIS is specified.
"""

from typing import Dict, List, Optional, Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein


def confusion(gold: Sequence[int], predicted: Sequence[int], classes: int) -> np.ndarray:
    """Counts (classes, classes): rows are gold, columns predicted."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (np.asarray(gold, dtype=np.int64), np.asarray(predicted, dtype=np.int64)), 1)
    return matrix


def weighted_accuracy(gold: Sequence[int], predicted: Sequence[int]) -> Optional[float]:
    """WA: the share of clips whose class is right."""
    gold, predicted = np.asarray(gold), np.asarray(predicted)
    return float((gold == predicted).mean()) if len(gold) else None


def unweighted_accuracy(
    gold: Sequence[int], predicted: Sequence[int], classes: Optional[Sequence[int]] = None
) -> Optional[float]:
    """UA: the mean recall of the classes that occur in ``gold``, or of those of ``classes`` that do."""
    gold, predicted = np.asarray(gold), np.asarray(predicted)
    labels = [label for label in np.unique(gold) if classes is None or label in classes]
    return float(np.mean([(predicted[gold == label] == label).mean() for label in labels])) if labels else None


def specified(gold: Sequence[float]) -> np.ndarray:
    """Which clips have an EIS label (bool array)."""
    return np.asarray(gold, dtype=np.float64) >= 0


def mean_squared_error(gold: Sequence[float], predicted: Sequence[float]) -> Optional[float]:
    """MSE of the EIS over clips with a label."""
    keep = specified(gold)
    if not keep.any():
        return None
    difference = np.asarray(predicted, dtype=np.float64)[keep] - np.asarray(gold, dtype=np.float64)[keep]
    return float((difference**2).mean())


def concordance(gold: Sequence[float], predicted: Sequence[float]) -> Optional[float]:
    """Lin's CCC of the EIS over clips with a label; None with fewer than two, or where all labels are equal."""
    keep = specified(gold)
    if keep.sum() < 2:
        return None
    x, y = np.asarray(gold, dtype=np.float64)[keep], np.asarray(predicted, dtype=np.float64)[keep]
    denominator = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    if x.var() < 1e-24:  # rounding leaves a variance of about 1e-32 to constants
        return None  # a constant label is followed by nobody, and the formula would say 0
    return float(2 * ((x - x.mean()) * (y - y.mean())).mean() / denominator)


def phone_errors(reference: Sequence[int], hypothesis: Sequence[int]) -> int:
    """The least number of substitutions, deletions and insertions between two phone sequences."""
    return int(Levenshtein.distance(list(reference), list(hypothesis)))


def phone_error_rate(references: Sequence[Sequence[int]], hypotheses: Sequence[Sequence[int]]) -> Optional[float]:
    """PER: all errors over all reference phones; None without a reference phone."""
    total = sum(map(len, references))
    if not total:
        return None
    return sum(phone_errors(r, h) for r, h in zip(references, hypotheses)) / total


def greedy_constant(references: Sequence[Sequence[int]]) -> List[int]:
    """One output for all utterances, with few errors: what a model that hears nothing can reach.

    It grows by the phone of the twelve most common, at any place, that helps most, as long as one helps.
    """
    total = sum(map(len, references))
    candidates = sorted({phone for reference in references for phone in reference},
                        key=lambda phone: (-sum(phone in reference for reference in references), phone))[:12]
    constant: List[int] = []
    best = total
    while candidates:
        options = [constant[:place] + [phone] + constant[place:]
                   for place in range(len(constant) + 1) for phone in candidates]
        errors, option = min((sum(phone_errors(r, option) for r in references), option) for option in options)
        if errors >= best:
            break
        best, constant = errors, option
    return constant


def emotion_scores(
    gold_esc: Sequence[int], predicted_esc: Sequence[int], gold_eis: Sequence[float], predicted_eis: Sequence[float]
) -> Dict[str, Optional[float]]:
    """wa, ua, eis_mse, eis_ccc of a set of clips."""
    return {
        "wa": weighted_accuracy(gold_esc, predicted_esc),
        "ua": unweighted_accuracy(gold_esc, predicted_esc),
        "eis_mse": mean_squared_error(gold_eis, predicted_eis),
        "eis_ccc": concordance(gold_eis, predicted_eis),
    }
