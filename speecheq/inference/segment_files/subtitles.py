"""Segments from SRT and WebVTT subtitles, which webvtt-py reads."""

import io
import re
from pathlib import Path
from typing import Any

from speecheq.common.errors import InputError, first_line, optional_package
from speecheq.inference.segment_files.listed import INSTALL, ListedSegment, columns_of, read_text

TIMES = re.compile(r"^\s*(\S*\d)\s+-->\s+(\d\S*)", re.M)


def import_webvtt(needed_for: str) -> Any:
    """The package webvtt; InputError where it is not installed."""
    with optional_package("webvtt-py", needed_for, INSTALL):
        import webvtt
    return webvtt


def _seconds(time: Any) -> float:
    hours, minutes, seconds, milliseconds = time.to_tuple()
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def read_subtitles(path: Path) -> list[ListedSegment]:
    """The cues of an SRT or VTT file, with their text and their voice (``<v NAME>``) as speaker.

    Milliseconds may stand behind a comma or a dot. InputError for a file that is neither, or with a cue whose times
    cannot be read.
    """
    webvtt = import_webvtt(str(path))
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    kind = path.suffix.lower().removeprefix(".")
    announced = TIMES.findall(text)
    try:
        cues = webvtt.from_buffer(io.StringIO(text.strip() + "\n"), format=kind).captions
    except (webvtt.errors.MalformedFileError, webvtt.errors.MalformedCaptionError) as error:
        what = "SRT: a number, a line of times such as 00:00:01,000 --> 00:00:02,500, and text"
        what = what if kind == "srt" else "WebVTT, which begins with the line WEBVTT"
        raise InputError(f"{path}: cannot be read as {what} ({first_line(error)}).") from error
    found = []
    for number, cue in enumerate(cues, 1):
        words = " ".join(cue.text.split())
        start, end = _seconds(cue.start_time), _seconds(cue.end_time)
        segment = ListedSegment(
            start, end, f"{path}, cue {number}", speaker=cue.voice or "", columns=columns_of(text=words)
        )
        found.append(segment.checked())
    if len(announced) != text.count("-->") or len(found) < len(announced):
        raise InputError(
            f"{path}: {text.count('-->')} lines have times, and {len(found)} cues with a text can be read; correct "
            "the others, such as 00:00:01,000 --> 00:00:02,500."
        )
    return found
