"""The tables of an experiment over its folds and seeds, and of the systems of a recipe side by side."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from speecheq.dataset.msud_recipe import TEST
from speecheq.evaluation.metrics import confusion
from speecheq.evaluation.robustness.conditions import (
    ConditionResult,
    Setting,
    by_curve,
    by_setting,
    masked_gradient_warnings,
)
from speecheq.reporting.ablation import Component, ablation_section
from speecheq.reporting.calibration_tables import calibration_section
from speecheq.reporting.comparison import Comparison
from speecheq.reporting.experiment import Experiment, config_name
from speecheq.reporting.figure_data import split_by_level
from speecheq.reporting.intensity_tables import intensity_section
from speecheq.reporting.probe_results import below_probe, layer_section
from speecheq.reporting.tables import (
    Cell,
    Column,
    Section,
    Table,
    build_table,
    format_score,
    interval_cell,
    interval_text,
    join_numbers,
)

HEADINGS = {
    "wa": "WA %",
    "ua": "UA %",
    "uai": "UAI %",
    "macro_f1": "macro F1 %",
    "restricted_wa": "restricted WA %",
    "restricted_ua": "restricted UA %",
    "ece": "ECE %",
    "eis_mse": "EIS MSE",
    "eis_mae": "EIS MAE",
    "eis_ccc": "EIS CCC",
    "eis_pearson": "EIS Pearson",
    "gender": "gender %",
    "per": "PER %",
}
# Scores of the category and of the other tasks, with the captions of their tables.
CATEGORY_SCORES = ("wa", "ua", "uai", "macro_f1", "restricted_wa", "restricted_ua", "ece")
OTHER_SCORES = ("eis_mse", "eis_mae", "eis_ccc", "eis_pearson", "gender", "per")
CATEGORIES, OTHER_TASKS = "categories (ESC)", "intensity, gender, phonemes"

T = TypeVar("T")
Columns = dict[str | Column, Callable[[Experiment], Cell]]
SYSTEM: Columns = {"system": lambda member: member.run["system"], "config": lambda member: config_name(member.run)}


def score_cell(metrics: Mapping[str, Any], set_name: str, score: str) -> tuple[str, ...]:
    """The value of a score and, if there is one, its standard deviation."""
    deviation = metrics.get(f"std.{set_name}.{score}")
    value = format_score(metrics.get(f"{set_name}.{score}"), score)
    return (value,) if deviation is None else (value, format_score(deviation, score))


def _score_columns(
    scores: Iterable[str], source: Callable[[T], tuple[Mapping[str, Any], str]]
) -> dict[str | Column, Callable[[T], Cell]]:
    """``source``: the metrics of a row, and the set whose scores are shown."""

    def cell(score: str) -> Callable[[T], Cell]:
        return lambda row: score_cell(*source(row), score)

    return {
        Column(HEADINGS[score], (HEADINGS[score], f"{HEADINGS[score]} std"), " ± "): cell(score) for score in scores
    }


def _scores_of_set(scores: Sequence[str], set_name: str) -> list[str]:
    """PER is measured on one set only, which is listed with the test clips of the target."""
    return [score for score in scores if score != "per" or set_name == TEST]


def _folds(experiment: Experiment, folds: Sequence[int]) -> str:
    return f"{join_numbers(folds)} of {experiment.run['of_folds']}"


# ---- systems side by side


def _category_table(members: Sequence[Experiment], set_name: str) -> Table:
    columns: Columns = {
        **SYSTEM,
        "folds": lambda member: _folds(member, member.run["folds"]),
        "seeds": lambda member: join_numbers(member.run["seeds"]),
        **_score_columns(CATEGORY_SCORES, lambda member: (member.summary, set_name)),
        "emotion data": lambda member: ", ".join(member.run["corpora"]),
        "git": lambda member: ", ".join(member.run["trained_at_git"]),
    }
    return build_table("categories", CATEGORIES, members, columns)


def _other_table(members: Sequence[Experiment], set_name: str) -> Table:
    columns: Columns = {
        **SYSTEM,
        **_score_columns(_scores_of_set(OTHER_SCORES, set_name), lambda member: (member.summary, set_name)),
        "phoneme data": lambda member: member.run["phonemes"] or "none",
    }
    return build_table("other_tasks", OTHER_TASKS, members, columns)


def _uncertainty_table(members: Sequence[Experiment]) -> Table:
    """Pooled WA, UA and, where there are labels, scores of the EIS, with intervals; deviations over folds and seeds."""

    def value(key: str, score: str):
        return lambda member: format_score(member.summary[f"{key}.test.{score}"], score)

    def interval(score: str):
        return lambda member: interval_cell(
            member.summary[f"low.pooled.test.{score}"], member.summary[f"high.pooled.test.{score}"], score
        )

    columns: Columns = {**SYSTEM}
    has_eis = any(member.summary.get("pooled.test.eis_ccc") is not None for member in members)
    for score in ("wa", "ua", *(("eis_mse", "eis_ccc") if has_eis else ())):
        heading = f"pooled {HEADINGS[score]}"
        columns[heading] = value("pooled", score)
        columns[Column("95 % interval", (f"{heading} low", f"{heading} high"), " to ")] = interval(score)
    columns["std of UA over folds"] = value("std_of_folds", "ua")
    columns[Column("over seeds", ("std of UA over seeds",))] = value("std_of_seeds", "ua")
    columns["test speakers"] = lambda member: str(member.run["test_speakers"])
    return build_table("uncertainty", "intervals and standard deviations", members, columns)


def _class_table(members: Sequence[Experiment], set_name: str) -> Table:
    """Recall and precision of the classes that occur."""

    def both(name: str):
        return lambda member: tuple(
            format_score(member.summary.get(f"{set_name}.{score}.{name}"), score) for score in ("recall", "precision")
        )

    columns: Columns = {**SYSTEM}
    for name in members[0].classes.names:
        if any(member.summary.get(f"{set_name}.recall.{name}") is not None for member in members):
            columns[Column(f"{name} %", (f"{name} recall %", f"{name} precision %"), " / ")] = both(name)
    return build_table("classes", "recall / precision of each class", members, columns)


# ---- one experiment


def confusion_table(experiment: Experiment) -> Table:
    """Clips by true class (rows) and predicted class; rows of classes that occur."""
    names, predictions = experiment.classes.names, experiment.predictions
    matrix = confusion(predictions.gold.tolist(), predictions.predicted.tolist(), len(names))
    return Table(
        "confusion",
        "Test clips by true and predicted class, all folds and seeds",
        [Column("true"), *map(Column, names)],
        [[name, *map(str, row)] for name, row in zip(names, matrix.tolist()) if sum(row)],
    )


class _FoldRow(NamedTuple):
    title: str
    metrics: Mapping[str, Any]
    prefix: str  # of the keys in metrics


def _fold_table(rows: Sequence[_FoldRow], caption: str, scores: Sequence[str]) -> Table:
    columns: dict[str | Column, Callable[[_FoldRow], Cell]] = {
        "fold, seed": lambda row: row.title,
        **_score_columns(scores, lambda row: (row.metrics, row.prefix)),
    }
    return build_table("", caption, rows, columns)


def experiment_sections(experiment: Experiment) -> list[Section]:
    """The tables of an experiment's folds for every test set, and for its other test conditions."""
    sections = []
    for set_name in experiment.test_sets:
        rows = [_FoldRow(fold.name, fold.metrics, set_name) for fold in experiment.scored]
        rows.append(_FoldRow("mean of folds and seeds", experiment.summary, set_name))
        if set_name == TEST:
            rows.append(_FoldRow("pooled", experiment.summary, "pooled.test"))
        tables = [
            _fold_table(rows, CATEGORIES, CATEGORY_SCORES),
            _fold_table(rows, OTHER_TASKS, _scores_of_set(OTHER_SCORES, set_name)),
            _class_table([experiment], set_name),
        ]
        if set_name == TEST:
            tables.append(confusion_table(experiment))
        corpus = experiment.run["target"] if set_name == TEST else set_name.removeprefix(f"{TEST}_")
        sections.append(Section(f"Test clips of {corpus}", tables))
    return [
        *sections,
        *intensity_section(experiment),
        *calibration_section(experiment),
        *layer_section(experiment),
        *condition_sections([experiment]),
    ]


# ---- test conditions


def _experiment_conditions(experiment: Experiment, setting: Setting, results: Sequence[ConditionResult]) -> Table:
    """A row for each condition of one experiment: pooled UA and WA with their intervals."""

    def value(score: str) -> Callable[[ConditionResult], Cell]:
        return lambda result: format_score(result.metrics[score], score)

    def interval(score: str) -> Callable[[ConditionResult], Cell]:
        return lambda result: interval_cell(result.metrics[f"low_{score}"], result.metrics[f"high_{score}"], score)

    columns: dict[str | Column, Callable[[ConditionResult], Cell]] = {
        "condition": lambda result: result.condition.name,
        "UA %": value("ua"),
        Column("95 % interval", ("UA low", "UA high"), " to "): interval("ua"),
        "WA %": value("wa"),
        Column("95 % interval", ("WA low", "WA high"), " to "): interval("wa"),
        "folds": lambda result: _folds(experiment, result.metrics["folds"]),
        "seeds": lambda result: join_numbers(result.metrics["seeds"]),
        "clips": lambda result: str(result.metrics["clips"]),
        "git": lambda result: ", ".join(result.facts["git"]),
    }
    return build_table(setting.name, "pooled UA and WA by condition", results, columns)


class _CurveRow(NamedTuple):
    """A system and a curve. ``metrics``: those of its first result; ``results``: column heading -> result."""

    system: Experiment
    curve: str
    metrics: Mapping[str, Any]
    results: Mapping[str, ConditionResult]


def _place(setting: Setting, result: ConditionResult) -> str:
    """The column heading of a result."""
    level = result.condition.level
    return result.condition.name if level is None else f"{level:g} {setting.unit}"


def _curve_rows(setting: Setting, members: Sequence[tuple[Experiment, Sequence[ConditionResult]]]) -> list[_CurveRow]:
    rows = []
    for system, results in members:
        shared = {_place(setting, result): result for result in split_by_level(results)[0]}
        curves = {name: points for name, points in by_curve(results).items() if points[0].condition.level is not None}
        for name, points in (curves or {"": []}).items():
            found = {**shared, **{_place(setting, point): point for point in points}}
            rows.append(_CurveRow(system, name, results[0].metrics, found))
    return rows


def _compared_conditions(setting: Setting, members: Sequence[tuple[Experiment, Sequence[ConditionResult]]]) -> Table:
    """A row for each system and curve, a column for each level: pooled UA with its interval."""

    def ua(place: str):
        def cell(row: _CurveRow) -> Cell:
            if place not in row.results:
                return "-"
            metrics = row.results[place].metrics
            return format_score(metrics["ua"], "ua"), interval_text(metrics["low_ua"], metrics["high_ua"], "ua")

        return cell

    without, points = split_by_level([result for _, results in members for result in results])
    places = dict.fromkeys(_place(setting, result) for result in [*without, *(result for _, result in points)])
    columns: dict[str | Column, Callable[[_CurveRow], Cell]] = {
        "system": lambda row: row.system.run["system"],
        "config": lambda row: config_name(row.system.run),
        "curve": lambda row: row.curve,
        **{Column(place, (f"{place} UA %", f"{place} 95 % interval"), ", "): ua(place) for place in places},
        "folds": lambda row: _folds(row.system, row.metrics["folds"]),
        "seeds": lambda row: join_numbers(row.metrics["seeds"]),
        "clips": lambda row: ", ".join(dict.fromkeys(str(found.metrics["clips"]) for found in row.results.values())),
    }
    rows = _curve_rows(setting, members)
    return build_table(setting.name, "pooled UA % and its 95 % interval, by condition", rows, columns)


def condition_sections(members: Sequence[Experiment], heading: str = "") -> list[Section]:
    """A section for each setting that some of the systems were tested in, with notes on how it was made.

    With a ``heading`` the systems are listed side by side; without one there is one system, with all its results.
    """
    sections = []
    for setting in by_setting(result for member in members for result in member.conditions):
        own = [(member, by_setting(member.conditions).get(setting, [])) for member in members]
        own = [(member, results) for member, results in own if results]
        notes = list(dict.fromkeys(note for _, results in own for note in results[0].facts["notes"]))
        for member, results in own:
            warnings = masked_gradient_warnings(results)
            notes += [f"{member.name}: {warning}" for warning in warnings] if heading else warnings
        if heading:
            sections.append(Section(f"{heading}: {setting.title.lower()}", [_compared_conditions(setting, own)], notes))
        else:
            sections.append(Section(setting.title, [_experiment_conditions(members[0], setting, own[0][1])], notes))
    return sections


# ---- a recipe


class Group(NamedTuple):
    """The experiments of one table: those with the same target, protocol and classes, on one test set."""

    heading: str
    test_set: str
    members: Sequence[Experiment]


def recipe_sections(
    groups: Sequence[Group], comparisons: Mapping[str, Comparison], components: Sequence[Component] = ()
) -> list[Section]:
    """The tables of a recipe with a row for each experiment: scores, differences, test conditions, ablation effects."""
    sections = []
    for heading, set_name, members in groups:
        tables = [_category_table(members, set_name), _other_table(members, set_name)]
        if set_name != TEST:
            corpus = set_name.removeprefix(f"{TEST}_")
            tables.append(_class_table(members, set_name))
            found = [Section(f"{heading}: test clips of {corpus}", tables)]
        else:
            differences = comparisons[heading].section()
            tables += [_uncertainty_table(members), _class_table(members, set_name), *differences.tables]
            found = [
                Section(heading, tables, [*below_probe(members), *differences.sentences]),
                *condition_sections(members, heading),
                ablation_section(heading, components, members),
            ]
        prefix = f"{members[0].run['name']}.{set_name}"
        for section in found:
            if section.tables or section.sentences:
                named = [replace(table, name=f"{prefix}.{table.name}") for table in section.tables]
                sections.append(replace(section, tables=named))
    return sections
