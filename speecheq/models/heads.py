"""What all models share: a backbone, four heads on it, and what they predict."""

from dataclasses import dataclass
from typing import Callable, Iterable, Optional, Set

from torch import Tensor, nn

from speecheq.models.config import ModelConfig
from speecheq.models.convolution import Convolution
from speecheq.seqm import EIS_MAX, EIS_MIN

TASKS = ("phoneme", "gender", "esc", "eis")


@dataclass
class Predictions:
    """What the heads gave; None for a task that was not asked for."""

    lengths: Tensor  # (N,) valid frames of the phoneme logits, on the device of the lengths that the model was given
    phoneme_logits: Optional[Tensor] = None  # (N, T, num_phones), at the model's own frame rate
    gender_logits: Optional[Tensor] = None  # (N, num_genders)
    esc_logits: Optional[Tensor] = None  # (N, num_esc)
    eis: Optional[Tensor] = None  # (N,) the raw regression: see clip_eis
    embedding: Optional[Tensor] = None  # (N, embedding_dim), with any of gender, esc, eis


def clip_eis(eis: Tensor) -> Tensor:
    """The EIS scale's clip to [0, 4]: for scores; the loss takes the raw value, or gradients die."""
    return eis.clamp(EIS_MIN, EIS_MAX)


class FourHeads(nn.Module):
    """A backbone with heads for phonemes (each frame), gender, ESC and EIS (the pooled embedding)."""

    def __init__(self, config: ModelConfig, backbone: nn.Module, frame_channels: int):
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.dropout = nn.Dropout(config.dropout)
        self.phoneme_head = Convolution(frame_channels, config.num_phones)
        self.gender_head = nn.Linear(config.embedding_dim, config.num_genders)
        self.esc_head = nn.Linear(config.embedding_dim, config.num_esc)
        self.eis_head = nn.Linear(config.embedding_dim, 1)
        nn.init.constant_(self.eis_head.bias, (EIS_MIN + EIS_MAX) / 2)  # start in the middle of the scale
        nn.init.normal_(self.eis_head.weight, std=0.01)

    @staticmethod
    def checked(tasks: Iterable[str]) -> Set[str]:
        """``tasks`` as a set; ValueError for none or an unknown one."""
        tasks = set(tasks)
        if not tasks or tasks - set(TASKS):
            raise ValueError(f"tasks are {sorted(tasks)}; they must be some of {', '.join(TASKS)}")
        return tasks

    def predict(
        self, tasks: Set[str], lengths: Tensor, frame_level: Tensor, embed: Callable[[], Tensor]
    ) -> Predictions:
        """Predict ``tasks`` from the backbone's ``frame_level`` (N, T, C), ``lengths`` (N,), and what ``embed`` gives.

        ``embed`` () -> (N, embedding_dim) is called only where a task needs it.
        """
        predictions = Predictions(lengths)
        if "phoneme" in tasks:
            predictions.phoneme_logits = self.phoneme_head(self.dropout(frame_level))
        if tasks - {"phoneme"}:
            predictions.embedding = embed()
            heads_input = self.dropout(predictions.embedding)
            if "gender" in tasks:
                predictions.gender_logits = self.gender_head(heads_input)
            if "esc" in tasks:
                predictions.esc_logits = self.esc_head(heads_input)
            if "eis" in tasks:
                predictions.eis = self.eis_head(heads_input).squeeze(1)
        return predictions
