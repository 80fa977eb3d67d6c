"""Mini version of MSP-IMPROV: sessions of two actors, ``Evaluation.txt`` and clips by scenario and condition."""

import random

from speecheq.corpora.synthetic.plan import Plan, SyntheticClip, cast, emotional_prosody, scale_at
from speecheq.corpora.synthetic.sentences import ENGLISH_LINES
from speecheq.seqm import NEUTRAL, eis_from_scale

SCALE = (1.0, 5.0)
CATEGORIES = {"A": "anger", "H": "joy", "N": NEUTRAL, "S": "sadness", "O": "surprise", "X": NEUTRAL}
WORDS = {"A": "Angry", "H": "Happy", "N": "Neutral", "S": "Sad", "O": "Other", "X": "Neutral"}
SESSIONS = {"mini": 6, "nano": 3}
# The labels of an actor's turns; the first actor has those of OUTSIDE too, which are in none of the four classes.
SPOKEN_LABELS: dict[str, list[str]] = {"mini": list("AHNS") * 4, "nano": list("AHNS") * 2}
OUTSIDE = ["O", "X"]
SENTENCES = 8
CONDITIONS = "PRST"
NEUTRAL_DOMINANCES = (2.0, 2.5, 3.0)
DOMINANCES = (2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)


def plan_msp_improv(size: str, rng: random.Random) -> Plan:
    """``session<n>/<scenario>/<condition>/MSP-IMPROV-<scenario>-<actor>-<condition>-<turn>.wav``.

    The scenario names the intended emotion, the label is that of the listeners. They differ in the first
    angry turn of every actor, which was meant to be neutral. One turn has no dominance (NaN).
    """
    clips, table = [], ""
    actors = cast({f"{sex}{number:02d}": sex for number in range(1, SESSIONS[size] + 1) for sex in "FM"}, first=2)
    for place, actor in enumerate(actors):
        session = int(actor.name[1:])
        for turn, label in enumerate(SPOKEN_LABELS[size] + (OUTSIDE if place == 0 else [])):
            number, condition = 1 + (session + turn) % SENTENCES, CONDITIONS[(place + turn // 4) % len(CONDITIONS)]
            intended = label if label in "HS" or (label == "A" and turn > 0) else "N"
            dominance = rng.choice(NEUTRAL_DOMINANCES if CATEGORIES[label] == NEUTRAL else DOMINANCES)
            name = f"S{number:02d}{intended}-{actor.name}-{condition}-{actor.gender}{actor.gender}{turn + 1:02d}"
            path = f"session{session}/S{number:02d}{intended}/{condition}/MSP-IMPROV-{name}.wav"
            prosody = emotional_prosody(CATEGORIES[label], scale_at(eis_from_scale(dominance, *SCALE)), rng)
            clips.append(SyntheticClip(path, ENGLISH_LINES[number], actor, prosody, "en-us"))
            unjudged = (place, turn) == (1, 0)
            written = "NaN" if unjudged else f"{dominance:.6f}"
            table += f"UTD-IMPROV-{name}.avi; {label}; A:3.000000; V:3.000000; D:{written} ; N:3.500000;\n"
            judged = f"{WORDS[label]}; {WORDS[label]},"
            table += f"WORKER{turn % 3 + 1}; {judged}; A:3.000; V:3.000; D:{written}; N:4.000;\n\n"
    return Plan(clips, {"Evaluation.txt": table.encode()}, {"speakers": len(actors)})
