"""The calibration of a model of all clips, from the test clips of its folds: none of its own was held out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.special import softmax

from speecheq.dataset.msud_recipe import TEST
from speecheq.evaluation.calibration import DevCalibration, fit_calibration
from speecheq.evaluation.predictions import ClipPrediction
from speecheq.reporting.experiment import read_fold, scored_folders

LEAST = 1e-6  # the last digit of the posteriors in score files
FOLDS = "the test part of the folds"


def fold_calibration(experiment: Path) -> tuple[DevCalibration, list[ClipPrediction]]:
    """The temperature and thresholds of the test clips of all folds (exp/SYSTEM/TARGET.PROTOCOL), of its first seed.

    Each clip was predicted by a model of the same kind that was trained without it. Also returns the clips, with the
    posteriors at that temperature. Raises InputError if a score file is damaged.
    """
    folds = [read_fold(folder) for folder in scored_folders(experiment)[0]]
    seed = min((fold.run["seed"] for fold in folds), default=None)
    clips = []
    for fold in folds:
        if fold.run["seed"] == seed:
            own = DevCalibration.from_dict(fold.run.get("calibration")).temperature
            clips += [replace(clip, logits=_logits(clip.posterior, own).tolist()) for clip in fold.sets[TEST]]
    found = fit_calibration(clips, FOLDS)
    posteriors = (softmax(np.array(clip.logits) / found.temperature).tolist() for clip in clips)
    return found, [replace(clip, posterior=posterior) for clip, posterior in zip(clips, posteriors)]


def _logits(posterior: list[float], temperature: float) -> np.ndarray:
    """The logits, but for a constant, of which ``posterior`` is the softmax at ``temperature``."""
    return temperature * np.log(np.maximum(posterior, LEAST))
