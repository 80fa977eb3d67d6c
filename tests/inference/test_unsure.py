"""A temperature and thresholds of the dev part: the same posteriors everywhere, and unsure below the threshold."""

import csv
import io
import json
import re
import shutil

import lhotse
import numpy as np
import pytest
from scipy.special import softmax

from speecheq.cli import main
from speecheq.common.errors import InputError
from speecheq.evaluation.calibration import NOT_FITTED, DevCalibration, RiskPoint
from speecheq.evaluation.score import score
from speecheq.evaluation.score_files import read_metrics, read_scores
from speecheq.inference import model_folder
from speecheq.inference.predictor import UNSURE, Predictor
from speecheq.inference.trained_model import load_trained_model
from speecheq.inference.web_page import predict_recording
from speecheq.models import checkpoint

TEMPERATURE = 0.1  # tells the classes of an untrained model apart


def msud_of(experiment):
    return experiment.parents[4] / "msud/casia.speaker"


@pytest.fixture(scope="module")
def recordings(experiment):
    cuts = lhotse.CutSet.from_file(msud_of(experiment) / "fold1/test.jsonl.gz")
    return {cut.id: cut.recording.sources[0].source for cut in cuts}


@pytest.fixture(scope="module")
def threshold(experiment, recordings, tmp_path_factory):
    """Between the posteriors of the test clips at TEMPERATURE, so that some are answered and some are not."""
    found = Predictor(experiment / "best.pt", "cpu").predict(list(recordings.values()))
    posteriors = np.array([list(clip.posterior.values()) for clip in found])
    confidence = np.sort(softmax(np.log(posteriors) / TEMPERATURE, axis=1).max(1))
    gap = 1 + np.diff(confidence)[1:-1].argmax()
    return float(confidence[gap : gap + 2].mean())


@pytest.fixture(scope="module")
def calibrated(experiment, threshold, tmp_path_factory):
    """The tiny trained experiment with a calibration, scored again."""
    folder = shutil.copytree(experiment, tmp_path_factory.mktemp("exp") / experiment.parent.name / experiment.name)
    content = checkpoint.read(folder / "best.pt")
    risks = (RiskPoint(0.0, 60, 30), RiskPoint(threshold, 25, 2))
    content["calibration"] = DevCalibration(TEMPERATURE, 60, risks, "").to_dict()
    checkpoint.write(folder / "best.pt", content)
    stamp = json.loads((folder / "stage.json").read_text())
    stamp["outputs"]["best.pt"] = (folder / "best.pt").stat().st_size
    (folder / "stage.json").write_text(json.dumps(stamp))
    for stamps in ("scored", "scored_embeddings"):
        shutil.rmtree(folder / stamps)
    score(folder, msud_of(experiment), 1)
    return folder


def test_training_keeps_what_the_dev_part_says(experiment):
    """The toy dev part is too small for a fit, which is said."""
    kept = checkpoint.read(experiment / "best.pt")["calibration"]
    clips = len(lhotse.CutSet.from_file(msud_of(experiment) / "fold1/dev.jsonl.gz"))
    assert kept["clips"] == clips and (kept["reason"] == "") == bool(kept["risks"])
    assert read_metrics(experiment)["run"]["calibration"] == kept


def test_score_files_predictor_model_folder_onnx_and_page_agree(experiment, calibrated, recordings, tmp_path):
    pytest.importorskip("onnx", reason="needs the extra `export`")
    pytest.importorskip("onnxruntime", reason="needs the extra `export`")
    model_folder.write(calibrated, tmp_path / "folder")
    assert main.main(["export-model", str(calibrated / "best.pt"), str(tmp_path / "model.onnx")]) == 0
    paths = list(recordings.values())[:8]
    plain = Predictor(experiment / "best.pt", "cpu").predict(paths)
    scored = {clip.id: clip.posterior for clip in read_scores(calibrated / "scores.tsv")["test"]}
    for model in (calibrated / "best.pt", tmp_path / "folder", tmp_path / "model.onnx"):
        predictor = Predictor(model, "cpu")
        assert predictor.labels == load_trained_model(calibrated / "best.pt").labels
        for name, path, before, clip in zip(recordings, paths, plain, predictor.predict(paths)):
            expected = softmax(np.log(list(before.posterior.values())) / TEMPERATURE)
            assert list(clip.posterior.values()) == pytest.approx(expected.tolist(), abs=1e-3)
            assert list(clip.posterior.values()) == pytest.approx(scored[name], abs=1e-2)  # rounded features
            assert predict_recording(predictor, path).posterior == pytest.approx(clip.posterior, abs=1e-5)
            assert (clip.emotion, clip.eis) == (before.emotion, pytest.approx(before.eis, abs=1e-4))


def test_scores_say_what_the_temperature_did(experiment, calibrated):
    before, after = read_metrics(experiment), read_metrics(calibrated)
    own = DevCalibration.from_dict(before["run"]["calibration"])
    assert after["test.ua"] == before["test.ua"] and after["test.ece"] != before["test.ece"]
    for name in ("ece", "nll"):
        assert after[f"test.{name}_uncalibrated"] == pytest.approx(before[f"test.{name}_uncalibrated"])
        if own.temperature == 1:
            assert before[f"test.{name}_uncalibrated"] == pytest.approx(before[f"test.{name}"])
    clips = read_scores(calibrated / "scores.tsv")["test"]
    nll = -np.mean([np.log(clip.posterior[clip.gold_esc]) for clip in clips])
    assert after["test.nll"] == pytest.approx(nll, abs=1e-2)


def test_the_card_says_what_the_temperature_did_and_what_rejection_gives(calibrated, threshold, tmp_path):
    model_folder.write(calibrated, tmp_path / "folder")
    card, metrics = (tmp_path / "folder/README.md").read_text(), read_metrics(calibrated)
    assert "divided by a temperature of 0.100, fitted on the 60 dev clips" in card
    assert "The dev clips are of training speakers, who are recognised better" in card
    change = f"from {100 * metrics['test.ece_uncalibrated']:.1f} to {100 * metrics['test.ece']:.1f} %"
    assert change in card and "| posterior % | predictions | mean posterior % | accuracy % |" in card
    clips = read_scores(calibrated / "scores.tsv")["test"]
    answered = [clip for clip in clips if max(clip.posterior) >= threshold]
    wrong = sum(clip.predicted_esc != clip.gold_esc for clip in answered)
    row = f"| 10 | 1 of 1 | 41.7 | {100 * len(answered) / len(clips):.1f} | {100 * wrong / len(answered):.1f} |"
    assert row in card and "| 5 | 0 of 1 | n/a | n/a | n/a |" in card


# ---- unsure


@pytest.fixture
def both(calibrated, recordings, threshold):
    """A recording with an answer and one without at an error rate of 0.1."""
    found = dict(zip(recordings.values(), Predictor(calibrated / "best.pt", "cpu").predict(list(recordings.values()))))
    sure = [path for path, clip in found.items() if max(clip.posterior.values()) >= threshold]
    unsure = [path for path, clip in found.items() if max(clip.posterior.values()) < threshold]
    return sure[0], unsure[0]


def test_below_the_threshold_the_answer_is_unsure_with_all_posteriors(predict, calibrated, both, tmp_path):
    sure, unsure = both
    _, plain, _ = predict("--format", "json", *both, model=calibrated / "best.pt")
    status, out, err = predict("--reject", 0.1, "--format", "json", *both, model=calibrated / "best.pt")
    first, second = map(json.loads, out.splitlines())
    first_plain, second_plain = map(json.loads, plain.splitlines())
    assert status == 0 and first == first_plain and first["emotion"] != UNSURE
    assert second == {**second_plain, "emotion": UNSURE, "name": None}
    assert "of the model's 60 held-out clips 41.7 % have an answer, 8.0 % of these a wrong one" in err
    status, out, _ = predict("--reject", 0.1, "--format", "csv", *both, model=calibrated / "best.pt")
    row = list(csv.DictReader(io.StringIO(out)))[1]
    assert (row["emotion"], row["name"]) == (UNSURE, "") and float(row["eis"]) == pytest.approx(second["eis"], abs=1e-4)
    assert [float(row[f"p_{name}"]) for name in second["posterior"]] == pytest.approx(
        list(second["posterior"].values())
    )


def test_the_text_of_an_unsure_answer_has_every_class_and_may_be_replaced(predict, calibrated, both, tmp_path):
    for _ in range(2):  # the second replaces the first
        options = ("--reject", 0.1, "--output", tmp_path / "out.txt")
        assert predict(*options, both[1], model=calibrated / "best.pt")[0] == 0
    line = (tmp_path / "out.txt").read_text()
    (clip,) = Predictor(calibrated / "best.pt", "cpu", reject=0.1)(both[1])
    assert re.search(r": unsure \(\w+ 0\.\d\d, EIS \d\.\d\d\); else ", line)
    assert all(f"{name} {value:.2f}" in line for name, value in clip.posterior.items())


def test_a_model_without_eis_is_unsure_too(predict, calibrated, both, tmp_path):
    content = checkpoint.read(calibrated / "best.pt")
    content["config"]["loss"]["alpha"] = 0.0
    checkpoint.write(tmp_path / "best.pt", content)
    for _ in range(2):
        options = ("--reject", 0.1, "--output", tmp_path / "out.txt")
        assert predict(*options, *both, model=tmp_path / "best.pt")[0] == 0
    assert re.search(r": unsure \(\w+ 0\.\d\d\); else ", (tmp_path / "out.txt").read_text().splitlines()[1])


def test_the_error_rate_of_all_dev_clips_answers_everything(predict, calibrated, both):
    status, out, err = predict("--reject", 0.5, *both, model=calibrated / "best.pt")
    assert status == 0 and UNSURE not in out and "100.0 % have an answer, 50.0 % of these a wrong one" in err


def test_the_page_says_unsure(calibrated, both):
    content = predict_recording(Predictor(calibrated / "best.pt", "cpu", reject=0.1), both[1])
    assert content.summary.startswith("unsure (") and content.timeline[0][2:4] == [UNSURE, ""]
    assert sum(content.posterior.values()) == pytest.approx(1, abs=1e-4)


def test_what_cannot_be_promised_is_one_sentence(predict, experiment, calibrated, both):
    status, out, err = predict("--reject", 0.07, *both, model=calibrated / "best.pt")
    assert status == 1 and out == "" and err.count("\n") == 1
    assert "an error rate of 7 % cannot be reached" in err and "8.0 % (2 wrong of 25 answered, of 60 clips)" in err
    for given in ("1", "-0.1", "ten"):
        status, _, err = predict("--reject", given, *both, model=calibrated / "best.pt")
        assert status == 1 and "is not a number from 0 to below 1" in err and err.count("\n") == 1


def test_a_model_of_before_is_read_at_temperature_1(predict, experiment, both, tmp_path):
    content = checkpoint.read(experiment / "best.pt")
    del content["calibration"]
    checkpoint.write(tmp_path / "best.pt", content)
    assert load_trained_model(tmp_path / "best.pt").labels.calibration == DevCalibration(1.0, 0, (), NOT_FITTED)
    status, _, err = predict("--reject", 0.1, *both, model=tmp_path / "best.pt")
    assert status == 1 and "no threshold is known" in err and NOT_FITTED in err and err.count("\n") == 1


def test_a_damaged_calibration_of_a_model_folder_is_named(calibrated, tmp_path):
    model_folder.write(calibrated, tmp_path / "folder")
    labels = json.loads((tmp_path / "folder/labels.json").read_text())
    del labels["calibration"]
    (tmp_path / "folder/labels.json").write_text(json.dumps(labels))
    assert load_trained_model(tmp_path / "folder").labels.calibration.temperature == 1, "a folder of before"
    labels["calibration"] = {"temperature": 0, "clips": 60, "risks": [], "reason": ""}
    (tmp_path / "folder/labels.json").write_text(json.dumps(labels))
    with pytest.raises(InputError, match="labels.json: its calibration is damaged"):
        load_trained_model(tmp_path / "folder")
