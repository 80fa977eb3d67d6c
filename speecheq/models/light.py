"""light: a small model on the states of a pretrained encoder, and fusion: light and ECAPA-TDNN on fbank side by side.

Both take all phonemes from a branch of their own on the encoder's states, with its own mixture of layers: phonemes
need the upper layers, emotion the lower ones.

Padding is masked everywhere, so the predictions for an utterance do not depend on its batch.
"""

import math

import torch
from torch import Tensor, nn

from speecheq.config.model import STACKED_FBANK, ModelConfig
from speecheq.models.convolution import Convolution
from speecheq.models.ecapa import AttentiveStatisticsPooling, EcapaTdnn, statistics
from speecheq.models.heads import Backbone, FrameLevel, MultitaskHeads
from speecheq.models.layer_mixture import LayerMixture, LayerNorms
from speecheq.models.padding_mask import Frames, MaskedBatchNorm1d

KERNEL = 5  # frames that a convolution of the phoneme branch sees
MAX_GROUPS = 8  # of its channels


class PhonemeBranch(nn.Module):
    """States (N, T, L D) -> (N, T, C): a mixture of layers and two grouped convolutions, each with ReLU."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width = config.channels
        groups = math.gcd(width, MAX_GROUPS)
        # CTC stays with blanks for hundreds of steps where lower layers, which hold the voice, have the same weight
        self.mixture = LayerMixture(config.encoder_layers, config.encoder_dim, width, begins_with_last=True)
        self.first = Convolution(width, width, KERNEL, relu=True, groups=groups)
        self.second = Convolution(width, width, KERNEL, relu=True, groups=groups)

    def forward(self, states: Tensor, frames: Frames) -> Tensor:
        x = self.first(frames.zeroed(self.mixture(states)))
        return self.second(frames.zeroed(x))


class LightBackbone(Backbone):
    """The frame level is the projected mixture (N, T, P); the embedding, its attentive statistics."""

    has_phoneme_branch = True

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.mixture = LayerMixture(config.encoder_layers, config.encoder_dim, config.projection)
        self.dropout = nn.Dropout(config.dropout)
        self.pooling = AttentiveStatisticsPooling(config.projection, config.bottleneck)
        self.pooled_norm = MaskedBatchNorm1d(2 * config.projection)
        self.fc = nn.Linear(2 * config.projection, config.embedding_dim)
        self.embedding_norm = MaskedBatchNorm1d(config.embedding_dim)
        self.phonemes = PhonemeBranch(config)

    def aggregate(self, features: Tensor, frames: Frames) -> FrameLevel:
        return FrameLevel(self.mixture(features), frames)

    def embed(self, level: FrameLevel) -> Tensor:
        pooled = self.pooled_norm(self.pooling(self.dropout(level.x), level.frames))
        return self.embedding_norm(self.fc(pooled).float())

    def aggregate_for_phonemes(self, features: Tensor, frames: Frames) -> FrameLevel:
        return FrameLevel(self.phonemes(features, frames), frames)


class PooledBackbone(Backbone):
    """The frame level is the states of the pooled layers; the embedding is made of their statistics over time.

    ``statistics`` is the trained counterpart of the linear probe, which stands on mean and standard deviation too.
    ``mean``, of frames that are normalised one by one, with nothing but linear layers behind, carries over better to
    speech unlike that of the training.
    """

    has_phoneme_branch = True

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.width, self.mean_only = config.pooled_width, config.pooling == "mean"
        self.norms = LayerNorms(self.width // config.encoder_dim, config.encoder_dim)
        pooled = self.width if self.mean_only else 2 * self.width
        self.pooled_norm = MaskedBatchNorm1d(pooled)
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(pooled, config.embedding_dim)
        self.embedding_norm = MaskedBatchNorm1d(config.embedding_dim)
        self.phonemes = PhonemeBranch(config)

    def aggregate(self, features: Tensor, frames: Frames) -> FrameLevel:
        return FrameLevel(features[..., : self.width], frames)

    def embed(self, level: FrameLevel) -> Tensor:
        if self.mean_only:
            pooled = level.frames.mean(self.norms(level.x.float()).flatten(2))
        else:
            pooled = statistics(level.x, level.frames)
        hidden = self.fc(self.dropout(self.pooled_norm(pooled))).float()
        return self.embedding_norm(hidden if self.mean_only else torch.relu(hidden))

    def aggregate_for_phonemes(self, features: Tensor, frames: Frames) -> FrameLevel:
        return FrameLevel(self.phonemes(features, frames), frames)


def light_backbone(config: ModelConfig) -> LightBackbone | PooledBackbone:
    """The backbone that ``config.pooling`` names."""
    return LightBackbone(config) if config.pooling == "attentive" else PooledBackbone(config)


class Light(MultitaskHeads):
    """light, and the heads; phonemes at the encoder's frame rate, 50 a second."""

    def __init__(self, config: ModelConfig):
        backbone = light_backbone(config.validate())
        width = config.projection if config.pooling == "attentive" else config.pooled_width
        super().__init__(config, backbone, width, phoneme_channels=config.channels)


def unstack(stacked: Tensor, frames: Frames) -> FrameLevel:
    """Pairs of frames (N, T, 2 F) -> frames (N, 2 T, F), twice as many a second."""
    x = stacked.reshape(stacked.shape[0], -1, stacked.shape[2] // 2)
    return FrameLevel(x, Frames.from_lengths(2 * frames.given_lengths, x.shape[1], x.device, frames.phoneme_stream))


class FusionBackbone(Backbone):
    """fbank (N, T, 160), two frames in one, beside an encoder's states (N, T, L D).

    The embedding is made of that of ECAPA-TDNN on fbank at 100 frames a second and that of light on the states. The
    frame level holds the features, as the branches share no frame rate.
    """

    has_phoneme_branch = True

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.fbank = EcapaTdnn(config, STACKED_FBANK // 2)
        self.encoder = light_backbone(config)
        self.fc = nn.Linear(2 * config.embedding_dim, config.embedding_dim)
        self.embedding_norm = MaskedBatchNorm1d(config.embedding_dim)

    def aggregate(self, features: Tensor, frames: Frames) -> FrameLevel:
        return FrameLevel(features, frames)

    def embed(self, level: FrameLevel) -> Tensor:
        stacked, states = level.x.split([STACKED_FBANK, level.x.shape[2] - STACKED_FBANK], dim=2)
        of_fbank = self.fbank.embed(self.fbank.aggregate(*unstack(stacked, level.frames)))
        of_states = self.encoder.embed(self.encoder.aggregate(states, level.frames))
        return self.embedding_norm(self.fc(torch.cat([of_fbank, of_states], dim=1)).float())

    def aggregate_for_phonemes(self, features: Tensor, frames: Frames) -> FrameLevel:
        return self.encoder.aggregate_for_phonemes(features[..., STACKED_FBANK:], frames)


class Fusion(MultitaskHeads):
    """fbank and an encoder's states side by side, and the heads; phonemes from the states, 50 a second."""

    def __init__(self, config: ModelConfig):
        super().__init__(
            config.validate(), FusionBackbone(config), config.feature_dim, phoneme_channels=config.channels
        )
