"""Mean and deviation of features over frames, and normalisation by those of a speaker."""

import torch
from torch import Tensor

# Of a value that does not change, and of a speaker of one frame.
MIN_DEVIATION = 1e-3


class FrameSums:
    """Sums over frames (D,), from which mean and deviation follow."""

    def __init__(self) -> None:
        self.frames, self.values, self.squares = 0, torch.zeros(1).double(), torch.zeros(1).double()

    def add(self, features: Tensor) -> None:
        """Add the frames of ``features`` (T, D)."""
        rows = features.cpu().double()  # in this order: Apple's GPUs have no float64
        self.frames += len(rows)
        self.values = self.values + rows.sum(0)
        self.squares = self.squares + rows.square().sum(0)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (D,) and deviation (D,), float32."""
        mean = self.values / self.frames
        variance = (self.squares / self.frames - mean.square()).clamp(min=0)
        return mean.float(), variance.sqrt().clamp(min=MIN_DEVIATION).float()


def normalise_by(features: Tensor, lengths: Tensor, moments: Tensor) -> Tensor:
    """Features (N, T, D) of ``lengths`` (N,) frames, on the CPU, by mean and deviation (N, 2, D); padding is zero."""
    moments = moments.to(features.device)
    padding = torch.arange(features.shape[1]) >= lengths[:, None]
    normalised = (features - moments[:, 0, None]).div_(moments[:, 1, None])  # in place: new memory is slow
    return normalised.masked_fill_(padding.to(features.device)[:, :, None], 0.0)
