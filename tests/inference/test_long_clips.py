"""Clips that are longer than those that a model was trained on."""

import numpy as np
import pytest
import soundfile
from speech_like import speech_like

from speecheq.evaluation.metrics import unweighted_accuracy
from speecheq.inference.embedder import Embedder
from speecheq.inference.long_clips import divide
from speecheq.inference.predictor import Predictor
from speecheq.inference.recordings import AudioClip, Waveform
from speecheq.inference.windows import Span

RATE = 16000
EMOTIONS = {"W": "anger", "F": "joy", "N": "neutral", "T": "sadness"}  # in EMODB's names of files


@pytest.fixture(scope="module")
def starter():
    return Predictor(None, "cpu", gender=True, speech_activity="none")


@pytest.mark.parametrize(("seconds", "parts"), [(0.4, 1), (4.0, 1), (4.01, 2), (8.0, 2), (8.01, 3)])
def test_as_few_equal_parts_as_possible(seconds, parts):
    samples = np.arange(round(seconds * RATE), dtype=np.float32)
    clip = AudioClip(None, RATE, Span(7, len(samples), [], 3.0), False)
    ((first, *others),) = divide([(clip, Waveform(samples, "clipping"))], 4.0)
    assert np.array_equal(np.concatenate([wave.samples for _, wave in (first, *others)]), samples)
    lengths = [len(wave.samples) for _, wave in (first, *others)]
    assert len(lengths) == parts and max(lengths) - min(lengths) <= 1 and max(lengths) <= 4 * RATE
    for part, wave in (first, *others):
        assert (part.span.first, part.span.frames, wave.note) == (7, len(samples), "clipping")
        assert part.span.speech == pytest.approx(3.0 / parts)


def test_the_answer_is_the_mean_of_those_of_the_parts(starter, tmp_path):
    samples = speech_like(3.1 * starter.longest).astype(np.float32)
    (whole,) = starter(samples, RATE)
    parts = [starter(part, RATE)[0] for part in np.array_split(samples, 4)]
    for name, posterior in whole.posterior.items():
        assert posterior == pytest.approx(np.mean([part.posterior[name] for part in parts]), abs=1e-5)
    assert whole.eis == pytest.approx(np.mean([part.eis for part in parts]), abs=1e-4)
    women = [part.gender_posterior["F"] for part in parts]
    assert whole.gender_posterior["F"] == pytest.approx(np.mean(women), abs=1e-5)
    assert (whole.start, whole.end) == (0.0, pytest.approx(len(samples) / RATE))
    assert "speech of" not in whole.note  # no part is longer than the training clips

    embedder = Embedder(None, device="cpu", speech_activity="none")
    files = [tmp_path / f"{number}.wav" for number in range(5)]
    for file, clip in zip(files, (samples, *np.array_split(samples, 4))):
        soundfile.write(file, clip, RATE, subtype="FLOAT")
    long, *short = (each.values for each in embedder.embed(files))
    np.testing.assert_allclose(long, np.mean(short, axis=0), atol=1e-4)


def test_of_notes_that_differ_in_numbers_there_is_one(starter):
    (prediction,) = starter(np.clip(50 * speech_like(2.5 * starter.longest), -0.9, 0.9).astype(np.float32), RATE)
    assert prediction.note.count("level -") == 1


def test_clips_of_emodb_one_after_the_other(samples):
    """Whole recordings of ten seconds had one class, whoever spoke in whatever way."""
    predictor = Predictor(None, "cpu")
    recordings, gold = [], []
    for letter, emotion in EMOTIONS.items():
        # the speaker that the starter was not trained on
        clips = [soundfile.read(file)[0] for file in sorted((samples("EMODB") / "wav").glob(f"03???{letter}?.wav"))]
        joined = np.concatenate(clips).astype(np.float32)
        parts = np.split(joined, range(10 * RATE, len(joined), 10 * RATE))
        recordings += [part for part in parts if len(part) > 6 * RATE]
        gold += [emotion] * (len(recordings) - len(gold))

    def ua():
        found = [max(EMOTIONS.values(), key=predictor(part, RATE)[0].posterior.__getitem__) for part in recordings]
        names = list(EMOTIONS.values())
        return unweighted_accuracy([*map(names.index, gold)], [*map(names.index, found)])

    divided = ua()
    predictor.longest = float("inf")
    assert len(recordings) >= 6 and divided >= 0.8 and divided > ua() + 0.2
