"""The figures of an experiment with their captions, as SVG and PDF: Figure 3 of the paper, and others of our own.

They are drawn from the files of the scored folds alone.
"""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from matplotlib import style
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from speecheq.common.errors import InputError
from speecheq.common.files import whole_output_folder
from speecheq.common.log import log
from speecheq.config.layers import load
from speecheq.evaluation import metrics
from speecheq.evaluation.predictions import ClipPrediction
from speecheq.evaluation.robustness.conditions import CLEAN, ConditionResult, Setting, by_curve, by_setting
from speecheq.reporting import figure_data, plots
from speecheq.reporting.experiment import Experiment, ScoredFold
from speecheq.reporting.figure_data import LOSS_POINTS, PERPLEXITY, UNSPECIFIED, group_by_intensity
from speecheq.reporting.figure_style import STYLE
from speecheq.reporting.probe_results import layer_scores
from speecheq.reporting.tables import capitalised, join_numbers, slug

MOST_SPEAKERS = 60
# The accuracy of fewer answers is mostly chance.
FEWEST_ANSWERS = 10


@dataclass(frozen=True)
class Picture:
    """A figure as SVG text and as PDF.

    ``name`` is the stem of its files, such as "confusion"; ``caption`` describes what is shown, over which clips, folds
    and seeds. The SVG needs no other file.
    """

    name: str
    title: str
    caption: str
    svg: str = field(repr=False)
    pdf: bytes = field(repr=False)


class Drawing(NamedTuple):
    """A figure before it is written as SVG and PDF."""

    title: str
    caption: str
    figure: Figure


# ---- captions


def _numbered(name: str, values: Sequence[int]) -> str:
    """Such as "fold 1" or "seeds 1 2"."""
    different = sorted(set(values))
    return f"{name if len(different) == 1 else name + 's'} {join_numbers(different)}"


def _folds(folds: Sequence[ScoredFold]) -> str:
    return (
        f"{_numbered('fold', [fold.run['fold'] for fold in folds])} of {folds[0].run['folds']}, "
        f"{_numbered('seed', [fold.run['seed'] for fold in folds])}"
    )


def _count(clips: Sequence[ClipPrediction]) -> str:
    """How many clips; and how many predictions, if several models predicted the same clip."""
    own = len({clip.id for clip in clips})
    return f"{own:,} clips" + (f", {len(clips):,} predictions" if len(clips) > own else "")


def _draw_eis(experiment: Experiment) -> Drawing:
    if load(experiment.scored[0].folder / "config.yaml").loss.alpha == 0:
        raise InputError("it was not trained on EIS")
    tested, trained_folds = experiment.test_clips, figure_data.read_training_clips(experiment.scored)
    trained = [clip for _, clips in trained_folds for clip in clips]
    parts = {"training": trained, "test": tested} if trained else {"test": tested}
    classes = experiment.classes
    caption = (
        f"Predicted EIS of the clips of {experiment.run['target']} by their gold level, n predictions each; dashed: "
        f"the mean gold EIS of the level. Test clips: {_count(tested)}, {_folds(experiment.scored)}. "
    )
    if trained:
        caption += (
            f"Training clips (predicted by the model trained on them): {_count(trained)}, "
            f"{_folds([fold for fold, _ in trained_folds])}."
        )
    else:
        caption += "Training clips were not scored (run.sh --score-train true does)."
    without = {part: len(group_by_intensity(clips, classes).get(UNSPECIFIED, ())) for part, clips in parts.items()}
    if any(without.values()):
        counts = (f"{count:,} of {len(parts[part]):,} predictions of {part} clips" for part, count in without.items())
        caption += f" Without a gold level (unspecified): {', '.join(counts)}."
    return Drawing("Distributions of the predicted EIS (Figure 3)", caption, plots.eis_figure(parts, classes))


def _draw_confusion(experiment: Experiment) -> Drawing:
    predictions, names = experiment.predictions, experiment.classes.names
    counts = metrics.confusion(predictions.gold.tolist(), predictions.predicted.tolist(), len(names))
    caption = (
        f"Test clips of {experiment.run['target']} by true class (rows) and predicted class (columns): "
        f"{_count(experiment.test_clips)}, {_folds(experiment.scored)}. Large: percent of the "
        "row; small: counts. Classes without a test clip have no row."
    )
    return Drawing("Confusion matrix", caption, plots.confusion_figure(counts, names))


def _draw_curves(experiment: Experiment) -> Drawing:
    runs = {fold.name: figure_data.read_curves(fold.folder) for fold in experiment.scored}
    known = [fold for fold in experiment.scored if runs[fold.name]]
    if not known:
        raise InputError("there are no TensorBoard events beside its scores.")
    caption = (
        f"Training losses (means over at most {LOSS_POINTS} windows of steps) and scores of the dev part after "
        f"each epoch: {_folds(known)}; one line per fold and seed. Star: the epoch of the checkpoint."
    )
    absent = len(experiment.scored) - len(known)
    if absent:
        caption += f" {absent} more have no TensorBoard events."
    curves = {name: found for name, found in runs.items() if found}
    return Drawing("Learning curves", caption, plots.curves_figure(curves, figure_data.checkpoint_steps(known, runs)))


def _draw_map(experiment: Experiment) -> Drawing:
    fold = experiment.scored[0]
    sample = figure_data.sample_embeddings(fold)
    clips = f"{sample.total:,}"
    if len(sample.gold) < sample.total:
        clips = f"{len(sample.gold):,} of its {sample.total:,}, drawn at random"
    caption = (
        f"Embeddings of the test clips of {experiment.run['target']} ({clips}), {fold.name}, "
        f"projected by t-SNE (perplexity at most {PERPLEXITY}). Embeddings of different trainings cannot be shown on "
        "one map. Only neighbourhoods are meaningful, not the axes or the sizes of clusters."
    )
    places = figure_data.embed_in_plane(sample.embeddings)
    return Drawing("Embeddings by t-SNE", caption, plots.map_figure(places, sample.gold, experiment.classes.names))


def _draw_calibration(experiment: Experiment) -> Drawing:
    clips = experiment.test_clips
    gold, posteriors = [clip.gold_esc for clip in clips], [clip.posterior for clip in clips]
    error = metrics.calibration_error(gold, posteriors)
    if error is None:
        raise InputError("there are no test clips.")
    caption = (
        f"Accuracy by the posterior of the predicted class in {metrics.CALIBRATION_BINS} bins, and the number of "
        f"predictions in each bin: test clips of {experiment.run['target']}, {_count(clips)}, "
        f"{_folds(experiment.scored)}. Bars below the diagonal: the model is overconfident. "
        f"The ECE is {100 * error:.2f} %."
    )
    return Drawing("Calibration", caption, plots.calibration_figure(metrics.calibration(gold, posteriors), error))


def _draw_coverage(experiment: Experiment) -> Drawing:
    clips = experiment.test_clips
    if not clips:
        raise InputError("there are no test clips.")
    curve = metrics.accuracy_by_coverage([clip.gold_esc for clip in clips], [clip.posterior for clip in clips])
    half = (len(clips) - 1) // 2
    caption = (
        "Accuracy (WA) of the predictions with the highest posteriors, by the share of predictions that are answered "
        f"(from {FEWEST_ANSWERS} on): test clips of {experiment.run['target']}, {_count(clips)}, "
        f"{_folds(experiment.scored)}. Of the half with the highest posteriors {100 * curve.accuracy[half]:.1f} % are "
        f"right; the mean error rate over all coverages (AURC) is {100 * (1 - curve.accuracy).mean():.2f} %."
    )
    return Drawing("Accuracy over coverage", caption, plots.coverage_figure(curve, FEWEST_ANSWERS))


def _draw_speakers(experiment: Experiment) -> Drawing:
    scores = figure_data.speaker_scores(experiment.predictions)
    caption = (
        f"UA of each of the {len(scores)} test speakers of {experiment.run['target']} over the classes that the "
        f"speaker has, with the number of clips: {_folds(experiment.scored)}. Dashed: the pooled UA."
    )
    if len(scores) > MOST_SPEAKERS:
        half = MOST_SPEAKERS // 2
        scores = scores[:half] + scores[-half:]
        caption += f" Only the {half} lowest and the {half} highest are drawn."
    figure = plots.speakers_figure(scores, experiment.summary["pooled.test.ua"])
    return Drawing("UA of each test speaker", caption, figure)


def _draw_layers(experiment: Experiment) -> Drawing:
    caption = (
        "UA of the SVM on each layer, means over folds with their standard deviations (bars): "
        f"{experiment.run['name']}, {_folds(experiment.scored)}. Held-out clips of the training folds "
        "choose the layer of each fold."
    )
    return Drawing("UA by layer", caption, plots.layers_figure(layer_scores(experiment)))


DRAWINGS: dict[str, Callable[[Experiment], Drawing]] = {
    "eis": _draw_eis,
    "confusion": _draw_confusion,
    "learning_curves": _draw_curves,
    "embeddings": _draw_map,
    "calibration": _draw_calibration,
    "coverage": _draw_coverage,
    "speakers": _draw_speakers,
}


# ---- test conditions


def _interval_note(results: Sequence[ConditionResult]) -> str:
    """What the bars are, if there are any: over one speaker there is no interval."""
    has_interval = any(result.metrics["low_ua"] is not None for result in results)
    return " with its 95 % interval over test speakers (bars)" if has_interval else ""


def _clips_of_results(results: Sequence[ConditionResult]) -> str:
    values = results[0].metrics
    return f"{values['clips']:,} clips, {_numbered('fold', values['folds'])}, {_numbered('seed', values['seeds'])}"


def _draw_conditions(setting: Setting, experiment: Experiment) -> Drawing:
    results = by_setting(experiment.conditions)[setting]
    notes = " ".join(f"{capitalised(note)}." for note in results[0].facts["notes"])
    caption = (
        f"Pooled UA of the test clips of {experiment.run['target']}{_interval_note(results)}: "
        f"{_clips_of_results(results)}. {notes}"
    )
    return Drawing(setting.title, caption, plots.conditions_figure(setting, {"": by_curve(results)}))


def _compare_conditions(
    setting: Setting, heading: str, systems: Mapping[str, Sequence[ConditionResult]]
) -> Drawing | None:
    """A panel for each curve of a setting, in it a line for each system; None for one system, or without curves."""
    panels: dict[str, dict[str, list[ConditionResult]]] = {}
    for name, results in systems.items():
        clean = [result for result in results if result.condition == CLEAN]
        for curve, points in by_curve(results).items():
            if figure_data.split_by_level(points)[1]:
                panels.setdefault(curve, {})[name] = points + clean
    if len(systems) < 2 or not panels:
        return None
    every = [result for results in systems.values() for result in results]
    sentences = [f"{capitalised(heading)}: pooled UA{_interval_note(every)}."]
    if any(result.condition == CLEAN for result in every):
        sentences.append("Thin lines: clean clips.")
    sentences.append("; ".join(f"{name}: {_clips_of_results(results)}" for name, results in systems.items()) + ".")
    figure = plots.conditions_figure(setting, panels)
    return Drawing(f"{setting.title}: {heading}", " ".join(sentences), figure)


def compare_conditions(heading: str, systems: Sequence[Experiment]) -> list[Picture]:
    """A figure for each setting that several of the systems were tested in: a panel per curve, a line per system."""
    pictures = []
    with style.context(["default", STYLE]):
        for setting in by_setting(result for system in systems for result in system.conditions):
            own = {system.name: by_setting(system.conditions).get(setting) for system in systems}
            drawing = _compare_conditions(setting, heading, {name: found for name, found in own.items() if found})
            if drawing is not None:
                pictures.append(_render(slug(f"{systems[0].run['name']}.{setting.name}"), drawing))
    return pictures


# ---- all of them


def _render(name: str, drawing: Drawing) -> Picture:
    """Write a figure as SVG and PDF. Without a date and a version, equal figures have equal bytes."""
    svg, pdf = io.StringIO(), io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    drawing.figure.savefig(svg, format="svg", metadata=nothing)
    drawing.figure.set_layout_engine("none")  # keep the layout of the SVG
    # savefig would draw the figure once more before, for its layout
    FigureCanvasPdf(drawing.figure).print_pdf(pdf, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    text = svg.getvalue()
    return Picture(name, drawing.title, drawing.caption, text[text.index("<svg") :], pdf.getvalue())  # without a DTD


def draw_pictures(experiment: Experiment) -> list[Picture]:
    """The figures of an experiment, from the files of its folds (``experiment.scored``).

    A figure whose data are absent or damaged is left out; the log gives the reason.
    """
    pictures = []
    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the reader of the SVG may have such a font
        drawings = dict(DRAWINGS)
        if len(layer_scores(experiment)) > 1:
            drawings["layers"] = _draw_layers
        for setting in by_setting(experiment.conditions):
            drawings[setting.name] = partial(_draw_conditions, setting)
        for name, draw in drawings.items():
            try:
                pictures.append(_render(name, draw(experiment)))
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
    """Write ``<name>.svg`` and ``<name>.pdf`` of each figure; what the folder held before is replaced.

    Raises InputError if the folder holds other files, which would be lost.
    """
    with whole_output_folder(folder, "pictures", (".svg", ".pdf")) as temporary:
        for picture in pictures:
            (temporary / f"{picture.name}.svg").write_text(picture.svg, encoding="utf-8")
            (temporary / f"{picture.name}.pdf").write_bytes(picture.pdf)
