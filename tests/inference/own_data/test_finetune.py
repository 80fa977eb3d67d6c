"""``speecheq finetune``: from a table to a scored model, and the same folds by the commands and the recipe it names."""

import csv
import os
import shlex
import subprocess

import pytest
import soundfile
import yaml
from encoder_models import write_whisper
from speech_like import speech_like

from speecheq.cli import main
from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.evaluation.calibration import DevCalibration
from speecheq.inference.own_data import start as starts
from speecheq.inference.own_data.plan import RECIPE, Request, make_plan
from speecheq.inference.predictor import Predictor
from speecheq.models.checkpoint import load_model

STEPS = 2


@pytest.fixture
def few_steps(monkeypatch):
    for settings in (starts.LIGHT, starts.SMALL, starts.ADAPT):
        monkeypatch.setitem(settings["optim"], "max_steps", STEPS)
        monkeypatch.setitem(settings["optim"], "warmup_steps", 0)
    monkeypatch.setitem(starts.FIXED_STEPS, "run", {"threads": 1, "device": "cpu"})


@pytest.fixture
def table(tmp_path):
    """27 clips of three speakers in three classes."""
    rows = []
    for number, label in enumerate(("anger", "joy", "neutral")):
        for speaker in "abc":
            for take in range(3):
                path = tmp_path / "clips" / f"{label}-{speaker}{take}.wav"
                path.parent.mkdir(exist_ok=True)
                soundfile.write(path, speech_like(0.6, pitch=100 + 40 * number + 5 * take), 16000)
                rows.append([f"clips/{path.name}", label, speaker])
    with open(tmp_path / "mine.csv", "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("path", "label", "speaker"), *rows])
    return tmp_path / "mine.csv"


def finetune(table, *options, out="model"):
    return main.main(["finetune", str(table), "--out", str(table.parent / out), "--nj", "1", *map(str, options)])


def test_a_table_becomes_a_scored_model(table, few_steps, no_pictures, experiment, capsys):
    out = table.parent / "model"
    assert finetune(table, "--from", experiment / "best.pt", "--licence", "mit") == 0
    said = capsys.readouterr().out
    assert "mine, speaker: WA" in said and "pooled UA" in said and f"{out}: the model of all 27 clips" in said
    (prediction,) = Predictor(out)(table.parent / "clips" / "joy-a0.wav")
    assert prediction.emotion in ("anger", "joy", "neutral") and len(prediction.posterior) == 3
    card = (out / "README.md").read_text()
    assert "All 27 clips of emotion were trained on, for 2 steps" in card
    assert "3 of 3 folds" in card and "27 clips of 3 speakers were tested" in card and "without its speaker" in card
    assert "UA (mean recall of the classes) | 0." in card and "The weights: mit" in card
    assert "started from the weights of a model: see its licence" in card
    work = table.parent / "model.work"
    fold = next(work.glob("final/*/mine.all.corpus_classes/fold1"))
    msud = read_json(work / "data/msud/mine.all.corpus_classes/fold1/msud.json")
    assert msud["sets"]["emotion"]["clips"] == 27 and msud["sets"]["test"]["clips"] == msud["sets"]["dev"]["clips"] == 0
    trained, config, content = load_model(fold / "seed1" / "best.pt")
    assert content["calibration"]["reason"].startswith("all clips were trained on")
    assert config.loss.alpha == config.loss.eta == config.loss.beta == 0, "the table has no intensity and no gender"
    calibration = DevCalibration.from_dict(read_json(out / "labels.json")["calibration"])
    assert calibration.clips == 27 and calibration.risks, "from the clips of the folds"
    assert "error rate of P on the test clips of the folds" in card
    before = (out / "model.safetensors").stat().st_mtime_ns
    commands = (work / "commands.sh").read_text()
    assert "speecheq train" in commands and "run.sh --corpus mine=" in commands
    assert finetune(table, "--from", experiment / "best.pt", "--licence", "mit") == 0, "a second time all is done"
    assert "skip" in capsys.readouterr().err and (out / "model.safetensors").stat().st_mtime_ns > before


def test_the_folder_of_another_thing_is_not_replaced(table, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("precious")
    assert finetune(table, out="other") == 1
    assert finetune(table, out=".") == 1
    assert (tmp_path / "other" / "thesis.tex").exists()


def test_the_starter_gives_its_encoder_and_weights(table, tmp_path):
    plan = make_plan(Request(table, "starter", tmp_path / "out", tmp_path / "work"))
    assert plan.start.init_from == starts.STARTER_FOLDER and plan.start.speech_activity == "silero"
    assert plan.start.features == f"starter={starts.STARTER_FOLDER}"
    settings = yaml.safe_load((tmp_path / "work" / "conf" / "finetune.yaml").read_text())
    assert settings["model"] == {"kind": "light", "pooling": "mean", "embedding_dim": 256, "dropout": 0.7}
    assert settings["loss"]["alpha"] == 0 and settings["optim"]["select"] == "last"


def test_starts_that_cannot_be(table, tmp_path, own_experiment):
    with pytest.raises(InputError, match="there is no such model"):
        make_plan(Request(table, "no/such/model.pt", tmp_path / "out", tmp_path / "work"))
    onnx = tmp_path / "some.onnx"
    onnx.write_bytes(b"")
    with pytest.raises(InputError, match="an ONNX file cannot be trained further"):
        make_plan(Request(table, str(onnx), tmp_path / "out", tmp_path / "work"))


@pytest.mark.slow
def test_from_an_encoder_and_from_nothing(table, few_steps, no_pictures, monkeypatch):
    monkeypatch.setitem(starts.WHISPER_SET, "layers", "1 2")
    whisper = write_whisper(table.parent / "whisper-tiny")
    assert finetune(table, "--from", f"whisper-base={whisper}", out="a") == 0
    card = (table.parent / "a" / "README.md").read_text()
    assert "the states of layers 1 2 of whisper-tiny" in card and "started from" not in card
    monkeypatch.setitem(starts.SMALL, "model", {"channels": 16, "mfa_channels": 24, "bottleneck": 8, "scale": 4})
    assert finetune(table, "--from", "nothing", out="b") == 0
    assert "80 log mel filter banks" in (table.parent / "b" / "README.md").read_text()


@pytest.mark.slow
def test_the_recipe_that_it_names_makes_the_same_folds(table, few_steps, no_pictures, warm_venv):
    assert finetune(table) == 0
    work = table.parent / "model.work"
    line = (work / "commands.sh").read_text().splitlines()[-1].removeprefix("# ")
    assert shlex.split(line)[0] == str(RECIPE)
    environment = {**os.environ, "SPEECHEQ_VENV": str(warm_venv)}
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, cwd=table.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    ours, recipes = (
        next(folder.glob("exp/finetune-starter-speecheq/*/metrics.json")) for folder in (work, work / "recipe")
    )
    for name in ("pooled.test.ua", "test.wa"):
        assert read_json(ours)[name] == pytest.approx(read_json(recipes)[name])
    card = (table.parent / "model" / "README.md").read_text()
    assert "started from the weights of starter, whose licence is cc-by-nc-sa-4.0" in card
