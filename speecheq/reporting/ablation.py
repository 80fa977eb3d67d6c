"""Ablation effects: the difference in UA with and without a component, per test condition."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from speecheq.evaluation import significance
from speecheq.evaluation.robustness.conditions import CLEAN, OTHER_CORPORA, ConditionResult
from speecheq.evaluation.significance import PooledPredictions
from speecheq.reporting.comparison import FEWEST_SPEAKERS
from speecheq.reporting.experiment import Experiment, called
from speecheq.reporting.tables import NOT_AVAILABLE, Cell, Column, Section, Table, figure, numbers

OWN_CLIPS = "test clips as they are"
# Where the 95 % interval of a difference lies.
ABOVE, AROUND, BELOW = "above 0", "around 0", "below 0"
# Of what a setting notes, what may differ without any effect on the answers under one condition: the words, the
# revisions, how many gradients were 0, and which other corpora and attacks were tested too.
NO_MATTER = ("notes", "git", "gradients", "corpora", "methods")


@dataclass(frozen=True)
class Part:
    """What ``system`` has and the system ``without`` lacks; ``name`` is that in words."""

    name: str
    system: str
    without: str


@dataclass(frozen=True)
class Worth:
    """A part under one condition of a ``setting`` (its title; "": stage 5). ``answers`` are those of ``system`` in the
    folds and seeds that both have, ``difference`` is its UA minus that of ``without``, in them."""

    part: Part
    system: Experiment
    without: Experiment
    setting: str
    condition: str
    answers: PooledPredictions
    difference: significance.Difference

    @property
    def under(self) -> str:
        return f"{self.setting.lower()}: {self.condition}" if self.setting else self.condition

    @property
    def place(self) -> str | None:
        """Where the interval lies; None over fewer than FEWEST_SPEAKERS, which tell nothing of others.

        Clips of another corpus are answered by the training of every fold, and as many trainings are asked for there.
        """
        of = self.difference
        if of.speakers < FEWEST_SPEAKERS or of.low is None or of.high is None:
            return None
        trainings = len(self.answers.trainings) if self.answers.folds_share_clips else 1
        if self.setting == OTHER_CORPORA.title and trainings < FEWEST_SPEAKERS:
            return None
        return ABOVE if of.low > 0 else BELOW if of.high < 0 else AROUND


class NotCompared(NamedTuple):
    """Two systems that are not held against each other ``under`` a condition or setting, and why."""

    part: Part
    system: Experiment
    without: Experiment
    under: str
    why: str

    def __str__(self) -> str:
        return (
            f"{self.part.name}, {self.under}: {called(self.system)} and {called(self.without)} are not compared: "
            f"{self.why}"
        )


def worths(parts: Sequence[Part], members: Sequence[Experiment]) -> tuple[list[Worth], list[NotCompared]]:
    """What the parts are worth under every condition that both systems were tried in, and what is not compared.

    ``members`` are the experiments on one target under one protocol. Systems of one configuration are compared.
    """
    found: list[Worth] = []
    others: list[NotCompared] = []
    for part in parts:
        pairs = [
            (system, without)
            for system, without in product(members, repeat=2)
            if (system.run["system"], without.run["system"]) == (part.system, part.without)
        ]
        alike = [pair for pair in pairs if all(pair[0].run[name] == pair[1].run[name] for name in ("config", "set"))]
        if pairs and not alike:
            others.append(NotCompared(part, *pairs[0], "all conditions", "their configurations differ"))
        for system, without in alike:
            for setting, condition, own, its, why in _under_both(system, without):
                scored = own.trainings & its.trainings
                why = why or ("" if scored else "they have no fold and seed in common")
                if not why:
                    own, its = own.select(scored), its.select(scored)
                    try:
                        difference = significance.difference(own, its)
                    except ValueError:
                        why = "they were tested on other clips"
                if why:
                    others.append(NotCompared(part, system, without, setting.lower() or condition, why))
                else:
                    found.append(Worth(part, system, without, setting, condition, own, difference))
    return found, list({str(other): other for other in others}.values())


def _under_both(
    system: Experiment, without: Experiment
) -> Iterator[tuple[str, str, PooledPredictions, PooledPredictions, str]]:
    """(the setting's title, condition, the answers of both, why they cannot be compared) of each that both have."""
    yield "", OWN_CLIPS, system.answers, without.answers, ""
    others = {(row.setting, row.condition): row for row in without.rows}
    for row in system.rows:
        other = others.get((row.setting, row.condition))
        if other is not None and row.condition != CLEAN:
            why = "" if _made(row) == _made(other) else "they were tried with other options or sounds"
            yield row.setting.title, row.condition.name, row.predictions, other.predictions, why


def _made(row: ConditionResult) -> dict[str, object]:
    return {name: value for name, value in row.facts.items() if name not in NO_MATTER}


# ---- on the page

TOO_FEW = f"over fewer than {FEWEST_SPEAKERS} speakers (on other corpora also: trainings)"
EXPLAINED = (
    "Differences are those of the pooled UA, over the folds and seeds that both systems have. Their 95 % intervals "
    f"draw test speakers, on other corpora the trainings (a fold and seed each) too; below {FEWEST_SPEAKERS} of either "
    "nothing is concluded.",
    "They are not corrected for the number of parts and conditions: one in twenty leaves out 0 by chance. How much a "
    "training with another seed would change is in them only where there are several seeds, and then in part.",
)


def worth_section(heading: str, parts: Sequence[Part], members: Sequence[Experiment]) -> Section:
    """A table of what parts are worth, a line a condition, and a sentence on each; empty where nothing can be told."""
    found, others = worths(parts, members)
    of_pair: dict[tuple[str, str, str], dict[str, Worth]] = defaultdict(dict)
    for worth in found:
        of_pair[worth.part.name, called(worth.system), called(worth.without)][worth.under] = worth
    tables, sentences = [], []
    if found:
        rows = []
        for under in dict.fromkeys(worth.under for worth in found):
            own = [of.get(under) for of in of_pair.values()]
            rows.append([under, *map(_cell, own), *(_of_all(column, own) for column in ROW_FACTS)])
        names = [
            name if sum(name == other for other, _, _ in of_pair) == 1 else f"{name} ({system})"
            for name, system, _ in of_pair
        ]
        tables.append(
            Table(
                "parts",
                "pooled UA with the part less that without it, in points",
                [
                    Column("condition"),
                    *(Column(name, (name, f"{name}, 95 % interval"), ", ") for name in names),
                    *map(Column, ROW_FACTS),
                ],
                rows,
            )
        )
        of_parts = [list(of.values()) for of in of_pair.values()]
        is_judged = [any(worth.place for worth in of) for of in of_parts]
        sentences = [*EXPLAINED, *(_in_words(of) for of, judged in zip(of_parts, is_judged) if judged)]
        if not all(is_judged):
            sentences.append(
                f"not judged, {TOO_FEW}: "
                + "; ".join(_names(of[0]) for of, judged in zip(of_parts, is_judged) if not judged)
            )
        for of in of_parts:
            sentences += _apart(of[0].system, of[0].without)
    return Section(f"{heading}: what each part is worth", tables, [*dict.fromkeys(sentences), *map(str, others)])


# What a line says of its differences, of each part where they are not the same.
ROW_FACTS = {
    "folds": lambda answers: numbers(sorted(set(answers.folds.tolist()))),
    "seeds": lambda answers: numbers(sorted(set(answers.seeds.tolist()))),
    "speakers": lambda answers: str(len(set(answers.speakers.tolist()))),
    "clips": lambda answers: str(answers.clip_count),
}


def _of_all(name: str, own: Sequence[Worth | None]) -> str:
    values = ["-" if worth is None else ROW_FACTS[name](worth.answers) for worth in own]
    different = set(values) - {"-"}
    return different.pop() if len(different) == 1 else " / ".join(values)


def _cell(worth: Worth | None) -> Cell:
    if worth is None:
        return "-"
    of = worth.difference
    return (
        figure(of.ua, "ua"),
        NOT_AVAILABLE if of.low is None else f"{figure(of.low, 'ua')} to {figure(of.high, 'ua')}",
    )


def _in_words(of_part: Sequence[Worth]) -> str:
    """A sentence on a part: under which conditions it helps, and under which not."""
    placed = {place: [worth for worth in of_part if worth.place == place] for place in (ABOVE, BELOW, AROUND, None)}
    told = []
    for place, verb in ((ABOVE, "helps"), (BELOW, "does harm")):
        if placed[place]:
            told.append(
                f"{verb} under {len(placed[place])} of {len(of_part)} conditions (the whole interval lies "
                f"{place}): " + "; ".join(_listed(placed[place]))
            )
    if placed[AROUND]:
        told.append(f"shows no difference under {len(placed[AROUND])} of {len(of_part)} (0 lies in the interval)")
    if placed[None]:
        told.append(f"is not judged under {len(placed[None])} of {len(of_part)}, {TOO_FEW}")
    return f"{_names(of_part[0])} " + "; ".join(told)


def _names(worth: Worth) -> str:
    return f"{worth.part.name} ({called(worth.system)} against {called(worth.without)})"


def _listed(worths: Sequence[Worth]) -> Iterator[str]:
    """Conditions with their differences, a setting at a time."""
    by_setting: dict[str, list[str]] = defaultdict(list)
    for worth in worths:
        by_setting[worth.setting].append(f"{worth.condition} ({100 * worth.difference.ua:+.2f})")
    return (f"{setting.lower()}: {', '.join(of)}" if setting else ", ".join(of) for setting, of in by_setting.items())


def _apart(system: Experiment, without: Experiment) -> Iterator[str]:
    """What else may be part of a difference."""
    both = f"{called(system)} and {called(without)}"
    if system.run["trained_at_git"] != without.run["trained_at_git"]:
        yield f"{both} were trained at different revisions of the program, which may be part of their difference"
    if system.run["corpora"] != without.run["corpora"]:
        yield (
            f"{both} were trained on other emotion data: {', '.join(system.run['corpora'])} against "
            f"{', '.join(without.run['corpora'])}"
        )
