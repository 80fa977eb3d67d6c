"""Which systems of a table may be compared, and whether their differences stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from speecheq.evaluation import significance
from speecheq.reporting.experiment import Experiment

SIGNIFICANCE = 0.05
# All of five speakers agree by chance in 2 of 2^5 cases, which is above SIGNIFICANCE: fewer speakers than six cannot
# show that a difference carries over to others.
FEWEST_SPEAKERS = 6


@dataclass(frozen=True)
class Pair:
    """Two systems of a table. ``mcnemar`` and ``bootstrap`` are corrected (Holm) over all pairs of the table."""

    first: Experiment
    second: Experiment
    difference: significance.Difference
    mcnemar: float
    bootstrap: float | None

    @property
    def holds_for_clips(self) -> bool:
        """Whether McNemar's test rejects, in favour of the system with the higher UA."""
        ahead = self.difference.first_only - self.difference.second_only
        return self.mcnemar < SIGNIFICANCE and ahead * self.difference.ua > 0

    @property
    def stands(self) -> bool:
        """Whether both tests reject, in the same direction, over speakers enough."""
        enough = self.difference.speakers >= FEWEST_SPEAKERS
        return enough and self.holds_for_clips and self.bootstrap is not None and self.bootstrap < SIGNIFICANCE

    @property
    def verdict(self) -> str:
        speakers = self.difference.speakers
        if self.stands:
            return "the difference stands"
        if self.holds_for_clips and speakers < FEWEST_SPEAKERS:
            whose = "this one speaker's" if speakers == 1 else f"these {speakers} speakers'"
            return f"the difference stands for {whose} clips only, too few speakers to say it of others"
        return "the difference does not stand"


def why_not_comparable(first: Experiment, second: Experiment) -> str | None:
    """In words; None where both answer the same test clips, with the same labels, in the same folds and seeds."""
    for what in ("target", "protocol", "classes", "folds", "seeds"):
        of_first, of_second = first.run[what], second.run[what]
        if of_first != of_second:
            return f"other {what} ({_listed(of_first)} against {_listed(of_second)})"
    a, b = first.answers, second.answers
    if a.clips.shape != b.clips.shape or any((getattr(a, of) != getattr(b, of)).any() for of in ("folds", "clips")):
        return "the folds hold other test clips"
    differ = (a.gold != b.gold) | (a.speakers != b.speakers)
    if differ.any():
        return f"labels or speakers of the same clips differ ({a.clips[int(np.argmax(differ))]})"
    return None


def _listed(value) -> str:
    return value if isinstance(value, str) else " ".join(map(str, value))


def _one_thing_apart(first: Experiment, second: Experiment) -> bool:
    """Whether a difference has one cause: the system in one configuration, or that of one system on the same data."""

    def alike(*names: str) -> bool:
        return all(first.run[name] == second.run[name] for name in names)

    return alike("config", "set") or alike("system", "corpora", "phonemes")


def compare(experiments: Sequence[Experiment]) -> tuple[list[Pair], list[tuple[Experiment, Experiment, str]]]:
    """The pairs of a table: those that are comparable, tested, and the others with the reason.

    Pairs that differ in more than one thing are of neither list: nothing would follow from their difference, and each
    test more makes all others weaker.
    """
    tested, others = [], []
    for first, second in combinations(experiments, 2):
        if not _one_thing_apart(first, second):
            continue
        reason = why_not_comparable(first, second)
        if reason is None:
            tested.append((first, second, significance.difference(first.answers, second.answers)))
        else:
            others.append((first, second, reason))
    mcnemar = significance.holm([of.mcnemar for _, _, of in tested])
    known = [of.bootstrap for _, _, of in tested if of.bootstrap is not None]
    bootstrap = iter(significance.holm(known))
    pairs = [
        Pair(first, second, of, p, None if of.bootstrap is None else next(bootstrap))
        for (first, second, of), p in zip(tested, mcnemar)
    ]
    return pairs, others
