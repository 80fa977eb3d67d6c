"""``speecheq predict``: the same in every format, one line for each fault, little to import."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from speecheq import seqm
from speecheq.common.progress import Progress
from speecheq.inference import trained_model
from speecheq.inference.predict_command import SHOW_PROGRESS_FROM, _counted
from speecheq.inference.prediction import ROWS
from speecheq.inference.predictor import Prediction, Predictor
from speecheq.models import checkpoint


def test_a_long_recording_becomes_a_timeline(experiment, predict, write_noise, tmp_path):
    long = write_noise(tmp_path / "long.wav", 10, rate=8000)
    status, out, _ = predict("--window", 4, "--hop", 3, "--format", "json", long)
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and [(row["start"], row["end"]) for row in rows] == [(0, 4), (3, 7), (6, 10)]
    (window,) = Predictor(experiment / "best.pt")(soundfile.read(long, dtype="float32")[0][24000:56000], 8000)
    assert rows[1]["posterior"] == pytest.approx(window.posterior, abs=1e-5), "a window is a clip of its own"
    status, out, _ = predict("--window", 4, "--hop", 3, "--format", "text", long)
    assert "long.wav 3.00-7.00 s: " in out


def test_gaps_between_windows_are_said(predict, write_noise, tmp_path):
    status, out, err = predict("--window", 2, "--hop", 3, write_noise(tmp_path / "a.wav", 8))
    assert status == 0 and "--hop 3 is longer than --window 2: the 1 s between two windows are not predicted" in err
    assert [line.split(" s: ")[0].split()[-1] for line in out.splitlines()] == ["0.00-2.00", "3.00-5.00", "6.00-8.00"]


@pytest.mark.parametrize("format", ROWS)
def test_silence_and_clipping_are_noted(predict, tmp_path, format):
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "clipped.wav", np.clip(np.random.default_rng(0).standard_normal(16000), -1, 1), 16000)
    status, out, _ = predict("--format", format, tmp_path)
    assert status == 0 and "silence" in out and "clipping" in out


def test_all_formats_hold_the_same(predict, wav, tmp_path):
    options = ("--gender", "--phones", wav)
    _, text, _ = predict(*options)
    _, as_json, _ = predict(*options, "--format", "json")
    assert predict(*options, "--format", "csv", "--output", tmp_path / "out.csv")[:2] == (0, "")
    row = json.loads(as_json)
    (cells,) = csv.DictReader(open(tmp_path / "out.csv", encoding="utf-8"))
    assert cells["emotion"] == row["emotion"] and cells["name"] == row["name"] and cells["gender"] == row["gender"]
    assert float(cells["eis"]) == pytest.approx(row["eis"], abs=1e-4)
    assert sum(float(cells[f"p_{name}"]) for name in seqm.CATEGORIES) == pytest.approx(1, abs=1e-4)
    assert cells["phones"].split() == row["phones"]
    assert text.startswith(f"{wav}: {row['name']} ({row['emotion']} {max(row['posterior'].values()):.2f}, EIS ")


def test_a_model_that_was_not_trained_on_intensity_names_the_class_alone(experiment, predictor, predict, wav, tmp_path):
    content = checkpoint.read(experiment / "best.pt")
    content["config"]["loss"]["alpha"] = 0.0
    checkpoint.write(tmp_path / "best.pt", content)
    (there,) = Predictor(tmp_path / "best.pt")(wav)
    (here,) = predictor(wav)
    assert there.eis is there.name is None
    assert there.emotion == here.emotion and there.posterior == pytest.approx(here.posterior)
    status, out, _ = predict(wav, model=tmp_path / "best.pt")
    assert status == 0 and f": {there.emotion} {there.posterior[there.emotion]:.2f}; else " in out
    status, out, _ = predict("--format", "csv", wav, model=tmp_path / "best.pt")
    (row,) = csv.DictReader(io.StringIO(out))
    assert status == 0 and (row["emotion"], row["name"], row["eis"]) == (there.emotion, "", "")


def test_a_recording_that_cannot_be_read_is_one_line_and_the_others_are_predicted(predict, wav, tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "nan.wav", np.full(16000, np.nan), 16000, subtype="FLOAT")
    status, out, err = predict(tmp_path, tmp_path / "missing.wav")
    assert status == 1 and out.count("\n") == 1 and str(wav) in out
    assert all(word in err for word in ("text.wav: is not audio", "nan.wav: holds samples that", "missing.wav: there"))
    assert "3 of 4 recordings could not be predicted" in err.splitlines()[-1] and "Traceback" not in err
    assert len(err.splitlines()) == 4


@pytest.mark.parametrize("format", ROWS)
def test_a_name_that_is_not_utf_8_is_one_line_and_the_others_are_predicted(predict, wav, tmp_path, format):
    shutil.copy(wav, os.fsencode(tmp_path) + b"/a\xff.wav")
    status, out, err = predict("--format", format, tmp_path)
    assert status == 1 and "one.wav" in out and "Traceback" not in err
    assert r"a\udcff.wav: the name of a file or folder is not UTF-8; rename it." in err
    assert "1 of 2 recordings could not be predicted" in err.splitlines()[-1] and len(err.splitlines()) == 2


def test_a_recording_that_breaks_off_is_reported_once(predict, write_noise, tmp_path):
    path = write_noise(tmp_path / "broken.flac", 8)
    path.write_bytes(path.read_bytes()[:120000])
    status, out, err = predict("--window", 1, path)
    assert status == 1 and err.count("broken.flac") == 1 and "1 of 1 recordings" in err


def test_progress_is_shown_for_many_recordings(predict, wav):
    count = SHOW_PROGRESS_FROM
    status, out, err = predict(*[wav] * count)
    assert status == 0 and len(out.splitlines()) == count and f"{count}/{count} recordings" in err


def test_progress_follows_the_answers_and_not_the_reading():
    windows = [Prediction("long.wav", start, start + 6.0, windowed=True) for start in (0.0, 3.0, 6.0)]
    whole = Prediction("a.wav", 0.0, 1.0)
    with Progress("predicting", 5, "recordings", terminal=False) as shown:
        counts = [shown.count for _ in _counted([whole, whole, *windows, *windows], shown)]
        assert counts == [0, 1, 2, 3, 3, 3, 4, 4] and shown.count == 4


def test_errors_about_standard_input_name_no_temporary_file(predict, monkeypatch, tmp_path):
    content = io.BytesIO()
    soundfile.write(content, np.full(16000, np.nan), 16000, format="WAV", subtype="FLOAT")
    for given in (b"", b"no audio", b"\0\0\0\x20ftypM4A ", content.getvalue()):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        status, _, err = predict("-")
        assert status == 1 and "standard input: " in err and "standard-input." not in err


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--model", "nowhere/best.pt"], "nowhere/best.pt: there is no such model"),
        (["--hop", "2"], "give --window too"),
        (["--window", "0"], "is not a number above 0"),
        (["--window", "0.01"], "a window of 0.01 s is not possible, so little speech has no class; choose 0.3 s"),
        (["--window", "1", "--hop", "0.001"], "a hop of 0.001 s is not possible"),
        ([], "no model is given"),
    ],
)
def test_faults_of_the_command_are_one_line(predict, arguments, sentence, wav, monkeypatch, tmp_path):
    monkeypatch.setattr(trained_model, "DEFAULT_MODEL", tmp_path / "none")
    status, out, err = predict(wav, *arguments, model=None)
    assert status == 1 and out == "" and sentence in err and len(err.splitlines()) == 1


def test_python_m_speecheq_predict_is_the_command_and_reads_standard_input(experiment, toys, wav):
    model = str(experiment / "best.pt")
    command = [sys.executable, "-m", "speecheq.predict", "--model", model, "--format", "json", "-"]
    done = subprocess.run(command, input=wav.read_bytes(), capture_output=True, cwd=toys.root)
    assert done.returncode == 0 and json.loads(done.stdout)["source"] == "-", done.stderr


@pytest.mark.parametrize(
    "arguments, absent",
    [(["--help"], ("speecheq.cli", "numpy", "torch", "lhotse")), (["some.wav"], ("speecheq.cli",))],
    ids=["help", "predict"],
)
def test_python_m_speecheq_predict_does_not_import_the_command_line(write_noise, toys, tmp_path, arguments, absent):
    write_noise(tmp_path / "some.wav", 1)
    program = f"""if True:
        import atexit, runpy, sys
        atexit.register(lambda: print("imported:", [name for name in {absent} if name in sys.modules]))
        sys.argv[1:] = {arguments}
        runpy.run_module("speecheq.predict", run_name="__main__")"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "imported: []", done.stdout + done.stderr
