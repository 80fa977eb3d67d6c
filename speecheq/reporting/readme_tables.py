"""The tables of corpora and results in README.md and docs/corpora.md, each written between two marker lines.

The corpora are those of the data cards. The results come from the ``RESULTS.md`` of SpeechEQ's recipes, which stage 5
writes; only runs over all folds of a protocol are shown.
"""

from pathlib import Path

from speecheq.common.errors import InputError
from speecheq.common.files import write_text
from speecheq.common.markdown import markdown_table
from speecheq.corpora import data_card
from speecheq.reporting.tables import Table, read_markdown

RECIPES = ("mandarin", "iemocap")  # whose results are shown; those of MTL-AUG are in docs/mtl_aug.md
ROOT = Path(__file__).resolve().parents[2]
CATEGORIES, INTERVALS = "Categories (ESC)", "Intervals and standard deviations"  # headings of report_text.recipe_page
SCORES = ("system", "config", "folds", "seeds", "WA %", "UA %")  # columns of the table CATEGORIES
POOLED = "pooled UA %"  # a column of the table INTERVALS; the next one holds its interval


def replace_between_markers(text: str, name: str, content: str, where: str) -> str:
    """``text`` with ``content`` between the two markers of ``name``. Raises InputError if they are missing."""
    begin, end = (f"<!-- {name}: {place} -->" for place in ("begin", "end"))
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise InputError(f"{where}: needs one line {begin} and after it one line {end}.")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content}{end}{rest.split(end)[1]}"


def _split_at_headings(text: str, mark: str) -> dict[str, str]:
    """Heading -> text below it, for headings that begin with ``mark``, such as "##"."""
    found = [part.partition("\n") for part in f"\n{text}".split(f"\n{mark} ")[1:]]
    return {heading: below for heading, _, below in found}


def _covers_all_folds(folds: str) -> bool:
    """Whether a cell such as "1 2 3 of 4" lists every fold."""
    numbers, _, total = folds.partition(" of ")
    return len(numbers.split()) == int(total)


def _result_rows(page: str) -> list[list[str]]:
    """Heading, SCORES and interval of each system with all folds on a page. Raises ValueError if tables do not fit."""
    rows = []
    for experiment, section in _split_at_headings(page, "##").items():
        found = _split_at_headings(section, "###")
        if not {CATEGORIES, INTERVALS} <= set(found):
            continue
        scores, intervals = (read_markdown(found[heading]) for heading in (CATEGORIES, INTERVALS))
        places = [_headings(scores).index(name) for name in SCORES]
        interval = _headings(intervals).index(POOLED) + 1
        for own, other in zip(scores.texts(), intervals.texts(), strict=True):
            if own[:2] != other[:2]:
                raise ValueError("the tables are not of the same systems")
            row = [experiment, *(own[place] for place in places), other[interval]]
            if _covers_all_folds(row[1 + SCORES.index("folds")]):
                rows.append(row)
    return rows


def _headings(table: Table) -> list[str]:
    return [column.heading for column in table.columns]


def results_table(pages: dict[str, str]) -> str:
    """The test scores of the experiments over all folds in Markdown; ``pages``: path -> text of each RESULTS.md.

    Raises InputError if a page does not hold the tables of stage 5, or if there are no results.
    """
    rows: list[list[str]] = []
    for path, page in pages.items():
        try:
            rows += _result_rows(page)
        except (ValueError, IndexError) as fault:
            raise InputError(f"{path}: does not hold the tables of stage 5 (score); run stage 5 again.") from fault
    if not rows:
        raise InputError(f"{', '.join(pages)}: hold no results over all folds; run stages 4 and 5 for the other folds.")
    headings = ("target, protocol", *SCORES, "95 % interval of the pooled UA")
    return markdown_table(headings, rows)


def with_tables(text: str, where: str, root: Path = ROOT) -> str:
    """The text of a page with those tables of the checkout ``root`` that it has markers for.

    Raises InputError that begins with ``where`` if markers do not match, or if there are none.
    """
    has_corpora = "<!-- corpora: " in text
    if has_corpora:
        cards = data_card.read_cards(root / "local" / "cards")
        text = replace_between_markers(text, "corpora", data_card.table(cards), where)
    if "<!-- results: " in text or not has_corpora:
        files = [f"egs/{recipe}/RESULTS.md" for recipe in RECIPES]
        pages = {name: (root / name).read_text("utf-8") for name in files if (root / name).is_file()}
        text = replace_between_markers(text, "results", results_table(pages), where)
    return text


def update(path: str | Path, root: Path = ROOT) -> bool:
    """Write the tables into the page ``path``. Returns whether it changed."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    old = path.read_text(encoding="utf-8")
    new = with_tables(old, str(path), root)
    if new != old:
        write_text(path, new)
    return new != old
