"""Measuring the audio of clips: level, clipping, silence, direct current."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import soundfile

from speecheq.common.errors import InputError
from speecheq.common.progress import Progress
from speecheq.corpora.decoding import open_audio, skip

if TYPE_CHECKING:
    from lhotse import MonoCut

# Silence is measured in frames of 10 ms. A frame is silent if it is 40 dB below the clip's loudest frame; a clip is
# silent if its loudest frame is below -60 dBFS.
FRAMES_A_SECOND = 100
SILENCE_BELOW_LOUDEST = 1e-4
SILENT_POWER = 1e-6
# Full scale is the largest value of 16 bits, on either side; as many such samples in a row are clipping.
FULL_SCALE = 1 - 2**-15
CLIPPED_RUN = 3
BLOCK_SECONDS = 30
BATCH = 1000


class AudioClip(NamedTuple):
    """Where the samples of an utterance are: ``frames`` of them, from number ``first`` of the file on."""

    path: str
    rate: int
    first: int
    frames: int


class AudioQuality(NamedTuple):
    """What was measured in a clip; ``problem`` is empty unless the clip could not be read."""

    problem: str = ""
    channels: int = 0
    content: bytes = b""  # a digest of the samples
    level: float = -math.inf  # RMS, dBFS
    peak: float = 0.0
    offset: float = 0.0  # mean of the samples
    full_scale: int = 0  # samples at full scale
    longest_run: int = 0  # of such samples
    leading: float = 0.0  # seconds of silence
    trailing: float = 0.0
    is_silent: bool = False


def _audio_clip(cut: "MonoCut") -> AudioClip:
    rate = cut.recording.sampling_rate
    first = round(cut.start * rate)
    return AudioClip(cut.recording.sources[0].source, rate, first, round((cut.start + cut.duration) * rate) - first)


def longest_run(marks: np.ndarray, before: int) -> tuple[int, int]:
    """Runs of true values in ``marks`` (S,), continuing a run of ``before`` true values.

    Returns:
        the length of the longest run, and that of the run at the end.
    """
    if not marks.any():
        return before, 0
    borders = np.flatnonzero(np.diff(np.concatenate(([0], marks.astype(np.int8), [0]))))
    lengths = borders[1::2] - borders[::2]
    if marks[0]:
        lengths[0] += before
    return max(before, int(lengths.max())), int(lengths[-1]) if marks[-1] else 0


def frame_powers(block: np.ndarray, frame: int) -> np.ndarray:
    """The mean power (T,) of each frame of ``frame`` samples of ``block`` (S, channels), without direct current."""
    whole = max(1, len(block) // frame)
    frames = block[: whole * frame].reshape(whole, -1, block.shape[1])
    return np.maximum((frames**2).mean(1) - frames.mean(1) ** 2, 0).mean(1)


class _Accumulator:
    """The measurements of one clip, taken a block at a time."""

    def __init__(self, frame: int) -> None:
        self.frame = frame  # samples
        self.digest = hashlib.blake2b(digest_size=16)
        self.powers: list[np.ndarray] = []
        self.frames = self.full_scale = self.longest = self.run = 0
        self.total = self.squares = self.peak = 0.0

    def add(self, block: np.ndarray) -> None:
        """Add the next samples (S, channels)."""
        self.frames += len(block)
        self.digest.update(block.tobytes())
        magnitudes = np.abs(block)
        self.peak = max(self.peak, float(magnitudes.max()))
        at_full_scale = magnitudes >= FULL_SCALE
        self.full_scale += int(at_full_scale.sum())
        longest, self.run = longest_run(at_full_scale.any(1), self.run)
        self.longest = max(self.longest, longest)
        self.total += float(block.sum(dtype=np.float64))
        self.squares += float((block**2).sum(dtype=np.float64))
        self.powers.append(frame_powers(block, self.frame))

    def result(self, channels: int) -> AudioQuality:
        power = np.concatenate(self.powers)
        loud = np.flatnonzero(power >= max(power.max() * SILENCE_BELOW_LOUDEST, 1e-12))
        first, last = (loud[0], loud[-1]) if len(loud) else (len(power), -1)
        samples = self.frames * channels
        return AudioQuality(
            channels=channels,
            content=self.digest.digest(),
            level=10 * math.log10(self.squares / samples) if self.squares else -math.inf,
            peak=self.peak,
            offset=self.total / samples,
            full_scale=self.full_scale,
            longest_run=self.longest,
            leading=first / FRAMES_A_SECOND,
            trailing=(len(power) - 1 - last) / FRAMES_A_SECOND,
            is_silent=bool(power.max() < SILENT_POWER),
        )


def measure(clip: AudioClip) -> AudioQuality:
    """Measure one clip, of which at most BLOCK_SECONDS are in memory; never raises for audio that cannot be read."""
    measured = _Accumulator(max(1, clip.rate // FRAMES_A_SECOND))
    size = measured.frame * FRAMES_A_SECOND * BLOCK_SECONDS
    try:
        with open_audio(clip.path) as audio:
            if audio.samplerate != clip.rate:
                return AudioQuality(f"has {audio.samplerate} Hz, its manifest says {clip.rate}")
            channels = audio.channels
            skip(audio, min(clip.first, audio.frames))
            while measured.frames < clip.frames:
                block = audio.read(min(size, clip.frames - measured.frames), dtype="float32", always_2d=True)
                if not len(block):
                    return AudioQuality(f"ends after {measured.frames} of {clip.frames} samples")
                measured.add(block)
    except (InputError, soundfile.SoundFileError, RuntimeError, OSError) as error:
        return AudioQuality(f"cannot be read ({error})")
    return measured.result(channels)


def measure_cuts(
    cuts: Iterable["MonoCut"], title: str, total: int, nj: int
) -> Iterator[tuple["MonoCut", AudioQuality]]:
    """Every cut with its measurements, by ``nj`` threads, a batch at a time.

    ``title`` and ``total`` (clips) are for the progress display.
    """
    cuts = iter(cuts)
    with ThreadPoolExecutor(max(1, nj)) as pool, Progress(f"{title}: measuring audio", total, "clips") as shown:
        while batch := list(islice(cuts, BATCH)):
            for cut, quality in zip(batch, pool.map(measure, map(_audio_clip, batch))):
                shown.update()
                yield cut, quality
