#!/usr/bin/env python3
"""SEQD, the SpeechEQ Dataset (section 2.2): 25 emotions in three levels, a fixed test set of 155.

The corpus was never released; a holder lays it out as ``wav/<speaker>/<utt>.wav`` beside ``labels.tsv``, whose
first line names the columns utt, speaker, gender, emotion, category, level, split, text (tab separated).
"""

import csv
from pathlib import Path
from typing import Iterator

from speecheq import seqm
from speecheq.corpus import Corpus, Utterance, find_root, run
from speecheq.errors import InputError
from speecheq.stages import Drops

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
)
COLUMNS = ["utt", "speaker", "gender", "emotion", "category", "level", "split", "text"]
NO_LEVEL = "-"


def find_utterances(corpus_dir: Path, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """One clip a line of labels.tsv; lines without audio are an error unless the copy is partial."""
    root = find_root(corpus_dir, lambda path: (path / "labels.tsv").is_file() and (path / "wav").is_dir(), SEQD)
    table = root / "labels.tsv"
    with open(table, encoding="utf-8", newline="") as stream:
        reader = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        if next(reader, None) != COLUMNS:
            raise InputError(f"{table}, line 1: expected the columns {' '.join(COLUMNS)}, separated by tabs.")
        for fields in reader:
            where = f"{table}, line {reader.line_num}"
            if len(fields) != len(COLUMNS):
                raise InputError(f"{where}: expected {len(COLUMNS)} columns separated by tabs, found {len(fields)}.")
            row = dict(zip(COLUMNS, fields))
            emotion = seqm.EMOTIONS.get(row["emotion"])
            if emotion is None:
                raise InputError(f"{where}: {row['emotion']!r} is not one of the 25 emotions of SEQM.")
            level = None if row["level"] == NO_LEVEL else row["level"]
            if (row["category"], level) != (emotion.category, emotion.level):
                raise InputError(
                    f"{where}: {emotion.name} is {emotion.category} at level {emotion.level or NO_LEVEL}, "
                    f"not {row['category']} at level {row['level']}."
                )
            clip = root / "wav" / row["speaker"] / f"{row['utt']}.wav"
            if not clip.is_file():
                if not partial:
                    raise InputError(f"{where}: {clip} is missing; complete the copy, or accept it with --partial true.")
                drops.add("label without audio", row["utt"])
                continue
            yield Utterance(
                id=f"seqd-{row['utt']}",
                audio=clip,
                speaker=row["speaker"],
                gender=row["gender"],
                text=row["text"],
                label=emotion.name,
                level=level,
                split=row["split"],
                source=where,
            )


if __name__ == "__main__":
    run(SEQD, find_utterances)
