#!/usr/bin/env python3
"""EmoV-DB, the Emotional Voices Database: sentences of CMU Arctic in five acted styles, by four speakers of English.

``bea/Amused/amused_1-15_0001.wav`` is speaker bea, amused, sentence arctic_a0001; 1-15 is the range of sentences that
were annotated together (README of github.com/numediart/EmoV-DB). The archives of openslr.org/115 hold the clips
without folders: unpack each into a folder of its name, such as ``bea_Amused``.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from speecheq.corpora import Corpus, Drops, InputError, Utterance, find_root, iter_clips, iter_folders, run

GENDERS = {"bea": "F", "jenie": "F", "josh": "M", "sam": "M"}
STYLES = {"amused": "amused", "anger": "angry", "disgust": "disgusted", "neutral": "neutral", "sleepiness": "sleepy"}
SLEEPY = "sleepy"
EMOV_DB = Corpus(
    name="emov_db",
    title="EmoV-DB",
    language="English",
    layout="DIR/<speaker>/<Style>/<style>_<range>_<sentence>.wav, or DIR/<speaker>_<Style>/...",
    labels={"amused": "joy", "angry": "anger", "disgusted": "disgust", "neutral": "neutral"},
    # of 6,887, of which 1,721 are sleepy; of the 7,000 that the README lists, of which 1,744 are
    counts={"the sorted release": 5166, "the unsorted release": 5256},
)
NAME = re.compile(rf"({'|'.join(STYLES)})_([0-9]+-[0-9]+)_([0-9]{{4}})", re.IGNORECASE)


def speaker_folders(root: Path) -> list[tuple[str, str, Path]]:
    """Speaker, style and folder of all folders of one style."""
    found = []
    for folder in iter_folders(root):
        speaker, _, style = folder.name.lower().partition("_")
        if speaker in GENDERS and style in STYLES.values():
            found.append((speaker, style, folder))
        elif folder.name.lower() in GENDERS:
            found += [(speaker, path.name.lower(), path) for path in iter_folders(folder)]
    return found


def find_utterances(corpus_dir: Path, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """All clips but the sleepy ones; raises InputError for a name that is no clip's, or another style's."""
    root = find_root(corpus_dir, lambda path: path.is_dir() and bool(speaker_folders(path)), EMOV_DB)
    for speaker, style, folder in speaker_folders(root):
        if style not in STYLES.values():
            raise InputError(f"{folder}: is not a style of EmoV-DB ({', '.join(STYLES.values())}); remove the folder.")
        for clip in iter_clips(folder):
            name = NAME.fullmatch(clip.stem)
            if not name:
                raise InputError(f"{clip}: is not named like amused_1-15_0001 (style, range, sentence); remove it.")
            if STYLES[name[1].lower()] != style:
                raise InputError(f"{clip}: is named after another style than {style}; move it to its own.")
            if style == SLEEPY:
                drops.add("sleepy is not an emotion of SEQM", f"{speaker}/{clip.stem}")
                continue
            yield Utterance(
                id=f"emov_db-{speaker}-{clip.stem.lower()}",
                audio=clip,
                speaker=speaker,
                gender=GENDERS[speaker],
                label=style,
                text_id=name[3],
            )


if __name__ == "__main__":
    run(EMOV_DB, find_utterances)
