"""Published partitions of a corpus: lists that give the test fold of each clip (``--folds-file``), and rules.

A list is a table, or a folder of EmoBox, data/NAME, whose fold_<k>/NAME_test_fold_<k>.jsonl are the test clips of fold
k, one JSON object a line. EmoBox' folds of some corpora are of speakers, and known by a rule.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from speecheq.common.errors import InputError
from speecheq.corpora.exchange.emobox import read_json_lines
from speecheq.corpora.exchange.table_rows import read_records
from speecheq.dataset.protocols import FoldClip, Folds

COLUMNS = ("clip", "test_fold")
EMOBOX = "emobox"
# The test speakers of EmoBox' folds, where its folds are of whole speakers.
EMOBOX_SPEAKERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "casia": (("wangzhe",), ("zhaozuoxiang",), ("liuchanhg",), ("zhaoquanyin",)),
    "ravdess": (
        ("01", "11", "20", "21"),
        ("04", "10", "12", "14"),
        ("08", "09", "19", "23"),
        ("03", "05", "07", "24"),
        ("02", "15", "16", "18"),
        ("06", "13", "17", "22"),
    ),
}


class FoldRow(NamedTuple):
    """A row of a list of folds; ``where`` is ``<path>, line <n>``, for error messages. ``path``: that of its audio."""

    where: str
    clip: str
    fold: int
    path: str = ""


class PublishedFolds(NamedTuple):
    """The folds of a list, the ids of clips missing in it, and the number of its lines without a clip."""

    folds: Folds
    unnamed: list[str]
    absent: int


def folds_file_digest(path: Path) -> str:
    """A short digest of a list of folds; raises InputError if there is no such file."""
    _check_exists(path)
    found = hashlib.sha256()
    for file in [file for _, file in _emobox_files(Path(path))] if Path(path).is_dir() else [Path(path)]:
        found.update(file.read_bytes())
    return found.hexdigest()[:16]


def _emobox_files(folder: Path) -> list[tuple[int, Path]]:
    """The files of test clips below a folder of EmoBox, by fold. Raises InputError if there are none."""
    found = {}
    for path in folder.glob("fold_*/*_test_fold_*.jsonl"):
        match = re.fullmatch(r".*_test_fold_([1-9][0-9]{0,5})\.jsonl", path.name)
        if match:
            found[int(match[1])] = path
    if not found:
        raise InputError(
            f"{folder}: holds no fold_1/NAME_test_fold_1.jsonl; give a folder of EmoBox, data/NAME, or a table."
        )
    return sorted(found.items())


def _emobox_rows(folder: Path) -> list[FoldRow]:
    """The rows of a folder of EmoBox; a clip is named by its key, or by the path of its audio below downloads/NAME."""
    rows = []
    for fold, path in _emobox_files(folder):
        for where, line in read_json_lines(path):
            parts = os.path.splitext(str(line.get("wav") or ""))[0].split("/")
            rows.append(FoldRow(where, line["key"].strip(), fold, "/".join(parts[2:] or parts)))
    return rows


def _check_exists(path: Path) -> None:
    if not Path(path).exists():
        raise InputError(f"{path}: the file of folds does not exist.")


def read_folds_file(path: Path) -> list[FoldRow]:
    """The rows of a list of published folds: a table, or a folder of EmoBox.

    The first line names the columns, ``clip`` and ``test_fold`` among them; folds count from 1 without a gap.
    Raises InputError, which names the first line that is wrong.
    """
    _check_exists(path)
    if Path(path).is_dir():
        return _checked(path, _emobox_rows(Path(path)))
    return _checked(path, [_fold_row(where, row) for where, row in read_records(path, COLUMNS)])


def _checked(path: Path, rows: list[FoldRow]) -> list[FoldRow]:
    """Return ``rows``; raises InputError for a clip that occurs twice, and a gap between the folds."""
    seen: dict[str, str] = {}
    for row in rows:
        first = seen.setdefault(row.clip.casefold(), row.where)
        if first != row.where:
            raise InputError(f"{row.where}: the clip {row.clip} occurs a second time, first in {first}.")
    folds = {row.fold for row in rows}
    gap = next((number for number in range(1, max(folds, default=1) + 1) if number not in folds), None)
    if gap is not None:
        raise InputError(f"{path}: no clip has the test fold {gap}; folds count from 1 without a gap.")
    return rows


def _fold_row(where: str, row: dict[str, str]) -> FoldRow:
    clip, fold = (row[name] for name in COLUMNS)
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
    by_name = {row.path.casefold(): row for row in rows if row.path}
    by_name.update({row.clip.casefold(): row for row in rows})
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


def emobox_folds(corpus: str, clips: Sequence[FoldClip], may_lack_clips: bool) -> Folds:
    """EmoBox' folds of a corpus by their rule. Raises InputError for a corpus whose folds are a list of clips only."""
    if corpus not in EMOBOX_SPEAKERS:
        raise InputError(
            f"{corpus}: EmoBox' folds of it are lists of clips; give them with --folds-file FOLDER, data/{corpus} of "
            "EmoBox."
        )
    fold_of = {speaker: number for number, fold in enumerate(EMOBOX_SPEAKERS[corpus]) for speaker in fold}
    folds: Folds = [set() for _ in EMOBOX_SPEAKERS[corpus]]
    for clip in clips:
        if clip.speaker.casefold() not in fold_of:
            raise InputError(f"{clip.id}: its speaker {clip.speaker} is in none of EmoBox' folds of {corpus}.")
        folds[fold_of[clip.speaker.casefold()]].add(clip.id)
    return [fold for fold in folds if fold] if may_lack_clips else folds
