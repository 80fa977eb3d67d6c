"""The samples of a stream: raw PCM, or wav whose header need not know its length, as programs write it into a pipe."""

import io
import os
import queue
import struct
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from speecheq.common.errors import InputError
from speecheq.common.log import log

if TYPE_CHECKING:
    import numpy as np

# By the names that ffmpeg has for raw formats: the subtype and byte order of libsndfile, and the bytes of a sample.
ENCODINGS = {
    "s16le": ("PCM_16", "LITTLE", 2),
    "s16be": ("PCM_16", "BIG", 2),
    "s24le": ("PCM_24", "LITTLE", 3),
    "s32le": ("PCM_32", "LITTLE", 4),
    "u8": ("PCM_U8", "LITTLE", 1),
    "f32le": ("FLOAT", "LITTLE", 4),
    "f32be": ("FLOAT", "BIG", 4),
    "f64le": ("DOUBLE", "LITTLE", 8),
    "mulaw": ("ULAW", "LITTLE", 1),
    "alaw": ("ALAW", "LITTLE", 1),
}
# By the format tag and the bits of a sample in the header of a wav file.
WAV_ENCODINGS = {
    (1, 8): "u8",
    (1, 16): "s16le",
    (1, 24): "s24le",
    (1, 32): "s32le",
    (3, 32): "f32le",
    (3, 64): "f64le",
    (6, 8): "alaw",
    (7, 8): "mulaw",
}
EXTENSIBLE = 0xFFFE  # the format tag then stands in the first bytes of a longer header
# Programs that do not know the length write 0, the most, or 2 GiB, less a header.
UNKNOWN_LENGTH = 0x7FFF0000
LONGEST_HEADER = 1 << 20
# So much is read at once, in bytes, and so many of these wait at most while the model computes.
PIECE, WAITING = 1 << 16, 64
LOOK_SECONDS = 0.2  # between two looks at whether to stop


class StreamFormat(NamedTuple):
    """What the bytes of a stream are; ``length`` in bytes, None: to its end."""

    rate: int
    encoding: str = "s16le"
    channels: int = 1
    length: int | None = None

    @property
    def frame_bytes(self) -> int:
        """The bytes of one sample of all channels."""
        return ENCODINGS[self.encoding][2] * self.channels

    def decode(self, content: bytes) -> "np.ndarray":
        """The samples (S, channels) float32 in whole frames of bytes."""
        import soundfile  # which takes long, and --help needs the encodings

        subtype, order, _ = ENCODINGS[self.encoding]
        samples, _ = soundfile.read(
            io.BytesIO(content),
            samplerate=self.rate,
            channels=self.channels,
            format="RAW",
            subtype=subtype,
            endian=order,
            dtype="float32",
            always_2d=True,
        )
        return samples


def read_pieces(descriptor: int, should_stop: Callable[[], object] = lambda: False) -> Iterator[bytes]:
    """What comes from a file descriptor, until it ends or ``should_stop()``; it is read while the model computes."""
    waiting: queue.Queue[bytes | OSError] = queue.Queue(WAITING)
    own = os.dup(descriptor)  # one that nothing else is opened as while the thread still reads

    def read() -> None:
        piece: bytes | OSError = b"-"
        while isinstance(piece, bytes) and piece:
            try:
                piece = os.read(own, PIECE)
            except OSError as error:
                piece = error
            waiting.put(piece)
        os.close(own)

    threading.Thread(target=read, daemon=True).start()  # it may wait for a stream that goes on when this one is left
    while not should_stop():
        try:
            piece = waiting.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            continue
        if isinstance(piece, OSError):
            raise InputError(f"standard input: cannot be read ({piece}).") from piece
        if not piece:
            return
        yield piece


def open_stream(pieces: Iterator[bytes], raw: StreamFormat | None) -> "tuple[StreamFormat, Iterator[np.ndarray]]":
    """The format of a stream and its samples, (S, channels) float32 as they come.

    ``raw`` is the format of samples without a header; None: the stream is wav. Bytes of a sample that is not whole at
    the end are left out, which is logged. Raises InputError for a stream without samples, and a header that is none.
    """
    begin = b""
    form, header = raw, 0
    for piece in pieces:
        begin += piece
        if raw is not None:
            if begin.startswith(b"RIFF"[: len(begin)]) and len(begin) < 12:
                continue
            if begin.startswith(b"RIFF") and begin[8:12] == b"WAVE":
                raise InputError("standard input: is wav, whose header says what it holds; leave out --rate.")
            break
        found = _wav_header(begin)
        if found is not None:
            form, header = found
            break
    if form is None or not begin:
        raise InputError("standard input: ends before its first sample.")
    return form, _blocks(form, begin[header:], pieces)


def _blocks(form: StreamFormat, begin: bytes, pieces: Iterator[bytes]) -> "Iterator[np.ndarray]":
    rest, left = begin, form.length
    while True:
        if left is not None:
            rest = rest[:left]
        whole = len(rest) // form.frame_bytes * form.frame_bytes
        if whole:
            yield form.decode(rest[:whole])
        rest = rest[whole:]
        if left is not None:
            left -= whole
            if left < form.frame_bytes:
                break
        piece = next(pieces, b"")
        if not piece:
            break
        rest += piece
    if rest:
        log.warning("standard input: ends inside a sample; its last %d bytes are left out", len(rest))
    if left is not None and left >= form.frame_bytes:
        log.warning("standard input: ends %d bytes before its header says", left)


def _wav_header(begin: bytes) -> tuple[StreamFormat, int] | None:
    """The format that the header of a wav stream gives, and where its samples begin; None: more is needed."""
    if not b"RIFF".startswith(begin[:4]) and not b"RF64".startswith(begin[:4]):
        raise InputError(
            "standard input: is not wav; raw samples need their format: --rate 16000 --encoding s16le, or another."
        )
    if len(begin) >= 12 and begin[8:12] != b"WAVE":
        raise InputError("standard input: is not wav; let the program that makes it write wav (ffmpeg: -f wav -).")
    form: StreamFormat | None = None
    at = 12
    while at + 8 <= len(begin):
        name, size = struct.unpack_from("<4sI", begin, at)
        if name == b"data":
            if form is None:
                raise InputError("standard input: its wav header does not say what the samples are; make it again.")
            known = 0 < size < UNKNOWN_LENGTH
            return form._replace(length=size if known else None), at + 8
        if name == b"fmt " and at + 8 + size <= len(begin):
            form = _wav_format(begin[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
        if at > LONGEST_HEADER:
            raise InputError("standard input: its wav header does not end; make the stream again.")
    return None


def _wav_format(content: bytes) -> StreamFormat:
    if len(content) < 16:
        raise InputError("standard input: its wav header is too short; make the stream again.")
    tag, channels, rate, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", content)
    if tag == EXTENSIBLE and len(content) >= 26:
        (tag,) = struct.unpack_from("<H", content, 24)
    encoding = WAV_ENCODINGS.get((tag, bits))
    if encoding is None or not rate or not channels or frame_bytes != channels * ENCODINGS[encoding][2]:
        raise InputError(
            f"standard input: its wav samples (format {tag}, {bits} bits, {channels} channels, {rate} Hz) are none "
            "that a stream may have; let the program that makes it write 16 bits (ffmpeg: -c:a pcm_s16le)."
        )
    return StreamFormat(rate, encoding, channels)
