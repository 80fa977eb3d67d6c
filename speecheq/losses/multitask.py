"""The objective of equation 4."""

from dataclasses import dataclass
from typing import Dict

from torch import Tensor


@dataclass
class LossWeights:
    """L = L_esc + alpha L_eis + beta L_phoneme + eta L_gender (equation 4); the defaults are the paper's."""

    alpha: float = 1.0
    beta: float = 0.1
    eta: float = 0.1

    def __post_init__(self):
        for name in ("alpha", "beta", "eta"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be a number of at least 0")

    def of(self, task: str) -> float:
        """The weight of a task's loss; KeyError for an unknown task."""
        return {"esc": 1.0, "eis": self.alpha, "phoneme": self.beta, "gender": self.eta}[task]


def combine(losses: Dict[str, Tensor], weights: LossWeights) -> Tensor:
    """Equation 4 over the losses given by task (esc, eis, phoneme, gender); absent tasks add nothing.

    As the sum is linear, calling this stream by stream and adding up gives the same gradient. ValueError for no
    losses or an unknown task.
    """
    unknown = set(losses) - {"esc", "eis", "phoneme", "gender"}
    if unknown or not losses:
        raise ValueError(f"losses are of {sorted(losses)}; they must be of some of esc, eis, phoneme, gender")
    return sum(weights.of(task) * loss.float() for task, loss in losses.items())
