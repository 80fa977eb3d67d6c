"""Which systems of a table can be compared, and whether their differences are significant."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from speecheq.evaluation import significance
from speecheq.reporting.experiment import Experiment
from speecheq.reporting.probe_results import is_probe
from speecheq.reporting.tables import NOT_AVAILABLE, Column, Section, Table, build_table, format_score, interval_cell

SIGNIFICANCE = 0.05
# Five speakers all agree by chance in 2 of 2^5 cases, which is above SIGNIFICANCE: with fewer than six speakers no
# difference can be shown to generalise to others.
FEWEST_SPEAKERS = 6


@dataclass(frozen=True)
class Pair:
    """Two systems of a table. ``mcnemar`` and ``bootstrap``: p values, corrected (Holm) over all pairs of the table."""

    first: Experiment
    second: Experiment
    difference: significance.Difference
    mcnemar: float
    bootstrap: float | None

    @property
    def is_significant_for_clips(self) -> bool:
        """Whether McNemar's test rejects, in favour of the system with the higher UA."""
        ahead = self.difference.first_only - self.difference.second_only
        return self.mcnemar < SIGNIFICANCE and ahead * self.difference.ua > 0

    @property
    def is_significant(self) -> bool:
        """Whether both tests reject in the same direction, over enough speakers."""
        enough = self.difference.speakers >= FEWEST_SPEAKERS
        return enough and self.is_significant_for_clips and self.bootstrap is not None and self.bootstrap < SIGNIFICANCE

    @property
    def verdict(self) -> str:
        speakers = self.difference.speakers
        if self.is_significant:
            return "significant"
        if self.is_significant_for_clips and speakers < FEWEST_SPEAKERS:
            whose = "this one speaker" if speakers == 1 else f"these {speakers} speakers"
            return f"significant for the clips of {whose} only, too few speakers to generalise"
        return "not significant"

    def __str__(self) -> str:
        points = 100 * self.difference.ua
        relation = f"a UA {abs(points):.2f} points {'higher' if points > 0 else 'lower'} than"
        if abs(points) < 0.005:
            relation = "the same UA as"
        return (
            f"{self.first.name} has {relation} {self.second.name} (McNemar p {_format_p(self.mcnemar)}, bootstrap p "
            f"{_format_p(self.bootstrap)}): {self.verdict}"
        )


class NotComparable(NamedTuple):
    """Two systems that are not compared, and why."""

    first: Experiment
    second: Experiment
    reason: str

    def __str__(self) -> str:
        return f"{self.first.name} and {self.second.name} are not comparable: {self.reason}"


def _format_p(value: float | None) -> str:
    if value is None:
        return NOT_AVAILABLE
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _difference_table(pairs: Sequence[Pair]) -> Table:
    return build_table(
        "differences",
        "differences between systems",
        pairs,
        {
            "first": lambda pair: pair.first.name,
            "second": lambda pair: pair.second.name,
            "UA, first - second": lambda pair: format_score(pair.difference.ua, "ua"),
            Column("95 % interval", ("low", "high"), " to "): lambda pair: interval_cell(
                pair.difference.low, pair.difference.high, "ua"
            ),
            "clips correct in the first only": lambda pair: str(pair.difference.first_only),
            Column("in the second only", ("clips correct in the second only",)): lambda pair: str(
                pair.difference.second_only
            ),
            "McNemar p": lambda pair: _format_p(pair.mcnemar),
            "bootstrap p": lambda pair: _format_p(pair.bootstrap),
            "verdict": lambda pair: pair.verdict,
        },
    )


@dataclass(frozen=True)
class Comparison:
    """The pairs of a table's systems that were tested, and those that cannot be compared."""

    systems: Sequence[Experiment]
    pairs: Sequence[Pair]
    not_comparable: Sequence[NotComparable]

    def section(self, system: Experiment | None = None) -> Section:
        """The pairs as a table and as sentences, and why others are not compared; only those of ``system`` if given."""

        def is_shown(pair: Pair | NotComparable) -> bool:
            return system is None or system is pair.first or system is pair.second

        pairs = [pair for pair in self.pairs if is_shown(pair)]
        others = [pair for pair in self.not_comparable if is_shown(pair)]
        sentences = [*map(str, pairs), *map(str, others)]
        all_pairs = math.comb(len(self.systems), 2) if system is None else len(self.systems) - 1
        if len(pairs) + len(others) < all_pairs:
            sentences.append("pairs that differ in more than one of system, configuration and data are not tested")
        if not pairs:
            return Section("Differences to other systems", [], sentences)
        tested = "1 pair" if len(self.pairs) == 1 else f"{len(self.pairs)} pairs"
        sentences.insert(
            0,
            f"p values are corrected (Holm) over the {tested} of {'this table' if system is None else 'all systems'}. "
            "A difference is significant if both tests give p < 0.05 in the same direction over at least six test "
            "speakers.",
        )
        if len({revision for member in self.systems for revision in member.run["trained_at_git"]}) > 1:
            sentences.append(
                "these systems were trained with different revisions of the code, which may explain part of a "
                "difference"
            )
        return Section("Differences to other systems", [_difference_table(pairs)], sentences)


def why_not_comparable(first: Experiment, second: Experiment) -> str | None:
    """The reason; None if both predict the same test clips, with the same labels, in the same folds and seeds.

    A probe has no seed: it is compared with every seed of a trained system.
    """
    for what in ("target", "protocol", "classes", "folds", "seeds"):
        own, other = first.run[what], second.run[what]
        if own != other and not (what == "seeds" and _is_against_probe(first, second)):
            return f"different {what} ({_joined(own)} vs. {_joined(other)})"
    a, b = _paired_predictions(first, second)
    if a.clips.shape != b.clips.shape or (a.folds != b.folds).any() or (a.clips != b.clips).any():
        return "the folds hold different test clips"
    differ = (a.gold != b.gold) | (a.speakers != b.speakers)
    if differ.any():
        return f"labels or speakers of the same clips differ ({a.clips[int(np.argmax(differ))]})"
    return None


def _joined(value: Any) -> str:
    return value if isinstance(value, str) else " ".join(map(str, value))


def _is_against_probe(first: Experiment, second: Experiment) -> bool:
    """Whether one is a probe, the reference of the other, which is a trained system."""
    return is_probe(first) != is_probe(second)


def _paired_predictions(
    first: Experiment, second: Experiment
) -> tuple[significance.PooledPredictions, significance.PooledPredictions]:
    """The predictions of both; those of a probe once for each seed of the trained system that it stands beside."""
    if not _is_against_probe(first, second):
        return first.predictions, second.predictions

    def repeated(own: Experiment, other: Experiment) -> significance.PooledPredictions:
        return own.predictions.for_seeds(other.run["seeds"]) if is_probe(own) else own.predictions

    return repeated(first, second), repeated(second, first)


def _differ_in_one_thing(first: Experiment, second: Experiment) -> bool:
    """Whether either the system differs, or its configuration on the same data, so that a difference has one cause.

    Every trained system is compared with the probe.
    """
    if _is_against_probe(first, second):
        return True

    def same(*names: str) -> bool:
        return all(first.run[name] == second.run[name] for name in names)

    return same("config", "set") or same("system", "corpora", "phonemes")


def compare(systems: Sequence[Experiment]) -> Comparison:
    """Test the pairs of a table's systems that can be compared.

    Pairs that differ in more than one thing are left out: their differences would have no single cause, and each
    further test weakens all others.
    """
    tested: list[tuple[Experiment, Experiment, significance.Difference]] = []
    others: list[NotComparable] = []
    for first, second in combinations(systems, 2):
        if not _differ_in_one_thing(first, second):
            continue
        reason = why_not_comparable(first, second)
        if reason is None:
            tested.append((first, second, significance.difference(*_paired_predictions(first, second))))
        else:
            others.append(NotComparable(first, second, reason))
    mcnemar = significance.holm([difference.mcnemar for *_, difference in tested])
    known = [difference.bootstrap for *_, difference in tested if difference.bootstrap is not None]
    bootstrap = iter(significance.holm(known))
    pairs = [
        Pair(first, second, difference, p, None if difference.bootstrap is None else next(bootstrap))
        for (first, second, difference), p in zip(tested, mcnemar)
    ]
    return Comparison(systems, pairs, others)
