#!/usr/bin/env python3
"""AISHELL-1: read Mandarin speech with transcripts, the phoneme data of Experiment 1 (section 3.1)."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from speecheq.corpora import (
    Corpus,
    Drops,
    InputError,
    Utterance,
    find_root,
    iter_clips,
    iter_folders,
    keep_matched,
    log,
    read_lines,
    run,
)

AISHELL = Corpus(
    name="aishell",
    title="AISHELL-1",
    language="Mandarin",
    layout="DIR/data_aishell/{wav/{train,dev,test}/<speaker>/*.wav,transcript/aishell_transcript_v0.8.txt}",
    splits=("train", "dev", "test"),
    test_split="test",
    counts={"SLR33": 141600},
    has_transcripts=True,
)
TRANSCRIPT = Path("data_aishell/transcript/aishell_transcript_v0.8.txt")
SPEAKERS = Path("resource_aishell/speaker.info")
SPEAKER = re.compile(r"S\d{4}")


def read_transcripts(path: Path) -> dict[str, str]:
    """Utterance id -> text; words may be separated by spaces (the release) or not."""
    transcripts = {}
    for where, line in read_lines(path):
        fields = line.split(maxsplit=1)
        if len(fields) != 2:
            raise InputError(f"{where}: expected '<utterance> <text>', found {line!r}.")
        if fields[0] in transcripts:
            raise InputError(f"{where}: the utterance {fields[0]} occurs a second time.")
        transcripts[fields[0]] = fields[1].strip()
    return transcripts


def read_genders(path: Path) -> dict[str, str]:
    """Speaker (with its S) -> F or M; lines are ``ID SEX``, usually without the leading S."""
    if not path.is_file():
        log.warning("AISHELL-1: %s is missing, so no gender is known", path)
        return {}
    genders: dict[str, str] = {}
    for where, line in read_lines(path):
        fields = line.split()
        if len(fields) != 2 or fields[1].upper() not in ("F", "M"):
            raise InputError(f"{where}: expected '<speaker> F' or '<speaker> M', found {line!r}.")
        speaker, gender = "S" + fields[0].upper().lstrip("S"), fields[1].upper()
        if genders.setdefault(speaker, gender) != gender:
            raise InputError(f"{where}: the speaker {speaker} is {gender} here and {genders[speaker]} above.")
    return genders


def find_clips(wav: Path, splits: Sequence[str]) -> dict[str, str]:
    """Utterance id -> its file. Raises InputError for a folder that is no speaker, a clip out of place."""
    clips: dict[str, str] = {}
    for split in splits:
        for folder in iter_folders(wav / split):
            if not SPEAKER.fullmatch(folder.name):
                raise InputError(f"{folder}: is not a speaker of AISHELL-1 (S and four digits); remove the folder.")
            for clip in iter_clips(folder):
                if folder.name not in clip.stem:
                    raise InputError(f"{clip}: is named after another speaker than {folder.name}; move it to its own.")
                if clip.stem in clips:
                    raise InputError(f"{clip}: occurs a second time, first as {clips[clip.stem]}; remove one.")
                clips[clip.stem] = str(clip)
    return clips


def find_utterances(corpus_dir: Path, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """Clips with a transcript; audio without one, and the reverse, are counted and kept out."""
    root = find_root(corpus_dir, lambda path: (path / "data_aishell").is_dir(), AISHELL)
    wav = root / "data_aishell" / "wav"
    table = root / TRANSCRIPT
    for needed, is_there in ((wav, wav.is_dir()), (table, table.is_file())):
        if not is_there:
            raise InputError(f"{needed}: is missing from AISHELL-1; unpack the corpus again.")
    absent = [split for split in AISHELL.splits if not (wav / split).is_dir()]
    if absent and not partial:
        raise InputError(
            f"{wav}: lacks {' and '.join(absent)}; unpack the missing parts, or accept it with --partial true."
        )
    transcripts = read_transcripts(table)
    genders = read_genders(root / SPEAKERS)
    clips = find_clips(wav, [split for split in AISHELL.splits if split not in absent])
    if not clips:
        raise InputError(f"{wav}: holds no clip; unpack the speakers' archives in it.")
    for name in sorted(keep_matched(clips, transcripts, table, wav, partial, drops, "transcript")):
        clip = clips.pop(name)  # what is yielded is not held here too
        _, split, speaker, _ = clip.rsplit("/", 3)
        yield Utterance(
            id=name, audio=clip, speaker=speaker, gender=genders.get(speaker), text=transcripts.pop(name), split=split
        )


if __name__ == "__main__":
    run(AISHELL, find_utterances)
