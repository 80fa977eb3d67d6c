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
import sys
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence

from lhotse import MonoCut
from lhotse.serialization import SequentialJsonlWriter

from speecheq import seqm
from speecheq.corpus import NEUTRAL_RULES, load_card
from speecheq.errors import InputError
from speecheq.features import load_cuts
from speecheq.files import read_json, write_json
from speecheq.progress import log, progress
from speecheq.protocol import (
    CROSS,
    RANDOM_PROTOCOLS,
    Clip,
    check_leaks,
    checked_folds,
    dev_part,
    folds_from_file,
    make_folds,
    parse_numbers,
)
from speecheq.stages import Drops, Stage, require

# Raised when what this module writes changes its meaning.
FORMAT = 2
CLASSES = ("seqm", "corpus")
DECLARED = "declared"
DEV_PARTS = ("auto", "clips", "speaker", "official")
EVERY_CORPUS = "*"


def experiment_name(target: str, protocol: str, classes: str = "seqm", neutral_eis: str = DECLARED) -> str:
    """The folder of a target under a protocol; switches that are not at their defaults show in it."""
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
    use: Mapping[str, Sequence[str]] = field(default_factory=dict)
    folds_file: Optional[Path] = None
    recipe_corpora: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("--classes", self.classes, CLASSES),
            ("--neutral-eis", self.neutral_eis, (DECLARED, *NEUTRAL_RULES)),
            ("--dev", self.dev, DEV_PARTS),
        ):
            if value not in choices:
                raise InputError(f"{name} {value!r} is not one of {', '.join(choices)}.")
        for categories in self.use.values():
            for category in categories:
                if category not in seqm.CATEGORIES:
                    raise InputError(f"--use: {category!r} is not one of SEQM's categories {', '.join(seqm.CATEGORIES)}.")
        if self.protocol == CROSS and self.classes == "corpus":
            raise InputError("the protocol 'cross' compares corpora in SEQM's classes; leave out --classes corpus.")

    @property
    def name(self) -> str:
        return experiment_name(self.target, self.protocol, self.classes, self.neutral_eis)

    @property
    def others(self) -> List[str]:
        return [name for name in dict.fromkeys(self.corpora) if name != self.target]


def parse_use(texts: Sequence[str]) -> Dict[str, List[str]]:
    """``joy,anger`` (every corpus) or ``esd_zh=joy,anger`` of ``--use`` -> corpus or "*" -> categories.

    ``all`` stands for all nine of them.
    """
    use: Dict[str, List[str]] = {}
    for text in texts:
        corpus, equals, categories = text.partition("=")
        if not equals:
            corpus, categories = EVERY_CORPUS, text
        names = categories.replace(",", " ").split()
        use[corpus.strip()] = list(seqm.CATEGORIES) if names == ["all"] else names
        if not use[corpus.strip()]:
            raise InputError(f"--use {text!r}: names no category, for instance --use joy,anger,neutral,sadness.")
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
        self.of_category: Dict[str, str] = {}
        for category in dict.fromkeys(self.table.categories):
            plain = [label for label in labels if card["labels"][label] == category and label in card["plain_labels"]]
            chosen = [label for label in plain if label.lower() == category] or plain
            if len(chosen) == 1:
                self.of_category[category] = chosen[0]
        self.index = {label: number for number, label in enumerate(labels)}

    def class_of(self, custom: Mapping[str, Any]) -> Optional[int]:
        """The class number of an utterance, from its supervision's custom fields; None where it has none."""
        if not self.own:
            return seqm.esc_index(custom["esc"])
        label = custom["emotion"] if custom["corpus"] == self.target else self.of_category.get(custom["esc"])
        return None if label is None else self.index[label]


def clip_of(cut: MonoCut, label: str = "", with_audio: bool = True) -> Clip:
    """The protocol's view of a cut. Few different words, so they are shared between clips.

    Where its file is comes ``with_audio`` only: it is most of what a clip takes in memory, for lists of folds alone.
    """
    supervision = cut.supervisions[0]
    custom = supervision.custom

    def shared(value: Optional[str]) -> Optional[str]:
        return None if value is None else sys.intern(str(value))

    return Clip(
        supervision.id, shared(supervision.speaker), shared(label or custom["esc"]), shared(custom.get("text_id")),
        shared(custom.get("split")), shared(custom["corpus"]), shared(custom.get("session")),
        os.path.splitext(cut.recording.sources[0].source)[0] if with_audio and cut.has_recording else "",
    )


def _neutral_rule(rule: str, custom: Dict[str, Any]) -> None:
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
        self.counts: Dict[str, Dict[str, Counter]] = {name: defaultdict(Counter) for name in names}

    def add(self, name: str, cut: MonoCut, class_name: str) -> None:
        supervision = cut.supervisions[0]
        custom = supervision.custom
        self.files[name].write(cut)
        eis = "specified" if seqm.is_specified(custom["eis"]) else "unspecified"
        values = {"corpus": custom["corpus"], "class": class_name, "esc": custom["esc"], "gender": supervision.gender,
                  "eis": eis}
        for key, value in values.items():
            self.counts[name][key][str(value)] += 1

    def note(self) -> Dict[str, Any]:
        return {
            name: {"clips": sum(counters["corpus"].values()),
                   **{key: dict(sorted(counters[key].items())) for key in ("corpus", "class", "esc", "gender", "eis")}}
            for name, counters in self.counts.items()
        }


def _usable(recipe: Recipe, cards: Mapping[str, dict], classes: ClassMap, cuts: Mapping[str, Iterable[MonoCut]],
            drops: Drops) -> Dict[str, Dict[str, Clip]]:
    """Corpus -> id -> clip, of all utterances that have a class and whose category is in use."""
    clips: Dict[str, Dict[str, Clip]] = {}
    for name in cards:
        use = recipe.use.get(name, recipe.use.get(EVERY_CORPUS))
        clips[name] = {}
        for cut in progress(cuts[name], f"{name}: labels", cards[name]["utterances"], "clips"):
            custom = cut.supervisions[0].custom
            if custom["esc"] is None:
                drops.add(f"{name} without an emotion label", cut.id)
                continue
            if use is not None and custom["esc"] not in use:
                drops.add(f"{custom['esc']} of {name}, not in use", cut.id)
                continue
            number = classes.class_of(custom)
            if number is None:
                drops.add(f"{custom['esc']} of {name}, which is no single class of {recipe.target}", cut.id)
                continue
            clip = clip_of(cut, classes.table.names[number], with_audio=recipe.folds_file is not None)
            owner = next((other for other in clips if other != name and clip.id in clips[other]), None)
            if owner is not None:
                raise InputError(f"the utterance {clip.id} is in {owner} and in {name}; rename it in one of them.")
            clips[name][clip.id] = clip
    return clips


def _intersect(recipe: Recipe, clips: Dict[str, Dict[str, Clip]], drops: Drops) -> None:
    """Cross-corpus: keep the classes that the target and the other corpora have in common."""
    of_target = {clip.label for clip in clips[recipe.target].values()}
    of_others = {clip.label for name in recipe.others for clip in clips[name].values()}
    common = of_target & of_others
    if not common:
        raise InputError(
            f"cross-corpus: {recipe.target} ({', '.join(sorted(of_target)) or 'no class'}) has no class in common with "
            f"{', '.join(recipe.others) or 'no other corpus'} ({', '.join(sorted(of_others)) or 'no class'})."
        )
    for name in clips:
        for clip in [clip for clip in clips[name].values() if clip.label not in common]:
            where = "the other corpora" if name == recipe.target else recipe.target
            drops.add(f"{clip.label} of {name}, which {where} lack{'' if name == recipe.target else 's'}", clip.id)
            del clips[name][clip.id]


def _folds(recipe: Recipe, card: Mapping[str, Any], clips: Dict[str, Clip], drops: Drops) -> List[set]:
    members = list(clips.values())
    if not members:
        raise InputError(f"{recipe.target}: has no clip to test on; see --use and its labels.")
    if recipe.folds_file is None:
        if card["test_split"] and recipe.protocol in RANDOM_PROTOCOLS:
            raise InputError(
                f"{recipe.target}: has a fixed test part, which the protocol {recipe.protocol!r} would train on; use the "
                "protocol 'official'."
            )
        return make_folds(recipe.protocol, members, recipe.seed)
    folds, unnamed = folds_from_file(recipe.folds_file, members, card["partial"] or bool(recipe.use))
    for name in unnamed:
        drops.add(f"{recipe.target} outside the list of folds", name)
        del clips[name]
    return checked_folds(recipe.protocol, list(clips.values()), folds)


def _target_parts(recipe: Recipe, clips: Mapping[str, Clip], test: set) -> Dict[str, str]:
    """Target utterance -> test, dev or emotion."""
    if recipe.protocol == CROSS:
        return dict.fromkeys(clips, "test")
    pool = [clip for name, clip in clips.items() if name not in test]
    official_dev = {clip.id for clip in pool if clip.split == "dev"}
    dev = recipe.dev
    if dev == "auto":
        dev = "official" if official_dev and recipe.protocol == "official" else "clips"
    if dev == "official" and not official_dev:
        raise InputError(f"--dev official: {recipe.target} has no official dev part outside the test fold.")
    dev_ids = official_dev if dev == "official" else dev_part(pool, dev, recipe.seed)
    return {name: "test" if name in test else "dev" if name in dev_ids else "emotion" for name in clips}


def _other_parts(recipe: Recipe, cards: Mapping[str, dict], clips: Mapping[str, Mapping[str, Clip]],
                 drops: Drops) -> Dict[str, Dict[str, str]]:
    """Other corpus -> utterance -> emotion, test_<corpus>, or (cross-corpus) dev."""
    parts: Dict[str, Dict[str, str]] = {}
    for name in recipe.others:
        parts[name] = {}
        for clip in clips[name].values():
            if clip.split is None or clip.split == "train":
                parts[name][clip.id] = "emotion"
            elif clip.split == cards[name]["test_split"]:
                parts[name][clip.id] = f"test_{name}"
            else:
                drops.add(f"the {clip.split} part of {name}, not used", clip.id)
    if recipe.protocol == CROSS:  # the target must stay unseen: the dev part is taken from the training corpora
        pool = [
            clip._replace(speaker=f"{name} {clip.speaker}")
            for name in recipe.others for clip in clips[name].values() if parts[name].get(clip.id) == "emotion"
        ]
        how = "clips" if recipe.dev in ("auto", "official") else recipe.dev
        for name in dev_part(pool, how, recipe.seed):
            next(of for of in parts.values() if name in of)[name] = "dev"
    return parts


def _digest_of(path: Path) -> str:
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such file of folds.")
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def unify(recipe: Recipe, folds: str, manifests: Path, fbank: Path, out_dir: Path) -> List[int]:
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
    options["left_out"] = left_out = [name for name in options.pop("recipe_corpora") if name not in cards]

    @lru_cache(maxsize=None)
    def stage_of(number: int) -> Stage:
        return Stage(
            "unify", f"{recipe.name}, fold {number}", out_dir / recipe.name / f"fold{number}", {**options, "fold": number},
            [fbank / name for name in sorted(cards)], FORMAT,
        )

    is_done = lru_cache(maxsize=None)(lambda number: stage_of(number).is_done())
    made = next(iter((out_dir / recipe.name).glob("fold*/msud.json")), None)
    if made is not None:  # folds that are all there need no look at the clips
        numbers = parse_numbers(folds, "fold", read_json(made)["folds"])
        if all([is_done(number) for number in numbers]):
            return numbers
    classes = ClassMap(recipe, cards[recipe.target])
    common_drops = Drops()
    clips = _usable(recipe, cards, classes, cuts, common_drops)
    if recipe.protocol == CROSS:
        _intersect(recipe, clips, common_drops)
    all_folds = _folds(recipe, cards[recipe.target], clips[recipe.target], common_drops)
    numbers = parse_numbers(folds, "fold", len(all_folds))
    for number in numbers:
        if is_done(number):
            continue
        stage = stage_of(number)
        drops = Drops()
        for reason, names in common_drops.by_reason.items():
            drops.by_reason[reason] = list(names)
        parts = {recipe.target: _target_parts(recipe, clips[recipe.target], all_folds[number - 1]),
                 **_other_parts(recipe, cards, clips, drops)}
        shared_speakers = _check(recipe, clips, parts)
        names = sorted({"emotion", "dev", "test", "gender"} | {part for of in parts.values() for part in of.values()})
        with stage.anew() as temporary:
            with ExitStack() as stack:
                sets = _Sets(temporary, names, stack)
                for corpus in cards:
                    for cut in cuts[corpus]:
                        part = parts[corpus].get(cut.id)
                        if part is None:
                            continue
                        custom = cut.supervisions[0].custom
                        _neutral_rule(recipe.neutral_eis, custom)
                        custom["class"] = classes.class_of(custom)
                        class_name = classes.table.names[custom["class"]]
                        sets.add(part, cut, class_name)
                        if part == "emotion" and cut.supervisions[0].gender is not None:
                            sets.add("gender", cut, class_name)
            note = {
                "name": recipe.name,
                "target": recipe.target,
                "protocol": recipe.protocol,
                "fold": number,
                "folds": len(all_folds),
                "dev": recipe.dev,
                "seed": recipe.seed,
                "corpora": sorted(name for name in cards if name != recipe.target or recipe.protocol != CROSS),
                "left_out": left_out,
                "classes": list(classes.table.names),
                "class_esc": list(classes.table.categories),
                "classes_of": recipe.classes,
                "neutral_eis": recipe.neutral_eis,
                "use": {name: list(categories) for name, categories in recipe.use.items()},
                "folds_file": recipe.folds_file and Path(recipe.folds_file).name,
                "target_esc": sorted({cards[recipe.target]["labels"][label] for label in cards[recipe.target]["labels"]}),
                "test_speakers_in_training": shared_speakers,
                "tests": [name for name in names if name.startswith("test")],
                "sets": sets.note(),
            }
            without_gender = note["sets"]["emotion"]["clips"] - note["sets"]["gender"]["clips"]
            if without_gender:
                log.warning(
                    "%s: %d training clips have no gender and are not in the gender set", stage.title, without_gender
                )
            write_json(temporary / "msud.json", note)
            placed = sum(map(len, parts.values()))
            stage.finish(temporary, placed + len(drops), placed, drops)
    return numbers


def _check(recipe: Recipe, clips: Mapping[str, Mapping[str, Clip]], parts: Mapping[str, Mapping[str, str]]) -> int:
    """Leak checks of a fold (InputError); returns how many test speakers are trained on."""
    by_part: Dict[str, List[Clip]] = defaultdict(list)
    for corpus, of in parts.items():
        for name, part in of.items():
            by_part[part].append(clips[corpus][name])
    if not by_part["emotion"]:
        raise InputError(f"{recipe.name}: no training clip is left; give other corpora, or see --use.")
    check_leaks(recipe.protocol, by_part["emotion"], by_part["dev"], by_part["test"])
    for name in recipe.others:  # their parts are official: no clip is shared, speakers may be
        check_leaks("official", by_part["emotion"], by_part["dev"], by_part[f"test_{name}"])

    def speakers(part: str) -> set:
        return {(clip.corpus, clip.speaker) for clip in by_part[part]}

    return len(speakers("test") & speakers("emotion"))


def load_fold(msud_dir: Path, fold: int) -> dict:
    """What ``msud.json`` says of a fold; InputError where stage 3 has not made it."""
    folder = Path(msud_dir) / f"fold{fold}"
    require(folder, "unify")
    return read_json(folder / "msud.json")


def class_table(note: Mapping[str, Any]) -> seqm.ClassTable:
    """The classes that ``msud.json`` names."""
    return seqm.ClassTable(tuple(note["classes"]), tuple(note["class_esc"]))


def made_folds(msud_dir: Path, folds: str) -> List[int]:
    """The fold numbers that ``folds`` asks for, each checked to be there; InputError where one is not."""
    some = next(iter(sorted(Path(msud_dir).glob("fold*/msud.json"))), None)
    if some is None:
        raise InputError(f"{msud_dir}: stage 3 (unify) has not been run; run it first, with --stage 3 --stop-stage 3.")
    numbers = parse_numbers(folds, "fold", read_json(some)["folds"])
    for number in numbers:
        load_fold(msud_dir, number)
    return numbers
