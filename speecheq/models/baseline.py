"""The baseline of Table 3, CNN + RNN + attention (section 3.3): the backbone of [11] with the four heads of SpeechEQ.

[11] is Li, Zhao and Kawahara (Interspeech 2019). Theirs, as far as its abstract and public descriptions tell: the
spectrogram as input, two convolutions of 3 frames, each followed by max-pooling over 3, a bidirectional LSTM,
self-attention (an encoder layer of the Transformer, feed-forward width 512), mean and deviation over time, and heads
for emotion and gender. Their other sizes are not known to us, and their accuracy has not been reproduced in public.

Ours: filter banks as input; batch norm behind the convolutions; all widths (C throughout, feed-forward 2 C, which is
512 at the C of the paper, one LSTM layer, up to 8 attention heads); the fully connected layer in front of the heads;
the heads for EIS and phonemes. Phonemes are read off the second convolution, before the second pooling: at 11 frames a
second some utterances have fewer frames than CTC needs for their phones. LSTM and attention do not see their loss.

As in the other models padding is masked everywhere: what an utterance gives does not depend on its batch.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool1d

from speecheq.config.schema import ModelConfig
from speecheq.models.ecapa import VARIANCE_FLOOR, TdnnUnit
from speecheq.models.heads import TASKS, MultitaskHeads, Predictions
from speecheq.models.padding_mask import Frames
from speecheq.models.res_bigru import reversed_speech

POOLING = 3  # frames that a max-pooling makes one of
MOST_HEADS = 8  # of the self-attention


def max_pooled(x: Tensor, frames: Frames, lengths: Tensor) -> tuple[Tensor, Frames, Tensor]:
    """Max-pooling of (N, T, C) over 3 frames: (N, T / 3, C), its frames and lengths (N,), each rounded up.

    A window takes the maximum of the speech in it. ``lengths`` are those of ``frames``, on the CPU if they were
    given there: so the new masks are decided without waiting for a GPU.
    """
    speech = x if frames.mask is None else x.masked_fill(frames.mask == 0, -math.inf)
    pooled = max_pool1d(speech.transpose(1, 2), POOLING, ceil_mode=True).transpose(1, 2)
    lengths = torch.div(lengths + POOLING - 1, POOLING, rounding_mode="floor")
    frames = Frames.of(lengths, pooled.shape[1], pooled.device, frames.of_phonemes)
    # a window without speech is -inf, of which a product would make NaN
    return (pooled if frames.mask is None else pooled.masked_fill(frames.mask == 0, 0.0)), frames, lengths


class BiLSTM(nn.Module):
    """A bidirectional LSTM with C/2 units a direction, (N, T, C) -> (N, T, C); backward from each utterance's end.

    Two LSTMs and a gather for the same reasons as in ResBiGRU.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.forward_lstm = nn.LSTM(channels, channels // 2)
        self.backward_lstm = nn.LSTM(channels, channels // 2)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        steps = x.transpose(0, 1).contiguous()  # (T, N, C), as the LSTM wants it
        there, back = self.forward_lstm(steps)[0], self.backward_lstm(reversed_speech(steps, frames))[0]
        return torch.cat([there, reversed_speech(back, frames)], dim=2).transpose(0, 1)


class CnnRnnAttention(nn.Module):
    """Features -> the second convolution's output at a third of their frames -> utterance embedding."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width, per_stream = config.channels, config.batch_statistics == "per_stream"
        self.first = TdnnUnit(config.feature_dim, width, kernel=3, per_stream=per_stream)
        self.second = TdnnUnit(width, width, kernel=3, per_stream=per_stream)
        self.bilstm = BiLSTM(width)
        self.attention = nn.TransformerEncoderLayer(
            width, math.gcd(width, MOST_HEADS), 2 * width, dropout=0.0, batch_first=True
        )
        self.fc = nn.Linear(2 * width, config.embedding_dim)

    def aggregate(self, features: Tensor, frames: Frames, lengths: Tensor) -> tuple[Tensor, Frames, Tensor]:
        """Features (N, T, feature_dim) -> frame level (N, T / 3, C), its frames and lengths (see max_pooled)."""
        x = features
        if frames.mask is not None:
            x = x.masked_fill(frames.mask == 0, 0.0)  # not a product: padding may hold NaN
        x, frames, lengths = max_pooled(self.first(x, frames), frames, lengths)
        return self.second(x, frames), frames, lengths

    def embed(self, aggregated: Tensor, frames: Frames, lengths: Tensor) -> Tensor:
        """What ``aggregate`` gave -> embedding (N, embedding_dim)."""
        x, frames, _ = max_pooled(aggregated.float(), frames, lengths)
        x = self.bilstm(x, frames)
        padding = None if frames.mask is None else frames.mask.squeeze(2) == 0
        x = self.attention(x, src_key_padding_mask=padding).float()
        mean = frames.mean(x)
        variance = frames.mean((x - mean.unsqueeze(1)).square())
        pooled = torch.cat([mean, variance.clamp(min=VARIANCE_FLOOR).sqrt()], dim=1)
        return torch.relu(self.fc(pooled).float())


class Baseline(MultitaskHeads):
    """CNN + RNN + attention with four heads; phonemes at 33 frames a second."""

    def __init__(self, config: ModelConfig):
        super().__init__(config.validate(), CnnRnnAttention(config), config.channels, POOLING)

    def forward(self, features: Tensor, lengths: Tensor, tasks: Iterable[str] = TASKS) -> Predictions:
        """As SpeechEQ.forward, but the predictions' lengths and phoneme logits (N, T / 3, num_phones) are at a third
        of the features' frames, rounded up. ValueError for an unknown task.
        """
        tasks = self.checked(tasks)
        frames = Frames.of(lengths, features.shape[1], features.device, of_phonemes=tasks == {"phoneme"})
        aggregated, frames, lengths = self.backbone.aggregate(features, frames, lengths)
        return self.predict(
            tasks, lengths, features.shape[1], aggregated, lambda: self.backbone.embed(aggregated, frames, lengths)
        )
