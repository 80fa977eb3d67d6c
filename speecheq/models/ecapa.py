"""ECAPA-TDNN (Desplanques et al. 2020), the backbone of SpeechEQ (section 2.3), blind to padding.

A unit is convolution, ReLU, batch norm. Padding is zeroed before every convolution wider than one frame and left
out of every mean, softmax and batch statistic, so what an utterance gives does not depend on its batch.
"""

import torch
from torch import Tensor, nn

from speecheq.models.config import ModelConfig
from speecheq.models.masking import Frames, MaskedBatchNorm1d
from speecheq.models.res_bigru import ResBiGRU

DILATIONS = (2, 3, 4)
VARIANCE_FLOOR = 1e-5  # under the roots of the pooling: keeps their gradient finite for constant channels


class TdnnUnit(nn.Module):
    """Convolution over time, ReLU, batch norm: (N, in, T) -> (N, out, T)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, dilation: int = 1,
                 per_stream: bool = False):
        super().__init__()
        self.convolution = nn.Conv1d(in_channels, out_channels, kernel, dilation=dilation,
                                     padding=dilation * (kernel - 1) // 2)
        self.norm = MaskedBatchNorm1d(out_channels, per_stream)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        if self.convolution.kernel_size[0] > 1:
            x = frames.zeroed(x)
        return self.norm(torch.relu_(self.convolution(x)), frames)


class Res2Convolution(nn.Module):
    """Res2Net's convolution: channel groups in a row, each adding the output of the one before; (N, C, T) kept.

    The first of the ``scale`` groups passes unchanged.
    """

    def __init__(self, channels: int, scale: int, kernel: int, dilation: int, per_stream: bool = False):
        super().__init__()
        width = channels // scale
        self.scale = scale
        self.units = nn.ModuleList(TdnnUnit(width, width, kernel, dilation, per_stream) for _ in range(scale - 1))

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        first, *groups = x.chunk(self.scale, dim=1)
        outputs = [first]
        for unit, group in zip(self.units, groups):
            outputs.append(unit(group if len(outputs) == 1 else group + outputs[-1], frames))
        return torch.cat(outputs, dim=1)


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate computed from the utterance's mean over time; (N, C, T) kept."""

    def __init__(self, channels: int, bottleneck: int):
        super().__init__()
        self.squeeze = nn.Linear(channels, bottleneck)
        self.excite = nn.Linear(bottleneck, channels)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(frames.mean(x)))))
        return x * gate.unsqueeze(2)


class SERes2Block(nn.Module):
    """1x1 unit, Res2 convolution, 1x1 unit, squeeze-excitation, skip; with a Res-BiGRU before or after the SE."""

    def __init__(self, channels: int, dilation: int, scale: int = 8, bottleneck: int = 128, res_bigru: str = "none",
                 per_stream: bool = False):
        super().__init__()
        self.reduce = TdnnUnit(channels, channels, per_stream=per_stream)
        self.res2 = Res2Convolution(channels, scale, 3, dilation, per_stream)
        self.expand = TdnnUnit(channels, channels, per_stream=per_stream)
        self.se = SqueezeExcitation(channels, bottleneck)
        self.res_bigru_place = res_bigru
        self.res_bigru = None if res_bigru == "none" else ResBiGRU(channels)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        y = self.expand(self.res2(self.reduce(x, frames), frames), frames)
        if self.res_bigru_place == "before_se":
            y = self.res_bigru(y, frames)
        y = self.se(y, frames)
        if self.res_bigru_place == "after_se":
            y = self.res_bigru(y, frames)
        return x + y


class AttentiveStatisticsPooling(nn.Module):
    """Channel- and context-dependent attentive statistics: (N, C, T) -> (N, 2C), weighted means then deviations.

    The attention sees [h; mean; std]; as mean and std are the same for all frames, their part of that
    convolution is computed once an utterance (``context``) and added.
    """

    def __init__(self, channels: int, bottleneck: int = 128):
        super().__init__()
        self.local = nn.Conv1d(channels, bottleneck, 1)
        self.context = nn.Linear(2 * channels, bottleneck, bias=False)
        self.norm = MaskedBatchNorm1d(bottleneck)
        self.scores = nn.Conv1d(bottleneck, channels, 1)

    def forward(self, h: Tensor, frames: Frames) -> Tensor:
        h = h.float()  # sums over time in float32, whatever the convolutions before computed in
        mean = frames.mean(h)
        variance = frames.mean((h - mean.unsqueeze(2)).square())
        context = self.context(torch.cat([mean, _root(variance)], dim=1))
        attention = torch.relu(self.local(h) + context.unsqueeze(2))
        scores = self.scores(torch.tanh(self.norm(attention, frames))).float()
        if frames.mask is not None:
            scores = scores.masked_fill(frames.mask == 0, float("-inf"))
        weights = torch.softmax(scores, dim=2)
        mean = (weights * h).sum(2)
        variance = (weights * (h - mean.unsqueeze(2)).square()).sum(2)
        return torch.cat([mean, _root(variance)], dim=1)


def _root(variance: Tensor) -> Tensor:
    return variance.clamp(min=VARIANCE_FLOOR).sqrt()


class EcapaTdnn(nn.Module):
    """Features -> frame-level MFA output -> utterance embedding; with ``res_bigru="none"`` plain ECAPA-TDNN."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        c = config
        per_stream = c.batch_statistics == "per_stream"
        self.first = TdnnUnit(c.feature_dim, c.channels, kernel=5, per_stream=per_stream)
        self.blocks = nn.ModuleList(
            SERes2Block(c.channels, dilation, c.scale, c.bottleneck, c.res_bigru, per_stream)
            for dilation in DILATIONS)
        self.mfa = nn.Conv1d(len(DILATIONS) * c.channels, c.mfa_channels, 1)
        self.pooling = AttentiveStatisticsPooling(c.mfa_channels, c.bottleneck)
        self.pooled_norm = MaskedBatchNorm1d(2 * c.mfa_channels)
        self.fc = nn.Linear(2 * c.mfa_channels, c.embedding_dim)
        self.embedding_norm = MaskedBatchNorm1d(c.embedding_dim)

    def aggregate(self, features: Tensor, frames: Frames) -> Tensor:
        """Features (N, T, feature_dim) -> frame-level multi-layer aggregation (N, mfa_channels, T)."""
        x = features.transpose(1, 2)
        if frames.mask is not None:
            x = x.masked_fill(frames.mask == 0, 0.0)  # not a product: padding may hold NaN
        x = self.first(x, frames)
        outputs = []
        for block in self.blocks:
            x = block(x, frames)
            outputs.append(x)
        return torch.relu_(self.mfa(torch.cat(outputs, dim=1)))

    def embed(self, aggregated: Tensor, frames: Frames) -> Tensor:
        """Frame-level (N, mfa_channels, T) -> embedding (N, embedding_dim). Training needs N of at least 2."""
        pooled = self.pooled_norm(self.pooling(aggregated, frames))
        return self.embedding_norm(self.fc(pooled).float())

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Features (N, T, feature_dim), lengths (N,) -> embedding (N, embedding_dim)."""
        frames = Frames.of(lengths, features.shape[1], features.device)
        return self.embed(self.aggregate(features, frames), frames)
