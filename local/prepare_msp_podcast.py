#!/usr/bin/env python3
"""MSP-Podcast: segments of podcasts, eight emotions as listeners heard them, with official parts.

``Labels/labels_consensus.csv`` has one line a segment,

    FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set
    MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,30,Male,Test1

with its label (A angry, S sad, H happy, U surprise, F fear, D disgust, C contempt, N neutral, O other, X no agreement)
and its activation, valence and dominance from 1 to 7. Its audio lies in ``Audios``.

Two corpora are made of it: without ``--part`` Train, Development and, as the test part, Test1; with ``--part test2``
Test2 alone, as a test part. Test3 has no public labels (ecs.utdallas.edu/research/researchlabs/msp-lab).
"""

import functools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from speecheq.corpora import Corpus, Drops, InputError, Utterance, find_root, index_clips, log, read_csv, run_parts

LABELS = {
    "angry": "anger",
    "contempt": "disgust",  # SEQM has no contempt; on its wheel it lies between disgust and anger
    "disgust": "disgust",
    "fear": "fear",
    "happy": "joy",
    "neutral": "neutral",
    "sad": "sadness",
    "surprise": "surprise",
}
LETTERS = {
    "A": "angry",
    "C": "contempt",
    "D": "disgust",
    "F": "fear",
    "H": "happy",
    "N": "neutral",
    "O": "other emotion",
    "S": "sad",
    "U": "surprise",
    "X": "no agreement",
}
SPLITS = {"Train": "train", "Development": "dev", "Validation": "dev", "Test1": "test", "Test2": "test2"}
TEST3 = "Test3"
GENDERS = {"Female": "F", "Male": "M"}
# Lines of the table, by release, without Test3. Of the classes of segments no counts are published.
RELEASES = {149307: "1.11", 203936: "1.12", 264705: "2.0"}
COLUMNS = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set")
TABLE = Path("Labels/labels_consensus.csv")
AUDIO = ("Audios", "Audio")
NAME = re.compile(r"MSP-PODCAST_(([0-9]+)_[0-9_]+)\.wav", re.ASCII)


def declare(name: str, title: str, splits: tuple[str, ...]) -> Corpus:
    return Corpus(
        name=name,
        title=title,
        language="English",
        layout="DIR/{Labels/labels_consensus.csv,Audios/MSP-PODCAST_<podcast>_<segment>.wav}",
        labels=LABELS,
        scale=(1.0, 7.0),  # dominance
        splits=splits,
        test_split="test",
    )


MSP_PODCAST = declare("msp_podcast", "MSP-Podcast", ("train", "dev", "test"))
MSP_PODCAST_TEST2 = declare("msp_podcast_test2", "MSP-Podcast (Test2)", ("test",))


def read_value(where: str, text: str) -> float | None:
    """An average of judgements from 1 to 7, None where it is missing; raises InputError for anything else."""
    try:
        value = float(text or "nan")
    except ValueError:
        value = math.inf
    if math.isnan(value):
        return None
    if not 1 <= value <= 7:
        raise InputError(f"{where}: expected a value from 1 to 7, found {text!r}.")
    return value


def read_labels(table: Path) -> dict[str, Utterance]:
    """Segment (such as 0001_0008) -> utterance of any label and part; raises InputError, which names a wrong line.

    A segment of an unknown speaker has its podcast for one. Of a speaker with two genders none is known.
    """
    utterances: dict[str, Utterance] = {}
    genders: dict[str, set[str]] = defaultdict(set)
    for where, row in read_csv(table, COLUMNS):
        name = NAME.fullmatch(row["FileName"])
        if not name:
            if row["Split_Set"] == TEST3:
                continue
            raise InputError(f"{where}: {row['FileName']!r} is not named like MSP-PODCAST_0001_0008.wav.")
        segment, podcast = name.groups()
        for column, known in (("EmoClass", LETTERS), ("Split_Set", {**SPLITS, TEST3: ""})):
            if row[column] not in known:
                raise InputError(f"{where}: the {column} {row[column]!r} is not one of {', '.join(known)}.")
        if row["Split_Set"] == TEST3:
            continue
        if segment in utterances:
            raise InputError(f"{where}: {row['FileName']} occurs a second time, first in {utterances[segment].source}.")
        speaker = row["SpkrID"]
        if speaker.lower() in ("unknown", ""):
            speaker = f"unknown-{podcast}"
        if row["Gender"] in GENDERS:
            genders[speaker].add(GENDERS[row["Gender"]])
        activation, valence, dominance = (read_value(where, row[name]) for name in COLUMNS[2:5])
        utterances[segment] = Utterance(
            id=f"msp_podcast-{segment}",
            audio="",
            speaker=speaker,
            label=LETTERS[row["EmoClass"]],
            intensity=dominance,
            split=SPLITS[row["Split_Set"]],
            extra={"valence": valence, "activation": activation, "dominance": dominance, "podcast": podcast},
            source=where,
        )
    if not utterances:
        raise InputError(f"{table}: holds no segment; copy it from the corpus again.")
    gender_of = {speaker: found.pop() for speaker, found in genders.items() if len(found) == 1}
    return {segment: replace(found, gender=gender_of.get(found.speaker)) for segment, found in utterances.items()}


def check_release(table: Path, lines: int, partial: bool) -> None:
    """Log the release that has so many lines; raises InputError for another number, unless ``partial``."""
    known = ", ".join(f"{count} ({release})" for count, release in RELEASES.items())
    if lines in RELEASES:
        log.info("MSP-Podcast: release %s", RELEASES[lines])
    elif partial:
        log.warning("MSP-Podcast: %s has %d lines, the releases have %s", table, lines, known)
    else:
        raise InputError(
            f"{table}: has {lines} lines with labels, the releases have {known}; complete the copy, or accept it, or "
            "another release, with --partial true."
        )


def find_part(corpus: Corpus, corpus_dir: Path, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """The segments of the eight emotions, of Test2 alone or of the other parts; all others are counted."""
    root = find_root(corpus_dir, lambda path: (path / TABLE).is_file(), corpus)
    audio = next((root / name for name in AUDIO if (root / name).is_dir()), None)
    if audio is None:
        raise InputError(f"{root / AUDIO[0]}: there is no such folder; unpack the audio of MSP-Podcast there.")
    table, notes, test2 = root / TABLE, Counter(), corpus is MSP_PODCAST_TEST2
    utterances = read_labels(table)
    check_release(table, len(utterances), partial)
    clips = index_clips(audio, "MSP-PODCAST_")
    absent = sorted(utterances.keys() - clips)
    if absent and not partial:
        raise InputError(
            f"{audio}: has no audio for {len(absent)} of {len(utterances)} lines of {table} ({absent[0]} for one); "
            "complete the copy, or accept what is there with --partial true."
        )
    for segment, utterance in sorted(utterances.items()):
        if segment not in clips:
            drops.add("label without audio", segment)
        elif (utterance.split == "test2") != test2:
            drops.add("the other parts, another corpus" if test2 else "the part Test2, another corpus", utterance.id)
        elif utterance.label not in LABELS:
            drops.add(str(utterance.label), utterance.id)
        else:
            notes["segments have no dominance: their EIS is unspecified"] += utterance.intensity is None
            notes["segments have no known speaker: their podcast stands for it"] += "unknown" in utterance.speaker
            yield replace(utterance, audio=clips[segment], split="test" if test2 else utterance.split)
    for what, count in notes.items():
        if count:
            log.warning("%s: %d %s", corpus.title, count, what)


PARTS = {
    "": (MSP_PODCAST, functools.partial(find_part, MSP_PODCAST)),
    "test2": (MSP_PODCAST_TEST2, functools.partial(find_part, MSP_PODCAST_TEST2)),
}

if __name__ == "__main__":
    run_parts(PARTS)
