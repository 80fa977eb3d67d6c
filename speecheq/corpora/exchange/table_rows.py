"""The lines of a table, whatever separates its fields: commas, semicolons or tabs, as its first line shows.

A table is UTF-8, or UTF-16 as spreadsheets save it.
"""

import csv
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.corpora.layout import composed, read_lines

# What separates the fields of a table by its suffix, unless its first line shows another separator.
DELIMITERS = {".csv": ",", ".tsv": "\t"}
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs"}
SPREADSHEET_LINE = re.compile(r"sep=([,;\t])")


def delimiter_of(table: Path) -> str:
    """Comma for a .csv, tab for a .tsv; raises InputError for any other suffix."""
    suffix = Path(table).suffix.lower()
    if suffix not in DELIMITERS:
        raise InputError(f"{table}: is neither a .csv (commas) nor a .tsv (tabs) by its name; rename the table.")
    return DELIMITERS[suffix]


def _split(where: str, line: str, delimiter: str) -> list[str]:
    try:
        fields = [field.strip() for field in next(csv.reader([line], delimiter=delimiter, strict=True))]
    except csv.Error as error:
        raise InputError(
            f"{where}: cannot be split into fields ({error}); a field is one line of text, and one with a "
            'quotation mark or the separator in it stands in quotation marks, with those inside doubled ("").'
        ) from error
    if any("\0" in field for field in fields):
        raise InputError(f"{where}: holds a NUL character, so it is not a table of text.")
    return fields


def _delimiter_shown(line: str, usual: str, needed: Collection[str]) -> str:
    """What separates the names in the first line: that which gives all ``needed``, or the most; else ``usual``."""
    counts: dict[str, tuple[bool, int]] = {}
    for delimiter in (usual, *(other for other in NAMES if other != usual)):
        try:
            names = _split("", line, delimiter)
        except InputError:
            continue
        counts[delimiter] = set(needed) <= set(map(composed, names)), len(names)
    best = max(counts.values(), default=(False, 1))
    return next((delimiter for delimiter, count in counts.items() if count == best), usual)


class TableRows:
    """``<table>, line <n>`` and the fields of every line that holds any, the first line included.

    ``needed`` are names that the first line should have, by which its separator is found. ``delimiter`` is known once
    the first line is read; the table may have any suffix.
    """

    def __init__(self, table: Path, needed: Collection[str]):
        self.table, self.needed = Path(table), needed
        self.usual = self.delimiter = DELIMITERS.get(self.table.suffix.lower(), ",")

    def __iter__(self) -> Iterator[tuple[str, list[str]]]:
        usual, is_first = self.usual, True
        for where, line in read_lines(self.table, ("utf-16", "utf-8")):  # spreadsheets save Unicode text as UTF-16
            if is_first:
                declared = SPREADSHEET_LINE.fullmatch(line.strip(" "))
                if declared:  # a line that spreadsheets write before the names
                    self.delimiter = usual = declared[1]
                    continue
                self.delimiter = _delimiter_shown(line, usual, self.needed)
                is_first = False
            fields = _split(where, line, self.delimiter)
            if any(fields):
                yield where, fields

    def report(self) -> None:
        """Log a separator that the name of the table does not suggest."""
        if self.delimiter != self.usual:
            log.info("%s: its fields are separated by %s", self.table, NAMES[self.delimiter])


def read_records(table: Path, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """``<table>, line <n>`` and the fields by column of every line of a table but its first, which names the columns.

    Raises InputError for a table without one of the columns ``needed``, and for a line that has not as many fields as
    the first.
    """
    rows = iter(TableRows(table, needed))
    where, columns = next(rows, (f"{table}, line 1", []))
    missing = next((name for name in needed if name not in columns), None)
    if missing is not None:
        raise InputError(
            f"{where}: lacks the column {missing}; expected the columns {' and '.join(needed)}, found "
            f"{', '.join(columns) or 'none'}."
        )
    for where, fields in rows:
        if len(fields) != len(columns):
            raise InputError(f"{where}: expected {len(columns)} fields, as in the first line, found {len(fields)}.")
        yield where, dict(zip(columns, fields))
