"""The loss of MTL-AUG's decoder."""

import torch
from torch import Tensor


def reconstruction_loss(reconstruction: Tensor, features: Tensor, lengths: Tensor) -> Tensor:
    """The mean squared error () over the valid frames of a batch, in float32; ours, as the paper's is not public.

    ``reconstruction`` and ``features`` (N, T, D), ``lengths`` (N,) in 1..T. Padding may hold anything.
    """
    frames = (torch.arange(features.shape[1]) < lengths.cpu()[:, None]).to(features.device)
    errors = (reconstruction.float() - features.float()).masked_fill(~frames[:, :, None], 0.0)
    return errors.square().sum() / (frames.sum() * features.shape[2])
