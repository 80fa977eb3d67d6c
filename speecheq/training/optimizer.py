"""The optimiser, and the moving average of the weights."""

import copy
from typing import Any

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from speecheq.config.schema import OptimConfig
from speecheq.models.heads import learns_phonemes_alone
from speecheq.models.normalisation import Normalised


def build_optimizer(
    model: nn.Module, config: OptimConfig, encoder_learning_rate: float = 0.0, phoneme_factor: float = 1.0
) -> Optimizer:
    """``optim.optimizer`` over all parameters of the model that are trained.

    Adam adds its weight decay to the gradient of every parameter, as in the paper. AdamW shrinks the weights
    themselves, but no parameter with one dimension: biases and the scales of norms. A group may have a ``lr_scale``, by
    which the learning rate of a step is multiplied: ``phoneme_factor`` for what learns phonemes alone; for an encoder's
    parameters what makes of ``optim.learning_rate`` ``encoder_learning_rate`` times the factor of the parameter.
    """
    own = {name: value for name, value in model.named_parameters() if not name.startswith("extractor.")}
    phonemes = {} if phoneme_factor == 1 else {name: own.pop(name) for name in list(own) if learns_phonemes_alone(name)}
    groups = _groups(list(own.values()), config)
    if phonemes:
        groups += [{**group, "lr_scale": phoneme_factor} for group in _groups(list(phonemes.values()), config)]
    by_factor: dict[float, list[nn.Parameter]] = {}
    factors = model.factors if isinstance(model, Normalised) else {}
    for name, factor in factors.items():
        by_factor.setdefault(factor, []).append(model.get_parameter(f"extractor.{name}"))
    for factor, parameters in sorted(by_factor.items(), reverse=True):
        scale = encoder_learning_rate * factor / config.learning_rate
        groups += [{**group, "lr_scale": scale} for group in _groups(parameters, config)]
    if config.optimizer == "adam":
        return Adam(groups, config.learning_rate)
    return AdamW(groups, config.learning_rate)


def _groups(parameters: list[nn.Parameter], config: OptimConfig) -> list[dict[str, Any]]:
    """The parameters in groups of the same weight decay."""
    if config.optimizer == "adam":
        return [{"params": parameters, "weight_decay": config.weight_decay}]
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]


class AverageModel:
    """The exponential moving average of a model over its steps: ``model`` has the averaged weights, in eval mode.

    After step t (from 0) the average moves towards the model by 1 - d with d = min(decay, (1 + t) / (10 + t)), so that
    the first steps count little. The running statistics of batch norm are averaged like the weights, the best fit
    without another pass over the data; counters are copied.
    """

    def __init__(self, model: Normalised, decay: float):
        self.decay = decay
        # what is not trained of an encoder is not copied
        shared = {id(value): value for value in model.parameters() if not value.requires_grad}
        self.model = copy.deepcopy(model, shared).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the weights that ``model`` has after step ``step``."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for averaged, value in zip(self.model.state_dict().values(), model.state_dict().values()):
            if averaged.is_floating_point():
                averaged.lerp_(value, weight)
            else:
                averaged.copy_(value)
