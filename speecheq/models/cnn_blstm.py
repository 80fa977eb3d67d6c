"""CNN-BLSTM: an encoder of the kind that the authors of MTL-AUG use, as an alternative to SpeechEQ's backbone.

Their abstract names the kind only: convolutions, a bidirectional LSTM, attention over time. Our choices: all sizes (C
throughout, kernels of 5 and 3 frames, one LSTM layer), batch norm, max-pooling over 3 frames after the first
convolution, one attention weight a frame, and the fully connected layer before the heads.

Padding is masked everywhere, so the predictions for an utterance do not depend on its batch.
"""

import torch
from torch import Tensor, nn

from speecheq.config.schema import ModelConfig
from speecheq.models.baseline import POOLING, BiLSTM, max_pool
from speecheq.models.convolution import Convolution
from speecheq.models.ecapa import TdnnUnit
from speecheq.models.heads import Backbone, FrameLevel, MultitaskHeads
from speecheq.models.layer_mixture import build_front_end
from speecheq.models.padding_mask import Frames


class CnnBlstmEncoder(Backbone):
    """The frame level is the LSTM's output (N, T / 3, C); the embedding, its mean weighted by attention."""

    def __init__(self, config: ModelConfig, input_dim: int):
        super().__init__()
        width, per_stream = config.channels, config.batch_statistics == "per_stream"
        self.first = TdnnUnit(input_dim, width, kernel=5, per_stream=per_stream)
        self.second = TdnnUnit(width, width, kernel=3, per_stream=per_stream)
        self.blstm = BiLSTM(width)
        self.attention = Convolution(width, 1)
        self.fc = nn.Linear(width, config.embedding_dim)

    def aggregate(self, features: Tensor, frames: Frames) -> FrameLevel:
        x, frames = max_pool(self.first(features, frames), frames)
        return FrameLevel(self.blstm(self.second(x, frames), frames), frames)

    def embed(self, level: FrameLevel) -> Tensor:
        h, frames = level.x.float(), level.frames
        weights = frames.softmax(self.attention(h).float())
        return torch.relu(self.fc((frames.zeroed(h) * weights).sum(1)).float())


class CnnBlstm(MultitaskHeads):
    """CNN-BLSTM, and the heads; phonemes at a third of the features' frame rate, 33 a second with fbank."""

    def __init__(self, config: ModelConfig):
        front_end, width = build_front_end(config.validate())
        super().__init__(config, CnnBlstmEncoder(config, width), config.channels, POOLING, front_end=front_end)
