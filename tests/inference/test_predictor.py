"""What a trained model says of recordings: the same as stage 5, in every form, and one sentence for each fault."""

import csv
import doctest
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import lhotse
import numpy as np
import pytest
import soundfile
import torch
from rapidfuzz.distance import Levenshtein

from speecheq import seqm
from speecheq.cli import main
from speecheq.common.errors import InputError
from speecheq.evaluation.score import read_scores
from speecheq.inference import predictor as predict
from speecheq.inference.predictor import Predictor
from speecheq.inference.recordings import Part


@pytest.fixture(scope="module")
def predictor(experiment):
    return Predictor(experiment / "best.pt", "cpu", gender=True, phones=True)


@pytest.fixture(scope="module")
def clips(experiment):
    """Test clips by id."""
    cuts = lhotse.CutSet.from_file(experiment.parents[4] / "msud/casia.speaker/fold1/test.jsonl.gz")
    return {cut.id: cut.recording.sources[0].source for cut in cuts}


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "one.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(1).standard_normal(16000), 16000)
    return path


def run(capsys, *arguments):
    """(exit status, standard output, standard error) of the command."""
    capsys.readouterr()
    status = main.main(["predict", *map(str, arguments)])
    return status, *capsys.readouterr()


def test_it_says_what_stage_5_scored(experiment, predictor, clips):
    gold = {p.id: p for p in read_scores(experiment / "scores.tsv")["test"]}
    said = list(predictor.of_parts([Part(name, path) for name, path in clips.items()], pytest.fail))
    assert [p.source for p in said] == list(clips) and set(clips) == set(gold)
    for p in said:
        scored = gold[p.source]
        # stored features are rounded to steps of 2^-10
        assert list(p.posterior.values()) == pytest.approx(scored.posterior, abs=1e-3)
        assert p.eis == pytest.approx(scored.predicted_eis, abs=5e-3)
        assert p.gender == scored.predicted_gender
        assert p.emotion == max(p.posterior, key=p.posterior.get)
        assert p.name == seqm.emotion_name(p.emotion, p.eis)


def test_phones_are_those_that_stage_5_scored(experiment, predictor):
    rows = list(csv.DictReader(open(experiment / "phones.tsv", encoding="utf-8"), delimiter="\t"))
    wavs = {path.stem: path for path in (experiment.parents[4] / "aishell").rglob("*.wav")}
    said = list(predictor.of_parts([Part(row["utt"], wavs[row["utt"].split("-")[-1]]) for row in rows], pytest.fail))
    decoded = [row["decoded"].split() for row in rows]
    # of two phones that are as good as equal, rounded features may choose the other one
    differing = sum(Levenshtein.distance(p.phones, scored) for p, scored in zip(said, decoded))
    assert len(said) == len(rows) > 0 and differing <= 0.05 * sum(map(len, decoded))


def test_the_mini_batch_changes_nothing(experiment, predictor, clips, tmp_path):
    lengths = (0.3, 0.5, 1.1, 0.7)
    parts = []
    for number, seconds in enumerate(lengths):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, 0.1 * np.random.default_rng(number).standard_normal(round(seconds * 16000)), 16000)
        parts.append(Part(str(number), path))
    together = list(predictor.of_parts(parts, pytest.fail))
    alone = [predictor(part.path)[0] for part in parts]
    assert [p.source for p in together] == ["0", "1", "2", "3"]
    for a, b in zip(together, alone):
        assert list(a.posterior.values()) == pytest.approx(list(b.posterior.values()), abs=1e-5)
        assert (a.eis, a.phones) == (pytest.approx(b.eis, abs=1e-5), b.phones)


def test_samples_are_predicted_like_their_file(predictor, wav):
    samples, rate = soundfile.read(wav, dtype="float32")
    (from_file,) = predictor(wav)
    (from_samples,) = predictor(samples, rate)
    assert from_samples.posterior == from_file.posterior
    with pytest.raises(InputError, match="with their rate"):
        predictor(samples)


def test_the_example_in_the_docstring_runs(experiment, monkeypatch, tmp_path):
    """Its words follow from the model; that every line runs is what counts."""
    home = tmp_path / "exp/small-speecheq/casia.random10/fold1/seed1"
    home.parent.mkdir(parents=True)
    home.symlink_to(experiment)
    noise = 0.1 * np.random.default_rng(0).standard_normal(31 * 16000)
    soundfile.write(tmp_path / "some.wav", noise[:32000], 16000)
    soundfile.write(tmp_path / "an-hour.flac", noise, 16000)
    monkeypatch.chdir(tmp_path)
    (example,) = (test for test in doctest.DocTestFinder().find(Predictor, globs=vars(predict).copy()) if test.examples)
    assert len(example.examples) == 4
    for line in example.examples:
        line.want = "..." if line.want else ""
    report = io.StringIO()
    failed = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.write).failed
    assert not failed, report.getvalue()


def test_a_long_recording_becomes_a_timeline(experiment, tmp_path, capsys):
    soundfile.write(tmp_path / "long.wav", 0.1 * np.random.default_rng(0).standard_normal(8000 * 10), 8000)
    options = ("--model", experiment / "best.pt", "--window", 4, "--hop", 3, "--format", "json")
    status, out, _ = run(capsys, *options, tmp_path / "long.wav")
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and [(row["start"], row["end"]) for row in rows] == [(0, 4), (3, 7), (6, 10)]
    (window,) = Predictor(experiment / "best.pt")(
        soundfile.read(tmp_path / "long.wav", dtype="float32")[0][24000:56000], 8000
    )
    assert rows[1]["posterior"] == pytest.approx(window.posterior, abs=1e-5), "a window is a clip of its own"
    status, out, _ = run(capsys, *options[:-1], "text", tmp_path / "long.wav")
    assert "long.wav 3.00-7.00 s: " in out


GROWTH = """
import resource, sys
from speecheq.predict import Predictor
from speecheq.inference.recordings import Windows

checkpoint, part, hour = sys.argv[1:]
predictor = Predictor(checkpoint, "cpu", windows=Windows(60, 90))
predictor(part)  # reaches the usual peak: two groups of windows, a full mini-batch
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
said = predictor(hour)
print(len(said), said[-1].end, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_an_hour_is_predicted_in_bounded_memory(experiment, tmp_path):
    minute = 0.1 * np.random.default_rng(0).standard_normal(60 * 16000)
    for name, minutes in (("part", 18), ("hour", 60)):
        with soundfile.SoundFile(tmp_path / f"{name}.wav", "w", 16000, 1) as recording:
            for _ in range(minutes):
                recording.write(minute)
    # in a process of its own: what malloc keeps of other tests would be measured too
    arguments = [experiment / "best.pt", tmp_path / "part.wav", tmp_path / "hour.wav"]
    # malloc gives large blocks back at once; else the peak is that of holes in its heaps, by chance tens of MB
    malloc = {
        "MALLOC_MMAP_THRESHOLD_": "131072",
        "MALLOC_MMAP_MAX_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "131072",
        "MALLOC_ARENA_MAX": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **malloc},
    )
    assert done.returncode == 0, done.stderr
    windows, end, growth = done.stdout.split()
    assert (int(windows), float(end)) == (41, 3600)
    # the samples that the hour has more are 160 MB, their features 80 MB
    assert int(growth) < 50_000, f"the peak of memory grew by {growth} kB"


def test_silence_says_nothing_and_clipping_is_noted(predictor, tmp_path, capsys, experiment):
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "clipped.wav", np.clip(np.random.default_rng(0).standard_normal(16000), -1, 1), 16000)
    (silent,) = predictor(tmp_path / "silent.wav")
    (clipped,) = predictor(tmp_path / "clipped.wav")
    assert (silent.note, silent.emotion, silent.eis, silent.posterior) == ("silence", None, None, None)
    assert clipped.note == "clipping" and clipped.emotion is not None
    for format in predict.FORMATS:
        status, out, _ = run(capsys, "--model", experiment / "best.pt", "--format", format, tmp_path)
        assert status == 0 and "silence" in out and "clipping" in out


def test_formats_say_the_same(experiment, wav, tmp_path, capsys):
    options = ("--model", experiment / "best.pt", "--gender", "--phones", wav)
    _, text, _ = run(capsys, *options)
    _, as_json, _ = run(capsys, *options, "--format", "json")
    assert run(capsys, *options, "--format", "csv", "--output", tmp_path / "out.csv")[:2] == (0, "")
    row = json.loads(as_json)
    (cells,) = csv.DictReader(open(tmp_path / "out.csv", encoding="utf-8"))
    assert cells["emotion"] == row["emotion"] and cells["name"] == row["name"] and cells["gender"] == row["gender"]
    assert float(cells["eis"]) == pytest.approx(row["eis"], abs=1e-4)
    assert sum(float(cells[f"p_{name}"]) for name in seqm.CATEGORIES) == pytest.approx(1, abs=1e-4)
    assert cells["phones"].split() == row["phones"]
    assert text.startswith(f"{wav}: {row['name']} ({row['emotion']} {max(row['posterior'].values()):.2f}, EIS ")


def test_what_cannot_be_read_is_told_in_a_line_and_the_rest_goes_on(experiment, wav, tmp_path, capsys):
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "nan.wav", np.full(16000, np.nan), 16000, subtype="FLOAT")
    status, out, err = run(capsys, "--model", experiment / "best.pt", tmp_path, tmp_path / "missing.wav")
    assert status == 1 and out.count("\n") == 1 and str(wav) in out
    assert all(word in err for word in ("text.wav: is not audio", "nan.wav: holds samples that", "missing.wav: there"))
    assert "3 of 4 recordings could not be predicted" in err.splitlines()[-1] and "Traceback" not in err
    assert len(err.splitlines()) == 4


def test_a_recording_that_breaks_off_is_told_once(experiment, tmp_path, capsys):
    path = tmp_path / "broken.flac"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(8 * 16000), 16000)
    path.write_bytes(path.read_bytes()[:120000])
    status, out, err = run(capsys, "--model", experiment / "best.pt", "--window", 1, path)
    assert status == 1 and err.count("broken.flac") == 1 and "1 of 1 recordings" in err


def test_progress_is_shown_for_many_recordings(experiment, wav, capsys):
    status, out, err = run(capsys, "--model", experiment / "best.pt", *[wav] * predict.MANY)
    assert status == 0 and len(out.splitlines()) == predict.MANY and f"{predict.MANY}/{predict.MANY} recordings" in err


def test_the_module_is_the_command_and_reads_standard_input(experiment, wav):
    model = str(experiment / "best.pt")
    command = [sys.executable, "-m", "speecheq.predict", "--model", model, "--format", "json", "-"]
    root = Path(predict.__file__).parents[2]
    done = subprocess.run(command, input=wav.read_bytes(), capture_output=True, cwd=root)
    assert done.returncode == 0 and json.loads(done.stdout)["source"] == "-", done.stderr


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--model", "nowhere/best.pt"], "nowhere/best.pt: there is no such model"),
        (["--hop", "2"], "give --window too"),
        (["--window", "0"], "is not a number above 0"),
        ([], "no model is given"),
    ],
)
def test_faults_of_the_command_are_one_line(arguments, sentence, wav, capsys, monkeypatch, tmp_path):
    from speecheq.inference import trained_model

    monkeypatch.setattr(trained_model, "DEFAULT_MODEL", tmp_path / "none")
    status, out, err = run(capsys, wav, *arguments)
    assert status == 1 and out == "" and sentence in err and len(err.splitlines()) == 1


def test_a_task_that_was_not_trained_is_refused(experiment, tmp_path):
    from speecheq.inference.trained_model import Labels
    from speecheq.models import checkpoint

    content = checkpoint.read(experiment / "best.pt")
    content["config"]["loss"].update(beta=0.0, eta=0.0)
    checkpoint.write(tmp_path / "best.pt", content)
    for task in ("gender", "phones"):
        with pytest.raises(InputError, match=f"was not trained on {task}"):
            Predictor(tmp_path / "best.pt", **{task: True})
    labels = Predictor(tmp_path / "best.pt").labels
    assert isinstance(labels, Labels) and labels.genders == labels.phones == ()


def test_a_model_that_was_not_trained_on_intensity_names_the_class_alone(experiment, predictor, wav, tmp_path, capsys):
    from speecheq.models import checkpoint

    content = checkpoint.read(experiment / "best.pt")
    content["config"]["loss"]["alpha"] = 0.0
    checkpoint.write(tmp_path / "best.pt", content)
    (there,) = Predictor(tmp_path / "best.pt")(wav)
    (here,) = predictor(wav)
    assert there.eis is there.name is None
    assert there.emotion == here.emotion and there.posterior == pytest.approx(here.posterior)
    assert main.main(["predict", "--model", str(tmp_path / "best.pt"), str(wav)]) == 0
    assert f": {there.emotion} {there.posterior[there.emotion]:.2f}; else " in capsys.readouterr().out
    assert main.main(["predict", "--model", str(tmp_path / "best.pt"), "--format", "csv", str(wav)]) == 0
    heads, cells = csv.reader(io.StringIO(capsys.readouterr().out))
    row = dict(zip(heads, cells))
    assert (row["emotion"], row["name"], row["eis"]) == (there.emotion, "", "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_a_gpu_that_is_not_there_is_said(experiment):
    with pytest.raises(InputError, match="torch finds no GPU"):
        Predictor(experiment / "best.pt", "cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_says_the_same(experiment, predictor, wav):
    (there,) = Predictor(experiment / "best.pt", "cuda")(wav)
    (here,) = predictor(wav)
    assert list(there.posterior.values()) == pytest.approx(list(here.posterior.values()), abs=1e-3)
