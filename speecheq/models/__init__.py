"""Models (section 2.3): they take features and depend on neither corpora nor lhotse."""

from torch import nn

from speecheq.config.schema import ModelConfig
from speecheq.models.baseline import Baseline
from speecheq.models.cnn_blstm import CnnBlstm
from speecheq.models.heads import TASKS, Predictions, clip_eis
from speecheq.models.light import Fusion, Light
from speecheq.models.speecheq import SpeechEQ

__all__ = ["Baseline", "CnnBlstm", "Fusion", "Light", "Predictions", "SpeechEQ", "TASKS", "build_model", "clip_eis"]


def build_model(config: ModelConfig) -> nn.Module:
    """Build the model that ``config`` describes. Raises ValueError if a field is out of range."""
    kinds = {"speecheq": SpeechEQ, "baseline": Baseline, "cnn_blstm": CnnBlstm, "light": Light, "fusion": Fusion}
    return kinds[config.validate().kind](config)
