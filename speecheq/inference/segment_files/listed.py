"""A segment as a file lists it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from speecheq.common.errors import InputError

# What installs the packages that read and write annotations.
INSTALL = "utils/install.sh --extras segments"
TEXT = "text"  # the column of what is said in a segment, or of its label


class ListedSegment(NamedTuple):
    """A segment of a recording; ``start`` and ``end`` in seconds, None: to the end of the recording.

    ``recording`` is the name of the recording, empty where the file names none; ``channel`` is a number from 1 on.
    ``columns`` are all else that the file says of the segment, names and values. ``where`` is for messages.
    """

    start: float
    end: float | None
    where: str
    recording: str = ""
    speaker: str = ""
    channel: int | None = None
    columns: tuple[tuple[str, str], ...] = ()

    def sorting_key(self) -> tuple[str, float, float]:
        """Segments are sorted by recording and time."""
        return self.recording, self.start, math.inf if self.end is None else self.end

    def checked(self) -> "ListedSegment":
        """The segment; InputError if it is empty or begins before 0."""
        end = math.inf if self.end is None else self.end
        if not 0 <= self.start < end:
            raise InputError(
                f"{self.where}: the segment from {self.start:g} to {end:g} s is empty or begins before 0; correct its "
                "times, or take it out."
            )
        return self


def columns_of(**values: str | None) -> tuple[tuple[str, str], ...]:
    """The columns that have a value."""
    return tuple((name, value) for name, value in values.items() if value)


def read_text(path: Path, encodings: Sequence[str] = ("utf-8-sig",)) -> str:
    """The text of a file in UTF-16 with a byte order mark, or in one of ``encodings``; else InputError."""
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ("utf-16",)
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise InputError(f"{path}: is no text in UTF-8 or UTF-16; save it again as text in UTF-8.")
