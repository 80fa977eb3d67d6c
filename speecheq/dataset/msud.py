"""Many corpora to one Multi-scale Unified Dataset, MsUD (sections 2.1 and 3.1).

Stage 3 writes, for each fold of a target corpus,

    <out>/<name>/fold<k>/{emotion,gender,dev,test}.jsonl.gz   (and test_<corpus> of other corpora)
    <out>/<name>/fold<k>/msud.json                            counts and settings

where <name> is <target>.<protocol>, with a mark for each switch that is not at its default. MsUD and the gender set
hold training clips only: the target's training folds without their dev part, and of every other corpus its official
training part, or all its clips if it has none. Each cut gets ``custom['class']``, the number of its class. The cuts of
a corpus are streamed; of an utterance only its ``protocols.FoldClip`` is held in memory.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
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
from speecheq.common.stages import STAMP, Stage, require
from speecheq.corpora.prepared_corpus import load_card
from speecheq.dataset.classes import class_warnings
from speecheq.dataset.fold_sets import FoldSets, Partition
from speecheq.dataset.msud_recipe import AS_PUBLISHED, DECLARED, DEV, GENDER, TEST, TRAINING, Recipe
from speecheq.dataset.protocols import CROSS
from speecheq.dataset.published_folds import folds_file_digest
from speecheq.features.storage import load_cuts

FORMAT = 2
COUNTED = ("corpus", "class", "esc", "gender", "eis")


def _apply_neutral_rule(rule: str, custom: dict[str, Any]) -> None:
    """Set the EIS of a neutral utterance as ``neutral_eis`` of the recipe says; a second call changes nothing."""
    if rule == DECLARED or custom["esc"] != seqm.NEUTRAL:
        return
    own = custom.setdefault("eis_of_corpus", custom["eis"])
    custom["eis"] = seqm.NEUTRAL_EIS if rule == "metric" else own


class _SetWriter:
    """The cut sets of a fold while they are written, and their counts."""

    def __init__(self, folder: Path, names: Sequence[str], stack: ExitStack):
        self.files = {
            name: stack.enter_context(SequentialJsonlWriter(folder / f"{name}.jsonl.gz", overwrite=True))
            for name in names
        }
        self.counts: dict[str, dict[str, Counter[str]]] = {name: defaultdict(Counter) for name in names}

    def add(self, name: str, cut: MonoCut, class_name: str) -> None:
        self.files[name].write(cut)
        supervision = cut.supervisions[0]
        custom = supervision.custom
        eis = "specified" if seqm.is_specified(custom["eis"]) else "unspecified"
        for key, value in zip(COUNTED, (custom["corpus"], class_name, custom["esc"], supervision.gender, eis)):
            self.counts[name][key][str(value)] += 1

    def summary(self) -> dict[str, Any]:
        return {
            name: {
                "clips": sum(counters["corpus"].values()),
                **{key: dict(sorted(counters[key].items())) for key in COUNTED},
            }
            for name, counters in self.counts.items()
        }


class _Unifier:
    """The inputs of a recipe's folds, and the stage of each fold."""

    def __init__(self, recipe: Recipe, manifests: Path, fbank: Path, out_dir: Path):
        self.recipe = recipe
        self.cards = {name: load_card(manifests / name, name) for name in (recipe.target, *recipe.others)}
        for name, card in self.cards.items():
            if not card["labels"]:
                raise InputError(f"{name}: has no emotion labels, so it cannot be part of MsUD.")
        self.cuts = {name: load_cuts(fbank / name) for name in self.cards}
        self.inputs = [fbank / name for name in sorted(self.cards)]
        self.options = asdict(recipe)
        if not recipe.as_published:  # folds made before there were such switches are those of none
            del self.options["as_published"]
        self.options["corpora"] = sorted(self.cards)
        self.options["folds_file"] = recipe.folds_file and folds_file_digest(recipe.folds_file)
        self.options["left_out"] = [name for name in self.options.pop("recipe_corpora") if name not in self.cards]
        self.folder = out_dir / recipe.name
        self._stages: dict[int, tuple[Stage, bool]] = {}

    def stage(self, number: int) -> tuple[Stage, bool]:
        """The stage of a fold, and whether it needs to run, which is checked and logged once."""
        if number not in self._stages:
            title = f"{self.recipe.name}, fold {number}"
            options = {**self.options, "fold": number}
            stage = Stage("unify", title, self.folder / f"fold{number}", options, self.inputs, FORMAT)
            self._stages[number] = stage, stage.needs_run()
        return self._stages[number]

    def finished(self, folds: str) -> list[int] | None:
        """The numbers of the requested ``folds`` if all are done, without reading the clips; else None."""
        for path in sorted(self.folder.glob("fold*/msud.json")):
            try:
                note = read_json(path)
            except InputError as damaged:  # the fold is redone
                log.warning("%s", damaged)
                continue
            if self.stage(note["fold"])[1]:
                return None
            numbers = parse_numbers(folds, "fold", note["folds"])
            return None if any(self.stage(number)[1] for number in numbers) else numbers
        return None

    def write(self, number: int, partition: Partition, partition_digest: str) -> None:
        """Write the sets of a fold."""
        recipe, classes, stage = self.recipe, partition.classes, self.stage(number)[0]
        fold = partition.fold(number)
        with stage.replace_folder() as temporary:
            sets = self._write_sets(fold.sets, partition, temporary)
            note = {
                "name": recipe.name,
                "target": recipe.target,
                "protocol": recipe.protocol,
                "fold": number,
                "folds": len(partition.folds),
                "partition": partition_digest,
                "dev": partition.dev,
                "seed": recipe.seed,
                "corpora": sorted(name for name in self.cards if name != recipe.target or recipe.protocol != CROSS),
                "left_out": self.options["left_out"],
                "classes": list(classes.table.names),
                "class_esc": list(classes.table.categories),
                "classes_of": recipe.classes,
                "neutral_eis": recipe.neutral_eis,
                "use": dict(recipe.use),
                "as_published": list(recipe.as_published),
                "folds_file": recipe.folds_file and Path(recipe.folds_file).name,
                "target_esc": sorted(set(self.cards[recipe.target]["labels"].values())),
                "test_speakers_in_training": fold.shared_speakers,
                "tests": [name for name in sets if name.startswith(TEST)],
                "sets": sets,
            }
            without_gender = sets[TRAINING]["clips"] - sets[GENDER]["clips"]
            if without_gender:
                log.warning(
                    "%s: %d training clips have no gender and are not in the gender set", stage.title, without_gender
                )
            if recipe.as_published:
                switches = ", ".join(AS_PUBLISHED[name] for name in recipe.as_published)
                log.warning("%s: as published, not strict: %s", stage.title, switches)
            for warning in class_warnings(sets):
                log.warning("%s: %s", stage.title, warning)
            write_json(temporary / "msud.json", note)
            placed = sum(map(len, fold.sets.values()))
            stage.finish(temporary, placed + len(fold.drops), placed, fold.drops)

    def _write_sets(self, fold_sets: FoldSets, partition: Partition, folder: Path) -> dict[str, Any]:
        """Write the sets, each cut with its class and its EIS; returns the counts of each set."""
        classes = partition.classes
        names = {TRAINING, DEV, TEST, GENDER}.union(*(assigned.values() for assigned in fold_sets.values()))
        with ExitStack() as stack:
            writer = _SetWriter(folder, sorted(names), stack)
            for corpus, assigned in fold_sets.items():
                for cut in self.cuts[corpus]:
                    if cut.id not in assigned:
                        continue
                    custom = cut.supervisions[0].custom
                    _apply_neutral_rule(self.recipe.neutral_eis, custom)
                    custom["class"] = classes.class_number(custom)
                    shares = classes.class_shares(custom, self.recipe.used_categories(corpus))
                    if shares is not None:
                        custom["class_shares"] = shares
                    class_name = classes.table.names[custom["class"]]
                    writer.add(assigned[cut.id], cut, class_name)
                    if assigned[cut.id] == TEST and partition.dev == TEST:
                        writer.add(DEV, cut, class_name)
                    if assigned[cut.id] == TRAINING and cut.supervisions[0].gender is not None:
                        writer.add(GENDER, cut, class_name)
        return writer.summary()


def unify(recipe: Recipe, folds: str, manifests: Path, fbank: Path, out_dir: Path) -> list[int]:
    """Write the cut sets of ``folds`` (such as ``1 3-5`` or ``all``); returns the numbers of these folds.

    ``manifests`` and ``fbank`` hold one folder a corpus. The labels of a corpus come from its card. Raises InputError
    for a corpus without emotion labels, a protocol that it does not allow, or a leak.
    """
    unifier = _Unifier(recipe, manifests, fbank, out_dir)
    finished = unifier.finished(folds)
    if finished is not None:
        return finished
    partition = Partition(recipe, unifier.cards, unifier.cuts)
    keys = [read_json(path / STAMP)["key"] for path in unifier.inputs]
    partition_digest = digest([unifier.options, keys, [sorted(fold) for fold in partition.folds]])
    numbers = parse_numbers(folds, "fold", len(partition.folds))
    for number in numbers:
        stage, needs_run = unifier.stage(number)
        if not needs_run or stage.added_to_plan():
            continue
        with stage.locked() as is_missing:
            if is_missing:
                unifier.write(number, partition, partition_digest)
    return numbers


def load_fold(msud_dir: Path, fold: int) -> dict[str, Any]:
    """The ``msud.json`` of a fold; raises InputError if stage 3 has not written it."""
    folder = Path(msud_dir) / f"fold{fold}"
    require(folder, "unify")
    return read_json(folder / "msud.json")


def made_folds(msud_dir: Path, folds: str) -> list[int]:
    """The fold numbers in ``folds``; raises InputError if one of these folds is missing or out of date."""
    notes = [read_json(path) for path in Path(msud_dir).glob("fold*/msud.json")]
    if not notes:
        raise InputError(f"{msud_dir}: stage 3 (unify) has not been run; run it first, with --stage 3 --stop-stage 3.")
    # a fold left over from another partition may count more or fewer folds; load_fold checks whether it is current
    numbers = parse_numbers(folds, "fold", max(note["folds"] for note in notes))
    for number in numbers:
        load_fold(msud_dir, number)
    return numbers
