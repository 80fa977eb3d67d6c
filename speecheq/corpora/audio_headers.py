"""What the headers of audio files say, checked, and as lhotse recordings.

soundfile and lhotse are imported where they are used: ``speecheq.corpora`` exports ``read_header``, and commands that
read no audio start without them.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from speecheq.common.errors import InputError
from speecheq.common.files import PathLike

if TYPE_CHECKING:
    from lhotse import Recording

    from speecheq.corpora.decoding import DecodedFile

# One analysis frame of the features (section 3.2); shorter clips have no features.
FRAME_SECONDS = 0.025


def _wav_is_truncated(path: Path) -> bool:
    """Whether a RIFF file ends before its data chunk does; libsndfile reads such files without an error."""
    size = path.stat().st_size
    with open(path, "rb") as stream:
        if stream.read(4) != b"RIFF":
            return False
        stream.seek(12)
        while True:
            header = stream.read(8)
            if len(header) < 8:
                return True
            length = int.from_bytes(header[4:], "little")
            if header[:4] == b"data":
                # writers to pipes leave the length open
                return length != 0xFFFFFFFF and stream.tell() + length > size
            stream.seek(length + length % 2, 1)


class AudioHeader(NamedTuple):
    """Frames (samples a channel), sampling rate in Hz and number of channels of an audio file."""

    frames: int
    rate: int
    channels: int


def read_header(path: PathLike) -> AudioHeader:
    """The header of an audio file, of what ``decode`` makes of it where libsndfile does not read it.

    Raises InputError for a file that is missing, empty, not audio, truncated, or shorter than one 25 ms frame, and for
    a name that is not UTF-8. OtherFormatError for audio or video that libsndfile does not read, without PyAV.
    """
    return read_or_decode(path)[0]


def read_or_decode(path: PathLike) -> "tuple[AudioHeader, DecodedFile | None]":
    """The header of an audio file, and what is read in its place, None where libsndfile reads it.

    Raises InputError as ``read_header`` does.
    """
    import soundfile

    from speecheq.corpora.decoding import decode_other_format

    path = Path(path)
    try:
        str(path).encode()
    except UnicodeEncodeError as error:  # so Python keeps bytes of file names
        raise InputError(f"{path}: the name of a file or folder is not UTF-8; rename it.") from error
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; copy it again.")
    decoded = None
    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:  # TypeError: named .raw, so without a header
        decoded = decode_other_format(path, error)
        info = soundfile.info(decoded.name)
    if decoded is None and _wav_is_truncated(path):
        raise InputError(f"{path}: is truncated, its header announces more samples; copy it again.")
    if info.frames < FRAME_SECONDS * info.samplerate:
        raise InputError(
            f"{path}: holds {info.frames} samples at {info.samplerate} Hz, less than one frame of 25 ms; "
            "replace or remove the clip."
        )
    return AudioHeader(info.frames, info.samplerate, info.channels), decoded


def make_recording(recording_id: str, path: PathLike, header: AudioHeader) -> "Recording":
    """The lhotse recording of an audio file whose header has been read."""
    from lhotse import AudioSource, Recording

    # absolute, so that later stages find the clip from any folder
    source = AudioSource(type="file", channels=list(range(header.channels)), source=os.path.abspath(path))
    return Recording(
        id=recording_id,
        sources=[source],
        sampling_rate=header.rate,
        num_samples=header.frames,
        duration=header.frames / header.rate,
    )


def read_recording(recording_id: str, path: PathLike) -> "Recording":
    """The lhotse recording of an audio file; raises InputError as ``read_header`` does."""
    return make_recording(recording_id, path, read_header(path))


def read_headers(files: Iterable[PathLike], nj: int) -> Iterator[AudioHeader]:
    """The headers of ``files`` in order, read by ``nj`` threads, at most 64 ``nj`` of them ahead."""
    with ThreadPoolExecutor(max(1, nj)) as pool:
        files = iter(files)
        while batch := list(islice(files, 64 * max(1, nj))):
            yield from pool.map(read_header, batch)
