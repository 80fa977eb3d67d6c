"""Find recordings, cut them into clips, and read the clips: mono, at the sampling rate of the model.

A recording is named by a file, a folder, a lhotse manifest, a Kaldi data folder, or ``-`` for standard input.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from lhotse import Recording, load_manifest_lazy
from lhotse.cut import Cut

from speecheq.common.errors import InputError, first_line
from speecheq.common.log import log
from speecheq.corpora.audio_formats import AUDIO, OTHER_AUDIO, RAW_SAMPLES
from speecheq.corpora.audio_headers import AudioHeader, read_header, read_or_decode
from speecheq.corpora.audio_quality import (
    CLIPPED_RUN,
    FRAMES_A_SECOND,
    FULL_SCALE,
    SILENT_POWER,
    frame_powers,
    longest_run,
)
from speecheq.corpora.decoding import DecodedFile, skip
from speecheq.corpora.exchange.kaldi import iter_segments
from speecheq.corpora.layout import as_on_disk, is_hidden, is_macos_leftover, report_hidden
from speecheq.corpora.segments import ROUNDING_SECONDS, overhang_is_small
from speecheq.features.audio import mix_channels, resampler
from speecheq.features.speech_activity import NONE, find_speech
from speecheq.features.speech_activity import SAMPLING_RATE as VAD_RATE
from speecheq.inference.windows import NO_SPEECH, TOO_SHORT, Span, Windows

STANDARD_INPUT = "-"
MANIFESTS = (".jsonl", ".jsonl.gz")
# So much is read at once to find speech: whole seconds, so that blocks stay whole when they are resampled.
BLOCK_SECONDS = 30
SILENCE, CLIPPING, OPPOSITE_PHASE = "silence", "clipping", "opposite phase"
# The notes that a clip may get instead of a class, or beside it.
WITHOUT_CLASS = (SILENCE, NO_SPEECH, TOO_SHORT)
NOTES = (*WITHOUT_CLASS, CLIPPING, OPPOSITE_PHASE)


class Segment(NamedTuple):
    """A recording or a part of one, as in Kaldi's ``segments``: ``start`` and ``end`` in seconds, None: to the end.

    ``channel`` is the one that is read, from 1 on; None mixes all. A part that a file of segments lists (``listed`` is
    its place there, from 1 on) gets one answer, and keeps its speaker and the other columns of the file.
    """

    name: str
    path: Path
    start: float = 0.0
    end: float | None = None
    channel: int | None = None
    speaker: str = ""
    columns: tuple[tuple[str, str], ...] = ()
    listed: int = 0

    @property
    def is_part(self) -> bool:
        """Whether it is not its whole file."""
        return self.start > 0 or self.end is not None


class CutSegment(Segment):
    """A segment that is a cut of a manifest."""

    cut: Cut


class AudioClip(NamedTuple):
    """What is predicted at once: a span of samples of a segment's file, at ``rate`` Hz."""

    segment: Segment
    rate: int
    span: Span
    windowed: bool  # the segment was cut, and this is one of its windows
    decoded: DecodedFile | None = None  # what is read instead of the segment's file

    @property
    def start(self) -> float:
        """Seconds from the beginning of the file."""
        return self.span.first / self.rate

    @property
    def end(self) -> float:
        """Seconds from the beginning of the file."""
        return (self.span.first + self.span.frames) / self.rate


class Waveform(NamedTuple):
    """The samples (S,) of a clip at the model's sampling rate; ``note``: none or some of NOTES, separated by ``; ``."""

    samples: np.ndarray
    note: str


def find_segments(names: Iterable[str | Path], cleanup: ExitStack) -> Iterator[Segment | InputError]:
    """The recordings of ``names``, in their order; an InputError in the place of each that cannot be found.

    Cuts are CutSegments. Standard input is copied to a temporary file, which is removed when ``cleanup`` is closed.
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
        yield from without_leftovers(path, _segments_of_kaldi(path))
    elif path.is_dir():
        audio = AUDIO + OTHER_AUDIO + RAW_SAMPLES  # what turns out to be unreadable is reported
        named = sorted(file for file in path.rglob("*") if file.name.lower().endswith(audio) and file.is_file())
        report_hidden(str(path), filter(is_hidden, (str(file.relative_to(path)) for file in named)))
        found = [file for file in named if not is_hidden(file.relative_to(path))]
        if not found:
            raise InputError(f"{path}: holds no audio file ({', '.join(AUDIO[:4])} and the like).")
        yield from (Segment(str(file), file) for file in found)
    elif path.name.endswith(MANIFESTS) and path.is_file():
        yield from without_leftovers(path, _segments_of_manifest(path))
    else:
        yield Segment(str(path), path)


def _segments_of_kaldi(folder: Path) -> Iterator[Segment | InputError]:
    for recording in iter_segments(folder):
        if isinstance(recording, InputError):
            yield recording
        else:
            yield Segment(*recording)._replace(path=as_on_disk(recording[1]))


def without_leftovers(source: Path, segments: Iterable[Segment | InputError]) -> Iterator[Segment | InputError]:
    """The segments that ``source`` lists, without leftovers of macOS, which are counted in the log."""
    skipped: list[Path] = []
    for segment in segments:
        if isinstance(segment, Segment) and is_macos_leftover(segment.path):
            skipped.append(segment.path)
        else:
            yield segment
    if skipped:
        log.warning("%s: %d leftovers of macOS are skipped (%s for one)", source, len(skipped), skipped[0])


def _segments_of_manifest(path: Path) -> Iterator[Segment | InputError]:
    for item in manifest_items(path):
        if not isinstance(item, Cut | Recording):
            raise InputError(f"{path}: holds neither recordings nor cuts; give a manifest of those.")
        yield segment_of_item(item, path)


def manifest_items(path: Path) -> Iterator[Any]:
    """The items of a manifest of lhotse, one by one. Raises InputError for an empty one, and at a line that is none."""
    read = 0
    try:
        manifest = load_manifest_lazy(path.absolute())  # absolute: lhotse runs a name that begins with pipe:
        for item in () if manifest is None else manifest:
            read += 1
            yield item
    except Exception as error:  # gzip, json and lhotse each have their own
        raise InputError(
            f"{path}, line {read + 1}: is not a line of a manifest that lhotse can read ({first_line(error)}); make "
            "the manifest again."
        ) from error
    if not read:
        raise InputError(f"{path}: is empty; give a manifest of recordings or cuts.")


def segment_of_item(item: Cut | Recording, path: Path) -> Segment | InputError:
    """The segment that an item of the manifest ``path`` is; an InputError for one that is no part of an audio file."""
    recording = item if isinstance(item, Recording) else getattr(item, "recording", None)
    if recording is None or [source.type for source in recording.sources] != ["file"]:
        return InputError(f"{path}: {item.id} is not an audio file or a part of one.")
    audio = as_on_disk(recording.sources[0].source)
    if isinstance(item, Recording):
        return Segment(item.id, audio)
    segment = CutSegment(item.id, audio, item.start, item.start + item.duration)
    segment.cut = item
    return segment


def split_into_clips(segment: Segment, windows: Windows, speech_activity: str = NONE) -> list[AudioClip]:
    """The clips of a segment, of the speech that ``speech_activity`` finds in it (none: of all of it).

    Raises InputError where its file cannot be read or does not have that part.
    A segment that ends up to 0.5 s after its recording is cut to its end, as in stage 1; more than rounding is logged.
    """
    with _errors_name(segment):
        header, decoded = read_or_decode(segment.path)
    check_channel(segment, header)
    if segment.listed:
        windows = Windows()  # one that is long is predicted in parts, whose answers are joined
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
    if segment.listed and (segment.end is None or segment.end > recording_end):
        segment = segment._replace(end=recording_end)
    whole = AudioClip(segment, header.rate, Span(first, end - first), False, decoded)
    spans = spans_of(lambda: _blocks(whole), end - first, header.rate, windows, speech_activity)
    return [
        whole._replace(
            span=span._replace(
                first=first + span.first, pauses=[(first + start, first + stop) for start, stop in span.pauses]
            ),
            windowed=windows.are_for(end - first, header.rate),
        )
        for span in spans
    ]


def seconds_of(segment: Segment) -> float:
    """The length of a segment's recording."""
    header = read_header(segment.path)
    return header.frames / header.rate


def check_channel(segment: Segment, header: AudioHeader) -> None:
    """Raise InputError if a recording has fewer channels than the one that is to be read."""
    if segment.channel is not None and segment.channel > header.channels:
        channels = "1 channel" if header.channels == 1 else f"{header.channels} channels"
        raise InputError(
            f"{segment.path}: has {channels}, and channel {segment.channel} is to be predicted; choose another with "
            "--channels."
        )


def spans_of(
    blocks: Callable[[], Iterable[np.ndarray]], frames: int, rate: int, windows: Windows, speech_activity: str
) -> list[Span]:
    """The clips of ``frames`` samples at ``rate`` Hz, of which ``blocks()`` gives (S, channels) float32 at a time."""
    if speech_activity == NONE:
        return [Span(first, count) for first, count in windows.split(frames, rate)]

    def mono_blocks() -> Iterator[np.ndarray]:
        for block in blocks():
            yield as_mono(block, rate, VAD_RATE)[0]

    def at_rate(sample: int) -> int:
        return min(frames, round(sample * rate / VAD_RATE))

    speech = [(at_rate(first), at_rate(end)) for first, end in find_speech(mono_blocks, speech_activity)]
    return windows.follow(speech, frames, rate)


@contextmanager
def _errors_name(segment: Segment) -> Iterator[None]:
    """Make errors that name the temporary copy of standard input name what the user gave."""
    try:
        yield
    except InputError as error:
        if segment.name != STANDARD_INPUT:
            raise
        copy = str(segment.path)
        text = re.sub(rf"-i {re.escape(copy)} \S+,", "-i - -f wav -,", str(error))
        raise InputError(text.replace(copy, "standard input")) from error


@contextmanager
def _opened(clip: AudioClip) -> Iterator[soundfile.SoundFile]:
    """The file of a clip, at its first sample; InputError where it cannot be read."""
    path = clip.segment.path
    with _errors_name(clip.segment):
        try:
            with soundfile.SoundFile(clip.decoded.name if clip.decoded else path) as audio:
                skip(audio, clip.span.first)
                yield audio
        except (soundfile.SoundFileError, RuntimeError, OSError) as error:
            raise InputError(f"{path}: cannot be read ({error}).") from error


def _read(audio: soundfile.SoundFile, frames: int, segment: Segment) -> np.ndarray:
    """The next ``frames`` samples (S, channels) float32; InputError where there are fewer, or they are no numbers."""
    samples, path = audio.read(frames, dtype="float32", always_2d=True), segment.path
    if segment.channel is not None:
        samples = np.ascontiguousarray(samples[:, [segment.channel - 1]])
    if len(samples) != frames:
        raise InputError(f"{path}: ends {frames - len(samples)} samples before its header says; copy it again.")
    _check_numbers(samples, str(path))
    return samples


def _check_numbers(samples: np.ndarray, name: str) -> None:
    if not np.isfinite(samples).all():
        raise InputError(f"{name}: holds samples that are not numbers (NaN or infinite); make the file again.")


def iter_blocks(segment: Segment) -> tuple[AudioHeader, Iterator[np.ndarray]]:
    """The header of a recording, and its samples (S, channels) float32 a block of BLOCK_SECONDS at a time."""
    with _errors_name(segment):
        header, decoded = read_or_decode(segment.path)
    return header, _blocks(AudioClip(segment, header.rate, Span(0, header.frames), False, decoded))


def _blocks(clip: AudioClip) -> Iterator[np.ndarray]:
    """The samples of a clip, (S, channels) at its rate, a block at a time; InputError where they cannot be used."""
    with _opened(clip) as audio:
        left = clip.span.frames
        while left:
            block = min(left, BLOCK_SECONDS * clip.rate)
            yield _read(audio, block, clip.segment)
            left -= block


def read_clip(clip: AudioClip, sampling_rate: int) -> Waveform:
    """Read a clip as stage 2 does, resampled to ``sampling_rate`` Hz. Raises InputError where it cannot be used."""
    if clip.span.note in WITHOUT_CLASS:
        return Waveform(np.zeros(0, np.float32), clip.span.note)
    with _opened(clip) as audio:
        samples = _read(audio, clip.span.frames, clip.segment)
    return prepare_waveform(samples, clip, sampling_rate)


def prepare_waveform(samples: np.ndarray, clip: AudioClip, sampling_rate: int) -> Waveform:
    """The samples (S, channels) float32 of a clip, without its pauses, mixed and resampled to ``sampling_rate`` Hz.

    Raises InputError for samples that are NaN or infinite.
    """
    span = clip.span
    _check_numbers(samples, str(clip.segment.path))
    if span.note in WITHOUT_CLASS:
        return Waveform(np.zeros(0, np.float32), span.note)
    for first, end in reversed(span.pauses):
        samples = np.delete(samples, slice(first - span.first, end - span.first), axis=0)
    note = ""
    if span.speech is None and frame_powers(samples, max(1, clip.rate // FRAMES_A_SECOND)).max() < SILENT_POWER:
        note = SILENCE
    elif longest_run((np.abs(samples) >= FULL_SCALE).any(1), 0)[0] >= CLIPPED_RUN:
        note = CLIPPING
    mono, cancelled = as_mono(samples, clip.rate, sampling_rate)
    if cancelled and note != SILENCE:
        note = "; ".join(filter(None, (note, OPPOSITE_PHASE)))
    return Waveform(mono, note)


def as_mono(samples: np.ndarray, rate: int, sampling_rate: int) -> tuple[np.ndarray, bool]:
    """Samples (S, channels) at ``rate`` Hz mixed and resampled; whether the channels cancel each other out."""
    mono, cancelled = mix_channels(samples)
    return (mono if rate == sampling_rate else resampler(rate, sampling_rate)(mono)), cancelled
