"""The objective of equation 4, and what MTL-AUG adds to it."""

from dataclasses import dataclass, fields

from torch import Tensor

TASKS = ("esc", "eis", "phoneme", "gender", "augmentation", "reconstruction")


@dataclass
class LossWeights:
    """L = L_esc + alpha L_eis + beta L_phoneme + eta L_gender (equation 4); the defaults are the paper's.

    MTL-AUG adds L_augmentation and L_reconstruction with weights of their own; the authors' are not public.
    """

    alpha: float = 1.0
    beta: float = 0.1
    eta: float = 0.1
    augmentation_weight: float = 0.0
    reconstruction_weight: float = 0.0

    def __post_init__(self):
        for name in (item.name for item in fields(self)):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be a number of at least 0")

    def of(self, task: str) -> float:
        """The weight of a task's loss; KeyError for an unknown task."""
        return {
            "esc": 1.0,
            "eis": self.alpha,
            "phoneme": self.beta,
            "gender": self.eta,
            "augmentation": self.augmentation_weight,
            "reconstruction": self.reconstruction_weight,
        }[task]


def combine(losses: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """Equation 4 over the losses given by task (TASKS); absent tasks add nothing.

    As the sum is linear, calling this stream by stream and adding up gives the same gradient. ValueError for no
    losses or an unknown task.
    """
    unknown = set(losses) - set(TASKS)
    if unknown or not losses:
        raise ValueError(f"losses are of {sorted(losses)}; they must be of some of {', '.join(TASKS)}")
    return sum(weights.of(task) * loss.float() for task, loss in losses.items())
