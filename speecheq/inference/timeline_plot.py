"""A picture of the predictions along a recording: its waveform, a band of classes, and the EIS, for each channel."""

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from speecheq.common.files import whole_file
from speecheq.common.log import log
from speecheq.inference.html_pages import render
from speecheq.inference.prediction import UNSURE, Prediction, WholeRecording
from speecheq.inference.recordings import Segment, iter_blocks
from speecheq.reporting.figure_style import BLACK, BLUE, COLOURS, GREY, SKY, STYLE, printable

MARK = "speecheq predict"  # stands in each picture, so that the next may replace it
_style_lock = RLock()  # matplotlib has one style for all threads
# The waveform and the EIS are drawn in so many columns at most.
COLUMNS = 1500
EIS_COLUMNS = 80
# Inches: up to the first length, in seconds, a picture is NARROW, from the second on WIDE.
NARROW, WIDE, SHORT, LONG = 9.0, 16.0, 60.0, 3600.0
# The shortest bar of the band, as a part of its width: what is shorter would not be seen at an hour.
SHORTEST_BAR = 1 / 800
HIGHEST_EIS = 4.0
# Seconds between the ticks of time, of which there are MOST_TICKS at most.
TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
MOST_TICKS = 14


class Envelope(NamedTuple):
    """The peaks and the RMS (C,) of the samples in equal steps of ``step`` seconds, of a recording of ``seconds``."""

    peaks: np.ndarray
    rms: np.ndarray
    step: float
    seconds: float


def envelope_of(segment: Segment) -> Envelope:
    """The envelope of a recording, or of one channel, read a block at a time. Raises InputError as reading does."""
    header, blocks = iter_blocks(segment)
    step = max(1, -(-header.frames // COLUMNS))
    peaks, squares, rest = [], [], np.zeros(0, np.float32)
    for block in blocks:
        samples = np.concatenate(
            (rest, block[:, np.abs(block).max(axis=0).argmax()] if segment.channel is None else block[:, 0])
        )
        whole = len(samples) // step * step
        rows = samples[:whole].reshape(-1, step)
        peaks.append(np.abs(rows).max(axis=1))
        squares.append((rows.astype(np.float64) ** 2).mean(axis=1))
        rest = samples[whole:]
    if len(rest):
        peaks.append(np.abs(rest).max(keepdims=True))
        squares.append((rest.astype(np.float64) ** 2).mean(keepdims=True))
    return Envelope(
        np.concatenate(peaks), np.concatenate(squares) ** 0.5, step / header.rate, header.frames / header.rate
    )


def clock(seconds: float, _place: object = None) -> str:
    """Seconds as minutes:seconds, from an hour on with hours.

    >>> clock(75), clock(3675.0)
    ('1:15', '1:01:15')
    """
    whole = round(seconds)
    minutes = f"{whole // 60 % 60}:{whole % 60:02d}"
    return minutes if whole < 3600 else f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _draw_waveform(axes: Axes, envelope: Envelope, title: str) -> None:
    times = (np.arange(len(envelope.peaks)) + 0.5) * envelope.step
    loudest = max(float(envelope.peaks.max()), 1e-9)
    for values, colour in ((envelope.peaks, SKY), (envelope.rms, BLUE)):
        axes.fill_between(times, -values / loudest, values / loudest, color=colour, linewidth=0)
    axes.set_ylim(-1.05, 1.05)
    axes.set_yticks([])
    axes.set_ylabel("waveform")
    axes.set_title(title, loc="left")


def _draw_classes(axes: Axes, predictions: Sequence[Prediction], classes: Sequence[str], seconds: float) -> None:
    """A row for each class that occurs, with a bar where a segment has it."""
    shown = [name for name in (*classes, UNSURE) if any(one.emotion == name for one in predictions)]
    without = [one for one in predictions if one.emotion is None]
    rows = [*shown, *(["no class"] if without else [])]
    shortest = seconds * SHORTEST_BAR
    for row, name in enumerate(rows):
        own = [one for one in predictions if (one.emotion or "no class") == name]
        bars = [(one.start, max(one.end - one.start, shortest)) for one in own]
        colour = COLOURS[list(classes).index(name) % len(COLOURS)] if name in classes else GREY
        axes.broken_barh(bars, (row - 0.4, 0.8), facecolor=colour, edgecolor="none")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x", color=GREY, alpha=0.35, linewidth=0.5)
    axes.set_axisbelow(True)


def eis_curve(predictions: Sequence[Prediction], seconds: float) -> tuple[np.ndarray, ...]:
    """The time, and lowest, mean and highest EIS (C,) of the segments in each column that has some.

    A column is an EIS_COLUMNS-th of the recording: the mean course and its range, where there are too many segments to
    draw each.
    """
    known = [(one.start, one.end, one.eis) for one in predictions if one.eis is not None]
    if not known:
        return tuple(np.zeros((4, 0)))
    step = max(seconds / EIS_COLUMNS, 0.05)
    columns: dict[int, list[tuple[float, float]]] = {}
    for start, end, eis in known:
        for column in range(int(start / step), max(int(start / step), int((end - 1e-9) / step)) + 1):
            inside = min(end, (column + 1) * step) - max(start, column * step)
            columns.setdefault(column, []).append((max(inside, 1e-9), eis))
    places = sorted(columns)
    values = [
        (
            min(eis for _, eis in own),
            sum(w * eis for w, eis in own) / sum(w for w, _ in own),
            max(eis for _, eis in own),
        )
        for own in (columns[place] for place in places)
    ]
    return (np.array([(place + 0.5) * step for place in places]), *np.array(values).T)


def _draw_eis(axes: Axes, predictions: Sequence[Prediction], seconds: float) -> None:
    known = [(one.eis, one.start, one.end) for one in predictions if one.eis is not None]
    if 0 < len(known) <= EIS_COLUMNS:
        axes.hlines(*zip(*known), color=BLACK, linewidth=1.6)
    else:
        _draw_eis_curve(axes, predictions, seconds)
    axes.set_ylim(-0.1, HIGHEST_EIS + 0.1)
    axes.set_yticks(range(5))
    axes.set_ylabel("EIS")
    axes.grid(color=GREY, alpha=0.35, linewidth=0.5)


def _draw_eis_curve(axes: Axes, predictions: Sequence[Prediction], seconds: float) -> None:
    times, low, mean, high = eis_curve(predictions, seconds)
    step = max(seconds / EIS_COLUMNS, 0.05)
    for run in np.split(np.arange(len(times)), np.flatnonzero(np.diff(times) > 4.5 * step) + 1):  # pauses are gaps
        if len(run):
            # half a column to both sides, so that a single column is seen too
            x = np.concatenate(([times[run[0]] - step / 2], times[run], [times[run[-1]] + step / 2]))
            ends = np.concatenate(([run[0]], run, [run[-1]]))
            axes.fill_between(x, low[ends], high[ends], color=SKY, alpha=0.5, linewidth=0)
            axes.plot(x, mean[ends], color=BLACK, linewidth=1.2)


def _title(source: str, channel: int | None, wholes: Iterable[WholeRecording]) -> str:
    """The name, the channel, and what the recording is as a whole."""
    name = printable(source.rsplit("/", 1)[-1], 48) + ("" if channel is None else f", channel {channel}")
    own = [one for one in wholes if one.channel == channel and one.emotion is not None]
    if len(own) != 1 or own[0].posterior is None:
        return name
    (one,) = own
    eis = "" if one.eis is None else f", EIS {one.eis:.2f} ± {one.eis_deviation:.2f}"
    return f"{name}: {one.name or one.emotion}{eis} as a whole"


def draw(
    predictions: Sequence[Prediction],
    wholes: Sequence[WholeRecording],
    envelopes: Mapping[int | None, Envelope],
    classes: Sequence[str],
) -> Figure:
    """The figure of one recording, with three panels for each channel of ``envelopes``."""
    seconds = max(envelope.seconds for envelope in envelopes.values())
    has_eis = any(one.eis is not None for one in predictions)
    heights: list[float] = []
    for channel in envelopes:
        rows = len({one.emotion for one in predictions if one.channel == channel})
        heights += [0.8, 0.25 + 0.22 * max(rows, 1), *([1.1] if has_eis else [])]
    share = min(1.0, max(0.0, (seconds - SHORT) / (LONG - SHORT)))
    width = NARROW + (WIDE - NARROW) * share**0.5
    figure = Figure(figsize=(width, 0.8 + sum(heights) + 0.12 * len(heights)))
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    per_channel = 3 if has_eis else 2
    for place, (channel, envelope) in enumerate(envelopes.items()):
        own = [one for one in predictions if one.channel == channel]
        waveform, band, *curve = panels[per_channel * place : per_channel * (place + 1)]
        _draw_waveform(waveform, envelope, _title(predictions[0].source if predictions else "", channel, wholes))
        _draw_classes(band, own, classes, seconds)
        if curve:
            _draw_eis(curve[0], own, seconds)
    panels[-1].set_xlim(0, seconds)
    panels[-1].set_xlabel("time (minutes:seconds)" if seconds < 3600 else "time (hours:minutes:seconds)")
    step = next((step for step in TICKS if seconds <= MOST_TICKS * step), TICKS[-1])
    panels[-1].xaxis.set_major_locator(MultipleLocator(step))
    panels[-1].xaxis.set_major_formatter(FuncFormatter(clock))
    figure.align_ylabels(panels)
    return figure


@contextmanager
def in_style() -> Iterator[None]:
    """The style of all figures, in which pictures are drawn and written."""
    with _style_lock, style.context(["default", STYLE]):
        yield


def draw_recording(
    recording: Segment, predictions: Sequence[Prediction], wholes: Sequence[WholeRecording], classes: Sequence[str]
) -> Figure:
    """The figure of one recording, which is read again for its waveforms; raises InputError as reading does."""
    channels = sorted({one.channel for one in predictions}, key=lambda channel: channel or 0)
    envelopes = {channel: envelope_of(recording._replace(channel=channel)) for channel in channels}
    with in_style():
        return draw(predictions, wholes, envelopes, classes)


def as_svg(figure: Figure, title: str = MARK) -> str:
    """A figure as an <svg> element, which is the same for the same figure."""
    content = io.StringIO()
    figure.savefig(
        content, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None, "Title": title}
    )
    text = content.getvalue()
    return text[text.index("<svg") :]


def html(template: str, figure: Figure, predictions: Sequence[Prediction], wholes: Sequence[WholeRecording]) -> str:
    """The figure, the answers for the whole recording, and a row for each segment, as a page or a part of one."""
    with in_style():
        picture = base64.b64encode(as_svg(figure).encode()).decode()
    source = predictions[0].source if predictions else "recording"
    return render(
        template,
        title=printable(source.rsplit("/", 1)[-1], 80),
        picture=picture,
        wholes=wholes,
        predictions=predictions,
        with_source=False,
    )


def plot(path: Path, figure: Figure, predictions: Sequence[Prediction], wholes: Sequence[WholeRecording]) -> None:
    """Write the picture of one recording to an .svg, .png or .html."""
    with whole_file(path) as temporary, in_style():
        if path.suffix.lower() == ".png":
            figure.savefig(temporary, format="png", dpi=130, metadata={"Software": MARK})
        elif path.suffix.lower() == ".svg":
            temporary.write_text(as_svg(figure), encoding="utf-8")
        else:
            temporary.write_text(html("timeline.html.j2", figure, predictions, wholes), encoding="utf-8")
    log.info("the picture is in %s", path)
