"""Stage 1: the lhotse manifests of a corpus, from the utterances that its prep script finds.

    OUT_DIR/<corpus>_recordings_<split>.jsonl.gz
    OUT_DIR/<corpus>_supervisions_<split>.jsonl.gz
    OUT_DIR/<corpus>_card.json

A supervision has ``speaker``, ``gender`` (F, M or None), ``text``, ``language``, and in ``custom``:

    corpus
    emotion          the corpus' own label
    intensity        its own level or value, or None
    esc              the SEQM category, or None
    eis              0 to 4, or -1 where unspecified
    eis_of_corpus    for neutral clips whose own intensity gives another EIS than SEQM's 0
    split            the official part, if there are any
    text_id          number of a text that many clips speak
    votes            listeners by SEQM category, where stage 1 was asked for them (CREMA-D)
    session, and whatever else the script keeps as ``extra``
"""

import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet, validate_recordings_and_supervisions
from lhotse.serialization import SequentialJsonlWriter

from speecheq import seqm
from speecheq.common.errors import InputError
from speecheq.common.files import write_json
from speecheq.common.log import log
from speecheq.common.progress import progress
from speecheq.common.stages import Drops, Stage
from speecheq.corpora.audio_headers import AudioHeader, make_recording, read_headers
from speecheq.corpora.counts import ClipCounts
from speecheq.corpora.declaration import SPLITS, Corpus, FindUtterances, Utterance
from speecheq.corpora.layout import as_on_disk, report_hidden_below
from speecheq.corpora.segments import fit_segments

# Number of clips that are checked and written at a time.
BATCH = 1000
FORMAT = 2


@dataclass(frozen=True)
class PrepareRequest:
    """What a prep script is asked to prepare.

    ``partial`` accepts an incomplete copy; ``hours`` takes a random subset of the training part, by ``seed``; ``nj``
    threads read headers.
    """

    corpus_dir: Path
    partial: bool = False
    hours: float | None = None
    seed: int = 0
    nj: int = 1


def _custom(corpus: Corpus, utterance: Utterance) -> dict[str, Any]:
    """The ``custom`` fields of an utterance's supervision; raises InputError for labels outside the declaration."""
    known = corpus.splits or (None, *SPLITS)
    if utterance.split not in known or utterance.split not in (None, *SPLITS):
        raise InputError(
            f"{utterance.where}: the split {utterance.split!r} is not one of {', '.join(corpus.splits or SPLITS)}."
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
        raise InputError(f"{utterance.where}: {error}.") from error
    if own != eis:
        custom["eis_of_corpus"] = own
    for name in ("split", "text_id", "session"):
        if getattr(utterance, name) is not None:
            custom[name] = getattr(utterance, name)
    return custom


def _supervision(corpus: Corpus, utterance: Utterance, header: AudioHeader) -> SupervisionSegment:
    """The supervision of an utterance, whose segment ends with its recording at the latest."""
    recording_end = header.frames / header.rate
    end = recording_end if utterance.end is None else min(utterance.end, recording_end)
    return SupervisionSegment(
        id=utterance.id,
        recording_id=utterance.recording_id,
        start=utterance.start,
        duration=end - utterance.start,
        channel=0,  # the features mix all channels down to one
        text=utterance.text,
        language=corpus.language,
        speaker=utterance.speaker,
        gender=utterance.gender,
        custom=_custom(corpus, utterance),
    )


def _none_found(corpus: Corpus, corpus_dir: Path, drops: Drops | None) -> InputError:
    """The error to raise where no utterance is left; ``drops`` are those that were found and left out."""
    if not drops:
        return InputError(f"{corpus_dir}: no utterance was found; {corpus.title} is expected as {corpus.layout}.")
    reasons = ", ".join(
        f"{len(names)} for the reason '{reason}', the first {names[0]}" for reason, names in drops.by_reason.items()
    )
    return InputError(f"{corpus_dir}: all {len(drops)} utterances are left out ({reasons}); complete the copy.")


def check_utterances(
    corpus: Corpus, utterances: Sequence[Utterance], corpus_dir: Path, drops: Drops | None = None
) -> None:
    """Check what prep scripts found in ``corpus_dir``, and left out as ``drops``.

    Raises InputError if there is no utterance, an id repeats, a label, gender or split is undeclared, a speaker has
    two genders, or a recording two files.
    """
    if not utterances:
        raise _none_found(corpus, corpus_dir, drops)
    by_id: dict[str, Utterance] = {}
    by_speaker: dict[str, Utterance] = {}
    by_recording: dict[str, Utterance] = {}
    for utterance in utterances:
        where = utterance.where
        other = by_id.setdefault(utterance.id, utterance)
        if other is not utterance:
            raise InputError(
                f"{where}: the utterance {utterance.id} occurs a second time, first in {other.where}; remove one."
            )
        if utterance.gender not in ("F", "M", None):
            raise InputError(f"{where}: the gender {utterance.gender!r} is neither F nor M.")
        other = by_speaker.setdefault(utterance.speaker, utterance)
        if other.gender != utterance.gender:
            raise InputError(
                f"{where}: the speaker {utterance.speaker} has the gender {utterance.gender}, but {other.gender} in "
                f"{other.where}."
            )
        if utterance.recording:
            other = by_recording.setdefault(utterance.recording, utterance)
            if other.audio != utterance.audio:
                raise InputError(
                    f"{where}: the recording {utterance.recording} is {utterance.audio}, but {other.audio} in "
                    f"{other.where}."
                )
        _custom(corpus, utterance)


def _differences(corpus: Corpus, utterances: Sequence[Utterance]) -> list[str]:
    """Where a copy has fewer or more utterances than the release, such as ``59 of 60 with the speaker 07``."""
    found: list[str] = []
    for name, official in corpus.count_by.items():
        counts = Counter(str(getattr(utterance, name)) for utterance in utterances)
        for value in sorted({*official, *counts}):
            if value not in official:
                found.append(f"{counts[value]} with the unknown {name} {value}")
            elif counts[value] != official[value]:
                found.append(f"{counts[value]} of {official[value]} with the {name} {value}")
    return found


def _listed(items: Sequence[str], most: int = 6) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _check_counts(corpus: Corpus, utterances: Sequence[Utterance], drops: Drops, request: PrepareRequest) -> None:
    """Raise InputError if the copy is not a whole release; a warning if a partial copy is accepted."""
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
    corpus: Corpus,
    utterances: Sequence[Utterance],
    headers: Sequence[AudioHeader],
    request: PrepareRequest,
    drops: Drops,
) -> Sequence[int]:
    """The indices of the utterances to keep: of the training part a random subset of at least ``request.hours``."""
    everything = range(len(utterances))
    if request.hours is None:
        return everything
    training = [index for index in everything if utterances[index].split in ("train", None)]

    def seconds(index: int) -> float:
        utterance, header = utterances[index], headers[index]
        return (header.frames / header.rate if utterance.end is None else utterance.end) - utterance.start

    total = sum(map(seconds, training)) / 3600
    if total < request.hours:
        log.warning(
            "%s: %g hours asked for, the training part has %.2f: all are taken", corpus.title, request.hours, total
        )
        return everything
    random.Random(f"{request.seed} {corpus.name} hours").shuffle(training)
    taken, outside = 0.0, set()
    for index in training:
        if taken >= request.hours * 3600:
            drops.add(f"outside the {request.hours:g} hours asked for", utterances[index].id)
            outside.add(index)
        else:
            taken += seconds(index)
    return [index for index in everything if index not in outside]


def prepare(corpus: Corpus, find: FindUtterances, request: PrepareRequest, out_dir: Path) -> None:
    """Stage 1: write the manifests and the card of ``corpus`` into ``out_dir``, unless they are up to date.

    Raises InputError for whatever is wrong with the corpus; ``out_dir`` then stays as it was.
    """
    request, drops = replace(request, corpus_dir=as_on_disk(request.corpus_dir)), Drops()
    # found before the folder is digested: a wrong folder may be a whole disk
    found = find(request.corpus_dir, request.partial, drops)
    # clips of one recording follow each other, so that later stages can read both manifests side by side
    utterances = sorted(found, key=lambda utterance: (utterance.recording_id, utterance.id))
    corpus_dir, out_dir = Path(request.corpus_dir).resolve(), Path(out_dir)
    if out_dir.resolve() == corpus_dir or corpus_dir in out_dir.resolve().parents:
        raise InputError(f"{out_dir}: lies inside the corpus; name another folder for the manifests.")
    options = {**asdict(request), "corpus_dir": str(corpus_dir), "corpus": asdict(corpus)}
    del options["nj"]
    stage = Stage("manifests", corpus.name, out_dir, options, [corpus_dir], FORMAT)
    if not stage.needs_run() or stage.added_to_plan():
        return
    check_utterances(corpus, utterances, request.corpus_dir, drops)
    _check_counts(corpus, utterances, drops, request)
    with stage.locked() as is_missing:
        if is_missing:
            _write(corpus, utterances, request, drops, stage)


def _write(
    corpus: Corpus, utterances: Sequence[Utterance], request: PrepareRequest, drops: Drops, stage: Stage
) -> None:
    """The manifests and the card of ``utterances``, in their order."""
    if os.path.isdir(request.corpus_dir):
        report_hidden_below(corpus.name, Path(request.corpus_dir))
    went_in = len(utterances) + len(drops)
    reading = read_headers((utterance.audio for utterance in utterances), request.nj)
    headers = list(progress(reading, f"{corpus.name}: reading headers", len(utterances), "clips"))
    utterances, headers = fit_segments(corpus, utterances, headers, request.partial, drops)
    kept = _take_hours(corpus, utterances, headers, request, drops)
    splits = sorted({utterances[index].split or "all" for index in kept})
    counts = ClipCounts()
    with stage.replace_folder() as folder:
        for split in splits:
            indices = (index for index in kept if (utterances[index].split or "all") == split)
            _write_split(corpus, folder, split, ((utterances[index], headers[index]) for index in indices), counts)
        write_json(folder / f"{corpus.name}_card.json", _card(corpus, request, splits, counts))
        stage.finish(folder, went_in, counts.utterances, drops)


def _write_split(
    corpus: Corpus, folder: Path, split: str, pairs: Iterator[tuple[Utterance, AudioHeader]], counts: ClipCounts
) -> None:
    """The two manifests of one part, a batch at a time."""
    with ExitStack() as stack:
        recordings_file, supervisions_file = (
            stack.enter_context(SequentialJsonlWriter(folder / f"{corpus.name}_{kind}_{split}.jsonl.gz"))
            for kind in ("recordings", "supervisions")
        )
        written = ""
        while batch := list(islice(pairs, BATCH)):
            recordings: dict[str, Recording] = {}
            supervisions = []
            for utterance, header in batch:
                name = utterance.recording_id
                recordings.setdefault(name, make_recording(name, utterance.audio, header))
                supervisions.append(_supervision(corpus, utterance, header))
                counts.add_supervision(supervisions[-1])
                counts.add_audio(header.rate, header.channels)
            validate_recordings_and_supervisions(
                RecordingSet.from_recordings(recordings.values()), SupervisionSet.from_segments(supervisions)
            )
            for name, recording in recordings.items():
                if name != written:  # the last recording of a batch may go on in the next
                    recordings_file.write(recording)
                written = name
            for supervision in supervisions:
                supervisions_file.write(supervision)


def _card(corpus: Corpus, request: PrepareRequest, splits: list[str], counts: ClipCounts) -> dict[str, Any]:
    """What later stages need to know of a corpus."""
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
