"""Silence and noise have no say in predictions: with speech activity, they are as for the speech alone."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from speech_like import RATE, hiss, silence, speech_like

from speecheq.common.errors import InputError
from speecheq.inference.predictor import Predictor

SPEECH = speech_like(2.0)


@pytest.fixture(scope="module")
def along_speech(experiment):
    """The tiny trained model, which predicts what is speech to Silero VAD."""
    return Predictor(experiment / "best.pt", "cpu", speech_activity="silero")


def joined(*parts):
    return np.concatenate(parts)


@pytest.mark.parametrize(
    "before, after", [(silence(1), silence(0)), (silence(0.5), silence(4)), (hiss(2, -70), hiss(2, -70, 1))]
)
def test_the_answer_is_that_of_the_speech(along_speech, before, after):
    (alone,) = along_speech(SPEECH, RATE)
    (answer,) = along_speech(joined(before, SPEECH, after), RATE)
    assert answer.emotion == alone.emotion and answer.posterior == pytest.approx(alone.posterior, abs=0.1)
    assert answer.speech == pytest.approx(2, abs=0.05)
    assert answer.start == pytest.approx(len(before) / RATE, abs=0.05) and answer.end - answer.start < 2.05


def test_a_long_pause_inside_has_no_say(along_speech):
    (alone,) = along_speech(joined(SPEECH, SPEECH), RATE)
    (answer,) = along_speech(joined(SPEECH, silence(5), SPEECH), RATE)
    assert answer.posterior == pytest.approx(alone.posterior, abs=0.1)
    assert answer.speech == pytest.approx(4, abs=0.1) and answer.end > 8.9


def test_noise_and_blips_get_no_class(along_speech):
    for samples in (hiss(3, -40), silence(1), SPEECH[:400]):
        (answer,) = along_speech(samples, RATE)
        assert (answer.note, answer.emotion, answer.posterior, answer.speech) == ("no speech", None, None, 0.0)
        assert answer.summary() == "no speech"
    (answer,) = along_speech(joined(silence(1), speech_like(0.25), silence(1)), RATE)
    assert answer.note == "too short" and answer.emotion is None and 0.1 < answer.speech < 0.3
    assert answer.summary() == f"too short; {answer.speech:.2f} s of speech"


def test_the_windows_of_a_long_recording_follow_the_speech(along_speech, tmp_path):
    pieces = [speech_like(2 + 0.1 * number, 110 + 10 * number) for number in range(6)]
    samples, starts = [hiss(4, -65)], []
    for number, piece in enumerate(pieces):
        starts.append(sum(map(len, samples)) / RATE)
        samples += [piece, hiss(4, -65, number)]
    path = tmp_path / "joined.wav"
    soundfile.write(path, joined(*samples), RATE)
    windows = along_speech(path)
    assert [window.start for window in windows] == pytest.approx(starts, abs=0.05)
    for window, piece in zip(windows, pieces):
        (alone,) = along_speech(piece, RATE)
        assert window.windowed and window.posterior == pytest.approx(alone.posterior, abs=0.1)


@pytest.mark.parametrize("rate, subtype", [(8000, "PCM_16"), (44100, "PCM_24"), (16000, "FLOAT")])
def test_files_of_other_rates(along_speech, tmp_path, rate, subtype):
    path = tmp_path / "a.wav"
    soundfile.write(path, joined(silence(33, rate), speech_like(2, rate=rate), silence(1, rate)), rate, subtype=subtype)
    (window,) = along_speech(path)
    assert window.start == pytest.approx(33, abs=0.05) and window.end == pytest.approx(35, abs=0.05)


def test_a_truncated_file_and_samples_that_are_no_numbers_are_one_error(along_speech, tmp_path):
    samples = joined(SPEECH, SPEECH)
    samples[40000] = np.nan
    with pytest.raises(InputError, match="samples: holds samples that are not numbers"):
        along_speech(samples, RATE)
    soundfile.write(tmp_path / "nan.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(InputError, match="nan.wav: holds samples that are not numbers"):
        along_speech(tmp_path / "nan.wav")


def test_the_command_states_the_seconds_of_speech(predict, tmp_path):
    soundfile.write(tmp_path / "a.wav", joined(silence(1), SPEECH, silence(1)), RATE)
    soundfile.write(tmp_path / "b.wav", silence(1), RATE)
    options = ("--speech-activity", "silero", tmp_path)
    status, text, _ = predict(*options)
    first, second = text.splitlines()
    assert status == 0 and first.endswith(" s of speech") and second == f"{tmp_path / 'b.wav'}: no speech"
    rows = [json.loads(line) for line in predict(*options, "--format", "json")[1].splitlines()]
    assert [row["speech"] for row in rows] == [pytest.approx(2, abs=0.05), 0.0]
    cells = list(csv.DictReader(predict(*options, "--format", "csv")[1].splitlines()))
    assert [float(row["speech"]) for row in cells] == [pytest.approx(2, abs=0.05), 0.0]
    assert cells[1]["note"] == "no speech" and cells[1]["emotion"] == ""
    # and what it wrote is known as its own
    for format in ("text", "json", "csv"):
        for _ in range(2):
            assert predict(*options, "--format", format, "--output", tmp_path / "out")[0] == 0
        (tmp_path / "out").unlink()


def test_without_speech_activity_nothing_changes(predictor):
    (answer,) = predictor(joined(silence(1), SPEECH), RATE)
    assert (answer.start, answer.end, answer.speech, answer.note) == (0.0, 3.0, None, "")


@pytest.mark.parametrize("gain", [1e-3, 0.1])
def test_quiet_recordings_get_the_same_answer_where_features_are_normalised_by_utterance(along_speech, gain):
    model = SimpleNamespace(**vars(along_speech.model))
    model.cmvn = "utterance"
    calls = []
    model.extractor = lambda samples, lengths: calls.append(samples) or along_speech.model.extractor(samples, lengths)
    by_utterance = Predictor(_Callable(model, along_speech.model), "cpu", speech_activity="silero")
    (quiet,) = by_utterance(SPEECH * np.float32(gain), RATE)
    assert calls[0].std() == pytest.approx(0.1, rel=0.5) and quiet.note == ""


class _Callable:
    """A trained model with some attributes replaced."""

    def __init__(self, attributes, model):
        vars(self).update(vars(attributes))
        self.model = model

    def __call__(self, *arguments):
        return self.model(*arguments)
