"""The SpeechEQ Metric, SEQM (section 2.1, Figure 1): one label space for the labels of many corpora.

An emotion is a category (ESC, the Emotion States Category) and an intensity (EIS, the Emotion Intensity
Scale). Eight categories have an EIS from 1 to 4 in three named levels; very weak emotions, with an EIS from
0 to 1, are the ninth category, neutral. So there are 8 x 3 + 1 = 25 names.

The names follow Plutchik's wheel and the hourglass of emotions; Figure 1 of the paper names a category by
its medium level, for which this module uses the plain noun (joy, sadness, fear, ...).
"""

import math
from typing import NamedTuple

NEUTRAL = "neutral"

# category -> its names at low, medium and high intensity
LEVEL_NAMES: dict[str, tuple[str, str, str]] = {
    "trust": ("acceptance", "trust", "admiration"),
    "joy": ("serenity", "joy", "ecstasy"),
    "anticipation": ("interest", "anticipation", "vigilance"),
    "anger": ("annoyance", "anger", "rage"),
    "disgust": ("boredom", "disgust", "loathing"),
    "sadness": ("pensiveness", "sadness", "grief"),
    "surprise": ("distraction", "surprise", "amazement"),
    "fear": ("apprehension", "fear", "terror"),
}

# The order of the nine ESC classes is part of every trained model: append, never reorder.
CATEGORIES: tuple[str, ...] = (NEUTRAL,) + tuple(LEVEL_NAMES)
ESC_INDEX: dict[str, int] = {category: index for index, category in enumerate(CATEGORIES)}
LEVELS: tuple[str, str, str] = ("low", "medium", "high")

EIS_MIN, EIS_MAX = 0.0, 4.0
NEUTRAL_MAX = 1.0
EMOTIONAL_MIN = 1.0
NEUTRAL_EIS = 0.0
UNSPECIFIED = -1.0

# The gold EIS of a corpus with three and with two levels (section 2.1).
LEVEL_EIS: dict[int, tuple[float, ...]] = {3: (1.5, 2.5, 3.5), 2: (2.0, 3.0)}


class Emotion(NamedTuple):
    """One of the 25 named emotions: its category, its level (None for neutral) and its gold EIS."""

    name: str
    category: str
    level: str | None
    eis: float


def _emotions() -> dict[str, Emotion]:
    named = {NEUTRAL: Emotion(NEUTRAL, NEUTRAL, None, NEUTRAL_EIS)}
    for category, names in LEVEL_NAMES.items():
        for level, name, eis in zip(LEVELS, names, LEVEL_EIS[3]):
            named[name] = Emotion(name, category, level, eis)
    return named


# the 25 emotions by name
EMOTIONS: dict[str, Emotion] = _emotions()


class ClassTable(NamedTuple):
    """The classes that a model tells apart, in the order of its outputs, and the SEQM category of each."""

    names: tuple[str, ...]
    categories: tuple[str, ...]


# The paper's: the nine ESC categories themselves.
SEQM_CLASSES = ClassTable(CATEGORIES, CATEGORIES)


def esc_index(category: str) -> int:
    """The class number (0 to 8) of an ESC category; ValueError if there is no such category."""
    if category not in ESC_INDEX:
        raise ValueError(f"{category!r} is not an ESC category; the nine are {', '.join(CATEGORIES)}")
    return ESC_INDEX[category]


def eis_from_level(level: int, levels: int) -> float:
    """The gold EIS of level number ``level`` (1 is the weakest) in a corpus of ``levels`` levels (2 or 3).

    ValueError if the corpus has another number of levels, or no such level.
    """
    if levels not in LEVEL_EIS:
        raise ValueError(f"SEQM defines gold EIS values for 2 and 3 levels, not for {levels!r}")
    if isinstance(level, bool) or level not in range(1, levels + 1):
        raise ValueError(f"level {level!r} is outside the declared levels 1 to {levels}")
    return LEVEL_EIS[levels][int(level) - 1]


def eis_from_scale(value: float, low: float, high: float) -> float:
    """Rescale ``value`` of a continuous scale [``low``, ``high``] linearly to the EIS range 1 to 4.

    ValueError if the scale is empty or the value is outside it or not finite.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"the scale [{low!r}, {high!r}] is not a finite range from low to high")
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"the value {value!r} is outside the declared scale {low:g} to {high:g}")
    rescaled = EMOTIONAL_MIN + (value - low) / (high - low) * (EIS_MAX - EMOTIONAL_MIN)
    return min(max(rescaled, EMOTIONAL_MIN), EIS_MAX)  # rounding must not leave the range


def is_specified(eis: float) -> bool:
    """Whether an EIS label is a value; False for the mark of unspecified labels (-1)."""
    check_eis(eis)
    return eis != UNSPECIFIED


def check_eis(eis: float) -> float:
    """Return ``eis`` if it is a gold label: 0 to 4, or -1 for unspecified; else ValueError."""
    if eis == UNSPECIFIED or (math.isfinite(eis) and EIS_MIN <= eis <= EIS_MAX):
        return eis
    raise ValueError(f"{eis!r} is not an EIS: it is 0 to 4, or -1 where it is unspecified")


def level_from_eis(eis: float) -> str:
    """The level, low (1 to 2), medium (2 to 3) or high (3 to 4), of an emotional EIS.

    The borders lie half-way between the gold values 1.5, 2.5 and 3.5, a border belongs to the higher level;
    a value below 1 counts as low. ValueError outside 0 to 4.
    """
    if not (math.isfinite(eis) and EIS_MIN <= eis <= EIS_MAX):
        raise ValueError(f"the EIS {eis!r} is outside 0 to 4")
    return LEVELS[min(max(int(eis) - 1, 0), 2)]


def emotion_name(esc: int | str, eis: float) -> str:
    """The SEQM name of a category (name or class number) at an EIS: one of the 25.

    The category decides: neutral is neutral at every EIS, and an emotional category with an EIS below 1
    takes its low name. ValueError for an unknown category or an EIS outside 0 to 4.
    """
    if isinstance(esc, str):
        category = CATEGORIES[esc_index(esc)]
    elif 0 <= esc < len(CATEGORIES):
        category = CATEGORIES[esc]
    else:
        raise ValueError(f"{esc!r} is not an ESC class number; they are 0 to {len(CATEGORIES) - 1}")
    level = level_from_eis(eis)
    if category == NEUTRAL:
        return NEUTRAL
    return LEVEL_NAMES[category][LEVELS.index(level)]
