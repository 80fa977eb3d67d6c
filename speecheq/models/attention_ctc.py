"""attention_ctc, after [33]: Zhao et al., "Attention-enhanced CTC for discrete SER" (Interspeech 2019). An own model in
its spirit, no reproduction: of the paper the abstract is known to us, and no code is public.

Known: a bidirectional LSTM with attention, trained with CTC; two attentions, "component" and "quantum", within CTC;
IEMOCAP and FAU-Aibo. Component attention (abstract of Das et al., arXiv 1803.05563): a vector of weights per time step,
one a dimension, over a window whose context is a convolution over time.

Assumed: the features are those of the run (40 log mels, say), three frames stacked; 2 layers of 128 units a direction,
dropout 0.3; a window of 9 steps; no recursion over the attention's own output; no quantum attention, of which there is
no public definition; the label sequence is the clip's emotion once for each segment of louder frames (or once, by
``model.ctc_labels: single``); a clip's class is that with the largest sum over time of posteriors without blank; Adam
1e-3, 60 epochs.

A model that has collapsed to blank still ranks classes by what little is left: the share of blank and the labels that a
clip emits are logged in training, with a warning (losses/emotion_ctc.py).
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from speecheq.config.schema import ModelConfig
from speecheq.models.convolution import Convolution
from speecheq.models.heads import Backbone, FrameLevel, MultitaskHeads, Predictions
from speecheq.models.padding_mask import Frames
from speecheq.models.res_bigru import run_both_ways

STACKED = 3  # frames
UNITS = 128  # of the LSTM, a direction
WIDTH = 2 * UNITS
DROPOUT = 0.3
REACH = 4  # steps that the attention sees on each side
SHORTEST_SEGMENT = 9  # frames
HIDDEN = -1e4  # score of steps outside of a clip; finite, as padding has no others


class BiLSTM(nn.Module):
    """(N, T, in) -> (N, T, 256), backward from each utterance's end."""

    def __init__(self, inputs: int):
        super().__init__()
        self.forward_lstm, self.backward_lstm = nn.LSTM(inputs, UNITS), nn.LSTM(inputs, UNITS)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        return run_both_ways(self.forward_lstm, self.backward_lstm, x, frames)


class ComponentAttention(nn.Module):
    """c_t = sum over u in t-4..t+4 of softmax_u(V tanh(W h_u)) * (W_{u-t} h_u), a weight for each dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.contents = nn.Linear(WIDTH, (2 * REACH + 1) * WIDTH, bias=False)
        self.hidden, self.scores = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, h: Tensor, frames: Frames) -> Tensor:
        """(N, T, 256) -> (N, T, 256)."""
        h = frames.zeroed(h)
        contents = self.contents(h).unflatten(2, (-1, WIDTH))  # (N, T, 9, 256)
        scores = self.scores(torch.tanh(self.hidden(h)))
        if frames.mask is not None:
            scores = scores.masked_fill(frames.mask == 0, HIDDEN)
        steps = h.shape[1]

        def around(x: Tensor, place: int, value: float) -> Tensor:
            """(N, T, 256) -> the frame at each place of the window, (N, T, 256)."""
            return pad(x, (0, 0, REACH, REACH), value=value)[:, place : place + steps]

        # a tensor for each place, as the gradient of a slice is as large as what it is of
        weights = torch.stack([around(scores, place, HIDDEN) for place in range(2 * REACH + 1)]).softmax(0)
        values = torch.stack([around(content, place, 0.0) for place, content in enumerate(contents.unbind(2))])
        return (weights * values).sum(0)


class AttentionBlstm(Backbone):
    """The frame level is the attention's output (N, T / 3, 256); the embedding, its mean."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.first, self.second = BiLSTM(STACKED * config.feature_dim), BiLSTM(WIDTH)
        self.dropout = nn.Dropout(DROPOUT)
        self.attention = ComponentAttention()

    def aggregate(self, features: Tensor, frames: Frames) -> FrameLevel:
        missing = -features.shape[1] % STACKED
        x = pad(features, (0, 0, 0, missing)).reshape(len(features), -1, STACKED * features.shape[2])
        lengths = torch.div(frames.given_lengths + STACKED - 1, STACKED, rounding_mode="floor")
        frames = Frames.from_lengths(lengths, x.shape[1], x.device, frames.phoneme_stream)
        x = self.dropout(self.first(x, frames))
        return FrameLevel(self.attention(self.dropout(self.second(frames.zeroed(x), frames)), frames), frames)

    def embed(self, level: FrameLevel) -> Tensor:
        return level.frames.mean(level.x.float())


def count_segments(features: Tensor, lengths: Tensor) -> Tensor:
    """Runs of at least 9 louder frames of each clip, (N, T, D) and (N,) -> (N,) int, at least 1.

    A frame is louder if the mean of its values, of which those of filter banks rise with its energy, is above that of
    the clip.
    """
    frames = Frames.from_lengths(lengths, features.shape[1], features.device)
    level = features.detach().float().mean(2, keepdim=True)
    louder = (level > frames.mean(level).unsqueeze(1)).squeeze(2)
    if frames.mask is not None:
        louder &= frames.mask.squeeze(2) > 0
    if features.shape[1] < SHORTEST_SEGMENT:
        return torch.ones(len(features), dtype=torch.int64)
    runs = louder.unfold(1, SHORTEST_SEGMENT, 1).all(2)  # from each frame on
    starts = runs & ~pad(runs, (1, -1), value=False)
    return starts.sum(1).clamp(min=1).cpu()


class AttentionCtc(MultitaskHeads):
    """The frame-wise CTC output takes the place of the ESC head; gender and EIS, if learned, see the embedding."""

    def __init__(self, config: ModelConfig):
        config = replace(config, embedding_dim=WIDTH)
        super().__init__(config, AttentionBlstm(config), None)
        self.esc_head = Convolution(WIDTH, config.num_esc + 1)

    def predict_esc(self, level: FrameLevel, embedding: Tensor, predictions: Predictions) -> None:
        """The logits are logarithms of the posteriors without blank, summed over time."""
        logits = self.esc_head(self.dropout(level.x)).float()
        predictions.esc_frame_logits = logits
        emitted = level.frames.zeroed(logits.softmax(2))[:, :, 1:].sum(1)
        predictions.esc_logits = emitted.clamp(min=1e-30).log()

    def forward(self, features: Tensor, lengths: Tensor, tasks: Iterable[str] | None = None) -> Predictions:
        predictions = super().forward(features, lengths, tasks)
        if self.training and predictions.esc_frame_logits is not None:
            labels = (
                torch.ones_like(lengths) if self.config.ctc_labels == "single" else count_segments(features, lengths)
            )
            # a blank stands between two equal labels, so n of them take 2 n - 1 steps
            predictions.esc_labels = labels.cpu().minimum(
                torch.div(predictions.lengths.cpu() + 1, 2, rounding_mode="floor")
            )
        return predictions
