"""The baseline of Table 3, CNN + RNN + attention (section 3.3): the backbone of [11] with the four heads of SpeechEQ.

[11] is Li, Zhao and Kawahara (Interspeech 2019). From its abstract and public descriptions: the spectrogram as input,
two convolutions of 3 frames, each followed by max-pooling over 3, a bidirectional LSTM, self-attention (an encoder
layer of the Transformer, feed-forward width 512), mean and deviation over time, and heads for emotion and gender. Its
other sizes are not known to us, and its accuracy has not been reproduced in public.

Our choices: filter banks as input; batch norm after the convolutions; all widths (C throughout, feed-forward 2 C, which
is 512 at the paper's C, one LSTM layer, up to 8 attention heads); the fully connected layer before the heads; the heads
for EIS and phonemes. The phoneme head reads the second convolution, before the second pooling: at 11 frames a second
some utterances have fewer frames than CTC needs for their phones. Its loss does not reach LSTM and attention.

Padding is masked everywhere, so the predictions for an utterance do not depend on its batch.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool1d

from speecheq.config.schema import ModelConfig
from speecheq.models.ecapa import TdnnUnit, standard_deviation
from speecheq.models.heads import Backbone, FrameLevel, MultitaskHeads
from speecheq.models.layer_mixture import build_front_end
from speecheq.models.padding_mask import Frames
from speecheq.models.res_bigru import run_both_ways

POOLING = 3  # frames per max-pooling window
MAX_HEADS = 8  # of the self-attention


def max_pool(x: Tensor, frames: Frames) -> FrameLevel:
    """Max-pooling of the speech in (N, T, C) over 3 frames: (N, T / 3, C), with T / 3 and the lengths rounded up."""
    speech = x if frames.mask is None else x.masked_fill(frames.mask == 0, -math.inf)
    pooled = max_pool1d(speech.transpose(1, 2), POOLING, ceil_mode=True).transpose(1, 2)
    lengths = torch.div(frames.given_lengths + POOLING - 1, POOLING, rounding_mode="floor")
    frames = Frames.from_lengths(lengths, pooled.shape[1], pooled.device, frames.phoneme_stream)
    # a window without speech is -inf, and its product with 0 would be NaN
    return FrameLevel(pooled if frames.mask is None else pooled.masked_fill(frames.mask == 0, 0.0), frames)


class BiLSTM(nn.Module):
    """A bidirectional LSTM with C/2 units a direction, (N, T, C) -> (N, T, C); backward from each utterance's end."""

    def __init__(self, channels: int):
        super().__init__()
        self.forward_lstm = nn.LSTM(channels, channels // 2)
        self.backward_lstm = nn.LSTM(channels, channels // 2)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        return run_both_ways(self.forward_lstm, self.backward_lstm, x, frames)


class CnnRnnAttention(Backbone):
    """The frame level is the second convolution's output (N, T / 3, C)."""

    def __init__(self, config: ModelConfig, input_dim: int):
        super().__init__()
        width, per_stream = config.channels, config.batch_statistics == "per_stream"
        self.first = TdnnUnit(input_dim, width, kernel=3, per_stream=per_stream)
        self.second = TdnnUnit(width, width, kernel=3, per_stream=per_stream)
        self.bilstm = BiLSTM(width)
        self.attention = nn.TransformerEncoderLayer(
            width, math.gcd(width, MAX_HEADS), 2 * width, dropout=0.0, batch_first=True
        )
        self.fc = nn.Linear(2 * width, config.embedding_dim)

    def aggregate(self, features: Tensor, frames: Frames) -> FrameLevel:
        x, frames = max_pool(self.first(features, frames), frames)
        return FrameLevel(self.second(x, frames), frames)

    def embed(self, level: FrameLevel) -> Tensor:
        x, frames = max_pool(level.x.float(), level.frames)
        x = self.bilstm(x, frames)
        padding = None if frames.mask is None else frames.mask.squeeze(2) == 0
        x = self.attention(x, src_key_padding_mask=padding).float()
        mean = frames.mean(x)
        variance = frames.mean((x - mean.unsqueeze(1)).square())
        return torch.relu(self.fc(torch.cat([mean, standard_deviation(variance)], dim=1)).float())


class Baseline(MultitaskHeads):
    """CNN + RNN + attention, and the heads; phonemes at a third of the features' frame rate, 33 a second with fbank."""

    def __init__(self, config: ModelConfig):
        front_end, width = build_front_end(config.validate())
        super().__init__(config, CnnRnnAttention(config, width), config.channels, POOLING, front_end=front_end)
