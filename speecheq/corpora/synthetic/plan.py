"""The plan of a mini corpus before it is spoken: speakers, prosody, clips, text files.

An emotion moves pitch, pitch range, rate and volume away from neutral, in a direction of its own and the further the
higher its intensity, so that category (ESC) and intensity (EIS) can both be learned.
"""

import random
from collections.abc import Mapping
from typing import NamedTuple

from speecheq.seqm import LEVEL_EIS, NEUTRAL


class Prosody(NamedTuple):
    """A direction away from neutral; each part is about -1 to 1."""

    pitch: float
    pitch_range: float
    rate: float
    volume: float


# At high intensity. The directions stay apart without the volume, which feature normalisation may remove.
DIRECTIONS: dict[str, Prosody] = {
    NEUTRAL: Prosody(0.0, 0.0, 0.0, 0.0),
    "trust": Prosody(-0.5, -0.9, 0.5, -0.2),
    "joy": Prosody(0.8, 0.8, 0.3, 0.4),
    "anticipation": Prosody(0.3, -0.4, -1.0, 0.3),
    "anger": Prosody(-0.1, 1.0, 0.9, 1.0),
    "disgust": Prosody(-1.0, 0.7, -0.3, 0.5),
    "sadness": Prosody(-0.7, -0.8, -1.0, -0.9),
    "surprise": Prosody(1.0, 1.0, -0.7, 0.1),
    "fear": Prosody(0.8, -0.8, 0.9, -0.6),
}
JITTER = 0.06  # standard deviation of each part of a clip's prosody


def scale_at(eis: float) -> float:
    """How far a clip of this EIS (1 to 4) goes in its emotion's direction: 0.25 to 1.15, 1 at high (3.5)."""
    return 1.0 + 0.3 * (eis - LEVEL_EIS[3][-1])


def emotional_prosody(category: str, scale: float, jitter: random.Random) -> Prosody:
    """The prosody of a clip: the category's direction times ``scale`` (1 at high intensity), with jitter."""
    return Prosody(*(scale * part + jitter.gauss(0.0, JITTER) for part in DIRECTIONS[category]))


class Speaker(NamedTuple):
    """``gender`` (F or M) is that of the espeak-ng ``variant``; ``pitch`` is 0 to 99, 50 the variant's own.

    Variants with a `breath` line (f2, f3 and f5, say) start from memory that espeak-ng never sets: they sound
    different in every process and cannot be used here.
    """

    name: str
    gender: str
    variant: str
    pitch: int = 50


# Variants and pitches that are easy to tell apart; every woman's voice is higher than every man's.
VOICES: dict[str, tuple[tuple[str, int], ...]] = {
    "F": (
        ("f1", 50), ("steph", 46), ("belinda", 44), ("f4", 54), ("grandma", 46), ("Annie", 44), ("aunty", 52),
        ("linda", 40), ("shelby", 52),
    ),
    "M": (
        ("m3", 50), ("m8", 56), ("Gene", 50), ("m1", 48), ("m7", 46), ("gustave", 54), ("m4", 44), ("michel", 48),
        ("Andy", 46), ("m2", 50),
    ),
}  # fmt: skip


def cast(genders: Mapping[str, str], first: int = 0) -> tuple[Speaker, ...]:
    """Speakers for names with their genders, each with a voice of its own from number ``first`` on.

    ValueError where a gender has more speakers than voices.
    """
    speakers, used = [], {"F": 0, "M": 0}
    for name, gender in genders.items():
        voices = VOICES[gender]
        if used[gender] == len(voices):
            raise ValueError(f"there are {len(voices)} voices of gender {gender}, none is left for {name}")
        speakers.append(Speaker(name, gender, *voices[(first + used[gender]) % len(voices)]))
        used[gender] += 1
    return tuple(speakers)


class SyntheticClip(NamedTuple):
    """One utterance to be spoken: ``language`` is espeak-ng's code, the file is 16 bit at ``rate`` Hz."""

    path: str
    text: str
    speaker: Speaker
    prosody: Prosody
    language: str = "cmn"
    rate: int = 16000
    channels: int = 1


class Plan(NamedTuple):
    """A corpus before it is spoken: its clips, its text files (path -> content) and its counts."""

    clips: list[SyntheticClip]
    files: dict[str, bytes]
    counts: dict[str, int]
