"""GELU with a gradient that is right on every torch."""

import torch
from torch import Tensor
from torch.nn import functional

# The gradient of torch 1.13's GELU in front of a convolution is at times not finite on a CPU; its values are right.
GRADIENT_IS_SAFE = int(torch.__version__.split(".")[0]) >= 2


def gelu(values: Tensor) -> Tensor:
    """The exact GELU of values of any shape."""
    if GRADIENT_IS_SAFE or not (values.requires_grad and torch.is_grad_enabled()):
        return functional.gelu(values)
    return 0.5 * values * (1.0 + torch.erf(values * 0.5**0.5))
