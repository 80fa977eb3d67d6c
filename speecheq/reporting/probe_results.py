"""The probe in the results: its UA by layer, and which trained systems are below it on the same folds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from speecheq.dataset.msud_recipe import DEV, TEST
from speecheq.evaluation.probe import MAJORITY
from speecheq.reporting.experiment import Experiment
from speecheq.reporting.tables import Column, Section, Table, build_table, format_score, join_numbers


class LayerScore(NamedTuple):
    """UA of the SVM on one layer, mean and standard deviation over folds; ``pooled``: over the test clips of all folds
    together; the folds that chose the layer.
    """

    layer: str
    dev: tuple[float, float | None]
    test: tuple[float, float | None]
    pooled: float
    chosen_in: list[int]


def is_probe(experiment: Experiment) -> bool:
    """Whether an experiment is the probe, not a trained system."""
    return experiment.run["probe"] is not None


def layer_scores(experiment: Experiment) -> list[LayerScore]:
    """The curve by layer of the probe; [] of a trained system."""
    if not is_probe(experiment):
        return []
    summary = experiment.summary

    def score(part: str, layer: str) -> tuple[float, float | None]:
        name = f"{part}.ua_of_layer_{layer}"
        return summary[name], summary[f"std.{name}"]

    return [
        LayerScore(
            layer,
            score(DEV, layer),
            score(TEST, layer),
            _pooled_ua(experiment, layer),
            [fold.run["fold"] for fold in experiment.scored if fold.run["layer"] == layer],
        )
        for layer in experiment.run["probe"]["layers"]
    ]


def _pooled_ua(experiment: Experiment, layer: str) -> float:
    counts = np.sum([fold.run["confusion_of_layers"][layer] for fold in experiment.scored], 0)
    tested = counts.sum(1) > 0
    return float((counts.diagonal()[tested] / counts.sum(1)[tested]).mean())


def layer_table(experiment: Experiment) -> Table:
    """The curve by layer of the probe."""

    def cell(value: tuple[float, float | None]) -> tuple[str, ...]:
        return tuple(format_score(number, "ua") for number in value if number is not None)

    def ua(clips: str) -> Column:
        return Column(f"{clips} UA %", (f"{clips} UA %", f"{clips} UA % std"), " ± ")

    return build_table(
        "layers",
        "UA by layer, means over folds",
        layer_scores(experiment),
        {
            "layer": lambda row: row.layer,
            ua("held-out"): lambda row: cell(row.dev),
            ua("test"): lambda row: cell(row.test),
            "pooled test UA %": lambda row: format_score(row.pooled, "ua"),
            "chosen in folds": lambda row: join_numbers(row.chosen_in) or "-",
        },
    )


def layer_section(experiment: Experiment) -> list[Section]:
    """The curve by layer, for the probe on more than one layer."""
    if len(layer_scores(experiment)) < 2:
        return []
    note = "layers are chosen on held-out clips of the training folds, never on test clips"
    return [Section("Layers", [layer_table(experiment)], [note])]


def below_probe(members: Sequence[Experiment]) -> list[str]:
    """A sentence for each trained system of a table that is below the best probe on the same folds, in mean UA."""
    sentences = []
    probes = [member for member in members if is_probe(member) and member.run["probe"]["kernel"] != MAJORITY]
    for system in members:
        own = [other for other in probes if not is_probe(system) and _is_reference(other, system)]
        best = max(own, key=lambda other: other.summary["test.ua"], default=None)
        if best is not None and system.summary["test.ua"] < best.summary["test.ua"]:
            ua, reference = (format_score(member.summary["test.ua"], "ua") for member in (system, best))
            sentences.append(
                f"{system.name} has a UA of {ua} %, below the {reference} % of {best.name}: an SVM on the mean and "
                "standard deviation of features does better on the same folds than this trained system"
            )
    return sentences


def _is_reference(probe: Experiment, system: Experiment) -> bool:
    """Whether both test the same clips of the same folds."""

    def clips(experiment: Experiment) -> set[tuple[int, str]]:
        return {(fold.run["fold"], clip.id) for fold in experiment.scored for clip in fold.sets[TEST]}

    return clips(probe) == clips(system)
