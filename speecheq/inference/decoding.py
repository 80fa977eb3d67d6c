"""Audio and video that libsndfile cannot read, decoded by PyAV (the extra ``av``) where that is installed."""

import tempfile
from functools import lru_cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import soundfile

from speecheq.common.errors import InputError, first_line
from speecheq.common.log import log

# Files that are kept decoded: a manifest may name many parts of one in a row.
KEPT = 2
# Sound that ends so much before its file, in seconds, is warned of.
LACKING_SECONDS = 1.0


def can_decode() -> bool:
    """Whether PyAV is installed."""
    return find_spec("av") is not None


def decode(path: Path) -> "tempfile._TemporaryFileWrapper[bytes]":
    """The first audio stream of a file as a temporary float32 file, which is removed when nothing refers to it.

    Rate and channels stay as they are. Raises InputError for a file without sound, or that cannot be decoded to its
    end.
    """
    status = path.stat()
    return _decode(path.absolute(), (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=KEPT)
def _decode(path: Path, _stamp: tuple[int, int]) -> "tempfile._TemporaryFileWrapper[bytes]":
    import av

    kept = tempfile.NamedTemporaryFile(prefix="speecheq-decoded.", suffix=".w64")
    try:
        # a stream, not a name, and no protocol: nothing but this file is opened
        with open(path, "rb") as stream, av.open(stream, options={"protocol_whitelist": "none"}) as container:
            if not container.streams.audio:
                raise InputError(f"{path}: holds no sound.")
            seconds = _write_samples(av, container, kept.name)
            lasts = (container.duration or 0) / av.time_base
    except InputError:
        raise
    except (av.FFmpegError, soundfile.SoundFileError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be decoded ({first_line(error)}); copy it again.") from error
    if seconds < lasts - LACKING_SECONDS:
        log.warning("%s: holds %.1f s of sound, though it lasts %.1f s; it may be truncated", path, seconds, lasts)
    return kept


def _write_samples(av: Any, container: Any, name: str) -> float:
    """Write the samples of the container's first audio stream to ``name``. Returns their seconds."""
    resampler = av.AudioResampler(format="flt")  # interleaved float32, of the same rate and channels
    audio, frames, rate = None, 0, 1
    try:
        for frame in chain(container.decode(container.streams.audio[0]), [None]):  # None: the rest
            for block in resampler.resample(frame):
                channels, rate = len(block.layout.channels), block.sample_rate
                frames += block.samples
                if audio is None:
                    audio = soundfile.SoundFile(name, "w", rate, channels, "FLOAT", format="W64")
                audio.write(block.to_ndarray().reshape(-1, channels))
    finally:
        if audio is not None:
            audio.close()
    if audio is None:
        raise ValueError("it holds no samples")
    return frames / rate
