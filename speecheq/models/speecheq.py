"""SpeechEQ (section 2.3, Figure 2): one backbone, four heads."""

from dataclasses import dataclass
from typing import Iterable, Optional

from torch import Tensor, nn

from speecheq.models.config import ModelConfig
from speecheq.models.ecapa import EcapaTdnn
from speecheq.models.masking import Frames
from speecheq.seqm import EIS_MAX, EIS_MIN

TASKS = ("phoneme", "gender", "esc", "eis")


@dataclass
class Predictions:
    """What the heads gave; None for a task that was not asked for."""

    lengths: Tensor  # (N,) valid frames, on the features' device
    phoneme_logits: Optional[Tensor] = None  # (N, T, num_phones), 100 frames a second
    gender_logits: Optional[Tensor] = None  # (N, num_genders)
    esc_logits: Optional[Tensor] = None  # (N, num_esc)
    eis: Optional[Tensor] = None  # (N,) the raw regression: see clip_eis
    embedding: Optional[Tensor] = None  # (N, embedding_dim), with any of gender, esc, eis


def clip_eis(eis: Tensor) -> Tensor:
    """The EIS scale's clip to [0, 4]: for scores; the loss takes the raw value, or gradients die."""
    return eis.clamp(EIS_MIN, EIS_MAX)


class SpeechEQ(nn.Module):
    """Backbone with heads for phonemes (each frame), gender, ESC and EIS (the pooled embedding)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config.validate()
        self.backbone = EcapaTdnn(config)
        self.dropout = nn.Dropout(config.dropout)
        self.phoneme_head = nn.Conv1d(config.mfa_channels, config.num_phones, 1)
        self.gender_head = nn.Linear(config.embedding_dim, config.num_genders)
        self.esc_head = nn.Linear(config.embedding_dim, config.num_esc)
        self.eis_head = nn.Linear(config.embedding_dim, 1)
        nn.init.constant_(self.eis_head.bias, (EIS_MIN + EIS_MAX) / 2)  # start in the middle of the scale
        nn.init.normal_(self.eis_head.weight, std=0.01)

    def forward(self, features: Tensor, lengths: Tensor, tasks: Iterable[str] = TASKS) -> Predictions:
        """Predict ``tasks`` for features (N, T, feature_dim), lengths (N,) in 1..T, best kept on the CPU.

        Only what the tasks need is computed: phonemes alone need no pooling, and with ``batch_statistics:
        per_stream`` they are normalised by the phoneme stream's statistics. ValueError for an unknown task.
        """
        tasks = set(tasks)
        if not tasks or tasks - set(TASKS):
            raise ValueError(f"tasks are {sorted(tasks)}; they must be some of {', '.join(TASKS)}")
        frames = Frames.of(lengths, features.shape[1], features.device, of_phonemes=tasks == {"phoneme"})
        aggregated = self.backbone.aggregate(features, frames)
        predictions = Predictions(frames.lengths)
        if "phoneme" in tasks:
            predictions.phoneme_logits = self.phoneme_head(self.dropout(aggregated)).transpose(1, 2)
        if tasks - {"phoneme"}:
            predictions.embedding = self.backbone.embed(aggregated, frames)
            heads_input = self.dropout(predictions.embedding)
            if "gender" in tasks:
                predictions.gender_logits = self.gender_head(heads_input)
            if "esc" in tasks:
                predictions.esc_logits = self.esc_head(heads_input)
            if "eis" in tasks:
                predictions.eis = self.eis_head(heads_input).squeeze(1)
        return predictions
