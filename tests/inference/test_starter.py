"""The model that comes with the package."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from speecheq.cli import main
from speecheq.evaluation.metrics import unweighted_accuracy
from speecheq.inference.predictor import Predictor
from speecheq.inference.trained_model import DEFAULT_MODEL

SPEAKER = "03"  # of EMODB: the test part of fold 1
EMOTIONS = {"W": "anger", "L": "disgust", "E": "disgust", "A": "fear", "F": "joy", "T": "sadness", "N": "neutral"}


def test_it_is_a_model_folder_of_at_most_10_mb_with_its_terms():
    files = {path.name: path.stat().st_size for path in DEFAULT_MODEL.iterdir()}
    assert set(files) == {"README.md", "config.yaml", "labels.json", "model.safetensors"}
    assert sum(files.values()) < 10e6
    _, header, card = (DEFAULT_MODEL / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert yaml.safe_load(header)["license"] == "cc-by-4.0" and yaml.safe_load(header)["datasets"] == ["EMODB"]
    assert "version 2.0 (zenodo.org/records/17651657): CC BY 4.0" in card and "## Limits" in card
    revision = card.split("Code at ")[1].split()[0]
    assert not revision.rstrip(".").endswith("dirty")


def test_a_fresh_clone_answers(tmp_path):
    wav = tmp_path / "some.wav"
    soundfile.write(wav, 0.1 * np.random.default_rng(1).standard_normal(32000), 16000)
    done = subprocess.run(
        [sys.executable, "-m", "speecheq.predict", "--gender", str(wav)], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.startswith(f"{wav}: ") and "EIS" in done.stdout, done.stderr


def test_it_says_that_it_learned_no_phones(tmp_path, capsys):
    assert main.main(["predict", "--phones", str(tmp_path / "any.wav")]) == 1
    assert "the model was not trained on phones" in capsys.readouterr().err


def test_the_package_takes_it_along():
    project = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    assert '"speecheq.inference" = ["starter/*", ' in project


def test_real_clips_of_the_speaker_that_it_was_not_trained_on(samples):
    clips = sorted((samples("EMODB") / "wav").glob(f"{SPEAKER}*.wav"))
    predictor = Predictor(gender=True, device="cpu")
    said = [predictor(clip)[0] for clip in clips]
    names = predictor.labels.classes.names
    ua = unweighted_accuracy(
        [names.index(EMOTIONS[clip.stem[5]]) for clip in clips], [names.index(answer.emotion) for answer in said]
    )
    card = (DEFAULT_MODEL / "README.md").read_text()
    stated = float(card.split("| UA (mean recall of the classes) | ")[1].split()[0])
    assert len(clips) == 49 and ua == pytest.approx(stated, abs=0.03)  # files in place of stored features
