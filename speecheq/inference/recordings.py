"""Find recordings, cut them into clips, and read the clips: mono, at the sampling rate of the model.

A recording is named by a file, a folder, a lhotse manifest, a Kaldi data folder, or ``-`` for standard input.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from lhotse import CutSet, Recording, RecordingSet, load_manifest_lazy
from lhotse.cut import MonoCut

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.corpora import read_header
from speecheq.corpora.audio_formats import OTHER_AUDIO, OtherFormatError
from speecheq.corpora.audio_headers import AudioHeader
from speecheq.corpora.audio_quality import (
    CLIPPED_RUN,
    FRAMES_A_SECOND,
    FULL_SCALE,
    SILENT_POWER,
    frame_powers,
    longest_run,
)
from speecheq.corpora.exchange.kaldi import iter_segments
from speecheq.corpora.layout import as_on_disk, is_hidden, report_hidden
from speecheq.corpora.segments import ROUNDING_SECONDS, overhang_is_small
from speecheq.features.audio import mix_channels, resampler
from speecheq.inference.decoding import can_decode, decode

STANDARD_INPUT = "-"
MANIFESTS = (".jsonl", ".jsonl.gz")
# Suffixes of the audio files of a folder; a file that is named itself may have any.
AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".au", ".caf", ".sph", ".w64", ".rf64")
# Without a window length, recordings longer than WHOLE_SECONDS are cut into windows of WINDOW_SECONDS.
WHOLE_SECONDS = 30.0
WINDOW_SECONDS = 6.0
# The shortest window and hop, in seconds.
LEAST_WINDOW = 0.3
LEAST_HOP = 0.01
SKIPPED_AT_ONCE = 1 << 20
SILENCE, CLIPPING, OPPOSITE_PHASE = "silence", "clipping", "opposite phase"
# The notes that a clip may get instead of a class, or beside it.
NOTES = (SILENCE, CLIPPING, OPPOSITE_PHASE)


class Segment(NamedTuple):
    """A recording or a part of one, as in Kaldi's ``segments``: ``start`` and ``end`` in seconds, None: to the end."""

    name: str
    path: Path
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class Windows:
    """How recordings are cut; ``length`` and ``hop`` in seconds, the default hop is half a window.

    With ``length`` every longer recording is cut; without it those above WHOLE_SECONDS, into windows of WINDOW_SECONDS.
    The last window ends where the recording ends. It does not nearly repeat the one before: where the rest is shorter
    than half a hop (and half a window), the window before is made longer by it instead.

    Raises InputError for a ``length`` below LEAST_WINDOW or a ``hop`` below LEAST_HOP.

    >>> Windows(length=4, hop=3).split(frames=90, rate=10)
    [(0, 40), (30, 40), (50, 40)]
    >>> Windows(length=4, hop=3).split(frames=80, rate=10)
    [(0, 40), (30, 50)]
    """

    length: float | None = None
    hop: float | None = None

    def __post_init__(self) -> None:
        for name, seconds, least, reason in (
            ("window", self.length, LEAST_WINDOW, "so little speech has no class"),
            ("hop", self.hop, LEAST_HOP, "the filter banks have one frame in that time"),
        ):
            if seconds is not None and not least <= seconds < float("inf"):
                raise InputError(f"a {name} of {seconds:g} s is not possible, {reason}; choose {least:g} s or more.")

    def split(self, frames: int, rate: int) -> list[tuple[int, int]]:
        """The windows of ``frames`` samples at ``rate`` Hz, each as (first sample, number of samples)."""
        longest = WHOLE_SECONDS if self.length is None else self.length
        if frames <= round(longest * rate):
            return [(0, frames)]
        length = round((self.length or WINDOW_SECONDS) * rate)
        hop = max(1, round(self.hop * rate) if self.hop else length // 2)
        windows = [(first, length) for first in range(0, frames - length, hop)]
        first, rest = windows[-1][0], frames - length - windows[-1][0]
        if 2 * rest < min(hop, length):
            return [*windows[:-1], (first, length + rest)]
        return [*windows, (frames - length, length)]


class AudioClip(NamedTuple):
    """What is predicted at once: ``frames`` samples of a segment's file from sample ``first``, at ``rate`` Hz."""

    segment: Segment
    rate: int
    first: int
    frames: int
    windowed: bool  # the segment was cut, and this is one of its windows
    # what is read instead of the segment's file, and removed with the last clip that refers to it
    decoded: "tempfile._TemporaryFileWrapper[bytes] | None" = None

    @property
    def start(self) -> float:
        """Seconds from the beginning of the file."""
        return self.first / self.rate

    @property
    def end(self) -> float:
        """Seconds from the beginning of the file."""
        return (self.first + self.frames) / self.rate


class Waveform(NamedTuple):
    """The samples (S,) of a clip at the model's sampling rate; ``note``: none or some of NOTES, separated by ``; ``."""

    samples: np.ndarray
    note: str


def find_segments(names: Iterable[str | Path], cleanup: ExitStack) -> Iterator[Segment | InputError]:
    """The recordings of ``names``, in their order; an InputError in the place of each that cannot be found.

    Standard input is copied to a temporary file, which is removed when ``cleanup`` is closed.
    """
    for name in names:
        if str(name) == STANDARD_INPUT:
            copy = cleanup.enter_context(tempfile.NamedTemporaryFile(prefix="standard-input."))
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.flush()
            yield Segment(STANDARD_INPUT, Path(copy.name))
            continue
        try:
            yield from _segments_of_path(as_on_disk(name))
        except InputError as error:
            yield error


def _segments_of_path(path: Path) -> Iterator[Segment | InputError]:
    if (path / "wav.scp").is_file():
        for recording in iter_segments(path):
            if isinstance(recording, InputError):
                yield recording
            else:
                yield Segment(*recording)._replace(path=as_on_disk(recording[1]))
    elif path.is_dir():
        audio = AUDIO + OTHER_AUDIO  # what turns out to be unreadable is reported
        named = sorted(file for file in path.rglob("*") if file.name.lower().endswith(audio) and file.is_file())
        report_hidden(str(path), filter(is_hidden, (str(file.relative_to(path)) for file in named)))
        found = [file for file in named if not is_hidden(file.relative_to(path))]
        if not found:
            raise InputError(f"{path}: holds no audio file ({', '.join(AUDIO[:4])} and the like).")
        yield from (Segment(str(file), file) for file in found)
    elif path.name.endswith(MANIFESTS) and path.is_file():
        yield from _segments_of_manifest(path)
    else:
        yield Segment(str(path), path)


def _segments_of_manifest(path: Path) -> Iterator[Segment | InputError]:
    try:
        manifest = load_manifest_lazy(path.absolute())  # absolute: lhotse runs a name that begins with pipe:
        if not isinstance(manifest, (CutSet, RecordingSet)):
            raise InputError(f"{path}: holds neither recordings nor cuts; give a manifest of those.")
        for item in manifest:
            yield _segment_of_item(item, path)
    except InputError:
        raise
    except Exception as error:  # gzip, json and lhotse each have their own
        raise InputError(f"{path}: is not a manifest of recordings or cuts that lhotse can read ({error}).") from error


def _segment_of_item(item: MonoCut | Recording, path: Path) -> Segment | InputError:
    recording = item if isinstance(item, Recording) else getattr(item, "recording", None)
    if recording is None or [source.type for source in recording.sources] != ["file"]:
        return InputError(f"{path}: {item.id} is not an audio file or a part of one.")
    start, end = (0.0, None) if item is recording else (item.start, item.start + item.duration)
    return Segment(item.id, as_on_disk(recording.sources[0].source), start, end)


def split_into_clips(segment: Segment, windows: Windows) -> list[AudioClip]:
    """The clips of a segment. Raises InputError where its file cannot be read or does not have that part.

    A segment that ends up to 0.5 s after its recording is cut to its end, as in stage 1; more than rounding is logged.
    """
    header, decoded = _read_or_decode(segment)
    first = round(segment.start * header.rate)
    recording_end = header.frames / header.rate
    end = header.frames if segment.end is None else round(segment.end * header.rate)
    if segment.end is not None and end > header.frames and overhang_is_small(segment.end, recording_end):
        if segment.end > recording_end + ROUNDING_SECONDS:
            log.warning(
                "%s: %s ends %.3g s after the recording and is cut to its end",
                segment.path,
                segment.name,
                segment.end - recording_end,
            )
        end = header.frames
    if not 0 <= first < end <= header.frames:
        raise InputError(
            f"{segment.path}: {segment.name} is to go from {segment.start:g} to {end / header.rate:g} s, but the "
            f"recording lasts {header.frames / header.rate:g} s."
        )
    spans = windows.split(end - first, header.rate)
    return [
        AudioClip(segment, header.rate, first + offset, frames, len(spans) > 1, decoded) for offset, frames in spans
    ]


def _read_or_decode(segment: Segment) -> tuple[AudioHeader, "tempfile._TemporaryFileWrapper[bytes] | None"]:
    """The header of a segment's file, and the decoded file where libsndfile cannot read it and PyAV is installed."""
    with _errors_name(segment, segment.path):
        try:
            return read_header(segment.path), None
        except OtherFormatError:
            if not can_decode():
                raise
        decoded = decode(segment.path)
        with _errors_name(segment, Path(decoded.name)):
            return read_header(decoded.name), decoded


@contextmanager
def _errors_name(segment: Segment, file: Path) -> Iterator[None]:
    """Make errors that name ``file``, which may be a temporary one, name what the user gave."""
    try:
        yield
    except InputError as error:
        given = "standard input" if segment.name == STANDARD_INPUT else str(segment.path)
        if given == str(file):
            raise
        text = str(error)
        if segment.name == STANDARD_INPUT:
            text = re.sub(rf"-i {re.escape(str(file))} \S+,", "-i - -f wav -,", text)
        raise InputError(text.replace(str(file), given)) from error


def read_clip(clip: AudioClip, sampling_rate: int) -> Waveform:
    """Read a clip as stage 2 does, resampled to ``sampling_rate`` Hz. Raises InputError where it cannot be used."""
    path = clip.segment.path
    with _errors_name(clip.segment, path):
        try:
            with soundfile.SoundFile(clip.decoded.name if clip.decoded else path) as audio:
                _skip(audio, clip.first)
                samples = audio.read(clip.frames, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, RuntimeError, OSError) as error:
            raise InputError(f"{path}: cannot be read ({error}).") from error
        if len(samples) != clip.frames:
            raise InputError(
                f"{path}: ends {clip.frames - len(samples)} samples before its header says; copy it again."
            )
        return prepare_waveform(samples, clip.rate, sampling_rate, str(path))


def _skip(audio: soundfile.SoundFile, frames: int) -> None:
    """Go to sample ``frames``, also in a format without seeking (GSM 6.10)."""
    if audio.seekable():
        audio.seek(frames)
        return
    while frames > 0:
        read = len(audio.read(min(frames, SKIPPED_AT_ONCE), dtype="float32"))
        if read == 0:
            return
        frames -= read


def prepare_waveform(samples: np.ndarray, rate: int, sampling_rate: int, name: str) -> Waveform:
    """Mix the channels of samples (S, channels) float32 at ``rate`` Hz and resample them to ``sampling_rate`` Hz.

    Raises an InputError that begins with ``name`` for samples that are NaN or infinite.
    """
    if not np.isfinite(samples).all():
        raise InputError(f"{name}: holds samples that are not numbers (NaN or infinite); make the file again.")
    note = ""
    if frame_powers(samples, max(1, rate // FRAMES_A_SECOND)).max() < SILENT_POWER:
        note = SILENCE
    elif longest_run((np.abs(samples) >= FULL_SCALE).any(1), 0)[0] >= CLIPPED_RUN:
        note = CLIPPING
    mono, cancelled = mix_channels(samples)
    if cancelled and note != SILENCE:
        note = "; ".join(filter(None, (note, OPPOSITE_PHASE)))
    return Waveform(mono if rate == sampling_rate else resampler(rate, sampling_rate)(mono), note)
