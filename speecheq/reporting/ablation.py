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
from speecheq.reporting.experiment import Experiment
from speecheq.reporting.tables import (
    Cell,
    Column,
    Section,
    Table,
    build_table,
    format_score,
    interval_text,
    join_numbers,
)

OWN_CLIPS = "unmodified test clips"
# Position of the 95 % interval of a difference.
ABOVE, AROUND, BELOW = "above 0", "around 0", "below 0"
# Facts of a condition that may differ between two systems without an effect on its predictions: notes, revisions, the
# number of gradients that are 0, and which other corpora and attacks were tested too.
IGNORED_FACTS = ("notes", "git", "gradients", "corpora", "methods")


@dataclass(frozen=True)
class Component:
    """A component that ``system`` has and the system ``without`` lacks; ``name`` describes it."""

    name: str
    system: str
    without: str


@dataclass(frozen=True, eq=False)
class Ablation:
    """The experiments with and without a component."""

    component: Component
    system: Experiment
    without: Experiment

    def __str__(self) -> str:
        return f"{self.component.name} ({self.system.name} vs. {self.without.name})"


@dataclass(frozen=True)
class AblationEffect:
    """The effect of a component under one condition of a setting; ``setting`` is its title, "" for stage 5.

    ``predictions``: those of the system with the component, in the folds and seeds that both systems have.
    ``difference``: UA with minus UA without the component, in these folds and seeds.
    """

    ablation: Ablation
    setting: str
    condition: str
    predictions: PooledPredictions
    difference: significance.Difference

    @property
    def label(self) -> str:
        return f"{self.setting.lower()}: {self.condition}" if self.setting else self.condition

    @property
    def interval_position(self) -> str | None:
        """The position of the interval; None over fewer than FEWEST_SPEAKERS, which do not represent others.

        Clips of another corpus are predicted by the model of every fold, so as many trainings are required there.
        """
        difference = self.difference
        if difference.speakers < FEWEST_SPEAKERS or difference.low is None or difference.high is None:
            return None
        trainings = len(self.predictions.trainings) if self.predictions.folds_share_clips else 1
        if self.setting == OTHER_CORPORA.title and trainings < FEWEST_SPEAKERS:
            return None
        if difference.low > 0:
            return ABOVE
        return BELOW if difference.high < 0 else AROUND


class NotCompared(NamedTuple):
    """Systems that are not compared under a condition, and why."""

    ablation: Ablation
    condition: str
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.ablation.component.name}, {self.condition}: {self.ablation.system.name} and "
            f"{self.ablation.without.name} are not compared: {self.reason}"
        )


def ablation_effects(
    components: Sequence[Component], systems: Sequence[Experiment]
) -> tuple[list[AblationEffect], list[NotCompared]]:
    """Compare systems of the same configuration with and without each component.

    ``systems``: the experiments on one target under one protocol.

    Returns:
        The effects under every condition that both systems were tested in; and the systems that cannot be compared.
    """
    effects: list[AblationEffect] = []
    others: list[NotCompared] = []
    for component in components:
        pairs = [
            Ablation(component, system, without)
            for system, without in product(systems, repeat=2)
            if (system.run["system"], without.run["system"]) == (component.system, component.without)
        ]
        same_config = [
            pair for pair in pairs if all(pair.system.run[key] == pair.without.run[key] for key in ("config", "set"))
        ]
        if pairs and not same_config:
            others.append(NotCompared(pairs[0], "all conditions", "their configurations differ"))
        for pair in same_config:
            for found in _compare_conditions(pair):
                if isinstance(found, AblationEffect):
                    effects.append(found)
                else:
                    others.append(found)
    return effects, list({str(other): other for other in others}.values())


def _compare_conditions(ablation: Ablation) -> Iterator[AblationEffect | NotCompared]:
    """The effect under each condition that both systems were tested in, or why there is none."""
    system, without = ablation.system, ablation.without
    yield _effect(ablation, "", OWN_CLIPS, system.predictions, without.predictions)
    others = {(result.setting, result.condition): result for result in without.conditions}
    for result in system.conditions:
        other = others.get((result.setting, result.condition))
        if other is None or result.condition == CLEAN:
            continue
        title = result.setting.title
        if _relevant_facts(result) != _relevant_facts(other):
            yield NotCompared(ablation, title.lower(), "they were tested with different options or audio files")
        else:
            yield _effect(ablation, title, result.condition.name, result.predictions, other.predictions)


def _effect(
    ablation: Ablation, setting: str, condition: str, own: PooledPredictions, other: PooledPredictions
) -> AblationEffect | NotCompared:
    trainings = own.trainings & other.trainings
    if not trainings:
        return NotCompared(ablation, setting.lower() or condition, "they have no fold and seed in common")
    own, other = own.select(trainings), other.select(trainings)
    try:
        difference = significance.difference(own, other)
    except ValueError:
        return NotCompared(ablation, setting.lower() or condition, "they were tested on different clips")
    return AblationEffect(ablation, setting, condition, own, difference)


def _relevant_facts(result: ConditionResult) -> dict[str, object]:
    return {name: value for name, value in result.facts.items() if name not in IGNORED_FACTS}


# ---- on the page

TOO_FEW = f"with fewer than {FEWEST_SPEAKERS} speakers (on other corpora: or trainings)"
NOTES = (
    "Ablation effects: the difference in pooled UA with and without a component, over the folds and seeds that both "
    "systems have. Their 95 % intervals resample test speakers and, on other corpora, trainings (one per fold and "
    f"seed); with fewer than {FEWEST_SPEAKERS} of either no conclusion is drawn.",
    "The intervals are not corrected for the number of components and conditions: one in twenty excludes 0 by chance. "
    "Variation between seeds is included only where there are several seeds, and then only in part.",
)
# Columns on the predictions behind a row; if the components differ in them, the row has a value for each.
PREDICTION_COLUMNS = {
    "folds": lambda predictions: join_numbers(sorted(set(predictions.folds.tolist()))),
    "seeds": lambda predictions: join_numbers(sorted(set(predictions.seeds.tolist()))),
    "speakers": lambda predictions: str(len(set(predictions.speakers.tolist()))),
    "clips": lambda predictions: str(predictions.clip_count),
}


def ablation_section(heading: str, components: Sequence[Component], systems: Sequence[Experiment]) -> Section:
    """The effects of all components as a table with a row for each condition, and a sentence on each component."""
    effects, others = ablation_effects(components, systems)
    by_ablation: dict[Ablation, list[AblationEffect]] = defaultdict(list)
    for effect in effects:
        by_ablation[effect.ablation].append(effect)
    tables = [_effects_table(by_ablation)] if effects else []
    sentences: list[str] = [*NOTES] if effects else []
    not_judged = []
    for ablation, own in by_ablation.items():
        if any(effect.interval_position for effect in own):
            sentences.append(_effects_sentence(own))
        else:
            not_judged.append(str(ablation))
    if not_judged:
        sentences.append(f"not tested, {TOO_FEW}: {'; '.join(not_judged)}")
    for ablation in by_ablation:
        sentences += _other_differences(ablation.system, ablation.without)
    return Section(f"{heading}: ablation effects", tables, [*dict.fromkeys(sentences), *map(str, others)])


def _effects_table(by_ablation: dict[Ablation, list[AblationEffect]]) -> Table:
    labelled = [{effect.label: effect for effect in effects} for effects in by_ablation.values()]
    labels = list(dict.fromkeys(label for effects in labelled for label in effects))

    def effect_cell(effects: dict[str, AblationEffect]):
        def cell(label: str) -> Cell:
            if label not in effects:
                return "-"
            difference = effects[label].difference
            return format_score(difference.ua, "ua"), interval_text(difference.low, difference.high, "ua")

        return cell

    def fact_cell(name: str):
        def cell(label: str) -> str:
            values = [
                PREDICTION_COLUMNS[name](effects[label].predictions) if label in effects else "-"
                for effects in labelled
            ]
            known = set(values) - {"-"}
            return known.pop() if len(known) == 1 else " / ".join(values)

        return cell

    names = [ablation.component.name for ablation in by_ablation]
    headings = [
        name if names.count(name) == 1 else f"{name} ({ablation.system.name})"
        for name, ablation in zip(names, by_ablation)
    ]
    return build_table(
        "parts",
        "difference in pooled UA with and without a component, in points",
        labels,
        {
            "condition": lambda label: label,
            **{
                Column(heading, (heading, f"{heading}, 95 % interval"), ", "): effect_cell(effects)
                for heading, effects in zip(headings, labelled)
            },
            **{name: fact_cell(name) for name in PREDICTION_COLUMNS},
        },
    )


def _effects_sentence(effects: Sequence[AblationEffect]) -> str:
    """Under which conditions a component helps, and under which it does not."""
    found: dict[str | None, list[AblationEffect]] = defaultdict(list)
    for effect in effects:
        found[effect.interval_position].append(effect)
    clauses = []
    for position, verb in ((ABOVE, "helps"), (BELOW, "is harmful")):
        if found[position]:
            clauses.append(
                f"{verb} under {len(found[position])} of {len(effects)} conditions (the interval lies "
                f"{position}): {'; '.join(_by_setting(found[position]))}"
            )
    if found[AROUND]:
        clauses.append(
            f"shows no significant difference under {len(found[AROUND])} of {len(effects)} (the interval includes 0)"
        )
    if found[None]:
        clauses.append(f"is not tested under {len(found[None])} of {len(effects)}, {TOO_FEW}")
    return f"{effects[0].ablation} " + "; ".join(clauses)


def _by_setting(effects: Sequence[AblationEffect]) -> Iterator[str]:
    """For each setting its conditions with their differences."""
    found: dict[str, list[str]] = defaultdict(list)
    for effect in effects:
        found[effect.setting].append(f"{effect.condition} ({100 * effect.difference.ua:+.2f})")
    for setting, conditions in found.items():
        yield (f"{setting.lower()}: " if setting else "") + ", ".join(conditions)


def _other_differences(system: Experiment, without: Experiment) -> Iterator[str]:
    """What else differs between two systems and may be part of an effect."""
    both = f"{system.name} and {without.name}"
    if system.run["trained_at_git"] != without.run["trained_at_git"]:
        yield f"{both} were trained with different revisions of the code, which may explain part of their difference"
    if system.run["corpora"] != without.run["corpora"]:
        yield (
            f"{both} were trained on different emotion data: {', '.join(system.run['corpora'])} vs. "
            f"{', '.join(without.run['corpora'])}"
        )
