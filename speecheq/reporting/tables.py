"""Tables as Markdown, LaTeX (booktabs) and CSV, and the formats of their cells."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from speecheq.common.files import whole_output_folder, write_text
from speecheq.common.log import one_line
from speecheq.common.markdown import markdown_table, without_html

T = TypeVar("T")
# A cell of a column with parts is a tuple, any other cell a text.
Cell = str | tuple[str, ...]
NOT_AVAILABLE = "n/a"
NOT_PERCENT = ("eis_mse", "eis_mae", "eis_ccc", "eis_pearson", "nll", "nll_uncalibrated")
LONG = 40  # characters; a column with a longer cell is wrapped in HTML


@dataclass(frozen=True)
class Column:
    """A heading and the names of the values (``parts``) in each cell, if there are several.

    Parts are shown in one cell with ``separator`` between them; CSV has a column for each part.
    """

    heading: str
    parts: tuple[str, ...] = ()
    separator: str = ""

    def text(self, cell: Cell) -> str:
        """A cell as one text. Its last parts may be absent, such as a standard deviation."""
        return cell if isinstance(cell, str) else self.separator.join(cell)


@dataclass(frozen=True)
class Table:
    """``name`` is the stem of its file names; each of ``rows`` has a cell for each column."""

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]

    def texts(self) -> list[list[str]]:
        """The rows, each cell as one text."""
        return [[column.text(cell) for column, cell in zip(self.columns, row)] for row in self.rows]

    def is_numeric(self, place: int) -> bool:
        """Whether the column at ``place`` holds numbers only; such columns are aligned right."""
        texts = [row[place] for row in self.texts()]
        return bool(texts) and all(re.match(r"[-+<]?\d+(\.\d+)?($| [^\d\s])|n/a$|-($| / )", text) for text in texts)

    @property
    def css_classes(self) -> list[str]:
        """The class of each column in HTML: "figure" for numbers, "long" for texts that are wrapped, or ""."""
        texts = self.texts()

        def css_class(place: int) -> str:
            if self.is_numeric(place):
                return "figure"
            return "long" if any(len(row[place]) > LONG for row in texts) else ""

        return [css_class(place) for place in range(len(self.columns))]


@dataclass(frozen=True)
class Section:
    """A heading of a page with tables below it, each with a caption, then sentences."""

    heading: str
    tables: Sequence[Table] = ()
    sentences: Sequence[str] = ()


def build_table(
    name: str, caption: str, items: Iterable[T], columns: Mapping[str | Column, Callable[[T], Cell]]
) -> Table:
    """A table with a row for each item. ``columns`` maps a heading or Column to the function that gives its cell."""
    return Table(
        name,
        caption,
        [Column(column) if isinstance(column, str) else column for column in columns],
        [[cell(item) for cell in columns.values()] for item in items],
    )


def format_score(value: float | None, score: str) -> str:
    """The value of a score such as "ua"; shares are shown in percent."""
    if value is None:
        return NOT_AVAILABLE
    scale, digits = (1, 3) if score in NOT_PERCENT else (100, 2)
    return f"{value * scale:.{digits}f}"


def interval_cell(low: float | None, high: float | None, score: str) -> Cell:
    """Both ends of an interval as parts of a cell, "n/a" if there is no interval."""
    if low is None or high is None:
        return NOT_AVAILABLE
    return format_score(low, score), format_score(high, score)


def interval_text(low: float | None, high: float | None, score: str) -> str:
    """An interval as one text."""
    cell = interval_cell(low, high, score)
    return cell if isinstance(cell, str) else " to ".join(cell)


def join_numbers(values: Iterable[int]) -> str:
    return " ".join(map(str, values))


def slug(text: str) -> str:
    """A text as a file name."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.")


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


# ---- Markdown


def table_markdown(table: Table) -> str:
    """The table without its caption, which is a heading of the page."""
    return markdown_table([column.heading for column in table.columns], table.texts())


def read_markdown(text: str) -> Table:
    """The first table that ``table_markdown`` wrote in a text, each cell as one text; ValueError if there is none."""
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith("| ")), len(lines))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    if len(rows) < 2 or any(len(row) != len(rows[0]) for row in rows):
        raise ValueError("there is no table in Markdown")
    return Table("", "", [Column(heading) for heading in rows[0]], rows[2:])


def bullet_list(sentences: Iterable[str]) -> str:
    """A list in Markdown."""
    return "".join(f"- {without_html(one_line(sentence))}\n" for sentence in sentences)


def section_markdown(section: Section) -> str:
    """A section of a Markdown page, each table below its caption, unless that is the heading of the section."""
    blocks = [f"## {without_html(section.heading)}\n"]
    for table in section.tables:
        heading = "" if table.caption == section.heading else f"### {without_html(capitalised(table.caption))}\n\n"
        blocks.append(heading + table_markdown(table))
    if section.sentences:
        blocks.append(bullet_list(section.sentences))
    return "\n".join(blocks)


# ---- LaTeX and CSV

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def latex_escaped(text: str) -> str:
    """A text with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(sign, sign) for sign in text)


def latex_table(table: Table) -> str:
    """A ``table`` float with the rules of booktabs; columns of numbers are aligned right."""

    def line(cells: Iterable[str]) -> str:
        return " & ".join(map(latex_escaped, cells)) + r" \\"

    alignment = "".join("r" if table.is_numeric(place) else "l" for place in range(len(table.columns)))
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_escaped(table.caption)}}}",
        rf"\label{{tab:{slug(table.name).replace('_', '-')}}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        line(column.heading for column in table.columns),
        r"\midrule",
        *map(line, table.texts()),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def csv_table(table: Table) -> str:
    """CSV with a line of headings, and a column for each part of a cell."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([name for column in table.columns for name in column.parts or (column.heading,)])
    for row in table.rows:
        values: list[str] = []
        for column, cell in zip(table.columns, row):
            parts = (cell,) if isinstance(cell, str) else cell
            values += [*parts, *[""] * (max(1, len(column.parts)) - len(parts))]
        writer.writerow(values)
    return stream.getvalue()


def write_tables(folder: Path, tables: Iterable[Table]) -> None:
    """Write ``<name>.tex`` and ``<name>.csv`` of each table; what the folder held before is replaced.

    Raises InputError if the folder holds other files, which would be lost.
    """
    with whole_output_folder(folder, "tables", (".tex", ".csv")) as temporary:
        for table in tables:
            name, others = slug(table.name), 1
            while (temporary / f"{name}.csv").exists():  # two names may have the same slug
                others += 1
                name = f"{slug(table.name)}-{others}"
            write_text(temporary / f"{name}.tex", latex_table(table))
            write_text(temporary / f"{name}.csv", csv_table(table))
