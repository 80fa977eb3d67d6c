"""Files that list segments of recordings: diarisations, transcripts and annotations of other tools, and our own."""

from collections.abc import Callable, Sequence
from pathlib import Path

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.inference.segment_files.annotations import read_eaf, read_textgrid
from speecheq.inference.segment_files.listed import ListedSegment
from speecheq.inference.segment_files.plain_text import read_audacity, read_kaldi, read_rttm, read_table
from speecheq.inference.segment_files.subtitles import read_subtitles

READERS: dict[str, Callable[[Path], list[ListedSegment]]] = {
    ".rttm": read_rttm,
    ".csv": read_table,
    ".tsv": read_table,
    ".srt": read_subtitles,
    ".vtt": read_subtitles,
    ".txt": read_audacity,
    "segments": read_kaldi,
}
TIERED = {".textgrid": read_textgrid, ".eaf": read_eaf}


def read_segments(path: Path, tiers: Sequence[str] = ()) -> list[ListedSegment]:
    """The segments that a file lists, sorted by time; the format follows from its name.

    ``tiers`` are the tiers of a TextGrid or .eaf that count (none: all). Raises InputError for a file that is of no
    known format, cannot be read, lists no segment, or lists one that is empty or begins before 0.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    kind = "segments" if path.name == "segments" else path.suffix.lower()
    if kind in TIERED:
        found = TIERED[kind](path, tiers)
    elif kind in READERS:
        if tiers:
            raise InputError(f"{path}: has no tiers, so there is none to choose; leave --tier out.")
        found = READERS[kind](path)
    else:
        raise InputError(
            f"{path}: is no file of segments by its name; it is to end in {', '.join([*list(READERS)[:-2], *TIERED])}, "
            "in .txt (labels of Audacity), or to be called segments (Kaldi's)."
        )
    if not found:
        raise InputError(f"{path}: lists no segments.")
    ordered = sorted(found, key=ListedSegment.sorting_key)
    if ordered != sorted(found, key=lambda one: one.recording):
        log.info("%s: its segments are not in the order of time; they are sorted", path)
    return ordered
