"""multihead_gender, after [12]: Nediyanchath, Paramasivam and Yenigalla, "Multi-head attention for SER with auxiliary
learning of gender recognition" (ICASSP 2020). An own model in its spirit: of the paper the abstract and a page of its
slides are known to us, and no code is public.

Known: log mel filter banks; an embedding of the position is added; multi-head attention; gender as auxiliary task;
IEMOCAP, four classes, 76.4 WA and 70.1 UA. By its gains (+5.3, +6.2) over an earlier system it stands on improvised
speech, which it does not say.

Assumed: two convolutions of 3 x 3 (32 and 64 channels, batch norm, ReLU, max-pooling of 2 x 2) -> linear 128;
sinusoidal positions; dropout 0.1; one layer of attention of 4 heads, residual, layer norm, feed-forward 256; mean and
maximum over time; dropout 0.3 (``model.dropout``); the weight of gender 0.5 (``loss.eta``; 0 is the ablation that is
needed); gender is learned in mini-batches of its own, as everywhere here; Adam 1e-3, warm-up 500 steps, 60 epochs.

Padding is masked after each block, as batch norm and bias make it non-zero.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from speecheq.config.schema import ModelConfig
from speecheq.models.heads import Backbone, FrameLevel, MultitaskHeads
from speecheq.models.padding_mask import Frames, MaskedBatchNorm1d

CHANNELS = (32, 64)
WIDTH, HEADS, FEED_FORWARD = 128, 4, 256
DROPOUT = 0.1


class ConvolutionBlock(nn.Module):
    """Images (N, C, T, F) -> (N, C', T / 2, F / 2), rounded up: convolution, batch norm over speech, ReLU, pooling."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = MaskedBatchNorm1d(outputs)

    def forward(self, x: Tensor, frames: Frames) -> tuple[Tensor, Frames]:
        x = self.convolution(x)
        _, channels, steps, bands = x.shape
        # one row a frame and band, of which those of padding are the last
        places = Frames.from_lengths(frames.given_lengths * bands, steps * bands, x.device, frames.phoneme_stream)
        rows = self.norm(x.permute(0, 2, 3, 1).reshape(len(x), steps * bands, channels), places)
        rows = places.cleared(rows.relu_())  # 0 is the least value, so padding wins no maximum
        x = max_pool2d(rows.view(len(x), steps, bands, channels).permute(0, 3, 1, 2), 2, ceil_mode=True)
        lengths = torch.div(frames.given_lengths + 1, 2, rounding_mode="floor")
        return x, Frames.from_lengths(lengths, x.shape[2], x.device, frames.phoneme_stream)


def positions(steps: int, width: int, device: torch.device) -> Tensor:
    """The sinusoids of Vaswani et al. (2017), (steps, width)."""
    place = torch.arange(steps, device=device)[:, None]
    rates = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(1e4) / width))
    return torch.stack([torch.sin(place * rates), torch.cos(place * rates)], dim=2).flatten(1)


class AttentionBackbone(Backbone):
    """The frame level is the attention's output (N, T / 4, 128); the embedding, its mean and maximum over time."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.blocks = nn.ModuleList([ConvolutionBlock(1, CHANNELS[0]), ConvolutionBlock(*CHANNELS)])
        bands = math.ceil(math.ceil(config.feature_dim / 2) / 2)
        self.project = nn.Linear(CHANNELS[-1] * bands, WIDTH)
        self.dropout = nn.Dropout(DROPOUT)
        self.attention = nn.TransformerEncoderLayer(WIDTH, HEADS, FEED_FORWARD, DROPOUT, batch_first=True)

    def aggregate(self, features: Tensor, frames: Frames) -> FrameLevel:
        x = features.unsqueeze(1)
        for block in self.blocks:
            x, frames = block(x, frames)
        x = self.project(x.permute(0, 2, 1, 3).flatten(2))
        x = self.dropout(x + positions(x.shape[1], WIDTH, x.device).to(x.dtype))
        padding = None if frames.mask is None else frames.mask.squeeze(2) == 0
        return FrameLevel(self.attention(x, src_key_padding_mask=padding), frames)

    def embed(self, level: FrameLevel) -> Tensor:
        x, frames = level.x.float(), level.frames
        speech = x if frames.mask is None else x.masked_fill(frames.mask == 0, float("-inf"))
        return torch.cat([frames.mean(x), speech.max(1).values], dim=1)


class MultiheadGender(MultitaskHeads):
    """The attention and the heads, of which gender is the auxiliary one."""

    def __init__(self, config: ModelConfig):
        config = replace(config, embedding_dim=2 * WIDTH)
        super().__init__(config, AttentionBackbone(config), None)
