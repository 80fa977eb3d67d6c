"""The tables of corpora and of results in README.md and docs/corpora.md, each between its two marker lines.

The corpora are those of the data cards. The results come from the recipes' ``RESULTS.md``, which stage 5 wrote; only
runs over all folds of a protocol are shown.
"""

from pathlib import Path

from speecheq.common.errors import InputError
from speecheq.common.files import write_text
from speecheq.corpora import data_card
from speecheq.reporting.tables import Column, Table, markdown, read_markdown

ROOT = Path(__file__).resolve().parents[2]
CATEGORIES, INTERVALS = "Categories (ESC)", "Intervals and spreads"  # of report.recipe_page
SCORES = ("system", "config", "folds", "seeds", "WA %", "UA %")  # the columns that are taken of the first


def marked(text: str, name: str, content: str, where: str) -> str:
    """``text`` with ``content`` between the markers of ``name``; InputError that begins with ``where`` without them."""
    begin, end = (f"<!-- {name}: {place} -->" for place in ("begin", "end"))
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise InputError(f"{where}: needs one line {begin} and after it one line {end}.")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content}{end}{rest.split(end)[1]}"


def _parts(text: str, mark: str) -> dict[str, str]:
    """What follows each heading that begins with ``mark``, by the rest of its line."""
    found = [part.partition("\n") for part in f"\n{text}".split(f"\n{mark} ")[1:]]
    return {heading: below for heading, _, below in found}


def _cell(table: Table, row: int, heading: str, after: int = 0) -> str:
    """The cell of a row in the column of that heading, or so many columns ``after`` it."""
    return str(table.rows[row][[column.heading for column in table.columns].index(heading) + after])


def _covers_all_folds(folds: str) -> bool:
    """Whether a cell such as ``1 2 3 of 4`` lists every fold."""
    numbers, _, total = folds.partition(" of ")
    return len(numbers.split()) == int(total)


def results_table(pages: dict[str, str]) -> str:
    """The test scores of the experiments over all folds, in Markdown.

    ``pages`` are recipes' RESULTS.md by their paths. InputError for a page that does not hold what stage 5 writes.
    """
    rows: list[list[str]] = []
    for path, page in pages.items():
        try:
            for experiment, section in _parts(page, "##").items():
                found = _parts(section, "###")
                if not {CATEGORIES, INTERVALS} <= set(found):
                    continue
                scores, intervals = read_markdown(found[CATEGORIES]), read_markdown(found[INTERVALS])
                for row, cells in enumerate(scores.rows):
                    if cells[:2] != intervals.rows[row][:2]:
                        raise ValueError("the tables are not of the same systems")
                    if not _covers_all_folds(_cell(scores, row, "folds")):
                        continue
                    rows.append(
                        [
                            experiment,
                            *(_cell(scores, row, name) for name in SCORES),
                            _cell(intervals, row, "pooled UA %", after=1),
                        ]
                    )
        except (ValueError, IndexError) as fault:
            raise InputError(f"{path}: does not hold the tables of stage 5 (score); run stage 5 again.") from fault
    if not rows:
        raise InputError(f"{', '.join(pages)}: hold no results over all folds; run stages 4 and 5 for the other folds.")
    headings = ("target, protocol", *SCORES, "95 % interval of the pooled UA")
    return markdown(Table("results", "", [Column(heading) for heading in headings], rows))


def with_tables(text: str, where: str, root: Path = ROOT) -> str:
    """A page's ``text`` with the tables of the checkout ``root`` that it has markers for.

    InputError that begins with ``where`` for markers that do not match, or none at all.
    """
    wanted = [name for name in ("corpora", "results") if f"<!-- {name}: " in text]
    if not wanted:
        return marked(text, "results", "", where)  # which says what is missing
    if "corpora" in wanted:
        text = marked(text, "corpora", data_card.table(data_card.read_cards(root / "local" / "cards")), where)
    if "results" not in wanted:
        return text
    pages = {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in root.glob("egs/*/RESULTS.md")}
    pages = dict(sorted(pages.items(), key=lambda page: page[1]))  # by their titles: Experiment 1, 2, MTL-AUG
    return marked(text, "results", results_table(pages), where)


def update(path: str | Path, root: Path = ROOT) -> bool:
    """Write the tables into the page ``path``. Returns whether that changed it."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    old = path.read_text(encoding="utf-8")
    new = with_tables(old, str(path), root)
    if new != old:
        write_text(path, new)
    return new != old
