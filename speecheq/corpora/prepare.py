"""What every prep script shares: the declaration of a corpus, its command line, its validation.

A prep script (``local/prepare_<corpus>.py``) declares its corpus once, as a ``Corpus``, and yields
``Utterance`` objects; ``main`` writes from them, to lhotse's manifest contract,

    OUT_DIR/<corpus>_recordings_<split>.jsonl.gz
    OUT_DIR/<corpus>_supervisions_<split>.jsonl.gz
    OUT_DIR/<corpus>_card.json

A supervision has ``speaker``, ``gender`` (F, M or None), ``text``, ``language``, and in ``custom``:
``corpus``, ``emotion`` (the corpus' own label), ``intensity`` (its own level or value, or None), ``esc`` (the
SEQM category or None), ``eis`` (0 to 4, or -1 where unspecified), ``eis_of_corpus`` for neutral clips whose own
intensity says something else than SEQM's 0, and, where the corpus has them, ``split`` (official), ``text_id``
(many clips speak the same numbered text), ``session``, and whatever else the script keeps as ``extra``.
"""

import io
import os
import random
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import soundfile
from lhotse import (
    AudioSource,
    Recording,
    RecordingSet,
    SupervisionSegment,
    SupervisionSet,
    validate_recordings_and_supervisions,
)
from lhotse.serialization import SequentialJsonlWriter

from speecheq import seqm
from speecheq.common.command_line import OneLineParser, exit_status, positive, positive_whole, true_or_false
from speecheq.common.errors import InputError
from speecheq.common.files import PathLike, write_json
from speecheq.common.log import log, set_up_logging
from speecheq.common.progress import progress
from speecheq.common.stages import Drops, Stage

# One analysis frame of the features (section 3.2); shorter clips have no features.
FRAME_SECONDS = 0.025
# A segment may end so much after its recording does: tables round their times.
ROUNDING_SECONDS = 0.01
# So many clips are checked and written at a time.
BATCH = 1000
# Raised when what this module writes changes its meaning.
FORMAT = 2
NEUTRAL_RULES = ("metric", "corpus")
# Fields of an utterance with few different values in a corpus.
SHARED_WORDS = ("speaker", "gender", "label", "level", "split", "session")


@dataclass(frozen=True)
class Corpus:
    """The declaration of a corpus: the only place that knows its labels.

    ``labels`` maps the corpus' own emotion labels to SEQM categories (empty for a corpus without emotions), or to
    one of the low and high names of SEQM, such as boredom, which then gives the EIS too; intensity is said by
    ``levels``, its levels' names from weak to strong (two or three), or by ``scale``, the lowest and highest value
    of a continuous scale, or by neither; ``neutral_eis`` is ``metric`` where neutral clips have SEQM's EIS of 0,
    ``corpus`` where they have what their own intensity says (by default: metric with levels, else corpus);
    ``splits`` are the official parts, of which ``test_split`` is the fixed test set;
    ``counts`` are the utterance counts of the releases in circulation, by their names, and ``count_by`` those of
    the only release by label, level, split, speaker, gender or session.
    """

    name: str
    title: str
    language: str
    layout: str
    labels: Mapping[str, str] = field(default_factory=dict)
    levels: Sequence[str] = ()
    scale: tuple[float, float] | None = None
    neutral_eis: str | None = None
    splits: Sequence[str] = ()
    test_split: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    count_by: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    has_transcripts: bool = False

    def __post_init__(self) -> None:
        for name in self.labels.values():
            if name not in seqm.EMOTIONS:
                raise ValueError(f"{self.name}: {name!r} is neither a category nor an emotion of SEQM")
        if self.levels and len(self.levels) not in seqm.LEVEL_EIS:
            raise ValueError(f"{self.name}: SEQM has gold values for 2 or 3 levels, not {len(self.levels)}")
        if self.levels and self.scale:
            raise ValueError(f"{self.name}: intensity is said by levels or by a scale, not by both")
        if self.scale:
            seqm.eis_from_scale(self.scale[0], *self.scale)
        if self.neutral_eis is None:
            object.__setattr__(self, "neutral_eis", "metric" if self.levels else "corpus")
        if self.neutral_eis not in NEUTRAL_RULES:
            raise ValueError(f"{self.name}: neutral_eis is {self.neutral_eis!r}, not one of {', '.join(NEUTRAL_RULES)}")
        if self.test_split is not None and self.test_split not in self.splits:
            raise ValueError(f"{self.name}: the test part {self.test_split!r} is not among its parts")

    def _emotion(self, label: str) -> seqm.Emotion:
        if label not in self.labels:
            raise ValueError(f"the label {label!r} is not one of {self.title}'s: {', '.join(self.labels)}")
        return seqm.EMOTIONS[self.labels[label]]

    def esc(self, label: str | None) -> str | None:
        """The SEQM category of the corpus' label (None for None); ValueError for an undeclared label."""
        return None if label is None else self._emotion(label).category

    def own_eis(self, label: str | None, level: str | None, intensity: float | None = None) -> float:
        """The EIS that the corpus' own intensity gives (section 2.1), neutral or not; -1 where it says nothing.

        ValueError for an undeclared level or a value outside the declared scale.
        """
        levels = list(self.levels)
        if level is not None and level not in levels:
            raise ValueError(f"the level {level!r} is not one of {self.title}'s: {', '.join(levels) or 'none'}")
        if intensity is not None and self.scale is None:
            raise ValueError(f"the intensity {intensity!r} is given, but {self.title} declares no scale")
        if label is not None and self.labels.get(label) not in seqm.CATEGORIES:
            return self._emotion(label).eis
        if level is not None:
            return seqm.eis_from_level(levels.index(level) + 1, len(levels))
        if intensity is not None:
            return seqm.eis_from_scale(intensity, *self.scale)
        return seqm.UNSPECIFIED

    def eis(self, label: str | None, level: str | None, intensity: float | None = None) -> float:
        """The gold EIS: SEQM's 0 for neutral clips under the rule ``metric``, else what ``own_eis`` says."""
        own = self.own_eis(label, level, intensity)
        if self.neutral_eis == "metric" and self.esc(label) == seqm.NEUTRAL:
            return seqm.NEUTRAL_EIS
        return own


@dataclass(frozen=True, slots=True)
class Utterance:
    """One clip as a prep script finds it.

    ``level`` is one of the corpus' levels, or ``intensity`` a value of its scale. A clip is a whole audio file,
    or the part from ``start`` to ``end`` (seconds) of one, which then has an id, ``recording``, of its own.
    ``extra`` holds further facts to keep (age, valence). ``source`` says where its labels stand, for error messages.
    Stage 1 holds all utterances of a corpus, so what many of them say in the same words is held once.
    """

    id: str
    audio: PathLike  # text where a corpus has very many clips: a Path takes some hundred bytes more
    speaker: str
    gender: str | None = None
    text: str = ""
    label: str | None = None
    level: str | None = None
    intensity: float | None = None
    split: str | None = None
    text_id: str | None = None
    session: str | None = None
    start: float = 0.0
    end: float | None = None
    recording: str = ""
    extra: Mapping[str, Any] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        for name in SHARED_WORDS:
            value = getattr(self, name)
            if type(value) is str:
                object.__setattr__(self, name, sys.intern(value))


@dataclass(frozen=True)
class Request:
    """What a prep script was asked for: the folder, whether a partial copy will do, how many hours."""

    corpus_dir: Path
    partial: bool = False
    hours: float | None = None
    seed: int = 0
    nj: int = 1


Finder = Callable[[Path, bool, Drops], Iterable[Utterance]]


def find_root(corpus_dir: Path, is_root: Callable[[Path], bool], corpus: Corpus) -> Path:
    """``corpus_dir`` if it is the corpus' folder, else InputError saying what is wrong with it.

    ``is_root`` tells the corpus' folder from others; it is also asked about the folders one level below and
    up to four above, so that a folder too high or too low is named as such.
    """

    def looks_right(path: Path) -> bool:
        try:
            return is_root(path)
        except OSError:  # a folder around the given one may be closed to us
            return False

    expected = f"{corpus.title} is expected as {corpus.layout}"
    corpus_dir = Path(corpus_dir)
    if not corpus_dir.exists():
        raise InputError(f"{corpus_dir}: there is no such folder; {expected}.")
    if not corpus_dir.is_dir():
        raise InputError(f"{corpus_dir}: is a file, not a folder; {expected}.")
    if is_root(corpus_dir):
        return corpus_dir
    below = sorted(path for path in corpus_dir.iterdir() if path.is_dir())
    if not below and not any(corpus_dir.iterdir()):
        raise InputError(f"{corpus_dir}: the folder is empty; {expected}.")
    for path in below:
        if looks_right(path):
            raise InputError(f"{corpus_dir}: is one level too high, give {path} instead; {expected}.")
    for path in list(corpus_dir.resolve().parents)[:4]:
        if looks_right(path):
            raise InputError(f"{corpus_dir}: is too low inside the corpus, give {path} instead; {expected}.")
    raise InputError(f"{corpus_dir}: does not look like {corpus.title}; {expected}.")


def iter_folders(folder: Path) -> Iterator[Path]:
    """The folders inside ``folder`` by name, without hidden ones."""
    return (path for path in sorted(Path(folder).iterdir()) if path.is_dir() and not path.name.startswith("."))


def iter_clips(folder: Path, suffix: str = ".wav") -> Iterator[Path]:
    """The audio files inside ``folder`` by name, without hidden ones (macOS leaves ``._*.wav`` files behind)."""
    return (
        path
        for path in sorted(Path(folder).iterdir())
        if path.suffix.lower() == suffix and not path.name.startswith(".")
    )


def _decoded(path: Path, encodings: Sequence[str]) -> Iterator[tuple[int, str]]:
    """(number, text) of every line, in the first of ``encodings`` that the whole file is in."""
    content = path.read_bytes()
    has_mark = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in encodings[:-1]:
        if (encoding == "utf-16") != has_mark:  # without its mark any bytes pass for UTF-16
            continue
        try:
            return enumerate(content.decode("utf-8-sig" if encoding == "utf-8" else encoding).split("\n"), 1)
        except UnicodeDecodeError:
            continue
    return _decoded_line_by_line(path, content, encodings)


def _decoded_line_by_line(path: Path, content: bytes, encodings: Sequence[str]) -> Iterator[tuple[int, str]]:
    encoding = encodings[-1]
    for number, line in enumerate(io.BytesIO(content), 1):
        line = line.removesuffix(b"\n")
        try:
            yield number, line.decode("utf-8-sig" if encoding == "utf-8" and number == 1 else encoding)
        except UnicodeDecodeError as error:
            known = " or ".join(name.upper() for name in encodings)
            raise InputError(
                f"{path}, line {number}: is not {known}; convert the file, for instance with iconv."
            ) from error


def read_lines(path: Path, encodings: Sequence[str] = ("utf-8",)) -> Iterator[tuple[str, str]]:
    """``<path>, line <number>`` and the text of every line that is not blank.

    The first of ``encodings`` that fits the whole file is taken; utf-16 fits only where the file begins with its
    byte order mark. InputError where none fits; it names the line where the last one fails.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    for number, text in _decoded(path, encodings):
        text = text.rstrip("\r")
        if text.strip():
            yield f"{path}, line {number}", text


def keep_matched(
    clips: Iterable[str], labelled: Iterable[str], table: Path, audio: Path, partial: bool, drops: Drops, what: str
) -> set[str]:
    """The utterances that have both audio and a line in ``table``; the others are added to ``drops``.

    ``what`` names what a line holds (transcript, label). InputError where most clips have no line, or most lines
    no clip; a partial copy may lack most of the audio.
    """
    have_audio, have_line = set(clips), set(labelled)
    without_line, without_audio = sorted(have_audio - have_line), sorted(have_line - have_audio)
    if 2 * len(without_line) > len(have_audio):
        raise InputError(
            f"{table}: has no line for {len(without_line)} of {len(have_audio)} clips ({without_line[0]} for one); "
            "it does not belong to this audio."
        )
    if not partial and 2 * len(without_audio) > len(have_line):
        raise InputError(
            f"{audio}: has no audio for {len(without_audio)} of {len(have_line)} lines of {table} ({without_audio[0]} "
            "for one); complete the copy, or accept what is there with --partial true."
        )
    for name in without_line:
        drops.add(f"audio without {what}", name)
    for name in without_audio:
        drops.add(f"{what} without audio", name)
    have_audio.difference_update(without_line)
    return have_audio


def _wav_is_truncated(path: Path) -> bool:
    """Whether a RIFF file ends before its data chunk does (libsndfile reads such files without a word)."""
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


class Header(NamedTuple):
    """What the header of an audio file says."""

    frames: int
    rate: int
    channels: int


def read_header(path: Path) -> Header:
    """Frames, rate (Hz) and channels of an audio file.

    InputError for a file that is missing, empty, not audio, truncated, or shorter than one 25 ms frame.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; copy it again.")
    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise InputError(f"{path}: is not audio that can be read ({error}); copy it again.") from error
    if _wav_is_truncated(path):
        raise InputError(f"{path}: is truncated, its header promises more samples; copy it again.")
    if info.frames < FRAME_SECONDS * info.samplerate:
        raise InputError(
            f"{path}: holds {info.frames} samples at {info.samplerate} Hz, less than one frame of 25 ms; "
            "replace or remove the clip."
        )
    return Header(info.frames, info.samplerate, info.channels)


def recording_of(recording_id: str, path: Path, header: Header) -> Recording:
    """The lhotse recording of an audio file whose header is known."""
    # absolute, so that later stages find the clip from any folder
    source = AudioSource(type="file", channels=list(range(header.channels)), source=os.path.abspath(path))
    return Recording(
        id=recording_id,
        sources=[source],
        sampling_rate=header.rate,
        num_samples=header.frames,
        duration=header.frames / header.rate,
    )


def read_recording(recording_id: str, path: Path) -> Recording:
    """The lhotse recording of an audio file; InputError as of ``read_header``."""
    return recording_of(recording_id, path, read_header(path))


def _read_headers(utterances: Sequence[Utterance], nj: int) -> Iterator[Header]:
    """The headers in order, read by ``nj`` threads, a bounded number ahead."""
    with ThreadPoolExecutor(max(1, nj)) as pool:
        paths = (utterance.audio for utterance in utterances)
        ahead = deque(pool.submit(read_header, path) for path in islice(paths, 64 * max(1, nj)))
        try:
            while ahead:
                header = ahead.popleft().result()
                ahead.extend(pool.submit(read_header, path) for path in islice(paths, 1))
                yield header
        finally:
            for waiting in ahead:
                waiting.cancel()


def _where(utterance: Utterance) -> str:
    return utterance.source or str(utterance.audio)


def _custom(corpus: Corpus, utterance: Utterance) -> dict[str, Any]:
    """The labels of an utterance in SEQM terms; InputError for one outside the declaration."""
    if corpus.splits and utterance.split not in corpus.splits:
        raise InputError(
            f"{_where(utterance)}: the split {utterance.split!r} is not one of {', '.join(corpus.splits)}."
        )
    try:
        own = corpus.own_eis(utterance.label, utterance.level, utterance.intensity)
        eis = corpus.eis(utterance.label, utterance.level, utterance.intensity)
        custom = {
            **(utterance.extra or {}),
            "corpus": corpus.name,
            "emotion": utterance.label,
            "intensity": utterance.intensity if utterance.level is None else utterance.level,
            "esc": corpus.esc(utterance.label),
            "eis": eis,
        }
    except ValueError as error:
        raise InputError(f"{_where(utterance)}: {error}.") from error
    if own != eis:
        custom["eis_of_corpus"] = own
    for name in ("split", "text_id", "session"):
        if getattr(utterance, name) is not None:
            custom[name] = getattr(utterance, name)
    return custom


def _supervision(corpus: Corpus, utterance: Utterance, header: Header) -> SupervisionSegment:
    whole = header.frames / header.rate
    end = whole if utterance.end is None else utterance.end
    if not 0 <= utterance.start <= end - FRAME_SECONDS or end > whole + ROUNDING_SECONDS:
        raise InputError(
            f"{_where(utterance)}: the segment from {utterance.start:g} to {end:g} s is shorter than one frame of "
            f"25 ms or leaves its recording of {whole:.2f} s."
        )
    end = min(end, whole)
    return SupervisionSegment(
        id=utterance.id,
        recording_id=utterance.recording or utterance.id,
        start=utterance.start,
        duration=end - utterance.start,
        channel=0,  # the features mix all channels down to one
        text=utterance.text,
        language=corpus.language,
        speaker=utterance.speaker,
        gender=utterance.gender,
        custom=_custom(corpus, utterance),
    )


def check_utterances(corpus: Corpus, utterances: Sequence[Utterance], request: Request) -> None:
    """InputError where there is none, an id occurs twice, a label, gender or split is undeclared, or a speaker has
    two genders, or a recording two files."""
    if not utterances:
        raise InputError(
            f"{request.corpus_dir}: no utterance was found; {corpus.title} is expected as {corpus.layout}."
        )
    by_id: dict[str, Utterance] = {}
    by_speaker: dict[str, Utterance] = {}
    by_recording: dict[str, Utterance] = {}
    for utterance in utterances:
        where = _where(utterance)
        other = by_id.setdefault(utterance.id, utterance)
        if other is not utterance:
            raise InputError(
                f"{where}: the utterance {utterance.id} occurs a second time, first in {_where(other)}; remove one."
            )
        if utterance.gender not in ("F", "M", None):
            raise InputError(f"{where}: the gender {utterance.gender!r} is neither F nor M.")
        other = by_speaker.setdefault(utterance.speaker, utterance)
        if other.gender != utterance.gender:
            raise InputError(
                f"{where}: the speaker {utterance.speaker} has the gender {utterance.gender}, but {other.gender} in "
                f"{_where(other)}."
            )
        if utterance.recording:
            other = by_recording.setdefault(utterance.recording, utterance)
            if other.audio != utterance.audio:
                raise InputError(
                    f"{where}: the recording {utterance.recording} is {utterance.audio}, but {other.audio} in "
                    f"{_where(other)}."
                )
        _custom(corpus, utterance)


def _differences(corpus: Corpus, utterances: Sequence[Utterance]) -> list[str]:
    """What a copy has less or more of than the release, such as ``59 of 60 with the speaker 07``."""
    found: list[str] = []
    for name, official in corpus.count_by.items():
        have = Counter(str(getattr(utterance, name)) for utterance in utterances)
        for value in sorted({*official, *have}):
            if value not in official:
                found.append(f"{have[value]} with the unknown {name} {value}")
            elif have[value] != official[value]:
                found.append(f"{have[value]} of {official[value]} with the {name} {value}")
    return found


def _listed(items: Sequence[str], most: int = 6) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _check_counts(corpus: Corpus, utterances: Sequence[Utterance], drops: Drops, request: Request) -> None:
    """InputError where the copy is not a whole release, unless a partial copy will do: then a warning."""
    differences = _differences(corpus, utterances)
    if not differences and (not corpus.counts or len(utterances) in corpus.counts.values()):
        return
    official = " or ".join(f"{count} ({release})" for release, count in corpus.counts.items())
    lacks = f" - {_listed(differences)}" if differences else ""
    if not request.partial:
        left_out = "".join(f", {count} left out ({reason})" for reason, count in drops.counts().items())
        raise InputError(
            f"{request.corpus_dir}: {len(utterances)} utterances found{left_out}, {corpus.title} has "
            f"{official or 'others'}{lacks}; complete the copy, or accept it as it is with --partial true."
        )
    log.warning("%s: a partial copy, %d utterances of %s%s", corpus.title, len(utterances), official or "others", lacks)


def _take_hours(
    corpus: Corpus, utterances: list[Utterance], headers: list[Header], request: Request, drops: Drops
) -> Sequence[int]:
    """Which places to keep, in order: of the training part those of a seeded subset of at least ``hours`` hours."""
    everything = range(len(utterances))
    training = [place for place in everything if utterances[place].split in ("train", None)]

    def seconds(place: int) -> float:
        utterance, header = utterances[place], headers[place]
        return (header.frames / header.rate if utterance.end is None else utterance.end) - utterance.start

    total = sum(map(seconds, training)) / 3600
    if total < request.hours:
        log.warning(
            "%s: %g hours asked for, the training part has %.2f: all are taken", corpus.title, request.hours, total
        )
        return everything
    random.Random(f"{request.seed} {corpus.name} hours").shuffle(training)
    taken, outside = 0.0, set()
    for place in training:
        if taken >= request.hours * 3600:
            drops.add(f"outside the {request.hours:g} hours asked for", utterances[place].id)
            outside.add(place)
        else:
            taken += seconds(place)
    return [place for place in everything if place not in outside]


class _Counts:
    """What the card counts, taken up a supervision at a time."""

    def __init__(self) -> None:
        self.seconds, self.utterances = 0.0, 0
        self.by: dict[str, Counter] = {
            name: Counter()
            for name in (
                "split",
                "session",
                "speaker",
                "gender",
                "emotion",
                "intensity",
                "esc",
                "eis",
                "sampling_rate",
                "channels",
            )
        }

    def add(self, supervision: SupervisionSegment, header: Header) -> None:
        custom = supervision.custom
        self.seconds += supervision.duration
        self.utterances += 1
        values = {name: custom.get(name) for name in ("split", "session", "emotion", "intensity", "esc", "eis")}
        values.update(
            speaker=supervision.speaker, gender=supervision.gender, sampling_rate=header.rate, channels=header.channels
        )
        if isinstance(values["intensity"], float):
            values["intensity"] = round(values["intensity"], 1)  # averages of judges have too many values to list
        values["eis"] = round(values["eis"], 1)
        for name, value in values.items():
            self.by[name][str(value)] += 1

    def as_dict(self) -> dict[str, dict[str, int]]:
        return {name: dict(sorted(counter.items())) for name, counter in self.by.items()}


def prepare(corpus: Corpus, find: Finder, request: Request, out_dir: Path) -> None:
    """Write the manifests and the card of ``corpus`` into ``out_dir`` (stage 1), unless they are up to date.

    ``find(corpus_dir, partial, drops)`` yields the utterances and adds what it leaves out to ``drops``.
    Raises InputError for whatever is wrong with the corpus; ``out_dir`` then stays as it was.
    """
    drops = Drops()
    # found first: a wrong folder may be a whole disk, whose sizes nobody wants to wait for
    found = find(request.corpus_dir, request.partial, drops)
    # clips of one recording follow each other, so that later stages can read both manifests side by side
    utterances = sorted(found, key=lambda utterance: (utterance.recording or utterance.id, utterance.id))
    corpus_dir, out_dir = Path(request.corpus_dir).resolve(), Path(out_dir)
    if out_dir.resolve() == corpus_dir or corpus_dir in out_dir.resolve().parents:
        raise InputError(f"{out_dir}: lies inside the corpus; name another folder for the manifests.")
    options = {**asdict(replace(request, corpus_dir=str(corpus_dir))), "corpus": asdict(corpus)}
    del options["nj"]
    stage = Stage("manifests", corpus.name, out_dir, options, [corpus_dir], FORMAT)
    if not stage.needs_run() or stage.added_to_plan():
        return
    check_utterances(corpus, utterances, request)
    _check_counts(corpus, utterances, drops, request)
    with stage.locked() as is_missing:
        if is_missing:
            _write(corpus, utterances, request, drops, stage)


def _write(corpus: Corpus, utterances: list[Utterance], request: Request, drops: Drops, stage: Stage) -> None:
    """The manifests and the card of ``utterances``, in their order."""
    went_in = len(utterances) + len(drops)
    reading = _read_headers(utterances, request.nj)
    headers = list(progress(reading, f"{corpus.name}: reading headers", len(utterances), "clips"))
    kept = range(len(utterances)) if request.hours is None else _take_hours(corpus, utterances, headers, request, drops)
    splits = sorted({utterances[place].split or "all" for place in kept})
    counts = _Counts()
    with stage.replace_folder() as folder:
        for split in splits:
            places = (place for place in kept if (utterances[place].split or "all") == split)
            _write_split(corpus, folder, split, ((utterances[place], headers[place]) for place in places), counts)
        write_json(folder / f"{corpus.name}_card.json", _card(corpus, request, splits, counts))
        stage.finish(folder, went_in, counts.utterances, drops)


def _write_split(
    corpus: Corpus, folder: Path, split: str, pairs: Iterator[tuple[Utterance, Header]], counts: _Counts
) -> None:
    """The two manifests of one part, a batch at a time."""
    with ExitStack() as stack:
        recordings_file, supervisions_file = (
            stack.enter_context(SequentialJsonlWriter(folder / f"{corpus.name}_{kind}_{split}.jsonl.gz"))
            for kind in ("recordings", "supervisions")
        )
        written = ""
        while True:
            recordings, supervisions = {}, []
            for utterance, header in islice(pairs, BATCH):
                name = utterance.recording or utterance.id
                recordings.setdefault(name, recording_of(name, utterance.audio, header))
                supervisions.append(_supervision(corpus, utterance, header))
                counts.add(supervisions[-1], header)
            if not supervisions:
                return
            validate_recordings_and_supervisions(
                RecordingSet.from_recordings(recordings.values()), SupervisionSet.from_segments(supervisions)
            )
            for name, recording in recordings.items():
                if name != written:  # the last recording of a batch may go on in the next
                    recordings_file.write(recording)
                written = name
            for supervision in supervisions:
                supervisions_file.write(supervision)


def _card(corpus: Corpus, request: Request, splits: list[str], counts: _Counts) -> dict:
    """What later stages know of a corpus."""
    return {
        "name": corpus.name,
        "title": corpus.title,
        "language": corpus.language,
        "labels": {label: corpus.esc(label) for label in corpus.labels},
        "plain_labels": sorted(label for label, name in corpus.labels.items() if name in seqm.CATEGORIES),
        "levels": list(corpus.levels),
        "scale": corpus.scale and list(corpus.scale),
        "neutral_eis": corpus.neutral_eis,
        "has_transcripts": corpus.has_transcripts,
        "partial": request.partial,
        "splits": splits,
        "test_split": corpus.test_split if corpus.test_split in splits else None,
        "utterances": counts.utterances,
        "hours": round(counts.seconds / 3600, 4),
        "counts": counts.as_dict(),
    }


def main(parts: Mapping[str, tuple[Corpus, Finder]], argv: Sequence[str] | None = None) -> int:
    """The command line of a prep script: CORPUS_DIR OUT_DIR and options. Returns the exit status.

    ``parts`` are the corpora that the script prepares, chosen by ``--part``; a script for one has the part "".
    """
    set_up_logging()
    corpora = [corpus for corpus, _ in parts.values()]
    expected = "; ".join(dict.fromkeys(f"{corpus.title}, expected as {corpus.layout}" for corpus in corpora))
    parser = OneLineParser(
        prog=f"prepare_{os.path.commonprefix([corpus.name for corpus in corpora]).rstrip('_')}.py",
        description=f"Write lhotse manifests of {expected}.",
    )
    parser.add_argument("corpus_dir", type=Path, metavar="CORPUS_DIR")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR")
    if list(parts) != [""]:
        parser.add_argument("--part", choices=tuple(parts), required=True, help="which part of the corpus")
    parser.add_argument("--partial", type=true_or_false, default=False, help="true: accept an incomplete copy")
    parser.add_argument("--hours", type=positive, help="a seeded subset of so many hours of the training part")
    parser.add_argument("--seed", type=int, default=0, help="the seed of that subset")
    parser.add_argument("--nj", type=positive_whole, default=1, help="threads that read headers")
    parser.add_argument("--check-only", action="store_true", help="only check that the folder has the layout")

    def action() -> None:
        given = parser.parse_args(argv)
        corpus, find = parts[getattr(given, "part", "")]
        if given.check_only:
            check_utterances(corpus, list(find(given.corpus_dir, given.partial, Drops())), Request(given.corpus_dir))
            log.info("%s: %s has the layout of %s", corpus.name, given.corpus_dir, corpus.title)
            return
        request = Request(given.corpus_dir, given.partial, given.hours, given.seed, given.nj)
        prepare(corpus, find, request, given.out_dir)

    return exit_status(action)


def run(corpus: Corpus, find: Finder) -> None:
    """What a prep script calls when it is run as a program."""
    sys.exit(main({"": (corpus, find)}))


def run_parts(parts: Mapping[str, tuple[Corpus, Finder]]) -> None:
    """The same for a script that prepares several corpora, one at a time, chosen by ``--part``."""
    sys.exit(main(parts))
