"""ECAPA-TDNN (Desplanques et al., 2020), the backbone of SpeechEQ (section 2.3).

Padding is zeroed before every convolution wider than one frame, and left out of every mean, softmax and batch
statistic, so the output for an utterance does not depend on its batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from speecheq.config.schema import ModelConfig
from speecheq.models.convolution import Convolution
from speecheq.models.heads import Backbone, FrameLevel
from speecheq.models.padding_mask import Frames, MaskedBatchNorm1d
from speecheq.models.res_bigru import ResBiGRU

DILATIONS = (2, 3, 4)
VARIANCE_FLOOR = 1e-5  # keeps the gradient of the deviation finite for constant channels


class TdnnUnit(nn.Module):
    """Convolution over time, ReLU, batch norm: (N, T, in) -> (N, T, out)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, dilation: int = 1, per_stream: bool = False
    ):
        super().__init__()
        self.convolution = Convolution(in_channels, out_channels, kernel, dilation, relu=True)
        self.norm = MaskedBatchNorm1d(out_channels, per_stream)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        if self.convolution.kernel_size[0] > 1:
            x = frames.zeroed(x)
        return self.norm(self.convolution(x), frames)


class Res2Convolution(nn.Module):
    """Res2Net's convolution, (N, T, C) -> (N, T, C): each group of channels also gets the output of the group before.

    The first of the ``scale`` groups passes unchanged.
    """

    def __init__(self, channels: int, scale: int, kernel: int, dilation: int, per_stream: bool = False):
        super().__init__()
        width = channels // scale
        self.scale = scale
        self.units = nn.ModuleList(TdnnUnit(width, width, kernel, dilation, per_stream) for _ in range(scale - 1))

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        first, *groups = x.chunk(self.scale, dim=2)
        outputs = [first]
        for unit, group in zip(self.units, groups):
            outputs.append(unit(group if len(outputs) == 1 else group + outputs[-1], frames))
        return torch.cat(outputs, dim=2)


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate computed from the utterance's mean over time: (N, T, C) -> (N, T, C)."""

    def __init__(self, channels: int, bottleneck: int):
        super().__init__()
        self.squeeze = nn.Linear(channels, bottleneck)
        self.excite = nn.Linear(bottleneck, channels)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(frames.mean(x)))))
        return x * gate.unsqueeze(1)


class SERes2Block(nn.Module):
    """Unit, Res2 convolution, unit, squeeze-excitation (SE), skip connection: (N, T, C) -> (N, T, C).

    SpeechEQ (Figure 2) puts a Res-BiGRU before or after the SE: ``res_bigru`` is before_se, after_se or none.
    """

    def __init__(self, channels: int, dilation: int, scale: int, bottleneck: int, res_bigru: str, per_stream: bool):
        super().__init__()
        self.reduce = TdnnUnit(channels, channels, per_stream=per_stream)
        self.res2 = Res2Convolution(channels, scale, 3, dilation, per_stream)
        self.expand = TdnnUnit(channels, channels, per_stream=per_stream)
        self.se = SqueezeExcitation(channels, bottleneck)
        self.res_bigru_place = res_bigru
        self.res_bigru = None if res_bigru == "none" else ResBiGRU(channels)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        y = self.expand(self.res2(self.reduce(x, frames), frames), frames)
        if self.res_bigru is not None and self.res_bigru_place == "before_se":
            y = self.res_bigru(y, frames)
        y = self.se(y, frames)
        if self.res_bigru is not None and self.res_bigru_place == "after_se":
            y = self.res_bigru(y, frames)
        return x + y


class AttentiveStatisticsPooling(nn.Module):
    """Channel- and context-dependent attentive statistics: (N, T, C) -> (N, 2C), weighted means then deviations.

    The input of the attention is [h; mean; deviation]. Mean and deviation are the same for all frames, so their part
    of the convolution (``context``) is computed once per utterance and added.
    """

    def __init__(self, channels: int, bottleneck: int = 128):
        super().__init__()
        self.local = Convolution(channels, bottleneck)
        self.context = nn.Linear(2 * channels, bottleneck, bias=False)
        self.norm = MaskedBatchNorm1d(bottleneck)
        self.scores = Convolution(bottleneck, channels)

    def forward(self, h: Tensor, frames: Frames) -> Tensor:
        h = h.float()  # sums over time in float32 at any precision of the convolutions
        context = self.context(statistics(h, frames))
        attention = torch.relu(self.local(h) + context.unsqueeze(1))
        scores = self.scores(torch.tanh(self.norm(attention, frames))).float()
        mean, variance = moments(h, frames.softmax(scores))
        return torch.cat([mean, standard_deviation(variance)], dim=1)


def standard_deviation(variance: Tensor) -> Tensor:
    """The root of a variance of any shape, with a gradient that is finite at 0."""
    return variance.clamp(min=VARIANCE_FLOOR).sqrt()


def statistics(h: Tensor, frames: Frames) -> Tensor:
    """(N, T, C) -> (N, 2C): mean and deviation over each utterance's own frames, in float32."""
    h = h.float()
    valid = torch.ones_like(h[..., :1]) if frames.mask is None else frames.mask
    mean, variance = moments(h, valid / frames.counts.unsqueeze(2))
    return torch.cat([mean, standard_deviation(variance)], dim=1)


def moments(h: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted statistics over time of ``h`` (N, T, C); ``weights`` (N, T, C) or (N, T, 1) must sum to 1 over time.

    Returns: mean (N, C) and variance (N, C).
    """
    return _Moments.apply(h, weights) if torch.is_grad_enabled() else _moments(h, weights)


def _moments(h: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    mean = (weights * h).sum(1)
    centred = h - mean.unsqueeze(1)
    return mean, centred.square_().mul_(weights).sum(1)  # in place: three times as fast where h just fits the cache


class _Moments(torch.autograd.Function):
    """_moments with its own gradient, which keeps fewer tensors of the size of ``h`` than autograd.

    With c = h - mean and weights w: d mean = w dh + h dw, d variance = 2 w c dh + c^2 dw. The mean's part in the
    variance is 0, as the sum of w c is 0. A CPU computes one utterance at a time, which fits its cache.
    """

    @staticmethod
    def forward(ctx, h: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = (torch.cat(parts) for parts in zip(*map(_moments, *_in_parts(h, weights))))
        ctx.save_for_backward(h, weights, mean)
        return mean, variance

    @staticmethod
    def backward(ctx, grad_mean, grad_variance):
        h, weights, mean = ctx.saved_tensors
        weights_learn = ctx.needs_input_grad[1]
        grad_h = torch.empty_like(h)
        grad_weights = torch.empty_like(weights if weights_learn else h[..., :0])
        for part in zip(*_in_parts(h, weights, mean, grad_mean, grad_variance, grad_h, grad_weights)):
            x, weight, x_mean, to_mean, to_variance, to_x, to_weight = part
            to_mean, to_variance = to_mean.unsqueeze(1), to_variance.unsqueeze(1)
            centred = x - x_mean.unsqueeze(1)
            along = centred * to_variance
            torch.add(to_mean, along, alpha=2, out=to_x).mul_(weight)
            if weights_learn:
                torch.mul(along, centred, out=to_weight).addcmul_(x, to_mean)
        return grad_h, grad_weights if weights_learn else None


def _in_parts(*tensors: Tensor) -> list[Sequence[Tensor]]:
    """Split each of the tensors (N, ...) into the parts that _Moments computes at a time."""
    return [x.split(1 if x.device.type == "cpu" else len(x)) for x in tensors]


class EcapaTdnn(Backbone):
    """The frame level is the multi-layer feature aggregation; with ``res_bigru="none"`` this is plain ECAPA-TDNN.

    Its features are ``input_dim`` wide.
    """

    def __init__(self, config: ModelConfig, input_dim: int):
        super().__init__()
        c = config
        per_stream = c.batch_statistics == "per_stream"
        self.first = TdnnUnit(input_dim, c.channels, kernel=5, per_stream=per_stream)
        self.blocks = nn.ModuleList(
            SERes2Block(c.channels, dilation, c.scale, c.bottleneck, c.res_bigru, per_stream) for dilation in DILATIONS
        )
        self.mfa = Convolution(len(DILATIONS) * c.channels, c.mfa_channels, relu=True)
        self.pooling = AttentiveStatisticsPooling(c.mfa_channels, c.bottleneck)
        self.pooled_norm = MaskedBatchNorm1d(2 * c.mfa_channels)
        self.fc = nn.Linear(2 * c.mfa_channels, c.embedding_dim)
        self.embedding_norm = MaskedBatchNorm1d(c.embedding_dim)

    def aggregate(self, features: Tensor, frames: Frames) -> FrameLevel:
        x = self.first(features, frames)
        outputs = []
        for block in self.blocks:
            x = block(x, frames)
            outputs.append(x)
        return FrameLevel(self.mfa(torch.cat(outputs, dim=2)), frames)

    def embed(self, level: FrameLevel) -> Tensor:
        pooled = self.pooled_norm(self.pooling(*level))
        return self.embedding_norm(self.fc(pooled).float())
