"""A trained model as an attacker sees it: what it says of waveforms or features, with the gradient of that.

It is the scoring path itself: the model in eval mode, behind the filter banks and the normalisation.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from speecheq.common.errors import InputError
from speecheq.evaluation.robustness.attacks import Ball, Logits, slope
from speecheq.features.fbank import BatchedFbank

DECIBEL = math.log(10) / 10  # of an energy, in the natural logarithm that the filter banks are in
CHECKED_SAMPLES = 16000  # of noise, on which a model must have a gradient


def root_mean_square(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """(N,): the level of waveforms (N, S), zero beyond their ``lengths`` (N,)."""
    return (waveforms.double().square().sum(1) / lengths.to(waveforms.device)).sqrt().to(waveforms.dtype)


def of_clips(lengths: Tensor, like: Tensor) -> Tensor:
    """A mask like ``like`` (N, T, ...): 1 on the first ``lengths`` (N,) of each row, 0 on padding."""
    valid = torch.arange(like.shape[1], device=like.device) < lengths.to(like.device)[:, None]
    return valid.view(*valid.shape, *[1] * (like.dim() - 2)).to(like.dtype)


def ball_of_waveforms(waveforms: Tensor, lengths: Tensor, level: float) -> Ball:
    """Samples (N, S) in [-1, 1] that change by at most ``level`` dB relative to their clip's root mean square.

    The sum of the changes is then at least as far below the clip as -level dB says (its SNR).
    """
    radius = root_mean_square(waveforms, lengths)[:, None] * 10 ** (level / 20) * of_clips(lengths, waveforms)
    return Ball(waveforms, radius, -1.0, 1.0)


def ball_of_fbank(features: Tensor, frames: Tensor, level: float) -> Ball:
    """Log mel energies (N, T, D) that change by at most ``level`` dB each."""
    return Ball(features, level * DECIBEL * of_clips(frames, features))


def gradients_in_eval_mode(device: torch.device) -> AbstractContextManager:
    """The context in which a model in eval mode gives gradients on ``device``.

    cuDNN gives an RNN's in training mode only; torch's own kernels give it in eval mode too.
    """
    on_gpu = device.type == "cuda" and torch.is_grad_enabled()
    return torch.backends.cudnn.flags(enabled=False) if on_gpu else nullcontext()


class WhiteBox:
    """The ESC logits of a model, with gradients."""

    def __init__(self, model: nn.Module, fbank: BatchedFbank, device: torch.device, name: str):
        """``name`` is what an InputError calls a model that cannot be differentiated, such as an exported one."""
        if not isinstance(model, nn.Module):
            raise InputError(
                f"{name}: an attack needs the gradient, which {type(model).__name__} does not give; give "
                "the checkpoint or model folder that it was made from."
            )
        self.model, self.fbank, self.device = model.eval(), fbank, device
        noise = 0.1 * torch.randn(1, CHECKED_SAMPLES, generator=torch.Generator().manual_seed(0)).to(device)
        logits = self.of_waveforms(torch.tensor([CHECKED_SAMPLES]))
        try:
            with torch.no_grad():
                least = logits(noise).argmin(1)  # its loss is never flat
            depends = bool(slope(logits, noise, least).gradient.any())
        except (RuntimeError, ValueError) as fault:
            reason = (str(fault).splitlines() or [type(fault).__name__])[0]
            raise InputError(f"{name}: cannot be attacked, as it cannot be differentiated ({reason}).") from fault
        if not depends:
            raise InputError(f"{name}: cannot be attacked, the gradient of its answers is 0 everywhere.")

    def _logits(self, features: Tensor, frames: Tensor) -> Tensor:
        with gradients_in_eval_mode(self.device):
            return self.model(features, frames, tasks=("esc",)).esc_logits

    def of_fbank(self, frames: Tensor) -> Logits:
        """Features (N, T, D), padded, ``frames`` (N,) long -> logits (N, K)."""
        return lambda features: self._logits(features, frames)

    def of_waveforms(self, lengths: Tensor) -> Logits:
        """Waveforms (N, S), padded, ``lengths`` (N,) samples long -> logits (N, K)."""
        return lambda waveforms: self._logits(*self.fbank(waveforms, lengths))
