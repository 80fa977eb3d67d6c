"""Recordings as users have them, and the clips that are predicted of them: 16 kHz, mono, none too long.

A recording is named by a file, a folder, a lhotse manifest, a Kaldi data folder, or ``-`` for standard input.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from lhotse import CutSet, Recording, RecordingSet, load_manifest_lazy
from lhotse.cut import MonoCut

from speecheq.common.errors import InputError
from speecheq.corpora.audit import CLIPPED_RUN, FRAMES_A_SECOND, FULL_SCALE, SILENT_POWER, frame_powers, longest_run
from speecheq.corpora.exchange.kaldi import recordings_of
from speecheq.corpora.prepare import read_header
from speecheq.features.audio import resampler

STANDARD_INPUT = "-"
MANIFESTS = (".jsonl", ".jsonl.gz")
# Files of a folder that are taken for audio; a file that is named by itself may be called anything.
AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".au", ".caf", ".sph", ".w64", ".rf64")
# Recordings up to this are one clip each, longer ones are cut into windows of WINDOW_SECONDS, unless a window is given.
WHOLE_SECONDS = 30.0
WINDOW_SECONDS = 6.0
SILENCE, CLIPPING = "silence", "clipping"


class Part(NamedTuple):
    """A recording, or a part of one: what it is called, its file, its start and end in seconds (None: the file's)."""

    name: str
    path: Path
    start: float = 0.0
    end: float | None = None


@dataclass(frozen=True)
class Windows:
    """How long recordings are cut, in seconds. Without ``length``: those above WHOLE_SECONDS, into WINDOW_SECONDS.

    With ``length`` all recordings that are longer than it. The last window ends where the recording ends.
    """

    length: float | None = None
    hop: float | None = None  # half a window where it is not given

    def of(self, frames: int, rate: int) -> list[tuple[int, int]]:
        """(first sample, samples) of the windows of ``frames`` samples at ``rate`` Hz."""
        most = WHOLE_SECONDS if self.length is None else self.length
        if frames <= round(most * rate):
            return [(0, frames)]
        length = round((self.length or WINDOW_SECONDS) * rate)
        hop = max(1, round(self.hop * rate) if self.hop else length // 2)
        return [(first, length) for first in range(0, frames - length, hop)] + [(frames - length, length)]


class Clip(NamedTuple):
    """What is predicted at once: ``frames`` samples of ``path`` from ``first``. ``windowed``: it is one of several."""

    name: str
    path: Path
    rate: int
    first: int
    frames: int
    windowed: bool

    @property
    def start(self) -> float:
        """Seconds from the recording's beginning."""
        return self.first / self.rate

    @property
    def end(self) -> float:
        return (self.first + self.frames) / self.rate


class Sound(NamedTuple):
    """A clip's samples (S,) at the model's rate; ``note`` is SILENCE, CLIPPING or empty."""

    samples: np.ndarray
    note: str


def find_parts(names: Iterable[str | Path], kept: ExitStack) -> Iterator[Part | InputError]:
    """The recordings that ``names`` stand for, in their order; an InputError in place of each that is not there.

    Standard input is written to a temporary file, which is there until ``kept`` is closed.
    """
    for name in names:
        if str(name) == STANDARD_INPUT:
            copy = kept.enter_context(tempfile.NamedTemporaryFile(prefix="standard-input."))
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.flush()
            yield Part(STANDARD_INPUT, Path(copy.name))
            continue
        try:
            yield from _parts_of(Path(name))
        except InputError as error:
            yield error


def _parts_of(path: Path) -> Iterator[Part]:
    if (path / "wav.scp").is_file():
        for name, audio, start, end in recordings_of(path):
            yield Part(name, audio, start, end)
    elif path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.name.lower().endswith(AUDIO) and file.is_file())
        if not found:
            raise InputError(f"{path}: holds no audio file ({', '.join(AUDIO[:4])} and the like).")
        yield from (Part(str(file), file) for file in found)
    elif path.name.endswith(MANIFESTS) and path.is_file():
        yield from _parts_of_manifest(path)
    else:
        yield Part(str(path), path)


def _parts_of_manifest(path: Path) -> Iterator[Part]:
    try:
        manifest = load_manifest_lazy(path.absolute())  # lhotse runs what begins with pipe:
        if not isinstance(manifest, (CutSet, RecordingSet)):
            raise InputError(f"{path}: holds neither recordings nor cuts; give a manifest of those.")
        for item in manifest:
            yield _part_of(item, path)
    except InputError:
        raise
    except Exception as error:  # gzip, json and lhotse each have their own
        raise InputError(f"{path}: is not a manifest of recordings or cuts that lhotse can read ({error}).") from error


def _part_of(item: MonoCut | Recording, path: Path) -> Part:
    recording = item if isinstance(item, Recording) else getattr(item, "recording", None)
    if recording is None or [source.type for source in recording.sources] != ["file"]:
        raise InputError(f"{path}: {item.id} is not (a part of) one audio file.")
    start, end = (0.0, None) if item is recording else (item.start, item.start + item.duration)
    return Part(item.id, Path(recording.sources[0].source), start, end)


def clips_of(part: Part, windows: Windows) -> list[Clip]:
    """The clips of a recording; InputError where it cannot be read, or has nothing at that place."""
    header = read_header(part.path)
    begins = round(part.start * header.rate)
    ends = header.frames if part.end is None else round(part.end * header.rate)
    if not 0 <= begins < ends <= header.frames:
        raise InputError(
            f"{part.path}: {part.name} is to go from {part.start:g} to {ends / header.rate:g} s, but the recording "
            f"lasts {header.frames / header.rate:g} s."
        )
    cut = windows.of(ends - begins, header.rate)
    return [Clip(part.name, part.path, header.rate, begins + first, frames, len(cut) > 1) for first, frames in cut]


def listen(clip: Clip, sampling_rate: int) -> Sound:
    """The samples of a clip, channels averaged, resampled as stage 2 does; InputError where they cannot be used."""
    try:
        with soundfile.SoundFile(clip.path) as audio:
            audio.seek(clip.first)
            samples = audio.read(clip.frames, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise InputError(f"{clip.path}: cannot be read ({error}).") from error
    if len(samples) != clip.frames:
        raise InputError(
            f"{clip.path}: ends {clip.frames - len(samples)} samples before its header says; copy it again."
        )
    return heard(samples, clip.rate, sampling_rate, str(clip.path))


def heard(samples: np.ndarray, rate: int, sampling_rate: int, name: str) -> Sound:
    """Samples (S, channels) float32 at ``rate`` Hz as a model takes them; InputError for NaN or infinite ones."""
    if not np.isfinite(samples).all():
        raise InputError(f"{name}: holds samples that are not numbers (NaN or infinite); make the file again.")
    note = ""
    if frame_powers(samples, max(1, rate // FRAMES_A_SECOND)).max() < SILENT_POWER:
        note = SILENCE
    elif longest_run((np.abs(samples) >= FULL_SCALE).any(1), 0)[0] >= CLIPPED_RUN:
        note = CLIPPING
    mono = samples.mean(axis=1)
    return Sound(mono if rate == sampling_rate else resampler(rate, sampling_rate)(mono), note)
