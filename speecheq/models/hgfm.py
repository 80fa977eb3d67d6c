"""hgfm, a re-implementation of [34]: Xu, Xu and Zou, "HGFM: a hierarchical grained and feature model for acoustic
emotion recognition" (ICASSP 2020), by its code (zjyyyy/HGFM).

Known from the code: 33 features a frame (feature set hgfm33); at the level of utterances a bidirectional GRU of 300
units a direction, self-attention (a plain dot product) over the forward half l and over the backward half r, then
[att(l); l; x; r; att(r)] -> linear 300, tanh, maximum over time, dropout 0.5; at the level of dialogues (by
``model.context: dialogue``) the same over the utterances of a dialogue in their order; linear 100, dropout 0.5 twice,
linear to the classes. Adam 2.5e-4, times 0.5^(1/20) each epoch. With the dialogues it has 2.54 M parameters.

Assumed: the linear layer of 100 follows the utterance itself where there is no context; lengths are the true ones (in
the code they are the frames whose zero-crossing rate is not 0, which drops silence); clips are not cut at the mean plus
three deviations. The branch of 1,582 openSMILE functionals, with which the code does not run, is left out, and the
split, which is not public, is that of the protocol.

The context of other utterances, of both speakers, is information that systems of single utterances do not have: tables
mark it.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from speecheq.config.schema import ModelConfig
from speecheq.models.heads import Backbone, FrameLevel, MultitaskHeads
from speecheq.models.padding_mask import Frames
from speecheq.models.res_bigru import run_both_ways

UNITS = 300
EMBEDDING = 100
DROPOUT = 0.5


def attend(states: Tensor, mask: Tensor | None) -> Tensor:
    """Self-attention by a plain dot product, (N, T, C) -> (N, T, C); ``mask`` (N, T, 1) is 0 on padding."""
    scores = states @ states.transpose(1, 2)
    if mask is not None:
        scores = scores.masked_fill(mask.transpose(1, 2) == 0, float("-inf"))
    return scores.softmax(2) @ states


class GrainedGru(nn.Module):
    """(N, T, in) -> (N, T, 300): the GRU, the attention over each of its directions, and the linear layer."""

    def __init__(self, inputs: int):
        super().__init__()
        self.forward_gru, self.backward_gru = nn.GRU(inputs, UNITS), nn.GRU(inputs, UNITS)
        self.joined = 4 * UNITS + inputs
        self.fc = nn.Linear(self.joined, UNITS)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        there, back = run_both_ways(self.forward_gru, self.backward_gru, x, frames).float().split(UNITS, dim=2)
        parts = [attend(there, frames.mask), there, x, back, attend(back, frames.mask)]
        return torch.tanh(self.fc(torch.cat(parts, dim=2)))


class HierarchicalGru(Backbone):
    """The frame level is the features; the embedding (N, 100) of an utterance, alone or in its dialogue."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.utterance = GrainedGru(config.feature_dim)
        self.dialogue = GrainedGru(UNITS) if config.context == "dialogue" else None
        self.fc = nn.Linear(UNITS, EMBEDDING)
        self.dropout = nn.Dropout(DROPOUT)

    def aggregate(self, features: Tensor, frames: Frames) -> FrameLevel:
        return FrameLevel(features, frames)

    def embed(self, level: FrameLevel) -> Tensor:
        x = self.utterance(level.x, level.frames)
        if level.frames.mask is not None:
            x = x.masked_fill(level.frames.mask == 0, float("-inf"))
        x = self.dropout(x.max(1).values)
        if self.dialogue is not None:  # the mini-batch is one dialogue, in its order
            turns = Frames.from_lengths(torch.tensor([len(x)]), len(x), x.device)
            x = self.dialogue(x.unsqueeze(0), turns).squeeze(0)
        return self.dropout(self.fc(x))


class Hgfm(MultitaskHeads):
    """HGFM, and the heads; the second dropout of the two is that of the heads (``model.dropout``)."""

    def __init__(self, config: ModelConfig):
        config = replace(config, embedding_dim=EMBEDDING)
        super().__init__(config, HierarchicalGru(config), None)
