"""The figures as matplotlib draws them, from arrays and predictions; they know no files."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from math import ceil
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from speecheq import seqm
from speecheq.evaluation import metrics
from speecheq.evaluation.predictions import ClipPrediction
from speecheq.evaluation.robustness.conditions import ConditionResult, Setting
from speecheq.reporting import figure_data
from speecheq.reporting import figure_style as look
from speecheq.reporting.figure_data import Curve, SpeakerScore
from speecheq.reporting.probe_results import LayerScore

INTENSITY_COLOURS = dict(zip(figure_data.INTENSITIES, (look.GREEN, look.SKY, look.ORANGE, look.VERMILION, look.GREY)))
LOSSES = {
    "total": "total loss",
    "esc": "ESC (focal)",
    "eis": "EIS (1 - CCC)",
    "gender": "gender (focal)",
    "phoneme": "phonemes (CTC)",
}
DEV_SCORES = {"wa": "dev WA %", "ua": "dev UA %", "eis_ccc": "dev EIS CCC", "per": "dev PER %"}
# name of a curve -> title of its panel
CURVES = {
    **{f"train/{key}": title for key, title in LOSSES.items()},
    **{f"dev/{key}": title for key, title in DEV_SCORES.items()},
}
MOST_LINES = 8  # more lines cannot be distinguished and all look the same


def _draw_eis(axes: Axes, level: str, clips: Sequence[ClipPrediction]) -> None:
    """The panel of one gold level: shares of the predicted EIS, and their mean."""
    axes.set_xlim(figure_data.EIS_BINS[0], figure_data.EIS_BINS[-1])
    note = "no clip"
    if clips:
        axes.bar(
            figure_data.EIS_BINS[:-1],
            figure_data.eis_shares(clips),
            np.diff(figure_data.EIS_BINS),
            align="edge",
            color=INTENSITY_COLOURS[level],
            **look.BAR_EDGE,
        )
        note = f"n = {len(clips):,}, mean {np.mean([clip.predicted_eis for clip in clips]):.2f}"
        if level != figure_data.UNSPECIFIED:
            gold = float(np.mean([clip.gold_eis for clip in clips]))
            axes.axvline(gold, color=look.BLACK, linestyle="--", linewidth=1)
            note += f" (gold {gold:.2f})"
    axes.text(0.98, 0.97, note, transform=axes.transAxes, ha="right", va="top", fontsize=7, bbox=look.TEXT_BOX)


def eis_figure(parts: Mapping[str, Sequence[ClipPrediction]], classes: seqm.ClassTable) -> Figure:
    """Distributions of the predicted EIS: a column for each part (training, test), a row for each gold level."""
    groups = {part: figure_data.group_by_intensity(clips, classes) for part, clips in parts.items()}
    levels = [level for level in figure_data.INTENSITIES if any(level in found for found in groups.values())]
    figure = Figure(figsize=(look.WIDTH if len(parts) > 1 else 0.6 * look.WIDTH, 0.75 + 1.0 * len(levels)))
    grid = figure.subplots(len(levels), len(parts), sharex=True, sharey=True, squeeze=False)
    for column, (part, found) in zip(grid.T, groups.items()):
        column[0].set_title(f"{part} clips")
        column[-1].set_xlabel("predicted EIS")
        for axes, level in zip(column, levels):
            _draw_eis(axes, level, found.get(level, []))
    for axes, level in zip(grid[:, 0], levels):
        axes.set_ylabel(f"{level}\n% of clips")
    highest = max(figure_data.eis_shares(clips).max() for found in groups.values() for clips in found.values())
    grid[0, 0].set_ylim(0, 1.35 * highest)  # room for the notes
    grid[0, 0].yaxis.set_major_locator(MaxNLocator(3))
    grid[0, 0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    return figure


def confusion_figure(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Counts (K, K) with a row for each gold class that occurs: percent of the row, counts in small print below."""
    rows = np.flatnonzero(counts.sum(1))
    shares = counts[rows] / counts[rows].sum(1, keepdims=True)
    labels = [look.printable(name, 16) for name in names]
    figure = Figure(figsize=(0.62 * len(names) + 1.9, 0.5 * len(rows) + 1.3))
    axes = figure.subplots()
    mesh = axes.pcolormesh(shares, cmap=look.SHARES, vmin=0, vmax=1, edgecolors="#BBBBBB", linewidth=0.5)
    for row, column in np.argwhere(shares > 0):
        x, y, share = column + 0.5, row + 0.5, shares[row, column]
        axes.text(x, y - 0.12, f"{100 * share:.0f}" if share >= 0.005 else "<1", ha="center", va="center")
        axes.text(x, y + 0.25, f"{counts[rows[row], column]:,}", ha="center", va="center", fontsize=6)
    axes.set_xticks(np.arange(len(names)) + 0.5, labels, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(len(rows)) + 0.5, [labels[row] for row in rows])
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    bar = figure.colorbar(mesh, ax=axes, label="% of the true class", fraction=0.04, pad=0.02)
    look.show_percent(bar.ax.yaxis)
    bar.outline.set_linewidth(0.5)
    return figure


class _LineStyle(NamedTuple):
    colour: str
    line: str
    width: float
    star: str


def _draw_curve(axes: Axes, curve: Curve, scale: float, label: str, style: _LineStyle, checkpoint: int | None) -> None:
    """One curve, with a star at the step of the checkpoint."""
    steps, values = np.array(curve, dtype=float).T
    axes.plot(steps, scale * values, color=style.colour, linestyle=style.line, linewidth=style.width, label=label)
    chosen = steps == checkpoint
    if chosen.any():
        axes.plot(
            steps[chosen],
            scale * values[chosen],
            marker="*",
            markersize=9,
            linestyle="none",
            color=style.star,
            markeredgecolor=look.BLACK,
            markeredgewidth=0.5,
        )


def curves_figure(runs: Mapping[str, Mapping[str, Curve]], checkpoints: Mapping[str, int | None]) -> Figure:
    """Training losses and dev scores, a panel for each.

    ``runs``: name of a fold and seed -> its curves. ``checkpoints``: name -> step of the checkpoint, if known.
    """
    panels = {name: title for name, title in CURVES.items() if any(curves.get(name) for curves in runs.values())}
    columns, rows = 3, ceil(len(panels) / 3)
    styles = [
        _LineStyle(colour, line, 1.2, colour)
        for _, colour, line in zip(runs, cycle(look.LINE_COLOURS), cycle(look.LINES))
    ]
    has_legend = len(runs) <= MOST_LINES
    if not has_legend:
        styles = [_LineStyle(look.BLUE, "-", 0.7, look.VERMILION)] * len(runs)
    legend_height = 0.16 * ceil(len(runs) / 4) if has_legend else 0
    figure = Figure(figsize=(look.WIDTH, 1.75 * rows + 0.5 + legend_height))
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel().tolist()
    for axes, (name, title) in zip(grid, panels.items()):
        is_loss, scale = name.startswith("train/"), 100 if title.endswith("%") else 1
        for (run, curves), line_style in zip(runs.items(), styles):
            curve = curves.get(name, [])
            curve = figure_data.window_means(curve) if is_loss else curve
            if curve:
                _draw_curve(axes, curve, scale, run, line_style, None if is_loss else checkpoints[run])
        axes.set_title(title)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for axes in look.finish_grid(grid, len(panels), columns):
        axes.set_xlabel("step")
    if has_legend:
        look.add_legend(figure, grid[: len(panels)], "outside lower center", 4)
    return figure


def map_figure(places: np.ndarray, gold: Sequence[int], names: Sequence[str]) -> Figure:
    """Clips at ``places`` (clips, 2); each gold class (a number) has a colour and a marker."""
    figure = Figure(figsize=(look.WIDTH, 4.6))
    axes = figure.subplots()
    for number, name in enumerate(names):
        members = np.asarray(gold) == number
        if members.any():
            axes.scatter(
                places[members, 0],
                places[members, 1],
                s=26 if len(gold) <= 500 else 12,
                label=f"{look.printable(name, 16)} ({members.sum():,})",
                marker=look.MARKERS[number % len(look.MARKERS)],
                color=look.COLOURS[number % len(look.COLOURS)],
                edgecolor=look.BLACK,
                linewidth=0.4,
            )
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.spines[["top", "right"]].set_visible(True)
    axes.legend(title="true class (clips)", loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def calibration_figure(bins: metrics.Calibration, error: float) -> Figure:
    """The accuracy in each bin of posteriors against the diagonal, and the number of predictions in each bin."""
    edges = np.linspace(0, 1, len(bins.clips) + 1)
    middles, full = (edges[:-1] + edges[1:]) / 2, bins.clips > 0
    figure = Figure(figsize=(0.7 * look.WIDTH, 4.9))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.bar(middles, bins.accuracy, edges[1], color=look.SKY, **look.BAR_EDGE, label="accuracy")
    upper.plot([0, 1], [0, 1], color=look.BLACK, linestyle="--", linewidth=1, label="perfect calibration")
    upper.plot(
        bins.confidence[full],
        bins.accuracy[full],
        color=look.VERMILION,
        marker="D",
        markersize=4,
        linestyle="none",
        **look.MARKER_EDGE,
        clip_on=False,
        zorder=3,
        label="mean posterior",
    )
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy %")
    look.show_percent(upper.yaxis)
    figure.legend(loc="outside upper center", ncols=3, title=f"ECE {100 * error:.2f} %", columnspacing=1)
    lower.bar(middles, bins.clips, edges[1], color=look.GREY, **look.BAR_EDGE)
    for x, number in zip(middles[full], bins.clips[full]):
        lower.annotate(
            f"{number}", (x, number), (0, 1), textcoords="offset points", ha="center", va="bottom", fontsize=6
        )
    lower.set(xlabel="posterior of the predicted class, %", ylabel="predictions", ylim=(0, 1.25 * bins.clips.max()))
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    look.show_percent(lower.xaxis)
    return figure


def coverage_figure(curve: metrics.Coverage, fewest: int) -> Figure:
    """Accuracy over coverage, from ``fewest`` answers on, and the accuracy of all predictions as a line."""
    figure = Figure(figsize=(0.7 * look.WIDTH, 3.2))
    axes, start = figure.subplots(), min(fewest, len(curve.share)) - 1
    axes.plot(
        curve.share[start:], curve.accuracy[start:], color=look.SKY, linewidth=1.6, label="accuracy of the answers"
    )
    everything = float(curve.accuracy[-1])
    label = f"all answered: {100 * everything:.1f} %"
    axes.axhline(everything, color=look.BLACK, linestyle="--", linewidth=1, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="coverage: answered predictions, %", ylabel="accuracy %")
    look.show_percent(axes.xaxis)
    look.show_percent(axes.yaxis)
    look.add_legend(figure, [axes], "outside upper center", 2)
    return figure


def speakers_figure(scores: Sequence[SpeakerScore], pooled: float) -> Figure:
    """A bar for each speaker, the best on top, and the UA of all together as a line."""
    figure = Figure(figsize=(look.WIDTH, 0.9 + 0.22 * max(4, len(scores))))
    axes = figure.subplots()
    axes.barh(np.arange(len(scores)), [score.ua for score in scores], color=look.SKY, **look.BAR_EDGE)
    axes.axvline(pooled, color=look.VERMILION, linestyle="--", linewidth=1.2, label=f"pooled UA {100 * pooled:.1f} %")
    for place, score in enumerate(scores):
        axes.text(1.01, place, f"{100 * score.ua:.1f} %, {score.clips:,} clips", va="center", fontsize=7)
    axes.set_yticks(np.arange(len(scores)), [look.printable(score.speaker) for score in scores], fontsize=8)
    axes.set(xlim=(0, 1), ylim=(-0.6, len(scores) - 0.4), xlabel="UA % over the classes that the speaker has")
    look.show_percent(axes.xaxis)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def layers_figure(scores: Sequence[LayerScore]) -> Figure:
    """UA by layer on held-out and on test clips, with the standard deviation over folds as bars."""
    figure = Figure(figsize=(0.7 * look.WIDTH, 3.2))
    axes, places = figure.subplots(), np.arange(len(scores))
    curves = {"held-out clips of the training folds": "dev", "test clips": "test"}
    for number, (label, part) in enumerate(curves.items()):
        ua, deviations = zip(*(getattr(score, part) for score in scores))
        axes.errorbar(
            places,
            ua,
            yerr=[deviation or 0.0 for deviation in deviations],
            color=look.LINE_COLOURS[number],
            linestyle=look.LINES[number],
            marker=look.MARKERS[number],
            elinewidth=0.8,
            label=label,
        )
    step = ceil(len(scores) / 13)  # labels that have room
    axes.set_xticks(places[::step], [score.layer for score in scores[::step]])
    axes.set(xlabel="layer", ylabel="UA %", ylim=(0, 1))
    look.show_percent(axes.yaxis)
    look.add_legend(figure, [axes], "outside upper center", 2)
    return figure


# ---- test conditions


def _draw_conditions(axes: Axes, label: str, results: Sequence[ConditionResult], style: tuple[str, str, str]) -> None:
    """UA over the levels of a setting with 95 % intervals; results without a level are horizontal lines."""
    colour, line, marker = style
    lines, points = figure_data.split_by_level(results)
    for result in lines:
        axes.axhline(
            result.metrics["ua"],
            color=colour,
            linestyle=line,
            linewidth=0.6 if points else 1.0,
            label="_" if points else label,
        )
    if not points:
        return
    axes.plot(
        [level for level, _ in points],
        [point.metrics["ua"] for _, point in points],
        color=colour,
        linestyle=line,
        linewidth=1.2,
        marker=marker,
        markersize=5,
        **look.MARKER_EDGE,
        label=label,
    )
    known = [(level, point.metrics) for level, point in points if point.metrics["low_ua"] is not None]
    low, high = ([values[f"{end}_ua"] for _, values in known] for end in ("low", "high"))
    axes.vlines([level for level, _ in known], low, high, color=colour, linewidth=0.8)


def conditions_figure(setting: Setting, panels: Mapping[str, Mapping[str, Sequence[ConditionResult]]]) -> Figure:
    """UA over the levels of a setting, with 95 % intervals as bars: a panel for each title, a line for each label.

    A label without any level is a horizontal line. Beside results with a level, those without are thin horizontal lines
    that are not in the legend. A label looks the same in all panels.
    """
    labels = {label: look.printable(label, 40) for lines in panels.values() for label in lines}
    looks = dict(zip(labels, zip(cycle(look.LINE_COLOURS), cycle(look.LINES), cycle(look.MARKERS))))
    columns = min(2, len(panels))
    width = (0.7, 1.0)[columns - 1] * look.WIDTH
    labels_in_a_row = max(1, min(len(labels), int(width / (0.075 * max(map(len, labels.values())) + 0.6))))
    rows, legend_rows = ceil(len(panels) / columns), ceil(len(labels) / labels_in_a_row)
    figure = Figure(figsize=(width, 0.8 + (2.9 if columns == 1 else 2.3) * rows + 0.17 * legend_rows))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    every_panel = grid.ravel().tolist()
    for axes, (title, lines) in zip(every_panel, panels.items()):
        for label, results in lines.items():
            _draw_conditions(axes, labels[label], results, looks[label])
        axes.set(xscale="log" if setting.logarithmic else "linear", ylim=(0, 1), title=title)
        look.show_percent(axes.yaxis)
    every = [result for lines in panels.values() for results in lines.values() for result in results]
    levels = sorted({level for level, _ in figure_data.split_by_level(every)[1]})
    every_panel[0].set_xticks(levels, [f"{level:g}" for level in levels])
    every_panel[0].minorticks_off()
    look.finish_grid(every_panel, len(panels), columns)
    for axes in grid[:, 0]:
        axes.set_ylabel("pooled UA %")
    figure.supxlabel(setting.axis, fontsize=9)
    look.add_legend(figure, every_panel, "outside upper center", labels_in_a_row)
    return figure
