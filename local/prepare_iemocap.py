#!/usr/bin/env python3
"""IEMOCAP: dialogs of ten actors, scripted and improvised, in five sessions; the target of Experiment 2.

``Session1/dialog/EmoEvaluation/Ses01F_impro01.txt`` judges the utterances of one dialog, one a line

    [6.2901 - 8.2357]<TAB>Ses01F_impro01_F000<TAB>neu<TAB>[2.5000, 2.5000, 2.5000]

with its times in the dialog, its name, its label, and its valence, activation and dominance from 1 to 5; the
lines below it are those of single annotators. Its audio is ``Session1/sentences/wav/<dialog>/<utterance>.wav``,
its words are a line of ``Session1/dialog/transcriptions/<dialog>.txt``.

The speaker is given by the last part of the name, F000 or M000: both actors talk in every dialog, whatever its
prefix (Ses01F or Ses01M).
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from speecheq.corpora import (
    Corpus,
    Drops,
    InputError,
    Utterance,
    find_root,
    iter_clips,
    iter_folders,
    keep_matched,
    log,
    read_lines,
    run,
)

IEMOCAP = Corpus(
    name="iemocap",
    title="IEMOCAP",
    language="English",
    layout="DIR/[IEMOCAP_full_release/]Session[1-5]/{dialog/{EmoEvaluation,transcriptions},sentences/wav}",
    labels={"ang": "anger", "hap": "joy", "exc": "joy", "neu": "neutral", "sad": "sadness"},
    scale=(1.0, 5.0),  # dominance
    counts={"four classes": 5531},
    count_by={
        "label": {"ang": 1103, "hap": 595, "exc": 1041, "neu": 1708, "sad": 1084},
        "session": {"1": 1085, "2": 1023, "3": 1151, "4": 1031, "5": 1241},
    },
    has_transcripts=True,
)
# the labels that are in none of the four classes
LEFT_OUT = {
    "fru": "frustration",
    "fea": "fear",
    "sur": "surprise",
    "dis": "disgust",
    "oth": "other emotion",
    "xxx": "no agreement",
}
NAME = re.compile(r"Ses0([1-5])[FM]_[A-Za-z0-9_]+_([FM])[0-9]{3}")
EVALUATION = re.compile(r"\[\s*([0-9]+(?:\.[0-9]+)?)?[^\]]*\]\s+(\S+)\s+(\S+)\s+\[([^\]]*)\]")
ANNOTATOR = re.compile(r"[AC]-\w+:")
NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?|nan|", re.IGNORECASE)
SPOKEN = re.compile(r"(Ses0\S+)\s+\[[^\]]*\]:(.*)")
WILD = 3.0  # an average of judges may leave the scale a little (0.5 occurs), never by more than a step
ENCODINGS = ("utf-8", "latin-1")  # annotators' own words may be in either


def read_values(text: str, where: str) -> list[float | None]:
    """Valence, activation and dominance, None for what is missing; raises InputError for what is not numbers."""
    parts = [part.strip() for part in text.split(",")]
    if not all(NUMBER.fullmatch(part) for part in parts):
        raise InputError(f"{where}: expected [valence, activation, dominance], found {text!r}; correct the line.")
    if len(parts) > 3:
        raise InputError(f"{where}: expected [valence, activation, dominance], found {len(parts)} values.")
    if len(parts) < 3:  # there is no telling which of them is missing
        return [None, None, None]
    values = [float(part or "nan") for part in parts]
    wild = next((value for value in values if abs(value - 3) > WILD), None)
    if wild is not None:
        raise InputError(f"{where}: {wild:g} is no value on a scale from 1 to 5; correct the line.")
    return [value if math.isfinite(value) else None for value in values]


def read_evaluations(path: Path, session: str, wav: Path) -> dict[str, Utterance]:
    """``<dialog>/<utterance>`` -> utterance, of any label; raises InputError, which names a line that is wrong."""
    utterances: dict[str, Utterance] = {}
    lowest, highest = IEMOCAP.scale
    for where, line in read_lines(path, ENCODINGS):
        fields = EVALUATION.fullmatch(line.strip())
        if not fields:
            if line.startswith("[") or (NAME.search(line) and not ANNOTATOR.match(line)):
                raise InputError(
                    f"{where}: expected '[start - end] utterance label [valence, activation, dominance]', "
                    f"found {line!r}."
                )
            continue  # the heading, or the line of one annotator
        begin, name, label = fields[1], fields[2], fields[3]
        parts = NAME.fullmatch(name)
        if not parts or parts[1] != session:
            raise InputError(f"{where}: {name!r} is not the name of an utterance of session {session}.")
        if label not in IEMOCAP.labels and label not in LEFT_OUT:
            known = ", ".join([*IEMOCAP.labels, *LEFT_OUT])
            raise InputError(f"{where}: the label {label!r} is not one of IEMOCAP's: {known}.")
        valence, activation, dominance = read_values(fields[4], where)
        clip = f"{path.stem}/{name}"
        if clip in utterances:
            raise InputError(f"{where}: the utterance {name} occurs a second time, first in {utterances[clip].source}.")
        utterances[clip] = Utterance(
            id=f"iemocap-{name}",
            audio=wav / f"{clip}.wav",
            speaker=f"Ses0{session}_{parts[2]}",
            gender=parts[2],
            label=label,
            intensity=None if dominance is None else min(max(dominance, lowest), highest),
            session=session,
            extra={
                "valence": valence,
                "activation": activation,
                "dominance": dominance,
                "dialogue": path.stem,
                "begin": float(begin or 0),
            },
            source=where,
        )
    if not utterances:
        raise InputError(f"{path}: holds no line that evaluates an utterance; copy it from the corpus again.")
    return utterances


def read_transcripts(path: Path, notes: Counter) -> dict[str, str]:
    """``<dialog>/<utterance>`` -> words, from ``<utterance> [<start>-<end>]: <words>``; other lines are noted."""
    texts: dict[str, str] = {}
    for _, line in read_lines(path, ENCODINGS):
        spoken = SPOKEN.fullmatch(line.strip())
        clip = f"{path.stem}/{spoken[1]}" if spoken else ""
        if spoken and clip not in texts:
            texts[clip] = spoken[2].strip()
        else:  # "M: ..." occurs
            notes["lines of the transcriptions name no utterance, or one a second time: skipped"] += 1
    return texts


def find_sessions(folder: Path) -> dict[str, Path]:
    """Session number -> folder, below ``folder`` or the release's own folder in it."""
    for root in (folder / "IEMOCAP_full_release", folder):
        found = {number: root / f"Session{number}" for number in IEMOCAP.count_by["session"]}
        found = {number: path for number, path in found.items() if (path / "dialog" / "EmoEvaluation").is_dir()}
        if found:
            return found
    return {}


def find_utterances(corpus_dir: Path, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """The clips of the four classes; those of other labels, or without an evaluation, are counted and kept out.

    A dominance outside 1 to 5 (0.5 occurs) counts as 1 or 5, one that is missing leaves the EIS unspecified.
    """
    root = find_root(corpus_dir, lambda path: bool(find_sessions(path)), IEMOCAP)
    sessions, notes = find_sessions(root), Counter()
    absent = " and ".join(f"Session{number}" for number in IEMOCAP.count_by["session"] if number not in sessions)
    if absent and not partial:
        raise InputError(f"{root}: lacks {absent}; unpack the missing part, or accept it with --partial true.")
    for session, folder in sessions.items():
        tables, texts, wav = folder / "dialog/EmoEvaluation", folder / "dialog/transcriptions", folder / "sentences/wav"
        if not wav.is_dir():
            raise InputError(f"{wav}: is missing from IEMOCAP; unpack the corpus again.")
        utterances: dict[str, Utterance] = {}
        words: dict[str, str] = {}
        for table in iter_clips(tables, ".txt"):
            utterances.update(read_evaluations(table, session, wav))
        for table in iter_clips(texts, ".txt") if texts.is_dir() else ():
            words.update(read_transcripts(table, notes))
        clips = {f"{dialog.name}/{clip.stem}": clip for dialog in iter_folders(wav) for clip in iter_clips(dialog)}
        for name in sorted(keep_matched(list(clips), list(utterances), tables, wav, partial, drops, "evaluation")):
            utterance = utterances[name]
            if utterance.label in LEFT_OUT:
                drops.add(f"{LEFT_OUT[utterance.label]} ({utterance.label})", utterance.id)
                continue
            if utterance.intensity is None:
                notes["utterances have no dominance: their EIS is unspecified"] += 1
            elif utterance.intensity != utterance.extra["dominance"]:
                notes["utterances have a dominance outside 1 to 5: it counts as 1 or 5"] += 1
            if not words.get(name):
                notes["utterances have no transcript: their text is empty"] += 1
            yield replace(utterance, audio=clips[name], text=words.get(name, ""))
    for what, count in notes.items():
        log.warning("IEMOCAP: %d %s", count, what)


if __name__ == "__main__":
    run(IEMOCAP, find_utterances)
