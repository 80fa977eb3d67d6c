"""Declaring a corpus: what its labels mean (``Corpus``), and what is known of each clip (``Utterance``)."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speecheq import seqm
from speecheq.common.files import PathLike
from speecheq.common.stages import Drops

NEUTRAL_RULES = ("metric", "corpus")
# The official parts of a corpus; later stages know no others.
SPLITS = ("train", "dev", "test")
# Fields of an utterance that have few different values in a corpus.
INTERNED_FIELDS = ("speaker", "gender", "label", "level", "split", "session")


@dataclass(frozen=True)
class Corpus:
    """The declaration of a corpus. Nothing else in the package knows the corpus' own labels.

    - ``layout`` is the expected folder structure, for messages.
    - ``labels`` maps the corpus' own emotion labels to SEQM categories, or to one of SEQM's low and high emotions
      (such as boredom), which also gives the EIS. It is empty for a corpus without emotions.
    - Intensity is graded either by ``levels`` (two or three names, from weak to strong) or by ``scale`` (lowest and
      highest value of a continuous scale), or not at all.
    - ``neutral_eis`` is ``metric`` (the EIS of neutral clips is SEQM's 0) or ``corpus`` (it follows from their own
      intensity). The default is ``metric`` for a corpus with levels, else ``corpus``.
    - ``splits`` are the official parts, of train, dev and test; ``test_split`` is the one that is a fixed test set.
    - ``counts`` maps the names of published releases to their numbers of utterances. ``count_by`` gives, for a corpus
      with one release, the numbers by label, level, split, speaker, gender or session.

    Raises ValueError where a value contradicts the above.
    """

    name: str
    title: str
    language: str
    layout: str
    labels: Mapping[str, str] = field(default_factory=dict)
    levels: Sequence[str] = ()
    scale: tuple[float, float] | None = None
    neutral_eis: str | None = None
    splits: Sequence[str] = ()
    test_split: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    count_by: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    has_transcripts: bool = False

    def __post_init__(self) -> None:
        for name in self.labels.values():
            if name not in seqm.EMOTIONS:
                raise ValueError(f"{self.name}: {name!r} is neither a category nor an emotion of SEQM")
        if self.levels and len(self.levels) not in seqm.LEVEL_EIS:
            raise ValueError(f"{self.name}: SEQM has gold values for 2 or 3 levels, not {len(self.levels)}")
        if self.levels and self.scale:
            raise ValueError(f"{self.name}: intensity is graded by levels or by a scale, not by both")
        if self.scale:
            seqm.eis_from_scale(self.scale[0], *self.scale)
        if self.neutral_eis is None:
            object.__setattr__(self, "neutral_eis", "metric" if self.levels else "corpus")
        if self.neutral_eis not in NEUTRAL_RULES:
            raise ValueError(f"{self.name}: neutral_eis is {self.neutral_eis!r}, not one of {', '.join(NEUTRAL_RULES)}")
        if self.test_split is not None and self.test_split not in self.splits:
            raise ValueError(f"{self.name}: the test part {self.test_split!r} is not among its parts")

    def _emotion(self, label: str) -> seqm.Emotion:
        if label not in self.labels:
            raise ValueError(f"the label {label!r} is not one of {self.title}'s: {', '.join(self.labels)}")
        return seqm.EMOTIONS[self.labels[label]]

    def esc(self, label: str | None) -> str | None:
        """The SEQM category of a label of the corpus, None for None; ValueError for an undeclared label."""
        return None if label is None else self._emotion(label).category

    def own_eis(self, label: str | None, level: str | None, intensity: float | None = None) -> float:
        """The EIS that follows from the corpus' own intensity (section 2.1), for neutral clips too.

        Returns -1 where the intensity is unspecified. Raises ValueError for an undeclared level, and for a value where
        no scale is declared or outside it.
        """
        if level is not None and level not in self.levels:
            raise ValueError(f"the level {level!r} is not one of {self.title}'s: {', '.join(self.levels) or 'none'}")
        if intensity is not None and self.scale is None:
            raise ValueError(f"the intensity {intensity!r} is given, but {self.title} declares no scale")
        if label is not None and self.labels.get(label) not in seqm.CATEGORIES:
            return self._emotion(label).eis
        if level is not None:
            return seqm.eis_from_level(self.levels.index(level) + 1, len(self.levels))
        if intensity is not None and self.scale is not None:
            return seqm.eis_from_scale(intensity, *self.scale)
        return seqm.UNSPECIFIED

    def eis(self, label: str | None, level: str | None, intensity: float | None = None) -> float:
        """The gold EIS: 0 for neutral clips under the rule ``metric``, else that of ``own_eis``."""
        own = self.own_eis(label, level, intensity)
        if self.neutral_eis == "metric" and self.esc(label) == seqm.NEUTRAL:
            return seqm.NEUTRAL_EIS
        return own


@dataclass(frozen=True, slots=True)
class Utterance:
    """One clip, as a prep script finds it.

    - A clip is a whole audio file, or the segment from ``start`` to ``end`` (seconds) of a file that has the id
      ``recording``.
    - Its intensity is ``level``, one of the corpus' levels, or ``intensity``, a value on its scale.
    - ``text_id`` is the number of a text that many clips speak; ``extra`` holds further facts (age, valence).
    - ``source`` is where its labels stand, for messages.

    Stage 1 holds all utterances of a corpus in memory, so values that repeat are interned.
    """

    id: str
    audio: PathLike  # a str where a corpus has very many clips: a Path takes some hundred bytes more
    speaker: str
    gender: str | None = None
    text: str = ""
    label: str | None = None
    level: str | None = None
    intensity: float | None = None
    split: str | None = None
    text_id: str | None = None
    session: str | None = None
    start: float = 0.0
    end: float | None = None
    recording: str = ""
    extra: Mapping[str, Any] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        for name in INTERNED_FIELDS:
            value = getattr(self, name)
            if type(value) is str:
                object.__setattr__(self, name, sys.intern(value))

    @property
    def recording_id(self) -> str:
        """The id of the audio file: ``recording``, or the clip's own id where it is the whole file."""
        return self.recording or self.id

    @property
    def where(self) -> str:
        """Where a message sends the reader: ``source``, or the audio file."""
        return self.source or str(self.audio)


# find(corpus_dir, partial, drops) yields the utterances of a corpus and adds what it leaves out to ``drops``.
FindUtterances = Callable[[Path, bool, Drops], Iterable[Utterance]]
