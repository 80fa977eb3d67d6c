"""What every prep script shares: the declaration of a corpus, its command line, its validation.

A prep script (``local/prepare_<corpus>.py``) declares its corpus once, as a ``Corpus``, and yields
``Utterance`` objects; ``main`` writes from them, to lhotse's manifest contract,

    OUT_DIR/<corpus>_recordings_<split>.jsonl.gz
    OUT_DIR/<corpus>_supervisions_<split>.jsonl.gz
    OUT_DIR/<corpus>_card.json

A supervision has ``speaker``, ``gender`` (F, M or None), ``text``, ``language``, and in ``custom``:
``corpus``, ``emotion`` (the corpus' own label), ``intensity`` (its own level or None), ``esc`` (the SEQM
category or None), ``eis`` (0 to 4, or -1 where unspecified), ``split`` where the corpus has an official one,
and ``text_id`` where many clips speak the same numbered text.
"""

import os
import random
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

import soundfile
from lhotse import (
    AudioSource,
    Recording,
    RecordingSet,
    SupervisionSegment,
    SupervisionSet,
    validate_recordings_and_supervisions,
)

from speecheq import seqm
from speecheq.commandline import OneLineParser, exit_status, positive, positive_whole, true_or_false
from speecheq.errors import InputError
from speecheq.files import read_json, write_json
from speecheq.progress import log, progress, set_up_logging
from speecheq.stages import Drops, Stage, require

# One analysis frame of the features (section 3.2); shorter clips have no features.
FRAME_SECONDS = 0.025
# Raised when what this module writes changes its meaning.
FORMAT = 1


@dataclass(frozen=True)
class Corpus:
    """The declaration of a corpus: the only place that knows its labels.

    ``labels`` maps the corpus' own emotion labels to SEQM categories (empty for a corpus without emotions);
    ``levels`` names its intensity levels from weak to strong (two or three, empty where it has none);
    ``splits`` are the official parts, of which ``test_split`` is the fixed test set;
    ``counts`` are the utterance counts of the releases in circulation, by their names.
    """

    name: str
    title: str
    language: str
    layout: str
    labels: Mapping[str, str] = field(default_factory=dict)
    levels: Sequence[str] = ()
    splits: Sequence[str] = ()
    test_split: Optional[str] = None
    counts: Mapping[str, int] = field(default_factory=dict)
    has_transcripts: bool = False

    def __post_init__(self) -> None:
        for category in self.labels.values():
            seqm.esc_index(category)
        if self.levels and len(self.levels) not in seqm.LEVEL_EIS:
            raise ValueError(f"{self.name}: SEQM has gold values for 2 or 3 levels, not {len(self.levels)}")

    def esc(self, label: Optional[str]) -> Optional[str]:
        """The SEQM category of the corpus' label (None for None); ValueError for an undeclared label."""
        if label is None:
            return None
        if label not in self.labels:
            raise ValueError(f"the label {label!r} is not one of {self.title}'s: {', '.join(self.labels)}")
        return self.labels[label]

    def eis(self, label: Optional[str], level: Optional[str]) -> float:
        """The gold EIS (section 2.1): in a corpus with levels 0 for neutral, else that of the level; -1 without.

        ValueError for an undeclared level.
        """
        levels = list(self.levels)
        if level is not None and level not in levels:
            raise ValueError(f"the level {level!r} is not one of {self.title}'s: {', '.join(levels) or 'none'}")
        if levels and self.esc(label) == seqm.NEUTRAL:
            return seqm.NEUTRAL_EIS
        if level is None:
            return seqm.UNSPECIFIED
        return seqm.eis_from_level(levels.index(level) + 1, len(levels))


@dataclass(frozen=True)
class Utterance:
    """One clip as a prep script finds it. ``source`` says where its labels stand, for error messages."""

    id: str
    audio: Path
    speaker: str
    gender: Optional[str] = None
    text: str = ""
    label: Optional[str] = None
    level: Optional[str] = None
    split: Optional[str] = None
    text_id: Optional[str] = None
    source: str = ""


@dataclass(frozen=True)
class Request:
    """What a prep script was asked for: the folder, whether a partial copy will do, how many hours."""

    corpus_dir: Path
    partial: bool = False
    hours: Optional[float] = None
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
        path for path in sorted(Path(folder).iterdir())
        if path.suffix.lower() == suffix and not path.name.startswith(".")
    )


def read_lines(path: Path) -> Iterator[Tuple[str, str]]:
    """``<path>, line <number>`` and the text of every line that is not blank; InputError where it is not UTF-8."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        where = f"{path}, line {number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: is not UTF-8; convert the file, for instance with iconv.") from error
        if text.strip():
            yield where, text


def keep_matched(
    clips: Sequence[str], labelled: Sequence[str], table: Path, audio: Path, partial: bool, drops: Drops, what: str
) -> Set[str]:
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
    return have_audio & have_line


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


def read_recording(utterance_id: str, path: Path) -> Recording:
    """The lhotse recording of an audio file, from its header.

    InputError for a file that is missing, empty, not audio, truncated, or shorter than one 25 ms frame.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; copy it from the corpus again.")
    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise InputError(f"{path}: is not audio that can be read ({error}); copy it from the corpus again.") from error
    if _wav_is_truncated(path):
        raise InputError(f"{path}: is truncated, its header promises more samples; copy it from the corpus again.")
    if info.frames < FRAME_SECONDS * info.samplerate:
        raise InputError(
            f"{path}: holds {info.frames} samples at {info.samplerate} Hz, less than one frame of 25 ms; "
            "replace or remove the clip."
        )
    # absolute, so that later stages find the clip from any folder
    source = AudioSource(type="file", channels=list(range(info.channels)), source=os.path.abspath(path))
    return Recording(
        id=utterance_id,
        sources=[source],
        sampling_rate=info.samplerate,
        num_samples=info.frames,
        duration=info.frames / info.samplerate,
    )


def _supervision(corpus: Corpus, utterance: Utterance, recording: Recording) -> SupervisionSegment:
    where = utterance.source or str(utterance.audio)
    if corpus.splits and utterance.split not in corpus.splits:
        raise InputError(f"{where}: the split {utterance.split!r} is not one of {', '.join(corpus.splits)}.")
    try:
        esc = corpus.esc(utterance.label)
        eis = corpus.eis(utterance.label, utterance.level)
    except ValueError as error:
        raise InputError(f"{where}: {error}.") from error
    custom = {
        "corpus": corpus.name,
        "emotion": utterance.label,
        "intensity": utterance.level,
        "esc": esc,
        "eis": eis,
    }
    if utterance.split is not None:
        custom["split"] = utterance.split
    if utterance.text_id is not None:
        custom["text_id"] = utterance.text_id
    return SupervisionSegment(
        id=utterance.id,
        recording_id=utterance.id,
        start=0.0,
        duration=recording.duration,
        channel=0,  # the features mix all channels down to one
        text=utterance.text,
        language=corpus.language,
        speaker=utterance.speaker,
        gender=utterance.gender,
        custom=custom,
    )


def _check_utterances(corpus: Corpus, utterances: Sequence[Utterance], request: Request) -> None:
    """InputError where there is none, an id occurs twice, a gender is unknown, or a speaker has two."""
    if not utterances:
        raise InputError(
            f"{request.corpus_dir}: no utterance was found; {corpus.title} is expected as {corpus.layout}."
        )
    by_id: Dict[str, Utterance] = {}
    by_speaker: Dict[str, Utterance] = {}
    for utterance in utterances:
        where = utterance.source or utterance.audio
        other = by_id.setdefault(utterance.id, utterance)
        if other is not utterance:
            raise InputError(
                f"{where}: the utterance {utterance.id} occurs a second time, first in {other.source or other.audio}; "
                "remove one."
            )
        if utterance.gender not in ("F", "M", None):
            raise InputError(f"{where}: the gender {utterance.gender!r} is neither F nor M.")
        other = by_speaker.setdefault(utterance.speaker, utterance)
        if other.gender != utterance.gender:
            raise InputError(
                f"{where}: the speaker {utterance.speaker} has the gender {utterance.gender}, but {other.gender} in "
                f"{other.source or other.audio}."
            )


def _check_counts(corpus: Corpus, found: int, drops: Drops, request: Request) -> None:
    if not corpus.counts or found in corpus.counts.values():
        return
    official = " or ".join(f"{count} ({release})" for release, count in corpus.counts.items())
    if not request.partial:
        left_out = "".join(f", {count} left out ({reason})" for reason, count in drops.counts().items())
        raise InputError(
            f"{request.corpus_dir}: {found} utterances found{left_out}, {corpus.title} has {official}; "
            "complete the copy, or accept it as it is with --partial true."
        )
    log.warning("%s: a partial copy, %d utterances of %s", corpus.title, found, official)


def _take_hours(corpus: Corpus, pairs: List[Tuple[Utterance, Recording]], request: Request, drops: Drops):
    """A seeded subset of the training part of at least ``hours`` hours; the other parts stay whole."""
    if request.hours is None:
        return pairs
    training = [pair for pair in pairs if pair[0].split in ("train", None)]
    total = sum(recording.duration for _, recording in training) / 3600
    if total < request.hours:
        log.warning(
            "%s: %g hours asked for, the training part has %.2f: all are taken", corpus.title, request.hours, total
        )
        return pairs
    random.Random(f"{request.seed} {corpus.name} hours").shuffle(training)
    kept, seconds = set(), 0.0
    for utterance, recording in training:
        if seconds >= request.hours * 3600:
            drops.add(f"outside the {request.hours:g} hours asked for", utterance.id)
            continue
        seconds += recording.duration
        kept.add(utterance.id)
    return [pair for pair in pairs if pair[0].split not in ("train", None) or pair[0].id in kept]


def prepare(corpus: Corpus, find: Finder, request: Request, out_dir: Path) -> None:
    """Write the manifests and the card of ``corpus`` into ``out_dir`` (stage 1), unless they are up to date.

    ``find(corpus_dir, partial, drops)`` yields the utterances and adds what it leaves out to ``drops``.
    Raises InputError for whatever is wrong with the corpus; ``out_dir`` then stays as it was.
    """
    drops = Drops()
    # found first: a wrong folder may be a whole disk, whose sizes nobody wants to wait for
    utterances = sorted(find(request.corpus_dir, request.partial, drops), key=lambda utterance: utterance.id)
    corpus_dir, out_dir = Path(request.corpus_dir).resolve(), Path(out_dir)
    if out_dir.resolve() == corpus_dir or corpus_dir in out_dir.resolve().parents:
        raise InputError(f"{out_dir}: lies inside the corpus; name another folder for the manifests.")
    options = {**asdict(replace(request, corpus_dir=str(corpus_dir))), "corpus": asdict(corpus)}
    del options["nj"]
    stage = Stage("manifests", corpus.name, out_dir, options, [corpus_dir], FORMAT)
    if stage.is_done():
        return
    _check_utterances(corpus, utterances, request)
    _check_counts(corpus, len(utterances), drops, request)
    went_in = len(utterances) + len(drops)
    with ThreadPoolExecutor(max(1, request.nj)) as pool:
        headers = pool.map(lambda utterance: read_recording(utterance.id, utterance.audio), utterances)
        recordings = list(progress(headers, f"{corpus.name}: reading headers", len(utterances), "clips"))
    pairs = _take_hours(corpus, list(zip(utterances, recordings)), request, drops)
    supervisions = [_supervision(corpus, utterance, recording) for utterance, recording in pairs]
    recordings = [recording for _, recording in pairs]

    with stage.anew() as folder:
        splits = sorted({utterance.split or "all" for utterance, _ in pairs})
        for split in splits:
            chosen = [i for i, (utterance, _) in enumerate(pairs) if (utterance.split or "all") == split]
            recording_set = RecordingSet.from_recordings(recordings[i] for i in chosen)
            supervision_set = SupervisionSet.from_segments(supervisions[i] for i in chosen)
            validate_recordings_and_supervisions(recording_set, supervision_set)
            recording_set.to_file(folder / f"{corpus.name}_recordings_{split}.jsonl.gz")
            supervision_set.to_file(folder / f"{corpus.name}_supervisions_{split}.jsonl.gz")
        write_json(folder / f"{corpus.name}_card.json", _card(corpus, request, splits, supervisions))
        stage.finish(folder, went_in, len(supervisions), drops)


def _card(corpus: Corpus, request: Request, splits: List[str], supervisions: List[SupervisionSegment]) -> dict:
    """What later stages know of a corpus."""

    def count(values: Iterable) -> Dict[str, int]:
        return dict(sorted(Counter(map(str, values)).items()))

    return {
        "name": corpus.name,
        "title": corpus.title,
        "language": corpus.language,
        "labels": dict(corpus.labels),
        "levels": list(corpus.levels),
        "has_transcripts": corpus.has_transcripts,
        "partial": request.partial,
        "splits": splits,
        "test_split": corpus.test_split if corpus.test_split in splits else None,
        "utterances": len(supervisions),
        "hours": round(sum(s.duration for s in supervisions) / 3600, 4),
        "counts": {
            "split": count(s.custom.get("split") for s in supervisions),
            "speaker": count(s.speaker for s in supervisions),
            "gender": count(s.gender for s in supervisions),
            "emotion": count(s.custom["emotion"] for s in supervisions),
            "esc": count(s.custom["esc"] for s in supervisions),
            "eis": count(s.custom["eis"] for s in supervisions),
        },
    }


def load_card(folder: Path, name: str) -> dict:
    """The card of a corpus that stage 1 prepared; InputError where it has not."""
    require(folder, "manifests")
    return read_json(Path(folder) / f"{name}_card.json")


def main(corpus: Corpus, find: Finder, argv: Optional[Sequence[str]] = None) -> int:
    """The command line of a prep script: CORPUS_DIR OUT_DIR and options. Returns the exit status."""
    set_up_logging()
    parser = OneLineParser(
        prog=f"prepare_{corpus.name}.py",
        description=f"Write lhotse manifests of {corpus.title}, expected as {corpus.layout}.",
    )
    parser.add_argument("corpus_dir", type=Path, metavar="CORPUS_DIR")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR")
    parser.add_argument("--partial", type=true_or_false, default=False, help="true: accept an incomplete copy")
    parser.add_argument("--hours", type=positive, help="a seeded subset of so many hours of the training part")
    parser.add_argument("--seed", type=int, default=0, help="the seed of that subset")
    parser.add_argument("--nj", type=positive_whole, default=1, help="threads that read headers")
    parser.add_argument("--check-only", action="store_true", help="only check that the folder has the layout")

    def action() -> None:
        given = parser.parse_args(argv)
        if given.check_only:
            _check_utterances(corpus, list(find(given.corpus_dir, given.partial, Drops())), Request(given.corpus_dir))
            log.info("%s: %s has the layout of %s", corpus.name, given.corpus_dir, corpus.title)
            return
        request = Request(given.corpus_dir, given.partial, given.hours, given.seed, given.nj)
        prepare(corpus, find, request, given.out_dir)

    return exit_status(action)


def run(corpus: Corpus, find: Finder) -> None:
    """What a prep script calls when it is run as a program."""
    sys.exit(main(corpus, find))
