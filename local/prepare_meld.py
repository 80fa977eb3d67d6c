#!/usr/bin/env python3
"""MELD, the Multimodal EmotionLines Dataset: dialogues of the television series Friends, seven emotions, with parts.

``train_sent_emo.csv``, ``dev_sent_emo.csv`` and ``test_sent_emo.csv`` have one line an utterance, with its words,
speaker, emotion, sentiment, Dialogue_ID and Utterance_ID, both counted anew in each part. Its clip is
``dia<Dialogue_ID>_utt<Utterance_ID>.mp4`` in ``train_splits``, ``dev_splits_complete`` or
``output_repeated_splits_test`` of MELD.Raw.tar.gz, which holds an archive a part (github.com/declare-lab/MELD). Clips
that were converted to WAV or FLAC are taken in place of mp4, which needs PyAV to be read.

What this script relies on, from what is published of the release: ``train/dia125_utt3.mp4`` cannot be decoded (issue
39 there), ``dev/dia110_utt7.mp4`` is missing (issue 22), and the 132 ``final_videos_testdia<D>_utt<U>.mp4`` of the test
part are cut anew in place of clips that do not belong to their lines.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from speecheq.corpora import (
    Corpus,
    Drops,
    InputError,
    Utterance,
    find_root,
    index_clips,
    iter_tree,
    keep_matched,
    log,
    read_csv,
    run,
)

LABELS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
COUNTS = {"anger": 1607, "disgust": 361, "fear": 358, "joy": 2308, "neutral": 6434, "sadness": 1002, "surprise": 1636}
MELD = Corpus(
    name="meld",
    title="MELD",
    language="English",
    layout="DIR/{<part>_sent_emo.csv,**/{train_splits,dev_splits_complete,output_repeated_splits_test}/*.mp4}",
    labels={label: label for label in LABELS},
    splits=("train", "dev", "test"),
    test_split="test",
    counts={"the 13708 lines less two without audio": 13706},
    count_by={"label": COUNTS, "split": {"train": 9988, "dev": 1108, "test": 2610}},
)
TABLES = {split: f"{split}_sent_emo.csv" for split in ("train", "dev", "test")}  # that of train in its archive
FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID")
WITHOUT_AUDIO = {("train", "dia125_utt3"): "corrupt in the release", ("dev", "dia110_utt7"): "not in the release"}
CUT_ANEW = "final_videos_test"
# of the six main roles; those of the others are not in the corpus
GENDERS = {**dict.fromkeys(("Monica", "Phoebe", "Rachel"), "F"), **dict.fromkeys(("Chandler", "Joey", "Ross"), "M")}


def find_parts(root: Path) -> dict[str, tuple[Path, Path]]:
    """Split -> (table, folder of clips), of the parts that are there."""
    tables: dict[str, Path] = {}
    folders: dict[str, Path] = {}
    for name in map(Path, iter_tree(root)):
        for split, folder in FOLDERS.items():
            if name.name == TABLES[split]:
                tables.setdefault(split, root / name)
            elif folder in name.parts:
                folders.setdefault(split, root.joinpath(*name.parts[: name.parts.index(folder) + 1]))
    return {split: (tables[split], folders[split]) for split in FOLDERS if split in tables and split in folders}


def read_part(split: str, table: Path) -> dict[str, Utterance]:
    """Clip (such as dia0_utt3) -> utterance; raises InputError, which names the first line that is wrong."""
    utterances: dict[str, Utterance] = {}
    for where, row in read_csv(table, COLUMNS, ("utf-8", "latin-1")):
        dialogue, turn, emotion = row["Dialogue_ID"], row["Utterance_ID"], row["Emotion"].lower()
        if not re.fullmatch("[0-9]+", dialogue, re.ASCII) or not re.fullmatch("[0-9]+", turn, re.ASCII):
            raise InputError(f"{where}: expected numbers of a dialogue and an utterance, found {dialogue!r}, {turn!r}.")
        if emotion not in LABELS:
            raise InputError(f"{where}: the emotion {emotion!r} is not one of {', '.join(LABELS)}.")
        clip = f"dia{int(dialogue)}_utt{int(turn)}"
        if clip in utterances:
            raise InputError(f"{where}: {clip} occurs a second time, first in {utterances[clip].source}.")
        utterances[clip] = Utterance(
            id=f"meld-{split}-{clip}",
            audio="",
            speaker=row["Speaker"] or "unknown",
            gender=GENDERS.get(row["Speaker"]),
            text=row["Utterance"],
            label=emotion,
            split=split,
            extra={"dialogue": f"{split}-{dialogue}", "begin": int(turn), "sentiment": row["Sentiment"]},
            source=where,
        )
    if not utterances:
        raise InputError(f"{table}: holds no utterance; copy it from the corpus again.")
    return utterances


def find_clips(split: str, folder: Path, notes: Counter) -> dict[str, Path]:
    """Clip -> file; those that were cut anew replace the others."""
    clips = index_clips(folder, "", (".wav", ".flac", ".mp4"))
    for name in [name for name in clips if name.startswith(CUT_ANEW)]:
        notes[f"clips of the {split} part are those that were cut anew, {CUT_ANEW}*"] += 1
        clips[name[len(CUT_ANEW) :]] = clips.pop(name)
    return clips


def find_utterances(corpus_dir: Path, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """The utterances of all parts that have a clip; the two that are known to have none are counted and kept out."""
    root = find_root(corpus_dir, lambda path: any((path / table).is_file() for table in TABLES.values()), MELD)
    parts, notes = find_parts(root), Counter()
    absent = " and ".join(split for split in FOLDERS if split not in parts)
    if absent and not partial:
        raise InputError(f"{root}: lacks the part {absent}; unpack it, or accept that with --partial true.")
    for split, (table, folder) in parts.items():
        utterances, clips = read_part(split, table), find_clips(split, folder, notes)
        for (part, clip), reason in WITHOUT_AUDIO.items():
            if part == split and utterances.pop(clip, None):
                drops.add(reason, f"{split} {clip}")
                clips.pop(clip, None)
        for clip in sorted(keep_matched(clips, utterances, table, folder, partial, drops, "line")):
            yield replace(utterances[clip], audio=clips[clip])
    for what, count in notes.items():
        log.info("MELD: %d %s", count, what)


if __name__ == "__main__":
    run(MELD, find_utterances)
