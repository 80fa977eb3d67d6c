"""Predictions of several recordings and along one, as frames, files and pictures, and as notebooks show them."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speecheq.common.errors import InputError, optional_package
from speecheq.common.files import whole_text
from speecheq.inference.html_pages import render
from speecheq.inference.label_formats import LABEL_WRITERS
from speecheq.inference.output_file import check_output, check_picture
from speecheq.inference.prediction import LABELS, ROWS, Prediction, WholeRecording
from speecheq.inference.recordings import Segment, seconds_of
from speecheq.inference.row_formats import ROW_WRITERS, Table

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


class Predictions(list[Prediction]):
    """A list of predictions, which a notebook shows as a table."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """The predictions as numbers, texts, lists and dicts, as JSON has them."""
        return [one.to_dict() for one in self]

    def to_frame(self) -> "pandas.DataFrame":
        """A row for each prediction; posteriors are columns ``p_<class>``, columns of a file of segments follow.

        Raises InputError where pandas is not installed.
        """
        with optional_package("pandas", "a frame"):
            import pandas
        rows = []
        for one in self:
            row = one.to_dict()
            posterior, columns = row.pop("posterior"), row.pop("columns")
            del row["gender_posterior"], row["windowed"]
            row.update({f"p_{name}": value for name, value in (posterior or {}).items()})
            rows.append({**columns, **row})
        frame = pandas.DataFrame(rows)
        kept = {name for one in self for name in one.columns} - set(Prediction.__dataclass_fields__)
        return frame[[*(name for name in frame if name not in kept), *(name for name in frame if name in kept)]]

    def _repr_html_(self) -> str:
        several = len({one.source for one in self}) > 1
        return render("segments.html.j2", predictions=self, with_source=several)


@dataclass
class Timeline:
    """The predictions for the segments of a recording, and for all of it, for each channel and speaker.

    ``classes`` are those of the model; ``recording`` is what the picture reads again. A notebook shows the picture, the
    answers for all of the recording, and the table of segments.
    """

    source: str
    segments: Predictions
    whole: list[WholeRecording]
    classes: tuple[str, ...] = field(repr=False)
    recording: Segment = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The timeline as numbers, texts, lists and dicts, as JSON has it."""
        return {
            "source": self.source,
            "segments": self.segments.to_dicts(),
            "whole": [asdict(one) for one in self.whole],
        }

    def to_frame(self) -> "pandas.DataFrame":
        """A row for each segment: see ``Predictions``."""
        return self.segments.to_frame()

    def write(self, path: str | Path, format: str) -> None:
        """Write a file in a format of ``speecheq predict``; text, json and csv have the whole recording too.

        Raises InputError for another format, and where ``path`` may not be written (see ``check_output``).
        """
        if format not in ROWS + LABELS:
            raise InputError(f"there is no format {format!r}; choose one of {', '.join(ROWS + LABELS)}.")
        with whole_text(check_output(Path(path), [self.recording], "the output")) as stream:
            if format in LABELS:
                LABEL_WRITERS[format](self.segments, seconds_of(self.recording), stream)
            else:
                table = Table.of(self.classes, map(_segment_of, self.segments), whole=True)
                ROW_WRITERS[format]([*self.segments, *self.whole], table, stream)

    def figure(self) -> "Figure":
        """The picture of waveform, classes and EIS; raises InputError where the recording cannot be read again."""
        from speecheq.inference.timeline_plot import draw_recording

        return draw_recording(self.recording, self.segments, self.whole, self.classes)

    def plot(self, path: str | Path) -> None:
        """Write the picture as .svg, .png or .html, with a table; raises InputError as ``figure`` and ``write`` do."""
        from speecheq.inference.timeline_plot import plot

        check_picture(Path(path))
        target = check_output(Path(path), [self.recording], "the picture")
        plot(target, self.figure(), self.segments, self.whole)

    def _repr_html_(self) -> str:
        from speecheq.inference.timeline_plot import html

        return html("timeline_body.html.j2", self.figure(), self.segments, self.whole)


def _segment_of(prediction: Prediction) -> Segment:
    """What was predicted, with all that a table's columns depend on."""
    return Segment(
        prediction.source,
        Path(prediction.source),
        channel=prediction.channel,
        speaker=prediction.speaker or "",
        columns=tuple(prediction.columns.items()),
    )
