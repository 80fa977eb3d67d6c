#!/usr/bin/env python3
"""AISHELL-1: read Mandarin speech with transcripts, the phoneme data of Experiment 1 (section 3.1)."""

from pathlib import Path
from typing import Dict, Iterator

from speecheq.corpus import Corpus, Utterance, find_root, iter_folders, run
from speecheq.errors import InputError
from speecheq.progress import log
from speecheq.stages import Drops

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


def read_transcripts(path: Path) -> Dict[str, str]:
    """Utterance id -> text; words may be separated by spaces (the release) or not."""
    transcripts = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split(maxsplit=1)
        if not fields:
            continue
        if len(fields) != 2:
            raise InputError(f"{path}, line {number}: expected '<utterance> <text>', found {line!r}.")
        if fields[0] in transcripts:
            raise InputError(f"{path}, line {number}: the utterance {fields[0]} occurs a second time.")
        transcripts[fields[0]] = fields[1].strip()
    return transcripts


def read_genders(path: Path) -> Dict[str, str]:
    """Speaker (with its S) -> F or M; lines are ``ID SEX``, usually without the leading S."""
    if not path.is_file():
        log.warning("AISHELL-1: %s is missing, so no gender is known", path)
        return {}
    genders = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2 or fields[1].upper() not in ("F", "M"):
            raise InputError(f"{path}, line {number}: expected '<speaker> F' or '<speaker> M', found {line!r}.")
        genders["S" + fields[0].lstrip("S")] = fields[1].upper()
    return genders


def find_utterances(corpus_dir: Path, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """Clips with a transcript; audio without one, and the reverse, are counted and kept out."""
    root = find_root(corpus_dir, lambda path: (path / "data_aishell").is_dir(), AISHELL)
    wav = root / "data_aishell" / "wav"
    for needed in (wav, root / TRANSCRIPT):
        if not needed.exists():
            raise InputError(f"{needed}: is missing from AISHELL-1; unpack the corpus again.")
    absent = [split for split in AISHELL.splits if not (wav / split).is_dir()]
    if absent and not partial:
        raise InputError(f"{wav}: lacks {' and '.join(absent)}; unpack the missing parts, or accept it with --partial true.")
    transcripts = read_transcripts(root / TRANSCRIPT)
    genders = read_genders(root / SPEAKERS)
    clips = {
        clip.stem: (split, speaker.name, clip)
        for split in AISHELL.splits if split not in absent
        for speaker in iter_folders(wav / split)
        for clip in sorted(speaker.glob("*.wav"))
    }
    without_text = sorted(clips.keys() - transcripts.keys())
    without_audio = sorted(transcripts.keys() - clips.keys())
    if clips and 2 * len(without_text) > len(clips):
        raise InputError(
            f"{root / TRANSCRIPT}: has no line for {len(without_text)} of {len(clips)} clips ({without_text[0]} for one); "
            "it does not belong to this audio."
        )
    if not partial and 2 * len(without_audio) > len(transcripts):
        raise InputError(
            f"{wav}: has no audio for {len(without_audio)} of {len(transcripts)} transcript lines ({without_audio[0]} "
            "for one); unpack the speakers' archives, or accept what is there with --partial true."
        )
    for name in without_text:
        drops.add("audio without transcript", name)
    for name in without_audio:
        drops.add("transcript without audio", name)
    for name, (split, speaker, clip) in clips.items():
        if name in transcripts:
            yield Utterance(
                id=name, audio=clip, speaker=speaker, gender=genders.get(speaker), text=transcripts[name], split=split
            )


if __name__ == "__main__":
    run(AISHELL, find_utterances)
