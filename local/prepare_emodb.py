#!/usr/bin/env python3
"""EMODB, the Berlin Database of Emotional Speech: seven acted emotions in German, 10 speakers, 10 sentences.

``03a01Wa.wav`` is speaker 03, sentence a01, emotion W (Wut, anger), version a.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from speecheq.corpora import Corpus, Drops, InputError, Utterance, find_root, iter_clips, run

# by the first letter of the German word: Wut, Langeweile, Ekel, Angst, Freude, Trauer
EMOTIONS = {"W": "anger", "L": "boredom", "E": "disgust", "A": "fear", "F": "happiness", "N": "neutral", "T": "sadness"}
EMODB = Corpus(
    name="emodb",
    title="EMODB",
    language="German",
    layout="DIR/[wav/]<speaker><sentence><emotion><version>.wav",
    labels={
        "anger": "anger",
        "boredom": "boredom",  # disgust at its low level
        "disgust": "disgust",
        "fear": "fear",
        "happiness": "joy",
        "neutral": "neutral",
        "sadness": "sadness",
    },
    counts={"selected clips": 535},
    count_by={
        "label": {"anger": 127, "boredom": 81, "disgust": 46, "fear": 69, "happiness": 71, "neutral": 79, "sadness": 62}
    },
)
GENDERS = {**dict.fromkeys(["03", "10", "11", "12", "15"], "M"), **dict.fromkeys(["08", "09", "13", "14", "16"], "F")}
SENTENCES = ("a01", "a02", "a04", "a05", "a07", "b01", "b02", "b03", "b09", "b10")
NAME = re.compile(r"([0-9]{2})([a-z][0-9]{2})([A-Z])([a-z])")


def holds_clips(folder: Path) -> bool:
    return folder.is_dir() and any(NAME.fullmatch(clip.stem) for clip in iter_clips(folder))


def find_utterances(corpus_dir: Path, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """The clips of ``wav``, or of the folder itself; raises InputError for a name with a code unknown to EMODB."""
    root = find_root(corpus_dir, lambda path: holds_clips(path / "wav") or holds_clips(path), EMODB)
    for clip in iter_clips(root / "wav" if holds_clips(root / "wav") else root):
        name = NAME.fullmatch(clip.stem)
        if not name:
            raise InputError(f"{clip}: is not named like 03a01Wa (speaker, sentence, emotion, version); remove it.")
        speaker, sentence, emotion, version = name.groups()
        for what, code, codes in (
            ("speaker", speaker, GENDERS),
            ("sentence", sentence, SENTENCES),
            ("emotion", emotion, EMOTIONS),
        ):
            if code not in codes:
                raise InputError(
                    f"{clip}: the {what} {code} is not one of {', '.join(sorted(codes))}; rename or remove the file."
                )
        yield Utterance(
            id=f"emodb-{clip.stem}",
            audio=clip,
            speaker=speaker,
            gender=GENDERS[speaker],
            label=EMOTIONS[emotion],
            text_id=sentence,
            extra={"version": version},
        )


if __name__ == "__main__":
    run(EMODB, find_utterances)
