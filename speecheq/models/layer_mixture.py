"""The weighted sum of a pretrained encoder's layers, in front of a backbone.

Yang et al. (SUPERB, 2021) feed frozen encoders to a task in this way: lower layers hold more of the voice, upper ones
more of the words, and the task learns which it needs.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from speecheq.config.schema import ModelConfig

LAST_SCORE = 4.0  # of the last layer at the start, where it is preferred: 0.96 of the weight with three layers


class LayerNorms(nn.Module):
    """States of L layers, one after the other in a frame, (N, T, L D) -> (N, T, L, D), each of mean 0 and deviation 1.

    The layers differ in range by orders of magnitude, and so do loud and quiet frames.
    """

    ones: Tensor
    zeros: Tensor

    def __init__(self, num_layers: int, layer_dim: int):
        super().__init__()
        self.num_layers, self.layer_dim = num_layers, layer_dim
        # torch 1.13 cannot write a layer norm without weights to ONNX
        self.register_buffer("ones", torch.ones(layer_dim), persistent=False)
        self.register_buffer("zeros", torch.zeros(layer_dim), persistent=False)

    def forward(self, states: Tensor) -> Tensor:
        layers = states.reshape(*states.shape[:2], self.num_layers, self.layer_dim)
        return layer_norm(layers, (self.layer_dim,), self.ones, self.zeros)


class LayerMixture(nn.Module):
    """States of L layers (N, T, L D) -> (N, T, projection).

    The L layers, each normalised, are summed with weights that are a softmax of learned scores, and projected. These
    are equal at the start, or, with ``begins_with_last``, nearly all weight is on the last layer.
    """

    def __init__(self, num_layers: int, layer_dim: int, projection: int, begins_with_last: bool = False):
        super().__init__()
        self.norms = LayerNorms(num_layers, layer_dim)
        self.scores = nn.Parameter(torch.zeros(num_layers))  # the same weight for each at the start
        if begins_with_last:
            self.scores.data[-1] = LAST_SCORE
        self.project = nn.Linear(layer_dim, projection)

    def weights(self) -> Tensor:
        """The share (L,) that each layer has in the sum."""
        return self.scores.softmax(0)

    def forward(self, states: Tensor) -> Tensor:
        return self.project((self.norms(states) * self.weights().unsqueeze(1)).sum(2))


def build_front_end(config: ModelConfig) -> tuple[LayerMixture | None, int]:
    """What stands between the features and a backbone that takes one vector a frame.

    Returns: the mixture of layers, or None for filter banks; and the width of what the backbone gets.
    """
    if not config.encoder_layers:
        return None, config.feature_dim
    return LayerMixture(config.encoder_layers, config.encoder_dim, config.projection), config.projection
