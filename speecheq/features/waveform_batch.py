"""Batches of padded waveforms: (N, S) float32, with lengths (N,) int64 in samples, kept on the CPU."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

SAMPLING_RATE = 16000


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """``values`` on ``device``, copied asynchronously."""
    return values.to(device, non_blocking=True)


def as_column(values: Tensor, like: Tensor) -> Tensor:
    """``values`` (N,) as a column (N, 1) of the device and type of ``like``."""
    return to_device(values.to(like.dtype), like.device)[:, None]


def zero_padding(values: Tensor, lengths: Tensor) -> Tensor:
    """Waveforms (N, S), or frames (N, T, D), with zeros after ``lengths`` (N,)."""
    valid = torch.arange(values.shape[1], device=values.device) < to_device(lengths, values.device)[:, None]
    valid = valid.reshape(*valid.shape, *[1] * (values.ndim - 2))
    return torch.where(valid, values, torch.zeros((), dtype=values.dtype, device=values.device))


def fit_length(waveforms: Tensor, samples: int) -> Tensor:
    """Waveforms (N, S) -> (N, ``samples``): padded with zeros, or cut, at the end."""
    return pad(waveforms, (0, samples - waveforms.shape[1]))


def change_rows(chosen: Tensor, waveforms: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Replace the clips of ``waveforms`` (N, S) where ``chosen`` (N,) bool by ``change(rows, clips)``.

    ``change`` gets the row numbers (M,) and the clips (M, S), and may return another number of samples. Returns (N,
    S'), where S' is the larger number of samples.
    """
    rows = chosen.nonzero()[:, 0]
    if len(rows) == 0:
        return waveforms
    if len(rows) == len(waveforms):
        return change(rows, waveforms)
    place = to_device(rows, waveforms.device)
    changed = change(rows, waveforms[place])
    samples = max(waveforms.shape[1], changed.shape[1])
    return fit_length(waveforms, samples).index_copy(0, place, fit_length(changed, samples))
