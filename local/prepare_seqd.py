#!/usr/bin/env python3
"""SEQD, the SpeechEQ Dataset (section 2.2): 25 emotions in three levels, a fixed test set of 155.

The corpus was never released; its owner arranges it as ``wav/<speaker>/<utt>.wav`` beside ``labels.tsv``, whose
first line names the columns utt, speaker, gender, emotion, category, level, split, text (tab separated).
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from speecheq import seqm
from speecheq.corpora import (
    Corpus,
    Drops,
    InputError,
    Utterance,
    find_root,
    iter_clips,
    iter_folders,
    keep_matched,
    read_lines,
    run,
)

# Table 1, by category; neutral is 73
COUNTS = {
    "low": (62, 59, 60, 72, 66, 61, 61, 72),
    "medium": (62, 63, 65, 77, 73, 77, 63, 63),
    "high": (70, 59, 60, 71, 67, 62, 70, 60),
}
SEQD = Corpus(
    name="seqd",
    title="SEQD",
    language="Mandarin",
    layout="DIR/{wav/<speaker>/<utt>.wav,labels.tsv}",
    labels={name: emotion.category for name, emotion in seqm.EMOTIONS.items()},
    levels=seqm.LEVELS,
    splits=("train", "test"),
    test_split="test",
    counts={"as in the paper": 1648},
    count_by={
        "split": {"train": 1493, "test": 155},
        "label": {
            seqm.NEUTRAL: 73,
            **{
                names[seqm.LEVELS.index(level)]: count
                for level, counts in COUNTS.items()
                for names, count in zip(seqm.LEVEL_NAMES.values(), counts)
            },
        },
    },
)
COLUMNS = ["utt", "speaker", "gender", "emotion", "category", "level", "split", "text"]
NO_LEVEL = "-"


def read_labels(table: Path, wav: Path) -> dict[str, Utterance]:
    """Path below ``wav`` -> utterance, one a line; raises InputError, which names the first line that is wrong."""
    lines = read_lines(table)
    _, heading = next(lines, ("", ""))
    if heading.split("\t") != COLUMNS:
        raise InputError(f"{table}, line 1: expected the columns {' '.join(COLUMNS)}, separated by tabs.")
    utterances: dict[str, Utterance] = {}
    names: dict[str, str] = {}
    for where, line in lines:
        fields = [value.strip() for value in line.split("\t")]
        if len(fields) != len(COLUMNS):
            raise InputError(f"{where}: expected {len(COLUMNS)} columns separated by tabs, found {len(fields)}.")
        row = dict(zip(COLUMNS, fields))
        if not row["utt"] or not row["speaker"]:
            raise InputError(f"{where}: the utterance or the speaker is empty.")
        if row["utt"] in names:
            raise InputError(f"{where}: the utterance {row['utt']} occurs a second time, first in {names[row['utt']]}.")
        names[row["utt"]] = where
        emotion = seqm.EMOTIONS.get(row["emotion"])
        if emotion is None:
            raise InputError(f"{where}: {row['emotion']!r} is not one of the 25 emotions of SEQM.")
        level = None if row["level"] == NO_LEVEL else row["level"]
        if (row["category"], level) != (emotion.category, emotion.level):
            raise InputError(
                f"{where}: {emotion.name} is {emotion.category} at level {emotion.level or NO_LEVEL}, "
                f"not {row['category']} at level {row['level']}."
            )
        clip = f"{row['speaker']}/{row['utt']}"
        utterances[clip] = Utterance(
            id=f"seqd-{row['utt']}",
            audio=wav / f"{clip}.wav",
            speaker=row["speaker"],
            gender=row["gender"],
            text=row["text"],
            label=emotion.name,
            level=level,
            split=row["split"],
            source=where,
        )
    return utterances


def find_utterances(corpus_dir: Path, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """One clip a line of labels.tsv; lines without audio, and the reverse, are counted and kept out."""
    root = find_root(corpus_dir, lambda path: (path / "labels.tsv").is_file() and (path / "wav").is_dir(), SEQD)
    table, wav = root / "labels.tsv", root / "wav"
    utterances = read_labels(table, wav)
    clips = {f"{folder.name}/{clip.stem}": clip for folder in iter_folders(wav) for clip in iter_clips(folder)}
    if not clips:
        raise InputError(f"{wav}: holds no clip; {SEQD.title} is expected as {SEQD.layout}.")
    for name in sorted(keep_matched(list(clips), list(utterances), table, wav, partial, drops, "label")):
        yield replace(utterances[name], audio=clips[name])


if __name__ == "__main__":
    run(SEQD, find_utterances)
