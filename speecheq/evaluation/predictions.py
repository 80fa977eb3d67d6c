"""The predictions of a trained model for a set of cuts, and their metrics.

Used on the dev part in training and on the test sets in scoring.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from lhotse.cut import Cut
from torch import nn

from speecheq import seqm
from speecheq.config.schema import GENDERS
from speecheq.dataset.model_inputs import ModelInputs
from speecheq.dataset.phones.lattice import nearest
from speecheq.evaluation import metrics
from speecheq.losses import greedy_decode
from speecheq.models import clip_eis

# The categories of UAI (section 3.1): neutral, happy, angry, sad.
UAI_CATEGORIES = ("neutral", "joy", "anger", "sadness")


@dataclass
class ClipPrediction:
    """The gold and predicted labels of one emotion clip.

    ``posterior`` has one probability per class, by class number; ``logits`` are those of the model, of which it is the
    softmax at the model's temperature, None where they are not known. ``embedding`` (D,) float16 is the input of the
    heads, where it is asked for.
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
    logits: list[float] | None = field(default=None, repr=False, compare=False)

    @property
    def predicted_esc(self) -> int:
        return self.predicted_among(range(len(self.posterior)))

    def predicted_among(self, classes: Sequence[int]) -> int:
        """The most probable of ``classes``; the first of them in a tie."""
        return max(classes, key=self.posterior.__getitem__)


@dataclass
class PhonePrediction:
    """One utterance: gold and decoded phone numbers; of several pronunciations the gold one is the nearest."""

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
    inputs: ModelInputs = ModelInputs(),
    temperature: float = 1.0,
) -> list[ClipPrediction]:
    """ESC, EIS (clipped to 0 to 4) and gender of every cut, and on request its embedding, in the order of ``cuts``.

    ``temperature`` is that of the posteriors of ESC.
    """
    model.eval()
    by_id = {cut.id: cut for cut in cuts}
    found: dict[str, ClipPrediction] = {}
    for batch in inputs.batches("emotion", cuts, batch_size, device):
        predictions = model(batch.inputs, batch.lengths, tasks=("esc", "eis", "gender"))
        logits = predictions.esc_logits.float()
        posteriors = (logits / temperature).softmax(1).tolist()
        eis = clip_eis(predictions.eis.float()).tolist()
        genders = predictions.gender_logits.argmax(1).tolist()
        vectors = predictions.embedding.half().cpu().numpy() if embeddings else [None] * len(batch.ids)
        rows = zip(batch.ids, posteriors, eis, genders, vectors, logits.tolist())
        for name, posterior, intensity, gender, vector, values in rows:
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
                logits=values,
            )
    return [found[cut.id] for cut in cuts]


@torch.no_grad()
def predict_phones(
    model: nn.Module,
    cuts: Sequence[Cut],
    batch_size: int,
    device: torch.device,
    inputs: ModelInputs = ModelInputs(),
    pause: int | None = None,
) -> list[PhonePrediction]:
    """The best-path phones of every cut, in the order of ``cuts``, without the label ``pause``.

    Where stage 3 wrote all pronunciations, the reference is the nearest of them.
    """
    model.eval()
    found: dict[str, PhonePrediction] = {}
    for batch in inputs.batches("phoneme", cuts, batch_size, device):
        predictions = model(batch.inputs, batch.lengths, tasks=("phoneme",))
        decoded = greedy_decode(predictions.phoneme_logits, predictions.lengths, pause)
        references = [phones.tolist() for phones in batch.targets["phones"]]
        if "words" in batch.targets:
            references = [nearest(words, path) for words, path in zip(batch.targets["words"], decoded)]
        for name, gold, hypothesis in zip(batch.ids, references, decoded):
            found[name] = PhonePrediction(name, gold, hypothesis)
    return [found[cut.id] for cut in cuts]


def _gold_and_predicted(predictions: Sequence[ClipPrediction]) -> tuple[list[int], list[int]]:
    return [p.gold_esc for p in predictions], [p.predicted_esc for p in predictions]


def _gold_and_predicted_eis(predictions: Sequence[ClipPrediction], learned: bool) -> tuple[list[float], list[float]]:
    """Where EIS was not learned, no clip has a gold one, so its metrics are None."""
    return [p.gold_eis if learned else seqm.UNSPECIFIED for p in predictions], [p.predicted_eis for p in predictions]


def emotion_scores(
    predictions: Sequence[ClipPrediction],
    genders: bool,
    classes: seqm.ClassTable = seqm.SEQM_CLASSES,
    intensities: bool = True,
) -> dict[str, float | None]:
    """The metrics wa, ua, uai, eis_mse, eis_ccc and gender (accuracy).

    ``genders`` and ``intensities`` are whether the model learned gender and EIS; otherwise these metrics are None.
    """
    gold, predicted = _gold_and_predicted(predictions)
    scores = metrics.esc_and_eis_scores(gold, predicted, *_gold_and_predicted_eis(predictions, intensities))
    important = [number for number, category in enumerate(classes.categories) if category in UAI_CATEGORIES]
    scores["uai"] = metrics.unweighted_accuracy(gold, predicted, important)
    pairs = [(p.gold_gender, p.predicted_gender) for p in predictions if genders and p.gold_gender is not None]
    scores["gender"] = metrics.weighted_accuracy(
        [GENDERS.index(gold) for gold, _ in pairs], [GENDERS.index(predicted) for _, predicted in pairs]
    )
    return scores


def detailed_scores(
    predictions: Sequence[ClipPrediction],
    genders: bool,
    classes: seqm.ClassTable,
    own_classes: Sequence[int],
    intensities: bool = True,
) -> dict[str, float | None]:
    """All metrics of a test set: ``emotion_scores``, macro_f1, ece, eis_mae, eis_pearson, and

    - recall.<class> and precision.<class>;
    - restricted_wa, restricted_ua, restricted_macro_f1, where the prediction is the most probable of ``own_classes``,
      the class numbers that the corpus of the test set has.
    """
    gold, predicted = _gold_and_predicted(predictions)
    eis, predicted_eis = _gold_and_predicted_eis(predictions, intensities)
    restricted = [p.predicted_among(own_classes) for p in predictions]
    number = len(classes.names)
    per_class = metrics.class_scores(gold, predicted, number)
    return {
        **emotion_scores(predictions, genders, classes, intensities),
        "macro_f1": metrics.macro_f1(gold, predicted, number),
        "ece": metrics.calibration_error(gold, [p.posterior for p in predictions]),
        "eis_mae": metrics.mean_absolute_error(eis, predicted_eis),
        "eis_pearson": metrics.correlation(eis, predicted_eis),
        "restricted_wa": metrics.weighted_accuracy(gold, restricted),
        "restricted_ua": metrics.unweighted_accuracy(gold, restricted),
        "restricted_macro_f1": metrics.macro_f1(gold, restricted, number),
        **{f"recall.{name}": value for name, value in zip(classes.names, per_class.recall)},
        **{f"precision.{name}": value for name, value in zip(classes.names, per_class.precision)},
    }


def esc_loss(predictions: Sequence[ClipPrediction]) -> float:
    """The mean negative log posterior of the gold class, in nats. It decides between epochs of the same UA."""
    gold_posteriors = torch.tensor([max(p.posterior[p.gold_esc], 1e-12) for p in predictions])
    return float(-gold_posteriors.log().mean())


def phone_scores(predictions: Sequence[PhonePrediction]) -> dict[str, float | None]:
    """The metric per, over all utterances."""
    return {"per": metrics.phone_error_rate([p.reference for p in predictions], [p.hypothesis for p in predictions])}
