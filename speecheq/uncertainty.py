"""How far scores can be trusted: intervals by resampling speakers, and paired tests of two systems.

The clips of one speaker resemble each other, so a speaker is what is resampled. Knows arrays, no files.
"""

from functools import lru_cache
from typing import List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

RESAMPLES = 10_000
ROUNDING = 1e-12  # systems whose UA differs by less differ by rounding only
SEED = 0
LEVEL = 0.95
# Fewer speakers make an interval coarse: of four there are only 35 different resamples.
FEW_SPEAKERS = 10


class Answers(NamedTuple):
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
    def of(cls, rows: Sequence[Tuple[int, int, str, str, int, int]]) -> "Answers":
        """From (seed, fold, clip, speaker, gold, predicted) in any order."""
        return cls(*map(np.array, zip(*sorted(rows))))

    @property
    def right(self) -> np.ndarray:
        return self.gold == self.predicted

    @property
    def number_of_clips(self) -> int:
        """Different ones; several folds and seeds may answer the same."""
        return len(np.unique(self.clips))

    @property
    def scored(self) -> Set[Tuple[int, int]]:
        """The (seed, fold) that there are."""
        return set(zip(self.seeds.tolist(), self.folds.tolist()))

    def only(self, scored: Set[Tuple[int, int]]) -> "Answers":
        """Those of some (seed, fold)."""
        kept = np.array([pair in scored for pair in zip(self.seeds.tolist(), self.folds.tolist())], dtype=bool)
        return Answers(*(values[kept] for values in self))


class Accuracies(NamedTuple):
    """WA and UA, each (...,): of all clips of a seed together, averaged over seeds."""

    wa: np.ndarray
    ua: np.ndarray


def _mean_where(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    return np.where(there, values, 0).sum(-1) / np.maximum(there.sum(-1), 1)


def _accuracies(right: np.ndarray, clips: np.ndarray) -> Accuracies:
    """From counts (..., seeds, classes) of right answers and of clips; UA is over the classes that occur."""
    recalls = right / np.maximum(clips, 1)
    of_seed = clips.sum(-1)
    return Accuracies(
        _mean_where(right.sum(-1) / np.maximum(of_seed, 1), of_seed > 0),
        _mean_where(_mean_where(recalls, clips > 0), of_seed > 0),
    )


def _speaker_counts(answers: Answers) -> Tuple[np.ndarray, np.ndarray]:
    """Right answers and clips, each (speakers, seeds, classes), speakers in the order of their names."""
    places = [np.unique(values, return_inverse=True)
              for values in (answers.speakers, answers.seeds, answers.gold)]
    counts = np.zeros((2, *(len(values) for values, _ in places)))
    where = tuple(place for _, place in places)
    np.add.at(counts[0], where, answers.right)
    np.add.at(counts[1], where, 1)
    return counts[0], counts[1]


def accuracies(answers: Answers) -> Accuracies:
    """WA and UA over all clips of a seed together (folds pooled), averaged over seeds."""
    right, clips = _speaker_counts(answers)
    return _accuracies(right.sum(0), clips.sum(0))


@lru_cache(maxsize=1)  # all systems of a table need the same
def _draws(speakers: int, resamples: int, seed: int) -> np.ndarray:
    """How often each speaker is drawn, (resamples, speakers)."""
    draw = np.random.default_rng(seed).multinomial
    return draw(speakers, np.full(speakers, 1 / speakers), resamples).astype(np.float64)


def resampled(answers: Answers, resamples: int = RESAMPLES, seed: int = SEED) -> Optional[Accuracies]:
    """``accuracies`` of that many bootstrap samples, (resamples,) each; None where there is only one speaker.

    A sample draws as many speakers as there are, with replacement, and takes every answer of a drawn speaker, of all
    folds and seeds, as often as the speaker was drawn. UA is over the classes that occur in the sample. The draws
    depend on the number of speakers and on ``seed`` only: two systems over the same clips get the same.
    """
    right, clips = _speaker_counts(answers)
    if len(clips) < 2:
        return None
    times = _draws(len(clips), resamples, seed)
    return _accuracies(np.tensordot(times, right, 1), np.tensordot(times, clips, 1))


def interval(values: np.ndarray, level: float = LEVEL) -> Tuple[float, float]:
    """The percentile interval of bootstrap samples."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _but_for_rounding(differences: np.ndarray) -> np.ndarray:
    return np.where(np.abs(differences) < ROUNDING, 0.0, differences)


def bootstrap_p(differences: np.ndarray) -> float:
    """Two-sided p of "there is no difference", from resampled differences: how often they lie on the other side of 0.

    The sample itself counts as one of them, so that p is never 0.
    """
    differences = _but_for_rounding(differences)
    beyond = min((differences <= 0).sum(), (differences >= 0).sum())
    return min(1.0, 2 * (int(beyond) + 1) / (len(differences) + 1))


def mcnemar(first_only: int, second_only: int) -> float:
    """Exact two-sided McNemar p: that many clips are right in one system only, each as likely in either (binomial)."""
    trials, fewer = first_only + second_only, min(first_only, second_only)
    term = total = 1
    for k in range(fewer):  # binomial coefficients as whole numbers: exact for any number of clips
        term = term * (trials - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / 2**trials)


def holm(p_values: Sequence[float]) -> List[float]:
    """Holm's correction of a family of p values (family-wise error), in their order."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def deviation(values: Sequence[float]) -> Optional[float]:
    """The standard deviation of a sample (n - 1); None of fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


class Difference(NamedTuple):
    """Two systems over the same answers. ``ua`` and its interval: of the first minus that of the second.

    ``first_only``: clips that the first has right in more seeds than the second (with one seed: that it alone has
    right). The p values are not corrected. Interval and ``bootstrap`` are None with one speaker.
    """

    ua: float
    low: Optional[float]
    high: Optional[float]
    first_only: int
    second_only: int
    mcnemar: float
    bootstrap: Optional[float]
    speakers: int


def difference(first: Answers, second: Answers) -> Difference:
    """McNemar's test, and the bootstrap of the difference in UA over the same draws of speakers (``resampled``).

    Both must answer the same (seed, fold, clip). With several seeds a clip counts for the system that has it right in
    more of them, as the answers of a clip's seeds are no independent trials.
    """
    if not all(np.array_equal(a, b) for a, b in zip(first[:5], second[:5])):
        raise ValueError("the two systems do not answer the same clips")
    _, clip = np.unique([f"{fold} {name}" for fold, name in zip(first.folds, first.clips)], return_inverse=True)
    ahead = np.bincount(clip, weights=first.right.astype(int) - second.right.astype(int))
    first_only, second_only = int((ahead > 0).sum()), int((ahead < 0).sum())
    samples = resampled(first), resampled(second)
    low = high = p = None
    if samples[0] is not None:
        differences = samples[0].ua - samples[1].ua
        (low, high), p = interval(_but_for_rounding(differences)), bootstrap_p(differences)
    return Difference(
        float(accuracies(first).ua - accuracies(second).ua), low, high, first_only, second_only,
        mcnemar(first_only, second_only), p, len(np.unique(first.speakers)),
    )
