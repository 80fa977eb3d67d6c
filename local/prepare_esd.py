#!/usr/bin/env python3
"""ESD: 350 parallel sentences in 5 acted emotions, by 10 speakers of Mandarin and 10 of English.

Its one folder holds two corpora: ``--part zh`` (speakers 0001 to 0010) and ``--part en`` (0011 to 0020). A clip's
emotion is its folder; the number in its name, 1 to 1750, has to agree: each emotion has 350 numbers, of which the
first 20 are the official development part ("evaluation"), the next 30 the test part, the others the training part.
"""

import functools
import re
from collections import defaultdict
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
    log,
    read_lines,
    run_parts,
)

# in the order of their numbers
LABELS = {"Neutral": "neutral", "Angry": "anger", "Happy": "joy", "Sad": "sadness", "Surprise": "surprise"}
SENTENCES = 350
SPLIT_FOLDERS = {"dev": "evaluation", "test": "test", "train": "train"}
MEN = ("0004", "0005", "0006", "0008", "0010", "0011", "0012", "0013", "0014", "0020")
TABLE_LABELS = {"中立": "Neutral", "生气": "Angry", "快乐": "Happy", "伤心": "Sad", "惊喜": "Surprise"}
# The tables of texts differ in encoding and do not say which. GB2312 is tried before Latin-1, for which any bytes
# pass, because some English tables hold Chinese quotation marks.
ENCODINGS = {"Mandarin": ("utf-16", "utf-8", "gb18030"), "English": ("utf-16", "utf-8", "gb2312", "latin-1")}
CLIP = re.compile(r"([0-9]{4})_([0-9]{6})")


def declare(name: str, language: str, speakers: Sequence[str]) -> Corpus:
    return Corpus(
        name=name,
        title=f"ESD ({language})",
        language=language,
        layout="DIR/<speaker>/{<emotion>/[{train,evaluation,test}/]<speaker>_<number>.wav,<speaker>.txt}",
        labels=LABELS,
        splits=("train", "dev", "test"),
        test_split="test",
        counts={"the only release": 17500},
        count_by={
            "label": dict.fromkeys(LABELS, 3500),
            "split": {"train": 15000, "dev": 1000, "test": 1500},
            "speaker": dict.fromkeys(speakers, 1750),
        },
    )


SPEAKERS = [f"{number:04d}" for number in range(1, 21)]
ESD_ZH = declare("esd_zh", "Mandarin", SPEAKERS[:10])
ESD_EN = declare("esd_en", "English", SPEAKERS[10:])


def read_table(path: Path, encodings: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Clip -> (text, label); the text is empty where two lines of a clip differ, the label where it is absent.

    A line is id, text and label between tabs, but some lines have a space in place of one tab or both.
    """
    rows: dict[str, tuple[str, str]] = {}
    for where, line in read_lines(path, encodings):
        name, *rest = line.split(maxsplit=1)
        if not CLIP.fullmatch(name):
            raise InputError(f"{where}: expected '<speaker>_<number> <text> <label>', found {line[:80]!r}.")
        text, tab, label = "".join(rest).strip().rpartition("\t")
        if not tab:
            *words, last = label.split() or [""]
            text, label = (" ".join(words), last) if last in {**TABLE_LABELS, **LABELS} else (label, "")
        label = " ".join(label.split())
        row = (" ".join(text.split()), TABLE_LABELS.get(label, label))
        if rows.setdefault(name, row) != row:
            rows[name] = ("", row[1])
    return rows


def sentence_and_split(clip: Path, speaker: str, label: str) -> tuple[int, str]:
    """Sentence (1 to 350) and split of a clip, by its name; raises InputError if the clip is in the wrong folder."""
    match = CLIP.fullmatch(clip.stem)
    if not match:
        raise InputError(f"{clip}: is not named <speaker>_<number of six digits>; rename or remove the clip.")
    if match[1] != speaker:
        raise InputError(f"{clip}: is named after another speaker than {speaker}; move it to its own.")
    before = SENTENCES * list(LABELS).index(label)
    sentence = int(match[2]) - before
    if not 1 <= sentence <= SENTENCES:
        raise InputError(f"{clip}: is no clip of {label}, which are {before + 1} to {before + SENTENCES}; move it.")
    split = "dev" if sentence <= 20 else "test" if sentence <= 50 else "train"
    if clip.parent.name not in (label, SPLIT_FOLDERS[split]):
        raise InputError(f"{clip}: belongs by its number to {SPLIT_FOLDERS[split]}; move it there.")
    return sentence, split


def iter_emotion_clips(speaker_folder: Path) -> Iterator[tuple[str, Path]]:
    """Yields (emotion, clip), from the folders of the official parts or from the folder of the emotion itself."""
    for emotion_folder in iter_folders(speaker_folder):
        if emotion_folder.name not in LABELS:
            raise InputError(f"{emotion_folder}: is not an emotion of ESD ({', '.join(LABELS)}); remove the folder.")
        parts = list(iter_folders(emotion_folder))
        for folder in parts:
            if folder.name not in SPLIT_FOLDERS.values():
                raise InputError(f"{folder}: is none of {', '.join(SPLIT_FOLDERS.values())}; remove the folder.")
        for folder in (emotion_folder, *parts):
            yield from ((emotion_folder.name, clip) for clip in iter_clips(folder))


def holds_speakers(folder: Path) -> bool:
    return any((folder / speaker / label).is_dir() for speaker in SPEAKERS for label in LABELS)


def find_part(corpus: Corpus, corpus_dir: Path, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """The clips of one part. What is odd in the tables of texts is counted in the log and changes no label."""
    root = find_root(corpus_dir, holds_speakers, corpus)
    odd: dict[str, list[str]] = defaultdict(list)
    for speaker_folder in iter_folders(root):
        speaker = speaker_folder.name
        if speaker not in SPEAKERS:
            raise InputError(f"{speaker_folder}: is not a speaker of ESD (0001 to 0020); remove the folder.")
        if speaker not in corpus.count_by["speaker"]:
            continue
        table = speaker_folder / f"{speaker}.txt"
        rows = read_table(table, ENCODINGS[corpus.language]) if table.is_file() else {}
        for label, clip in iter_emotion_clips(speaker_folder):
            sentence, split = sentence_and_split(clip, speaker, label)
            text, written = rows.pop(clip.stem, ("", label))
            if not text:
                odd["clips without a text in their speaker's table"].append(clip.stem)
            if written != label:
                odd["clips with another label or none in the table: their folder's is taken"].append(clip.stem)
            yield Utterance(
                id=f"esd-{clip.stem}",
                audio=clip,
                speaker=speaker,
                gender="M" if speaker in MEN else "F",
                text=text,
                label=label,
                split=split,
                text_id=str(sentence),
            )
        odd["lines of the tables without a clip"] += rows
    for what, names in odd.items():
        if names:
            more = ", ..." if len(names) > 3 else ""
            log.warning("%s: %d %s (%s%s)", corpus.title, len(names), what, ", ".join(names[:3]), more)


PARTS = {"zh": (ESD_ZH, functools.partial(find_part, ESD_ZH)), "en": (ESD_EN, functools.partial(find_part, ESD_EN))}

if __name__ == "__main__":
    run_parts(PARTS)
