"""Cross-corpus and cross-language tests (as in MTL-AUG): a model is scored on corpora that it was not trained on.

The classes are those that both corpora have, in terms of SEQM, and predictions are restricted to them. Corpora are
recorded at different levels, so a model with global normalisation is also scored with this difference removed.
Optionally, the model is first adapted to a few labelled clips of the other corpus.
"""

import copy
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lhotse.cut import Cut

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.config.schema import FBANK
from speecheq.corpora.prepared_corpus import load_card
from speecheq.dataset.batch import crop
from speecheq.dataset.classes import ClassMap, class_table
from speecheq.dataset.model_inputs import mean_and_deviation
from speecheq.dataset.msud_recipe import TEST, TRAINING, Recipe
from speecheq.dataset.unlabelled import unlabelled_cuts
from speecheq.evaluation.predictions import ClipPrediction, predict_emotions
from speecheq.evaluation.robustness.conditions import OTHER_CORPORA, SEED, Condition, Setting
from speecheq.evaluation.robustness.training_history import TrainingRecord
from speecheq.evaluation.robustness.white_box import gradients_in_eval_mode
from speecheq.evaluation.score import BestModel, label_set
from speecheq.features.storage import load_cuts, load_features
from speecheq.losses import focal_loss

# Of the adaptation (ours, not tuned): steps of Adam on mini-batches of the few clips, with fixed batch statistics.
STEPS, BATCH, LEARNING_RATE = 60, 16, 3e-4
LEVEL_MATCHED = (
    "level matched: one gain for all clips of the corpus brings their mean log filter bank to that of the training's "
    "clips; it is taken from the tested clips themselves, without their labels"
)
CORPUS_STATISTICS = (
    "corpus statistics: mean and standard deviation of the encoder's states are those of the tested clips themselves, "
    "without their labels, in place of those of the training's clips"
)
# The least posterior of an allowed class, so that classes ruled out by the model can be predicted.
MIN_POSTERIOR = 1e-12


class CommonClips(NamedTuple):
    """The cuts of a corpus whose class the model has learned, with the numbers of these classes.

    ``left_out`` counts the other clips by their ESC.
    """

    cuts: list[Cut]
    classes: list[int]
    left_out: Counter[str]


@dataclass(frozen=True)
class CorpusTrial:
    """All clips of each of ``corpora`` whose class the model has learned.

    ``manifests`` and ``fbank`` hold one folder per corpus. For each number of ``shots`` the model is also tested after
    adaptation to that many labelled clips of each class. The clips of the largest number are left out of all tests,
    so that all are over the same clips.
    """

    corpora: tuple[str, ...]
    manifests: Path
    fbank: Path
    shots: tuple[int, ...] = ()

    setting: Setting = OTHER_CORPORA
    input_stage: str = "features"

    @property
    def inputs(self) -> list[Path]:
        """The folders that are read besides the training."""
        return [self.fbank / name for name in self.corpora]

    @property
    def options(self) -> Mapping[str, Any]:
        """All settings that the scores depend on, besides the clips."""
        return {"corpora": list(self.corpora), "shots": sorted(self.shots), "seed": SEED}

    def predict(
        self, history: Sequence[TrainingRecord], msud: Mapping[str, Any], trained: BestModel
    ) -> tuple[dict[Condition, list[ClipPrediction]], dict[str, Any]]:
        """Predict all corpora; ``history`` is the model's ``training_history``, ``msud`` the msud.json of its fold.

        Raises InputError for a corpus that it was trained on, that has no class in common with it, or that has too few
        clips for ``shots``.

        Returns: the predictions under each condition, and the facts for ``conditions.write``.
        """
        learned, target = learned_classes(msud, trained.config.data.corpora), msud["target"]
        recipe = Recipe(target, msud["protocol"], (), classes=msud["classes_of"])
        classes = ClassMap(recipe, load_card(self.manifests / target, target))
        predictions: dict[Condition, list[ClipPrediction]] = {}
        notes = []
        for corpus in self.corpora:
            check_corpus_not_trained_on(corpus, history)
            common = select_common_clips(corpus, list(load_cuts(self.fbank / corpus)), classes, learned)
            check_not_unlabelled(common.cuts, history)
            found = self._predict_corpus(corpus, common, trained)
            predictions |= found
            names = ", ".join(classes.table.names[number] for number in common.classes)
            left_out = "".join(f"; {count} clips left out: {why}" for why, count in sorted(common.left_out.items()))
            tested = len(next(iter(found.values())))
            notes.append(f"{corpus}: {tested} clips, the answers are among {names}{left_out}")
            log.info("other corpora: %s", notes[-1])
        if trained.config.data.cmvn == "global":
            notes.append(LEVEL_MATCHED if trained.config.data.features == FBANK else CORPUS_STATISTICS)
        if self.shots:
            but_encoder = "" if trained.config.data.features == FBANK else " but those of the encoder"
            notes.append(
                f"adapted models: all weights{but_encoder}, {STEPS} steps of Adam at {LEARNING_RATE:g} on mini-batches "
                f"of {BATCH} of the labelled clips, drawn with seed {SEED}, batch statistics fixed (ours, not tuned); "
                "clips of the same speakers are tested"
            )
        return predictions, {**self.options, "notes": notes}

    def _predict_corpus(
        self, corpus: str, common: CommonClips, trained: BestModel
    ) -> dict[Condition, list[ClipPrediction]]:
        """The predictions of the model as it is, with matched level, and after adaptation."""
        few = choose_adaptation_clips(corpus, common.cuts, max(self.shots)) if self.shots else {}
        held_out = {cut.id for chosen in few.values() for cut in chosen}
        tested = [cut for cut in common.cuts if cut.id not in held_out]
        found = {self._condition(corpus, 0): _predict_among(trained, tested, common.classes)}
        if trained.config.data.cmvn == "global":
            matched, how = match_level(trained, tested), "level matched"
            if trained.config.data.features != FBANK:
                matched, how = match_statistics(trained, tested), "corpus statistics"
            found[self._condition(f"{corpus}, {how}", 0)] = _predict_among(matched, tested, common.classes)
        for shots in sorted(self.shots):
            adapted = adapt(trained, [cut for chosen in few.values() for cut in chosen[:shots]], common.classes)
            found[self._condition(corpus, shots)] = _predict_among(adapted, tested, common.classes)
        return found

    def _condition(self, curve: str, shots: int) -> Condition:
        return Condition(f"{curve}, {shots} clips a class", curve, float(shots)) if self.shots else Condition(curve)


def _predict_among(trained: BestModel, cuts: Sequence[Cut], classes: Sequence[int]) -> list[ClipPrediction]:
    size, inputs = trained.config.data.batch_size, trained.inputs_of(cuts)
    temperature = trained.calibration.temperature
    predictions = predict_emotions(trained.model, cuts, size, trained.device, inputs=inputs, temperature=temperature)
    return restrict_predictions(predictions, classes)


def match_level(trained: BestModel, cuts: Sequence[Cut]) -> BestModel:
    """A copy of the model whose global normalisation is shifted by one number, the same for all filter banks.

    It is the difference between the mean log filter bank of ``cuts``, over all frames, and that of the training.
    """
    model = copy.deepcopy(trained.model)
    sums = [(features.sum(dtype=torch.float64).item(), features.numel()) for features in map(load_features, cuts)]
    level = sum(total for total, _ in sums) / sum(number for _, number in sums)
    model.cmvn.mean += level - model.cmvn.mean.mean()
    return trained._replace(model=model)


def match_statistics(trained: BestModel, cuts: Sequence[Cut]) -> BestModel:
    """A copy of the model whose global mean and standard deviation are those of ``cuts``, over all frames."""
    model = copy.deepcopy(trained.model)
    mean, deviation = mean_and_deviation(trained.inputs, cuts, trained.config.data.batch_size, trained.device)
    model.cmvn.mean.copy_(mean)
    model.cmvn.deviation.copy_(deviation)
    return trained._replace(model=model)


def learned_classes(msud: Mapping[str, Any], corpora: str) -> list[str]:
    """The classes of the training clips: of all corpora, or only of the target (``corpora`` is "target")."""
    if corpora == "target":
        return label_set(msud, TEST)
    return [name for name in class_table(msud).names if msud["sets"][TRAINING]["class"].get(name)]


def check_corpus_not_trained_on(corpus: str, history: Sequence[TrainingRecord]) -> None:
    """Raises InputError if a model learned labels or phonemes of ``corpus`` in one of the trainings of ``history``."""
    latest = history[0]
    system = latest.run["system"]
    if corpus == latest.run["msud"]["target"]:
        raise InputError(f"{corpus}: is the target, which stage 5 scores; name another corpus.")
    for training in history:
        if corpus not in (*training.corpora, training.phoneme_corpus):
            continue
        what, remedy = "was trained on it", "a system that trains on the target only (data.corpora=target)"
        if corpus not in training.corpora:
            what, remedy = "learned phonemes from it", "a system that learns none (loss.beta=0)"
        if training is not latest:
            what, remedy = f"started from weights that {what} ({training.folder})", "a system that starts from others"
        raise InputError(f"{corpus}: {system} {what}; name a corpus that it does not know, or {remedy}.")


def check_not_unlabelled(cuts: Sequence[Cut], history: Sequence[TrainingRecord]) -> None:
    """Raises InputError if one of ``cuts`` was among the unlabelled speech of a training of ``history``."""
    for training in history:
        if "unlabelled" in training.run.get("sounds", {}):
            unlabelled_cuts(Path(training.run["sounds"]["unlabelled"]["manifests"]), cuts)


def select_common_clips(corpus: str, cuts: Sequence[Cut], classes: ClassMap, learned: Sequence[str]) -> CommonClips:
    """Select the cuts of the ``learned`` classes, and set their class numbers; raises InputError if there are none."""
    kept, left_out = [], Counter[str]()
    numbers = {classes.table.names.index(name) for name in learned}
    for cut in cuts:
        custom = cut.supervisions[0].custom
        number = None if custom["esc"] is None else classes.class_number(custom)
        if number in numbers:
            custom["class"] = number
            kept.append(cut)
        else:
            left_out[custom["esc"] or "no emotion label"] += 1
    if not kept:
        raise InputError(
            f"{corpus} ({', '.join(sorted(left_out)) or 'no clip'}) has no class in common with what "
            f"{classes.target} taught ({', '.join(learned)})."
        )
    return CommonClips(kept, sorted({cut.supervisions[0].custom["class"] for cut in kept}), left_out)


def choose_adaptation_clips(corpus: str, cuts: Sequence[Cut], most: int) -> dict[int, list[Cut]]:
    """``most`` random clips of each class, by class number; the first ones of them serve for smaller numbers.

    Raises InputError if a class has no more clips than that, so that none would be left to test.
    """
    by_class: dict[int, list[Cut]] = defaultdict(list)
    for cut in sorted(cuts, key=lambda cut: cut.id):
        by_class[cut.supervisions[0].custom["class"]].append(cut)
    for clips in by_class.values():
        if len(clips) <= most:
            raise InputError(
                f"{corpus}: has only {len(clips)} clips of {clips[0].supervisions[0].custom['esc']}, so "
                f"{most} to adapt to leave none to test; ask for fewer."
            )
        random.Random(f"{SEED} {corpus} adaptation").shuffle(clips)
    return {number: clips[:most] for number, clips in sorted(by_class.items())}


def adapt(trained: BestModel, cuts: Sequence[Cut], classes: Sequence[int]) -> BestModel:
    """A copy of the model that is trained on ``cuts`` with the cross-entropy over ``classes`` (numbers)."""
    model = copy.deepcopy(trained.model).eval()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    numbers, max_seconds = torch.tensor(classes), trained.config.data.max_seconds
    randomness = random.Random(f"{SEED} adaptation")
    inputs = trained.inputs_of(cuts)
    for _step in range(STEPS):
        chosen = randomness.sample(list(cuts), min(BATCH, len(cuts)))
        batch = inputs.collate("emotion", [crop(cut, max_seconds, randomness) for cut in chosen], trained.device)
        with gradients_in_eval_mode(trained.device):
            logits = model(batch.inputs, batch.lengths, tasks=("esc",)).esc_logits[:, numbers.to(trained.device)]
        targets = (batch.targets["esc"][:, None] == numbers).int().argmax(1)
        optimizer.zero_grad(set_to_none=True)
        focal_loss(logits, targets, gamma=0.0).backward()
        optimizer.step()
    return trained._replace(model=model)


def restrict_predictions(predictions: Sequence[ClipPrediction], classes: Sequence[int]) -> list[ClipPrediction]:
    """The predictions with posteriors over ``classes`` (numbers) only, as if there were no others."""
    restricted = []
    for prediction in predictions:
        posterior = enumerate(prediction.posterior)
        kept = [max(value, MIN_POSTERIOR) if number in classes else 0.0 for number, value in posterior]
        restricted.append(replace(prediction, posterior=[value / sum(kept) for value in kept]))
    return restricted
