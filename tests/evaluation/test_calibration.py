"""Temperatures and thresholds of the dev part: fitted as defined, chosen by the error rate, absent without grounds."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from speecheq.common.errors import InputError
from speecheq.evaluation import metrics
from speecheq.evaluation.calibration import (
    FEWEST_CLIPS,
    HIGHEST,
    NOT_FITTED,
    DevCalibration,
    RiskPoint,
    calibration_scores,
    fit_calibration,
)
from speecheq.evaluation.predictions import ClipPrediction
from speecheq.models import checkpoint


def predictions(logits, gold, temperature=1.0):
    return [
        ClipPrediction(str(number), "toy", "s", int(label), softmax(row / temperature).tolist(), -1.0, 0.0, None, "F")
        for number, (row, label) in enumerate(zip(logits, gold))
    ]


def with_logits(logits, gold, temperature=1.0):
    made = predictions(np.asarray(logits, dtype=float), gold, temperature)
    for prediction, row in zip(made, logits):
        prediction.logits = [float(value) for value in row]
    return made


def drawn(clips, temperature, seed=0):
    """Logits (clips, 5) of which gold labels are drawn at a temperature."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=3.0, size=(clips, 5))
    gold = [random.choice(5, p=row) for row in softmax(logits / temperature, axis=1)]
    return logits, np.array(gold)


def nll(logits, gold, temperature):
    return -np.log(softmax(logits / temperature, axis=1)[np.arange(len(gold)), gold]).mean()


@pytest.mark.parametrize("temperature", [1.5, 2.5])
def test_the_temperature_is_that_of_which_the_labels_were_drawn(temperature):
    found = fit_calibration(with_logits(*drawn(5000, temperature)))
    assert found.temperature == pytest.approx(temperature, rel=0.06)
    assert (found.clips, found.reason) == (5000, "")


def test_posteriors_are_never_made_sharper():
    logits, gold = drawn(5000, 0.4)
    found = fit_calibration(with_logits(logits, gold))
    assert found.temperature == 1.0 and found.reason.startswith("the temperature of the dev part is below 1")
    assert found.risks[0].answered == 5000  # of the posteriors as they are


def test_it_has_the_lowest_nll_and_changes_no_class():
    logits, gold = drawn(200, 3.0, seed=1)
    found = fit_calibration(with_logits(logits, gold))
    least = nll(logits, gold, found.temperature)
    assert all(nll(logits, gold, other) >= least - 1e-9 for other in np.geomspace(0.05, 20, 400))
    after = with_logits(logits, gold, found.temperature)
    assert [p.predicted_esc for p in after] == logits.argmax(1).tolist()
    scores = calibration_scores(after, found.temperature)
    assert scores["nll"] == pytest.approx(least) and scores["nll_uncalibrated"] == pytest.approx(nll(logits, gold, 1))
    before = metrics.calibration_error(gold.tolist(), softmax(logits, axis=1).tolist())
    assert scores["ece_uncalibrated"] == pytest.approx(before)
    assert metrics.calibration_error(gold.tolist(), [p.posterior for p in after]) < before


def test_a_model_that_is_worse_than_chance_gets_the_highest_temperature():
    logits, gold = np.tile([4.0, 0.0, 0.0], (60, 1)), [1, 2] * 30
    found = fit_calibration(with_logits(logits, gold))
    assert found.temperature == pytest.approx(HIGHEST, rel=1e-3) and not found.reason
    assert found.risks == (RiskPoint(0.0, 60, 60),)


@pytest.mark.parametrize(
    ("logits", "gold", "reason"),
    [
        ([], [], "the dev part has 0 clips, fewer than the 20"),
        ([[1.0, 0.0]] * (FEWEST_CLIPS - 1), [0, 1] * 9 + [0], "the dev part has 19 clips, fewer than the 20"),
        ([[1.0, 0.0], [0.0, 1.0]] * 15, [1] * 30, "all clips of the dev part are of one class"),
        ([[math.nan, 0.0]] * 30, [0, 1] * 15, "the logits of the dev part are not finite"),
    ],
)
def test_where_the_dev_part_says_nothing_the_temperature_is_1_and_no_threshold_is_known(logits, gold, reason):
    found = fit_calibration(with_logits(logits, gold))
    assert (found.temperature, found.clips, found.risks) == (1.0, len(gold), ()) and reason in found.reason
    with pytest.raises(
        InputError, match=f"no threshold is known for an error rate of 10 %: {reason}.*; leave --reject"
    ):
        found.require(0.1)


def test_where_all_clips_are_right_the_temperature_is_1():
    found = fit_calibration(with_logits([[2.0, 0.0], [0.0, 1.0]] * 15, [0, 1] * 15))
    assert found.temperature == 1.0 and "are right" in found.reason
    assert found.require(0.0) == RiskPoint(0.0, 30, 0), "every clip may be answered"


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 1)), min_size=FEWEST_CLIPS, max_size=60),
    st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.5, 0.9]),
)
def test_the_threshold_answers_as_much_as_the_error_rate_allows(clips, asked):
    """Against all thresholds, one by one; few different logits make ties."""
    logits, gold = np.array([[0.4 * strength, 0.0] for strength, _ in clips]), [label for _, label in clips]
    found = fit_calibration(with_logits(logits, gold))
    if len(set(gold)) < 2:
        assert not found.risks
        return
    posteriors = softmax(logits / found.temperature, axis=1)
    confidence, wrong = posteriors.max(1), posteriors.argmax(1) != np.array(gold)
    allowed = [
        int(above.sum())
        for above in (confidence >= threshold for threshold in np.unique(confidence))
        if above.sum() >= FEWEST_CLIPS and wrong[above].mean() <= asked + 1e-12
    ]
    point = found.choose(asked)
    assert (point.answered if point else None) == max(allowed, default=None)
    if point:
        above = confidence >= point.threshold
        assert (above.sum(), wrong[above].sum()) == (point.answered, point.wrong)
    else:
        with pytest.raises(InputError, match="cannot be reached: on .* held-out clips .*; ask for that or more"):
            found.require(asked)


def test_an_error_rate_that_is_not_reached_is_said_with_the_least():
    least = DevCalibration(1.5, 60, (RiskPoint(0.0, 60, 30), RiskPoint(0.7, 25, 2)), "")
    assert least.require(0.5).threshold == 0.0 and least.require(0.08).threshold == 0.7
    with pytest.raises(
        InputError, match=r"rate of 7\.9 % .* 20 clips .* below 8\.0 % \(2 wrong of 25 .*, of 60 clips\)"
    ):
        least.require(0.079)


def test_a_checkpoint_and_json_keep_it(tmp_path):
    found = fit_calibration(with_logits(*drawn(100, 2.0)))
    assert len(found.risks) > 2 and found.temperature != 1
    checkpoint.write(tmp_path / "best.pt", {"format": checkpoint.FORMAT, "calibration": found.to_dict()})
    assert DevCalibration.from_dict(checkpoint.read(tmp_path / "best.pt")["calibration"]) == found
    assert DevCalibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_what_has_none_is_at_temperature_1():
    assert DevCalibration.from_dict(None) == DevCalibration(1.0, 0, (), NOT_FITTED)
    with pytest.raises(InputError, match="trained by a version that fitted none"):
        DevCalibration.from_dict(None).require(0.2)


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0.0}, {"temperature": math.inf}, {"risks": [[0.5, 0, 0]]}, {"risks": [[0.5, 3, 4]]}, {"risks": 7}],
)
def test_damaged_values_are_refused(change):
    with pytest.raises((TypeError, ValueError)):
        DevCalibration.from_dict({**DevCalibration().to_dict(), **change})


def test_no_predictions_have_no_scores():
    assert set(calibration_scores([], 1.0).values()) == {None}
