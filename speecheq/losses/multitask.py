"""The objective of equation 4, with MTL-AUG's losses."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor


@dataclass
class LossWeights:
    """L = L_esc + alpha L_eis + beta L_phoneme + eta L_gender (equation 4); the defaults are the paper's.

    MTL-AUG adds L_augmentation and L_reconstruction; its authors' weights are not public.
    """

    alpha: float = 1.0
    beta: float = 0.1
    eta: float = 0.1
    # named apart from the losses, beside which they are drawn as curves
    augmentation_weight: float = 0.0
    reconstruction_weight: float = 0.0

    def __post_init__(self):
        for name, weight in asdict(self).items():
            if not weight >= 0:
                raise ValueError(f"{name} is {weight!r}; it must be a number of at least 0")

    def by_task(self) -> dict[str, float]:
        """The weight of each task's loss."""
        return {
            "esc": 1.0,
            "eis": self.alpha,
            "phoneme": self.beta,
            "gender": self.eta,
            "augmentation": self.augmentation_weight,
            "reconstruction": self.reconstruction_weight,
        }


def combine(losses: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """Equation 4: losses () by task -> their weighted sum () in float32; tasks without a loss are skipped.

    The sum is linear, so gradients computed stream by stream add up to those of all streams. Raises ValueError for no
    losses or an unknown task.
    """
    by_task = weights.by_task()
    if not losses or set(losses) - set(by_task):
        raise ValueError(f"the losses are of the tasks {sorted(losses)}; they must be among {', '.join(by_task)}")
    return sum((by_task[task] * loss.float() for task, loss in losses.items()), torch.zeros(()))


def reconstruction_loss(reconstruction: Tensor, features: Tensor, lengths: Tensor) -> Tensor:
    """The loss of MTL-AUG's decoder: mean squared error () over valid frames in float32; theirs is not public.

    ``reconstruction`` and ``features`` (N, T, D), ``lengths`` (N,) in 1..T. Padding may have any values.
    """
    frames = (torch.arange(features.shape[1]) < lengths.cpu()[:, None]).to(features.device)
    errors = (reconstruction.float() - features.float()).masked_fill(~frames[:, :, None], 0.0)
    return errors.square().sum() / (frames.sum() * features.shape[2])
