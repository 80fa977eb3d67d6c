"""One CSV or TSV with a line a clip: read as a corpus, and written from a prepared one.

The first line names the columns, in any order: path and speaker are needed, emotion too where ``labels.yaml``
names labels; gender, utt, text, intensity, split, session, text_id, and start and end (seconds in a longer
file) may be there. ``language``, where it is there, must be that of ``labels.yaml``. Any other column is kept as
a fact of the clip under its own name. A relative path is one beside the table.
"""

import csv
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speecheq.common.errors import InputError
from speecheq.common.files import whole_file
from speecheq.common.log import log
from speecheq.common.stages import Drops
from speecheq.corpora.exchange.labels_file import LABELS_FILE, Declaration, gender, number, prefixed, write_declaration
from speecheq.corpora.prepare import Utterance, read_lines
from speecheq.corpora.prepared_corpus import LABELS, declared, iter_utterances

LAYOUT = f"a table with the columns path, speaker, gender, emotion, beside {LABELS_FILE}"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
COLUMNS = (
    "path",
    "speaker",
    "gender",
    "emotion",
    "utt",
    "text",
    "intensity",
    "split",
    "session",
    "text_id",
    "start",
    "end",
    "language",
)
NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,17})?(e-?[0-9]{1,2})?")
# Columns under these names would be taken for what the metric says; they are not read.
TAKEN = tuple(name for name in LABELS if name not in COLUMNS)


def delimiter_of(table: Path) -> str:
    """Comma or tab, by the file's name; InputError for a name that says neither."""
    suffix = Path(table).suffix.lower()
    if suffix not in DELIMITERS:
        raise InputError(f"{table}: is neither a .csv (commas) nor a .tsv (tabs) by its name; rename the table.")
    return DELIMITERS[suffix]


def _rows(table: Path) -> Iterator[tuple[str, list[str]]]:
    """``<table>, line <n>`` and the fields of every line that holds any."""
    delimiter = delimiter_of(table)
    for where, line in read_lines(table, ("utf-16", "utf-8")):  # spreadsheets save Unicode text as UTF-16
        try:
            fields = [field.strip() for field in next(csv.reader([line], delimiter=delimiter, strict=True))]
        except csv.Error as error:
            raise InputError(
                f"{where}: cannot be split into fields ({error}); a field is one line of text, and one with a "
                'quotation mark or the separator in it stands in quotation marks, with those inside doubled ("").'
            ) from error
        if any("\0" in field for field in fields):
            raise InputError(f"{where}: holds a NUL character, so it is not a table of text.")
        if any(fields):
            yield where, fields


def _heading(table: Path, where: str, names: list[str], declaration: Declaration) -> list[str]:
    """The columns of the table under our names; columns that are not ours keep their own."""
    for place, name in enumerate(names, 1):
        if not name:
            raise InputError(f"{where}: the column {place} has no name; the first line names the columns.")
        if names.index(name) != place - 1:
            raise InputError(f"{where}: the column {name!r} occurs a second time.")
    ours = {name: column for column, name in declaration.columns.items()}
    columns = [ours.get(name, name) for name in names]
    needed = {
        "path": "it names the audio file",
        "speaker": "folds keep speakers apart",
        "emotion": f"{LABELS_FILE} names labels",
    }
    for column, reason in needed.items():
        if column not in columns and (column != "emotion" or declaration.corpus.labels):
            raise InputError(
                f"{where}: there is no column {declaration.columns[column]!r}, which is needed ({reason}); the columns "
                f"are {', '.join(names) or 'none'} - add it, or say in {LABELS_FILE} which of them it is, as in "
                f"'columns: {{{column}: NAME}}'."
            )
    for name in sorted({*columns} & {*TAKEN}):
        log.warning("%s: the column %s is not read, since SEQM's labels come from emotion and intensity", table, name)
    for column, name in declaration.columns.items():
        if name != column and name not in names:
            raise InputError(f"{where}: there is no column {name!r}, which {LABELS_FILE} names as {column}.")
        if name != column and column in names and column not in declaration.columns.values():
            raise InputError(f"{where}: both {name!r} and {column!r} would be the column {column}; rename one.")
    return columns


def _fact(text: str) -> Any:
    """A number where the text is written as one, else the text."""
    return json.loads(text) if NUMBER.fullmatch(text) else text


def _times(row: dict[str, str]) -> tuple[float, float | None]:
    start = number(row["start"]) if row.get("start") else 0.0
    end = number(row["end"]) if row.get("end") else None
    if start < 0:
        raise ValueError(f"the part from {start:g} s on begins before 0")
    if end is not None and end <= start:
        raise ValueError(f"the part from {start:g} to {end:g} s is empty")
    return start, end


def _path_name(path: str, table: Path) -> str:
    """What names a clip without an ``utt``: its path as the table gives it, or below the table's folder."""
    folder = os.path.abspath(table.parent) + os.sep
    name = path[len(folder) :] if path.startswith(folder) else path
    return os.path.splitext(name)[0].strip("./").replace("/", "-")


def find_utterances(table: Path, declaration: Declaration, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """One utterance a line; those without a label or with one that is mapped to null are counted and left out."""
    table, corpus = Path(table), declaration.corpus
    rows = _rows(table)
    where, names = next(rows, (f"{table}, line 1", []))
    columns = _heading(table, where, names, declaration)
    kept_as_facts = [name for name in columns if name not in COLUMNS and name not in TAKEN]
    for where, fields in rows:
        if len(fields) != len(columns):
            raise InputError(f"{where}: expected {len(columns)} fields, as in the first line, found {len(fields)}.")
        row = dict(zip(columns, fields))
        for column in ("path", "speaker"):
            if not row[column]:
                raise InputError(f"{where}: the {column} is empty.")
        audio = table.parent / row["path"]
        recording = prefixed(corpus.name, _path_name(row["path"], table))
        utterance_id = prefixed(corpus.name, row["utt"]) if row.get("utt") else recording
        label = row.get("emotion") or None
        try:
            if row.get("language", corpus.language) != corpus.language:
                raise ValueError(
                    f"the language is {row['language']!r}, in {LABELS_FILE} {corpus.language!r}; make one "
                    "table a language"
                )
            if label is not None:
                declaration.check_label(label)
            level, intensity = declaration.intensity(row.get("intensity", ""))
            start, end = _times(row)
            sex = gender(row.get("gender", ""))
        except ValueError as error:
            raise InputError(f"{where}: {error}.") from error
        if label is None and corpus.labels:
            drops.add("no label", utterance_id)
            continue
        if label in declaration.left_out:
            drops.add(f"{LABELS_FILE} leaves the label {label} out", utterance_id)
            continue
        if not os.path.isfile(audio):
            if not partial:
                raise InputError(
                    f"{where}: there is no file {audio}; complete the copy, or accept what is there with "
                    "--partial true."
                )
            drops.add("audio missing", utterance_id)
            continue
        yield Utterance(
            id=utterance_id,
            audio=audio,
            speaker=row["speaker"],
            gender=sex,
            text=row.get("text", ""),
            label=label,
            level=level,
            intensity=intensity,
            split=row.get("split") or None,
            session=row.get("session") or None,
            text_id=row.get("text_id") or None,
            start=start,
            end=end,
            recording=recording if start or end is not None else "",
            extra={name: _fact(row[name]) for name in kept_as_facts if row[name]},
            source=where,
        )


def _line(utterance: Utterance) -> dict[str, Any]:
    in_part = utterance.end is not None
    intensity = utterance.level if utterance.intensity is None else repr(utterance.intensity)
    return {
        "path": utterance.audio,
        "speaker": utterance.speaker,
        "gender": utterance.gender,
        "emotion": utterance.label,
        "utt": utterance.id,
        "text": utterance.text,
        "intensity": intensity,
        "split": utterance.split,
        "session": utterance.session,
        "text_id": utterance.text_id,
        "start": f"{utterance.start:.6f}" if in_part else None,
        "end": f"{utterance.end:.6f}" if in_part else None,
    }


def export_table(manifests: Path, table: Path) -> None:
    """Write the prepared corpus in ``manifests`` as one table, and beside it the ``labels.yaml`` to read it back.

    InputError where one of the two is there already.
    """
    table, corpus = Path(table), declared(manifests)
    delimiter, labels = delimiter_of(table), table.parent / LABELS_FILE
    for path in (table, labels):
        if path.exists():
            raise InputError(f"{path}: is there already; name a table in another folder.")
    facts, left_behind, count = set(), set(), 0
    for utterance, _ in iter_utterances(manifests, corpus):
        for name, value in utterance.extra.items():
            (left_behind if name in COLUMNS or isinstance(value, (dict, list)) else facts).add(name)
    for name in sorted(left_behind):
        log.warning("%s: the fact %s of clips has no place in a table and stays behind", corpus.name, name)
    with whole_file(table) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [*COLUMNS[:-1], *sorted(facts)], delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        for utterance, _ in iter_utterances(manifests, corpus):
            said = {name: utterance.extra.get(name) for name in facts}
            writer.writerow({**said, **_line(utterance)})
            count += 1
    write_declaration(corpus, labels)
    log.info("%s: %d utterances of %s -> %s", corpus.name, count, corpus.title, table)
