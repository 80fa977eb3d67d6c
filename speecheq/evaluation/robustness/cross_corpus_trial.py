"""Other corpora, also of other languages: a trained model scored on corpora that it was not trained on.

MTL-AUG's setting "cross-corpus and cross-language". The classes are those that both have, in the terms of SEQM; the
model answers among them. Corpora are recorded at levels of their own, so a model that is normalised by its training's
statistics is scored a second time with that difference taken away. As an option it is adapted first, by a few labelled
clips of the other corpus.
"""

import copy
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lhotse.cut import Cut

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.corpora.prepared_corpus import load_card
from speecheq.dataset.batch import collate, crop
from speecheq.dataset.classes import ClassMap, class_table
from speecheq.dataset.msud_recipe import TEST, TRAINING, Recipe
from speecheq.dataset.unlabelled import unlabelled_cuts
from speecheq.evaluation.predictions import ClipPrediction, predict_emotions
from speecheq.evaluation.robustness.conditions import OTHER_CORPORA, Condition, Setting
from speecheq.evaluation.robustness.training_history import Training
from speecheq.evaluation.robustness.white_box import gradients_in_eval_mode
from speecheq.evaluation.score import BestModel, label_set
from speecheq.features.storage import load_cuts, load_features
from speecheq.losses import focal_loss

SEED = 0
# Of adaptation, ours and not tuned: steps of Adam on mini-batches of the few clips, with the batch statistics fixed.
STEPS, BATCH, LEARNING_RATE = 60, 16, 3e-4
LEVEL_MATCHED = (
    "level matched: one gain for all clips of the corpus brings their mean log filter bank to that of the training's "
    "clips; it is taken from the tested clips themselves, without their labels"
)
# A class that the model all but rules out still has a probability.
LEAST = 1e-12


@dataclass(frozen=True)
class CorpusTrial:
    """All clips of each of ``corpora`` whose class the model has learned.

    ``manifests`` and ``fbank`` hold one folder a corpus. ``shots``: so many labelled clips of each class adapt the
    model first, each number in a trial of its own, beside the model as it is. The clips for the largest number are left
    out of all tests, so that all are of the same clips.
    """

    corpora: tuple[str, ...]
    manifests: Path
    fbank: Path
    shots: tuple[int, ...] = ()

    setting: Setting = OTHER_CORPORA
    inputs_of: str = "features"  # the stage

    @property
    def inputs(self) -> list[Path]:
        """What is read beside the training."""
        return [self.fbank / name for name in self.corpora]

    @property
    def options(self) -> Mapping[str, Any]:
        """All that decides what comes out, but for the clips."""
        return {"corpora": list(self.corpora), "shots": sorted(self.shots), "seed": SEED}

    def said(
        self, heard: Sequence[Training], note: Mapping[str, Any], trained: BestModel
    ) -> tuple[dict[Condition, list[ClipPrediction]], dict[str, Any]]:
        """What ``trained`` says under each condition, and the facts of how that was made.

        ``heard`` are its ``trainings``, ``note`` is what msud.json of its fold says. InputError for a corpus that it
        was trained on, that has no class in common with it, or too few clips for ``shots``.
        """
        learned, target = learned_classes(note, trained.config.data.corpora), note["target"]
        classes = ClassMap(
            Recipe(target, note["protocol"], (), classes=note["classes_of"]), load_card(self.manifests / target, target)
        )
        found: dict[Condition, list[ClipPrediction]] = {}
        notes = []
        for corpus in self.corpora:
            check_unheard(corpus, heard)
            cuts, common, dropped = clips_of(corpus, list(load_cuts(self.fbank / corpus)), classes, learned)
            for training in heard:
                if "unlabelled" in training.run.get("sounds", {}):
                    unlabelled_cuts(Path(training.run["sounds"]["unlabelled"]["manifests"]), cuts)
            few = few_of(corpus, cuts, max(self.shots)) if self.shots else {}
            kept_out = {cut.id for chosen in few.values() for cut in chosen}
            tested = [cut for cut in cuts if cut.id not in kept_out]
            for shots in (0, *sorted(self.shots)) if self.shots else (0,):
                model = trained
                if shots:
                    model = adapted(trained, [cut for chosen in few.values() for cut in chosen[:shots]], common)
                condition = Condition(corpus)
                if self.shots:
                    condition = Condition(f"{corpus}, {shots} clips a class", corpus, float(shots))
                found[condition] = _answers(model, tested, common)
                if not shots and trained.config.data.cmvn == "global":
                    found[_of_matched(condition, corpus)] = _answers(level_matched(trained, tested), tested, common)
            names = ", ".join(classes.table.names[number] for number in common)
            left_out = "".join(f"; {count} clips left out: {why}" for why, count in sorted(dropped.items()))
            notes.append(f"{corpus}: {len(tested)} clips, the answers are among {names}{left_out}")
            log.info("other corpora: %s", notes[-1])
        if trained.config.data.cmvn == "global":
            notes.append(LEVEL_MATCHED)
        if self.shots:
            notes.append(
                f"adapted models: all weights, {STEPS} steps of Adam at {LEARNING_RATE:g} on mini-batches of {BATCH} "
                f"of the labelled clips, drawn with seed {SEED}, batch statistics fixed (ours, not tuned); clips of "
                "the same speakers are tested"
            )
        return found, {**self.options, "notes": notes}


def _of_matched(condition: Condition, corpus: str) -> Condition:
    """That of ``level_matched`` beside a condition of the model as it is."""
    curve = f"{corpus}, level matched"
    return replace(condition, name=curve + condition.name[len(corpus) :], curve=condition.curve and curve)


def _answers(trained: BestModel, cuts: Sequence[Cut], classes: Sequence[int]) -> list[ClipPrediction]:
    size = trained.config.data.batch_size
    return answers_among(classes, predict_emotions(trained.model, cuts, size, trained.device))


def level_matched(trained: BestModel, cuts: Sequence[Cut]) -> BestModel:
    """A copy whose global normalisation is moved by one number, the same for all filter banks: the difference between
    the mean log filter bank of ``cuts``, over all their frames, and that of the training."""
    model = copy.deepcopy(trained.model)
    sums = [(features.sum(dtype=torch.float64).item(), features.numel()) for features in map(load_features, cuts)]
    level = sum(of for of, _ in sums) / sum(number for _, number in sums)
    model.cmvn.mean += level - model.cmvn.mean.mean()
    return trained._replace(model=model)


def learned_classes(note: Mapping[str, Any], corpora: str) -> list[str]:
    """The classes that a system has learned: of all training clips, or (``corpora`` is target) of the target's."""
    if corpora == "target":
        return label_set(note, TEST)
    return [name for name in class_table(note).names if note["sets"][TRAINING]["class"].get(name)]


def check_unheard(corpus: str, heard: Sequence[Training]) -> None:
    """InputError where a system learned from clips of ``corpus``, in its own training or one before (``trainings``)."""
    system = heard[0].run["system"]
    if corpus == heard[0].run["msud"]["target"]:
        raise InputError(f"{corpus}: is the target, which stage 5 scores; name another corpus.")
    for training in heard:
        if corpus not in (*training.corpora, training.phoneme_corpus):
            continue
        what, remedy = "was trained on it", "a system that trains on the target only (data.corpora=target)"
        if corpus not in training.corpora:
            what, remedy = "learned phonemes from it", "a system that learns none (loss.beta=0)"
        if training is not heard[0]:
            what, remedy = f"started from weights that {what} ({training.folder})", "a system that starts from others"
        raise InputError(f"{corpus}: {system} {what}; name a corpus that it does not know, or {remedy}.")


def clips_of(
    corpus: str, cuts: Sequence[Cut], classes: ClassMap, learned: Sequence[str]
) -> tuple[list[Cut], list[int], Counter]:
    """The cuts of ``corpus`` whose class is one of ``learned``, these classes by number, and who is left out, why.

    Each cut is given its class number. InputError where there is none.
    """
    kept, dropped = [], Counter()
    numbers = {classes.table.names.index(name) for name in learned}
    for cut in cuts:
        custom = cut.supervisions[0].custom
        number = None if custom["esc"] is None else classes.class_number(custom)
        if number in numbers:
            custom["class"] = number
            kept.append(cut)
        else:
            dropped[custom["esc"] or "no emotion label"] += 1
    if not kept:
        raise InputError(
            f"{corpus} ({', '.join(sorted(dropped)) or 'no clip'}) has no class in common with what "
            f"{classes.target} taught ({', '.join(learned)})."
        )
    return kept, sorted({cut.supervisions[0].custom["class"] for cut in kept}), dropped


def few_of(corpus: str, cuts: Sequence[Cut], most: int) -> dict[int, list[Cut]]:
    """``most`` random clips of each class, by class, in an order of which the first ones serve for smaller numbers.

    InputError where a class has no more than that, so that none would be left to test.
    """
    of_class: dict[int, list[Cut]] = defaultdict(list)
    for cut in sorted(cuts, key=lambda cut: cut.id):
        of_class[cut.supervisions[0].custom["class"]].append(cut)
    for clips in of_class.values():
        if len(clips) <= most:
            raise InputError(
                f"{corpus}: has only {len(clips)} clips of {clips[0].supervisions[0].custom['esc']}, so "
                f"{most} to adapt to leave none to test; ask for fewer."
            )
        random.Random(f"{SEED} {corpus} adaptation").shuffle(clips)
    return {number: clips[:most] for number, clips in sorted(of_class.items())}


def adapted(trained: BestModel, cuts: Sequence[Cut], classes: Sequence[int]) -> BestModel:
    """A copy of the model that has learned from ``cuts`` with cross-entropy over ``classes`` (numbers)."""
    model = copy.deepcopy(trained.model).eval()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    among, config = torch.tensor(classes), trained.config.data
    randomness = random.Random(f"{SEED} adaptation")
    for _step in range(STEPS):
        chosen = randomness.sample(list(cuts), min(BATCH, len(cuts)))
        batch = collate("emotion", [crop(cut, config.max_seconds, randomness) for cut in chosen]).to(trained.device)
        with gradients_in_eval_mode(trained.device):
            logits = model(batch.inputs, batch.lengths, tasks=("esc",)).esc_logits[:, among.to(trained.device)]
        places = (batch.targets["esc"][:, None] == among).int().argmax(1)
        optimizer.zero_grad(set_to_none=True)
        focal_loss(logits, places, gamma=0.0).backward()
        optimizer.step()
    return trained._replace(model=model)


def answers_among(classes: Sequence[int], predictions: Sequence[ClipPrediction]) -> list[ClipPrediction]:
    """The same with posteriors over ``classes`` (numbers) only, as if the others did not exist."""
    made = []
    for prediction in predictions:
        kept = [max(value, LEAST) if number in classes else 0.0 for number, value in enumerate(prediction.posterior)]
        made.append(replace(prediction, posterior=[value / sum(kept) for value in kept]))
    return made
