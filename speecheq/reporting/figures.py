"""The pictures of an experiment, drawn from the files of its scored folds alone: Figure 3 of the paper; the others are
ours.

Colours are those of Okabe and Ito, which the colour-blind can tell apart, and never stand alone: lines have styles,
points have markers, bars have words.
"""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from speecheq import seqm
from speecheq.common.errors import InputError
from speecheq.common.files import whole_output_folder
from speecheq.common.log import log
from speecheq.config.layers import load
from speecheq.dataset.msud_recipe import TEST
from speecheq.evaluation import metrics, significance
from speecheq.evaluation.predictions import ClipPrediction
from speecheq.evaluation.robustness.conditions import CLEAN, ConditionResult, Setting, by_curve, by_setting
from speecheq.evaluation.score_files import EMBEDDINGS, TRAINING_CLIPS, TRAINING_SCORES, read_embeddings, read_scores
from speecheq.reporting.experiment import Experiment, ScoredFold
from speecheq.reporting.tables import capital, slug

# Text stays text: small, to be searched and read aloud. It is laid out for DejaVu Sans, wider than what may replace it.
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
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#F0E442",
)
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW, "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "h")
LINES = ("-", "--", ":", "-.")
# From white to a blue on which black can be read (contrast 5.9), in even steps: the lightness L* falls by 4 to 5 with
# each tenth. matplotlib's uniform maps begin in a bright yellow, which draws the eye to the cells that hold least. The
# bar of 50 colours and more would be pixels.
SHARES = LinearSegmentedColormap.from_list("shares", ["#FFFFFF", "#3C8DCB"], N=25)
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # behind words that a line may cross
WIDTH = 7.0  # inches

NEUTRAL, UNSPECIFIED = seqm.NEUTRAL, "unspecified"
INTENSITIES = dict(zip((NEUTRAL, *seqm.LEVELS, UNSPECIFIED), (GREEN, SKY, ORANGE, VERMILION, "#999999")))
EIS_BINS = np.linspace(seqm.EIS_MIN, seqm.EIS_MAX, 17)
# Curves of losses are means over so many windows, else each would hold a point a step.
LOSS_POINTS = 60
LOSSES = {
    "total": "total loss",
    "esc": "ESC (focal)",
    "eis": "EIS (1 - CCC)",
    "gender": "gender (focal)",
    "phoneme": "phonemes (CTC)",
}
DEV_SCORES = {"wa": "dev WA %", "ua": "dev UA %", "eis_ccc": "dev EIS CCC", "per": "dev PER %"}
MOST_LINES = 8  # above it lines cannot be told apart and are drawn alike
MOST_POINTS = 1000  # of the embedding map: t-SNE takes some seconds of them
FEWEST_POINTS = 8
MOST_SPEAKERS = 60
PERPLEXITY = 30


@dataclass(frozen=True)
class Picture:
    """``name`` is that of its files, without an ending, such as "confusion"; ``caption`` says what is seen, over which
    clips, folds and seeds; ``svg`` is the picture as a self-contained text, ``pdf`` the same for a paper."""

    name: str
    title: str
    caption: str
    svg: str = field(repr=False)
    pdf: bytes = field(repr=False)


class Drawing(NamedTuple):
    """A picture before it is written as SVG and PDF."""

    title: str
    caption: str
    figure: Figure


def printable(text: str, most: int = 24) -> str:
    """A name as a label: signs that XML cannot hold are replaced, the middle of a long one is left out."""
    text = "".join(sign if sign.isprintable() else "?" for sign in text)
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height))


def _percent(axes: Axes, of: str) -> None:
    """Shares from 0 to 1 on the axis ``of``, written in percent."""
    axis = axes.xaxis if of == "x" else axes.yaxis
    axis.set_ticks(np.linspace(0, 1, 6), ["0", "20", "40", "60", "80", "100"])


def _numbers(values: Sequence[int]) -> str:
    return f"{'s' * (len(set(values)) > 1)} {' '.join(map(str, sorted(set(values))))}"


def _over(folds: Sequence[ScoredFold]) -> str:
    """Which folds and seeds."""
    of = folds[0].run["folds"]
    return (
        f"fold{_numbers([fold.run['fold'] for fold in folds])} of {of}, "
        f"seed{_numbers([fold.run['seed'] for fold in folds])}"
    )


def _called(fold: ScoredFold) -> str:
    return f"fold {fold.run['fold']}, seed {fold.run['seed']}"


def _test_clips(experiment: Experiment) -> list[ClipPrediction]:
    """The target's test clips of all folds and seeds."""
    return [clip for fold in experiment.scored for clip in fold.sets[TEST]]


def _counted(clips: Sequence[ClipPrediction]) -> str:
    """How many clips and, where several seeds answer for one, how many answers."""
    own = len({clip.id for clip in clips})
    return f"{own:,} clips" + (f", {len(clips):,} answers" if len(clips) > own else "")


# ---- 1: Figure 3


def intensity_of(clip: ClipPrediction, classes: seqm.ClassTable) -> str:
    """The gold level of a clip: neutral, low, medium, high, or unspecified where it has no EIS."""
    if not seqm.is_specified(clip.gold_eis):
        return UNSPECIFIED
    if classes.categories[clip.gold_esc] == NEUTRAL:
        return NEUTRAL
    return seqm.level_from_eis(clip.gold_eis)


def by_intensity(clips: Sequence[ClipPrediction], classes: seqm.ClassTable) -> dict[str, list[ClipPrediction]]:
    """The clips by gold level, levels that occur only, in the order of INTENSITIES."""
    groups: dict[str, list[ClipPrediction]] = {name: [] for name in INTENSITIES}
    for clip in clips:
        groups[intensity_of(clip, classes)].append(clip)
    return {name: group for name, group in groups.items() if group}


def eis_shares(clips: Sequence[ClipPrediction]) -> np.ndarray:
    """The share of the clips whose predicted EIS lies in each of EIS_BINS; a border belongs to the higher bin."""
    counts, _ = np.histogram([clip.predicted_eis for clip in clips], EIS_BINS)
    return counts / len(clips)


def eis_figure(parts: Mapping[str, Sequence[ClipPrediction]], classes: seqm.ClassTable) -> Figure:
    """A column for each part (training, test), a row for each gold level."""
    groups = {part: by_intensity(clips, classes) for part, clips in parts.items()}
    rows = [name for name in INTENSITIES if any(name in found for found in groups.values())]
    figure = _figure(WIDTH if len(parts) > 1 else 0.6 * WIDTH, 0.75 + 1.0 * len(rows))
    grid = figure.subplots(len(rows), len(parts), sharex=True, sharey=True, squeeze=False)
    for column, (part, found) in zip(grid.T, groups.items()):
        column[0].set_title(f"{part} clips")
        column[-1].set_xlabel("predicted EIS")
        for axes, name in zip(column, rows):
            clips = found.get(name, [])
            axes.set_xlim(EIS_BINS[0], EIS_BINS[-1])
            note = "no clip"
            if clips:
                axes.bar(
                    EIS_BINS[:-1],
                    eis_shares(clips),
                    np.diff(EIS_BINS),
                    align="edge",
                    color=INTENSITIES[name],
                    edgecolor=BLACK,
                    linewidth=0.5,
                )
                note = f"n = {len(clips):,}, mean {np.mean([clip.predicted_eis for clip in clips]):.2f}"
                if name != UNSPECIFIED:
                    gold = float(np.mean([clip.gold_eis for clip in clips]))
                    axes.axvline(gold, color=BLACK, linestyle="--", linewidth=1)
                    note += f" (gold {gold:.2f})"
            axes.text(0.98, 0.97, note, transform=axes.transAxes, ha="right", va="top", fontsize=7, bbox=PAPER)
    for axes, name in zip(grid[:, 0], rows):
        axes.set_ylabel(f"{name}\n% of clips")
    highest = max(eis_shares(clips).max() for found in groups.values() for clips in found.values())
    grid[0, 0].set_ylim(0, 1.35 * highest)  # room for the notes
    grid[0, 0].yaxis.set_major_locator(MaxNLocator(3))
    grid[0, 0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    return figure


def _training_clips(fold: ScoredFold) -> list[ClipPrediction]:
    """Empty where stage 5 was not asked to score them."""
    path = fold.folder / TRAINING_SCORES
    return list(read_scores(path).get(TRAINING_CLIPS, ())) if path.is_file() else []


def _draw_eis(experiment: Experiment) -> Drawing:
    if load(experiment.scored[0].folder / "config.yaml").loss.alpha == 0:
        raise InputError("it was not trained on EIS")
    tested = _test_clips(experiment)
    of_folds, not_read = {}, []
    for fold in experiment.scored:
        try:
            of_folds[_called(fold)] = (fold, _training_clips(fold))
        except InputError as damaged:
            not_read.append(str(damaged))
    for reason in not_read:
        log.warning("the training clips of a fold are left out of the distributions of EIS: %s", reason)
    known = [fold for fold, clips in of_folds.values() if clips]
    trained = [clip for _, clips in of_folds.values() for clip in clips]
    parts = {**({"training": trained} if trained else {}), "test": tested}
    target, classes = experiment.run["target"], experiment.classes
    caption = (
        f"Predicted EIS of the clips of {target} by their gold level, n answers each; dashed: the mean gold EIS "
        "of the level. "
        f"Test clips: {_counted(tested)}, {_over(experiment.scored)}. "
    )
    caption += (
        f"Training clips (with the model that learned from them): {_counted(trained)}, {_over(known)}."
        if trained
        else "Training clips were not scored (run.sh --score-train true does)."
    )
    without = {part: len(by_intensity(clips, classes).get(UNSPECIFIED, ())) for part, clips in parts.items()}
    if any(without.values()):
        caption += (
            " Without a gold level (unspecified): "
            + ", ".join(
                f"{number:,} of {len(parts[part]):,} answers to {part} clips" for part, number in without.items()
            )
            + "."
        )
    return Drawing("Distributions of the predicted EIS (Figure 3)", caption, eis_figure(parts, classes))


# ---- 2: the confusion matrix


def confusion_figure(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Counts (K, K), a row a gold class: rows of classes that occur, shares in percent, counts below in small print."""
    rows = np.flatnonzero(counts.sum(1))
    shares = counts[rows] / counts[rows].sum(1, keepdims=True)
    labels = [printable(name, 16) for name in names]
    figure = _figure(0.62 * len(names) + 1.9, 0.5 * len(rows) + 1.3)
    axes = figure.subplots()
    mesh = axes.pcolormesh(shares, cmap=SHARES, vmin=0, vmax=1, edgecolors="#BBBBBB", linewidth=0.5)
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
    _percent(bar.ax, "y")
    bar.outline.set_linewidth(0.5)
    return figure


def _draw_confusion(experiment: Experiment) -> Drawing:
    answers, names = experiment.answers, experiment.classes.names
    counts = metrics.confusion(answers.gold, answers.predicted, len(names))
    caption = (
        f"Test clips of {experiment.run['target']} by true class (rows) and predicted class (columns): "
        f"{_counted(_test_clips(experiment))}, {_over(experiment.scored)}. Large: percent of the row; small: "
        "answers. Classes without a test clip have no row."
    )
    return Drawing("Confusion matrix", caption, confusion_figure(counts, names))


# ---- 3: learning curves

Curve = list[tuple[int, float]]  # (step, value)


def read_curves(folder: Path) -> dict[str, Curve]:
    """The curves in the TensorBoard events of a trained folder by name, such as "dev/ua"; none where it has no events.

    What a training wrote before it was broken off, and again when it went on, is there once.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    written = []
    for path in (folder / "tensorboard").glob("*tfevents*"):
        events = EventAccumulator(str(path), size_guidance={"scalars": 0, "images": 1})
        events.Reload()
        of_file = {
            name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]
        }
        last = max((curve[-1][0] for curve in of_file.values()), default=0)
        written.append((_first_step(path), last, path.name, of_file))
    # each start goes on at the step of the one before or a later one; the names say when, but clocks are set back
    curves: dict[str, Curve] = {}
    for first, _, _, of_file in sorted(written, key=lambda file: file[:3]):
        curves = {name: [point for point in curve if point[0] < first] for name, curve in curves.items()}
        for name, curve in of_file.items():
            curves.setdefault(name, []).extend(curve)
    return {name: curve for name, curve in curves.items() if curve}


def _first_step(path: Path) -> int:
    """The step with which the training that wrote these events began or went on."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return next((event.step for event in EventFileLoader(str(path)).Load() if event.HasField("session_log")), 0)


def in_windows(curve: Curve, most: int = LOSS_POINTS) -> Curve:
    """At most so many points: means over windows of as many steps; values that are not finite are left out."""
    finite = [(step, value) for step, value in curve if np.isfinite(value)]
    if not finite:
        return []
    return [tuple(np.mean(window, axis=0)) for window in np.array_split(np.array(finite), min(most, len(finite)))]


def curves_figure(runs: Mapping[str, Mapping[str, Curve]], best: Mapping[str, int | None]) -> Figure:
    """Training losses and dev scores, a panel each, of ``runs`` by their names; ``best``: the steps of checkpoints."""
    panels = [
        (name, title)
        for part, of in (("train", LOSSES), ("dev", DEV_SCORES))
        for key, title in of.items()
        for name in [f"{part}/{key}"]
        if any(curves.get(name) for curves in runs.values())
    ]
    columns = 3
    alike = len(runs) > MOST_LINES
    rows = ceil(len(panels) / columns)
    figure = _figure(WIDTH, 1.75 * rows + 0.5 + (0 if alike else 0.16 * ceil(len(runs) / 4)))
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for axes, (name, title) in zip(grid.flat, panels):
        scale = 100 if title.endswith("%") else 1
        for (run, curves), colour, line in zip(runs.items(), cycle(COLOURS[:7]), cycle(LINES)):
            curve = curves.get(name, [])
            curve = in_windows(curve) if name.startswith("train/") else curve
            if not curve:
                continue
            steps, values = np.array(curve, dtype=float).T
            axes.plot(
                steps,
                scale * values,
                color=BLUE if alike else colour,
                linestyle="-" if alike else line,
                linewidth=0.7 if alike else 1.2,
                label=run,
            )
            chosen = steps == best[run]
            if name.startswith("dev/") and chosen.any():
                axes.plot(
                    steps[chosen],
                    scale * values[chosen],
                    marker="*",
                    markersize=9,
                    linestyle="none",
                    color=VERMILION if alike else colour,
                    markeredgecolor=BLACK,
                    markeredgewidth=0.5,
                )
        axes.set_title(title)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for place in range(max(0, len(panels) - columns), len(panels)):  # the lowest of each column
        grid.flat[place].set_xlabel("step")
        grid.flat[place].tick_params(labelbottom=True)
    if not alike:
        handles = {
            label: handle
            for axes in grid.flat[: len(panels)]
            for handle, label in zip(*axes.get_legend_handles_labels())
        }
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(4, len(handles)), handlelength=3)
    return figure


def _draw_curves(experiment: Experiment) -> Drawing:
    runs = {_called(fold): read_curves(fold.folder) for fold in experiment.scored}
    known = [fold for fold in experiment.scored if runs[_called(fold)]]
    if not known:
        raise InputError("there are no TensorBoard events beside its scores.")
    best = {}
    for fold in known:
        epochs, number = runs[_called(fold)].get("dev/ua", []), fold.run["best_epoch"]
        best[_called(fold)] = epochs[number - 1][0] if number <= len(epochs) else None
    caption = (
        f"Training losses (means over at most {LOSS_POINTS} windows of steps) and scores of the dev part after "
        f"each epoch: {_over(known)}; a line each. Star: the epoch whose model was kept."
    )
    absent = len(experiment.scored) - len(known)
    if absent:
        caption += f" {absent} more have no TensorBoard events."
    return Drawing("Learning curves", caption, curves_figure({name: runs[name] for name in best}, best))


# ---- 4: the embedding map


def two_dimensional(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings (clips, D) on a plane (clips, 2) by t-SNE, the same for the same embeddings on one machine."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(PERPLEXITY, (len(embeddings) - 1) / 3)
    with threadpool_limits(1):  # several threads add up in another order
        return TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(embeddings)


def map_figure(places: np.ndarray, gold: Sequence[int], names: Sequence[str]) -> Figure:
    """Clips at ``places`` (clips, 2); each gold class (a number) has a colour and a marker."""
    gold = np.asarray(gold)
    figure = _figure(WIDTH, 4.6)
    axes = figure.subplots()
    for number, name in enumerate(names):
        of = gold == number
        if of.any():
            axes.scatter(
                *places[of].T,
                s=26 if len(gold) <= 500 else 12,
                label=f"{printable(name, 16)} ({of.sum():,})",
                marker=MARKERS[number % len(MARKERS)],
                color=COLOURS[number % len(COLOURS)],
                edgecolor=BLACK,
                linewidth=0.4,
            )
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.spines[["top", "right"]].set_visible(True)
    axes.legend(title="true class (clips)", loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _draw_map(experiment: Experiment) -> Drawing:
    fold = experiment.scored[0]
    path, clips = fold.folder / EMBEDDINGS, fold.sets[TEST]
    if not path.is_file():
        raise InputError(f"{path} is not there; stage 5 makes it where best.pt is.")
    embeddings = read_embeddings(path, [clip.id for clip in clips]).astype(np.float32)
    if len(clips) < FEWEST_POINTS:
        raise InputError(f"{path}: holds {len(clips)} clips, too few for a map.")
    if not np.isfinite(embeddings).all() or np.ptp(embeddings, axis=0).max() == 0:
        raise InputError(f"{path}: its embeddings are all alike or not finite.")
    chosen = np.sort(np.random.default_rng(0).permutation(len(clips))[:MOST_POINTS])
    drawn = f"{len(chosen):,} of its {len(clips):,}, drawn at random" if len(chosen) < len(clips) else f"{len(clips):,}"
    caption = (
        f"Embeddings of the test clips of {experiment.run['target']} ({drawn}), {_called(fold)}, on a plane by "
        f"t-SNE (perplexity {PERPLEXITY} at most). Other trainings have other embeddings, which do not go on "
        "the same map. Only near and far mean something, axes and sizes of groups do not."
    )
    return Drawing(
        "Map of the embeddings",
        caption,
        map_figure(
            two_dimensional(embeddings[chosen]), [clips[place].gold_esc for place in chosen], experiment.classes.names
        ),
    )


# ---- 5: calibration


def calibration_figure(bins: metrics.Calibration, error: float) -> Figure:
    """The accuracy of each bin of posteriors against the diagonal, and how many answers each holds."""
    edges = np.linspace(0, 1, len(bins.clips) + 1)
    middles, full = (edges[:-1] + edges[1:]) / 2, bins.clips > 0
    figure = _figure(0.7 * WIDTH, 4.9)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.bar(middles, bins.accuracy, edges[1], color=SKY, edgecolor=BLACK, linewidth=0.5, label="accuracy")
    upper.plot([0, 1], [0, 1], color=BLACK, linestyle="--", linewidth=1, label="as it should be")
    upper.plot(
        bins.confidence[full],
        bins.accuracy[full],
        color=VERMILION,
        marker="D",
        markersize=4,
        linestyle="none",
        markeredgecolor=BLACK,
        markeredgewidth=0.4,
        clip_on=False,
        zorder=3,
        label="mean posterior",
    )
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy %")
    _percent(upper, "y")
    figure.legend(loc="outside upper center", ncols=3, title=f"ECE {100 * error:.2f} %", columnspacing=1)
    lower.bar(middles, bins.clips, edges[1], color="#999999", edgecolor=BLACK, linewidth=0.5)
    for x, number in zip(middles[full], bins.clips[full]):
        lower.annotate(
            f"{number}", (x, number), (0, 1), textcoords="offset points", ha="center", va="bottom", fontsize=6
        )
    lower.set(xlabel="posterior of the predicted class, %", ylabel="answers", ylim=(0, 1.25 * bins.clips.max()))
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    _percent(lower, "x")
    return figure


def _draw_calibration(experiment: Experiment) -> Drawing:
    clips = _test_clips(experiment)
    gold, posteriors = [clip.gold_esc for clip in clips], [clip.posterior for clip in clips]
    error = metrics.calibration_error(gold, posteriors)
    caption = (
        f"How often the predicted class is right, by its posterior in {metrics.CALIBRATION_BINS} bins, and how "
        f"many answers each bin holds: test clips of {experiment.run['target']}, {_counted(clips)}, "
        f"{_over(experiment.scored)}. Bars below the diagonal: the model is too sure. The ECE of all of them "
        f"together is {100 * error:.2f} %."
    )
    return Drawing("Calibration", caption, calibration_figure(metrics.calibration(gold, posteriors), error))


# ---- 6: speakers


class SpeakerScore(NamedTuple):
    speaker: str
    ua: float
    clips: int


def speaker_scores(answers: significance.PooledPredictions) -> list[SpeakerScore]:
    """UA of each test speaker over the classes that the speaker has (a seed at a time, averaged), the lowest first."""
    found = []
    for speaker in np.unique(answers.speakers):
        own = significance.PooledPredictions(*(values[answers.speakers == speaker] for values in answers))
        clips = len(set(zip(own.folds.tolist(), own.clips.tolist())))
        found.append(SpeakerScore(str(speaker), float(significance.accuracies(own).ua), clips))
    return sorted(found, key=lambda score: (score.ua, score.speaker))


def speakers_figure(scores: Sequence[SpeakerScore], pooled: float) -> Figure:
    """A bar a speaker, the best on top, and the UA of all together as a line."""
    figure = _figure(WIDTH, 0.9 + 0.22 * max(4, len(scores)))
    axes = figure.subplots()
    axes.barh(np.arange(len(scores)), [score.ua for score in scores], color=SKY, edgecolor=BLACK, linewidth=0.5)
    axes.axvline(pooled, color=VERMILION, linestyle="--", linewidth=1.2, label=f"pooled UA {100 * pooled:.1f} %")
    for place, score in enumerate(scores):
        axes.text(1.01, place, f"{100 * score.ua:.1f} %, {score.clips:,} clips", va="center", fontsize=7)
    axes.set_yticks(np.arange(len(scores)), [printable(score.speaker) for score in scores], fontsize=8)
    axes.set(xlim=(0, 1), ylim=(-0.6, len(scores) - 0.4), xlabel="UA % over the classes that the speaker has")
    _percent(axes, "x")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def _draw_speakers(experiment: Experiment) -> Drawing:
    scores = speaker_scores(experiment.answers)
    caption = (
        f"UA of each of the {len(scores)} test speakers of {experiment.run['target']} over the classes that the "
        f"speaker has, with the number of clips: {_over(experiment.scored)}. Dashed: the pooled UA."
    )
    if len(scores) > MOST_SPEAKERS:
        half = MOST_SPEAKERS // 2
        scores = scores[:half] + scores[-half:]
        caption += f" Only the {half} lowest and the {half} highest are drawn."
    return Drawing("UA of each test speaker", caption, speakers_figure(scores, experiment.summary["pooled.test.ua"]))


# ---- 7: other conditions


def conditions_figure(setting: Setting, panels: Mapping[str, Mapping[str, Sequence[ConditionResult]]]) -> Figure:
    """UA over the levels of a setting: a panel a title, in it a line a label, with the 95 % intervals as bars.

    A label without any level is a level line; conditions without one beside others that have one are thin level lines
    without words. A label looks the same in all panels.
    """
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    looks = dict(zip(labels, zip(cycle(COLOURS[:7]), cycle(LINES), cycle(MARKERS))))
    columns = min(2, len(panels))
    longest = max(len(printable(label, 40)) for label in labels)
    width = (0.7, 1.0)[columns - 1] * WIDTH
    in_a_row = max(1, min(len(labels), int(width / (0.075 * longest + 0.6))))
    rows_of_panels, rows_of_labels = ceil(len(panels) / columns), ceil(len(labels) / in_a_row)
    figure = _figure(width, 0.8 + (2.9 if columns == 1 else 2.3) * rows_of_panels + 0.17 * rows_of_labels)
    grid = figure.subplots(rows_of_panels, columns, sharex=True, sharey=True, squeeze=False)
    for axes, (title, lines) in zip(grid.flat, panels.items()):
        for label, rows in lines.items():
            colour, line, marker = looks[label]
            placed = sorted(
                (row for row in rows if row.condition.level is not None), key=lambda row: row.condition.level
            )
            for row in rows:
                if row.condition.level is None:
                    axes.axhline(
                        row.metrics["ua"],
                        color=colour,
                        linestyle=line,
                        linewidth=0.6 if placed else 1.0,
                        label="_" if placed else printable(label, 40),
                    )
            if not placed:
                continue
            axes.plot(
                [row.condition.level for row in placed],
                [row.metrics["ua"] for row in placed],
                color=colour,
                linestyle=line,
                linewidth=1.2,
                marker=marker,
                markersize=5,
                markeredgecolor=BLACK,
                markeredgewidth=0.4,
                label=printable(label, 40),
            )
            known = [row for row in placed if row.metrics["low_ua"] is not None]
            axes.vlines(
                [row.condition.level for row in known],
                [row.metrics["low_ua"] for row in known],
                [row.metrics["high_ua"] for row in known],
                color=colour,
                linewidth=0.8,
            )
        axes.set(xscale="log" if setting.logarithmic else "linear", ylim=(0, 1), title=title)
        _percent(axes, "y")
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    levels = sorted(
        {
            row.condition.level
            for lines in panels.values()
            for rows in lines.values()
            for row in rows
            if row.condition.level is not None
        }
    )
    grid.flat[0].set_xticks(levels, [f"{level:g}" for level in levels])
    grid.flat[0].minorticks_off()
    for place in range(max(0, len(panels) - columns), len(panels)):  # the lowest of each column
        grid.flat[place].tick_params(labelbottom=True)
    for axes in grid[:, 0]:
        axes.set_ylabel("pooled UA %")
    figure.supxlabel(setting.axis, fontsize=9)
    handles = {label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=in_a_row, handlelength=3)
    return figure


def _bars(rows: Sequence[ConditionResult]) -> str:
    """What the bars are; over one speaker there is no interval."""
    return " with its 95 % interval over test speakers (bars)" * any(row.metrics["low_ua"] is not None for row in rows)


def _of_clips(rows: Sequence[ConditionResult]) -> str:
    of = rows[0].metrics
    return f"{of['clips']:,} clips, fold{_numbers(of['folds'])}, seed{_numbers(of['seeds'])}"


def _draw_conditions(setting: Setting, experiment: Experiment) -> Drawing:
    rows = by_setting(experiment.rows)[setting]
    notes = " ".join(f"{capital(note)}." for note in rows[0].facts["notes"])
    caption = f"Pooled UA of the test clips of {experiment.run['target']}{_bars(rows)}: {_of_clips(rows)}. {notes}"
    return Drawing(setting.title, caption, conditions_figure(setting, {"": by_curve(rows)}))


def compared_conditions(
    heading: str, members: Sequence[Experiment], called: Callable[[Experiment], str]
) -> list[Picture]:
    """For each setting that several of these systems were tried in a picture with a panel a curve, a line a system."""
    pictures = []
    with style.context(["default", STYLE]):
        for setting in by_setting(row for member in members for row in member.rows):
            own = {
                called(member): by_setting(member.rows)[setting]
                for member in members
                if setting in by_setting(member.rows)
            }
            panels: dict[str, dict[str, list[ConditionResult]]] = {}
            for name, rows in own.items():
                clean = [row for row in rows if row.condition == CLEAN]
                for curve, of in by_curve(rows).items():
                    if any(row.condition.level is not None for row in of):
                        panels.setdefault(curve, {})[name] = of + clean
            if len(own) > 1 and panels:
                thin = " Thin lines: unchanged clips." * any(
                    row.condition == CLEAN for rows in own.values() for row in rows
                )
                caption = (
                    f"{capital(heading)}: pooled UA{_bars([row for rows in own.values() for row in rows])}."
                    f"{thin} " + "; ".join(f"{name}: {_of_clips(rows)}" for name, rows in own.items()) + "."
                )
                drawing = Drawing(f"{setting.title}: {heading}", caption, conditions_figure(setting, panels))
                pictures.append(_rendered(slug(f"{members[0].run['name']}.{setting.name}"), drawing))
    return pictures


# ---- all of them

DRAWINGS: dict[str, Callable[[Experiment], Drawing]] = {
    "eis": _draw_eis,
    "confusion": _draw_confusion,
    "learning_curves": _draw_curves,
    "embeddings": _draw_map,
    "calibration": _draw_calibration,
    "speakers": _draw_speakers,
}


def _rendered(name: str, drawing: Drawing) -> Picture:
    """The same drawing gives the same bytes: no date, no version of what drew it."""
    svg, pdf = io.StringIO(), io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    drawing.figure.savefig(svg, format="svg", metadata=nothing)
    drawing.figure.set_layout_engine("none")  # what it laid out stays
    drawing.figure.savefig(pdf, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    text = svg.getvalue()
    return Picture(name, drawing.title, drawing.caption, text[text.index("<svg") :], pdf.getvalue())  # without a DTD


def pictures_of(experiment: Experiment) -> list[Picture]:
    """The pictures of an experiment, from the files of its folds (``experiment.scored``) alone.

    A picture whose data are absent or damaged is left out, with a line in the log that says why.
    """
    pictures = []
    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # who looks at the SVG may have a font for it
        drawings = {
            **DRAWINGS,
            **{setting.name: partial(_draw_conditions, setting) for setting in by_setting(experiment.rows)},
        }
        for name, draw in drawings.items():
            try:
                pictures.append(_rendered(name, draw(experiment)))
            except InputError as absent:
                log.info(
                    "%s-%s, %s: no picture %s: %s",
                    experiment.run["config"],
                    experiment.run["system"],
                    experiment.run["name"],
                    name,
                    absent,
                )
    return pictures


def write_pictures(folder: Path, pictures: Sequence[Picture]) -> None:
    """``<name>.svg`` and ``<name>.pdf`` of each, in place of all that the folder held.

    InputError where the folder holds other files, which would be lost.
    """
    with whole_output_folder(folder, "pictures", (".svg", ".pdf")) as temporary:
        for picture in pictures:
            (temporary / f"{picture.name}.svg").write_text(picture.svg, encoding="utf-8")
            (temporary / f"{picture.name}.pdf").write_bytes(picture.pdf)
