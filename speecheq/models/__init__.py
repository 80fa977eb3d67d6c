"""Models (section 2.3): they take features and depend on neither corpora nor lhotse."""

from collections.abc import Callable

from torch import nn

from speecheq.config.schema import ModelConfig
from speecheq.models.attention_ctc import AttentionCtc
from speecheq.models.baseline import Baseline
from speecheq.models.cnn_blstm import CnnBlstm
from speecheq.models.head_fusion import HeadFusion
from speecheq.models.heads import TASKS, Predictions, clip_eis
from speecheq.models.hgfm import Hgfm
from speecheq.models.light import Fusion, Light
from speecheq.models.multihead_gender import MultiheadGender
from speecheq.models.speecheq import SpeechEQ

__all__ = [
    "AttentionCtc",
    "Baseline",
    "CnnBlstm",
    "Fusion",
    "HeadFusion",
    "Hgfm",
    "Light",
    "MultiheadGender",
    "Predictions",
    "SpeechEQ",
    "TASKS",
    "build_model",
    "clip_eis",
]

KINDS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "speecheq": SpeechEQ,
    "baseline": Baseline,
    "cnn_blstm": CnnBlstm,
    "light": Light,
    "fusion": Fusion,
    "attention_ctc": AttentionCtc,
    "hgfm": Hgfm,
    "multihead_gender": MultiheadGender,
    "head_fusion": HeadFusion,
}


def build_model(config: ModelConfig) -> nn.Module:
    """Build the model that ``config`` describes. Raises ValueError if a field is out of range."""
    return KINDS[config.validate().kind](config)
