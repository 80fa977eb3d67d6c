"""Metrics of predictions, from arrays to numbers; None where a metric is undefined.

``gold`` and ``predicted`` are class numbers (clips,), or EIS (clips,) of which only clips with a gold EIS count.
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
    return float(np.mean(np.asarray(gold) == np.asarray(predicted))) if len(gold) else None


def unweighted_accuracy(
    gold: Sequence[int], predicted: Sequence[int], classes: Sequence[int] | None = None
) -> float | None:
    """UA: the mean recall of the classes that occur in ``gold``, or of those of ``classes`` that do."""
    x, y = np.asarray(gold), np.asarray(predicted)
    labels = [label for label in np.unique(x) if classes is None or label in classes]
    return float(np.mean([(y[x == label] == label).mean() for label in labels])) if labels else None


class ClassScores(NamedTuple):
    """One number per class, by class number; None where it is not defined."""

    recall: list[float | None]
    precision: list[float | None]
    f1: list[float | None]


def class_scores(gold: Sequence[int], predicted: Sequence[int], classes: int) -> ClassScores:
    """Recall and F1 of the classes that occur in ``gold``, precision of those that are predicted."""
    matrix = confusion(gold, predicted, classes)
    counts = list(zip(matrix.diagonal().tolist(), matrix.sum(1).tolist(), matrix.sum(0).tolist()))
    return ClassScores(
        recall=[correct / clips if clips else None for correct, clips, _ in counts],
        precision=[correct / chosen if chosen else None for correct, _, chosen in counts],
        f1=[2 * correct / (clips + chosen) if clips else None for correct, clips, chosen in counts],
    )


def macro_f1(gold: Sequence[int], predicted: Sequence[int], classes: int) -> float | None:
    """The mean F1 of the classes that occur in ``gold``."""
    known = [value for value in class_scores(gold, predicted, classes).f1 if value is not None]
    return float(np.mean(known)) if known else None


CALIBRATION_BINS = 15  # of equal width


class Calibration(NamedTuple):
    """The predictions of each bin of confidence, all (bins,): their number, mean confidence and accuracy.

    The means of an empty bin are 0.
    """

    clips: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def calibration(
    gold: Sequence[int], posteriors: Sequence[Sequence[float]], bins: int = CALIBRATION_BINS
) -> Calibration:
    """Group predictions by the posterior of the predicted class into bins (0, 1/bins], (1/bins, 2/bins] ...

    ``posteriors`` is (clips, classes); the predicted class is the first of the most probable.
    """
    probabilities = np.asarray(posteriors, dtype=np.float64)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == np.asarray(gold)
    index = np.clip(np.searchsorted(np.linspace(0, 1, bins + 1), confidence, side="left") - 1, 0, bins - 1)
    clips = np.bincount(index, minlength=bins)
    sums = (np.bincount(index, weights=values, minlength=bins) for values in (confidence, correct))
    return Calibration(clips, *(values / np.maximum(clips, 1) for values in sums))


def calibration_error(gold: Sequence[int], posteriors: Sequence[Sequence[float]]) -> float | None:
    """ECE: the mean distance between confidence and accuracy of the bins of ``calibration``, weighted by clips."""
    if not len(gold):
        return None
    bins = calibration(gold, posteriors)
    return float((bins.clips * np.abs(bins.accuracy - bins.confidence)).sum() / len(gold))


class Coverage(NamedTuple):
    """For each number of answers, from one to all: the share of clips that are answered, and the accuracy, (clips,)."""

    share: np.ndarray
    accuracy: np.ndarray


def accuracy_by_coverage(gold: Sequence[int], posteriors: Sequence[Sequence[float]]) -> Coverage:
    """The accuracy of the clips with the highest posteriors of the predicted class, for any number of these.

    ``posteriors`` is (clips, classes). Clips of equal posteriors count alike: each has their mean accuracy.
    """
    probabilities = np.asarray(posteriors, dtype=np.float64)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == np.asarray(gold)
    _, groups = np.unique(-confidence, return_inverse=True)
    means = np.bincount(groups, weights=correct) / np.bincount(groups)
    answers = np.arange(1, len(correct) + 1)
    return Coverage(answers / len(correct), np.cumsum(means[np.sort(groups)]) / answers)


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
    return bool(values.var() < 1e-24)  # constants have a variance of about 1e-32 by rounding


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
        return None  # undefined for constant labels; the formula would give 0
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
    """One output for all utterances, with few errors: what a model that ignores its input can reach.

    Of the twelve most common phones, the one that saves most errors is inserted, as long as one saves any.
    """
    candidates = sorted(
        {phone for reference in references for phone in reference},
        key=lambda phone: (-sum(phone in reference for reference in references), phone),
    )[:12]
    constant: list[int] = []
    fewest = sum(map(len, references))
    while candidates:
        options = [
            constant[:place] + [phone] + constant[place:] for place in range(len(constant) + 1) for phone in candidates
        ]
        errors, option = min((sum(phone_errors(r, option) for r in references), option) for option in options)
        if errors >= fewest:
            break
        fewest, constant = errors, option
    return constant


def esc_and_eis_scores(
    gold_esc: Sequence[int], predicted_esc: Sequence[int], gold_eis: Sequence[float], predicted_eis: Sequence[float]
) -> dict[str, float | None]:
    """The metrics wa, ua, eis_mse and eis_ccc of a set of clips."""
    return {
        "wa": weighted_accuracy(gold_esc, predicted_esc),
        "ua": unweighted_accuracy(gold_esc, predicted_esc),
        "eis_mse": mean_squared_error(gold_eis, predicted_eis),
        "eis_ccc": concordance(gold_eis, predicted_eis),
    }
