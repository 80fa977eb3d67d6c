"""SpeechEQ (section 2.3, Figure 2): one backbone, four heads."""

from collections.abc import Iterable

from torch import Tensor

from speecheq.config.schema import ModelConfig
from speecheq.models.ecapa import EcapaTdnn
from speecheq.models.heads import TASKS, MultitaskHeads, Predictions
from speecheq.models.padding_mask import Frames


class SpeechEQ(MultitaskHeads):
    """ECAPA-TDNN with Res-BiGRUs and four heads; phonemes at 100 frames a second."""

    def __init__(self, config: ModelConfig):
        super().__init__(config.validate(), EcapaTdnn(config), config.mfa_channels)

    def forward(self, features: Tensor, lengths: Tensor, tasks: Iterable[str] = TASKS) -> Predictions:
        """Predict ``tasks`` for features (N, T, feature_dim), lengths (N,) in 1..T, best kept on the CPU.

        Only what the tasks need is computed: phonemes alone need no pooling, and with ``batch_statistics:
        per_stream`` they are normalised by the phoneme stream's statistics. ValueError for an unknown task.
        """
        tasks = self.checked(tasks)
        frames = Frames.of(lengths, features.shape[1], features.device, of_phonemes=tasks == {"phoneme"})
        aggregated = self.backbone.aggregate(features, frames)
        return self.predict(
            tasks, lengths, features.shape[1], aggregated, lambda: self.backbone.embed(aggregated, frames)
        )
