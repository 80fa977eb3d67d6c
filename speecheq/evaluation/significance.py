"""Confidence intervals by resampling speakers, and paired tests of two systems.

The clips of one speaker resemble each other, so speakers are resampled, not clips. Works on arrays, reads no files.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest, norm, t

RESAMPLES = 10_000
ROUNDING = 1e-12  # a smaller difference in UA is due to rounding
CONSTANT = 1e-9  # a smaller variance of labels is due to rounding
SEED = 0
LEVEL = 0.95
# Fewer speakers make an interval coarse: four have only 35 different resamples.
FEW_SPEAKERS = 10


class PooledPredictions(NamedTuple):
    """The ESC predictions of a system for the test clips of an experiment, pooled over its seeds and folds.

    Arrays (predictions,), one prediction per seed, fold and clip, sorted in this order, so that two systems can be
    compared element by element. ``gold`` and ``predicted`` are class numbers.
    """

    seeds: np.ndarray
    folds: np.ndarray
    clips: np.ndarray
    speakers: np.ndarray
    gold: np.ndarray
    predicted: np.ndarray

    @classmethod
    def from_rows(cls, rows: Sequence[tuple[int, int, str, str, int, int]]) -> "PooledPredictions":
        """From (seed, fold, clip, speaker, gold, predicted) in any order."""
        return cls(*map(np.array, zip(*sorted(rows))))

    @property
    def correct(self) -> np.ndarray:
        return self.gold == self.predicted

    @property
    def clip_count(self) -> int:
        """The number of different clips; several folds and seeds may predict the same clip."""
        return len(np.unique(self.clips))

    @property
    def trainings(self) -> set[tuple[int, int]]:
        """The (seed, fold) of every training."""
        return set(zip(self.seeds.tolist(), self.folds.tolist()))

    def select(self, trainings: set[tuple[int, int]]) -> "PooledPredictions":
        """The predictions of these (seed, fold)."""
        kept = np.array([pair in trainings for pair in zip(self.seeds.tolist(), self.folds.tolist())], dtype=bool)
        return PooledPredictions(*(values[kept] for values in self))

    def for_seeds(self, seeds: Sequence[int]) -> "PooledPredictions":
        """The predictions of something that has no seed, once for each of ``seeds``."""
        rows = list(zip(*(values.tolist() for values in self[1:])))
        return PooledPredictions.from_rows([(seed, *row) for seed in seeds for row in rows])

    @property
    def folds_share_clips(self) -> bool:
        """Whether several folds predict the same clip, as they do for clips of another corpus."""
        return len(set(zip(self.seeds.tolist(), self.clips.tolist()))) < len(self.seeds)

    @property
    def units(self) -> int:
        """The number of independent observations: speakers, or trainings where folds share clips and they are fewer."""
        speakers = len(np.unique(self.speakers))
        return min(speakers, len(self.trainings)) if self.folds_share_clips else speakers


class Accuracies(NamedTuple):
    """WA and UA, both of shape (...,), averaged over rounds (see ``accuracies``)."""

    wa: np.ndarray
    ua: np.ndarray


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean over the last axis; 0 where all weights are 0."""
    total = weights.sum(-1)
    return (values * weights).sum(-1) / np.where(total > 0, total, 1)


def _accuracies(correct: np.ndarray, clips: np.ndarray, draws: np.ndarray | None = None) -> Accuracies:
    """WA and UA from counts (..., rounds, classes) of correct predictions and of clips.

    UA is over the classes that occur. ``draws`` (..., rounds) is how often each round counts; once by default.
    """
    clips_per_round = clips.sum(-1)
    weights = (clips_per_round > 0) * (1 if draws is None else draws)
    recalls = correct / np.maximum(clips, 1)
    return Accuracies(
        wa=_mean(correct.sum(-1) / np.maximum(clips_per_round, 1), weights),
        ua=_mean(_mean(recalls, clips > 0), weights),
    )


def _speaker_counts(predictions: PooledPredictions) -> tuple[np.ndarray, np.ndarray]:
    """Count per speaker, round and class.

    Returns: the correct predictions and the clips, both (speakers, rounds, classes), speakers sorted by name. A round
    is a seed, or a seed and fold where folds share clips.
    """
    rounds = predictions.seeds
    if predictions.folds_share_clips:
        rounds = np.array([f"{seed} {fold}" for seed, fold in zip(predictions.seeds, predictions.folds)])
    axes = [np.unique(values, return_inverse=True) for values in (predictions.speakers, rounds, predictions.gold)]
    correct, clips = np.zeros((2, *(len(values) for values, _ in axes)))
    cells = tuple(indices for _, indices in axes)
    np.add.at(correct, cells, predictions.correct)
    np.add.at(clips, cells, 1)
    return correct, clips


def accuracies(predictions: PooledPredictions) -> Accuracies:
    """WA and UA (scalars) over all clips of a seed, with its folds pooled, averaged over seeds.

    Where folds share clips, they are taken over the clips of each training and averaged over trainings.
    """
    correct, clips = _speaker_counts(predictions)
    return _accuracies(correct.sum(0), clips.sum(0))


@lru_cache(maxsize=2)  # shared by all systems of a table
def _draws(units: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of ``units`` speakers or trainings is drawn, (resamples, units)."""
    draw = np.random.default_rng(seed).multinomial
    return draw(units, np.full(units, 1 / units), resamples).astype(np.float64)


def bootstrap_accuracies(
    predictions: PooledPredictions, resamples: int = RESAMPLES, seed: int = SEED
) -> Accuracies | None:
    """The ``accuracies`` of bootstrap samples, each (resamples,); None with fewer than two speakers.

    A sample draws as many speakers as there are, with replacement, and takes all predictions of a drawn speaker, of
    all folds and seeds, as often as the speaker is drawn. UA is over the classes that occur in the sample. Where folds
    share clips, trainings are drawn too, independently of the speakers (pigeonhole bootstrap; Owen, 2007). The draws
    depend only on the numbers of speakers and trainings and on ``seed``: they are the same for two systems.
    """
    correct, clips = _speaker_counts(predictions)
    speakers, rounds, _ = clips.shape
    if speakers < 2:
        return None
    draws = _draws(speakers, resamples, seed)
    return _accuracies(
        np.tensordot(draws, correct, 1),
        np.tensordot(draws, clips, 1),
        _draws(rounds, resamples, seed + 1) if predictions.folds_share_clips else None,
    )


class EisPredictions(NamedTuple):
    """EIS of test clips that have a label, pooled over folds: arrays (predictions,), one per seed and clip."""

    seeds: np.ndarray
    speakers: np.ndarray
    gold: np.ndarray
    predicted: np.ndarray

    @property
    def units(self) -> int:
        """The number of speakers."""
        return len(np.unique(self.speakers))


class EisScores(NamedTuple):
    """MSE and CCC of the EIS, both (resamples,), averaged over seeds."""

    eis_mse: np.ndarray
    eis_ccc: np.ndarray


def bootstrap_eis(predictions: EisPredictions, resamples: int = RESAMPLES, seed: int = SEED) -> EisScores | None:
    """The MSE and Lin's CCC of bootstrap samples of speakers, as in ``bootstrap_accuracies``.

    They are those of sums over the clips of each speaker. A CCC is NaN where all labels of a sample are equal.

    Returns: the scores, or None with fewer than two speakers.
    """
    units = predictions.units
    if units < 2:
        return None
    x, y = predictions.gold.astype(np.float64), predictions.predicted.astype(np.float64)
    axes = [np.unique(values, return_inverse=True) for values in (predictions.seeds, predictions.speakers)]
    sums = np.zeros((len(axes[0][0]), units, 6))
    np.add.at(sums, tuple(indices for _, indices in axes), np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], 1))
    drawn = _draws(units, resamples, seed) @ sums  # (seeds, resamples, 6)
    _, x_mean, y_mean, xx, yy, xy = np.moveaxis(drawn / drawn[..., :1], 2, 0)
    x_variance, y_variance = xx - x_mean**2, yy - y_mean**2
    with np.errstate(invalid="ignore", divide="ignore"):
        ccc = 2 * (xy - x_mean * y_mean) / (x_variance + y_variance + (x_mean - y_mean) ** 2)
    ccc[x_variance < CONSTANT] = np.nan
    return EisScores((xx - 2 * xy + yy).mean(0), ccc.mean(0))


def bootstrap_interval(values: np.ndarray, units: int, level: float = LEVEL) -> tuple[float, float]:
    """The expanded percentile interval (Hesterberg, 2015, 4.4) of bootstrap ``values`` (resamples,) over ``units``.

    A sample of few units varies less than the population. The percentiles are moved outwards so that the interval of a
    mean is as long as that of Student's t.

    Returns: the lower and the upper end.
    """
    tail = float(norm.cdf(np.sqrt(units / (units - 1)) * t.ppf((1 - level) / 2, units - 1)))
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _without_rounding(differences: np.ndarray) -> np.ndarray:
    return np.where(np.abs(differences) < ROUNDING, 0.0, differences)


def bootstrap_p_value(differences: np.ndarray, units: int) -> float:
    """The two-sided p value of "there is no difference" from bootstrap ``differences`` (resamples,) over ``units``.

    It is the share of differences on the other side of 0, expanded as in ``bootstrap_interval``. The sample itself
    counts as one of them, so p is never 0.
    """
    differences = _without_rounding(differences)
    beyond = min((differences <= 0).sum(), (differences >= 0).sum())
    tail = min(0.5, (int(beyond) + 1) / (len(differences) + 1))
    return 2 * float(t.cdf(np.sqrt((units - 1) / units) * norm.ppf(tail), units - 1))


def mcnemar(first_only: int, second_only: int) -> float:
    """McNemar's exact two-sided p value, from the numbers of clips that only one of two systems has right."""
    discordant = first_only + second_only
    return float(binomtest(min(first_only, second_only), discordant).pvalue) if discordant else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction of a family of p values (family-wise error), in their order."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def standard_deviation(values: Sequence[float]) -> float | None:
    """The standard deviation of a sample (n - 1); None of fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


class Difference(NamedTuple):
    """Two systems compared on the same clips.

    ``ua`` is the UA of the first minus that of the second, ``low`` and ``high`` the ends of its interval.
    ``first_only`` and ``second_only`` count the clips that one system has right in more trainings than the other. The
    p values ``mcnemar`` and ``bootstrap`` are not corrected. ``low``, ``high`` and ``bootstrap`` are None with one
    speaker.
    """

    ua: float
    low: float | None
    high: float | None
    first_only: int
    second_only: int
    mcnemar: float
    bootstrap: float | None
    speakers: int


def difference(first: PooledPredictions, second: PooledPredictions) -> Difference:
    """McNemar's test, and the bootstrap of the difference in UA over the same draws of speakers.

    A clip that several trainings predict counts once in McNemar's test, for the system that predicts it correctly in
    more of them, since predictions of one clip are not independent trials. Raises ValueError unless both predict the
    same (seed, fold, clip).
    """
    if not all(np.array_equal(a, b) for a, b in zip(first[:5], second[:5])):
        raise ValueError("the two systems do not predict the same clips")
    _, clip = np.unique(first.clips, return_inverse=True)
    lead = np.bincount(clip, weights=first.correct.astype(int) - second.correct.astype(int))
    first_only, second_only = int((lead > 0).sum()), int((lead < 0).sum())
    first_samples, second_samples = bootstrap_accuracies(first), bootstrap_accuracies(second)
    low = high = p = None
    if first_samples is not None and second_samples is not None:
        differences = first_samples.ua - second_samples.ua
        low, high = bootstrap_interval(_without_rounding(differences), first.units)
        p = bootstrap_p_value(differences, first.units)
    return Difference(
        ua=float(accuracies(first).ua - accuracies(second).ua),
        low=low,
        high=high,
        first_only=first_only,
        second_only=second_only,
        mcnemar=mcnemar(first_only, second_only),
        bootstrap=p,
        speakers=len(np.unique(first.speakers)),
    )
