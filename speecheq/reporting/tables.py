"""A table, as Markdown, HTML, LaTeX (booktabs) and CSV."""

import csv
import html
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from speecheq.common.files import whole_output_folder, write_text
from speecheq.common.log import one_line
from speecheq.common.markdown import markdown_table

# A column of several parts has a tuple in each row, else one text.
Cell = str | tuple[str, ...]
NOT_AVAILABLE = "n/a"
NOT_PERCENT = ("eis_mse", "eis_mae", "eis_ccc", "eis_pearson")
LONG = 40  # characters: a cell of more is set in several lines


@dataclass(frozen=True)
class Column:
    """``parts``: what its cells are made of, set with ``joint`` between them; CSV has a column for each part."""

    heading: str
    parts: tuple[str, ...] = ()
    joint: str = ""

    def text(self, cell: Cell) -> str:
        """A cell in one piece; its parts may end early, as a value without a deviation does."""
        return cell if isinstance(cell, str) else self.joint.join(cell)


@dataclass(frozen=True)
class Table:
    """``name`` is that of its files, without an ending; ``rows`` have a cell a column."""

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]

    def texts(self) -> Iterable[Sequence[str]]:
        return ([column.text(cell) for column, cell in zip(self.columns, row)] for row in self.rows)

    def is_of_figures(self, place: int) -> bool:
        """Whether a column holds figures alone, which are set flush right."""
        texts = [row[place] for row in self.texts()]
        return bool(texts) and all(re.match(r"[-+<]?\d+(\.\d+)?($| [^\d\s])|n/a$|-($| / )", text) for text in texts)


@dataclass(frozen=True)
class Section:
    """A part of a page: below its heading tables, each with its caption, then sentences."""

    heading: str
    tables: Sequence[Table] = ()
    sentences: Sequence[str] = ()


def figure(value: float | None, score: str, digits: int | None = None) -> str:
    """A score, in percent where it is a share."""
    if value is None:
        return NOT_AVAILABLE
    scale, usual = (1, 3) if score in NOT_PERCENT else (100, 2)
    return f"{value * scale:.{usual if digits is None else digits}f}"


def numbers(values: Iterable[int]) -> str:
    return " ".join(map(str, values))


def slug(text: str) -> str:
    """A file name of a text."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.")


def markdown(table: Table) -> str:
    """Lines between bars; without the caption, which a page has as a heading."""
    return markdown_table([column.heading for column in table.columns], table.texts())


def read_markdown(text: str) -> Table:
    """The first table that ``markdown`` wrote in a text, its cells in one piece each; ValueError without one."""
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


def bullets(sentences: Iterable[str]) -> str:
    """A list in Markdown."""
    return "".join(f"- {one_line(sentence)}\n" for sentence in sentences)


def section_markdown(section: Section) -> str:
    """A section of a Markdown page, each table below its caption."""
    tables = [f"### {capital(table.caption)}\n\n{markdown(table)}" for table in section.tables]
    return "\n".join([f"## {section.heading}\n", *tables, *([bullets(section.sentences)] * bool(section.sentences))])


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def table_html(table: Table) -> str:
    """A table in a box of its own, in which it scrolls; the box can be reached by keyboard."""
    kinds = [
        ' class="figure"'
        if table.is_of_figures(place)
        else ' class="long"'
        if any(len(row[place]) > LONG for row in table.texts())
        else ""
        for place in range(len(table.columns))
    ]

    def line(cells: Iterable[str], is_head: bool = False) -> str:
        made = []
        for place, cell in enumerate(cells):
            tag, scope = ("th", ' scope="col"') if is_head else ("th", ' scope="row"') if place == 0 else ("td", "")
            made.append(f"<{tag}{scope}{kinds[place]}>{html.escape(cell)}</{tag}>")
        return f"<tr>{''.join(made)}</tr>\n"

    caption = html.escape(capital(table.caption))
    return (
        f'<div class="box" role="region" aria-label="{caption}" tabindex="0"><table><caption>{caption}</caption>\n'
        f"<thead>{line((column.heading for column in table.columns), is_head=True)}</thead>\n"
        f"<tbody>{''.join(map(line, table.texts()))}</tbody></table></div>\n"
    )


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def escaped(text: str) -> str:
    """A text that LaTeX sets as it is."""
    return "".join(_LATEX.get(sign, sign) for sign in text)


def latex(table: Table) -> str:
    """A ``table`` float with booktabs' rules; columns of figures are set flush right."""

    def line(cells: Iterable[str]) -> str:
        return " & ".join(map(escaped, cells)) + r" \\"

    alignment = "".join("r" if table.is_of_figures(place) else "l" for place in range(len(table.columns)))
    return (
        "\n".join(
            [
                r"% needs \usepackage{booktabs}",
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{escaped(table.caption)}}}",
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
        )
        + "\n"
    )


def comma_separated(table: Table) -> str:
    """CSV with a heading line, a column a part."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([name for column in table.columns for name in column.parts or (column.heading,)])
    for row in table.rows:
        cells = []
        for column, cell in zip(table.columns, row):
            parts = (cell,) if isinstance(cell, str) else cell
            cells += [*parts, *[""] * (max(1, len(column.parts)) - len(parts))]
        writer.writerow(cells)
    return stream.getvalue()


def write_tables(folder: Path, tables: Sequence[Table]) -> None:
    """``<name>.tex`` and ``<name>.csv`` of each, in place of all that the folder held.

    InputError where the folder holds other files, which would be lost.
    """
    with whole_output_folder(folder, "tables", (".tex", ".csv")) as temporary:
        for table in tables:
            name, others = slug(table.name), 1
            while (temporary / f"{name}.csv").exists():  # names that differ in signs which no file name has
                others += 1
                name = f"{slug(table.name)}-{others}"
            write_text(temporary / f"{name}.tex", latex(table))
            write_text(temporary / f"{name}.csv", comma_separated(table))
