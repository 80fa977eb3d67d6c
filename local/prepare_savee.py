#!/usr/bin/env python3
"""SAVEE, Surrey Audio-Visual Expressed Emotion: seven acted emotions in British English, four men x 120 clips.

``AudioData/DC/sa03.wav`` is speaker DC, sadness, sentence 03 of that emotion, as ``AudioData/Info.txt`` of the release
says. Copies of only the audio have all clips in one folder, with the speaker in the name: ``DC_sa03.wav``.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from speecheq.corpora import Corpus, Drops, InputError, Utterance, find_root, iter_clips, iter_folders, run

SPEAKERS = ("DC", "JE", "JK", "KL")
EMOTIONS = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}
SAVEE = Corpus(
    name="savee",
    title="SAVEE",
    language="English",
    layout="DIR/[AudioData/]<speaker>/<emotion><sentence>.wav, or DIR/<speaker>_<emotion><sentence>.wav",
    labels={emotion: "joy" if emotion == "happiness" else emotion for emotion in EMOTIONS.values()},
    counts={"the only release": 480},
    count_by={
        "label": {emotion: 120 if emotion == "neutral" else 60 for emotion in EMOTIONS.values()},
        "speaker": dict.fromkeys(SPEAKERS, 120),
    },
)
NAME = re.compile(rf"(?:({'|'.join(SPEAKERS)})_)?({'|'.join(EMOTIONS)})([0-9]{{2}})")


def clips_of(folder: Path) -> list[Path]:
    """The clips of the speakers' folders, or, with their speakers in their names, of ``folder`` itself."""
    inside = folder / "AudioData" if (folder / "AudioData").is_dir() else folder
    by_speaker = [clip for path in iter_folders(inside) if path.name in SPEAKERS for clip in iter_clips(path)]
    return by_speaker or [clip for clip in iter_clips(inside) if clip.name[:3] in {f"{name}_" for name in SPEAKERS}]


def find_utterances(corpus_dir: Path, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """All clips; raises InputError for a name that is no clip's of SAVEE."""
    root = find_root(corpus_dir, lambda path: path.is_dir() and bool(clips_of(path)), SAVEE)
    for clip in clips_of(root):
        name = NAME.fullmatch(clip.stem)
        folder = clip.parent.name if clip.parent.name in SPEAKERS else None
        if not name or not (name[1] or folder):
            raise InputError(f"{clip}: is not named like DC_sa03 (speaker, emotion, sentence); rename or remove it.")
        if name[1] and folder and name[1] != folder:
            raise InputError(f"{clip}: is named after another speaker than {folder}; move it to its own.")
        speaker, emotion, sentence = name[1] or folder, EMOTIONS[name[2]], name[3]
        yield Utterance(
            id=f"savee-{speaker}_{name[2]}{sentence}",
            audio=clip,
            speaker=speaker,
            gender="M",
            label=emotion,
            extra={"sentence": sentence},
        )


if __name__ == "__main__":
    run(SAVEE, find_utterances)
