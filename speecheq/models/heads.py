"""What all models share: a backbone, its heads, and what they predict.

Four heads are SpeechEQ's; two more, which need no labels, are MTL-AUG's and exist where the settings ask for them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from speecheq.config.schema import ModelConfig
from speecheq.models.convolution import Convolution
from speecheq.seqm import EIS_MAX, EIS_MIN

TASKS = ("phoneme", "gender", "esc", "eis")


@dataclass
class Predictions:
    """What the heads gave; None for a task that was not asked for."""

    lengths: Tensor  # (N,) valid frames of the phoneme logits, on the device of the lengths that the model was given
    phoneme_logits: Tensor | None = None  # (N, T, num_phones), at the model's own frame rate
    gender_logits: Tensor | None = None  # (N, num_genders)
    esc_logits: Tensor | None = None  # (N, num_esc)
    eis: Tensor | None = None  # (N,) the raw regression: see clip_eis
    augmentation_logits: Tensor | None = None  # (N, num_augmentations)
    reconstruction: Tensor | None = None  # (N, T, feature_dim), at the features' frame rate, normalised as they are
    embedding: Tensor | None = None  # (N, embedding_dim), with any of gender, esc, eis, augmentation


def clip_eis(eis: Tensor) -> Tensor:
    """The EIS scale's clip to [0, 4]: for scores; the loss takes the raw value, or gradients die."""
    return eis.clamp(EIS_MIN, EIS_MAX)


class FrameDecoder(nn.Module):
    """MTL-AUG's decoder: the features of a frame from the encoder's output there, through a narrow layer.

    It sees one frame of the output at a time: what surrounds it has to be known to the encoder. Where the encoder
    makes one frame of several, each gives as many.
    """

    def __init__(self, frame_channels: int, channels: int, feature_dim: int, frames_each: int = 1):
        super().__init__()
        self.frames_each = frames_each
        self.narrow = Convolution(frame_channels, channels, relu=True)
        self.features = Convolution(channels, frames_each * feature_dim)

    def forward(self, frame_level: Tensor, num_frames: int) -> Tensor:
        """Frame level (N, T / frames_each, C) -> features (N, T, feature_dim), T being ``num_frames``."""
        made = self.features(self.narrow(frame_level))
        return made.reshape(len(made), made.shape[1] * self.frames_each, -1)[:, :num_frames]


class MultitaskHeads(nn.Module):
    """A backbone with heads for phonemes (each frame), gender, ESC and EIS (the pooled embedding).

    With ``num_augmentations`` there is one for the type of augmentation (the embedding), with ``decoder_channels`` a
    decoder (each frame). ``frames_each`` frames of the features are one of the backbone's frame level.
    """

    def __init__(self, config: ModelConfig, backbone: nn.Module, frame_channels: int, frames_each: int = 1):
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
        self.known_tasks = TASKS
        if config.num_augmentations:
            self.augmentation_head = nn.Linear(config.embedding_dim, config.num_augmentations)
            self.known_tasks += ("augmentation",)
        if config.decoder_channels:
            self.decoder = FrameDecoder(frame_channels, config.decoder_channels, config.feature_dim, frames_each)
            self.known_tasks += ("reconstruction",)

    def checked(self, tasks: Iterable[str]) -> set[str]:
        """``tasks`` as a set; ValueError for none or one that there is no head for."""
        tasks = set(tasks)
        if not tasks or tasks - set(self.known_tasks):
            raise ValueError(f"tasks are {sorted(tasks)}; they must be some of {', '.join(self.known_tasks)}")
        return tasks

    def predict(
        self, tasks: set[str], lengths: Tensor, num_frames: int, frame_level: Tensor, embed: Callable[[], Tensor]
    ) -> Predictions:
        """Predict ``tasks`` from the backbone's ``frame_level`` (N, T, C), ``lengths`` (N,), and what ``embed`` gives.

        The features had ``num_frames`` frames. ``embed`` () -> (N, embedding_dim) is called only where a task needs it.
        """
        predictions = Predictions(lengths)
        if "phoneme" in tasks:
            predictions.phoneme_logits = self.phoneme_head(self.dropout(frame_level))
        if "reconstruction" in tasks:
            predictions.reconstruction = self.decoder(frame_level, num_frames)
        if tasks - {"phoneme", "reconstruction"}:
            predictions.embedding = embed()
            heads_input = self.dropout(predictions.embedding)
            if "gender" in tasks:
                predictions.gender_logits = self.gender_head(heads_input)
            if "esc" in tasks:
                predictions.esc_logits = self.esc_head(heads_input)
            if "eis" in tasks:
                predictions.eis = self.eis_head(heads_input).squeeze(1)
            if "augmentation" in tasks:
                predictions.augmentation_logits = self.augmentation_head(heads_input)
        return predictions
