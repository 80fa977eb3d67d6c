"""Which file ``speecheq predict`` may write: a new or empty one, or its own earlier output; never an input."""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from speecheq.common.errors import InputError
from speecheq.inference.recordings import NOTES, Segment

# The columns with which each CSV file of predictions begins, and keys of each line of JSON.
FIRST_COLUMNS = ("source", "start", "end", "emotion", "name", "eis")
# A line of text: the classes with their probabilities, or a note, and the seconds of speech; or a whole recording.
TEXT_LINE = re.compile(
    r".+: (.+ \d\.\d\d(, EIS \d\.\d\d)?\)?; else .*|(" + "|".join(NOTES) + r")(; \d+\.\d\d s of speech)?)"
    r"|.+ as a whole: (.+; of the time .+|no class; \d+) segments.*"
)
# The beginnings of what is written as labels, and how their lines are where each has the same form.
TEXTGRID = b'File type = "ooTextFile"'
TIER = re.compile(r'^ *name = "(.*)" *$', re.M)
EAF = re.compile(r'<\?xml [^>]*>\s*<ANNOTATION_DOCUMENT [^>]*AUTHOR="speecheq predict"')
VTT = re.compile(r"WEBVTT\n+NOTE\s+speecheq predict\n")
WORDS = r"(.+ \d\.\d\d(, EIS \d\.\d\d)?\)?|(.+: )?(" + "|".join(NOTES) + "))"
SRT = re.compile(rf"1\n\d\d:[\d:,]+ --> [\d:,]+\n{WORDS}\n")
AUDACITY_LINE = re.compile(rf"\d+\.\d{{3}}\t\d+\.\d{{3}}\t{WORDS}")
RTTM_LINE = re.compile(r"SPEAKER \S+ \d+ \d+\.\d{3} \d+\.\d{3} [a-z_]+ <NA> \S+ (\d\.\d{4}|<NA>) <NA>")
# The beginnings of pictures, and what stands in ours.
PICTURES = (b"<svg", b"\x89PNG", b"<!DOCTYPE html>")
MARK = b"speecheq predict"
# So much of an existing file is looked at, in bytes.
LOOKED_AT = 1 << 16


def check_output(output: Path, inputs: Iterable[str | Path | Segment | InputError], option: str = "--output") -> Path:
    """The file behind ``output``, links followed, if predictions of ``inputs`` may be written to it.

    ``inputs`` are the names that were given and the recordings found there; ``option`` names the file. Raises
    InputError if ``output`` is, by any name, one of them, is no regular file, or holds something that ``speecheq
    predict`` did not write.
    """
    target = Path(os.path.realpath(output))
    for one in inputs:
        if isinstance(one, InputError):
            continue
        path = Path(one.path if isinstance(one, Segment) else one)
        if os.path.realpath(path) == str(target) or _is_same_file(path, target):
            raise InputError(f"{output}: is {path}, which is to be predicted; name another file for {option}.")
    if target.is_dir():
        raise InputError(f"{output}: is a folder; name a file in it for {option}.")
    if os.path.exists(output) and not os.path.isfile(output):  # not target: of a pipe that has no name
        raise InputError(
            f"{output}: is a device or a pipe, not a file; leave {option} out, and predictions go to standard output."
        )
    if target.is_file() and not _holds_predictions(target):
        raise InputError(
            f"{output}: holds something that speecheq predict did not write; move it away, or name another file for "
            f"{option}."
        )
    return target


def check_picture(path: Path) -> None:
    """Raise InputError for a picture whose ending is none of those that can be written."""
    if path.suffix.lower() not in (".svg", ".png", ".html"):
        raise InputError(f"{path}: a picture is written as .svg, .png or .html; name one of these for it.")


def _is_same_file(path: Path, target: Path) -> bool:
    try:
        return os.path.samefile(path, target)
    except (OSError, ValueError):
        return False


def _holds_predictions(path: Path) -> bool:
    """Whether a file is empty, or begins as the predictions of one of the formats do."""
    with open(path, "rb") as stream:
        start = stream.read(LOOKED_AT)
    if not start:
        return True
    if start.startswith(PICTURES):
        return MARK in start
    lines = start.decode("utf-8", "replace").split("\n")[:-1]  # the last is empty, or may be cut off
    if not lines:
        return False
    if lines[0].split(",")[: len(FIRST_COLUMNS)] == list(FIRST_COLUMNS):
        return True
    text = start.decode("utf-8", "replace")
    if any(form.match(text) for form in (EAF, VTT, SRT)):
        return True
    if start.startswith(TEXTGRID):
        tiers = TIER.findall(path.read_text("utf-8", "replace"))
        return len(tiers) > 1 and tiers[0].endswith("emotion") and tiers[1] == tiers[0][:-7] + "posterior"
    forms = (TEXT_LINE, AUDACITY_LINE, RTTM_LINE)
    return any(all(form.fullmatch(line) for line in lines) for form in forms) or all(map(_is_json_prediction, lines))


def _is_json_prediction(line: str) -> bool:
    try:
        value = json.loads(line)
    except ValueError:
        return False
    return isinstance(value, dict) and set(FIRST_COLUMNS) <= set(value)
