"""Published partitions of a corpus: tables that give the test fold of each clip (``--folds-file``)."""

import csv
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from speecheq.common.errors import InputError
from speecheq.dataset.protocols import FoldClip, Folds


class FoldRow(NamedTuple):
    """A row of a table of folds; ``where`` is ``<path>, line <n>``, for error messages."""

    where: str
    clip: str
    fold: int


class PublishedFolds(NamedTuple):
    """The folds of a list, the ids of clips missing in it, and the number of its lines without a clip."""

    folds: Folds
    unnamed: list[str]
    absent: int


def folds_file_digest(path: Path) -> str:
    """A short digest of a list of folds; raises InputError if there is no such file."""
    _check_exists(path)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def _check_exists(path: Path) -> None:
    if not Path(path).is_file():
        raise InputError(f"{path}: the file of folds does not exist.")


def read_folds_file(path: Path) -> list[FoldRow]:
    """The rows of a table of published folds, tab or comma separated.

    Its first line names the columns, ``clip`` and ``test_fold`` among them; folds count from 1 without a gap.
    Raises InputError, which names the first line that is wrong.
    """
    _check_exists(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8; convert the file, for instance with iconv.") from error
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    # strict: a quote that never closes would swallow all lines after it
    lines = csv.reader(text.removesuffix("\n").split("\n"), delimiter=delimiter, strict=True)
    rows: list[FoldRow] = []
    seen: dict[str, str] = {}
    try:
        columns = next(lines, [])
        if not {"clip", "test_fold"} <= set(columns):
            raise InputError(
                f"{path}, line 1: expected the columns clip and test_fold, found {' '.join(columns) or 'none'}."
            )
        for fields in lines:
            if not "".join(fields).strip():
                continue
            row = _read_row(f"{path}, line {lines.line_num}", columns, fields)
            first = seen.setdefault(row.clip.casefold(), row.where)
            if first != row.where:
                raise InputError(f"{row.where}: the clip {row.clip} occurs a second time, first in {first}.")
            rows.append(row)
    except csv.Error as error:
        raise InputError(f"{path}, line {lines.line_num}: cannot be read as a table ({error}).") from error
    folds = {row.fold for row in rows}
    gap = next((number for number in range(1, max(folds, default=1) + 1) if number not in folds), None)
    if gap is not None:
        raise InputError(f"{path}: no clip has the test fold {gap}; folds count from 1 without a gap.")
    return rows


def _read_row(where: str, columns: Sequence[str], fields: Sequence[str]) -> FoldRow:
    if len(fields) != len(columns):
        raise InputError(f"{where}: expected {len(columns)} columns, found {len(fields)}.")
    values = dict(zip(columns, fields))
    clip, fold = values["clip"].strip(), values["test_fold"].strip()
    if not clip or not re.fullmatch(r"[1-9][0-9]{0,5}", fold):
        raise InputError(f"{where}: expected a clip and a fold number from 1, found {clip!r} and {fold!r}.")
    return FoldRow(where, clip, int(fold))


def folds_from_file(path: Path, clips: Sequence[FoldClip], may_lack_clips: bool) -> PublishedFolds:
    """The folds of a published partition.

    A line names a clip by its id, or by the end of its file's path without the suffix (``liuchanhg/angry/201``).
    Capitals do not count, since they differ from copy to copy. Raises InputError for a line that names a clip that
    another line names, or none. With ``may_lack_clips`` (an incomplete copy) lines may name no clip, but not all of
    them.
    """
    rows = read_folds_file(path)
    by_name = {row.clip.casefold(): row for row in rows}
    longest = max((name.count("/") for name in by_name), default=0) + 1
    taken: dict[str, str] = {}  # place of a line -> the clip that it names
    folds: Folds = [set() for _ in range(max((row.fold for row in rows), default=0))]
    unnamed: list[str] = []
    for clip in clips:
        parts = clip.path.casefold().split("/")
        names = [clip.id.casefold(), *("/".join(parts[-length:]) for length in range(longest, 0, -1))]
        row = next((by_name[name] for name in names if name in by_name), None)
        if row is None:
            unnamed.append(clip.id)
            continue
        other = taken.setdefault(row.where, clip.id)
        if other != clip.id:
            raise InputError(f"{row.where}: {row.clip} names two clips, {other} and {clip.id}; give more of the path.")
        folds[row.fold - 1].add(clip.id)
    absent = [row for row in rows if row.where not in taken]
    if absent and (not may_lack_clips or len(absent) == len(rows)):
        raise InputError(
            f"{absent[0].where}: names the clip {absent[0].clip}, which the corpus does not have ({len(absent)} such "
            "lines); complete the copy, or take the list that belongs to it."
        )
    return PublishedFolds(folds, unnamed, len(absent))
