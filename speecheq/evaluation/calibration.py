"""What the dev part says of a model's posteriors: their temperature, and the error rate above each threshold.

Temperature scaling divides the ESC logits by one number, with which the NLL of the dev part is lowest (Guo et al.,
*On Calibration of Modern Neural Networks*, 2017). It changes no predicted class. Clips whose posterior of the predicted
class is below a threshold can be left without an answer: each threshold has a coverage, the share of clips that are
answered, and an error rate among these (Geifman and El-Yaniv, *Selective Classification for Deep Neural Networks*,
2017).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from speecheq.common.errors import InputError
from speecheq.evaluation import metrics
from speecheq.evaluation.predictions import ClipPrediction

# A temperature, and the error rate above a threshold, rest on this many dev clips at least.
FEWEST_CLIPS = 20
LOWEST, HIGHEST = 0.05, 20.0  # temperatures
NOT_FITTED = "the model was trained by a version that fitted none"
DIGITS = 1e-12  # by which rounding may change a share


class RiskPoint(NamedTuple):
    """Dev clips whose posterior of the predicted class reaches ``threshold``: how many, and how many of them wrong."""

    threshold: float
    answered: int
    wrong: int

    @property
    def error_rate(self) -> float:
        return self.wrong / self.answered


@dataclass(frozen=True)
class DevCalibration:
    """The temperature of a model's ESC logits, and ``risks``: thresholds with falling coverage and error rate.

    Every threshold that is not in ``risks`` has an error rate as high as one with more coverage, or answers fewer than
    FEWEST_CLIPS clips. ``clips`` is the size of the dev part. ``reason`` says why the temperature is 1 and was not
    fitted; it is empty where it was.
    """

    temperature: float = 1.0
    clips: int = 0
    risks: tuple[RiskPoint, ...] = ()
    reason: str = NOT_FITTED

    def to_dict(self) -> dict[str, Any]:
        """The values as a checkpoint and JSON can hold them."""
        risks = [list(point) for point in self.risks]
        return {"temperature": self.temperature, "clips": self.clips, "risks": risks, "reason": self.reason}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> "DevCalibration":
        """What ``to_dict`` wrote; None: of a model without. Raises KeyError, TypeError or ValueError if damaged."""
        if values is None:
            return cls()
        temperature = float(values["temperature"])
        if not 0 < temperature < math.inf:
            raise ValueError(f"the temperature is {temperature:g}")
        risks = tuple(RiskPoint(float(at), int(answered), int(wrong)) for at, answered, wrong in values["risks"])
        if any(not 0 <= point.wrong <= point.answered or point.answered < 1 for point in risks):
            raise ValueError("a threshold has no error rate")
        return cls(temperature, int(values["clips"]), risks, str(values["reason"]))

    @property
    def title(self) -> str:
        """The temperature and where it is from."""
        return f"temperature {self.temperature:.3f}" + (f" ({self.reason})" if self.reason else "")

    def choose(self, error_rate: float) -> RiskPoint | None:
        """The point with the most answers of which at most the share ``error_rate`` is wrong; None if there is none."""
        return next((point for point in self.risks if point.error_rate <= error_rate + DIGITS), None)

    def require(self, error_rate: float) -> RiskPoint:
        """``choose``, with an InputError if no threshold has so low an error rate."""
        if not self.risks:
            raise InputError(
                f"no threshold is known for an error rate of {100 * error_rate:g} %: {self.reason}; leave --reject "
                f"out, or train with a dev part of at least {FEWEST_CLIPS} clips of several classes."
            )
        point, least = self.choose(error_rate), self.risks[-1]
        if point is None:
            raise InputError(
                f"an error rate of {100 * error_rate:g} % cannot be reached: on the model's held-out clips no "
                f"threshold that answers {FEWEST_CLIPS} clips or more has below {100 * least.error_rate:.1f} % "
                f"({least.wrong} wrong of {least.answered} answered, of {self.clips} clips); ask for that or more."
            )
        return point


def fit_calibration(predictions: Sequence[ClipPrediction], clips_are: str = "the dev part") -> DevCalibration:
    """The temperature and the thresholds of predictions of held-out clips, which have logits.

    ``clips_are`` says in sentences which clips they are.

    With too few clips, or clips of one class, there is neither. Where all clips are right the NLL falls with the
    temperature without end, so it stays 1; so it does where it would be below 1.
    """
    clips = len(predictions)
    gold = np.array([p.gold_esc for p in predictions], dtype=np.int64)
    if clips < FEWEST_CLIPS:
        return DevCalibration(
            clips=clips, reason=f"{clips_are} has {clips} clips, fewer than the {FEWEST_CLIPS} that a fit needs"
        )
    if len(set(gold.tolist())) < 2:
        return DevCalibration(clips=clips, reason=f"all clips of {clips_are} are of one class")
    logits = np.array([p.logits for p in predictions], dtype=np.float64)
    if not np.isfinite(logits).all():
        return DevCalibration(clips=clips, reason=f"the logits of {clips_are} are not finite")
    correct = logits.argmax(1) == gold
    temperature, reason = 1.0, f"all clips of {clips_are} are right, with which no temperature is best"
    if not correct.all():
        temperature, reason = _fit_temperature(logits, gold), ""
    if temperature < 1:
        # measured on unheard speakers: such a temperature makes them too sure (docs/statistics.md)
        temperature, reason = 1.0, f"the temperature of {clips_are} is below 1, and posteriors are never made sharper"
    confidence = np.exp(_log_softmax(logits / temperature)).max(1)
    return DevCalibration(temperature, clips, tuple(_risks(correct, confidence)), reason)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    """(clips, classes) -> the logarithms of the posteriors, (clips, classes)."""
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def _fit_temperature(logits: np.ndarray, gold: np.ndarray) -> float:
    """The temperature from LOWEST to HIGHEST with the lowest NLL of logits (clips, classes), gold (clips,).

    The NLL is convex in the inverse of the temperature, so it has one minimum.
    """
    from scipy.optimize import minimize_scalar  # a tenth of all that prediction, which needs no fit, would import

    rows = np.arange(len(gold))

    def nll(log_temperature: float) -> float:
        return float(-_log_softmax(logits / math.exp(log_temperature))[rows, gold].mean())

    bounds = (math.log(LOWEST), math.log(HIGHEST))
    return math.exp(minimize_scalar(nll, bounds=bounds, method="bounded", options={"xatol": 1e-5}).x)


def _risks(correct: np.ndarray, confidence: np.ndarray) -> list[RiskPoint]:
    """The thresholds of ``DevCalibration.risks``, from ``correct`` and ``confidence`` (clips,).

    A threshold lies halfway to the next lower confidence, so that rounding does not move a clip across it. The lowest
    is 0: it answers whatever comes.
    """
    order = np.argsort(-confidence, kind="stable")
    falling, wrong = confidence[order], np.cumsum(~correct[order])
    points: list[RiskPoint] = []
    for answered in range(len(order), FEWEST_CLIPS - 1, -1):
        below = falling[answered] if answered < len(order) else -math.inf
        last = falling[answered - 1]
        if last == below:  # one threshold answers both or none
            continue
        if not points or wrong[answered - 1] / answered < points[-1].error_rate - DIGITS:
            threshold = (last + below) / 2 if answered < len(order) else 0.0
            points.append(RiskPoint(float(threshold), answered, int(wrong[answered - 1])))
    return points


def calibration_scores(predictions: Sequence[ClipPrediction], temperature: float) -> dict[str, float | None]:
    """The metrics nll of ``predictions``, in nats, and ece_uncalibrated and nll_uncalibrated at temperature 1.

    ``predictions`` have logits; their posteriors are those at ``temperature``.
    """
    if not predictions:
        return dict.fromkeys(("nll", "ece_uncalibrated", "nll_uncalibrated"))
    gold = np.array([p.gold_esc for p in predictions], dtype=np.int64)
    logits = np.array([p.logits for p in predictions], dtype=np.float64)
    rows = np.arange(len(gold))
    after, before = _log_softmax(logits / temperature), _log_softmax(logits)
    return {
        "nll": float(-after[rows, gold].mean()),
        "ece_uncalibrated": metrics.calibration_error(gold.tolist(), np.exp(before).tolist()),
        "nll_uncalibrated": float(-before[rows, gold].mean()),
    }
