"""Tables 3 and 4 of the paper with our figures beside its own (section 3.3), and ours among published ones of others.

``conf/table.yaml`` of a recipe names the columns (target, protocol, score), the paper's rows, figures of others, and
the parts of our systems whose worth is told; ours are filled in from the experiments that were run. Nothing of ours is
typed in.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from speecheq.common.errors import InputError
from speecheq.common.yaml_files import read_yaml
from speecheq.dataset.msud_recipe import TEST
from speecheq.reporting import tables
from speecheq.reporting.ablation import Part
from speecheq.reporting.experiment import config_of

SCORES = {"wa": 100.0, "ua": 100.0, "uai": 100.0, "eis_mse": 1.0}  # score -> what it is multiplied with in the table


@dataclass(frozen=True)
class Column:
    """A score on a target under a protocol."""

    heading: str
    target: str
    protocol: str
    score: str


@dataclass(frozen=True)
class Row:
    """A line of the paper's table: its name, our system (None: a cited one), its figures, None where it has none."""

    name: str
    system: str | None
    figures: Sequence[float | None]


PUBLISHED = (
    "Figures of others are means over all their folds, as they state them; their folds, training data and models "
    "are others. Ours are the restricted scores of the folds that are named."
)


@dataclass(frozen=True)
class Published:
    """A figure of another system, in percent: WA or UA (``score``) over so many ``classes``; ``how`` it was taken."""

    name: str
    target: str
    protocols: Sequence[str]  # ours whose test speakers are known, or unseen, as in its own
    classes: int
    score: str
    figure: float
    how: str


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper, what others published on the same corpora, the parts of our systems, and what holds for
    all of them."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    published: Sequence[Published]
    parts: Sequence[Part]
    notes: Sequence[str]


def _fields(values: Any, names: Sequence[str], where: str) -> list[Any]:
    if not isinstance(values, dict) or set(values) != set(names):
        raise InputError(f"{where}: expected the keys {', '.join(names)}, found {values!r}.")
    return [values[name] for name in names]


def read_table(path: Path) -> PaperTable:
    """Read ``conf/table.yaml``; InputError names what is wrong in it."""
    title, *lists = _fields(read_yaml(path), ("title", "columns", "rows", "published", "parts", "notes"), str(path))
    if not all(isinstance(values, list) for values in lists):
        raise InputError(f"{path}: columns, rows, published, parts and notes must be lists.")
    columns, rows, published, parts, notes = lists
    made_columns, made_rows = [], []
    for number, values in enumerate(columns, 1):
        where = f"{path}, column {number}"
        made_columns.append(Column(*map(str, _fields(values, ("heading", "target", "protocol", "score"), where))))
        if made_columns[-1].score not in SCORES:
            raise InputError(f"{where}: the score {made_columns[-1].score!r} is not one of {', '.join(SCORES)}.")
    for number, values in enumerate(rows, 1):
        where = f"{path}, row {number}"
        name, system, figures = _fields(values, ("name", "system", "figures"), where)
        if not isinstance(figures, list) or len(figures) != len(made_columns):
            raise InputError(f"{where}: expected {len(made_columns)} figures, one a column.")
        if not all(figure is None or type(figure) in (int, float) for figure in figures):
            raise InputError(f"{where}: a figure is a number, or null where the paper has none.")
        made_rows.append(Row(str(name), system, figures))
    made_published = []
    for number, values in enumerate(published, 1):
        where = f"{path}, published figure {number}"
        made = Published(*_fields(values, [field.name for field in fields(Published)], where))
        if made.score not in ("wa", "ua") or not isinstance(made.protocols, list):
            raise InputError(f"{where}: its score is wa or ua, and its protocols are a list.")
        if type(made.figure) not in (int, float) or type(made.classes) is not int:
            raise InputError(f"{where}: the figure is a number, and that of its classes a whole one.")
        made_published.append(made)
    made_parts = []
    for number, values in enumerate(parts, 1):
        made_parts.append(Part(*_fields(values, [field.name for field in fields(Part)], f"{path}, part {number}")))
        if not all(isinstance(value, str) for value in values.values()):
            raise InputError(f"{path}, part {number}: its name and its two systems are words.")
    return PaperTable(str(title), made_columns, made_rows, made_published, made_parts, [str(note) for note in notes])


def _is_of(summary: Mapping[str, Any], system: str | None, column: Column) -> bool:
    run = summary["run"]
    return (run["system"], run["target"], run["protocol"], run["classes_of"], run["neutral_eis"]) == (
        system,
        column.target,
        column.protocol,
        "seqm",
        "declared",
    )


def _cell(summary: Mapping[str, Any] | None, column: Column, figure: float | None) -> tuple[str, str]:
    value = summary and summary.get(f"test.{column.score}")
    return ("-" if value is None else f"{value * SCORES[column.score]:.2f}", "-" if figure is None else f"{figure:.2f}")


def paper_tables(table: PaperTable, summaries: Sequence[Mapping[str, Any]]) -> list[tuple[tables.Table, list[str]]]:
    """The table with cells "ours / the paper's", once for each configuration that was run, and notes on ours.

    The notes say which folds and seeds ours are over, for means over some folds are not the paper's means over all.
    """
    by_config: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for summary in summaries:
        if any(_is_of(summary, row.system, column) for row in table.rows for column in table.columns):
            run = summary["run"]
            by_config[run["config"] + (f" ({', '.join(run['set'])})" if run["set"] else "")].append(summary)
    headings = [tables.Column("ours / the paper's", ("system",))] + [
        tables.Column(column.heading, (f"{column.heading}, ours", f"{column.heading}, the paper's"), " / ")
        for column in table.columns
    ]
    made = []
    for config, members in sorted(by_config.items()):
        rows: list[list[tables.Cell]] = []
        used: dict[str, None] = {}
        for row in table.rows:
            cells = []
            for column, figure in zip(table.columns, row.figures):
                found = next((summary for summary in members if _is_of(summary, row.system, column)), None)
                if found is not None:
                    run = found["run"]
                    used[
                        f"{row.system}, {run['target']} {run['protocol']}: folds {' '.join(map(str, run['folds']))} "
                        f"of {run['of_folds']}, seeds {' '.join(map(str, run['seeds']))}, emotion data "
                        f"{', '.join(run['corpora'])}, git {', '.join(run['trained_at_git'])}"
                    ] = None
                cells.append(_cell(found, column, figure))
            rows.append([row.name if row.system is None else f"{row.name} ({row.system})", *cells])
        made.append((tables.Table(f"paper.{config}", f"{table.title}, {config}", headings, rows), list(used)))
    return made


def published_sections(published: Sequence[Published], summaries: Sequence[Mapping[str, Any]]) -> list[tables.Section]:
    """Our figures among those of others: a table for each target, protocol and number of classes of which there are
    both.

    Ours are the restricted scores, of the classes that the corpus has, as theirs are. SEQM may merge some of these;
    which of ours are over fewer classes than theirs, and so not among them, is said.
    """
    ours: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for summary in summaries:
        ours[summary["run"]["target"], summary["run"]["protocol"]].append(summary)
    made = []
    for (target, protocol), members in sorted(ours.items()):
        theirs = [figure for figure in published if figure.target == target and protocol in figure.protocols]
        if not theirs:
            continue
        numbers = sorted({figure.classes for figure in theirs})
        among = [
            _among(
                number,
                [figure for figure in theirs if figure.classes == number],
                [summary for summary in members if _classes(summary) == number],
            )
            for number in numbers
        ]
        others: dict[int, list[str]] = defaultdict(list)
        for summary in members:
            if _classes(summary) not in numbers:
                others[_classes(summary)].append(_called(summary))
        apart = [
            f"over {number} classes, where the published figures are over {' or '.join(map(str, numbers))}, and "
            f"so not comparable (--classes corpus keeps a corpus' own): {', '.join(names)}"
            for number, names in sorted(others.items())
        ]
        made.append(
            tables.Section(
                f"{target}, {protocol}: ours among published figures",
                [table for table in among if table is not None],
                [PUBLISHED] * any(among) + apart,
            )
        )
    return made


def _classes(summary: Mapping[str, Any]) -> int:
    """Over how many classes its restricted scores are."""
    return len(summary["run"]["label_sets"][TEST])


def _called(summary: Mapping[str, Any]) -> str:
    return f"{config_of(summary['run'])}-{summary['run']['system']}"


def _among(classes: int, theirs: Sequence[Published], ours: Sequence[Mapping[str, Any]]) -> tables.Table | None:
    """The best first; None where there are none of ours."""
    if not ours:
        return None
    rows: list[list[tables.Cell]] = []
    for summary in ours:
        run = summary["run"]
        rows.append(
            [
                _called(summary),
                *(f"{100 * summary[f'test.restricted_{score}']:.2f}" for score in ("wa", "ua")),
                f"ours: folds {' '.join(map(str, run['folds']))} of {run['of_folds']}, seeds "
                f"{' '.join(map(str, run['seeds']))}, git {', '.join(run['trained_at_git'])}",
            ]
        )
    for figure in theirs:
        rows.append(
            [
                figure.name,
                *(f"{figure.figure:.2f}" if figure.score == score else tables.NOT_AVAILABLE for score in ("wa", "ua")),
                figure.how,
            ]
        )
    rows.sort(key=lambda row: -max(float(cell) for cell in row[1:3] if cell != tables.NOT_AVAILABLE))
    run = ours[0]["run"]
    return tables.Table(
        f"published.{run['target']}.{run['protocol']}.{classes}",
        f"{classes} classes",
        [tables.Column(heading) for heading in ("system", "WA %", "UA %", "how")],
        rows,
    )
