"""The backbone interface, heads and predictions of all models.

Four heads are SpeechEQ's (section 2.3); two more, without labels, are MTL-AUG's and exist if the settings enable them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from speecheq.config.schema import ModelConfig
from speecheq.models.convolution import Convolution
from speecheq.models.padding_mask import Frames
from speecheq.seqm import EIS_MAX, EIS_MIN

TASKS = ("phoneme", "gender", "esc", "eis")


@dataclass
class Predictions:
    """The outputs of the heads for N utterances; None for tasks that were not requested."""

    lengths: Tensor  # (N,) valid frames of the phoneme logits, on the device of the input lengths
    phoneme_logits: Tensor | None = None  # (N, T', num_phones), at the backbone's frame rate
    gender_logits: Tensor | None = None  # (N, num_genders)
    esc_logits: Tensor | None = None  # (N, num_esc)
    eis: Tensor | None = None  # (N,) the raw regression: see clip_eis
    augmentation_logits: Tensor | None = None  # (N, num_augmentations)
    reconstruction: Tensor | None = None  # (N, T, feature_dim), normalised, at the features' frame rate
    embedding: Tensor | None = None  # (N, embedding_dim), with any of gender, esc, eis, augmentation
    # attention_ctc: the logits of blank (0) and of the classes (N, T', num_esc + 1), valid in ``lengths``; in training
    # also how often the emotion of each clip is to be emitted (N,) int, on the CPU
    esc_frame_logits: Tensor | None = None
    esc_labels: Tensor | None = None


class FrameLevel(NamedTuple):
    """A backbone's output for each frame."""

    x: Tensor  # (N, T', C)
    frames: Frames  # which of them are speech


class Backbone(nn.Module):
    """Features -> frame level -> utterance embedding; a backbone may have a branch of its own for phonemes."""

    has_phoneme_branch = False

    def aggregate(self, features: Tensor, frames: Frames) -> FrameLevel:
        """Features (N, T, feature_dim), finite in the padding too -> frame level (N, T', C)."""
        raise NotImplementedError

    def embed(self, level: FrameLevel) -> Tensor:
        """Frame level (N, T', C) -> embedding (N, embedding_dim). In training N must be at least 2."""
        raise NotImplementedError

    def aggregate_for_phonemes(self, features: Tensor, frames: Frames) -> FrameLevel:
        """As ``aggregate``, for the phoneme head; only where ``has_phoneme_branch``."""
        raise NotImplementedError


def clip_eis(eis: Tensor) -> Tensor:
    """EIS (N,) clipped to the scale, [0, 4], for scoring. The loss takes the raw EIS, or its gradient would vanish."""
    return eis.clamp(EIS_MIN, EIS_MAX)


class FrameDecoder(nn.Module):
    """MTL-AUG's decoder: the features of a frame from the backbone's output for that frame alone.

    Only the backbone sees context. If it subsamples by ``frames_each``, the decoder upsamples by the same factor.
    """

    def __init__(self, frame_channels: int, channels: int, feature_dim: int, frames_each: int = 1):
        super().__init__()
        self.frames_each = frames_each
        self.narrow = Convolution(frame_channels, channels, relu=True)
        self.features = Convolution(channels, frames_each * feature_dim)

    def forward(self, frame_level: Tensor, num_frames: int) -> Tensor:
        """Frame level (N, T', C) -> features (N, T, feature_dim), T being ``num_frames``."""
        decoded = self.features(self.narrow(frame_level))
        return decoded.reshape(len(decoded), decoded.shape[1] * self.frames_each, -1)[:, :num_frames]


def learns_phonemes_alone(name: str) -> bool:
    """Whether only the loss of phonemes reaches the parameter of that name: of their head, or of a branch for them."""
    return not {"phoneme_head", "phonemes"}.isdisjoint(name.split("."))


class MultitaskHeads(nn.Module):
    """A backbone with heads for phonemes (each frame), and for gender, ESC and EIS (the embedding).

    MTL-AUG adds a head for the type of augmentation (the embedding) and a decoder (each frame). One frame of the
    backbone's output, of ``frame_channels``, covers ``frames_each`` frames of the features; a phoneme branch has its
    own ``phoneme_channels``. Without ``frame_channels`` there is no head for phonemes. ``front_end``, if any, changes
    each frame of the features before the backbone sees it.
    """

    def __init__(
        self,
        config: ModelConfig,
        backbone: Backbone,
        frame_channels: int | None,
        frames_each: int = 1,
        phoneme_channels: int | None = None,
        front_end: nn.Module | None = None,
    ):
        super().__init__()
        self.config = config
        self.front_end = front_end
        self.backbone = backbone
        self.dropout = nn.Dropout(config.dropout)
        own = config.phoneme_dropout
        self.phoneme_dropout = self.dropout if own is None else nn.Dropout(own)
        self.known_tasks: tuple[str, ...] = TASKS if frame_channels else TASKS[1:]
        if frame_channels:
            self.phoneme_head = Convolution(phoneme_channels or frame_channels, config.num_phones)
        self.gender_head = nn.Linear(config.embedding_dim, config.num_genders)
        self.esc_head: nn.Module = nn.Linear(config.embedding_dim, config.num_esc)
        self.eis_head = nn.Linear(config.embedding_dim, 1)
        nn.init.constant_(self.eis_head.bias, (EIS_MIN + EIS_MAX) / 2)  # start in the middle of the scale
        nn.init.normal_(self.eis_head.weight, std=0.01)
        if config.num_augmentations:
            self.augmentation_head = nn.Linear(config.embedding_dim, config.num_augmentations)
            self.known_tasks += ("augmentation",)
        if config.decoder_channels and frame_channels:
            self.decoder = FrameDecoder(frame_channels, config.decoder_channels, config.feature_dim, frames_each)
            self.known_tasks += ("reconstruction",)

    def predict_esc(self, level: FrameLevel, embedding: Tensor, predictions: Predictions) -> None:
        """Set the ESC logits (N, num_esc) of the frame level, or of the embedding after dropout."""
        predictions.esc_logits = self.esc_head(embedding)

    def forward(self, features: Tensor, lengths: Tensor, tasks: Iterable[str] | None = None) -> Predictions:
        """Predict ``tasks`` for features (N, T, feature_dim), lengths (N,) in 1..T, preferably on the CPU.

        ``tasks`` None: all of TASKS that there are heads for.
        Only what the tasks need is computed: phonemes alone need no embedding, and with ``batch_statistics:
        per_stream`` they are normalised by the phoneme stream's statistics. Padding may have any values. Raises
        ValueError for no task, or a task without a head.
        """
        tasks = set(TASKS).intersection(self.known_tasks) if tasks is None else set(tasks)
        if not tasks or tasks - set(self.known_tasks):
            raise ValueError(f"tasks are {sorted(tasks)}; they must be some of {', '.join(self.known_tasks)}")
        num_frames = features.shape[1]
        features, frames = self._front(features, lengths, phoneme_stream=tasks == {"phoneme"})
        if tasks == {"phoneme"} and self.backbone.has_phoneme_branch:
            level = phoneme_level = self.backbone.aggregate_for_phonemes(features, frames)
        else:
            level = phoneme_level = self.backbone.aggregate(features, frames)
            if "phoneme" in tasks and self.backbone.has_phoneme_branch:
                phoneme_level = self.backbone.aggregate_for_phonemes(features, frames)
        predictions = Predictions(phoneme_level.frames.given_lengths)
        if "phoneme" in tasks:
            predictions.phoneme_logits = self.phoneme_head(self.phoneme_dropout(phoneme_level.x))
        if "reconstruction" in tasks:
            predictions.reconstruction = self.decoder(level.x, num_frames)
        if tasks - {"phoneme", "reconstruction"}:
            predictions.embedding = self.backbone.embed(level)
            embedding = self.dropout(predictions.embedding)
            if "gender" in tasks:
                predictions.gender_logits = self.gender_head(embedding)
            if "esc" in tasks:
                self.predict_esc(level, embedding, predictions)
            if "eis" in tasks:
                predictions.eis = self.eis_head(embedding).squeeze(1)
            if "augmentation" in tasks:
                predictions.augmentation_logits = self.augmentation_head(embedding)
        return predictions

    def _front(self, features: Tensor, lengths: Tensor, phoneme_stream: bool) -> tuple[Tensor, Frames]:
        """Features (N, T, feature_dim) as the backbone takes them, and which of their frames are speech."""
        frames = Frames.from_lengths(lengths, features.shape[1], features.device, phoneme_stream)
        features = frames.cleared(features)
        return features if self.front_end is None else self.front_end(features), frames

    def frame_level(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The backbone's output (N, T', C) for each frame, on which the embedding stands, and its lengths (N,)."""
        level = self.backbone.aggregate(*self._front(features, lengths, phoneme_stream=False))
        return level.x, level.frames.given_lengths
