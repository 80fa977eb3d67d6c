"""The tables on posteriors: temperatures, reliability, and what rejection by thresholds of the dev part gives."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from speecheq.dataset.msud_recipe import TEST
from speecheq.evaluation.calibration import DevCalibration
from speecheq.evaluation.metrics import CALIBRATION_BINS, calibration
from speecheq.evaluation.predictions import ClipPrediction
from speecheq.reporting.experiment import Experiment
from speecheq.reporting.tables import NOT_AVAILABLE, Section, Table, build_table, format_score

ASKED_ERROR_RATES = (0.05, 0.1, 0.2)
TEMPERATURES = "temperature and calibration of each fold"
RELIABILITY = "test predictions by the posterior of the predicted class"
REJECTION = "answered and wrong test predictions, with thresholds of the dev part"


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
    scores = ("ece_uncalibrated", "ece", "nll_uncalibrated", "nll")
    rows = [
        (fold.name, f"{own.temperature:.3f}", str(own.clips), *(fold.metrics.get(f"{TEST}.{name}") for name in scores))
        for fold, (own, _) in zip(calibrated, found)
    ]
    mean = f"{np.mean([own.temperature for own, _ in found]):.3f}"
    means = (experiment.summary.get(f"{TEST}.{name}") for name in scores)
    rows.append(("mean of folds and seeds", mean, "-", *means))
    headings = ("ECE % before", "ECE % after", "NLL before", "NLL after")
    columns = {
        **{name: lambda row, at=at: row[at] for at, name in enumerate(("fold, seed", "temperature", "dev clips"))},
        **{
            heading: lambda row, at=at, score=score: format_score(row[at], score)
            for at, (heading, score) in enumerate(zip(headings, scores), 3)
        },
    }
    tables = [build_table("temperatures", TEMPERATURES, rows, columns), reliability_table(experiment.test_clips)]
    if any(own.risks for own, _ in found):
        tables.append(rejection_table(found))
    reasons = dict.fromkeys(own.reason for own, _ in found if own.reason)
    sentences = [f"A temperature of 1 was kept where {reason}." for reason in reasons]
    return [Section("Calibration on test clips", tables, sentences)]


def reliability_table(clips: Sequence[ClipPrediction]) -> Table:
    """Number, mean posterior and accuracy of the predictions in each bin of posteriors that has any."""
    bins = calibration([clip.gold_esc for clip in clips], [clip.posterior for clip in clips])
    full = [number for number, count in enumerate(bins.clips.tolist()) if count]
    width = 100 / CALIBRATION_BINS
    columns = {
        "posterior %": lambda number: f"{number * width:.1f} to {(number + 1) * width:.1f}",
        "predictions": lambda number: str(bins.clips[number]),
        "mean posterior %": lambda number: f"{100 * bins.confidence[number]:.1f}",
        "accuracy %": lambda number: f"{100 * bins.accuracy[number]:.1f}",
    }
    return build_table("reliability", RELIABILITY, full, columns)


class _Rejection(NamedTuple):
    asked: float
    reached: int  # models with a threshold for it
    models: int
    dev: str  # answered share of the dev clips, in percent
    test: str  # answered share of the test clips
    wrong: str  # share of these that is wrong


def rejection_table(models: Sequence[CalibratedClips]) -> Table:
    """For error rates that can be asked for: how much of the test is answered, and how much of that is wrong.

    Each model's own threshold is used. Models that do not reach an error rate on dev are left out of its row.
    """
    rows = [_reject(models, asked) for asked in ASKED_ERROR_RATES]
    columns = {
        "asked error rate %": lambda row: f"{100 * row.asked:g}",
        "reached on dev": lambda row: f"{row.reached} of {row.models}",
        "answered on dev %": lambda row: row.dev,
        "answered on test %": lambda row: row.test,
        "wrong of these %": lambda row: row.wrong,
    }
    return build_table("rejection", REJECTION, rows, columns)


def _reject(models: Sequence[CalibratedClips], asked: float) -> _Rejection:
    points = [(own.choose(asked), own.clips, clips) for own, clips in models]
    chosen = [(point, number, clips) for point, number, clips in points if point is not None]
    answered = [clip for point, _, clips in chosen for clip in clips if max(clip.posterior) >= point.threshold]
    wrong = sum(clip.predicted_esc != clip.gold_esc for clip in answered)

    def percent(part: int, whole: int) -> str:
        return f"{100 * part / whole:.1f}" if whole else NOT_AVAILABLE

    return _Rejection(
        asked,
        len(chosen),
        len(models),
        percent(sum(point.answered for point, _, _ in chosen), sum(number for _, number, _ in chosen)),
        percent(len(answered), sum(len(clips) for _, _, clips in chosen)),
        percent(wrong, len(answered)),
    )
