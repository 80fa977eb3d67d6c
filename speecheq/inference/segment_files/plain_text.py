"""Segments from RTTM, CSV and TSV, labels of Audacity, and a Kaldi ``segments``."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.corpora.exchange.labels_file import number, seconds
from speecheq.corpora.exchange.table_rows import TableRows
from speecheq.corpora.layout import composed, read_lines
from speecheq.inference.segment_files.listed import ListedSegment, columns_of

ENCODINGS = ("utf-16", "utf-8")
# The columns of a table that have a meaning, by the names they may have; all others are kept as they are.
MEANINGS = {
    "start": ("start", "begin", "onset", "start_time", "tmin"),
    "end": ("end", "stop", "end_time", "tmax"),
    "duration": ("duration", "dur"),
    "recording": ("recording", "source", "file", "filename", "audio"),
    "speaker": ("speaker",),
    "channel": ("channel",),
}
RTTM_FIELDS = 8  # without the last two, which some tools leave out
NOT_GIVEN = "<NA>"


def _at(where: str, start: str, end: str, is_duration: bool = False) -> tuple[float, float]:
    """Start and end in seconds; InputError where one is no time."""
    try:
        begins, ends = seconds(start), seconds(end)
    except ValueError as error:
        raise InputError(f"{where}: {error}.") from error
    return begins, begins + ends if is_duration else ends


def _channel(where: str, text: str) -> int | None:
    """The number of a channel; None for an empty text."""
    if not text or text == NOT_GIVEN:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InputError(f"{where}: the channel {text!r} is not a number from 1 on.")
    return int(text)


def read_rttm(path: Path) -> list[ListedSegment]:
    """The SPEAKER lines of an RTTM file; lines of other types are counted in the log."""
    found, others = [], 0
    for where, line in read_lines(path, ENCODINGS):
        fields = line.split()
        if fields[0].startswith(";;"):
            continue
        if fields[0] != "SPEAKER":
            others += 1
            continue
        if len(fields) < RTTM_FIELDS:
            raise InputError(
                f"{where}: has {len(fields)} fields; a line of RTTM is SPEAKER <recording> <channel> <start> "
                "<duration> <NA> <NA> <speaker> <NA> <NA>."
            )
        _, recording, channel, start, duration, text, kind, speaker, *confidence = fields
        begins, ends = _at(where, start, duration, is_duration=True)
        given = {"text": text, "kind": kind, "confidence": confidence[0] if confidence else ""}
        columns = columns_of(**{name: value for name, value in given.items() if value != NOT_GIVEN})
        # digits after the third are rounding: ends of sums of rounded values are not
        ends = round(ends, 6)
        name = "" if speaker == NOT_GIVEN else speaker
        segment = ListedSegment(begins, ends, where, recording, name, _channel(where, channel), columns)
        found.append(segment.checked())
    if others:
        log.info("%s: %d lines that are not of the type SPEAKER are left out", path, others)
    return found


def read_audacity(path: Path) -> list[ListedSegment]:
    """Labels of Audacity: start, end and label between tabs; lines of frequencies (\\ first) do not count."""
    found = []
    for where, line in read_lines(path, ENCODINGS):
        start, *rest = line.split("\t", 2)
        if start == "\\":
            continue
        if not rest:
            raise InputError(
                f"{where}: is no label of Audacity, which has its start, end and text with tabs between them."
            )
        begins, ends = _at(where, start, rest[0])
        found.append(ListedSegment(begins, ends, where, columns=columns_of(text="".join(rest[1:]).strip())).checked())
    return found


def read_kaldi(path: Path) -> list[ListedSegment]:
    """A Kaldi ``segments``: utterance, recording, start and end, -1 for the end of the recording."""
    found = []
    for where, line in read_lines(path):
        fields = line.split()
        if len(fields) != 4:
            raise InputError(f"{where}: expected <utt> <recording> <start> <end>, found {len(fields)} fields.")
        utterance, recording, start, end = fields
        begins, ends = _at(where, start, end)
        segment = ListedSegment(begins, None if ends == -1 else ends, where, recording, columns=(("utt", utterance),))
        found.append(segment.checked())
    return found


def _meanings(path: Path, names: list[str]) -> dict[str, int]:
    """Where each of MEANINGS stands in a table with columns of these names; InputError without start and end."""
    places: dict[str, int] = {}
    known = [composed(name).lower() for name in names]
    for meaning, synonyms in MEANINGS.items():
        place = next((known.index(name) for name in synonyms if name in known), None)
        if place is not None:
            places[meaning] = place
    if "start" not in places or not {"end", "duration"} & set(places):
        raise InputError(
            f"{path}: lacks the columns start and end (or duration), in seconds or hours:minutes:seconds; it has "
            f"{', '.join(names)}."
        )
    return places


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, str], tuple[tuple[str, str], ...]]]:
    """Where each row of a table stands, its values by their meaning, and the other columns."""
    names: list[str] = []
    places: dict[str, int] = {}
    for where, fields in TableRows(path, ("start", "end")):
        if not names:
            names, places = fields, _meanings(path, fields)
            continue
        if len(fields) > len(names):
            raise InputError(f"{where}: has {len(fields)} fields, and there are {len(names)} columns.")
        fields += [""] * (len(names) - len(fields))
        others = [place for place in range(len(names)) if place not in places.values()]
        yield (
            where,
            {meaning: fields[place] for meaning, place in places.items()},
            tuple((names[place], fields[place]) for place in others),
        )


def read_table(path: Path) -> list[ListedSegment]:
    """A CSV or TSV with the columns start and end, or duration; see MEANINGS. Rows of whole recordings are left out."""
    found = []
    for where, row, columns in _rows(path):
        if ("part", "recording") in columns:  # a row of --whole
            continue
        has_end = bool(row.get("end"))
        begins, ends = _at(where, row["start"], row["end"] if has_end else row.get("duration", ""), not has_end)
        channel = _channel(where, _whole(row.get("channel", "")))
        speaker = row.get("speaker", "")
        segment = ListedSegment(begins, ends, where, row.get("recording", ""), speaker, channel, columns)
        found.append(segment.checked())
    return found


def _whole(text: str) -> str:
    """A whole number as pandas writes one in a column with gaps (2.0), without its point."""
    try:
        value = number(text)
    except ValueError:
        return text
    return str(int(value)) if value == int(value) else text
