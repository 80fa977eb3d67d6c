"""Mini version of EMODB, in German: ``wav/<speaker><sentence><emotion><version>.wav``."""

import random

from speecheq.corpora.synthetic.plan import Plan, SyntheticClip, cast, emotional_prosody, scale_at
from speecheq.corpora.synthetic.sentences import GERMAN_LINES
from speecheq.seqm import LEVEL_EIS, NEUTRAL

SPEAKERS = {"03": "M", "08": "F", "09": "F", "10": "M", "11": "M", "13": "F"}
NANO_SPEAKERS = 4
SENTENCES = ("a01", "a02", "a04", "a05", "a07", "b01", "b02", "b03", "b09", "b10")
SENTENCES_EACH = {"mini": 5, "nano": 2}
# letter -> (direction, scale); boredom (L) is disgust at its low level
EMOTIONS = {
    "W": ("anger", 1.0), "L": ("disgust", scale_at(LEVEL_EIS[3][0])), "E": ("disgust", 1.0), "A": ("fear", 1.0),
    "F": ("joy", 1.0), "T": ("sadness", 1.0), "N": (NEUTRAL, 0.0),
}  # fmt: skip


def plan_emodb(size: str, rng: random.Random) -> Plan:
    """Every speaker says some sentences in every emotion, the next speaker those that follow."""
    clips, each = [], SENTENCES_EACH[size]
    speakers = cast(SPEAKERS, first=5)[: None if size == "mini" else NANO_SPEAKERS]
    for place, speaker in enumerate(speakers):
        for letter, (category, scale) in EMOTIONS.items():
            for number in range(place * each, (place + 1) * each):
                number %= len(SENTENCES)
                path = f"wav/{speaker.name}{SENTENCES[number]}{letter}a.wav"
                prosody = emotional_prosody(category, scale, rng)
                clips.append(SyntheticClip(path, GERMAN_LINES[number], speaker, prosody, "de"))
    return Plan(clips, {}, {"speakers": len(speakers)})
