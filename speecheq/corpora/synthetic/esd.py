"""Mini version of ESD, Mandarin and English part, with what makes real copies hard to read.

The text tables come in four encodings, separated by tabs or by spaces; the clips of a speaker lie in the official
parts (train, evaluation, test) or directly in the folder of the emotion.
"""

import random
from typing import NamedTuple

from speecheq.corpora.synthetic.plan import Plan, SyntheticClip, cast, emotional_prosody
from speecheq.corpora.synthetic.sentences import ENGLISH_LINES, MANDARIN_LINES
from speecheq.seqm import NEUTRAL


class SpeakerFolder(NamedTuple):
    """How the files of a speaker are written."""

    gender: str
    encoding: str
    separator: str
    in_parts: bool


SPEAKERS: dict[str, SpeakerFolder] = {
    "0001": SpeakerFolder("F", "gb2312", "\t", True),
    "0003": SpeakerFolder("F", "utf-16", "\t", False),
    "0004": SpeakerFolder("M", "gb2312", "  ", False),
    "0006": SpeakerFolder("M", "utf-16", "\t", True),
    "0011": SpeakerFolder("M", "utf-8", "\t", True),
    "0012": SpeakerFolder("M", "utf-16", "\t", True),
    "0015": SpeakerFolder("F", "utf-8", "  ", False),
    "0016": SpeakerFolder("F", "latin-1", "\t", False),
}
LAST_MANDARIN_SPEAKER = "0010"
# emotion -> (direction, its Mandarin name), in the order of the ids, 350 of each
EMOTIONS = {
    "Neutral": (NEUTRAL, "中立"), "Angry": ("anger", "生气"), "Happy": ("joy", "快乐"), "Sad": ("sadness", "伤心"),
    "Surprise": ("surprise", "惊喜"),
}  # fmt: skip
IDS_EACH = 350
# size -> part -> numbers inside an emotion; in nano the speakers take turns with the two,
# such that the one whose table is Latin-1 has number 1, whose text has an accent
NUMBERS: dict[str, dict[str, tuple[int, ...]]] = {
    "mini": {"evaluation": (1,), "test": (21, 22), "train": (51, 52, 53, 54, 55)},
    "nano": {"evaluation": (1, 2), "test": (21, 22), "train": (51, 52)},
}


def _texts(mandarin: bool) -> dict[int, str]:
    """Number inside an emotion -> text, the same for every speaker and emotion."""
    lines = MANDARIN_LINES[10:] if mandarin else ENGLISH_LINES  # CASIA's mini version has the first ten
    numbers = {number for parts in NUMBERS.values() for numbers in parts.values() for number in numbers}
    return dict(zip(sorted(numbers), lines))


def _numbers(size: str, place: int) -> tuple[tuple[str, int], ...]:
    """(part, number inside an emotion) of the speaker at ``place``."""
    return tuple(
        (part, number)
        for part, numbers in NUMBERS[size].items()
        for number in (numbers if size == "mini" else [numbers[(place + 1) % 2]])
    )


def plan_esd(size: str, rng: random.Random) -> Plan:
    """``<speaker>/<Emotion>/[<part>/]<speaker>_NNNNNN.wav`` and ``<speaker>/<speaker>.txt``."""
    clips, files = [], {}
    counts = {"speakers": len(SPEAKERS), "train": 0, "evaluation": 0, "test": 0}
    for place, speaker in enumerate(cast({name: folder.gender for name, folder in SPEAKERS.items()})):
        folder, mandarin, table = SPEAKERS[speaker.name], speaker.name <= LAST_MANDARIN_SPEAKER, ""
        texts = _texts(mandarin)
        for order, (emotion, (category, mandarin_name)) in enumerate(EMOTIONS.items()):
            for part, number in _numbers(size, place):
                utterance = f"{speaker.name}_{order * IDS_EACH + number:06d}"
                inside = f"{emotion}/{part}" if folder.in_parts else emotion
                path, prosody = f"{speaker.name}/{inside}/{utterance}.wav", emotional_prosody(category, 1.0, rng)
                clips.append(SyntheticClip(path, texts[number], speaker, prosody, "cmn" if mandarin else "en-us"))
                written = texts[number] + ("。" if mandarin else ".")
                label = mandarin_name if mandarin else emotion
                table += folder.separator.join((utterance, written, label)) + "\n"
                counts[part] += 1
        files[f"{speaker.name}/{speaker.name}.txt"] = table.encode(folder.encoding)
    return Plan(clips, files, counts)
