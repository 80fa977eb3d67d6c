"""How far scores can be trusted: intervals by resampling speakers, and paired tests of two systems.

The clips of one speaker resemble each other, so a speaker is what is resampled. Knows arrays, no files.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

RESAMPLES = 10_000
ROUNDING = 1e-12  # systems whose UA differs by less differ by rounding only
SEED = 0
LEVEL = 0.95
# Fewer speakers make an interval coarse: of four there are only 35 different resamples.
FEW_SPEAKERS = 10


class PooledPredictions(NamedTuple):
    """What a system said of the test clips of an experiment: arrays (answers,), one answer a seed and clip.

    ``gold`` and ``predicted`` are class numbers. Sorted by seed, fold and clip, so that two systems can be laid side
    by side.
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
        """Different ones; several folds and seeds may answer the same."""
        return len(np.unique(self.clips))

    @property
    def trainings(self) -> set[tuple[int, int]]:
        """The (seed, fold) that there are."""
        return set(zip(self.seeds.tolist(), self.folds.tolist()))

    def select(self, trainings: set[tuple[int, int]]) -> "PooledPredictions":
        """Those of some (seed, fold)."""
        kept = np.array([pair in trainings for pair in zip(self.seeds.tolist(), self.folds.tolist())], dtype=bool)
        return PooledPredictions(*(values[kept] for values in self))

    @property
    def folds_share_clips(self) -> bool:
        """Whether clips are answered by several folds, as those of another corpus are."""
        return len(set(zip(self.seeds.tolist(), self.clips.tolist()))) < len(self.seeds)

    @property
    def units(self) -> int:
        """How many independent observations an interval rests on: speakers, or the trainings that answer all of them
        (``folds_share_clips``) where these are fewer."""
        speakers = len(np.unique(self.speakers))
        return min(speakers, len(self.trainings)) if self.folds_share_clips else speakers


class Accuracies(NamedTuple):
    """WA and UA, each (...,): of all clips of a seed together, averaged over seeds."""

    wa: np.ndarray
    ua: np.ndarray


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Over the last axis; 0 where all weights are."""
    total = weights.sum(-1)
    return (values * weights).sum(-1) / np.where(total > 0, total, 1)


def _accuracies(right: np.ndarray, clips: np.ndarray, times: np.ndarray | None = None) -> Accuracies:
    """From counts (..., rounds, classes) of right answers and of clips; UA is over the classes that occur.

    ``times`` (..., rounds): how often each round counts, once if not given.
    """
    of_round = clips.sum(-1)
    weights = (of_round > 0) * (1 if times is None else times)
    recalls = right / np.maximum(clips, 1)
    return Accuracies(
        _mean(right.sum(-1) / np.maximum(of_round, 1), weights), _mean(_mean(recalls, clips > 0), weights)
    )


def _speaker_counts(answers: PooledPredictions) -> tuple[np.ndarray, np.ndarray]:
    """Right answers and clips, each (speakers, rounds, classes), speakers in the order of their names.

    A round is a seed, or a seed and fold where ``folds_share_clips``; scores are averaged over rounds.
    """
    rounds = answers.seeds
    if answers.folds_share_clips:
        rounds = np.array([f"{seed} {fold}" for seed, fold in zip(answers.seeds, answers.folds)])
    places = [np.unique(values, return_inverse=True) for values in (answers.speakers, rounds, answers.gold)]
    counts = np.zeros((2, *(len(values) for values, _ in places)))
    where = tuple(place for _, place in places)
    np.add.at(counts[0], where, answers.correct)
    np.add.at(counts[1], where, 1)
    return counts[0], counts[1]


def accuracies(answers: PooledPredictions) -> Accuracies:
    """WA and UA over all clips of a seed together (folds pooled), averaged over seeds.

    Where every fold answers all clips, of each training by itself, averaged over trainings.
    """
    right, clips = _speaker_counts(answers)
    return _accuracies(right.sum(0), clips.sum(0))


@lru_cache(maxsize=2)  # all systems of a table need the same
def _draws(number: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of a number of speakers or trainings is drawn, (resamples, number)."""
    draw = np.random.default_rng(seed).multinomial
    return draw(number, np.full(number, 1 / number), resamples).astype(np.float64)


def bootstrap_accuracies(answers: PooledPredictions, resamples: int = RESAMPLES, seed: int = SEED) -> Accuracies | None:
    """``accuracies`` of that many bootstrap samples, (resamples,) each; None where there is only one speaker.

    A sample draws as many speakers as there are, with replacement, and takes every answer of a drawn speaker, of all
    folds and seeds, as often as the speaker was drawn. UA is over the classes that occur in the sample. Where every
    fold answers all clips it draws as many trainings as there are too, by themselves (the pigeonhole bootstrap; Owen,
    2007), for another training would answer otherwise. The draws depend on these numbers and on ``seed`` only: two
    systems over the same clips get the same.
    """
    right, clips = _speaker_counts(answers)
    speakers, rounds, _ = clips.shape
    if speakers < 2:
        return None
    times = _draws(speakers, resamples, seed)
    return _accuracies(
        np.tensordot(times, right, 1),
        np.tensordot(times, clips, 1),
        _draws(rounds, resamples, seed + 1) if answers.folds_share_clips else None,
    )


def bootstrap_interval(values: np.ndarray, units: int, level: float = LEVEL) -> tuple[float, float]:
    """The expanded percentile interval (Hesterberg, 2015, 4.4) of bootstrap samples over that many ``units``.

    Percentiles are taken so far out that the interval of a mean has the length of that by Student's t: a sample of few
    units varies less than what it was drawn from, and how much it varies is itself uncertain.
    """
    tail = float(ndtr(np.sqrt(units / (units - 1)) * stdtrit(units - 1, (1 - level) / 2)))
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _but_for_rounding(differences: np.ndarray) -> np.ndarray:
    return np.where(np.abs(differences) < ROUNDING, 0.0, differences)


def bootstrap_p_value(differences: np.ndarray, units: int) -> float:
    """Two-sided p of "there is no difference", from resampled differences: how often they lie on the other side of 0,
    expanded as ``bootstrap_interval`` is.

    The sample itself counts as one of them, so that p is never 0.
    """
    differences = _but_for_rounding(differences)
    beyond = min((differences <= 0).sum(), (differences >= 0).sum())
    tail = min(0.5, (int(beyond) + 1) / (len(differences) + 1))
    return 2 * float(stdtr(units - 1, np.sqrt((units - 1) / units) * ndtri(tail)))


def mcnemar(first_only: int, second_only: int) -> float:
    """Exact two-sided McNemar p: that many clips are right in one system only, each as likely in either (binomial)."""
    trials, fewer = first_only + second_only, min(first_only, second_only)
    term = total = 1
    for k in range(fewer):  # binomial coefficients as whole numbers: exact for any number of clips
        term = term * (trials - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / 2**trials)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction of a family of p values (family-wise error), in their order."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def standard_deviation(values: Sequence[float]) -> float | None:
    """The standard deviation of a sample (n - 1); None of fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


class Difference(NamedTuple):
    """Two systems over the same answers. ``ua`` and its interval: of the first minus that of the second.

    ``first_only``: clips that the first has right in more trainings than the second (of one: that it alone has right).
    The p values are not corrected. Interval and ``bootstrap`` are None with one speaker.
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

    Both must answer the same (seed, fold, clip). A clip that several trainings answer counts for the system that has it
    right in more of them, as these answers are no independent trials.
    """
    if not all(np.array_equal(a, b) for a, b in zip(first[:5], second[:5])):
        raise ValueError("the two systems do not answer the same clips")
    _, clip = np.unique(first.clips, return_inverse=True)
    ahead = np.bincount(clip, weights=first.correct.astype(int) - second.correct.astype(int))
    first_only, second_only = int((ahead > 0).sum()), int((ahead < 0).sum())
    samples = bootstrap_accuracies(first), bootstrap_accuracies(second)
    low = high = p = None
    if samples[0] is not None:
        differences = samples[0].ua - samples[1].ua
        low, high = bootstrap_interval(_but_for_rounding(differences), first.units)
        p = bootstrap_p_value(differences, first.units)
    return Difference(
        float(accuracies(first).ua - accuracies(second).ua),
        low,
        high,
        first_only,
        second_only,
        mcnemar(first_only, second_only),
        p,
        len(np.unique(first.speakers)),
    )
