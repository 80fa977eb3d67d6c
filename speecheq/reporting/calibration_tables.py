"""The tables on posteriors: temperatures, reliability, and what rejection by thresholds of the dev part gives."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from speecheq.dataset.msud_recipe import TEST
from speecheq.evaluation.calibration import DevCalibration
from speecheq.evaluation.metrics import CALIBRATION_BINS, calibration
from speecheq.evaluation.predictions import ClipPrediction
from speecheq.reporting.experiment import Experiment
from speecheq.reporting.tables import NOT_AVAILABLE, Column, Section, Table, format_score

ASKED_ERROR_RATES = (0.05, 0.1, 0.2)
TEMPERATURES = "temperature and calibration of each fold"
RELIABILITY = "test predictions by the posterior of the predicted class"
SCORES = {
    "ece_uncalibrated": "ECE % before",
    "ece": "ECE % after",
    "nll_uncalibrated": "NLL before",
    "nll": "NLL after",
}
REJECTION = "answered and wrong test predictions, with thresholds of the dev part"


DEV_OF_KNOWN_SPEAKERS = (
    "The dev clips are of training speakers, who are recognised better than the test speakers: temperature and "
    "thresholds suit known speakers, and are too sure of others (--dev speaker fits them on others)."
)


class CalibratedClips(NamedTuple):
    """The test predictions of a model, and what its dev part says of its posteriors."""

    calibration: DevCalibration
    clips: Sequence[ClipPrediction]


def calibration_section(experiment: Experiment) -> list[Section]:
    """The tables of an experiment with a temperature in one of its folds or the reason why there is none."""
    calibrated = [fold for fold in experiment.scored if "calibration" in fold.run]
    if not calibrated:
        return []
    found = [CalibratedClips(DevCalibration.from_dict(fold.run["calibration"]), fold.sets[TEST]) for fold in calibrated]
    rows = [
        [fold.name, f"{own.temperature:.3f}", str(own.clips), *_score_cells(fold.metrics)]
        for fold, (own, _) in zip(calibrated, found)
    ]
    mean = f"{np.mean([own.temperature for own, _ in found]):.3f}"
    rows.append(["mean of folds and seeds", mean, "-", *_score_cells(experiment.summary)])
    headings = ("fold, seed", "temperature", "dev clips", *SCORES.values())
    tables = [_table("temperatures", TEMPERATURES, headings, rows), reliability_table(experiment.test_clips)]
    if any(own.risks for own, _ in found):
        tables.append(rejection_table(found))
    reasons = dict.fromkeys(own.reason for own, _ in found if own.reason)
    sentences = [f"A temperature of 1 was kept where {reason}." for reason in reasons]
    if any(own.risks and is_dev_of_known_speakers(fold.run) for fold, (own, _) in zip(calibrated, found)):
        sentences.append(DEV_OF_KNOWN_SPEAKERS)
    return [Section("Calibration on test clips", tables, sentences)]


def is_dev_of_known_speakers(run: Mapping[str, Any]) -> bool:
    """Whether dev clips, but no test clips, are of training speakers; ``run``: that of metrics.json of a fold."""
    return run["dev"] == "clips" and run["test_speakers_in_training"] == 0


def _score_cells(metrics: Mapping[str, Any]) -> list[str]:
    return [format_score(metrics.get(f"{TEST}.{name}"), name) for name in SCORES]


def _table(name: str, caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    return Table(name, caption, [Column(heading) for heading in headings], rows)


def reliability_table(clips: Sequence[ClipPrediction]) -> Table:
    """Number, mean posterior and accuracy of the predictions in each bin of posteriors that has any."""
    bins = calibration([clip.gold_esc for clip in clips], [clip.posterior for clip in clips])
    full = [number for number, count in enumerate(bins.clips.tolist()) if count]
    width = 100 / CALIBRATION_BINS
    rows = [
        [
            f"{number * width:.1f} to {(number + 1) * width:.1f}",
            str(bins.clips[number]),
            f"{100 * bins.confidence[number]:.1f}",
            f"{100 * bins.accuracy[number]:.1f}",
        ]
        for number in full
    ]
    return _table("reliability", RELIABILITY, ("posterior %", "predictions", "mean posterior %", "accuracy %"), rows)


def rejection_table(models: Sequence[CalibratedClips]) -> Table:
    """For error rates that can be asked for: how much of the test is answered, and how much of that is wrong.

    Each model's own threshold is used. Models that do not reach an error rate on dev are left out of its row.
    """
    headings = ("asked error rate %", "reached on dev", "answered on dev %", "answered on test %", "wrong of these %")
    return _table("rejection", REJECTION, headings, [_rejection_row(models, asked) for asked in ASKED_ERROR_RATES])


def _rejection_row(models: Sequence[CalibratedClips], asked: float) -> list[str]:
    points = [(own.choose(asked), own.clips, clips) for own, clips in models]
    chosen = [(point, number, clips) for point, number, clips in points if point is not None]
    answered = [clip for point, _, clips in chosen for clip in clips if max(clip.posterior) >= point.threshold]
    wrong = sum(clip.predicted_esc != clip.gold_esc for clip in answered)

    def percent(part: int, whole: int) -> str:
        return f"{100 * part / whole:.1f}" if whole else NOT_AVAILABLE

    return [
        f"{100 * asked:g}",
        f"{len(chosen)} of {len(models)}",
        percent(sum(point.answered for point, _, _ in chosen), sum(number for _, number, _ in chosen)),
        percent(len(answered), sum(len(clips) for _, _, clips in chosen)),
        percent(wrong, len(answered)),
    ]
