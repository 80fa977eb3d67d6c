"""Tables 3 and 4 of the paper with our figures beside its own (section 3.3).

``conf/table.yaml`` of a recipe names the columns (target, protocol, score) and the paper's rows; ours are filled in
from the experiments that were run. Nothing of ours is typed in.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from speecheq import tables
from speecheq.config import read_yaml
from speecheq.errors import InputError

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
    system: Optional[str]
    figures: Sequence[Optional[float]]


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]


def _fields(values: Any, names: Sequence[str], where: str) -> List[Any]:
    if not isinstance(values, dict) or set(values) != set(names):
        raise InputError(f"{where}: expected the keys {', '.join(names)}, found {values!r}.")
    return [values[name] for name in names]


def read_table(path: Path) -> PaperTable:
    """Read ``conf/table.yaml``; InputError names what is wrong in it."""
    title, columns, rows = _fields(read_yaml(path), ("title", "columns", "rows"), str(path))
    if not isinstance(columns, list) or not isinstance(rows, list):
        raise InputError(f"{path}: columns and rows must be lists.")
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
    return PaperTable(str(title), made_columns, made_rows)


def _is_of(summary: Mapping[str, Any], system: Optional[str], column: Column) -> bool:
    run = summary["run"]
    return (run["system"], run["target"], run["protocol"], run["classes_of"], run["neutral_eis"]) == (
        system, column.target, column.protocol, "seqm", "declared")


def _cell(summary: Optional[Mapping[str, Any]], column: Column, figure: Optional[float]) -> Tuple[str, str]:
    value = summary and summary.get(f"test.{column.score}")
    return ("-" if value is None else f"{value * SCORES[column.score]:.2f}", "-" if figure is None else f"{figure:.2f}")


def paper_tables(table: PaperTable, summaries: Sequence[Mapping[str, Any]]) -> List[Tuple[tables.Table, List[str]]]:
    """The table with cells "ours / the paper's", once for each configuration that was run, and notes on ours.

    The notes say which folds and seeds ours are over, for means over some folds are not the paper's means over all.
    """
    by_config: Dict[str, List[Mapping[str, Any]]] = defaultdict(list)
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
        rows: List[List[tables.Cell]] = []
        used: Dict[str, None] = {}
        for row in table.rows:
            cells = []
            for column, figure in zip(table.columns, row.figures):
                found = next((summary for summary in members if _is_of(summary, row.system, column)), None)
                if found is not None:
                    run = found["run"]
                    used[f"{row.system}, {run['target']} {run['protocol']}: folds {' '.join(map(str, run['folds']))} "
                         f"of {run['of_folds']}, seeds {' '.join(map(str, run['seeds']))}, emotion data "
                         f"{', '.join(run['corpora'])}, git {', '.join(run['trained_at_git'])}"] = None
                cells.append(_cell(found, column, figure))
            rows.append([row.name if row.system is None else f"{row.name} ({row.system})", *cells])
        made.append((tables.Table(f"paper.{config}", f"{table.title}, {config}", headings, rows), list(used)))
    return made
