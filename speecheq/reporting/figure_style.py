"""The look of all figures: colours, markers, fonts, axes in percent, and grids of panels.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart. No meaning rests on colour alone: lines
have styles, points have markers, bars have words.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

# Text stays text in SVG: small files, which can be searched and read aloud. The layout is for DejaVu Sans, which is
# wider than fonts that may replace it.
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "speecheq",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,
    "figure.constrained_layout.use": True,
}
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, YELLOW, GREY = "#E69F00", "#56B4E9", "#000000", "#F0E442", "#999999"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW, GREY)
LINE_COLOURS = COLOURS[:7]  # dark enough for a line
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "h")
LINES = ("-", "--", ":", "-.")
# From white to a blue on which black is legible (contrast 5.9), in steps of equal lightness. The uniform colour maps of
# matplotlib begin with a bright yellow, which draws the eye to the smallest values.
SHARES = LinearSegmentedColormap.from_list("shares", ["#FFFFFF", "#3C8DCB"], N=25)
TEXT_BOX = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # behind text that a line may cross
BAR_EDGE: dict[str, Any] = {"edgecolor": BLACK, "linewidth": 0.5}
MARKER_EDGE: dict[str, Any] = {"markeredgecolor": BLACK, "markeredgewidth": 0.4}
WIDTH = 7.0  # inches


def printable(text: str, most: int = 24) -> str:
    """A name as a label: characters that XML cannot hold become "?", a name longer than ``most`` loses its middle."""
    text = "".join(sign if sign.isprintable() else "?" for sign in text)
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"


def show_percent(axis: Axis) -> None:
    """Label an axis of shares (0 to 1) in percent."""
    axis.set_ticks(np.linspace(0, 1, 6), labels=["0", "20", "40", "60", "80", "100"])


def finish_grid(panels: Sequence[Axes], used: int, columns: int) -> list[Axes]:
    """Hide the panels after the ``used`` first ones. Returns the lowest of each column, with labels at their ticks."""
    for axes in panels[used:]:
        axes.set_visible(False)
    lowest = list(panels[max(0, used - columns) : used])
    for axes in lowest:
        axes.tick_params(labelbottom=True)
    return lowest


def add_legend(
    figure: Figure,
    panels: Sequence[Axes],
    location: Literal["outside lower center", "outside upper center"],
    columns: int,
) -> None:
    """One legend for all panels, outside of them; a label that several of them have is listed once."""
    handles = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels())}
    columns = min(columns, len(handles))
    figure.legend(list(handles.values()), list(handles), loc=location, ncols=columns, handlelength=3)
