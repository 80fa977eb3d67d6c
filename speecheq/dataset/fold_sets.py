"""The sets of a fold of MsUD: training, dev, test, and the tests of other corpora."""

import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lhotse import MonoCut

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.common.progress import progress
from speecheq.common.stages import Drops
from speecheq.dataset.classes import ClassMap
from speecheq.dataset.msud_recipe import BEST_TEST, DEV, DROP_SHORT, IMPROVISED, SHORT_SECONDS, TEST, TRAINING, Recipe
from speecheq.dataset.protocols import (
    ALL,
    CROSS,
    RANDOM_PROTOCOLS,
    FoldClip,
    Folds,
    check_folds,
    check_leaks,
    dev_part,
    make_folds,
)
from speecheq.dataset.published_folds import EMOBOX, emobox_folds, folds_from_file

# By corpus: utterance -> the set that it goes to.
FoldSets = dict[str, dict[str, str]]


class Fold(NamedTuple):
    """The sets of a fold, the utterances that are in none, and the number of test speakers in training."""

    sets: FoldSets
    drops: Drops
    shared_speakers: int


def fold_clip(cut: MonoCut, label: str = "", with_path: bool = False) -> FoldClip:
    """The fields of a cut that the protocols need.

    Strings shared by many clips are stored once. The path, most of a clip's memory, is stored only ``with_path``, for
    published lists of folds.
    """
    supervision = cut.supervisions[0]
    custom = supervision.custom
    source = cut.recording.sources[0].source if cut.has_recording else supervision.id

    def shared(value: Any) -> Any:
        return None if value is None else sys.intern(str(value))

    return FoldClip(
        id=supervision.id,
        speaker=shared(supervision.speaker),
        label=shared(label or custom["esc"]),
        text_id=shared(custom.get("text_id")),
        split=shared(custom.get("split")),
        corpus=shared(custom["corpus"]),
        session=shared(custom.get("session")),
        path=os.path.splitext(source)[0] if with_path else "",
        audio=hash((source, cut.start)),
    )


def _may_train(clip: FoldClip) -> bool:
    """Whether a clip of another corpus than the target may be trained on: it is in no official dev or test part."""
    return clip.split is None or clip.split == "train"


class Partition:
    """The test clips of every fold of a recipe, and from them the sets of a fold.

    ``cards`` are those of the target and of the other corpora, ``cuts`` their cuts by corpus. ``drops`` are the
    utterances that are in no fold.
    """

    def __init__(self, recipe: Recipe, cards: Mapping[str, dict], cuts: Mapping[str, Iterable[MonoCut]]):
        self.recipe, self.cards = recipe, cards
        self.classes = ClassMap(recipe, cards[recipe.target])
        self.drops = Drops()
        self.clips: dict[str, dict[str, FoldClip]] = {}  # by corpus and id
        self.unused: list[FoldClip] = []  # of the target: a published list may name them, too
        for name in cards:
            self._read_clips(name, cuts[name])
        if recipe.protocol == CROSS:
            self._keep_common_classes()
        self.target_clips = self.clips[recipe.target]
        self.folds = self._make_folds()
        self.dev = self._dev_rule()

    def _read_clips(self, corpus: str, cuts: Iterable[MonoCut]) -> None:
        with_path = self.recipe.folds_file is not None
        clips = self.clips[corpus] = {}
        for cut in progress(cuts, f"{corpus}: labels", self.cards[corpus]["utterances"], "clips"):
            number, reason = self._class_or_reason(corpus, cut.supervisions[0].custom)
            if number is None:
                self.drops.add(reason, cut.id)
                if corpus == self.recipe.target and with_path:
                    self.unused.append(fold_clip(cut, "-", with_path))
                continue
            reason = self._why_not_published(cut) if corpus == self.recipe.target else ""
            if reason:
                self.drops.add(reason, cut.id)
                continue
            clip = fold_clip(cut, self.classes.table.names[number], with_path)
            owner = next((other for other in self.clips if other != corpus and clip.id in self.clips[other]), None)
            if owner is not None:
                raise InputError(f"the utterance {clip.id} is in {owner} and in {corpus}; rename it in one of them.")
            clips[clip.id] = clip

    def _class_or_reason(self, corpus: str, custom: Mapping[str, Any]) -> tuple[int | None, str]:
        """The class number of a clip, and why it is left out where that is None."""
        category = custom["esc"]
        if category is None:
            return None, f"{corpus} without an emotion label"
        used = self.recipe.used_categories(corpus)
        if used is not None and category not in used:
            return None, f"{category} of {corpus}, not in use"
        number = self.classes.class_number(custom)
        return number, f"{category} of {corpus}, which is no single class of {self.recipe.target}"

    def _why_not_published(self, cut: MonoCut) -> str:
        """Why a clip of the target is not in the protocol of a paper; "" if it is, or no paper's is asked for."""
        switches, supervision = self.recipe.as_published, cut.supervisions[0]
        if IMPROVISED in switches and "_impro" not in supervision.id:
            return f"{self.recipe.target}, not improvised (as published)"
        if DROP_SHORT in switches and supervision.duration <= SHORT_SECONDS:
            return f"{self.recipe.target}, of {SHORT_SECONDS:g} s or less (as published)"
        return ""

    def _keep_common_classes(self) -> None:
        """Cross-corpus: keep the classes that the target and the training clips of the others have in common."""
        target, others = self.recipe.target, self.recipe.others
        if not others:
            raise InputError(f"the protocol 'cross' trains on other corpora than {target}: give some.")
        target_labels = {clip.label for clip in self.clips[target].values()}
        other_labels = {clip.label for name in others for clip in self.clips[name].values() if _may_train(clip)}
        common = target_labels & other_labels
        if not common:
            raise InputError(
                f"cross-corpus: {target} ({', '.join(sorted(target_labels)) or 'no class'}) has no class in common "
                f"with {', '.join(others)} ({', '.join(sorted(other_labels)) or 'no class'})."
            )
        for name, clips in self.clips.items():
            lacking = "the other corpora lack" if name == target else f"{target} lacks"
            for clip in [clip for clip in clips.values() if clip.label not in common]:
                self.drops.add(f"{clip.label} of {name}, which {lacking}", clip.id)
                del clips[clip.id]

    def _make_folds(self) -> Folds:
        recipe, clips, card = self.recipe, self.target_clips, self.cards[self.recipe.target]
        if not clips:
            raise InputError(f"{recipe.target}: has no clip to test on; see --use and its labels.")
        if recipe.folds_file is None and recipe.protocol == EMOBOX:
            folds = emobox_folds(recipe.target, list(clips.values()), may_lack_clips=card["partial"])
            return check_folds(EMOBOX, list(clips.values()), folds)
        if recipe.folds_file is None:
            if card["test_split"] and recipe.protocol in RANDOM_PROTOCOLS:
                raise InputError(
                    f"{recipe.target}: has a fixed test part, which the protocol {recipe.protocol!r} would train on; "
                    "use 'official'."
                )
            return make_folds(recipe.protocol, list(clips.values()), recipe.seed)
        found = folds_from_file(recipe.folds_file, [*clips.values(), *self.unused], may_lack_clips=card["partial"])
        if found.absent:
            log.warning(
                "%s: %d lines name clips that are missing in this copy of %s",
                recipe.folds_file,
                found.absent,
                recipe.target,
            )
        for name in found.unnamed:
            if clips.pop(name, None) is not None:
                self.drops.add(f"{recipe.target} outside the list of folds", name)
        return check_folds(recipe.protocol, list(clips.values()), [fold & clips.keys() for fold in found.folds])

    def _dev_rule(self) -> str:
        """The kind of dev part that ``dev`` of the recipe means: clips, speaker or official; none under ALL."""
        recipe = self.recipe
        if recipe.protocol == ALL:
            return "none"
        has_official = any(clip.split == "dev" for clip in self.target_clips.values())
        if BEST_TEST in recipe.as_published:
            return TEST
        if recipe.dev == "auto":
            return "official" if has_official and recipe.protocol == "official" else "clips"
        if recipe.dev == "official" and (not has_official or recipe.protocol == CROSS):
            raise InputError(f"--dev official: {recipe.target} has no official dev part outside the test fold.")
        return recipe.dev

    def fold(self, number: int) -> "Fold":
        """The sets of fold ``number`` (from 1); raises InputError for a leak, or where no training clip is left."""
        drops = self.drops.copy()
        sets = {self.recipe.target: self._target_sets(self.folds[number - 1]), **self._other_sets(drops)}
        return Fold(sets, drops, self._check(sets))

    def _target_sets(self, test: set[str]) -> dict[str, str]:
        clips = self.target_clips
        if self.recipe.protocol == CROSS:
            return dict.fromkeys(clips, TEST)
        if self.recipe.protocol == ALL:
            return dict.fromkeys(clips, TRAINING)
        pool = [clip for name, clip in clips.items() if name not in test]
        if self.dev == TEST:  # the test clips are the dev part too, see msud.py
            dev = set()
        elif self.dev == "official":
            dev = {clip.id for clip in pool if clip.split == "dev"}
        else:
            dev = dev_part(pool, self.dev, self.recipe.seed)
        return {name: TEST if name in test else DEV if name in dev else TRAINING for name in clips}

    def _other_sets(self, drops: Drops) -> FoldSets:
        """The clips of the other corpora: training, test_<corpus>, or (cross-corpus) dev."""
        sets: FoldSets = {}
        for name in self.recipe.others:
            sets[name] = {}
            for clip in self.clips[name].values():
                if _may_train(clip):
                    sets[name][clip.id] = TRAINING
                elif clip.split == self.cards[name]["test_split"]:
                    sets[name][clip.id] = f"{TEST}_{name}"
                else:
                    drops.add(f"the {clip.split} part of {name}, not used", clip.id)
        # the target must stay unseen, so the dev part comes from the training corpora
        if self.recipe.protocol == CROSS:
            pool = [
                self.clips[name][clip_id]._replace(speaker=f"{name} {self.clips[name][clip_id].speaker}")
                for name, assigned in sets.items()
                for clip_id, part in assigned.items()
                if part == TRAINING
            ]
            for chosen in dev_part(pool, self.dev, self.recipe.seed):
                next(assigned for assigned in sets.values() if chosen in assigned)[chosen] = DEV
        return sets

    def _check(self, sets: FoldSets) -> int:
        """Check for leaks; returns the number of test speakers in training."""
        clips: dict[str, list[FoldClip]] = defaultdict(list)
        for corpus, assigned in sets.items():
            for name, part in assigned.items():
                clips[part].append(self.clips[corpus][name])
        if not clips[TRAINING]:
            raise InputError(f"{self.recipe.name}: no training clip is left; give other corpora, or see --use.")
        check_leaks(self.recipe.protocol, clips[TRAINING], clips[DEV], clips[TEST])
        for name in self.recipe.others:  # their parts are official: no clip is shared, but speakers may be
            check_leaks("official", clips[TRAINING], clips[DEV], clips[f"{TEST}_{name}"])
        test, training = ({(clip.corpus, clip.speaker) for clip in clips[part]} for part in (TEST, TRAINING))
        return len(test & training)
