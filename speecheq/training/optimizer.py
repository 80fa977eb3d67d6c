"""The optimiser, and the moving average of the weights."""

import copy

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from speecheq.config.schema import OptimConfig
from speecheq.models.normalisation import Normalised


def build_optimizer(model: nn.Module, config: OptimConfig) -> Optimizer:
    """``optim.optimizer`` over all parameters of the model.

    Adam adds its weight decay to the gradient of every parameter, as in the paper. AdamW shrinks the weights
    themselves, but no parameter with one dimension: biases and the scales of norms.
    """
    if config.optimizer == "adam":
        return Adam(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return AdamW(groups, config.learning_rate)


class AverageModel:
    """The exponential moving average of a model over its steps: ``model`` has the averaged weights, in eval mode.

    After step t (from 0) the average moves towards the model by 1 - d with d = min(decay, (1 + t) / (10 + t)), so that
    the first steps count little. The running statistics of batch norm are averaged like the weights, the best fit
    without another pass over the data; counters are copied.
    """

    def __init__(self, model: Normalised, decay: float):
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the weights that ``model`` has after step ``step``."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for averaged, value in zip(self.model.state_dict().values(), model.state_dict().values()):
            if averaged.is_floating_point():
                averaged.lerp_(value, weight)
            else:
                averaged.copy_(value)
