"""Streams: the segments of a file, answered when they end, in constant memory."""

import tracemalloc

import numpy as np
import pytest
from speech_like import hiss, silence, speech_like

from speecheq.common.errors import InputError
from speecheq.features.speech_activity import ENERGY, SILERO
from speecheq.inference.live import LiveStream
from speecheq.inference.predictor import Predictor
from speecheq.inference.windows import LONGEST_STRETCH, PAUSE, Windows


@pytest.fixture(scope="module")
def predictor_with(experiment):
    """``predictor_with(method, rejected share)``: the tiny model, which cuts recordings into their speech."""
    return lambda method, **options: Predictor(
        experiment / "best.pt", "cpu", gender=True, windows=Windows(into="speech"), speech_activity=method, **options
    )


def talk(rate=16000, pauses=(0.5, 1.6, 2.5, 0.9, 3.0, 1.9), seed=0):
    """Speech (S,) of different voices, levels and lengths between pauses, over the hiss of a room."""
    parts = [silence(0.7, rate)]
    for number, pause in enumerate(pauses):
        parts += [speech_like(1.3 + 0.4 * number, 110 + 17 * number, 0.04 + 0.02 * number, rate), silence(pause, rate)]
    samples = np.concatenate(parts)
    return samples + hiss(len(samples) / rate + 1, -70, seed, rate)[: len(samples)]


def follow(stream, samples, block):
    """The predictions for ``samples``, which come a ``block`` at a time, and how late each is, in seconds."""
    samples = samples.reshape(len(samples), -1)
    found, late = [], []
    for first in range(0, len(samples), block):
        for prediction in stream.add(samples[first : first + block]):
            found.append(prediction)
            late.append(stream.seconds - prediction.end - PAUSE)
    return found + stream.finish(), late


def assert_same(streamed, predicted):
    assert [(one.start, one.end, one.channel) for one in streamed] == [
        (one.start, one.end, one.channel) for one in predicted
    ]
    for one, other in zip(streamed, predicted):
        assert (one.emotion, one.gender, one.note) == (other.emotion, other.gender, other.note)
        assert one.speech == pytest.approx(other.speech) and one.windowed
        assert one.posterior == pytest.approx(other.posterior, abs=1e-5)
        assert one.eis == pytest.approx(other.eis, abs=1e-4)


@pytest.mark.parametrize(
    "method, rate, block", [(SILERO, 16000, 640), (SILERO, 44100, 4410), (ENERGY, 8000, 333), (ENERGY, 48000, 10**7)]
)
def test_a_stream_has_the_segments_and_classes_of_the_file(predictor_with, method, rate, block):
    predictor, samples = predictor_with(method), talk(rate)
    streamed, _ = follow(LiveStream(predictor, rate), samples, block)
    assert len(streamed) == 4
    assert_same(streamed, predictor(samples, rate))


def test_channels(predictor_with):
    predictor, samples = predictor_with(ENERGY), np.stack([talk(), np.roll(talk(seed=1), 16000)], axis=1)
    for read, part in (("mix", samples), (2, samples[:, 1])):
        streamed, _ = follow(LiveStream(predictor, 16000, 2, read), samples, 1600)
        for one in streamed:
            assert one.channel == (None if read == "mix" else 2)
            one.channel = None
        assert_same(streamed, predictor(part, 16000))
    each, _ = follow(LiveStream(predictor, 16000, 2, "each"), samples, 1600)
    assert {one.channel for one in each} == {1, 2} and len(each) == 8
    with pytest.raises(InputError, match="has 2 channels, and channel 3"):
        LiveStream(predictor, 16000, 2, 3)


def test_a_long_stretch_is_divided_at_its_longest_pause_while_it_goes_on(predictor_with):
    speech = [
        speech_like(5),
        silence(0.4),
        speech_like(4),
        silence(0.9),
        speech_like(3.5),
        silence(0.4),
        speech_like(9),
    ]
    samples = np.concatenate([*speech, silence(3)]) + hiss(sum(map(len, speech)) / 16000 + 3, -70)
    streamed, late = follow(LiveStream(predictor_with(ENERGY), 16000), samples, 1600)
    assert streamed[0].end == pytest.approx(9.4, abs=0.1) and streamed[1].start == pytest.approx(10.3, abs=0.1)
    assert all(one.end - one.start <= LONGEST_STRETCH + 0.1 for one in streamed)
    endless = speech_like(50)
    streamed, _ = follow(LiveStream(predictor_with(ENERGY), 16000), np.concatenate((hiss(1, -70), endless)), 1600)
    assert len(streamed) > 3 and all(one.end - one.start <= LONGEST_STRETCH + 0.1 for one in streamed)
    assert (streamed[0].start, streamed[-1].end) == pytest.approx((1, 51), abs=0.1)
    assert all(0 <= after.start - before.end < 0.4 for before, after in zip(streamed, streamed[1:]))


def check_hours(predictor, minutes):
    """A stream of so many minutes: nothing is late, and no more is kept than a stretch and what is around it."""
    stream, minute = LiveStream(predictor, 16000), talk(pauses=(0.5, 1.6, 2.5, 0.9, 3.0, 1.9, 2.2, 4.0))
    late, kept, found, peaks = [], 0, 0, []
    tracemalloc.start()
    rounds = minutes * 60 * 16000 // len(minute)
    for number in range(rounds):
        if number in (rounds // 2, rounds - 1):
            peaks.append(tracemalloc.get_traced_memory()[1])
        for first in range(0, len(minute), 1600):
            for prediction in stream.add(minute[first : first + 1600, None]):
                late.append(stream.seconds - prediction.end - PAUSE)
                found += 1
            ((_, track),) = stream._tracks
            kept = max(kept, sum(map(len, track._blocks)), track.speech._steps.size * 32)
    tracemalloc.stop()
    assert found >= 6 * rounds - 1
    assert max(late) <= 0.5  # of the second that there is; the rest is for the model
    assert kept <= 16000 * (LONGEST_STRETCH + PAUSE + 2)
    assert peaks[1] <= 1.05 * peaks[0]


def test_no_answer_is_late_and_memory_stays_the_same(predictor_with):
    check_hours(predictor_with(ENERGY), 4)


@pytest.mark.slow
def test_so_it_is_for_an_hour(predictor_with):
    check_hours(predictor_with(ENERGY), 60)


def test_silence_is_no_speech_and_nothing_is_nothing(predictor_with):
    stream = LiveStream(predictor_with(SILERO), 16000)
    assert stream.finish() == []
    stream = LiveStream(predictor_with(SILERO), 16000)
    assert stream.add(silence(5)[:, None]) == []
    (answer,) = stream.finish()
    assert (answer.note, answer.start, answer.end, answer.posterior) == ("no speech", 0.0, 5.0, None)


def test_what_cannot_be_streamed_is_one_sentence(predictor_with, experiment):
    with pytest.raises(InputError, match="44101 Hz cannot be resampled"):
        LiveStream(predictor_with(ENERGY), 44101)
    with pytest.raises(InputError, match="cut into its speech"):
        LiveStream(Predictor(experiment / "best.pt", "cpu", speech_activity="none"), 16000)
    with pytest.raises(InputError, match="is its encoding right"):
        LiveStream(predictor_with(ENERGY), 16000).add(np.full((1600, 1), np.nan, np.float32))
