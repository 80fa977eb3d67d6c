"""Mini version of IEMOCAP: five sessions of two speakers, with what is odd in its evaluation files."""

import random
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from speecheq.corpora.synthetic.plan import Plan, Speaker, SyntheticClip, cast, emotional_prosody, scale_at
from speecheq.corpora.synthetic.sentences import english_sentences
from speecheq.seqm import NEUTRAL, eis_from_scale

SCALE = (1.0, 5.0)
SESSIONS = ("1", "2", "3", "4", "5")


class Label(NamedTuple):
    """A label: its SEQM category, the annotators' word for it, its valence and activation, its possible dominances."""

    category: str
    word: str
    valence: float
    activation: float
    dominances: tuple[float, ...]


EMOTIONAL = (2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)
LABELS: dict[str, Label] = {
    "ang": Label("anger", "Anger", 2.0, 4.0, EMOTIONAL),
    "hap": Label("joy", "Happiness", 4.0, 3.5, EMOTIONAL),
    "exc": Label("joy", "Excited", 4.5, 4.0, EMOTIONAL),
    "neu": Label(NEUTRAL, "Neutral", 3.0, 2.5, (2.0, 2.5, 3.0)),
    "sad": Label("sadness", "Sadness", 2.0, 2.0, EMOTIONAL),
    "fru": Label("anger", "Frustration", 2.0, 3.0, (2.5,)),
    "xxx": Label(NEUTRAL, "Other", 2.5, 2.5, (2.5,)),  # the annotators did not agree
}
# The labels of a speaker's clips, besides one clip outside the four classes. In nano one of the two speakers of a
# session is happy, the other excited.
SPOKEN_LABELS: dict[str, dict[str, list[str]]] = {
    "mini": dict.fromkeys("FM", ["ang", "hap", "neu", "sad"] * 2 + ["ang", "exc", "neu", "sad"] * 3),
    "nano": {"F": ["ang", "hap", "neu", "sad"], "M": ["sad", "neu", "exc", "ang"]},
}
OUTSIDE = {"F": "xxx", "M": "fru"}
# Both speakers talk in every dialog, whatever letter its name has.
DIALOGS = ("Ses0{session}F_impro01", "Ses0{session}M_script01_1")
TURN_SECONDS = 3.0


class Turn(NamedTuple):
    """An utterance and what its evaluation says; no dominance where it is missing."""

    name: str
    dialog: str
    label: str
    dominance: float | None
    text: str
    start: float  # in the dialog, in seconds

    @property
    def end(self) -> float:
        return self.start + 0.7 * TURN_SECONDS

    @property
    def values(self) -> tuple[float, ...]:
        """Valence, activation and dominance, where it is there."""
        known = LABELS[self.label].valence, LABELS[self.label].activation
        return known if self.dominance is None else (*known, self.dominance)


def plan_iemocap(size: str, rng: random.Random) -> Plan:
    """``Session<n>/sentences/wav/<dialog>/``, ``Session<n>/dialog/{EmoEvaluation,transcriptions}/<dialog>.txt``.

    In the first session one neutral clip has a dominance of 0.5 and one sad clip has none, an utterance without a
    time is in a transcription, and there are files that are not evaluations of dialogs.
    """
    clips, files, texts = [], {}, english_sentences(rng)
    labels: Counter = Counter()
    speakers = cast({f"Ses0{session}_{sex}": sex for session in SESSIONS for sex in "FM"})
    for session in SESSIONS:
        turns: list[Turn] = []
        for speaker in (speaker for speaker in speakers if speaker.name == f"Ses0{session}_{speaker.gender}"):
            for turn in _turns(session, speaker, size, texts, rng):
                # a clip without a dominance is spoken in the middle of the scale
                eis = eis_from_scale(min(max(turn.dominance or 3.0, SCALE[0]), SCALE[1]), *SCALE)
                prosody = emotional_prosody(LABELS[turn.label].category, scale_at(eis), rng)
                path = f"Session{session}/sentences/wav/{turn.dialog}/{turn.name}.wav"
                clips.append(SyntheticClip(path, turn.text, speaker, prosody, "en-us"))
                turns.append(turn)
                labels[turn.label] += 1
        for dialog in sorted({turn.dialog for turn in turns}):
            dialog_turns = sorted((turn for turn in turns if turn.dialog == dialog), key=lambda turn: turn.start)
            folder = f"Session{session}/dialog"
            files[f"{folder}/EmoEvaluation/{dialog}.txt"] = _evaluation(dialog_turns).encode()
            files[f"{folder}/transcriptions/{dialog}.txt"] = _transcription(dialog_turns).encode()
    first = DIALOGS[0].format(session=SESSIONS[0])
    files[f"Session1/dialog/EmoEvaluation/._{first}.txt"] = b"\x00\x05\x16\x07Mac OS X\x00"
    files[f"Session1/dialog/EmoEvaluation/Categorical/{first}_e2_cat.txt"] = f"{first}_F000 :Anger; ()\n".encode()
    files[f"Session1/dialog/transcriptions/{first}.txt"] += b"M: [LAUGHTER]\n"
    return Plan(clips, files, {"speakers": len(speakers), **labels})


def _turns(session: str, speaker: Speaker, size: str, texts: Iterator[str], rng: random.Random) -> list[Turn]:
    """The turns of ``speaker`` in the dialogs of ``session``, which alternate."""
    turns: list[Turn] = []
    labels = SPOKEN_LABELS[size][speaker.gender] + [OUTSIDE[speaker.gender]]
    for place, label in enumerate(labels):
        dominance: float | None = rng.choice(LABELS[label].dominances)
        if (session, speaker.gender, place) == ("1", "F", labels.index("neu")):
            dominance = 0.5
        if (session, speaker.gender, place) == ("1", "M", labels.index("sad")):
            dominance = None
        # shifted after every four, or a label would always lie in the same dialog
        dialog = DIALOGS[(place + place // 4) % len(DIALOGS)].format(session=session)
        number = sum(turn.dialog == dialog for turn in turns)
        start = TURN_SECONDS * (2 * number + "FM".index(speaker.gender)) + 1.5
        turns.append(Turn(f"{dialog}_{speaker.gender}{number:03d}", dialog, label, dominance, next(texts), start))
    return turns


def _evaluation(turns: list[Turn]) -> str:
    """The file of a dialog: a line for every turn, and below it two annotators' words and numbers."""
    written = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
    for turn in turns:
        values = ", ".join(f"{value:.4f}" for value in turn.values)
        rounded = "; ".join(f"{name} {max(1, round(value))}" for name, value in zip(("val", "act", "dom"), turn.values))
        written += f"[{turn.start:.4f} - {turn.end:.4f}]\t{turn.name}\t{turn.label}\t[{values}]\n"
        written += f"C-E2:\t{LABELS[turn.label].word};\t()\nC-E4:\tNeutral;\t(calm, a little tired)\n"
        written += f"A-E3:\t{rounded};\t()\n\n"
    return written


def _transcription(turns: list[Turn]) -> str:
    return "".join(f"{turn.name} [{turn.start:08.4f}-{turn.end:08.4f}]: {turn.text}.\n" for turn in turns)
