"""The calibration of a model of all clips is that of the test clips of its folds, each at its own temperature."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import softmax

from speecheq.evaluation.calibration import DevCalibration, fit_calibration
from speecheq.evaluation.predictions import ClipPrediction
from speecheq.inference import fold_calibration


def prediction(name, gold, logits, temperature):
    posterior = [round(p, 6) for p in softmax(logits / temperature)]  # as scores.tsv has them
    return ClipPrediction(name, "c", "s", gold, posterior, 1.0, 1.0, None, "F", logits=logits.tolist())


def fold(number, seed, temperature, draw):
    gold = draw.integers(0, 3, 40)
    logits = 2.0 * np.eye(3)[gold] + draw.normal(0, 2.0, (40, 3))
    clips = [prediction(f"{number}-{i}", int(g), row, temperature) for i, (g, row) in enumerate(zip(gold, logits))]
    run = {"fold": number, "seed": seed, "calibration": DevCalibration(temperature, 20, (), "").to_dict()}
    return SimpleNamespace(run=run, sets={"test": clips})


def test_folds_of_the_first_seed_at_their_own_temperatures(monkeypatch):
    draw = np.random.default_rng(1)
    folds = {"a": fold(1, 1, 1.0, draw), "b": fold(2, 1, 3.0, draw), "c": fold(1, 2, 1.0, draw)}
    monkeypatch.setattr(fold_calibration, "scored_folders", lambda experiment: (list(folds), []))
    monkeypatch.setattr(fold_calibration, "read_fold", folds.get)
    found, clips = fold_calibration.fold_calibration("exp")
    expected = fit_calibration([*folds["a"].sets["test"], *folds["b"].sets["test"]])
    assert found.clips == len(clips) == 80
    assert found.temperature == pytest.approx(expected.temperature, rel=1e-3) and found.temperature > 1
    assert [point.answered for point in found.risks] == [point.answered for point in expected.risks]
    for clip in clips:
        assert sum(clip.posterior) == pytest.approx(1)


def test_without_scored_folds_there_is_a_reason(monkeypatch):
    monkeypatch.setattr(fold_calibration, "scored_folders", lambda experiment: ([], ["stale"]))
    found, clips = fold_calibration.fold_calibration("exp")
    assert not clips and not found.risks and found.reason.startswith("the test part of the folds has 0 clips")
