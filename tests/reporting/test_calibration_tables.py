"""The tables on posteriors: temperatures of the folds, reliability, and what rejection gives on test clips."""

from report_data import eis_clip, make, summarised

from speecheq.evaluation.calibration import DevCalibration, RiskPoint
from speecheq.reporting.calibration_tables import (
    DEV_OF_KNOWN_SPEAKERS,
    CalibratedClips,
    calibration_section,
    rejection_table,
    reliability_table,
)
from speecheq.reporting.report_tables import experiment_sections

FITTED = DevCalibration(1.25, 40, (RiskPoint(0.0, 40, 12), RiskPoint(0.6, 30, 3)), "")
SCORES = {"test.nll": 0.8, "test.nll_uncalibrated": 1.0, "test.ece_uncalibrated": 0.3}


def clip(number, right, confidence):
    others = (1 - confidence) / 8
    return eis_clip(number, gold=0 if right else 1, posterior=[confidence] + [others] * 8)


def test_scores_of_before_have_no_such_section(tmp_path):
    experiment = summarised(make(tmp_path))
    assert calibration_section(experiment) == []
    assert "Calibration on test clips" not in [section.heading for section in experiment_sections(experiment)]


def test_each_fold_has_its_temperature_and_its_scores_before_and_after(tmp_path):
    experiment = summarised(make(tmp_path, scores=SCORES, calibration=FITTED.to_dict()))
    (section,) = [s for s in experiment_sections(experiment) if s.heading == "Calibration on test clips"]
    temperatures, reliability, rejection = section.tables
    headings = [column.heading for column in temperatures.columns]
    rows = [dict(zip(headings, row)) for row in temperatures.texts()]
    assert [row["fold, seed"] for row in rows] == ["fold 1, seed 1", "fold 2, seed 1", "mean of folds and seeds"]
    ece = f"{100 * experiment.scored[0].metrics['test.ece']:.2f}"
    expected = {"temperature": "1.250", "dev clips": "40", "ECE % before": "30.00", "ECE % after": ece}
    assert rows[0] == {"fold, seed": "fold 1, seed 1", **expected, "NLL before": "1.000", "NLL after": "0.800"}
    assert sum(int(row[1]) for row in reliability.texts()) == len(experiment.test_clips) == 48
    assert [row[0] for row in rejection.texts()] == ["5", "10", "20"] and not section.sentences


def test_a_dev_part_of_training_speakers_is_said_where_the_test_speakers_are_others(tmp_path):
    def sentences(name, **run):
        (section,) = calibration_section(summarised(make(tmp_path / name, calibration=FITTED.to_dict(), **run)))
        return section.sentences

    assert sentences("others", test_speakers_in_training=0, dev="clips") == [DEV_OF_KNOWN_SPEAKERS]
    assert sentences("dev", test_speakers_in_training=0, dev="speaker") == []
    assert sentences("known", test_speakers_in_training=4, dev="clips") == []


def test_why_there_is_no_temperature_is_said(tmp_path):
    few = DevCalibration(clips=12, reason="the dev part has 12 clips, fewer than the 20 that a fit needs")
    (section,) = calibration_section(summarised(make(tmp_path, calibration=few.to_dict())))
    assert len(section.tables) == 2, "no rejection"
    assert section.sentences == [
        "A temperature of 1 was kept where the dev part has 12 clips, fewer than the 20 that a fit needs."
    ]


def test_reliability_by_hand():
    table = reliability_table([clip(0, True, 0.9), clip(1, False, 0.92), clip(2, True, 0.35)])
    assert table.texts() == [["33.3 to 40.0", "1", "35.0", "100.0"], ["86.7 to 93.3", "2", "91.0", "50.0"]]


def test_rejection_by_hand():
    """One model answers above 0.6 for a rate of 10 %, the other reaches none below 50 %."""
    rough = DevCalibration(1.0, 60, (RiskPoint(0.0, 60, 30),), "")
    clips = [clip(0, True, 0.9), clip(1, False, 0.7), clip(2, True, 0.59), clip(3, False, 0.3)]
    table = rejection_table([CalibratedClips(FITTED, clips), CalibratedClips(rough, clips)])
    assert table.texts() == [
        ["5", "0 of 2", "n/a", "n/a", "n/a"],
        ["10", "1 of 2", "75.0", "50.0", "50.0"],
        ["20", "1 of 2", "75.0", "50.0", "50.0"],
    ]


def test_a_threshold_that_no_test_clip_reaches_has_no_error_rate():
    sure = DevCalibration(1.0, 40, (RiskPoint(0.99, 25, 0),), "")
    rows = rejection_table([CalibratedClips(sure, [clip(0, True, 0.5)])]).texts()
    assert rows[0][2:] == ["62.5", "0.0", "n/a"]
