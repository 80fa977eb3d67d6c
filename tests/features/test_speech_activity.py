"""Where there is speech: the two detectors, and the cuts that they leave."""

import warnings
from importlib.util import find_spec
from pathlib import Path

import lhotse
import numpy as np
import pytest
import soundfile
import torch
from speech_like import RATE, hiss, silence, speech_like

from speecheq.common.errors import InputError
from speecheq.features import speech_activity
from speecheq.features.audio import load_waveform
from speecheq.features.speech_activity import (
    CONTEXT,
    ENERGY,
    FRAME,
    SILERO,
    find_speech,
    load_silero,
    seconds_of_speech,
    speech_cut,
)

BOTH = pytest.mark.parametrize("method", [SILERO, ENERGY])


def find(samples, method):
    return find_speech(lambda: [samples], method)


def joined(*parts):
    return np.concatenate(parts)


@BOTH
@pytest.mark.parametrize("background", [-200, -70, -55])
def test_speech_is_found_where_it_is(method, background):
    samples = joined(silence(1), speech_like(2), silence(1.5), speech_like(0.8, 200), silence(0.7))
    found = find(samples + hiss(len(samples) / RATE, background), method)
    expected = [(1, 3), (4.5, 5.3)]
    assert len(found) == 2
    assert np.abs(np.array(found) / RATE - expected).max() <= 0.04


@BOTH
@pytest.mark.parametrize("gain", [-60, -20, 20])
def test_the_gain_changes_nothing(method, gain):
    samples = joined(hiss(1, -70), speech_like(2), hiss(1, -70, 1))
    assert find(samples * np.float32(10 ** (gain / 20)), method) == find(samples, method)


@BOTH
def test_what_is_beside_speech_does_not_move_its_ends(method):
    speech = speech_like(1.5)
    ends = []
    for before, after in [
        (silence(0), silence(0)),
        (silence(0.5), silence(4)),
        (hiss(2.01, -70), hiss(0.3, -70, 1)),
        (hiss(4, -60), silence(0.1)),
    ]:
        found = find(joined(before, speech, after), method)
        ends.append((found[0][0] - len(before), found[-1][1] - len(before)))
    assert np.ptp(np.array(ends), axis=0).max() <= 0.02 * RATE


@BOTH
@pytest.mark.parametrize("level", [-60, -40, -20])
def test_noise_alone_is_no_speech(method, level):
    assert find(hiss(3, level), method) == []


@BOTH
def test_silence_and_almost_nothing_are_no_speech(method):
    assert find(silence(2), method) == find(silence(0), method) == []
    assert seconds_of_speech(find(speech_like(0.025), method)) < speech_activity.LEAST_SPEECH


@BOTH
def test_blocks_are_one_recording(method):
    samples = joined(silence(0.7), speech_like(2), silence(1.3), speech_like(1), silence(0.2))
    parts = np.split(samples, [1, 700, 20000, 50001])
    assert find_speech(lambda: parts, method) == find(samples, method)


def test_the_network_is_that_of_the_package():
    package = Path(find_spec("silero_vad").origin).parent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        reference = torch.jit.load(str(package / "data" / "silero_vad.jit"))
    frames = joined(speech_like(1), hiss(1, -30))[: 60 * FRAME].reshape(-1, FRAME)
    before = joined(np.zeros((1, CONTEXT), np.float32), frames[:-1, -CONTEXT:])
    with torch.inference_mode():
        expected = [float(reference(torch.from_numpy(frame), RATE)) for frame in frames]
        probabilities, _ = load_silero()(torch.from_numpy(np.concatenate((before, frames), axis=1)), None)
    assert 0.3 < np.mean(np.array(expected) > 0.5) < 0.7
    assert np.allclose(probabilities.numpy(), expected, atol=1e-4)


def test_without_the_package_the_message_says_what_to_do(monkeypatch):
    load_silero.cache_clear()
    monkeypatch.setattr(speech_activity, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs silero-vad: .* or take another with --speech-activity energy"):
        find(speech_like(1), SILERO)


def test_an_unknown_detector_is_refused():
    with pytest.raises(InputError, match="'whisper' finds no speech; choose silero or energy"):
        find(speech_like(1), "whisper")


def test_quiet_clips_are_amplified_and_others_stay():
    speech = speech_like(1)
    quiet = speech_activity.amplify_quiet(speech * np.float32(1e-3))
    assert np.allclose(quiet / quiet.std(), speech / speech.std(), atol=1e-4) and 0.03 < quiet.std() < 0.13
    for samples in (speech, silence(1), silence(0)):
        assert speech_activity.amplify_quiet(samples) is samples


def cut_of(path, samples, rate=RATE, start=0.0):
    soundfile.write(path, samples, rate, subtype="FLOAT")
    recording = lhotse.Recording.from_file(path, recording_id="r")
    cut = recording.to_cut().truncate(offset=start)
    cut.id = "u"
    cut.supervisions = [lhotse.SupervisionSegment("u", "r", 0.0, cut.duration, text="a text")]
    return cut


@BOTH
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_cut_keeps_its_speech(tmp_path, method, rate):
    samples = joined(silence(1.2, rate), speech_like(1.5, rate=rate), silence(0.8, rate))
    cut = speech_cut(cut_of(tmp_path / "a.wav", samples, rate, start=0.2), method)
    assert cut.id == cut.supervisions[0].id == "u" and cut.supervisions[0].text == "a text"
    assert abs(cut.start - 1.2) < 0.04 and abs(cut.duration - 1.5) < 0.06
    assert (cut.supervisions[0].start, cut.supervisions[0].duration) == (0.0, cut.duration)
    assert cut.custom["speech_activity"] == method and cut.custom["speech_seconds"] == pytest.approx(1.5, abs=0.06)
    assert load_waveform(cut).std() == pytest.approx(0.1, rel=0.05)
    lhotse.validate(lhotse.CutSet.from_cuts([cut]))


def test_a_cut_with_too_little_speech_stays_whole(tmp_path):
    cut = cut_of(tmp_path / "a.wav", hiss(2, -40))
    before = (cut.start, cut.duration)
    after = speech_cut(cut, ENERGY)
    assert (after.start, after.duration) == before and after.custom["speech_seconds"] == 0


def test_none_leaves_a_cut_as_it_is(tmp_path):
    cut = cut_of(tmp_path / "a.wav", speech_like(1))
    assert speech_cut(cut, "none") is cut and not cut.custom
