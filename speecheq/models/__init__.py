"""Models (section 2.3): they take features and know neither corpora nor lhotse."""

from torch import nn

from speecheq.models.config import ModelConfig
from speecheq.models.speecheq import TASKS, Predictions, SpeechEQ, clip_eis

__all__ = ["ModelConfig", "Predictions", "SpeechEQ", "TASKS", "build_model", "clip_eis"]


def build_model(config: ModelConfig) -> nn.Module:
    """The model that ``config`` describes; ValueError if a field is out of range."""
    return SpeechEQ(config.validate())
