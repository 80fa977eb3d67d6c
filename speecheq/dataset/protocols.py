"""Folds, dev parts and leak checks (section 3.1). All functions work on ``FoldClip`` records, without audio."""

import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

from speecheq.common.errors import InputError

DEV_SHARE = 0.1
SPEAKER_FOLDS = TEXT_FOLDS = 5


class FoldClip(NamedTuple):
    """The fields of an utterance that the protocols use.

    ``label`` is its class, ``path`` its file without the suffix ("" if no list of folds needs it), ``audio`` a
    number that identifies the same audio under two names (0: unknown).
    """

    id: str
    speaker: str
    label: str
    text_id: str | None = None
    split: str | None = None
    corpus: str = ""
    session: str | None = None
    path: str = ""
    audio: int = 0


# The ids of the test clips of every fold.
Folds = list[set[str]]


def _round_robin(groups: Mapping[Hashable, list[str]], number: int, rng: random.Random) -> Folds:
    """``number`` folds, to which the shuffled groups give their members in turn: equal sizes, groups spread evenly."""
    folds: Folds = [set() for _ in range(number)]
    turn = 0
    for key in sorted(groups, key=str):
        members = sorted(groups[key])
        rng.shuffle(members)
        for member in members:
            folds[turn % number].add(member)
            turn += 1
    return folds


def random_folds(number: int) -> Callable[..., Folds]:
    """``number`` random folds, stratified by label and speaker: the paper's protocol, 10 for CASIA, 5 for IEMOCAP.

    Speakers and texts of the test fold are in training; report ``speaker`` or ``session`` beside it.
    """

    def folds(clips: Sequence[FoldClip], seed: int = 0) -> Folds:
        groups: dict[Hashable, list[str]] = defaultdict(list)
        for clip in clips:
            groups[clip.label, clip.speaker].append(clip.id)
        return _round_robin(groups, number, random.Random(f"random{number} {seed}"))

    return folds


def _one_fold_each(clips: Sequence[FoldClip], field: str) -> Folds:
    """One fold for each value of a field, in the order of the values."""
    folds: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        folds[getattr(clip, field)].add(clip.id)
    return [folds[value] for value in sorted(folds)]


def leave_one_speaker_out(clips: Sequence[FoldClip], seed: int = 0) -> Folds:
    """One fold a speaker, in the order of their names."""
    return _one_fold_each(clips, "speaker")


def speaker_folds(clips: Sequence[FoldClip], seed: int = 0) -> Folds:
    """Five folds, no speaker in two of them: each speaker joins the fold with the fewest clips so far.

    Speakers come in the order of their clips, most first. Raises InputError if there are fewer speakers than folds.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        names[clip.speaker].add(clip.id)
    if len(names) < SPEAKER_FOLDS:
        raise InputError(
            f"the protocol 'speaker{SPEAKER_FOLDS}' needs at least {SPEAKER_FOLDS} speakers, the corpus has "
            f"{len(names)}; use 'speaker'."
        )
    found: Folds = [set() for _ in range(SPEAKER_FOLDS)]
    for speaker in sorted(names, key=lambda speaker: (-len(names[speaker]), speaker)):
        min(found, key=len).update(names[speaker])
    return found


def leave_one_session_out(clips: Sequence[FoldClip], seed: int = 0) -> Folds:
    """One fold a recording session, in the order of their names; raises InputError if the corpus has none."""
    without = next((clip.id for clip in clips if clip.session is None), None)
    if without is not None:
        raise InputError(f"{without}: the corpus has no sessions, so the protocol 'session' cannot be used.")
    return _one_fold_each(clips, "session")


def disjoint_texts(clips: Sequence[FoldClip], seed: int = 0) -> Folds:
    """Five folds, no text in two of them. Raises InputError if clips have no text number or texts are too few."""
    groups = defaultdict(list)
    for clip in clips:
        if clip.text_id is None:
            raise InputError(f"{clip.id}: the corpus does not number its texts, so the protocol 'text' cannot be used.")
        groups[clip.text_id].append(clip.id)
    if len(groups) < TEXT_FOLDS:
        raise InputError(f"the protocol 'text' needs at least {TEXT_FOLDS} texts, the corpus has {len(groups)}.")
    folds = _round_robin({"texts": list(groups)}, TEXT_FOLDS, random.Random(f"text {seed}"))
    return [{name for text in texts for name in groups[text]} for texts in folds]


def official(clips: Sequence[FoldClip], seed: int = 0) -> Folds:
    """The corpus' own fixed test part as the only fold. Raises InputError if it has none."""
    test = {clip.id for clip in clips if clip.split == "test"}
    if not test:
        raise InputError("the corpus has no official test part, so the protocol 'official' cannot be used.")
    return [test]


def all_clips(clips: Sequence[FoldClip], seed: int = 0) -> Folds:
    """Cross-corpus: the entire target is the only test fold; the other corpora are for training."""
    return [{clip.id for clip in clips}]


def no_test(clips: Sequence[FoldClip], seed: int = 0) -> Folds:
    """One fold that tests no clip: all are trained on, for a model to be used, once another protocol has scored it."""
    return [set()]


CROSS, ALL = "cross", "all"
PROTOCOLS: dict[str, Callable[..., Folds]] = {
    "random10": random_folds(10),
    "random5": random_folds(5),
    "speaker": leave_one_speaker_out,
    "speaker5": speaker_folds,
    "session": leave_one_session_out,
    "text": disjoint_texts,
    "official": official,
    CROSS: all_clips,
    ALL: no_test,
}
# Protocols with random folds of clips, which would train on clips of a corpus' fixed test part.
RANDOM_PROTOCOLS = ("random10", "random5")
# The fields that training and test must not share, besides the clips.
MUST_DIFFER: dict[str, Sequence[str]] = {
    "speaker": ("speaker",),
    "speaker5": ("speaker",),
    "session": ("session", "speaker"),
    "text": ("text_id",),
}


def make_folds(protocol: str, clips: Sequence[FoldClip], seed: int = 0) -> Folds:
    """The test clips of every fold; raises InputError for an unknown protocol or a fold without a clip."""
    if protocol not in PROTOCOLS:
        raise InputError(
            f"there is no protocol {protocol!r}; the protocols are {', '.join(PROTOCOLS)}, or any other name with "
            "--folds-file FILE."
        )
    return check_folds(protocol, clips, PROTOCOLS[protocol](clips, seed))


def check_folds(protocol: str, clips: Sequence[FoldClip], folds: Folds) -> Folds:
    """Return ``folds``; raises InputError if one of them has no test clip or leaves no training clip."""
    everything = {clip.id for clip in clips}
    if protocol == ALL:
        return folds
    for number, test in enumerate(folds, 1):
        if not test or (test == everything and protocol != CROSS):
            what = "test" if not test else "training"
            raise InputError(f"fold {number} of the protocol {protocol!r} has no {what} clip: the corpus is too small.")
    return folds


def dev_part(training: Sequence[FoldClip], how: str = "clips", seed: int = 0) -> set[str]:
    """The ids of the dev part inside the training clips of a fold.

    ``clips``: 10 %, stratified by label and speaker, at least one clip a label. ``speaker``: all clips of one
    speaker (raises InputError if fewer than three speakers are left to train).
    """
    rng = random.Random(f"dev {how} {seed}")
    if how == "speaker":
        speakers = sorted({clip.speaker for clip in training})
        if len(speakers) < 4:
            raise InputError(
                f"a dev speaker needs at least 4 training speakers, there are {len(speakers)}; use --dev clips."
            )
        chosen = rng.choice(speakers)
        return {clip.id for clip in training if clip.speaker == chosen}
    if how != "clips":
        raise InputError(f"--dev {how!r} is neither 'clips' nor 'speaker'.")
    by_label: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for clip in training:
        by_label[clip.label][clip.speaker].append(clip.id)
    dev: set[str] = set()
    for _, by_speaker in sorted(by_label.items()):
        for _, names in sorted(by_speaker.items()):
            names.sort()
            rng.shuffle(names)
        # one clip of each speaker in turn, in another order of speakers for each label
        order = sorted(by_speaker)
        rng.shuffle(order)
        rounds = zip_longest(*(by_speaker[speaker] for speaker in order))
        names = [name for turn in rounds for name in turn if name is not None]
        if len(names) > 1:
            dev.update(names[: max(1, round(DEV_SHARE * len(names)))])
    return dev


def check_leaks(protocol: str, training: Iterable[FoldClip], dev: Iterable[FoldClip], test: Iterable[FoldClip]) -> None:
    """Raise InputError if a test clip, or a test speaker or text that the protocol keeps apart, is trained on.

    Dev clips choose the checkpoint, so they count as training here; and no dev clip may be trained on. Speakers
    and texts are those of one corpus: another corpus may number its own the same way.
    """

    def shared(some: Sequence[FoldClip], others: Sequence[FoldClip], field: str) -> list[str]:
        """The values of a field that both have, sorted by corpus and value."""
        one, other = (
            {(clip.corpus, getattr(clip, field)) for clip in clips if getattr(clip, field) is not None}
            for clips in (some, others)
        )
        return [value for _, value in sorted(one & other)]

    training, dev, test = list(training), list(dev), list(test)
    for name, used in (("training", training), ("the dev part", dev)):
        for field in ("id", *MUST_DIFFER.get(protocol, ())):
            leaked = shared(used, test, field)
            if leaked:
                what = {"id": "clip", "text_id": "text"}.get(field, field)
                raise InputError(
                    f"leak: {len(leaked)} test {what}(s) are in {name} under the protocol {protocol!r} "
                    f"({leaked[0]} for one)."
                )
        by_audio = {clip.audio: clip for clip in used if clip.audio}
        for clip in test:
            same = by_audio.get(clip.audio)
            if same is not None and same.id != clip.id:
                raise InputError(
                    f"leak: the test clip {clip.id} of {clip.corpus} is the audio of {same.id} of {same.corpus} in "
                    f"{name}; leave one of the two out."
                )
    leaked = shared(training, dev, "id")
    if leaked:
        raise InputError(f"leak: {len(leaked)} dev clip(s) are in training ({leaked[0]} for one).")
