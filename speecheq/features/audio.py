"""Reading the audio of cuts, and resampling."""

import io
import math
import os
from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
import soundfile
import torch
from lhotse import MonoCut

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.corpora.decoding import open_audio, skip

# Channels cancel each other out where the power of their sum is below this part of the sum of their powers: it is 1 for
# independent channels, their number for equal ones, and 0 for two in opposite phase.
CANCELLED_POWER = 0.06
# torchaudio's filters hold about (source rate) x (target rate) / (common divisor)^2 values: 70,560 for 44,100 Hz,
# gigabytes for 44,101 Hz. Above this limit soxr resamples.
LARGEST_FILTERS = 20_000_000


def resampler_name() -> str:
    """The resampling library: torchaudio, else soxr; raises InputError if neither can be imported."""
    try:
        import torchaudio  # noqa: F401

        return "torchaudio"
    except Exception as error:  # a torchaudio built for another torch fails in many ways
        try:
            import soxr  # noqa: F401

            return "soxr"
        except ImportError:
            raise InputError(
                "a corpus with another sampling rate needs torchaudio or soxr to be resampled; torchaudio cannot be "
                f"imported ({error}), soxr is not installed: install it with pip install soxr."
            ) from error


def mix_channels(samples: np.ndarray) -> tuple[np.ndarray, bool]:
    """The mean (S,) of the channels of ``samples`` (S, channels), or the loudest channel where they cancel out.

    Channels in opposite phase have a mean of almost nothing: one was recorded with its wires exchanged.

    Returns:
        samples (S,), and whether the channels cancel each other out.
    """
    if samples.shape[1] == 1:
        return samples[:, 0], False
    mean = samples.mean(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):  # samples that are no numbers: their mean is none either
        powers = samples.var(axis=0, dtype=np.float64)
        power_of_sum = mean.var(dtype=np.float64) * samples.shape[1] ** 2
    if not power_of_sum < CANCELLED_POWER * powers.sum():
        return mean, False
    return np.ascontiguousarray(samples[:, powers.argmax()]), True


@cache
def _warn_of_opposite_phase(path: str) -> None:
    """Warn once a file and process: data loaders read a file in each epoch."""
    log.warning("%s: the channels cancel each other out (opposite phase); the loudest is used alone", path)


@lru_cache(maxsize=8)
def resampler(source: int, target: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function from samples (S,) float32 at ``source`` Hz to samples at ``target`` Hz."""
    common = math.gcd(source, target)
    if resampler_name() == "torchaudio" and (source // common) * (target // common) <= LARGEST_FILTERS:
        import torchaudio

        transform = torchaudio.transforms.Resample(source, target)
        return lambda samples: transform(torch.from_numpy(samples)).numpy()
    import soxr

    return lambda samples: soxr.resample(samples, source, target)


def load_waveform(cut: MonoCut, sampling_rate: int = 16000) -> np.ndarray:
    """The samples (S,) float32 of a cut at ``sampling_rate`` Hz: mixed (``mix_channels``) and resampled.

    Raises InputError for a file that is gone or holds fewer samples than its manifest says.
    """
    recording, source = cut.recording, cut.recording.sources[0]
    path = f"the audio of {cut.id}" if source.type == "memory" else source.source  # in memory: of a shard
    if source.type != "memory" and not os.path.isfile(path):
        raise InputError(f"{path}: does not exist any more; restore it, or run stage 1 again for its corpus.")
    first = round(cut.start * recording.sampling_rate)
    last = round((cut.start + cut.duration) * recording.sampling_rate)  # cut.end is rounded to milliseconds
    try:
        with soundfile.SoundFile(io.BytesIO(source.source)) if source.type == "memory" else open_audio(path) as audio:
            frames, source_rate = audio.frames, audio.samplerate
            skip(audio, min(first, frames))
            samples = audio.read(last - first, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run stage 1 again for its corpus.") from error
    if frames != recording.num_samples or source_rate != recording.sampling_rate or len(samples) != last - first:
        raise InputError(
            f"{path}: holds {min(frames, first + len(samples))} samples at {source_rate} Hz, its manifest gives "
            f"{recording.num_samples} at {recording.sampling_rate} Hz; the file is truncated or was replaced: copy it "
            "again and run stage 1 again."
        )
    mono, cancelled = mix_channels(samples)
    if cancelled:
        _warn_of_opposite_phase(path)
    if source_rate == sampling_rate:
        return mono
    return resampler(source_rate, sampling_rate)(mono)
