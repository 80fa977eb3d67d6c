"""The page of ``speecheq align``: words, phones and EIS along each recording, and how long each phone is."""

import base64
import warnings
from bisect import bisect
from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from speecheq.inference.alignment import EIS_WINDOW, Alignment, durations_of
from speecheq.inference.html_pages import render
from speecheq.inference.timeline_plot import HIGHEST_EIS, as_svg, in_style
from speecheq.reporting.figure_style import BLACK, GREY, SKY, printable

# A line of a picture is so long, so that the shortest phones have room for their names. All have the same scale.
LINE_SECONDS = 5.0
# Recordings are drawn in the order of their names up to this sum: a second takes about 15 kB of the page.
MOST_SECONDS = 300.0
WIDTH, LINE_HEIGHT, WITHOUT_EIS = 13.0, 1.9, 1.1  # inches
# Below the EIS of 0 to HIGHEST_EIS: the lower edges of the bands of words and phones, and their height.
WORDS, PHONES, BAND = -2.0, -4.2, 1.8


def draw(alignment: Alignment, intensities: Sequence[float | None]) -> Figure:
    """The picture of a recording, in lines of LINE_SECONDS; ``intensities``: the EIS at the middle of each phone."""
    has_eis = None not in intensities
    lines = max(1, -int(-alignment.seconds // LINE_SECONDS))
    height = LINE_HEIGHT if has_eis else WITHOUT_EIS
    with rc_context({"figure.constrained_layout.use": False}):
        figure = Figure(figsize=(WIDTH, height * lines))
    panels = figure.subplots(lines, 1, squeeze=False)[:, 0]
    edges = 0.3 / (height * lines)
    figure.subplots_adjust(left=0.05, right=0.985, top=1 - edges / 3, bottom=edges, hspace=0.25)
    words = [(start, end, text, True) for text, start, end in alignment.word_spans()]
    phones = [(phone.start, phone.end, phone.phone, phone.word is not None) for phone in alignment.phones]
    middles = [(phone.start + phone.end) / 2 for phone in alignment.phones]
    for number, axes in enumerate(panels):
        begin = number * LINE_SECONDS
        for spans, bottom, rotation in ((words, WORDS, 0), (phones, PHONES, 90)):
            _draw_band(axes, spans, bottom, rotation, begin)
        if has_eis:
            near = slice(max(0, bisect(middles, begin) - 1), bisect(middles, begin + LINE_SECONDS) + 1)
            axes.plot(middles[near], intensities[near], color=BLACK, linewidth=1.2, marker=".", markersize=3)
        axes.set_ylim(PHONES - 0.1, HIGHEST_EIS + 0.1 if has_eis else 0)
        axes.set_yticks([PHONES + BAND / 2, WORDS + BAND / 2, *(range(5) if has_eis else ())])
        axes.set_yticklabels(["phones", "words", *(("EIS 0", "1", "2", "3", "4") if has_eis else ())])
        axes.set_xlim(begin, begin + LINE_SECONDS)
        axes.xaxis.set_major_formatter("{x:g} s")
        axes.grid(color=GREY, alpha=0.35, linewidth=0.5)
        axes.set_axisbelow(True)
    return figure


def _draw_band(
    axes: Axes, spans: Sequence[tuple[float, float, str, bool]], bottom: float, rotation: float, begin: float
) -> None:
    """Bars with their names, of those spans (start, end, name, whether it is spoken) that are in the line."""
    end = begin + LINE_SECONDS
    for first, last, name, is_spoken in spans:
        first, last = max(first, begin), min(last, end)
        if first >= last:
            continue
        colour = SKY if is_spoken else "white"
        axes.broken_barh(
            [(first, last - first)], (bottom, BAND), facecolor=colour, edgecolor=BLACK, linewidth=0.4, alpha=0.6
        )
        axes.text(
            (first + last) / 2,
            bottom + BAND / 2,
            printable(name),
            ha="center",
            va="center",
            rotation=rotation,
            fontsize=7,
            clip_on=True,
        )


def _draw_all(found: Mapping[str, tuple[Alignment, list[float | None]]]) -> list[tuple[str, str]]:
    """The name and the picture, as SVG in base64, of the first recordings; one at least."""
    drawn: list[tuple[str, str]] = []
    seconds = 0.0
    with in_style(), warnings.catch_warnings():
        # matplotlib measures text with a font of its own; whoever looks at the page has one with Chinese characters
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        for name, (alignment, intensities) in sorted(found.items()):
            seconds += alignment.seconds
            if drawn and seconds > MOST_SECONDS:
                break
            svg = as_svg(draw(alignment, intensities), "speecheq align")
            drawn.append((printable(name, 80), base64.b64encode(svg.encode()).decode()))
    return drawn


def as_page(found: Mapping[str, tuple[Alignment, list[float | None]]], failures: Sequence[str]) -> str:
    """The page of recordings by name, at least one, with the EIS at the middle of each phone.

    ``failures``: why other recordings could not be aligned, a sentence each.
    """
    alignments = [alignment for alignment, _ in found.values()]
    durations = durations_of(alignments)
    return render(
        "alignment.html.j2",
        title="Alignment",
        recordings=len(found),
        seconds=sum(alignment.seconds for alignment in alignments),
        drawn=_draw_all(found),
        most_seconds=MOST_SECONDS,
        has_eis=any(None not in intensities for _, intensities in found.values()),
        eis_window=EIS_WINDOW,
        failures=failures,
        durations=durations,
        longest_mean=max(one.mean for one in durations),
    )
