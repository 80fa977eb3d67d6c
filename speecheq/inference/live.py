"""Predictions for a stream, such as a microphone's, while it comes: each segment of speech is answered when it ends.

Segments are those of ``--segments speech``: a pause ends one. A stretch above LONGEST_STRETCH is divided as in files,
by what was heard of it so far. Memory does not grow with the length of the stream.
"""

from collections import deque
from collections.abc import Iterator
from math import ceil, gcd
from pathlib import Path

import numpy as np

from speecheq.common.errors import InputError
from speecheq.features.live_speech import LiveSpeech
from speecheq.features.speech_activity import NONE, STEP
from speecheq.features.speech_activity import SAMPLING_RATE as VAD_RATE
from speecheq.features.waveform_batch import SAMPLING_RATE
from speecheq.inference.parts import EACH, MIX, Channels
from speecheq.inference.prediction import Prediction
from speecheq.inference.predictor import Predictor
from speecheq.inference.recordings import STANDARD_INPUT, AudioClip, Segment, Waveform, as_mono, prepare_waveform
from speecheq.inference.speakers import SpeakerMoments, each_alone
from speecheq.inference.windows import NO_SPEECH, WINDOWS, Span, Windows

# So much is looked at once, in seconds, and resampled with so much beside it, which no resampler's filter exceeds.
STEP_SECONDS, BESIDE_SECONDS = 0.1, 0.05
# A step is whole samples at both rates.
LONGEST_STEP = 0.25


class LiveSegments:
    """The segments of one channel of a stream at ``rate`` Hz, or of the mean of its channels, as they end.

    Raises InputError for a rate whose steps at 16 kHz would be long.
    """

    def __init__(self, rate: int, windows: Windows, method: str) -> None:
        unit = rate // gcd(rate, VAD_RATE)
        self.rate, self.windows = rate, windows
        self.step = unit * ceil(STEP_SECONDS * rate / unit)
        self.beside = 0 if rate == VAD_RATE else unit * ceil(BESIDE_SECONDS * rate / unit)
        if self.step > LONGEST_STEP * rate:
            raise InputError(
                f"a stream of {rate} Hz cannot be resampled to {VAD_RATE} Hz bit by bit; let the program that makes "
                f"it do so (ffmpeg: -ar {VAD_RATE})."
            )
        self.speech = LiveSpeech(method)
        self.samples = 0  # that came
        self._blocks: deque[np.ndarray] = deque()  # (S, channels) each, of what may still be needed
        self._first = 0  # the number of their first sample
        self._looked_at = 0  # samples
        self._answered = 0  # where what has no answer begins

    def add(self, block: np.ndarray, last: bool = False) -> Iterator[tuple[Span, np.ndarray]]:
        """Hear the next samples (S, channels) float32, if any; the segments that end, with their samples."""
        if len(block):
            self._blocks.append(block)
            self.samples += len(block)
        while self.samples - self._looked_at >= self.step + self.beside or (last and self._looked_at < self.samples):
            self._look(min(self.step, self.samples - self._looked_at))
            yield from self._ended(False)
        if last:
            self.speech.add(np.zeros(0, np.float32), last=True)
            yield from self._ended(True)

    def _look(self, count: int) -> None:
        """Look for speech in the next ``count`` samples."""
        first, last = self._looked_at - self.beside, self._looked_at + count + self.beside
        before = max(0, -first)
        mono = as_mono(self._part(first + before, min(last, self.samples)), self.rate, VAD_RATE)[0]
        start = (self.beside - before) * VAD_RATE // self.rate
        self._looked_at += count
        self.speech.add(mono[start : start + ceil(count * VAD_RATE / self.rate)])

    def _part(self, first: int, end: int) -> np.ndarray:
        """Samples (S, channels) from number ``first`` to before ``end``."""
        parts, at = [], self._first
        for block in self._blocks:
            if at < end and at + len(block) > first:
                parts.append(block[max(0, first - at) : end - at])
            at += len(block)
        return np.concatenate(parts)

    def _at_rate(self, sample: int) -> int:
        return min(self.samples, round(sample * self.rate / VAD_RATE))

    def _ended(self, last: bool) -> Iterator[tuple[Span, np.ndarray]]:
        stretches = self.speech.stretches()
        speech = [(self._at_rate(first), self._at_rate(end)) for first, end in stretches]
        next_start = self._at_rate(self.speech.next_start(stretches[-1][1] if stretches else 0))
        spans, self._answered = self.windows.ended(speech, None if last else next_start, self._answered, self.rate)
        for span in spans:
            yield span, self._part(span.first, span.first + span.frames)
        is_open = any(end > self._answered for _, end in speech)
        self._forget(self._answered if is_open else next_start)

    def _forget(self, before: int) -> None:
        """Forget what was heard before a sample that is in no segment to come."""
        self.speech.forget(round(before * VAD_RATE / self.rate) + STEP)
        kept = min(before, self._looked_at - self.beside)
        while self._blocks and self._first + len(self._blocks[0]) <= kept:
            self._first += len(self._blocks.popleft())


class LiveStream:
    """The predictions for a stream with samples of ``channels`` channels at ``rate`` Hz.

    ``read`` says which channels are predicted: mix, each, or the number of one. Raises InputError where the predictor
    does not cut recordings into their speech, for a channel that there is not, and for a rate that does not do.

    >>> stream = LiveStream(Predictor("best.pt"), 16000)
    >>> for prediction in stream.add(samples):  # (S, channels) float32 in [-1, 1], any number of them
    ...     print(prediction.start, prediction.end, prediction.summary())
    >>> last = stream.finish()
    """

    def __init__(self, predictor: Predictor, rate: int, channels: int = 1, read: Channels = MIX) -> None:
        windows, method = predictor.windows, predictor.speech_activity
        if method == NONE or windows.into == WINDOWS or windows.length is not None:
            raise InputError(
                "a stream is cut into its speech, not into windows: leave out --window and --segments, and choose "
                "--speech-activity silero where the model has none."
            )
        numbers: list[int | None] = (
            [None] if read == MIX else [int(read)] if read != EACH else [*range(1, channels + 1)]
        )
        if numbers[-1] is not None and numbers[-1] > channels:
            has = "1 channel" if channels == 1 else f"{channels} channels"
            raise InputError(f"the stream has {has}, and channel {read} is to be predicted; choose with --channels.")
        self.predictor, self.rate, self.channels = predictor, rate, channels
        self._tracks = [
            (Segment(STANDARD_INPUT, Path(STANDARD_INPUT), channel=number), LiveSegments(rate, windows, method))
            for number in numbers
        ]
        self._silent = {segment.channel for segment, _ in self._tracks}  # without a segment so far
        self._moments: SpeakerMoments | None = None

    @property
    def seconds(self) -> float:
        """The length of the stream so far."""
        return self._tracks[0][1].samples / self.rate

    def add(self, samples: np.ndarray, last: bool = False) -> list[Prediction]:
        """Hear the next samples (S, channels) float32 in [-1, 1]: the predictions for the segments that ended.

        Raises InputError for samples that are not numbers.
        """
        if not np.isfinite(samples).all():
            raise InputError("the stream holds samples that are not numbers (NaN or infinite); is its encoding right?")
        clips: list[tuple[AudioClip, Waveform]] = []
        for segment, track in self._tracks:
            read = samples if segment.channel is None else samples[:, [segment.channel - 1]]
            for span, part in track.add(read, last):
                self._silent.discard(segment.channel)
                clip = AudioClip(segment, self.rate, span, True)
                clips.append((clip, prepare_waveform(part, clip, SAMPLING_RATE)))
        if self.predictor.by_speaker and clips:
            self._moments = self.predictor.speaker_moments([clips], each_alone, self._moments)
        return list(self.predictor.predict_clips(clips, self._moments))

    def finish(self) -> list[Prediction]:
        """The stream is over: the predictions for what is open. A channel without any speech gets one that says so."""
        predictions = self.add(np.zeros((0, self.channels), np.float32), last=True)
        for segment, track in self._tracks:
            if segment.channel in self._silent and track.samples:
                clip = AudioClip(segment, self.rate, Span(0, track.samples, [], 0.0, NO_SPEECH), False)
                waveform = Waveform(np.zeros(0, np.float32), NO_SPEECH)
                predictions += self.predictor.predict_clips([(clip, waveform)])
        return predictions
