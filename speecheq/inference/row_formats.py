"""Predictions as text, JSON or CSV, a line for each as soon as it is there."""

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from speecheq.common.log import one_line
from speecheq.evaluation.score_files import POSTERIOR
from speecheq.inference.output_file import FIRST_COLUMNS
from speecheq.inference.prediction import Prediction, WholeRecording
from speecheq.inference.recordings import Segment

Answer = Prediction | WholeRecording
MORE_COLUMNS = ("gender", "phones", "speech", "note")
WHOLE_COLUMNS = ("eis_deviation", "eis_lowest", "eis_highest", "segments", "without_class", "peaks")
GIVEN = "given_"  # before the name of a column of a file of segments that is also a column of ours


@dataclass(frozen=True)
class Table:
    """What the rows of a CSV file have beside the first columns: ``columns`` are those of a file of segments."""

    classes: Sequence[str]
    channels: bool = False
    speakers: bool = False
    columns: Sequence[str] = ()
    whole: bool = False

    @classmethod
    def of(cls, classes: Sequence[str], segments: Iterable[Any], whole: bool) -> "Table":
        """The table for the predictions of ``segments``, with rows for whole recordings too if ``whole``."""
        parts = [segment for segment in segments if isinstance(segment, Segment)]
        columns = dict.fromkeys(name for part in parts for name, _ in part.columns)
        return cls(
            classes,
            any(part.channel is not None for part in parts),
            any(part.speaker for part in parts),
            tuple(columns),
            whole,
        )

    def header(self) -> list[str]:
        """The names of all columns."""
        own = [*FIRST_COLUMNS, *(POSTERIOR + name for name in self.classes), *MORE_COLUMNS]
        own += ["channel"] if self.channels else []
        own += ["speaker"] if self.speakers else []
        if self.whole:
            own += ["part", *WHOLE_COLUMNS, *("share_" + name for name in self.classes)]
        given = []
        for name in self.columns:
            while name in own or name in given:
                name = GIVEN + name
            given.append(name)
        return own + given

    def row(self, one: Answer) -> list[Any]:
        """The cells of a prediction; empty where it has no such value."""
        eis = None if one.eis is None else f"{one.eis:.4f}"
        cells: list[Any] = [one.source, f"{one.start:.3f}", f"{one.end:.3f}", one.emotion, one.name, eis]
        cells += [None if one.posterior is None else f"{one.posterior[name]:.6f}" for name in self.classes]
        if isinstance(one, Prediction):
            phones = None if one.phones is None else " ".join(one.phones)
            cells += [one.gender, phones, None if one.speech is None else f"{one.speech:.3f}", one.note]
        else:
            cells += [None, None, f"{one.seconds:.3f}", None]
        cells += [one.channel] if self.channels else []
        cells += [one.speaker] if self.speakers else []
        if self.whole:
            whole = isinstance(one, WholeRecording)
            cells += _cells_of_whole(one, self.classes) if isinstance(one, WholeRecording) else ["segment"]
            cells += [None] * (0 if whole else len(WHOLE_COLUMNS) + len(self.classes))
        given = one.columns if isinstance(one, Prediction) else {}
        return [*cells, *(given.get(name) for name in self.columns)]


def _cells_of_whole(one: WholeRecording, classes: Sequence[str]) -> list[Any]:
    low, high = one.eis_range or (None, None)
    numbers = [None if value is None else f"{value:.4f}" for value in (one.eis_deviation, low, high)]
    peaks = " ".join(f"{peak.start:.3f}" for peak in one.peaks)
    shares = [f"{one.shares.get(name, 0.0):.6f}" if one.shares else None for name in classes]
    return ["recording", *numbers, one.segments, one.without_class, peaks, *shares]


def _track(one: Answer) -> str:
    """Channel and speaker, where they are known, as a line of text has them."""
    channel = "" if one.channel is None else f" channel {one.channel}"
    return channel + (f" {one.speaker}" if one.speaker else "")


def write_text(answers: Iterable[Answer], table: Table, stream: TextIO) -> None:
    """A line for each: where it is, and what is predicted."""
    for one in answers:
        where = one.source + _track(one)
        if isinstance(one, WholeRecording) or one.windowed:
            where += f" {one.start:.2f}-{one.end:.2f} s"
        if isinstance(one, WholeRecording):
            where += " as a whole"
        print(one_line(f"{where}: {one.summary()}"), file=stream, flush=True)


def write_json(answers: Iterable[Answer], table: Table, stream: TextIO) -> None:
    """A JSON object a line."""
    for one in answers:
        print(json.dumps(_rounded(one.to_dict()), ensure_ascii=False), file=stream, flush=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def write_csv(answers: Iterable[Answer], table: Table, stream: TextIO) -> None:
    """A row for each, see ``Table``."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.header())
    stream.flush()
    for one in answers:
        writer.writerow(table.row(one))
        stream.flush()


ROW_WRITERS: dict[str, Callable[[Iterable[Answer], Table, TextIO], None]] = {
    "text": write_text,
    "json": write_json,
    "csv": write_csv,
}
