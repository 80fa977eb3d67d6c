"""Scores of predictions. Plain arrays in, plain numbers out; None where a score is not defined.

WA (weighted accuracy) is the overall accuracy, UA (unweighted accuracy) the mean of the recalls of the
classes that occur, macro F1 the mean of their F1; scores of the EIS are taken over clips whose EIS is specified.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein


def confusion(gold: Sequence[int], predicted: Sequence[int], classes: int) -> np.ndarray:
    """Counts (classes, classes): rows are gold, columns predicted."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (np.asarray(gold, dtype=np.int64), np.asarray(predicted, dtype=np.int64)), 1)
    return matrix


def weighted_accuracy(gold: Sequence[int], predicted: Sequence[int]) -> float | None:
    """WA: the share of clips whose class is right."""
    gold, predicted = np.asarray(gold), np.asarray(predicted)
    return float((gold == predicted).mean()) if len(gold) else None


def unweighted_accuracy(
    gold: Sequence[int], predicted: Sequence[int], classes: Sequence[int] | None = None
) -> float | None:
    """UA: the mean recall of the classes that occur in ``gold``, or of those of ``classes`` that do."""
    gold, predicted = np.asarray(gold), np.asarray(predicted)
    labels = [label for label in np.unique(gold) if classes is None or label in classes]
    return float(np.mean([(predicted[gold == label] == label).mean() for label in labels])) if labels else None


class ClassScores(NamedTuple):
    """One number a class, by class number; None where it is not defined."""

    recall: list[float | None]
    precision: list[float | None]
    f1: list[float | None]


def class_scores(gold: Sequence[int], predicted: Sequence[int], classes: int) -> ClassScores:
    """Recall and F1 of the classes that occur in ``gold``, precision of those that are predicted."""
    matrix = confusion(gold, predicted, classes)
    right, clips, answers = matrix.diagonal().tolist(), matrix.sum(1).tolist(), matrix.sum(0).tolist()
    return ClassScores(
        recall=[r / n if n else None for r, n in zip(right, clips)],
        precision=[r / a if a else None for r, a in zip(right, answers)],
        f1=[2 * r / (n + a) if n else None for r, n, a in zip(right, clips, answers)],
    )


def macro_f1(gold: Sequence[int], predicted: Sequence[int], classes: int) -> float | None:
    """The mean F1 of the classes that occur in ``gold``, the same that UA is about."""
    known = [value for value in class_scores(gold, predicted, classes).f1 if value is not None]
    return float(np.mean(known)) if known else None


# Of the calibration error, all of the same width.
CALIBRATION_BINS = 15


class Calibration(NamedTuple):
    """What a bin of predictions claims and keeps, one value a bin; the means are 0 where a bin is empty."""

    clips: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def calibration(
    gold: Sequence[int], posteriors: Sequence[Sequence[float]], bins: int = CALIBRATION_BINS
) -> Calibration:
    """Predictions by their confidence, the posterior of the predicted class, in bins (0, 1/bins], (1/bins, 2/bins] ...

    ``posteriors`` is (clips, classes); the predicted class is the first of the most probable.
    """
    posteriors = np.asarray(posteriors, dtype=np.float64)
    confidence = posteriors.max(1)
    right = posteriors.argmax(1) == np.asarray(gold)
    of = np.clip(np.searchsorted(np.linspace(0, 1, bins + 1), confidence, side="left") - 1, 0, bins - 1)
    clips = np.bincount(of, minlength=bins)
    sums = (np.bincount(of, weights=values, minlength=bins) for values in (confidence, right))
    return Calibration(clips, *(values / np.maximum(clips, 1) for values in sums))


def calibration_error(gold: Sequence[int], posteriors: Sequence[Sequence[float]]) -> float | None:
    """ECE: the distance between confidence and accuracy of the bins of ``calibration``, weighted by their clips."""
    if not len(gold):
        return None
    bins = calibration(gold, posteriors)
    return float((bins.clips * np.abs(bins.accuracy - bins.confidence)).sum() / len(gold))


def specified(gold: Sequence[float]) -> np.ndarray:
    """Which clips have an EIS label (bool array)."""
    return np.asarray(gold, dtype=np.float64) >= 0


def _labelled(gold: Sequence[float], predicted: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Gold and predicted EIS of the clips with a label."""
    keep = specified(gold)
    return np.asarray(gold, dtype=np.float64)[keep], np.asarray(predicted, dtype=np.float64)[keep]


def mean_squared_error(gold: Sequence[float], predicted: Sequence[float]) -> float | None:
    """MSE of the EIS over clips with a label."""
    x, y = _labelled(gold, predicted)
    return float(((y - x) ** 2).mean()) if len(x) else None


def mean_absolute_error(gold: Sequence[float], predicted: Sequence[float]) -> float | None:
    """MAE of the EIS over clips with a label."""
    x, y = _labelled(gold, predicted)
    return float(np.abs(y - x).mean()) if len(x) else None


def _is_constant(values: np.ndarray) -> bool:
    return bool(values.var() < 1e-24)  # rounding leaves a variance of about 1e-32 to constants


def correlation(gold: Sequence[float], predicted: Sequence[float]) -> float | None:
    """Pearson's correlation of the EIS over clips with a label; None with fewer than two, or where one is constant."""
    x, y = _labelled(gold, predicted)
    if len(x) < 2 or _is_constant(x) or _is_constant(y):
        return None
    return float(((x - x.mean()) * (y - y.mean())).mean() / (x.std() * y.std()))


def concordance(gold: Sequence[float], predicted: Sequence[float]) -> float | None:
    """Lin's CCC of the EIS over clips with a label; None with fewer than two, or where all labels are equal."""
    x, y = _labelled(gold, predicted)
    if len(x) < 2 or _is_constant(x):
        return None  # a constant label is followed by nobody, and the formula would say 0
    denominator = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    return float(2 * ((x - x.mean()) * (y - y.mean())).mean() / denominator)


def phone_errors(reference: Sequence[int], hypothesis: Sequence[int]) -> int:
    """The least number of substitutions, deletions and insertions between two phone sequences."""
    return int(Levenshtein.distance(list(reference), list(hypothesis)))


def phone_error_rate(references: Sequence[Sequence[int]], hypotheses: Sequence[Sequence[int]]) -> float | None:
    """PER: all errors over all reference phones; None without a reference phone."""
    total = sum(map(len, references))
    if not total:
        return None
    return sum(phone_errors(r, h) for r, h in zip(references, hypotheses)) / total


def greedy_constant(references: Sequence[Sequence[int]]) -> list[int]:
    """One output for all utterances, with few errors: what a model that hears nothing can reach.

    It grows by the phone of the twelve most common, at any place, that helps most, as long as one helps.
    """
    total = sum(map(len, references))
    candidates = sorted(
        {phone for reference in references for phone in reference},
        key=lambda phone: (-sum(phone in reference for reference in references), phone),
    )[:12]
    constant: list[int] = []
    best = total
    while candidates:
        options = [
            constant[:place] + [phone] + constant[place:] for place in range(len(constant) + 1) for phone in candidates
        ]
        errors, option = min((sum(phone_errors(r, option) for r in references), option) for option in options)
        if errors >= best:
            break
        best, constant = errors, option
    return constant


def emotion_scores(
    gold_esc: Sequence[int], predicted_esc: Sequence[int], gold_eis: Sequence[float], predicted_eis: Sequence[float]
) -> dict[str, float | None]:
    """wa, ua, eis_mse, eis_ccc of a set of clips."""
    return {
        "wa": weighted_accuracy(gold_esc, predicted_esc),
        "ua": unweighted_accuracy(gold_esc, predicted_esc),
        "eis_mse": mean_squared_error(gold_eis, predicted_eis),
        "eis_ccc": concordance(gold_eis, predicted_eis),
    }
