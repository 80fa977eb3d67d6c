"""A trained model over a set of cuts: what it says of every clip, and the scores of that.

Training uses it on the dev part, scoring on the test sets; neither knows the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lhotse.cut import Cut
from torch import nn

from speecheq import seqm
from speecheq.config.schema import GENDERS
from speecheq.dataset.batch import TaskBatch, scoring_batches
from speecheq.evaluation import metrics
from speecheq.losses import greedy_decode
from speecheq.models import clip_eis


@dataclass
class ClipPrediction:
    """One emotion clip: gold and predicted labels. ``posterior`` has one probability a class, by class number.

    ``embedding`` (D,) float16 is what the heads read, where it was asked for.
    """

    id: str
    corpus: str
    speaker: str
    gold_esc: int
    posterior: list[float]
    gold_eis: float
    predicted_eis: float
    gold_gender: str | None
    predicted_gender: str
    embedding: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def predicted_esc(self) -> int:
        return self.predicted_among(range(len(self.posterior)))

    def predicted_among(self, classes: Sequence[int]) -> int:
        """The most probable of these classes; the first of them where several are."""
        return max(classes, key=self.posterior.__getitem__)


@dataclass
class PhonePrediction:
    """One utterance: gold and decoded phone numbers."""

    id: str
    reference: list[int]
    hypothesis: list[int]


@torch.no_grad()
def predict_emotions(
    model: nn.Module,
    cuts: Sequence[Cut],
    batch_size: int,
    device: torch.device,
    embeddings: bool = False,
    of_waveforms: Callable[[TaskBatch], TaskBatch] | None = None,
) -> list[ClipPrediction]:
    """ESC, EIS (clipped to 0 to 4) and gender of every cut, and on request its embedding, in the order of ``cuts``.

    ``of_waveforms`` turns a mini-batch of waveforms on ``device`` into the features that the model hears; without it
    it hears the stored ones.
    """
    model.eval()
    by_id = {cut.id: cut for cut in cuts}
    found: dict[str, ClipPrediction] = {}
    for batch in scoring_batches("emotion", list(cuts), batch_size, of_waveforms is not None):
        batch = batch.to(device)
        if of_waveforms is not None:
            batch = of_waveforms(batch)
        predictions = model(batch.inputs, batch.lengths, tasks=("esc", "eis", "gender"))
        posteriors = predictions.esc_logits.float().softmax(1).tolist()
        eis = clip_eis(predictions.eis.float()).tolist()
        genders = predictions.gender_logits.argmax(1).tolist()
        vectors = predictions.embedding.half().cpu().numpy() if embeddings else [None] * len(batch.ids)
        for name, posterior, intensity, gender, vector in zip(batch.ids, posteriors, eis, genders, vectors):
            supervision = by_id[name].supervisions[0]
            found[name] = ClipPrediction(
                id=name,
                corpus=supervision.custom["corpus"],
                speaker=supervision.speaker,
                gold_esc=supervision.custom["class"],
                posterior=posterior,
                gold_eis=float(supervision.custom["eis"]),
                predicted_eis=intensity,
                gold_gender=supervision.gender,
                predicted_gender=GENDERS[gender],
                embedding=vector,
            )
    return [found[cut.id] for cut in cuts]


@torch.no_grad()
def predict_phones(
    model: nn.Module, cuts: Sequence[Cut], batch_size: int, device: torch.device
) -> list[PhonePrediction]:
    """The best-path phones of every cut, in the order of ``cuts``."""
    model.eval()
    found: dict[str, PhonePrediction] = {}
    for batch in scoring_batches("phoneme", list(cuts), batch_size):
        batch = batch.to(device)
        predictions = model(batch.inputs, batch.lengths, tasks=("phoneme",))
        decoded = greedy_decode(predictions.phoneme_logits, predictions.lengths)
        for name, gold, hypothesis in zip(batch.ids, batch.targets["phones"], decoded):
            found[name] = PhonePrediction(name, gold.tolist(), hypothesis)
    return [found[cut.id] for cut in cuts]


# The four that UAI is about (section 3.1): neutral, happy, angry, sad.
IMPORTANT = ("neutral", "joy", "anger", "sadness")


def emotion_scores(
    predictions: Sequence[ClipPrediction],
    genders: bool,
    classes: seqm.ClassTable = seqm.SEQM_CLASSES,
    intensities: bool = True,
) -> dict[str, float | None]:
    """wa, ua, uai; eis_mse, eis_ccc where the model was trained on them (``intensities``); so gender (accuracy)."""
    scores = metrics.esc_and_eis_scores(
        [p.gold_esc for p in predictions],
        [p.predicted_esc for p in predictions],
        *_intensities(predictions, intensities),
    )
    scores["uai"] = metrics.unweighted_accuracy(
        [p.gold_esc for p in predictions],
        [p.predicted_esc for p in predictions],
        [number for number, category in enumerate(classes.categories) if category in IMPORTANT],
    )
    known = [p for p in predictions if p.gold_gender is not None] if genders else []
    scores["gender"] = metrics.weighted_accuracy(
        [GENDERS.index(p.gold_gender) for p in known], [GENDERS.index(p.predicted_gender) for p in known]
    )
    return scores


def _intensities(predictions: Sequence[ClipPrediction], learned: bool) -> tuple[list[float], list[float]]:
    """Gold and predicted EIS; where it was not learned no clip has a gold one, so that nothing is scored."""
    return [p.gold_eis if learned else seqm.UNSPECIFIED for p in predictions], [p.predicted_eis for p in predictions]


def detailed_scores(
    predictions: Sequence[ClipPrediction],
    genders: bool,
    classes: seqm.ClassTable,
    own_classes: Sequence[int],
    intensities: bool = True,
) -> dict[str, float | None]:
    """What is said of a test set: ``emotion_scores``, and

    macro_f1; recall.<class>, precision.<class>; ece, the calibration error of the posteriors; eis_mae, eis_pearson;
    restricted_wa, restricted_ua, restricted_macro_f1, where the answer is the most probable of ``own_classes`` (the
    classes that the set's corpus has, by number) in place of all classes of the model.
    """
    gold, answers = [p.gold_esc for p in predictions], [p.predicted_esc for p in predictions]
    eis, predicted_eis = _intensities(predictions, intensities)
    restricted = [p.predicted_among(own_classes) for p in predictions]
    number = len(classes.names)
    each = metrics.class_scores(gold, answers, number)
    return {
        **emotion_scores(predictions, genders, classes, intensities),
        "macro_f1": metrics.macro_f1(gold, answers, number),
        "ece": metrics.calibration_error(gold, [p.posterior for p in predictions]),
        "eis_mae": metrics.mean_absolute_error(eis, predicted_eis),
        "eis_pearson": metrics.correlation(eis, predicted_eis),
        "restricted_wa": metrics.weighted_accuracy(gold, restricted),
        "restricted_ua": metrics.unweighted_accuracy(gold, restricted),
        "restricted_macro_f1": metrics.macro_f1(gold, restricted, number),
        **{f"recall.{name}": value for name, value in zip(classes.names, each.recall)},
        **{f"precision.{name}": value for name, value in zip(classes.names, each.precision)},
    }


def esc_loss(predictions: Sequence[ClipPrediction]) -> float:
    """The mean negative log posterior of the gold class, in nats: breaks ties between equal UA."""
    golds = torch.tensor([max(p.posterior[p.gold_esc], 1e-12) for p in predictions])
    return float(-golds.log().mean())


def phone_scores(predictions: Sequence[PhonePrediction]) -> dict[str, Any]:
    """per over all utterances."""
    return {"per": metrics.phone_error_rate([p.reference for p in predictions], [p.hypothesis for p in predictions])}
