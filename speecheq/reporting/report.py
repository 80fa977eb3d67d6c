"""The pages and tables of a recipe: of every experiment over its folds and seeds, and of all of them.

Everything is computed from the score files of the trained folders (``summary.py``); nothing is typed in.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from speecheq.common.errors import InputError
from speecheq.common.files import locked_folder, remove_leftovers, write_text
from speecheq.common.log import log
from speecheq.dataset.msud_recipe import DECLARED, EVERY_CORPUS, TEST
from speecheq.evaluation.metrics import CALIBRATION_BINS, confusion
from speecheq.evaluation.robustness import conditions
from speecheq.evaluation.robustness.conditions import (
    ConditionResult,
    Setting,
    by_curve,
    by_setting,
    masked_gradient_warnings,
)
from speecheq.evaluation.significance import FEW_SPEAKERS, RESAMPLES
from speecheq.reporting import html_report
from speecheq.reporting.ablation import Part, worth_section
from speecheq.reporting.comparison import Pair, compare
from speecheq.reporting.experiment import Experiment, called, config_of, scored_folders, sounds_in_words, summarise
from speecheq.reporting.figures import Picture, compared_conditions, pictures_of, write_pictures
from speecheq.reporting.published_results import PaperTable, paper_tables, published_sections, read_table
from speecheq.reporting.tables import (
    NOT_AVAILABLE,
    Cell,
    Column,
    Section,
    Table,
    bullets,
    figure,
    markdown,
    numbers,
    section_markdown,
    write_tables,
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
# The category, and the other tasks: a table each.
CATEGORY_SCORES = ("wa", "ua", "uai", "macro_f1", "restricted_wa", "restricted_ua", "ece")
OTHER_SCORES = ("eis_mse", "eis_mae", "eis_ccc", "eis_pearson", "gender", "per")
# The captions of those tables, and what the report shows first.
CATEGORIES, OTHER_TASKS = "categories (ESC)", "intensity, gender, phonemes"
NOT_COMPARABLE = "Systems of different tables have another target, protocol or classes: they are not comparable."
MAIN_SCORES = ("ua", "wa", "uai", "eis_ccc", "gender", "per")
TABLES = "tables"  # the folder of LaTeX and CSV, in that of the experiments
PICTURES = "pictures"  # the folder of SVG and PDF, in that of an experiment

NOTHING_SCORED = "{}: no experiment has been scored; run stages 4 and 5 first."
INTRODUCTION = "Written by the program from score files.\n"
EXPLAINED = (
    "WA (overall accuracy), UA (mean recall of the classes), UAI (that of neutral, joy, anger and sadness) and macro "
    "F1 are of the most probable of all classes of the model; the restricted scores are of the most probable of those "
    "classes that the test clips' corpus has.",
    f"ECE: expected calibration error of the posterior of the predicted class, in {CALIBRATION_BINS} bins of equal "
    "width.",
    f"EIS scores are over clips with an intensity label ({NOT_AVAILABLE}: there are none).",
    "Checkpoints are chosen on a dev part of the training folds. ± is the standard deviation over all folds and seeds.",
    "Pooled scores are taken once over the clips of all folds, a seed at a time, then averaged over seeds. Their 95 % "
    f"intervals are percentiles of {RESAMPLES:,} bootstrap samples: each draws as many test speakers as there are, "
    "with replacement, and takes all clips of a drawn speaker. The fewer speakers, the farther out the percentiles are "
    f"taken, as Student's t asks. Over fewer than {FEW_SPEAKERS} speakers they are coarse, over one there is none.",
)


def _cell(metrics: Mapping[str, Any], set_name: str, score: str) -> Cell:
    """Value and, where there is one, deviation."""
    deviation = metrics.get(f"std.{set_name}.{score}")
    value = figure(metrics.get(f"{set_name}.{score}"), score)
    return (value,) if deviation is None else (value, figure(deviation, score))


def _columns(scores: Sequence[str]) -> list[Column]:
    return [Column(HEADINGS[score], (HEADINGS[score], f"{HEADINGS[score]} deviation"), " ± ") for score in scores]


def _scores_of(group: Sequence[str], set_name: str) -> list[str]:
    return [score for score in group if score != "per" or set_name == TEST]


def _heading(run: dict[str, Any]) -> str:
    """What separates tables: the target, the protocol, and switches that are not at their defaults."""
    marks = [f"its own {len(run['classes'])} classes"] * (run["classes_of"] == "corpus")
    marks += [f"neutral EIS {run['neutral_eis']}"] * (run["neutral_eis"] != DECLARED)
    return ", ".join([run["target"], run["protocol"], *marks])


def _protocol(run: dict[str, Any]) -> str:
    """Target and protocol, and where the folds were read."""
    return f"{run['target']}, {run['protocol']}" + (f" (folds of {run['folds_file']})" if run["folds_file"] else "")


def _classes(run: dict[str, Any]) -> str:
    of = "the nine of SEQM"
    if run["classes_of"] == "corpus":
        of = f"the {len(run['classes'])} of {run['target']} itself ({', '.join(run['classes'])})"
    restricted = [
        f"{'all corpora' if name == EVERY_CORPUS else name} "
        + (f"restricted to {', '.join(categories)}" if categories is not None else "whole")
        for name, categories in sorted(run["use"].items())
        if name in (EVERY_CORPUS, run["target"], *run["corpora"])
    ]
    return "; ".join([of, *restricted])


def _speakers(in_training: Sequence[int]) -> str:
    if in_training == [0]:
        return "no test speaker is trained on"
    return f"test speakers also trained on: {numbers(in_training)}"


def _uncertainty_in_words(summary: Mapping[str, Any]) -> str:
    """The pooled UA, its interval, and what that rests on."""
    low, high = (summary[f"{end}.pooled.test.ua"] for end in ("low", "high"))
    speakers = summary["run"]["test_speakers"]
    if low is None:
        return "all test clips are of one speaker: no interval, how other speakers fare is not known"
    coarse = " and is coarse" if speakers < FEW_SPEAKERS else ""
    return (
        f"pooled UA {figure(summary['pooled.test.ua'], 'ua')} %, 95 % interval {figure(low, 'ua')} to "
        f"{figure(high, 'ua')}; it rests on {speakers} test speakers{coarse}"
    )


def _main_scores_in_words(summary: Mapping[str, Any]) -> str:
    scores = ", ".join(f"{of} {figure(summary[f'test.{of.lower()}'], of.lower())} %" for of in ("WA", "UA"))
    return f"{scores} (means over folds and seeds); {_uncertainty_in_words(summary)}"


def _facts(summary: dict[str, Any]) -> list[str]:
    run = summary["run"]
    corpora = ", ".join(run["corpora"])
    lines = [
        f"protocol: {_protocol(run)}; folds {numbers(run['folds'])} of {run['of_folds']}; "
        f"seeds {numbers(run['seeds'])}; dev part: {run['dev']}; {_speakers(run['test_speakers_in_training'])}",
        f"classes: {_classes(run)}; EIS of neutral clips: {run['neutral_eis']}; restricted scores are of "
        f"{', '.join(run['label_sets'][TEST])}",
        f"emotion and gender training data: {corpora}; phonemes: "
        + (
            f"{run['phonemes']} ({run['units']}), CTC by {', '.join(run['ctc_backend'])}"
            if run["phonemes"]
            else "not learned"
        )
        + f"; corpora of the recipe that were not given: {', '.join(run['left_out']) or 'none'}",
        f"{numbers(run['steps'])} steps a fold on {', '.join(run['device'])}, {run['train_seconds']:.0f} s of "
        f"training in all; git revision {', '.join(run['trained_at_git'])} (scored at "
        f"{', '.join(run['scored_at_git'])})",
        f"{_uncertainty_in_words(summary)}",
    ]
    if run["sounds"]:
        lines.append(f"also trained with {sounds_in_words(run['sounds'])}")
    if len(run["trained_at_git"]) > 1:
        lines.append("its folds and seeds were trained at different revisions of the program, which its means mix")
    if summary.get("test.per") is not None:
        lines.append(
            f"PER{'' if run['units'] == 'phone' else ' (of ' + run['units'] + ' units, not phones)'} over "
            f"{summary['test.per_utterances']:.0f} utterances of {run['phonemes']}'s {run['per_set']} part; "
            f"one constant output for all has {100 * summary['test.per_of_constant']:.1f} %"
        )
    return lines


def confusion_table(experiment: Experiment) -> Table:
    """Clips by true (rows) and predicted class; only rows of classes that occur."""
    names, answers = experiment.classes.names, experiment.answers
    matrix = confusion(answers.gold, answers.predicted, len(names))
    return Table(
        "confusion",
        "Test clips by true and predicted class, all folds and seeds",
        [Column("true"), *map(Column, names)],
        [[name, *map(str, row)] for name, row in zip(names, matrix.tolist()) if sum(row)],
    )


def _ends(row: ConditionResult, score: str) -> Cell:
    """The 95 % interval of a row's WA or UA."""
    found = tuple(figure(row.metrics[f"{end}_{score}"], score) for end in ("low", "high"))
    return NOT_AVAILABLE if found == (NOT_AVAILABLE,) * 2 else found


def _conditions_of(experiment: Experiment, setting: Setting, rows: Sequence[ConditionResult]) -> Table:
    """A line a condition: pooled UA and WA with their intervals."""
    intervals = [Column("95 % interval", (f"{score} low", f"{score} high"), " to ") for score in ("UA", "WA")]
    return Table(
        setting.name,
        "pooled UA and WA by condition",
        [
            Column("condition"),
            Column("UA %"),
            intervals[0],
            Column("WA %"),
            intervals[1],
            *map(Column, ("folds", "seeds", "clips", "git")),
        ],
        [
            [
                row.condition.name,
                figure(row.metrics["ua"], "ua"),
                _ends(row, "ua"),
                figure(row.metrics["wa"], "wa"),
                _ends(row, "wa"),
                f"{numbers(row.metrics['folds'])} of {experiment.run['of_folds']}",
                numbers(row.metrics["seeds"]),
                str(row.metrics["clips"]),
                ", ".join(row.facts["git"]),
            ]
            for row in rows
        ],
    )


def _condition_table(setting: Setting, members: Sequence[tuple[Experiment, Sequence[ConditionResult]]]) -> Table:
    """A line a system and curve, a column a level: pooled UA with its interval."""

    def place(row: ConditionResult) -> str:
        level = row.condition.level
        return row.condition.name if level is None else f"{level:g} {setting.unit}"

    def cell(row: ConditionResult | None) -> Cell:
        if row is None:
            return "-"
        ends = _ends(row, "ua")
        return (figure(row.metrics["ua"], "ua"), ends if isinstance(ends, str) else " to ".join(ends))

    alone = [row for _, rows in members for row in rows if row.condition.level is None]
    placed = sorted(
        (row for _, rows in members for row in rows if row.condition.level is not None),
        key=lambda row: row.condition.level,
    )
    places = list(dict.fromkeys(map(place, [*alone, *placed])))
    table = []
    for member, rows in members:
        own = {place(row): row for row in rows if row.condition.level is None}
        curves = {name: of for name, of in by_curve(rows).items() if of[0].condition.level is not None}
        for name, of in curves.items() or [("", [])]:
            found = {**own, **{place(row): row for row in of}}
            table.append(
                [
                    member.run["system"],
                    config_of(member.run),
                    name,
                    *(cell(found.get(name)) for name in places),
                    f"{numbers(rows[0].metrics['folds'])} of {member.run['of_folds']}",
                    numbers(rows[0].metrics["seeds"]),
                    ", ".join(str(n) for n in dict.fromkeys(row.metrics["clips"] for row in found.values())),
                ]
            )
    return Table(
        setting.name,
        "pooled UA % and its 95 % interval, by condition",
        [
            *map(Column, ("system", "config", "curve")),
            *(Column(name, (f"{name} UA %", f"{name} 95 % interval"), ", ") for name in places),
            *map(Column, ("folds", "seeds", "clips")),
        ],
        table,
    )


def condition_sections(members: Sequence[Experiment], heading: str = "") -> list[Section]:
    """For each setting that one of these systems was tried in its table, and how it was made.

    Below ``heading`` the systems stand side by side; without it all is told of one.
    """
    sections = []
    for setting in by_setting(row for member in members for row in member.rows):
        own = [(member, by_setting(member.rows)[setting]) for member in members if setting in by_setting(member.rows)]
        notes = list(dict.fromkeys(note for _, rows in own for note in rows[0].facts["notes"]))
        for member, rows in own:
            notes += [
                f"{called(member)}: {sentence}" if heading else sentence for sentence in masked_gradient_warnings(rows)
            ]
        table = _condition_table(setting, own) if heading else _conditions_of(members[0], setting, own[0][1])
        sections.append(Section(f"{heading}: {setting.title.lower()}" if heading else setting.title, [table], notes))
    return sections


def experiment_sections(experiment: Experiment) -> list[Section]:
    """The tables of an experiment's folds for every test set, and of its settings."""
    run, sections = experiment.run, []
    for set_name in experiment.tests:
        where = run["target"] if set_name == TEST else set_name.removeprefix(f"{TEST}_")
        rows = [
            (f"fold {fold['run']['fold']}, seed {fold['run']['seed']}", fold, set_name) for fold in experiment.folds
        ]
        rows.append(("mean of folds and seeds", experiment.summary, set_name))
        if set_name == TEST:
            rows.append(("pooled", experiment.summary, "pooled.test"))
        tables = []
        for caption, group in ((CATEGORIES, CATEGORY_SCORES), (OTHER_TASKS, OTHER_SCORES)):
            scores = _scores_of(group, set_name)
            tables.append(
                Table(
                    "",
                    caption,
                    [Column("of"), *_columns(scores)],
                    [[title, *(_cell(metrics, prefix, score) for score in scores)] for title, metrics, prefix in rows],
                )
            )
        tables.append(_class_table([experiment], set_name))
        if set_name == TEST:
            tables.append(confusion_table(experiment))
        sections.append(Section(f"Test clips of {where}", tables))
    return sections + condition_sections([experiment])


def _title(experiment: Experiment) -> str:
    return f"{experiment.run['system']} ({config_of(experiment.run)}) on {_heading(experiment.run)}"


def experiment_page(experiment: Experiment, sections: Sequence[Section], pictures: Sequence[Picture]) -> str:
    """RESULTS.md of one experiment: its tables, and links to its pictures."""
    parts = [f"# {_title(experiment)}\n", INTRODUCTION, bullets(EXPLAINED), bullets(_facts(experiment.summary))]
    parts += map(section_markdown, sections)
    for picture in pictures:
        parts.append(f"## {picture.title}\n\n![{picture.title}]({PICTURES}/{picture.name}.svg)\n\n{picture.caption}\n")
    return "\n".join(parts)


def _main_scores(experiment: Experiment) -> list[html_report.Score]:
    """Means over folds and seeds with their deviation; of UA also the pooled one with its interval."""
    summary, scores = experiment.summary, []
    for score in MAIN_SCORES:
        if summary.get(f"test.{score}") is not None:
            value, *deviation = _cell(summary, TEST, score)
            scores.append(html_report.Score(HEADINGS[score], value, f"± {deviation[0]}" if deviation else ""))
    ends = [figure(summary[f"{end}.pooled.test.ua"], "ua") for end in ("low", "high")]
    interval = "" if NOT_AVAILABLE in ends else f"[{ends[0]}, {ends[1]}]"
    return [html_report.Score("pooled UA %", figure(summary["pooled.test.ua"], "ua"), interval), *scores]


def _class_table(members: Sequence[Experiment], set_name: str) -> Table:
    """Recall and precision of the classes that occur."""
    names = [
        name
        for name in members[0].classes.names
        if any(member.summary.get(f"{set_name}.recall.{name}") is not None for member in members)
    ]
    columns = [Column(f"{name} %", (f"{name} recall %", f"{name} precision %"), " / ") for name in names]
    rows = [
        [
            member.run["system"],
            config_of(member.run),
            *(
                tuple(figure(member.summary.get(f"{set_name}.{of}.{name}"), of) for of in ("recall", "precision"))
                for name in names
            ),
        ]
        for member in members
    ]
    return Table("classes", "recall / precision of each class", [Column("system"), Column("config"), *columns], rows)


def _category_table(members: Sequence[Experiment], set_name: str) -> Table:
    rows = [
        [
            member.run["system"],
            config_of(member.run),
            f"{numbers(member.run['folds'])} of {member.run['of_folds']}",
            numbers(member.run["seeds"]),
            *(_cell(member.summary, set_name, score) for score in CATEGORY_SCORES),
            ", ".join(member.run["corpora"]),
            ", ".join(member.run["trained_at_git"]),
        ]
        for member in members
    ]
    return Table(
        "categories",
        CATEGORIES,
        [
            *map(Column, ("system", "config", "folds", "seeds")),
            *_columns(CATEGORY_SCORES),
            Column("emotion data"),
            Column("git"),
        ],
        rows,
    )


def _other_table(members: Sequence[Experiment], set_name: str) -> Table:
    scores = _scores_of(OTHER_SCORES, set_name)
    rows = [
        [
            member.run["system"],
            config_of(member.run),
            *(_cell(member.summary, set_name, score) for score in scores),
            member.run["phonemes"] or "none",
        ]
        for member in members
    ]
    return Table(
        "other_tasks",
        OTHER_TASKS,
        [Column("system"), Column("config"), *_columns(scores), Column("phoneme data")],
        rows,
    )


def _uncertainty_table(members: Sequence[Experiment]) -> Table:
    """Pooled WA and UA with their intervals; the spread of folds and of seeds apart."""

    def row(member: Experiment) -> list[Cell]:
        cells: list[Cell] = [member.run["system"], config_of(member.run)]
        for score in ("wa", "ua"):
            cells.append(figure(member.summary[f"pooled.test.{score}"], score))
            ends = tuple(figure(member.summary[f"{end}.pooled.test.{score}"], score) for end in ("low", "high"))
            cells.append(NOT_AVAILABLE if ends == (NOT_AVAILABLE,) * 2 else ends)
        spreads = [figure(member.summary[f"{spread}.test.ua"], "ua") for spread in ("std_of_folds", "std_of_seeds")]
        return [*cells, *spreads, str(member.run["test_speakers"])]

    def ends(score: str) -> Column:
        return Column("95 % interval", (f"pooled {score} low", f"pooled {score} high"), " to ")

    return Table(
        "uncertainty",
        "intervals and spreads",
        [
            Column("system"),
            Column("config"),
            Column("pooled WA %"),
            ends("WA %"),
            Column("pooled UA %"),
            ends("UA %"),
            Column("deviation of UA over folds"),
            Column("over seeds", ("deviation of UA over seeds",)),
            Column("test speakers"),
        ],
        [row(member) for member in members],
    )


def _p(value: float | None) -> str:
    return NOT_AVAILABLE if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _difference_table(pairs: Sequence[Pair]) -> Table:
    rows = []
    for pair in pairs:
        of = pair.difference
        ends = NOT_AVAILABLE if of.low is None else (figure(of.low, "ua"), figure(of.high, "ua"))
        rows.append(
            [
                called(pair.first),
                called(pair.second),
                figure(of.ua, "ua"),
                ends,
                str(of.first_only),
                str(of.second_only),
                _p(pair.mcnemar),
                _p(pair.bootstrap),
                pair.verdict,
            ]
        )
    return Table(
        "differences",
        "differences between systems",
        [
            Column("first"),
            Column("second"),
            Column("UA, first - second"),
            Column("95 % interval", ("low", "high"), " to "),
            Column("clips right in the first only"),
            Column("in the second only", ("clips right in the second only",)),
            Column("McNemar p"),
            Column("bootstrap p"),
            Column("verdict"),
        ],
        rows,
    )


def _in_words(pair: Pair) -> str:
    ua = 100 * pair.difference.ua
    how = "the same UA as" if abs(ua) < 0.005 else f"a UA {abs(ua):.2f} points {'higher' if ua > 0 else 'lower'} than"
    return (
        f"{called(pair.first)} has {how} {called(pair.second)} (McNemar p {_p(pair.mcnemar)}, bootstrap p "
        f"{_p(pair.bootstrap)}): {pair.verdict}"
    )


@dataclass(frozen=True)
class Compared:
    """What ``compare`` says of the systems of one heading."""

    members: Sequence[Experiment]
    pairs: Sequence[Pair]
    others: Sequence[tuple[Experiment, Experiment, str]]

    def section(self, of: Experiment | None = None) -> Section:
        """The table of pairs, and the same in words, with what is not compared and why; of one system if named."""

        def is_asked_for(first: Experiment, second: Experiment) -> bool:
            return of is None or of is first or of is second

        pairs = [pair for pair in self.pairs if is_asked_for(pair.first, pair.second)]
        sentences = [_in_words(pair) for pair in pairs]
        others = [other for other in self.others if is_asked_for(*other[:2])]
        sentences += [
            f"{called(first)} and {called(second)} are not comparable: {reason}" for first, second, reason in others
        ]
        if len(pairs) + len(others) < (math.comb(len(self.members), 2) if of is None else len(self.members) - 1):
            sentences.append("pairs that differ in more than one of system, configuration and data are not tested")
        if pairs:
            sentences.insert(
                0,
                (
                    f"p values are corrected (Holm) over the {len(self.pairs)} pair{'s' * (len(self.pairs) > 1)} of "
                    f"{'this table' if of is None else 'all systems'}. A difference stands where both tests give "
                    "p < 0.05 in the same direction over at least six test speakers."
                ),
            )
            if len({revision for member in self.members for revision in member.run["trained_at_git"]}) > 1:
                sentences.append(
                    "these systems were trained at different revisions of the program, which may be part "
                    "of a difference"
                )
        return Section("Differences to other systems", [_difference_table(pairs)] if pairs else [], sentences)


def _groups(experiments: Sequence[Experiment]) -> dict[tuple[str, str], list[Experiment]]:
    """(heading, test set) -> the experiments that stand in one table."""
    groups: dict[tuple[str, str], list[Experiment]] = defaultdict(list)
    for experiment in sorted(experiments, key=called):
        for set_name in experiment.tests:
            groups[_heading(experiment.run), set_name].append(experiment)
    return dict(sorted(groups.items(), key=lambda group: group[0]))


def recipe_sections(
    groups: Mapping[tuple[str, str], Sequence[Experiment]], compared: Mapping[str, Compared], parts: Sequence[Part] = ()
) -> list[Section]:
    """The tables of a recipe: for each target, protocol and test set a line an experiment; what ``parts`` are worth."""
    sections = []
    for (heading, set_name), members in groups.items():
        where = "" if set_name == TEST else f": test clips of {set_name.removeprefix(f'{TEST}_')}"
        tables, sentences = [_category_table(members, set_name), _other_table(members, set_name)], []
        if set_name == TEST:
            tables.append(_uncertainty_table(members))
        tables.append(_class_table(members, set_name))
        if set_name == TEST:
            differences = compared[heading].section()
            tables += differences.tables
            sentences = differences.sentences
        sections.append(
            Section(
                heading + where,
                [replace(table, name=f"{members[0].run['name']}.{set_name}.{table.name}") for table in tables],
                sentences,
            )
        )
        if set_name == TEST:
            more = [*condition_sections(members, heading), worth_section(heading, parts, members)]
            sections += [
                replace(
                    section,
                    tables=[
                        replace(table, name=f"{members[0].run['name']}.{TEST}.{table.name}") for table in section.tables
                    ],
                )
                for section in more
                if section.tables or section.sentences
            ]
    return sections


def recipe_page(
    title: str, experiments: Sequence[Experiment], sections: Sequence[Section], notes: Sequence[str] = ()
) -> str:
    """RESULTS.md of a recipe; ``notes`` are what its table.yaml says of all its systems."""
    parts = [
        f"# Results of {title}\n",
        INTRODUCTION,
        bullets([*EXPLAINED, *notes]),
        *map(section_markdown, sections),
        f"{NOT_COMPARABLE}\n",
        "## How each was run\n",
    ]
    for experiment in experiments:
        parts.append(f"### {called(experiment)}, {experiment.run['name']}\n\n" + bullets(_facts(experiment.summary)))
    return "\n".join(parts)


def report(exp: Path, title: str, results: Path, table: Path | None = None) -> str:
    """Summarise every experiment below ``exp`` from its score files; returns the recipe's page.

    Writes metrics.json, scores.tsv, RESULTS.md, report.html and pictures of each experiment (and conditions.json, where
    it has any), the recipe's page to ``results``, its tables as LaTeX and CSV to ``exp/tables``, and
    ``exp/report.html`` (with ``exp/pictures`` of systems under other conditions). ``table`` says what the paper's
    table is, to stand at the end with our figures. What could not be read or does not go together is left out,
    and named on the page; InputError where nothing is left.
    """
    of_paper = read_table(table) if table is not None else None
    folders = sorted({path.parent.parent for path in Path(exp).glob("*/*/fold*/seed*") if path.is_dir()})
    if not folders:
        raise InputError(NOTHING_SCORED.format(exp))
    with locked_folder(Path(exp) / TABLES, wait=True):  # it stands for all that is written here
        for written in (exp, results, *folders):
            remove_leftovers(written)
        return _report(exp, folders, title, results, of_paper)


def _report(exp: Path, every: Sequence[Path], title: str, results: Path, of_paper: PaperTable | None) -> str:
    """What ``report`` does, of the experiments in ``every`` folder."""
    experiments: dict[Path, Experiment] = {}
    left_out: list[str] = []
    for folder in every:
        folders, reasons = scored_folders(folder)
        left_out += reasons
        if folders:
            try:
                rows, reasons = conditions.read(folder)
                left_out += reasons
                experiments[folder] = replace(summarise(folder, folders), rows=rows)
            except InputError as unlike:
                left_out.append(str(unlike))
    if not experiments:
        raise InputError(left_out[0] if left_out else NOTHING_SCORED.format(exp))
    for reason in left_out:
        log.warning("left out of the tables: %s", reason)
    groups = _groups(list(experiments.values()))
    compared = {
        heading: Compared(members, *compare(members))
        for (heading, set_name), members in groups.items()
        if set_name == TEST
    }
    for folder, experiment in experiments.items():
        _write_experiment(folder, experiment, compared[_heading(experiment.run)])

    sections = recipe_sections(groups, compared, of_paper.parts if of_paper is not None else ())
    notes_of_recipe = of_paper.notes if of_paper is not None else []
    text = recipe_page(title, list(experiments.values()), sections, notes_of_recipe)
    tables = [table for section in sections for table in _with_headings(section)]
    more = []
    if of_paper is not None:
        summaries = [experiment.summary for experiment in experiments.values()]
        for beside, notes in paper_tables(of_paper, summaries):
            tables.append(beside)
            text += f"\n## {beside.caption}\n\n{markdown(beside)}\n" + bullets(notes)
            more.append(Section(beside.caption, [beside], notes))
        for among in published_sections(of_paper.published, summaries):
            tables += _with_headings(among)
            text += "\n" + section_markdown(among)
            more.append(among)
    if left_out:
        text += "\n## Left out\n\n" + bullets(left_out)
        more.append(Section("Left out", (), left_out))
    write_text(results, text)
    write_tables(Path(exp) / TABLES, tables)
    links = [
        html_report.Link(
            f"{called(experiment)}, {experiment.run['name']}",
            (folder / html_report.REPORT).relative_to(exp).as_posix(),
            _main_scores_in_words(experiment.summary),
        )
        for folder, experiment in experiments.items()
    ]
    pictures = [
        picture
        for (heading, set_name), members in groups.items()
        if set_name == TEST
        for picture in compared_conditions(heading, members, called)
    ]
    if pictures or (Path(exp) / PICTURES).is_dir():
        write_pictures(Path(exp) / PICTURES, pictures)
    write_text(
        Path(exp) / html_report.REPORT,
        html_report.recipe_report(
            f"Results of {title}", links, [*sections, *more], [*EXPLAINED, *notes_of_recipe, NOT_COMPARABLE], pictures
        ),
    )
    return text


def _with_headings(section: Section) -> list[Table]:
    """Its tables, to stand alone."""
    return [replace(table, caption=f"{section.heading}: {table.caption}") for table in section.tables]


def _write_experiment(folder: Path, experiment: Experiment, compared: Compared) -> None:
    """The pictures, RESULTS.md and report.html of one experiment."""
    pictures, sections = pictures_of(experiment), experiment_sections(experiment)
    write_pictures(folder / PICTURES, pictures)
    if experiment.rows:
        conditions.write_summary(folder, experiment.rows)
    write_text(folder / "RESULTS.md", experiment_page(experiment, sections, pictures))
    differences = compared.section(experiment)
    if differences.sentences:
        sections.append(differences)
    write_text(
        folder / html_report.REPORT,
        html_report.experiment_report(
            _title(experiment),
            _main_scores(experiment),
            _facts(experiment.summary),
            sections,
            pictures,
            EXPLAINED,
            experiment,
            folder / html_report.REPORT,
        ),
    )
