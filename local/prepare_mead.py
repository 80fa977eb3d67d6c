#!/usr/bin/env python3
"""MEAD, the Multi-view Emotional Audio-visual Dataset: eight acted emotions in English, three levels; its audio.

``M003/audio/angry/level_1/001.m4a`` is actor M003 (M a man, W a woman), angry at the weakest of three levels, clip 001
of these; neutral has level_1 only, which is no intensity. Each actor's folder is downloaded with ``audio.tar``, which
is to be unpacked in it (github.com/uniBruce/Mead). Clips that were converted to WAV or FLAC are taken in place of m4a,
which needs PyAV to be read.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from speecheq.corpora import Corpus, Drops, InputError, Utterance, find_root, index_clips, iter_folders, run

LABELS = {
    "angry": "anger",
    "contempt": "disgust",  # SEQM has no contempt; on its wheel it lies between disgust and anger
    "disgusted": "disgust",
    "fear": "fear",
    "happy": "joy",
    "neutral": "neutral",
    "sad": "sadness",
    "surprised": "surprise",
}
LEVELS = ("level_1", "level_2", "level_3")
MEAD = Corpus(
    name="mead",
    title="MEAD",
    language="English",
    layout="DIR/<actor>/audio/<emotion>/level_<1..3>/<number>.m4a",
    labels=LABELS,
    levels=LEVELS,
    counts={"part 0, 48 actors": 31729},
)
ACTOR = re.compile(r"[MW][0-9]{3}")
SUFFIXES = (".wav", ".flac", ".m4a")


def actor_folders(root: Path) -> list[Path]:
    return [folder for folder in iter_folders(root) if ACTOR.fullmatch(folder.name)]


def level_folders(audio: Path) -> Iterator[tuple[str, Path]]:
    """Emotion and folder of every level in an actor's ``audio``; raises InputError for an unknown folder."""
    for emotion in iter_folders(audio):
        if emotion.name not in LABELS:
            raise InputError(f"{emotion}: is not an emotion of MEAD ({', '.join(LABELS)}); remove the folder.")
        levels = LEVELS[:1] if emotion.name == "neutral" else LEVELS
        for level in iter_folders(emotion):
            if level.name not in levels:
                raise InputError(f"{level}: is not a level of {emotion.name} ({', '.join(levels)}); remove the folder.")
            yield emotion.name, level


def find_utterances(corpus_dir: Path, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """All clips; raises InputError for an archive that is not unpacked, or a clip with another name."""
    root = find_root(corpus_dir, lambda path: path.is_dir() and bool(actor_folders(path)), MEAD)
    for actor in actor_folders(root):
        audio = actor / "audio"
        if not audio.is_dir():
            raise InputError(f"{audio}: there is no such folder; unpack audio.tar in {actor}, or remove {actor}.")
        for emotion, level in level_folders(audio):
            for number, clip in index_clips(level, "", SUFFIXES).items():
                if not re.fullmatch(r"[0-9]{3}", number):
                    raise InputError(f"{clip}: is not named by a number of three digits; rename or remove the file.")
                yield Utterance(
                    id=f"mead-{actor.name}-{emotion}-{level.name}-{number}",
                    audio=clip,
                    speaker=actor.name,
                    gender="F" if actor.name[0] == "W" else "M",
                    label=emotion,
                    level=None if emotion == "neutral" else level.name,
                )


if __name__ == "__main__":
    run(MEAD, find_utterances)
