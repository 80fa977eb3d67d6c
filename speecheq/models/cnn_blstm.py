"""CNN-BLSTM: an encoder of the kind that the authors of MTL-AUG use in their work, beside SpeechEQ's backbone.

Of theirs only the kind is public in the abstract: convolutions, a bidirectional LSTM, attention over time. Ours are all
sizes (C throughout, kernels of 5 and 3 frames, one LSTM layer), batch norm, max-pooling over 3 frames behind the first
convolution, one attention weight a frame, the fully connected layer in front of the heads. The frame level is the
LSTM's output, at 33 frames a second; a decoder (heads.py) turns each of its frames into three.

As in the other models padding is masked everywhere: what an utterance gives does not depend on its batch.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from speecheq.config.schema import ModelConfig
from speecheq.models.baseline import POOLING, BiLSTM, max_pooled
from speecheq.models.convolution import Convolution
from speecheq.models.ecapa import TdnnUnit
from speecheq.models.heads import TASKS, MultitaskHeads, Predictions
from speecheq.models.padding_mask import Frames


class CnnBlstmEncoder(nn.Module):
    """Features -> frame level at a third of their frames -> utterance embedding."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width, per_stream = config.channels, config.batch_statistics == "per_stream"
        self.first = TdnnUnit(config.feature_dim, width, kernel=5, per_stream=per_stream)
        self.second = TdnnUnit(width, width, kernel=3, per_stream=per_stream)
        self.blstm = BiLSTM(width)
        self.attention = Convolution(width, 1)
        self.fc = nn.Linear(width, config.embedding_dim)

    def aggregate(self, features: Tensor, frames: Frames, lengths: Tensor) -> tuple[Tensor, Frames, Tensor]:
        """Features (N, T, feature_dim) -> frame level (N, T / 3, C), its frames and lengths (see max_pooled)."""
        x = features
        if frames.mask is not None:
            x = x.masked_fill(frames.mask == 0, 0.0)  # not a product: padding may hold NaN
        x, frames, lengths = max_pooled(self.first(x, frames), frames, lengths)
        return self.blstm(self.second(x, frames), frames), frames, lengths

    def embed(self, aggregated: Tensor, frames: Frames) -> Tensor:
        """What ``aggregate`` gave -> embedding (N, embedding_dim)."""
        h = aggregated.float()
        scores = self.attention(h).float()
        if frames.mask is not None:
            scores = scores.masked_fill(frames.mask == 0, float("-inf"))
        pooled = (frames.zeroed(h) * scores.softmax(1)).sum(1)
        return torch.relu(self.fc(pooled).float())


class CnnBlstm(MultitaskHeads):
    """CNN-BLSTM with the heads of all models; phonemes at 33 frames a second."""

    def __init__(self, config: ModelConfig):
        super().__init__(config.validate(), CnnBlstmEncoder(config), config.channels, POOLING)

    def forward(self, features: Tensor, lengths: Tensor, tasks: Iterable[str] = TASKS) -> Predictions:
        """As Baseline.forward."""
        tasks = self.checked(tasks)
        frames = Frames.of(lengths, features.shape[1], features.device, of_phonemes=tasks == {"phoneme"})
        aggregated, frames, lengths = self.backbone.aggregate(features, frames, lengths)
        return self.predict(
            tasks, lengths, features.shape[1], aggregated, lambda: self.backbone.embed(aggregated, frames)
        )
