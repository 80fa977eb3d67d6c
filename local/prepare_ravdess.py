#!/usr/bin/env python3
"""RAVDESS, the speech part: eight acted emotions in English, 24 actors x 60 clips, two intensities.

A clip is named by seven codes, ``modality-channel-emotion-intensity-statement-repetition-actor.wav``, such as
``03-01-06-02-02-01-12.wav``: audio only, speech, fearful, strong, statement 02, first repetition, actor 12.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from speecheq.corpora import (
    Corpus,
    Drops,
    InputError,
    Utterance,
    find_root,
    iter_clips,
    iter_folders,
    log,
    read_header,
    run,
)

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
LEVELS = ("normal", "strong")
ACTORS = [f"{number:02d}" for number in range(1, 25)]
RAVDESS = Corpus(
    name="ravdess",
    title="RAVDESS",
    language="English",
    layout="DIR/[Audio_Speech_Actors_01-24/]Actor_<01..24>/<seven codes>.wav",
    labels={
        "neutral": "neutral",
        "calm": "neutral",  # SEQM has no calm; the authors meant it as a second baseline beside neutral
        "happy": "joy",
        "sad": "sadness",
        "angry": "anger",
        "fearful": "fear",
        "disgust": "disgust",
        "surprised": "surprise",
    },
    levels=LEVELS,
    counts={"speech, audio only": 1440},
    count_by={
        "label": {emotion: 96 if emotion == "neutral" else 192 for emotion in EMOTIONS},
        "speaker": dict.fromkeys(ACTORS, 60),
    },
)
SPEECH = "audio_speech_actors_01-24"
AUDIO_ONLY, SPOKEN = "03", "01"


class Name(NamedTuple):
    """The codes of a clip's name, in their order."""

    modality: str
    channel: str
    emotion: str
    intensity: str
    statement: str
    repetition: str
    actor: str


# how many codes each part has, counted from 01
CODES = Name(modality=3, channel=2, emotion=8, intensity=2, statement=2, repetition=2, actor=24)


def parse_name(clip: Path) -> Name:
    """The codes of a clip; raises InputError for a name that is not seven codes, or has an impossible code."""
    if not re.fullmatch(r"[0-9]{2}(-[0-9]{2}){6}", clip.stem):
        raise InputError(f"{clip}: is not named by seven codes of two digits (03-01-06-01-02-01-12); remove the file.")
    name = Name(*clip.stem.split("-"))
    for part, code, codes in zip(Name._fields, name, CODES):
        if not 1 <= int(code) <= codes:
            raise InputError(f"{clip}: the {part} code {code} is not in 01 to {codes:02d}; rename or remove the file.")
    if (name.emotion, name.intensity) == ("01", "02"):
        raise InputError(f"{clip}: is strong neutral, which RAVDESS does not have; rename or remove the file.")
    return name


def speech_folder(folder: Path) -> Path | None:
    """The folder that holds the actors: the archive's own inside ``folder`` (its case varies), or ``folder``."""
    inside = [path for path in iter_folders(folder) if path.name.lower() == SPEECH]
    for path in [*inside, Path(folder)]:
        if any(actor.name.startswith("Actor_") for actor in iter_folders(path)):
            return path
    return None


def report_faults(clips: list[Path]) -> None:
    """Log which clips are stereo and which hold the same bytes; the release has both, and they are kept."""
    stereo = [clip.name for clip in clips if read_header(clip).channels > 1]
    if stereo:
        log.warning("RAVDESS: stereo clips, to be mixed down: %d (%s)", len(stereo), ", ".join(stereo))
    alike = defaultdict(list)
    for clip in clips:
        with open(clip, "rb") as stream:  # few clips of one size share a piece from their middle
            size = clip.stat().st_size
            stream.seek(size // 2)
            alike[size, stream.read(4096)].append(clip)
    same = defaultdict(list)
    for clip in (clip for group in alike.values() if len(group) > 1 for clip in group):
        same[hashlib.sha256(clip.read_bytes()).digest()].append(clip.name)
    for names in same.values():
        if len(names) > 1:
            log.warning("RAVDESS: %s are the same recording, byte for byte", " and ".join(names))


def find_utterances(corpus_dir: Path, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """The spoken clips; songs and videos that were unpacked among them are counted and left out."""
    root = speech_folder(find_root(corpus_dir, lambda path: path.is_dir() and speech_folder(path) is not None, RAVDESS))
    spoken = []
    for folder in iter_folders(root):
        if folder.name not in {f"Actor_{actor}" for actor in ACTORS}:
            raise InputError(f"{folder}: is not an actor of RAVDESS (Actor_01 to Actor_24); remove the folder.")
        for clip in [*iter_clips(folder), *iter_clips(folder, ".mp4")]:
            name = parse_name(clip)
            if folder.name != f"Actor_{name.actor}":
                raise InputError(f"{clip}: is named after actor {name.actor}; move it to Actor_{name.actor}.")
            if name.modality != AUDIO_ONLY or clip.suffix.lower() == ".mp4":
                drops.add("video", clip.name)
            elif name.channel != SPOKEN:
                drops.add("song", clip.name)
            else:
                spoken.append((clip, name))
    report_faults([clip for clip, _ in spoken])
    for clip, name in spoken:
        yield Utterance(
            id=f"ravdess-{clip.stem}",
            audio=clip,
            speaker=name.actor,
            gender="M" if int(name.actor) % 2 else "F",
            label=EMOTIONS[int(name.emotion) - 1],
            level=LEVELS[int(name.intensity) - 1],
            text_id=name.statement,
            extra={"repetition": name.repetition},
        )


if __name__ == "__main__":
    run(RAVDESS, find_utterances)
