"""The Predictor: the same as stage 5, in any mini-batch, in bounded memory, with one sentence for each fault."""

import csv
import doctest
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import lhotse
import numpy as np
import pytest
import soundfile
import torch
from rapidfuzz.distance import Levenshtein
from speech_like import RATE, speech_like

from speecheq import seqm
from speecheq.common.errors import InputError
from speecheq.evaluation.score_files import read_scores
from speecheq.inference import prediction as prediction_module
from speecheq.inference import predictor as predictor_module
from speecheq.inference import windows
from speecheq.inference.predictor import Prediction, Predictor
from speecheq.inference.recordings import Segment
from speecheq.inference.windows import Windows
from speecheq.models import checkpoint


def test_predictions_are_those_that_stage_5_scored(experiment, predictor):
    cuts = lhotse.CutSet.from_file(experiment.parents[4] / "msud/casia.speaker/fold1/test.jsonl.gz")
    segments = [Segment(cut.id, cut.recording.sources[0].source) for cut in cuts]
    gold = {p.id: p for p in read_scores(experiment / "scores.tsv")["test"]}
    predictions = list(predictor.predict_segments(segments, pytest.fail))
    assert [p.source for p in predictions] == [segment.name for segment in segments]
    assert {segment.name for segment in segments} == set(gold)
    for p in predictions:
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
    segments = [Segment(row["utt"], wavs[row["utt"].split("-")[-1]]) for row in rows]
    predictions = list(predictor.predict_segments(segments, pytest.fail))
    scored = [row["decoded"].split() for row in rows]
    # of two phones that are as good as equal, rounded features may choose the other one
    differing = sum(Levenshtein.distance(p.phones, decoded) for p, decoded in zip(predictions, scored))
    assert len(predictions) == len(rows) > 0 and differing <= 0.05 * sum(map(len, scored))


def test_the_mini_batch_changes_nothing(predictor, write_noise, tmp_path):
    segments = [
        Segment(str(number), write_noise(tmp_path / f"{number}.wav", seconds, seed=number))
        for number, seconds in enumerate((0.3, 0.5, 1.1, 0.7))
    ]
    together = list(predictor.predict_segments(segments, pytest.fail))
    alone = [predictor(segment.path)[0] for segment in segments]
    assert [p.source for p in together] == ["0", "1", "2", "3"]
    for a, b in zip(together, alone):
        assert list(a.posterior.values()) == pytest.approx(list(b.posterior.values()), abs=1e-5)
        assert (a.eis, a.phones) == (pytest.approx(b.eis, abs=1e-5), b.phones)


def test_samples_are_predicted_like_their_file(predictor, wav):
    samples, rate = soundfile.read(wav, dtype="float32")
    (from_file,) = predictor(wav)
    (from_samples,) = predictor(samples, rate)
    assert from_samples.posterior == from_file.posterior
    with pytest.raises(InputError, match="samples must have .* a sampling rate in Hz"):
        predictor(samples)


@pytest.mark.parametrize(
    "source, rate, sentence",
    [
        ([0.1] * 16000, 16000, "a recording is a path, or samples as a numpy array, and this is of the type list"),
        (["a.wav", "b.wav"], None, "type list; .* give several recordings one after the other"),
        (torch.zeros(16000), 16000, "type Tensor; convert samples with numpy.asarray"),
        (b"RIFF", None, "type bytes"),
        (None, None, "type NoneType"),
        (np.zeros(16000), 8000.5, "a whole number of Hz above 0, and is 8000.5"),
        (np.zeros(16000), "8000", "a whole number of Hz above 0, and is '8000'"),
        (np.zeros(16000), -8000, "a whole number of Hz above 0, and is -8000"),
        (np.zeros(16000), float("nan"), "a whole number of Hz above 0, and is nan"),
        (np.zeros((16000, 0)), 16000, r"samples must have the shape"),
        (np.zeros(16000, complex), 16000, "samples must be real numbers, and these are of the type complex128"),
        (np.array(["a"] * 16000), 16000, "samples must be real numbers"),
    ],
)
def test_what_is_no_recording_is_one_sentence(predictor, source, rate, sentence):
    with pytest.raises(InputError, match=sentence):
        predictor(source, rate)


def test_threads_get_the_answers_that_each_gets_alone(experiment, write_noise, tmp_path):
    """Of a detector of speech with a state, of recordings of many lengths, and of their pictures."""
    shared = Predictor(experiment / "best.pt", "cpu", phones=True, speech_activity="silero", windows=Windows(length=1))
    wavs = []
    for number in range(8):
        wavs.append(tmp_path / f"{number}.wav")
        soundfile.write(wavs[-1], speech_like(0.7 + 0.3 * number, 90 + 20 * number), RATE)

    def answer(wav):
        timeline = shared.timeline(wav)
        return timeline.segments, timeline._repr_html_()

    alone = {wav: answer(wav) for wav in wavs}
    order = [wavs[number * 5 % len(wavs)] for number in range(3 * len(wavs))]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(answer, order))
    for wav, (segments, picture) in zip(order, together):
        expected, drawn = alone[wav]
        assert [one.emotion for one in segments] == [one.emotion for one in expected] and picture == drawn
        for one, other in zip(segments, expected):
            assert one.posterior == pytest.approx(other.posterior, abs=1e-6)
            assert (one.start, one.end, one.phones) == (other.start, other.end, other.phones)


def test_sources_are_those_of_the_command(predictor, predict, write_noise, tmp_path):
    folder = tmp_path / "of one"
    folder.mkdir()
    wavs = [write_noise(folder / f"{number}.wav", 0.5, seed=number) for number in range(2)]
    errors = []
    found = predictor.predict([folder, tmp_path / "none.wav", wavs[0]], on_error=errors.append)
    assert [one.source for one in found] == [*map(str, wavs), str(wavs[0])] and "none.wav" in str(*errors)
    _, out, _ = predict("--gender", "--phones", "--format", "json", folder)
    assert [one["posterior"] for one in map(json.loads, out.splitlines())] == [
        pytest.approx(one.posterior, abs=1e-6) for one in found[:2]
    ]
    with pytest.raises(InputError, match="none.wav"):
        predictor.predict([tmp_path / "none.wav"])
    with pytest.raises(InputError, match="a timeline is of one recording, and there are 2"):
        predictor.timeline(folder)
    assert [one.source for one in predictor.timelines([folder])] == [*map(str, wavs)]


@pytest.mark.parametrize(
    "paths, sentence",
    [
        ("some.wav", "recordings are a list of paths, and this is of the type str"),
        (None, "of the type NoneType"),
        ([5], "a recording is a path, .* of the type int"),
    ],
)
def test_what_are_no_recordings_is_one_sentence(predictor, paths, sentence):
    with pytest.raises(InputError, match=sentence):
        predictor.predict(paths)


def test_a_rate_may_be_any_kind_of_whole_number(predictor, wav):
    samples, rate = soundfile.read(wav, dtype="float32")
    (expected,) = predictor(samples, rate)
    for other in (float(rate), np.int64(rate), np.float32(rate)):
        assert predictor(samples, other)[0].posterior == expected.posterior


def test_the_summary_names_what_is_known():
    prediction = Prediction("a.wav", 0.0, 1.0, "anger", "rage", 3.5, {"joy": 0.25, "anger": 0.75}, "F", {"F": 0.9})
    assert prediction.summary() == "rage (anger 0.75, EIS 3.50); else joy 0.25; F 0.90"
    prediction = replace(prediction, name=None, eis=None, gender=None, phones=[], note="clipping")
    assert prediction.summary() == "anger 0.75; else joy 0.25; phones none; clipping"
    assert Prediction("a.wav", 0.0, 1.0, note="silence").summary() == "silence"


def test_the_examples_in_docstrings_run(experiment, monkeypatch, tmp_path, write_noise):
    """What the example of Predictor prints follows from the model: there, that every line runs is what counts."""
    home = tmp_path / "exp/small-speecheq/casia.random10/fold1/seed1"
    home.parent.mkdir(parents=True)
    home.symlink_to(experiment)
    write_noise(tmp_path / "some.wav", 2)
    write_noise(tmp_path / "an-hour.flac", 31)
    monkeypatch.chdir(tmp_path)
    examples = {}
    for module in (predictor_module, prediction_module, windows):
        examples.update({test.name.rpartition(".")[2]: test for test in doctest.DocTestFinder().find(module)})
    assert {name for name, test in examples.items() if test.examples} == {"Predictor", "Prediction", "Windows"}
    for line in examples["Predictor"].examples:
        line.want = "..." if line.want else ""
    report = []
    for example in examples.values():
        doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append)
    assert not report, "".join(report)


GROWTH = """
import resource, sys
from speecheq import Predictor, Windows

checkpoint, part, hour = sys.argv[1:]
predictor = Predictor(checkpoint, "cpu", windows=Windows(60, 90))
predictor(part)  # reaches the usual peak: two groups of windows, a full mini-batch
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
predictions = predictor(hour)
print(len(predictions), predictions[-1].end, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
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
    command = [sys.executable, "-c", GROWTH, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **malloc})
    assert done.returncode == 0, done.stderr
    windows, end, growth = done.stdout.split()
    assert (int(windows), float(end)) == (41, 3600)
    # the samples that the hour has more are 160 MB, their features 80 MB
    assert int(growth) < 50_000, f"the peak of memory grew by {growth} kB"


def test_silence_is_not_predicted_and_clipping_is_noted(predictor, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "clipped.wav", np.clip(np.random.default_rng(0).standard_normal(16000), -1, 1), 16000)
    (silent,) = predictor(tmp_path / "silent.wav")
    (clipped,) = predictor(tmp_path / "clipped.wav")
    assert (silent.note, silent.emotion, silent.eis, silent.posterior) == ("silence", None, None, None)
    assert clipped.note == "clipping" and clipped.emotion is not None


def test_a_task_that_was_not_trained_is_refused(experiment, tmp_path):
    content = checkpoint.read(experiment / "best.pt")
    content["config"]["loss"].update(beta=0.0, eta=0.0)
    checkpoint.write(tmp_path / "best.pt", content)
    for task in ("gender", "phones"):
        with pytest.raises(InputError, match=f"was not trained on {task}"):
            Predictor(tmp_path / "best.pt", **{task: True})
    labels = Predictor(tmp_path / "best.pt").labels
    assert labels.genders == labels.phones == ()


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_a_gpu_that_is_not_there_is_refused(experiment):
    with pytest.raises(InputError, match="torch finds no GPU"):
        Predictor(experiment / "best.pt", "cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_predicts_the_same(experiment, predictor, wav):
    (there,) = Predictor(experiment / "best.pt", "cuda")(wav)
    (here,) = predictor(wav)
    assert list(there.posterior.values()) == pytest.approx(list(here.posterior.values()), abs=1e-3)
