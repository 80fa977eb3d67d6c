"""The losses of equations 1 to 4 and of MTL-AUG, each computed in float32."""

from speecheq.losses.ccc import ccc, eis_loss
from speecheq.losses.ctc import CtcResult, ctc_loss, greedy_decode, resolve_ctc_backend
from speecheq.losses.emotion_ctc import FEWEST_EMITTED, emitted, emotion_ctc_loss
from speecheq.losses.focal import focal_loss, inverse_weights
from speecheq.losses.multitask import LossWeights, combine, reconstruction_loss

__all__ = [
    "CtcResult",
    "FEWEST_EMITTED",
    "LossWeights",
    "ccc",
    "combine",
    "ctc_loss",
    "eis_loss",
    "emitted",
    "emotion_ctc_loss",
    "focal_loss",
    "greedy_decode",
    "inverse_weights",
    "reconstruction_loss",
    "resolve_ctc_backend",
]
