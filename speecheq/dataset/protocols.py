"""Folds, dev parts and leak checks (section 3.1; what is a test clip, what is a training clip).

Every function works on ``Clip`` records, so that the rules can be read and tested without audio.
"""

import csv
import random
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from speecheq.common.errors import InputError

DEV_SHARE = 0.1
TEXT_FOLDS = 5


class Clip(NamedTuple):
    """What the protocols know of an utterance.

    ``label`` is its class, ``path`` its file without the suffix (where that is asked for), ``sound`` a number that two
    names of the same audio have in common (0: unknown).
    """

    id: str
    speaker: str
    label: str
    text_id: str | None = None
    split: str | None = None
    corpus: str = ""
    session: str | None = None
    path: str = ""
    sound: int = 0


Folds = list[set[str]]


def _dealt(groups: dict[Hashable, list[str]], parts: int, random_source: random.Random) -> Folds:
    """Deal shuffled groups out in turn, so that parts are equally large and groups spread evenly."""
    folds: Folds = [set() for _ in range(parts)]
    turn = 0
    for key in sorted(groups, key=str):
        members = sorted(groups[key])
        random_source.shuffle(members)
        for member in members:
            folds[turn % parts].add(member)
            turn += 1
    return folds


def random_folds(number: int) -> Callable[..., Folds]:
    """``number`` random folds, stratified by label and speaker: the paper's protocol, 10 for CASIA, 5 for IEMOCAP.

    Speakers and texts of the test fold are in training; report ``speaker`` or ``session`` beside it.
    """

    def folds(clips: Sequence[Clip], seed: int = 0) -> Folds:
        groups = defaultdict(list)
        for clip in clips:
            groups[clip.label, clip.speaker].append(clip.id)
        return _dealt(groups, number, random.Random(f"random{number} {seed}"))

    return folds


def leave_one_speaker_out(clips: Sequence[Clip], seed: int = 0) -> Folds:
    """One fold a speaker, in the order of their names."""
    speakers = sorted({clip.speaker for clip in clips})
    return [{clip.id for clip in clips if clip.speaker == speaker} for speaker in speakers]


def leave_one_session_out(clips: Sequence[Clip], seed: int = 0) -> Folds:
    """One fold a recording session, in the order of their names; InputError where the corpus has none."""
    without = next((clip.id for clip in clips if clip.session is None), None)
    if without is not None:
        raise InputError(f"{without}: the corpus has no sessions, so the protocol 'session' is not to be had.")
    sessions = sorted({clip.session for clip in clips})
    return [{clip.id for clip in clips if clip.session == session} for session in sessions]


def disjoint_texts(clips: Sequence[Clip], seed: int = 0) -> Folds:
    """Five folds, no text in two of them. InputError where clips have no text number or texts are too few."""
    groups = defaultdict(list)
    for clip in clips:
        if clip.text_id is None:
            raise InputError(
                f"{clip.id}: the corpus does not number its texts, so the protocol 'text' is not to be had."
            )
        groups[clip.text_id].append(clip.id)
    if len(groups) < TEXT_FOLDS:
        raise InputError(f"the protocol 'text' needs at least {TEXT_FOLDS} texts, the corpus has {len(groups)}.")
    folds_of_texts = _dealt({"texts": list(groups)}, TEXT_FOLDS, random.Random(f"text {seed}"))
    return [{name for text in texts for name in groups[text]} for texts in folds_of_texts]


def official(clips: Sequence[Clip], seed: int = 0) -> Folds:
    """The corpus' own fixed test part as the only fold. InputError where it has none."""
    test = {clip.id for clip in clips if clip.split == "test"}
    if not test:
        raise InputError("the corpus has no official test part, so the protocol 'official' is not to be had.")
    return [test]


def all_clips(clips: Sequence[Clip], seed: int = 0) -> Folds:
    """Cross-corpus: the whole target is the only test fold; training is left to the other corpora."""
    return [{clip.id for clip in clips}]


CROSS = "cross"
PROTOCOLS: dict[str, Callable[..., Folds]] = {
    "random10": random_folds(10),
    "random5": random_folds(5),
    "speaker": leave_one_speaker_out,
    "session": leave_one_session_out,
    "text": disjoint_texts,
    "official": official,
    CROSS: all_clips,
}
# These deal single clips out at random, so that a fixed test part of the corpus would be trained on.
RANDOM_PROTOCOLS = ("random10", "random5")
# What must not be shared between training and test besides the clips.
MUST_DIFFER: dict[str, Sequence[str]] = {
    "speaker": ("speaker",),
    "session": ("session", "speaker"),
    "text": ("text_id",),
}


def make_folds(protocol: str, clips: Sequence[Clip], seed: int = 0) -> Folds:
    """The test clips of every fold; InputError for an unknown protocol or a fold without a clip."""
    if protocol not in PROTOCOLS:
        raise InputError(
            f"there is no protocol {protocol!r}; the protocols are {', '.join(PROTOCOLS)}, or any other name with "
            "--folds-file FILE."
        )
    return checked_folds(protocol, clips, PROTOCOLS[protocol](clips, seed))


def checked_folds(protocol: str, clips: Sequence[Clip], folds: Folds) -> Folds:
    """``folds``; InputError where one of them has nothing to test on or leaves nothing to train on."""
    everything = {clip.id for clip in clips}
    for number, test in enumerate(folds, 1):
        if not test or (test == everything and protocol != CROSS):
            what = "test" if not test else "training"
            raise InputError(f"fold {number} of the protocol {protocol!r} has no {what} clip: the corpus is too small.")
    return folds


def read_folds_file(path: Path) -> list[tuple[str, str, int]]:
    """(``<path>, line <n>``, clip, its test fold) of a table of published folds, tab or comma separated.

    Its first line names the columns, ``clip`` and ``test_fold`` among them; folds count from 1 without a gap.
    InputError names the first line that is wrong.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such file of folds.")
    found: list[tuple[str, str, int]] = []
    seen: dict[str, str] = {}
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8; convert the file, for instance with iconv.") from error
    heading, _, _ = text.partition("\n")
    try:
        # strict: a quote that never closes would swallow all lines after it
        rows = csv.reader(text.removesuffix("\n").split("\n"), delimiter="\t" if "\t" in heading else ",", strict=True)
        columns = next(rows, [])
        if not {"clip", "test_fold"} <= set(columns):
            raise InputError(
                f"{path}, line 1: expected the columns clip and test_fold, found {' '.join(columns) or 'none'}."
            )
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if not "".join(row).strip():
                continue
            if len(row) != len(columns):
                raise InputError(f"{where}: expected {len(columns)} columns, found {len(row)}.")
            values = dict(zip(columns, row))
            clip, fold = values["clip"].strip(), values["test_fold"].strip()
            if not clip or not re.fullmatch(r"[1-9][0-9]{0,5}", fold):
                raise InputError(f"{where}: expected a clip and a fold number from 1, found {clip!r} and {fold!r}.")
            first = seen.setdefault(clip.casefold(), where)
            if first != where:
                raise InputError(f"{where}: the clip {clip} occurs a second time, first in {first}.")
            found.append((where, clip, int(fold)))
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num}: cannot be read as a table ({error}).") from error
    folds = {fold for _, _, fold in found}
    gap = next((number for number in range(1, max(folds, default=1) + 1) if number not in folds), None)
    if gap is not None:
        raise InputError(f"{path}: no clip has the test fold {gap}; folds count from 1 without a gap.")
    return found


class PublishedFolds(NamedTuple):
    """What a list of folds says of a corpus: its folds, the ids of clips that it does not name, and how many of its
    lines name clips that are not there."""

    folds: Folds
    unnamed: list[str]
    absent: int


def folds_from_file(path: Path, clips: Sequence[Clip], may_lack_clips: bool) -> PublishedFolds:
    """The folds of a published partition.

    A line names a clip by its id, or by its file's path without the suffix, as much of its end as the list gives
    (``liuchanhg/angry/201``), whatever its capitals (they differ from copy to copy). InputError for a line that names
    a clip that another line names, or none; a copy that ``may_lack_clips`` must have some of them.
    """
    rows = read_folds_file(path)
    places = {clip.casefold(): number for number, (_, clip, _) in enumerate(rows)}
    longest = max((name.count("/") for name in places), default=0) + 1
    taken: dict[int, str] = {}
    folds: Folds = [set() for _ in range(max((fold for _, _, fold in rows), default=0))]
    unnamed: list[str] = []
    for clip in clips:
        parts = clip.path.casefold().split("/")
        names = [clip.id.casefold(), *("/".join(parts[-length:]) for length in range(longest, 0, -1))]
        place = next((places[name] for name in names if name in places), None)
        if place is None:
            unnamed.append(clip.id)
            continue
        where, name, fold = rows[place]
        if place in taken:
            raise InputError(f"{where}: {name} names two clips, {taken[place]} and {clip.id}; give more of the path.")
        taken[place] = clip.id
        folds[fold - 1].add(clip.id)
    absent = [place for place in range(len(rows)) if place not in taken]
    if absent and (not may_lack_clips or len(absent) == len(rows)):
        where, name, _ = rows[absent[0]]
        raise InputError(
            f"{where}: names the clip {name}, which the corpus does not have ({len(absent)} such lines); complete the "
            "copy, or take the list that belongs to it."
        )
    return PublishedFolds(folds, unnamed, len(absent))


def dev_part(training: Sequence[Clip], how: str = "clips", seed: int = 0) -> set[str]:
    """The ids of the dev part inside the training clips of a fold.

    ``clips``: 10 %, stratified by label and speaker, at least one clip a label. ``speaker``: all clips of one
    speaker (InputError where fewer than three speakers are left to train).
    """
    source = random.Random(f"dev {how} {seed}")
    if how == "speaker":
        speakers = sorted({clip.speaker for clip in training})
        if len(speakers) < 4:
            raise InputError(
                f"a dev speaker needs at least 4 training speakers, there are {len(speakers)}; use --dev clips."
            )
        chosen = source.choice(speakers)
        return {clip.id for clip in training if clip.speaker == chosen}
    if how != "clips":
        raise InputError(f"--dev {how!r} is neither 'clips' nor 'speaker'.")
    by_label = defaultdict(lambda: defaultdict(list))
    for clip in training:
        by_label[clip.label][clip.speaker].append(clip.id)
    dev: set[str] = set()
    for label in sorted(by_label):
        speakers = by_label[label]
        for name in sorted(speakers):
            speakers[name].sort()
            source.shuffle(speakers[name])
        # one clip of each speaker in turn, in an order drawn anew for each label
        order = sorted(speakers)
        source.shuffle(order)
        rounds = [
            speakers[name][turn]
            for turn in range(max(map(len, speakers.values())))
            for name in order
            if turn < len(speakers[name])
        ]
        if len(rounds) > 1:
            dev.update(rounds[: max(1, round(DEV_SHARE * len(rounds)))])
    return dev


def check_leaks(protocol: str, training: Iterable[Clip], dev: Iterable[Clip], test: Iterable[Clip]) -> None:
    """InputError if a test clip - or, where the protocol keeps them apart, a test speaker or text - is trained on.

    Dev clips choose the checkpoint, so they count as training here; and no dev clip may be trained on. Speakers
    and texts are those of one corpus: another corpus may number its own the same way.
    """

    def values(clips: list[Clip], field: str) -> set[tuple[str, str]]:
        return {(clip.corpus, getattr(clip, field)) for clip in clips if getattr(clip, field) is not None}

    training, dev, test = list(training), list(dev), list(test)
    for name, used in (("training", training), ("the dev part", dev)):
        for field in ("id", *MUST_DIFFER.get(protocol, ())):
            shared = values(used, field) & values(test, field)
            if shared:
                what = {"id": "clip", "text_id": "text"}.get(field, field)
                raise InputError(
                    f"leak: {len(shared)} test {what}(s) are in {name} under the protocol {protocol!r} "
                    f"({min(shared)[1]} for one)."
                )
        sounds = {clip.sound: clip for clip in used if clip.sound}
        heard = next((clip for clip in test if clip.sound in sounds and sounds[clip.sound].id != clip.id), None)
        if heard is not None:
            other = sounds[heard.sound]
            raise InputError(
                f"leak: the test clip {heard.id} of {heard.corpus} is the audio of {other.id} of {other.corpus} in "
                f"{name}; leave one of the two out."
            )
    shared = values(training, "id") & values(dev, "id")
    if shared:
        raise InputError(f"leak: {len(shared)} dev clip(s) are in training ({min(shared)[1]} for one).")
