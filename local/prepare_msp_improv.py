#!/usr/bin/env python3
"""MSP-IMPROV: improvised and read dialogs of twelve actors in six sessions, four emotions.

``Evaluation.txt`` (spelt ``Evalution.txt`` in some copies) judges every turn, one a line,

    UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:3.20; V:2.80; D:2.90 ; N:3.30;

with its label (A angry, H happy, N neutral, S sad, O other, X no agreement) and its activation, valence, dominance
and naturalness from 1 to 5, NaN where nobody judged; the lines below it are those of single annotators. Its audio
is ``MSP-IMPROV-S01A-F01-P-FM01.wav``, somewhere below the corpus (``[Audio/]session1/S01A/P/`` in the release).

What this script relies on, from the naming of the files and from what is published of it: S01A is the scenario
around the target sentence 01 with the intended emotion A; F01 is the speaker, a woman of session 1; P (natural
interaction), R (target sentence read), S (other improvised turns) or T (target sentence improvised) is the
condition. Activation is left out, as its scale is reported to run from active (1) to calm (5), unlike IEMOCAP's.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from speecheq.corpora import (
    Corpus,
    Drops,
    InputError,
    Utterance,
    find_root,
    index_clips,
    keep_matched,
    log,
    read_lines,
    run,
)

MSP_IMPROV = Corpus(
    name="msp_improv",
    title="MSP-IMPROV",
    language="English",
    layout="DIR/{Evaluation.txt,**/MSP-IMPROV-<scenario>-<speaker>-<condition>-<turn>.wav}",
    labels={"angry": "anger", "happy": "joy", "neutral": "neutral", "sad": "sadness"},
    scale=(1.0, 5.0),  # dominance, from weak to strong
    counts={"four classes": 7798},  # of 8438 turns; 85 are O and 555 X
    count_by={"label": {"angry": 792, "happy": 2644, "neutral": 3477, "sad": 885}},
)
LABELS = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad", "O": "other emotion", "X": "no agreement"}
TABLES = ("Evaluation.txt", "Evalution.txt")
NAME = re.compile(r"(S([0-9]{2})[AHNS])-(([FM])0([1-6]))-([PRST])-[FM]{2}[0-9]{2,3}")
VALUE = r"\s*([0-9]+(?:\.[0-9]*)?|NaN)\s*;"
EVALUATION = re.compile(
    rf"UTD-IMPROV-(\S+)\.avi\s*;\s*(\w+)\s*;\s*A:{VALUE}\s*V:{VALUE}\s*D:{VALUE}(\s*N:{VALUE})?", re.IGNORECASE
)
ENCODINGS = ("utf-8", "latin-1")  # annotators' own words may be in either


def number_or_none(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def read_evaluations(table: Path) -> dict[str, Utterance]:
    """Turn (such as S01A-F01-P-FM01) -> utterance, of any label; raises InputError, which names a wrong line."""
    utterances: dict[str, Utterance] = {}
    for where, line in read_lines(table, ENCODINGS):
        if "IMPROV-" not in line:
            continue  # the line of one annotator
        fields = EVALUATION.fullmatch(line.strip())
        if not fields:
            raise InputError(
                f"{where}: expected 'UTD-IMPROV-<turn>.avi; <label>; A:<value>; V:<value>; D:<value>; N:<value>;', "
                f"found {line!r}."
            )
        turn, code, _, valence, dominance = fields.groups()[:5]
        name = NAME.fullmatch(turn)
        if not name:
            raise InputError(f"{where}: {turn!r} is not <scenario>-<speaker>-<condition>-<turn>, as S01A-F01-P-FM01.")
        if code not in LABELS:
            raise InputError(f"{where}: the label {code!r} is not one of {', '.join(LABELS)}.")
        if turn in utterances:
            raise InputError(f"{where}: the turn {turn} occurs a second time, first in {utterances[turn].source}.")
        scenario, sentence, speaker, gender, session, condition = name.groups()
        utterances[turn] = Utterance(
            id=f"msp_improv-{turn}",
            audio=table.parent / f"MSP-IMPROV-{turn}.wav",
            speaker=speaker,
            gender=gender,
            label=LABELS[code],
            intensity=number_or_none(dominance),
            text_id=sentence,
            session=session,
            extra={"scenario": scenario, "condition": condition, "valence": number_or_none(valence)},
            source=where,
        )
    if not utterances:
        raise InputError(f"{table}: holds no line that evaluates a turn; copy it from the corpus again.")
    return utterances


def find_utterances(corpus_dir: Path, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """The turns of the four emotions; those of other labels, or without an evaluation, are counted and kept out."""
    root = find_root(corpus_dir, lambda path: any((path / name).is_file() for name in TABLES), MSP_IMPROV)
    table = next(root / name for name in TABLES if (root / name).is_file())
    utterances = read_evaluations(table)
    clips = index_clips(root, "MSP-IMPROV-")
    without_dominance = 0
    for turn in sorted(keep_matched(list(clips), list(utterances), table, root, partial, drops, "evaluation")):
        utterance = utterances[turn]
        if utterance.label not in MSP_IMPROV.labels:
            drops.add(utterance.label, turn)
            continue
        without_dominance += utterance.intensity is None
        yield replace(utterance, audio=clips[turn])
    if without_dominance:
        log.warning("MSP-IMPROV: %d turns have no dominance: their EIS is unspecified", without_dominance)


if __name__ == "__main__":
    run(MSP_IMPROV, find_utterances)
