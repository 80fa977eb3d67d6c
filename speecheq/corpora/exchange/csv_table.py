"""A CSV or TSV table with one line for each clip: read as a corpus, and written from a prepared one.

The first line names the columns, in any order. ``path`` and ``speaker`` are needed, ``emotion`` too where
``labels.yaml`` lists labels. Optional are gender, utt, text, intensity, split, session, text_id, and start and end
(seconds in a longer file). ``language``, if there, must be that of ``labels.yaml``. Any other column is kept as a fact
of the clip (``extra``). Relative paths start from the folder of the table, or from ``audio_root`` in ``labels.yaml``.
"""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from speecheq.common.errors import InputError
from speecheq.common.files import whole_text
from speecheq.common.log import log
from speecheq.common.stages import Drops
from speecheq.corpora.declaration import Utterance
from speecheq.corpora.exchange.labels_file import LABELS_FILE, LabelsFile, gender, prefixed, seconds, write_labels_file
from speecheq.corpora.exchange.missing_audio import MACOS_LEFTOVER, MissingAudio
from speecheq.corpora.exchange.table_rows import TableRows, delimiter_of
from speecheq.corpora.layout import as_on_disk, composed, is_macos_leftover
from speecheq.corpora.prepared_corpus import LABEL_KEYS, iter_utterances, load_declaration

LAYOUT = f"a table with the columns path, speaker, gender, emotion, beside {LABELS_FILE}"
COLUMNS = (
    "path", "speaker", "gender", "emotion", "utt", "text", "intensity", "split", "session", "text_id", "start", "end",
    "language",
)  # fmt: skip
NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,17})?(e-?[0-9]{1,2})?")
# Columns with these names would be mistaken for the labels in SEQM terms; they are not read.
RESERVED = tuple(name for name in LABEL_KEYS if name not in COLUMNS)


def _rows(table: Path, labels: LabelsFile) -> TableRows:
    needed = ("speaker", "emotion") if labels.corpus.labels else ("speaker",)
    return TableRows(table, [labels.columns[name] for name in needed])


def _columns(table: Path, where: str, names: list[str], labels: LabelsFile) -> list[str]:
    """The columns of the table under our names, as ``_heading``; ``file`` stands for ``path`` where there is none."""
    if labels.columns["path"] == "path" and not labels.path_template and "path" not in names and "file" in names:
        log.info("%s: the column file is taken for path", table)
        labels = replace(labels, columns={**labels.columns, "path": "file"})
    return _heading(table, where, names, labels)


def _heading(table: Path, where: str, names: list[str], labels: LabelsFile) -> list[str]:
    """The columns of the table under our names; other columns keep their own."""
    for place, name in enumerate(names, 1):
        if not name:
            raise InputError(f"{where}: the column {place} has no name; the first line names the columns.")
        if names.index(name) != place - 1:
            raise InputError(f"{where}: the column {name!r} occurs a second time.")
    ours = {name: column for column, name in labels.columns.items()}
    columns = [ours.get(name, name) for name in names]
    needed = {
        "path": "it names the audio file",
        "speaker": "folds keep speakers apart",
        "emotion": f"{LABELS_FILE} names labels",
    }
    if labels.path_template:
        del needed["path"]
    for column, reason in needed.items():
        if column not in columns and (column != "emotion" or labels.corpus.labels):
            raise InputError(
                f"{where}: there is no column {labels.columns[column]!r}, which is needed ({reason}); the columns "
                f"are {', '.join(names) or 'none'} - add it, or say in {LABELS_FILE} which of them it is, as in "
                f"'columns: {{{column}: NAME}}'."
            )
    for name in sorted({*columns} & {*RESERVED}):
        log.warning("%s: the column %s is not read, since SEQM's labels come from emotion and intensity", table, name)
    for column, name in labels.columns.items():
        if name != column and name not in names:
            raise InputError(f"{where}: there is no column {name!r}, which {LABELS_FILE} names as {column}.")
        if name != column and column in names and column not in labels.columns.values():
            raise InputError(f"{where}: both {name!r} and {column!r} would be the column {column}; rename one.")
    return columns


def _fact(text: str) -> Any:
    """A number where the text is written as one, else the text."""
    return json.loads(text) if NUMBER.fullmatch(text) else text


def _times(row: dict[str, str]) -> tuple[float, float | None]:
    start = seconds(row["start"]) if row.get("start") else 0.0
    end = seconds(row["end"]) if row.get("end") else None
    if start < 0:
        raise ValueError(f"the part from {start:g} s on begins before 0")
    if end is not None and end <= start:
        raise ValueError(f"the part from {start:g} to {end:g} s is empty")
    return start, end


def _read_decimal_commas(row: dict[str, str]) -> None:
    """In a table with semicolons, write the numbers of a row with a decimal point, as in 1,25."""
    for name in ("start", "end", "intensity"):
        if re.fullmatch(r"-?[0-9]+,[0-9]+", row.get(name, "")):
            row[name] = row[name].replace(",", ".")


def _fill(where: str, template: str, row: dict[str, str], labels: LabelsFile) -> str:
    """``template`` with the values of the columns that it names in braces, by their names in the table or by ours."""

    def value(match: re.Match[str]) -> str:
        ours = {name: column for column, name in labels.columns.items()}
        name = match[1] if match[1] in row else ours.get(match[1], match[1])
        if not row.get(name):
            problem = "is empty" if name in row else "is not there"
            raise InputError(f"{where}: the column {match[1]!r} {problem}, which path_template of {LABELS_FILE} names.")
        return row[name]

    return re.sub(r"\{([^{}]+)\}", value, template)


def _audio(table: Path, path: str, labels: LabelsFile) -> tuple[Path, str]:
    """The audio file that a table names as ``path``, and that name with slashes for backslashes where needed."""
    root = table.parent / labels.audio_root
    audio = as_on_disk(root / path)
    if "\\" in path and not os.path.isfile(audio):
        path = path.replace("\\", "/")
        audio = as_on_disk(root / path)
    return audio, path


def _path_name(path: str, table: Path) -> str:
    """The name of a clip without ``utt``: its path as the table gives it, relative to the table if it is below."""
    folder = os.path.abspath(table.parent) + os.sep
    name = path[len(folder) :] if path.startswith(folder) else path
    return os.path.splitext(name)[0].strip("./").replace("/", "-")


def _values(table: Path, column: str, labels: LabelsFile) -> set[str]:
    """All values of a column of the table, by its name in the first line."""
    rows = iter(_rows(table, labels))
    place = [composed(name) for name in next(rows)[1]].index(column)
    return {fields[place] for _, fields in rows if place < len(fields) and fields[place]}


def _is_left_out(utterance: Utterance, row: dict[str, str], labels: LabelsFile) -> str:
    """Why an utterance is left out, whether its audio is there or not, or an empty text."""
    if utterance.label is None and labels.corpus.labels:
        return "no label"
    if utterance.label in labels.left_out:
        return f"{LABELS_FILE} leaves the label {utterance.label} out"
    if row.get("split") and utterance.split is None:
        return f"{LABELS_FILE} leaves the split {row['split']} out"
    return ""


def _utterance(table: Path, where: str, row: dict[str, str], labels: LabelsFile) -> Utterance:
    """The utterance of one line; raises InputError for a value that cannot be."""
    for column in ("path", "speaker"):
        if not row[column]:
            raise InputError(f"{where}: the {column} is empty.")
    corpus, label = labels.corpus, row.get("emotion") or None
    audio, path = _audio(table, row["path"], labels)
    try:
        if row.get("language", corpus.language) != corpus.language:
            raise ValueError(
                f"the language is {row['language']!r}, in {LABELS_FILE} {corpus.language!r}; make one table a language"
            )
        if label is not None:
            label = labels.label(label)
        level, intensity = labels.intensity(row.get("intensity", ""))
        start, end = _times(row)
        sex = gender(row.get("gender", ""))
        word = row.get("split")
        split = labels.split(word, lambda: _values(table, labels.columns["split"], labels)) if word else None
    except ValueError as error:
        raise InputError(f"{where}: {error}.") from error
    recording = prefixed(corpus.name, _path_name(path, table))
    return Utterance(
        id=prefixed(corpus.name, row["utt"]) if row.get("utt") else recording,
        audio=audio,
        speaker=row["speaker"],
        gender=sex,
        text=row.get("text", ""),
        label=label,
        level=level,
        intensity=intensity,
        split=split,
        session=row.get("session") or None,
        text_id=row.get("text_id") or None,
        start=start,
        end=end,
        recording=recording if start or end is not None else "",
        extra={name: _fact(text) for name, text in row.items() if text and name not in (*COLUMNS, *RESERVED)},
        source=where,
    )


def _readings(row: dict[str, str], utterance: Utterance) -> Iterator[str]:
    """What of a row is read otherwise than it is written, for the log."""
    if row.get("emotion") and row["emotion"] != utterance.label:
        yield f"labels are numbers such as {row['emotion']}, read as {utterance.label}"
    if "\\" in row.get("path", "") and "\\" not in str(utterance.audio):
        yield "paths are written with backslashes, read as slashes"


def find_utterances(table: Path, labels: LabelsFile, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """One utterance for each line; those to leave out are added to ``drops``.

    Raises InputError for a line that cannot be right, and where all audio is missing.
    """
    table, missing, found = Path(table), MissingAudio(table), 0
    readings: Counter[str] = Counter()
    lines = _rows(table, labels)
    rows = iter(lines)
    where, names = next(rows, (f"{table}, line 1", []))
    lines.report()
    columns = _columns(table, where, [composed(name) for name in names], labels)
    for where, fields in rows:
        if len(fields) != len(columns):
            raise InputError(f"{where}: expected {len(columns)} fields, as in the first line, found {len(fields)}.")
        row = {name: text if name in ("path", "utt") else composed(text) for name, text in zip(columns, fields)}
        if lines.delimiter == ";":
            _read_decimal_commas(row)
        if labels.path_template:
            row["path"] = _fill(where, labels.path_template, row, labels)
        if is_macos_leftover(row["path"]):  # its other fields may be anything
            drops.add(MACOS_LEFTOVER, row["path"])
            continue
        utterance = _utterance(table, where, row, labels)
        readings.update(_readings(row, utterance))
        reason = _is_left_out(utterance, row, labels)
        if reason:
            drops.add(reason, utterance.id)
        elif os.path.isfile(utterance.audio):
            found += 1
            yield utterance
        elif partial:
            drops.add("audio missing", utterance.id)
            missing.add(utterance.audio)
        else:
            raise InputError(
                f"{where}: there is no file {utterance.audio}; complete the copy, or accept what is there with "
                "--partial true."
            )
    missing.check(found)
    for reading, count in readings.items():
        log.info("%s: %d %s", table, count, reading)


def _row(utterance: Utterance) -> dict[str, Any]:
    """Our columns of the line that ``_utterance`` reads back."""
    return {
        "path": utterance.audio,
        "speaker": utterance.speaker,
        "gender": utterance.gender,
        "emotion": utterance.label,
        "utt": utterance.id,
        "text": utterance.text,
        "intensity": utterance.level if utterance.intensity is None else repr(utterance.intensity),
        "split": utterance.split,
        "session": utterance.session,
        "text_id": utterance.text_id,
        "start": None if utterance.end is None else f"{utterance.start:.6f}",
        "end": None if utterance.end is None else f"{utterance.end:.6f}",
    }


def export_table(manifests: Path, table: Path) -> None:
    """Write the prepared corpus in ``manifests`` as a table, and beside it the ``labels.yaml`` to read it back.

    Raises InputError if one of the two files exists.
    """
    table, corpus = Path(table), load_declaration(manifests)
    delimiter, labels = delimiter_of(table), table.parent / LABELS_FILE
    for path in (table, labels):
        if path.exists():
            raise InputError(f"{path}: is there already; name a table in another folder.")
    facts: set[str] = set()
    left_behind: set[str] = set()
    for utterance, _ in iter_utterances(manifests):
        for name, value in (utterance.extra or {}).items():
            (left_behind if name in COLUMNS or isinstance(value, (dict, list)) else facts).add(name)
    for name in sorted(left_behind):
        log.warning("%s: the fact %s of clips has no place in a table and is not exported", corpus.name, name)
    count = 0
    with whole_text(table) as stream:
        writer = csv.DictWriter(stream, [*COLUMNS[:-1], *sorted(facts)], delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        for utterance, _ in iter_utterances(manifests):
            extra = utterance.extra or {}
            writer.writerow({**{name: extra.get(name) for name in facts}, **_row(utterance)})
            count += 1
    write_labels_file(corpus, labels)
    log.info("%s: %d utterances of %s -> %s", corpus.name, count, corpus.title, table)
