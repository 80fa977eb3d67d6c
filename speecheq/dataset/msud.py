"""Many corpora to one Multi-scale Unified Dataset, MsUD (sections 2.1 and 3.1).

Stage 3 writes, for each fold of a target corpus,

    <out>/<name>/fold<k>/{emotion,gender,dev,test}.jsonl.gz   (and test_<corpus> of other corpora)
    <out>/<name>/fold<k>/msud.json                            what went where

where <name> is <target>.<protocol>, with a mark for switches that are not at their defaults. MsUD and the gender
set hold training clips only: the target's training folds without their dev part, and of every other corpus its
official training part, or all its clips if it has none. Each cut gets ``custom['class']``, the number of its
class. The cuts of a corpus are streamed; what is held of an utterance is its protocol.Clip.
"""

import hashlib
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lhotse import MonoCut
from lhotse.serialization import SequentialJsonlWriter

from speecheq import seqm
from speecheq.common.command_line import parse_numbers
from speecheq.common.digests import digest
from speecheq.common.errors import InputError
from speecheq.common.files import read_json, write_json
from speecheq.common.log import log
from speecheq.common.progress import progress
from speecheq.common.stages import STAMP, Drops, Stage, require
from speecheq.corpora.prepare import NEUTRAL_RULES
from speecheq.corpora.prepared_corpus import load_card
from speecheq.dataset.protocols import (
    CROSS,
    RANDOM_PROTOCOLS,
    Clip,
    check_leaks,
    checked_folds,
    dev_part,
    folds_from_file,
    make_folds,
)
from speecheq.features.storage import load_cuts

# Raised when what this module writes changes its meaning.
FORMAT = 2
CLASSES = ("seqm", "corpus")
DECLARED = "declared"
DEV_PARTS = ("auto", "clips", "speaker", "official")
EVERY_CORPUS = "*"
# The sets of a fold. That of the training clips is named after the task that it trains.
TRAINING, GENDER, DEV, TEST = "emotion", "gender", "dev", "test"


def experiment_name(target: str, protocol: str, classes: str = "seqm", neutral_eis: str = DECLARED) -> str:
    """The folder of a target under a protocol; switches that are not at their defaults show in it.

    InputError for a protocol whose name cannot be part of a folder's.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", protocol):
        raise InputError(f"--protocol {protocol!r}: a name has letters, digits, - and _ only.")
    marks = [f".{classes}_classes"] * (classes != "seqm") + [f".neutral_{neutral_eis}"] * (neutral_eis != DECLARED)
    return f"{target}.{protocol}" + "".join(marks)


@dataclass(frozen=True)
class Recipe:
    """What MsUD is made of.

    ``corpora`` are the emotion corpora (the target among them or not, it always is one); ``dev`` says what is the
    dev part of the training clips: ``clips`` (10 %), one ``speaker``, the ``official`` part, or ``auto``: that where
    the protocol is ``official`` and there is one, else clips. ``classes``: the nine of SEQM, or the target
    ``corpus``' own. ``neutral_eis``: the EIS of neutral clips as each corpus declares it, SEQM's 0 in all (``metric``),
    or what the corpora's own intensities say (``corpus``). ``use`` restricts a corpus (or all: "*") to some SEQM
    categories. ``folds_file`` is a published partition of the target. ``recipe_corpora`` are all that the recipe
    knows, so that those left out can be named.
    """

    target: str
    protocol: str
    corpora: Sequence[str]
    dev: str = "auto"
    seed: int = 0
    classes: str = "seqm"
    neutral_eis: str = DECLARED
    use: Mapping[str, Sequence[str] | None] = field(default_factory=dict)
    folds_file: Path | None = None
    recipe_corpora: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("--classes", self.classes, CLASSES),
            ("--neutral-eis", self.neutral_eis, (DECLARED, *NEUTRAL_RULES)),
            ("--dev", self.dev, DEV_PARTS),
        ):
            if value not in choices:
                raise InputError(f"{name} {value!r} is not one of {', '.join(choices)}.")
        for category in (category for categories in self.use.values() for category in categories or ()):
            if category not in seqm.CATEGORIES:
                raise InputError(f"--use: {category!r} is not one of SEQM's categories {', '.join(seqm.CATEGORIES)}.")
        unknown = sorted(set(self.use) - {EVERY_CORPUS, self.target, *self.corpora, *self.recipe_corpora})
        if unknown:
            raise InputError(f"--use {unknown[0]}=...: there is no corpus {unknown[0]} in this run.")
        if self.protocol == CROSS and self.classes == "corpus":
            raise InputError("the protocol 'cross' compares corpora in SEQM's classes; leave out --classes corpus.")
        if self.folds_file is not None and self.protocol in (CROSS, "official", *RANDOM_PROTOCOLS):
            raise InputError(
                f"--folds-file gives the folds, the protocol {self.protocol!r} would make its own: give the list "
                "another name with --protocol, or leave it out."
            )

    @property
    def name(self) -> str:
        return experiment_name(self.target, self.protocol, self.classes, self.neutral_eis)

    @property
    def others(self) -> list[str]:
        return [name for name in dict.fromkeys(self.corpora) if name != self.target]


def parse_use(texts: Sequence[str]) -> dict[str, list[str] | None]:
    """``joy,anger`` (every corpus) or ``esd_zh=joy,anger`` of ``--use`` -> corpus or "*" -> categories.

    Of two for the same corpus the later counts; ``all`` lifts a restriction (None).
    """
    use: dict[str, list[str] | None] = {}
    for text in texts:
        corpus, equals, categories = text.rpartition("=")
        names = categories.replace(",", " ").split()
        if not names:
            raise InputError(f"--use {text!r}: names no category, for instance --use joy,anger,neutral,sadness.")
        use[corpus.strip() if equals else EVERY_CORPUS] = None if names == ["all"] else names
    if use.get(EVERY_CORPUS) is None:  # a None has a meaning only where all others are restricted
        return {corpus: names for corpus, names in use.items() if names is not None}
    return use


class ClassMap:
    """From a clip's labels to its class: SEQM's categories, or the target corpus' own labels."""

    def __init__(self, recipe: Recipe, card: Mapping[str, Any]):
        self.target = recipe.target
        self.own = recipe.classes == "corpus"
        if not self.own:
            self.table = seqm.SEQM_CLASSES
            return
        labels = sorted(label for label in card["labels"] if card["counts"]["emotion"].get(label))
        self.table = seqm.ClassTable(tuple(labels), tuple(card["labels"][label] for label in labels))
        # Clips of other corpora: the label that is the plain category; of several, the one of the category's name.
        self.of_category: dict[str, str] = {}
        for category in dict.fromkeys(self.table.categories):
            plain = [label for label in labels if card["labels"][label] == category and label in card["plain_labels"]]
            chosen = [label for label in plain if label.lower() == category] or plain
            if len(chosen) == 1:
                self.of_category[category] = chosen[0]
        self.index = {label: number for number, label in enumerate(labels)}

    def class_of(self, custom: Mapping[str, Any]) -> int | None:
        """The class number of an utterance, from its supervision's custom fields; None where it has none."""
        if not self.own:
            return seqm.esc_index(custom["esc"])
        label = custom["emotion"] if custom["corpus"] == self.target else self.of_category.get(custom["esc"])
        return None if label is None else self.index[label]


def clip_of(cut: MonoCut, label: str = "", with_path: bool = False) -> Clip:
    """The protocol's view of a cut. Few different words, so they are shared between clips.

    Its file's path comes ``with_path`` only, which lists of folds need: it is most of what a clip takes in memory.
    """
    supervision = cut.supervisions[0]
    custom = supervision.custom
    source = cut.recording.sources[0].source if cut.has_recording else supervision.id

    def shared(value: str | None) -> str | None:
        return None if value is None else sys.intern(str(value))

    return Clip(
        id=supervision.id,
        speaker=shared(supervision.speaker),
        label=shared(label or custom["esc"]),
        text_id=shared(custom.get("text_id")),
        split=shared(custom.get("split")),
        corpus=shared(custom["corpus"]),
        session=shared(custom.get("session")),
        path=os.path.splitext(source)[0] if with_path else "",
        sound=hash((source, cut.start)),
    )


def _neutral_rule(rule: str, custom: dict[str, Any]) -> None:
    """Set the EIS of a neutral utterance as the switch ``neutral_eis`` says; a second time changes nothing."""
    if rule == DECLARED or custom["esc"] != seqm.NEUTRAL:
        return
    own = custom.setdefault("eis_of_corpus", custom["eis"])
    custom["eis"] = seqm.NEUTRAL_EIS if rule == "metric" else own


class _Sets:
    """The cut sets of a fold while they are written, and their counts."""

    def __init__(self, folder: Path, names: Sequence[str], stack: ExitStack):
        self.files = {
            name: stack.enter_context(SequentialJsonlWriter(folder / f"{name}.jsonl.gz", overwrite=True))
            for name in names
        }
        self.counts: dict[str, dict[str, Counter]] = {name: defaultdict(Counter) for name in names}

    def add(self, name: str, cut: MonoCut, class_name: str) -> None:
        supervision = cut.supervisions[0]
        custom = supervision.custom
        self.files[name].write(cut)
        eis = "specified" if seqm.is_specified(custom["eis"]) else "unspecified"
        values = {
            "corpus": custom["corpus"],
            "class": class_name,
            "esc": custom["esc"],
            "gender": supervision.gender,
            "eis": eis,
        }
        for key, value in values.items():
            self.counts[name][key][str(value)] += 1

    def note(self) -> dict[str, Any]:
        return {
            name: {
                "clips": sum(counters["corpus"].values()),
                **{key: dict(sorted(counters[key].items())) for key in ("corpus", "class", "esc", "gender", "eis")},
            }
            for name, counters in self.counts.items()
        }


@dataclass
class _Clips:
    """The clips of a run: ``of`` a corpus by id, those that have a class and are in use; ``unused``, of the target,
    the others, which a list of folds may name too."""

    of: dict[str, dict[str, Clip]]
    unused: list[Clip]


def _read_clips(
    recipe: Recipe, cards: Mapping[str, dict], classes: ClassMap, cuts: Mapping[str, Iterable[MonoCut]], drops: Drops
) -> _Clips:
    clips = _Clips({}, [])
    with_path = recipe.folds_file is not None
    for name in cards:
        use = recipe.use.get(name, recipe.use.get(EVERY_CORPUS))
        clips.of[name] = {}
        for cut in progress(cuts[name], f"{name}: labels", cards[name]["utterances"], "clips"):
            custom = cut.supervisions[0].custom
            number, why = None, ""
            if custom["esc"] is None:
                why = f"{name} without an emotion label"
            elif use is not None and custom["esc"] not in use:
                why = f"{custom['esc']} of {name}, not in use"
            else:
                number = classes.class_of(custom)
                why = f"{custom['esc']} of {name}, which is no single class of {recipe.target}"
            if number is None:
                drops.add(why, cut.id)
                if name == recipe.target and with_path:
                    clips.unused.append(clip_of(cut, "-", with_path))
                continue
            clip = clip_of(cut, classes.table.names[number], with_path)
            owner = next((other for other in clips.of if other != name and clip.id in clips.of[other]), None)
            if owner is not None:
                raise InputError(f"the utterance {clip.id} is in {owner} and in {name}; rename it in one of them.")
            clips.of[name][clip.id] = clip
    return clips


def _is_for_training(clip: Clip) -> bool:
    """Whether a clip of another corpus than the target may be trained on: it is in no official dev or test part."""
    return clip.split is None or clip.split == "train"


def _intersect(recipe: Recipe, clips: dict[str, dict[str, Clip]], drops: Drops) -> None:
    """Cross-corpus: keep the classes that the target and the training clips of the other corpora have in common."""
    if not recipe.others:
        raise InputError(f"the protocol 'cross' trains on other corpora than {recipe.target}: give some.")
    of_target = {clip.label for clip in clips[recipe.target].values()}
    of_others = {clip.label for name in recipe.others for clip in clips[name].values() if _is_for_training(clip)}
    common = of_target & of_others
    if not common:
        raise InputError(
            f"cross-corpus: {recipe.target} ({', '.join(sorted(of_target)) or 'no class'}) has no class in common with "
            f"{', '.join(recipe.others)} ({', '.join(sorted(of_others)) or 'no class'})."
        )
    for name in clips:
        lacking = "the other corpora lack" if name == recipe.target else f"{recipe.target} lacks"
        for clip in [clip for clip in clips[name].values() if clip.label not in common]:
            drops.add(f"{clip.label} of {name}, which {lacking}", clip.id)
            del clips[name][clip.id]


def _folds(recipe: Recipe, card: Mapping[str, Any], clips: _Clips, drops: Drops) -> list[set]:
    """The test clips of every fold."""
    members = clips.of[recipe.target]
    if not members:
        raise InputError(f"{recipe.target}: has no clip to test on; see --use and its labels.")
    if recipe.folds_file is None:
        if card["test_split"] and recipe.protocol in RANDOM_PROTOCOLS:
            raise InputError(
                f"{recipe.target}: has a fixed test part, which the protocol {recipe.protocol!r} would train on; use "
                "'official'."
            )
        return make_folds(recipe.protocol, list(members.values()), recipe.seed)
    found = folds_from_file(recipe.folds_file, [*members.values(), *clips.unused], may_lack_clips=card["partial"])
    if found.absent:
        log.warning(
            "%s: %d lines name clips that this copy of %s lacks", recipe.folds_file, found.absent, recipe.target
        )
    for name in found.unnamed:
        if members.pop(name, None) is not None:
            drops.add(f"{recipe.target} outside the list of folds", name)
    folds = [fold & members.keys() for fold in found.folds]
    return checked_folds(recipe.protocol, list(members.values()), folds)


def _dev_rule(recipe: Recipe, clips: Mapping[str, Clip]) -> str:
    """What ``auto`` stands for; InputError for an official part that is not there."""
    has_official = any(clip.split == "dev" for clip in clips.values())
    if recipe.dev == "auto":
        return "official" if has_official and recipe.protocol == "official" else "clips"
    if recipe.dev == "official" and (not has_official or recipe.protocol == CROSS):
        raise InputError(f"--dev official: {recipe.target} has no official dev part outside the test fold.")
    return recipe.dev


def _target_parts(recipe: Recipe, dev: str, clips: Mapping[str, Clip], test: set) -> dict[str, str]:
    """Target utterance -> the set that it goes to."""
    if recipe.protocol == CROSS:
        return dict.fromkeys(clips, TEST)
    pool = [clip for name, clip in clips.items() if name not in test]
    if dev == "official":
        dev_ids = {clip.id for clip in pool if clip.split == "dev"}
    else:
        dev_ids = dev_part(pool, dev, recipe.seed)
    return {name: TEST if name in test else DEV if name in dev_ids else TRAINING for name in clips}


def _other_parts(
    recipe: Recipe, dev: str, cards: Mapping[str, dict], clips: Mapping[str, Mapping[str, Clip]], drops: Drops
) -> dict[str, dict[str, str]]:
    """Other corpus -> utterance -> the set that it goes to: training, test_<corpus>, or (cross-corpus) dev."""
    parts: dict[str, dict[str, str]] = {}
    for name in recipe.others:
        parts[name] = {}
        for clip in clips[name].values():
            if _is_for_training(clip):
                parts[name][clip.id] = TRAINING
            elif clip.split == cards[name]["test_split"]:
                parts[name][clip.id] = f"{TEST}_{name}"
            else:
                drops.add(f"the {clip.split} part of {name}, not used", clip.id)
    if recipe.protocol == CROSS:  # the target must stay unseen: the dev part is taken from the training corpora
        pool = [
            clip._replace(speaker=f"{name} {clip.speaker}")
            for name in recipe.others
            for clip in clips[name].values()
            if parts[name].get(clip.id) == TRAINING
        ]
        for chosen in dev_part(pool, dev, recipe.seed):
            next(of for of in parts.values() if chosen in of)[chosen] = DEV
    return parts


def _digest_of(path: Path) -> str:
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such file of folds.")
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def _note_of_any(folder: Path) -> dict[str, Any] | None:
    """What ``msud.json`` says of one of the folds in ``folder``; None where none is there. Damaged ones are redone."""
    for path in sorted(folder.glob("fold*/msud.json")):
        try:
            return read_json(path)
        except InputError as damaged:
            log.warning("%s", damaged)
    return None


def unify(recipe: Recipe, folds: str, manifests: Path, fbank: Path, out_dir: Path) -> list[int]:
    """Write the cut sets of the asked ``folds``; returns their numbers.

    ``manifests`` and ``fbank`` hold one folder a corpus. The labels of a corpus come from its card. InputError for
    a corpus without emotion labels, a protocol that it does not allow, or a leak.
    """
    cards = {name: load_card(manifests / name, name) for name in (recipe.target, *recipe.others)}
    for name, card in cards.items():
        if not card["labels"]:
            raise InputError(f"{name}: has no emotion labels, so it cannot be part of MsUD.")
    cuts = {name: load_cuts(fbank / name) for name in cards}
    options = asdict(recipe)
    options["corpora"] = sorted(cards)
    options["folds_file"] = recipe.folds_file and _digest_of(recipe.folds_file)
    options["left_out"] = [name for name in options.pop("recipe_corpora") if name not in cards]
    folder = out_dir / recipe.name
    inputs = [fbank / name for name in sorted(cards)]
    stages: dict[int, Stage] = {}

    def is_done(number: int) -> bool:
        """Whether that fold is there; looked up, and logged, once."""
        if number not in stages:
            title = f"{recipe.name}, fold {number}"
            stage = Stage("unify", title, folder / f"fold{number}", {**options, "fold": number}, inputs, FORMAT)
            stages[number] = stage
            done[number] = not stage.needs_run()
        return done[number]

    done: dict[int, bool] = {}
    made = _note_of_any(folder)
    if made is not None and is_done(made["fold"]):  # folds that are all there need no look at the clips
        numbers = parse_numbers(folds, "fold", made["folds"])
        if all(is_done(number) for number in numbers):
            return numbers

    classes = ClassMap(recipe, cards[recipe.target])
    drops = Drops()
    clips = _read_clips(recipe, cards, classes, cuts, drops)
    if recipe.protocol == CROSS:
        _intersect(recipe, clips.of, drops)
    all_folds = _folds(recipe, cards[recipe.target], clips, drops)
    dev = _dev_rule(recipe, clips.of[recipe.target])
    keys = [read_json(path / STAMP)["key"] for path in inputs]
    partition = digest([options, keys, [sorted(fold) for fold in all_folds]])

    def write(number: int) -> None:
        """The sets of a fold."""
        of_fold = drops.copy()
        parts = {
            recipe.target: _target_parts(recipe, dev, clips.of[recipe.target], all_folds[number - 1]),
            **_other_parts(recipe, dev, cards, clips.of, of_fold),
        }
        shared_speakers = _check(recipe, clips.of, parts)
        with stages[number].replace_folder() as temporary:
            sets = _write_sets(recipe, classes, cuts, parts, temporary)
            note = {
                "name": recipe.name,
                "target": recipe.target,
                "protocol": recipe.protocol,
                "fold": number,
                "folds": len(all_folds),
                "partition": partition,
                "dev": dev,
                "seed": recipe.seed,
                "corpora": sorted(name for name in cards if name != recipe.target or recipe.protocol != CROSS),
                "left_out": options["left_out"],
                "classes": list(classes.table.names),
                "class_esc": list(classes.table.categories),
                "classes_of": recipe.classes,
                "neutral_eis": recipe.neutral_eis,
                "use": dict(recipe.use),
                "folds_file": recipe.folds_file and Path(recipe.folds_file).name,
                "target_esc": sorted(set(cards[recipe.target]["labels"].values())),
                "test_speakers_in_training": shared_speakers,
                "tests": [name for name in sets if name.startswith(TEST)],
                "sets": sets,
            }
            without_gender = sets[TRAINING]["clips"] - sets[GENDER]["clips"]
            if without_gender:
                log.warning(
                    "%s: %d training clips have no gender and are not in the gender set",
                    stages[number].title,
                    without_gender,
                )
            write_json(temporary / "msud.json", note)
            placed = sum(map(len, parts.values()))
            stages[number].finish(temporary, placed + len(of_fold), placed, of_fold)

    for number in parse_numbers(folds, "fold", len(all_folds)):
        if is_done(number) or stages[number].added_to_plan():
            continue
        with stages[number].locked() as is_missing:
            if is_missing:
                write(number)
    return parse_numbers(folds, "fold", len(all_folds))


def _write_sets(
    recipe: Recipe,
    classes: ClassMap,
    cuts: Mapping[str, Iterable[MonoCut]],
    parts: Mapping[str, Mapping[str, str]],
    folder: Path,
) -> dict[str, Any]:
    """Write the sets of a fold, each cut with its class and its EIS; returns their counts."""
    names = sorted({TRAINING, DEV, TEST, GENDER} | {part for of in parts.values() for part in of.values()})
    with ExitStack() as stack:
        sets = _Sets(folder, names, stack)
        for corpus in parts:
            for cut in cuts[corpus]:
                part = parts[corpus].get(cut.id)
                if part is None:
                    continue
                custom = cut.supervisions[0].custom
                _neutral_rule(recipe.neutral_eis, custom)
                custom["class"] = classes.class_of(custom)
                class_name = classes.table.names[custom["class"]]
                sets.add(part, cut, class_name)
                if part == TRAINING and cut.supervisions[0].gender is not None:
                    sets.add(GENDER, cut, class_name)
    return sets.note()


def _check(recipe: Recipe, clips: Mapping[str, Mapping[str, Clip]], parts: Mapping[str, Mapping[str, str]]) -> int:
    """Leak checks of a fold (InputError); returns how many test speakers are trained on."""
    by_part: dict[str, list[Clip]] = defaultdict(list)
    for corpus, of in parts.items():
        for name, part in of.items():
            by_part[part].append(clips[corpus][name])
    if not by_part[TRAINING]:
        raise InputError(f"{recipe.name}: no training clip is left; give other corpora, or see --use.")
    check_leaks(recipe.protocol, by_part[TRAINING], by_part[DEV], by_part[TEST])
    for name in recipe.others:  # their parts are official: no clip is shared, speakers may be
        check_leaks("official", by_part[TRAINING], by_part[DEV], by_part[f"{TEST}_{name}"])

    def speakers(part: str) -> set:
        return {(clip.corpus, clip.speaker) for clip in by_part[part]}

    return len(speakers(TEST) & speakers(TRAINING))


def load_fold(msud_dir: Path, fold: int) -> dict:
    """What ``msud.json`` says of a fold; InputError where stage 3 has not made it."""
    folder = Path(msud_dir) / f"fold{fold}"
    require(folder, "unify")
    return read_json(folder / "msud.json")


def class_table(note: Mapping[str, Any]) -> seqm.ClassTable:
    """The classes that ``msud.json`` names."""
    return seqm.ClassTable(tuple(note["classes"]), tuple(note["class_esc"]))


def made_folds(msud_dir: Path, folds: str) -> list[int]:
    """The fold numbers that ``folds`` asks for, each checked to be there; InputError where one is not."""
    notes = [read_json(path) for path in Path(msud_dir).glob("fold*/msud.json")]
    if not notes:
        raise InputError(f"{msud_dir}: stage 3 (unify) has not been run; run it first, with --stage 3 --stop-stage 3.")
    # a fold left over from another partition may count more or fewer of them; whether it is current is asked below
    numbers = parse_numbers(folds, "fold", max(note["folds"] for note in notes))
    for number in numbers:
        load_fold(msud_dir, number)
    return numbers
