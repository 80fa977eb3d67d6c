"""Normalisation of features, a switch that the paper does not mention: ``utterance``, ``global`` or ``none``."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from speecheq.models.padding_mask import Frames

Change = Callable[[Tensor, Tensor], Tensor]

MODES = ("utterance", "global", "none")
# below this a filter bank counts as constant and is only centred
LEAST_DEVIATION = 1e-3


class Cmvn(nn.Module):
    """Features (N, T, D) to mean 0 and deviation 1 in each dimension; padding becomes 0.

    ``global`` uses the mean and deviation (D,) of the training cuts, kept as buffers with the model's weights;
    ``utterance`` those of each utterance's own frames.
    """

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
        if self.mode == "none":
            return features
        frames = Frames.of(lengths, features.shape[1], features.device)
        mask = frames.mask
        if self.mode == "global":
            normal = (features - self.mean) / self.deviation.clamp(min=LEAST_DEVIATION)
        else:
            counts = frames.counts[:, :, None]
            valid = features if mask is None else features * mask
            centred = features - valid.sum(1, keepdim=True) / counts
            squares = centred**2 if mask is None else centred**2 * mask
            normal = centred / (squares.sum(1, keepdim=True) / counts).sqrt().clamp(min=LEAST_DEVIATION)
        return normal if mask is None else normal * mask


class Normalised(nn.Module):
    """A model behind its normalisation: what is trained, stored and used is always the two together."""

    def __init__(self, cmvn: Cmvn, model: nn.Module):
        super().__init__()
        self.cmvn, self.model = cmvn, model

    def forward(self, features: Tensor, lengths: Tensor, change: Change | None = None, **options):
        """Features (N, T, D), lengths (N,) -> the model's predictions.

        ``change`` (in training) turns normalised features and their lengths into others of the same shape.
        """
        normal = self.cmvn(features, lengths)
        return self.model(normal if change is None else change(normal, lengths), lengths, **options)
