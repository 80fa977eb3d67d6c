"""Audio and video that libsndfile cannot read, decoded by PyAV (the extra ``av``) where that is installed."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import IO, Any

import soundfile

from speecheq.common.errors import InputError, first_line
from speecheq.common.files import PathLike
from speecheq.common.log import log
from speecheq.corpora.audio_formats import OtherFormatError, unreadable

# Files that are kept decoded: a manifest may name many parts of one in a row.
KEPT = 2
# Sound that ends so much before its file, in seconds, is warned of.
LACKING_SECONDS = 1.0
SKIPPED_AT_ONCE = 1 << 20


class DecodedFile:
    """Samples as a float32 W64 file that ends with its last user: on Linux, without a name, however that ends."""

    def __init__(self) -> None:
        # opened anew by each reader, also in processes that were forked, so that all have places of their own
        self._file: IO[bytes]
        if sys.platform == "linux":
            self._file = tempfile.TemporaryFile(prefix="speecheq-decoded.")
            self.name = f"/proc/self/fd/{self._file.fileno()}"
        else:
            self._file = tempfile.NamedTemporaryFile(prefix="speecheq-decoded.")
            self.name = self._file.name


def can_decode() -> bool:
    """Whether PyAV is installed."""
    return find_spec("av") is not None


def decode_other_format(path: PathLike, error: Exception) -> DecodedFile:
    """A file that libsndfile cannot read (``error``), decoded; InputError where that is not possible or not asked for.

    The InputError says what the file seems to be, and what to do.
    """
    fault = unreadable(Path(path), error)
    if not isinstance(fault, OtherFormatError) or not can_decode():
        raise fault from error
    return decode(Path(path))


@contextmanager
def open_audio(path: PathLike) -> Iterator[soundfile.SoundFile]:
    """An audio file, opened; one that libsndfile cannot read is decoded before.

    Raises RuntimeError for a file that cannot be read, OtherFormatError where it takes PyAV, which is not installed.
    """
    decoded = None  # bound to its end, as the file is there as long as that
    try:
        audio = soundfile.SoundFile(path)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: named .raw
        try:
            decoded = decode_other_format(path, error)
        except OtherFormatError:
            raise
        except (InputError, OSError):
            raise RuntimeError(first_line(error)) from error
        audio = soundfile.SoundFile(decoded.name)
    with audio:
        yield audio


def skip(audio: soundfile.SoundFile, frames: int) -> None:
    """Go to sample ``frames`` of a file at its beginning, also in a format without seeking (GSM 6.10)."""
    if audio.seekable():
        audio.seek(frames)
        return
    while frames > 0:
        read = len(audio.read(min(frames, SKIPPED_AT_ONCE), dtype="float32"))
        if read == 0:
            return
        frames -= read


def decode(path: Path) -> DecodedFile:
    """The first audio stream of a file. Rate and channels stay as they are.

    Raises InputError for a file without sound, or that cannot be decoded to its end.
    """
    status = path.stat()
    return _decode(path.absolute(), (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=KEPT)
def _decode(path: Path, _stamp: tuple[int, int]) -> DecodedFile:
    import av

    decoded = DecodedFile()
    try:
        # a stream, not a name, and no protocol: nothing but this file is opened
        with open(path, "rb") as file, av.open(file, "r", options={"protocol_whitelist": "none"}) as container:
            if not container.streams.audio:
                raise InputError(f"{path}: holds no sound.")
            # PyAV crashes where it is to decode a stream of a codec that it does not have
            stream = next((each for each in container.streams.audio if each.codec_context is not None), None)
            if stream is None:
                raise InputError(f"{path}: its sound is in a codec that PyAV does not have; convert it to WAV or FLAC.")
            seconds = _write_samples(av, container, stream, decoded.name)
            lasts = (container.duration or 0) / av.time_base
    except InputError:
        raise
    except (av.FFmpegError, soundfile.SoundFileError, OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"{path}: cannot be decoded ({reason}); copy it again.") from error
    if seconds < lasts - LACKING_SECONDS:
        _warn_of_lack(str(path), seconds, lasts)
    return decoded


@cache
def _warn_of_lack(path: str, seconds: float, lasts: float) -> None:
    """Warn once a file and process: data loaders read a file in each epoch."""
    log.warning("%s: holds %.1f s of sound, though it lasts %.1f s; it may be truncated", path, seconds, lasts)


def _write_samples(av: Any, container: Any, stream: Any, name: str) -> float:
    """Write the samples of an audio stream of the container to ``name``. Returns their seconds."""
    resampler = av.AudioResampler(format="flt")  # interleaved float32, of the same rate and channels
    audio, frames, rate = None, 0, 1
    try:
        for frame in chain(container.decode(stream), [None]):  # None: the rest
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
