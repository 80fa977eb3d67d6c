"""Which systems of a table may be compared, whether their differences stand, and what a part of a system is worth."""

from dataclasses import dataclass
from itertools import combinations, product
from typing import Iterator, List, Optional, Sequence, Tuple

import numpy as np

from speecheq import uncertainty
from speecheq.conditions import CLEAN
from speecheq.summary import Experiment
from speecheq.uncertainty import Answers

SIGNIFICANCE = 0.05
# All of five speakers agree by chance in 2 of 2^5 cases, which is above SIGNIFICANCE: fewer speakers than six cannot
# show that a difference carries over to others.
FEWEST_SPEAKERS = 6


@dataclass(frozen=True)
class Pair:
    """Two systems of a table. ``mcnemar`` and ``bootstrap`` are corrected (Holm) over all pairs of the table."""

    first: Experiment
    second: Experiment
    difference: uncertainty.Difference
    mcnemar: float
    bootstrap: Optional[float]

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


def why_not_comparable(first: Experiment, second: Experiment) -> Optional[str]:
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


def compare(experiments: Sequence[Experiment]) -> Tuple[List[Pair], List[Tuple[Experiment, Experiment, str]]]:
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
            tested.append((first, second, uncertainty.difference(first.answers, second.answers)))
        else:
            others.append((first, second, reason))
    mcnemar = uncertainty.holm([of.mcnemar for _, _, of in tested])
    known = [of.bootstrap for _, _, of in tested if of.bootstrap is not None]
    bootstrap = iter(uncertainty.holm(known))
    pairs = [Pair(first, second, of, p, None if of.bootstrap is None else next(bootstrap))
             for (first, second, of), p in zip(tested, mcnemar)]
    return pairs, others


OWN_CLIPS = "test clips as they are"


@dataclass(frozen=True)
class Part:
    """What ``system`` has and the system ``without`` lacks; ``name`` is that in words."""

    name: str
    system: str
    without: str


@dataclass(frozen=True)
class Worth:
    """``part`` under one condition of a ``setting`` ("": stage 5): the UA of the system that has it minus that of the one
    ``without``, over the folds and seeds that both have."""

    part: Part
    system: Experiment
    without: Experiment
    setting: str
    condition: str
    scored: Sequence[Tuple[int, int]]  # (seed, fold)
    clips: int
    difference: uncertainty.Difference

    @property
    def verdict(self) -> Optional[str]:
        """Whether the 95 % interval of the difference leaves out 0; None where there is none."""
        of = self.difference
        if of.low is None or of.high is None:
            return None
        return HELPS if of.low > 0 else HURTS if of.high < 0 else NEITHER


HELPS, HURTS, NEITHER = "helps", "hurts", "neither"


def worths(parts: Sequence[Part], members: Sequence[Experiment]) -> Tuple[List[Worth], List[str]]:
    """What the parts are worth under every condition that both systems were tried in, and why some are not compared.

    ``members`` are the experiments on one target under one protocol. Systems of one configuration are compared, under
    conditions that were made alike.
    """
    found: List[Worth] = []
    reasons: List[str] = []
    for part in parts:
        for first, second in product(_of(part.system, members), _of(part.without, members)):
            if any(first.run[name] != second.run[name] for name in ("config", "set")):
                continue
            for setting, condition, own, its in _under(first, second):
                scored = set() if own is None else own.scored & its.scored
                try:
                    difference = uncertainty.difference(own.only(scored), its.only(scored)) if scored else None
                except ValueError:
                    difference = None
                if difference is None:
                    why = ("were tried with other options" if own is None else "were tested on other clips" if scored
                           else "have no fold and seed in common")
                    reasons.append(f"{part.name}, {setting.lower() or condition}: {part.system} and {part.without} "
                                   f"{why}, so they are not compared")
                    continue
                clips = {(fold, clip) for fold, clip in zip(own.folds.tolist(), own.clips.tolist())
                         if any(fold == of for _, of in scored)}
                found.append(Worth(part, first, second, setting, condition, sorted(scored), len(clips), difference))
    return found, list(dict.fromkeys(reasons))


def _of(system: str, members: Sequence[Experiment]) -> List[Experiment]:
    return [member for member in members if member.run["system"] == system]


def _under(first: Experiment, second: Experiment) -> Iterator[Tuple[str, str, Optional[Answers], Optional[Answers]]]:
    """(the setting's title, condition, what both answered) of each that both were tried in; None: not made alike."""
    yield "", OWN_CLIPS, first.answers, second.answers
    others = {(row.setting, row.condition): row for row in second.rows}
    for row in first.rows:
        other = others.get((row.setting, row.condition))
        if other is not None and row.condition != CLEAN:
            alike = {**row.facts, "git": None} == {**other.facts, "git": None}
            yield (row.setting.title, row.condition.name, *((row.answers, other.answers) if alike else (None, None)))
