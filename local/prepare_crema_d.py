#!/usr/bin/env python3
"""CREMA-D: six acted emotions in English, 91 actors, 12 sentences, three intensities of one of them.

``1001_IEO_ANG_HI.wav`` is actor 1001, sentence IEO, anger at high intensity; XX leaves the intensity open.

With ``--part votes`` each clip also has ``votes``, the number of listeners who heard each emotion in its sound alone:
the lines of ``processedResults/tabulatedVotes.csv`` whose first column is 100000 + the number of a clip (200000 is the
face alone, 300000 both). Its label stays the emotion that was acted.
"""

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
    iter_clips,
    log,
    read_csv,
    read_lines,
    run_parts,
)

CREMA_D = Corpus(
    name="crema_d",
    title="CREMA-D",
    language="English",
    layout="DIR/{AudioWAV/<actor>_<sentence>_<emotion>_<level>.wav,VideoDemographics.csv}",
    labels={"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "joy", "NEU": "neutral", "SAD": "sadness"},
    levels=("LO", "MD", "HI"),
    counts={"the 7442 clips less the silent one": 7441},
    count_by={"label": {"ANG": 1271, "DIS": 1271, "FEA": 1271, "HAP": 1271, "NEU": 1087, "SAD": 1270}},
)
# the same with the votes of listeners
CREMA_D_VOTES = replace(CREMA_D, layout=CREMA_D.layout.replace("}", ",processedResults/tabulatedVotes.csv}"))
VOTES = Path("processedResults/tabulatedVotes.csv")
VOICE_ALONE = re.compile(r"1[0-9]{5}", re.ASCII)
LETTERS = {"A": "anger", "D": "disgust", "F": "fear", "H": "joy", "N": "neutral", "S": "sadness"}
ACTORS = [str(number) for number in range(1001, 1092)]
SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
UNSPECIFIED = ("XX", "X")  # early clones name one clip 1040_ITH_SAD_X
NAME = re.compile(r"([0-9]{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})")
SILENT = "1076_MTI_SAD_XX"
DEMOGRAPHICS = "VideoDemographics.csv"
COLUMNS = ["ActorID", "Age", "Sex"]  # and Race, Ethnicity, which nothing here uses
GENDERS = {"Female": "F", "Male": "M"}
LFS_POINTER = b"version https://git-lfs"


def read_demographics(path: Path) -> dict[str, tuple[str, int]]:
    """Actor -> (F or M, age in years); raises InputError, which names the first line that is wrong."""

    def fields(line: str):
        return [value.strip().strip('"') for value in line.split(",")]

    lines = read_lines(path)
    _, heading = next(lines, ("", ""))
    if fields(heading)[:3] != COLUMNS:
        raise InputError(f"{path}, line 1: expected the columns {', '.join(COLUMNS)} first, separated by commas.")
    actors: dict[str, tuple[str, int]] = {}
    for where, line in lines:
        row = fields(line)
        if len(row) != len(fields(heading)):
            raise InputError(f"{where}: expected {len(fields(heading))} columns, as in line 1, found {len(row)}.")
        actor, age, sex = row[:3]
        if actor not in ACTORS:
            raise InputError(f"{where}: {actor!r} is not an actor of CREMA-D (1001 to 1091).")
        if actor in actors:
            raise InputError(f"{where}: the actor {actor} occurs a second time.")
        if not re.fullmatch(r"[0-9]{1,3}", age) or sex not in GENDERS:
            raise InputError(f"{where}: expected an age in years and Female or Male, found {age!r} and {sex!r}.")
        actors[actor] = (GENDERS[sex], int(age))
    return actors


def parse_name(clip: Path) -> tuple[str, str, str, str]:
    """The actor, sentence, emotion and level of a clip; raises InputError for a name that is no clip's of CREMA-D."""
    name = NAME.fullmatch(clip.stem)
    if not name:
        raise InputError(f"{clip}: is not named like 1001_IEO_ANG_HI (actor, sentence, emotion, level); remove it.")
    levels = (*CREMA_D.levels, *UNSPECIFIED)
    parts = (("actor", ACTORS), ("sentence", SENTENCES), ("emotion", list(CREMA_D.labels)), ("level", levels))
    for (what, codes), code in zip(parts, name.groups()):
        if code not in codes:
            known = ", ".join(codes) if what != "actor" else "1001 to 1091"
            raise InputError(f"{clip}: the {what} {code} is not one of {known}; rename or remove the file.")
    return name.groups()


def check_audio_is_there(clips) -> None:
    """Raise InputError if git-LFS left pointers, small texts, in place of the audio."""
    pointers = []
    for clip in clips:
        if clip.is_file() and clip.stat().st_size < 1024:
            with open(clip, "rb") as stream:
                if stream.read(len(LFS_POINTER)) == LFS_POINTER:
                    pointers.append(clip)
    if pointers:
        raise InputError(
            f"{pointers[0]}: is a git-LFS pointer, not audio, as are {len(pointers)} of {len(clips)} clips; install "
            "git-lfs and run 'git lfs pull' in the clone."
        )


def find_utterances(corpus_dir: Path, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """The clips of AudioWAV but for the silent one; a partial copy may lack the demographics."""
    root = find_root(corpus_dir, lambda path: (path / "AudioWAV").is_dir(), CREMA_D)
    clips = list(iter_clips(root / "AudioWAV"))
    check_audio_is_there(clips)
    table = root / DEMOGRAPHICS
    known = table.is_file() or not partial
    actors = read_demographics(table) if known else {}
    if not known:
        log.warning("CREMA-D: %s is missing, so no gender and no age is known", table)
    for clip in clips:
        actor, sentence, emotion, level = parse_name(clip)
        if clip.stem == SILENT:
            drops.add("silent in the release", clip.stem)
            continue
        if known and actor not in actors:
            raise InputError(f"{table}: has no line for the actor {actor} of {clip}; copy it from the corpus again.")
        gender, age = actors.get(actor, (None, None))
        yield Utterance(
            id=f"crema_d-{clip.stem}",
            audio=clip,
            speaker=actor,
            gender=gender,
            label=emotion,
            level=None if level in UNSPECIFIED else level,
            text_id=sentence,
            extra={} if age is None else {"age": age},
        )


def read_votes(path: Path) -> dict[str, dict[str, int]]:
    """Clip -> SEQM category -> listeners who heard it in the sound alone; InputError for a line that is wrong."""
    votes: dict[str, dict[str, int]] = {}
    for where, row in read_csv(path, ("", *LETTERS, "fileName")):
        if not VOICE_ALONE.fullmatch(row[""]):
            continue
        if row["fileName"] in votes:
            raise InputError(f"{where}: the clip {row['fileName']} occurs a second time.")
        wrong = next((row[letter] for letter in LETTERS if not re.fullmatch("[0-9]{1,6}", row[letter], re.ASCII)), None)
        if wrong is not None:
            raise InputError(f"{where}: expected numbers of votes, found {wrong!r}.")
        counts = {category: int(row[letter]) for letter, category in LETTERS.items()}
        votes[row["fileName"]] = {category: count for category, count in counts.items() if count}
    return votes


def find_with_votes(corpus_dir: Path, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """The clips of ``find_utterances`` with the votes of their listeners; those without any are counted in the log."""
    without = []
    utterances = list(find_utterances(corpus_dir, partial, drops))
    votes = read_votes(corpus_dir / VOTES)
    for utterance in utterances:
        clip = Path(utterance.audio).stem
        if not votes.get(clip):
            without.append(clip)
            yield utterance
        else:
            yield replace(utterance, extra={**(utterance.extra or {}), "votes": votes[clip]})
    if len(without) == len(utterances):
        raise InputError(f"{corpus_dir / VOTES}: has no votes for any clip; copy it from the corpus again.")
    if without:
        log.warning(
            "CREMA-D: %d clips have no votes, so their acted emotion counts (%s for one)", len(without), without[0]
        )


PARTS = {"": (CREMA_D, find_utterances), "votes": (CREMA_D_VOTES, find_with_votes)}

if __name__ == "__main__":
    run_parts(PARTS)
