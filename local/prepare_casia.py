#!/usr/bin/env python3
"""CASIA: six acted emotions in Mandarin; the public part has 4 speakers x 6 emotions x 50 texts."""

from collections.abc import Iterator
from pathlib import Path

from speecheq.corpora import Corpus, Drops, InputError, Utterance, find_root, iter_clips, iter_folders, run

CASIA = Corpus(
    name="casia",
    title="CASIA",
    language="Mandarin",
    layout="DIR/[casia/]<speaker>/<emotion>/<201..250>.wav",
    labels={
        "angry": "anger",
        "fear": "fear",
        "happy": "joy",
        "neutral": "neutral",
        "normal": "neutral",  # the full corpus' name for it
        "sad": "sadness",
        "surprise": "surprise",
    },
    counts={"public part": 1200, "full corpus": 9600},
)
GENDERS = {"liuchanhg": "F", "wangzhe": "M", "zhaoquanyin": "F", "zhaozuoxiang": "M"}
SPELLINGS = {"liuchanhong": "liuchanhg"}


def speaker_name(folder: Path) -> str:
    return SPELLINGS.get(folder.name.lower(), folder.name.lower())


def holds_speakers(folder: Path) -> bool:
    return folder.is_dir() and any(speaker_name(path) in GENDERS for path in iter_folders(folder))


def find_utterances(corpus_dir: Path, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """Copies in circulation have the folder ``casia`` around the speakers or not: both are taken."""
    root = find_root(corpus_dir, lambda path: holds_speakers(path / "casia") or holds_speakers(path), CASIA)
    root = root / "casia" if holds_speakers(root / "casia") else root
    for speaker_folder in iter_folders(root):
        speaker = speaker_name(speaker_folder)
        if speaker not in GENDERS:
            raise InputError(f"{speaker_folder}: is not a speaker of CASIA ({', '.join(GENDERS)}); remove the folder.")
        for emotion_folder in iter_folders(speaker_folder):
            emotion = emotion_folder.name.lower()
            if emotion not in CASIA.labels:
                raise InputError(
                    f"{emotion_folder}: is not an emotion of CASIA ({', '.join(CASIA.labels)}); rename or remove the "
                    "folder."
                )
            for clip in iter_clips(emotion_folder):
                yield Utterance(
                    id=f"casia-{speaker}-{emotion}-{clip.stem}",
                    audio=clip,
                    speaker=speaker,
                    gender=GENDERS[speaker],
                    label=emotion,
                    text_id=clip.stem,
                )


if __name__ == "__main__":
    run(CASIA, find_utterances)
