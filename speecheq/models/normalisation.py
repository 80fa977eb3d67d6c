"""Normalisation of features, which the paper does not mention: global, by utterance, by speaker, or none."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from speecheq.models.heads import Predictions
from speecheq.models.padding_mask import Frames

MODES = ("utterance", "global", "none", "speaker")
# A filter bank with a smaller deviation counts as constant and is only centred.
MIN_DEVIATION = 1e-3


class Cmvn(nn.Module):
    """Cepstral mean and variance normalisation, as Kaldi calls it: each filter bank gets mean 0 and deviation 1.

    ``global`` uses the mean and deviation (D,) of the training cuts, kept as buffers with the model's weights;
    ``utterance`` those of each utterance's own frames. With ``speaker`` the features come normalised, as the model
    alone does not know the speaker's other clips (dataset/model_inputs.py).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, mode: str, feature_dim: int, mean: Sequence[float] | None = None, deviation: Sequence[float] | None = None
    ):
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"cmvn is {mode!r}; it must be one of {', '.join(MODES)}")
        self.mode = mode
        self.register_buffer("mean", torch.zeros(feature_dim) if mean is None else torch.as_tensor(mean).float())
        self.register_buffer(
            "deviation", torch.ones(feature_dim) if deviation is None else torch.as_tensor(deviation).float()
        )

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Features (N, T, D), lengths (N,) -> normalised features (N, T, D); finite padding becomes 0."""
        if self.mode in ("none", "speaker"):
            return features
        frames = Frames.from_lengths(lengths, features.shape[1], features.device)
        if self.mode == "global":
            return frames.zeroed((features - self.mean) / self.deviation.clamp(min=MIN_DEVIATION))
        centred = features - frames.mean(features).unsqueeze(1)
        return frames.zeroed(centred / frames.mean(centred**2).unsqueeze(1).sqrt().clamp(min=MIN_DEVIATION))


class Normalised(nn.Module):
    """A model with its input normalisation, trained, stored and used together."""

    def __init__(self, cmvn: Cmvn, model: nn.Module):
        super().__init__()
        self.cmvn, self.model = cmvn, model

    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        change: Callable[[Tensor, Tensor], Tensor] | None = None,
        **options: Any,
    ) -> Predictions:
        """Features (N, T, D), lengths (N,) -> the model's predictions; ``options`` go to the model.

        ``change`` (in training) turns normalised features and their lengths into features of the same shape.
        """
        normal = self.cmvn(features, lengths)
        return self.model(normal if change is None else change(normal, lengths), lengths, **options)
