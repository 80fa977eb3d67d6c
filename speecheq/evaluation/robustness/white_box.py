"""A trained model for attacks: its ESC logits for waveforms or features, with their gradient.

It takes the same path as scoring: fbank, normalisation, the model in eval mode.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from speecheq.common.errors import InputError
from speecheq.evaluation.robustness.attacks import Ball, Logits, loss_gradient

DECIBEL = math.log(10) / 10  # of an energy, in the natural logarithm of fbank
PROBE_SAMPLES = 16000  # length of the noise on which a model must have a gradient


def root_mean_square(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """The level (N,) of waveforms (N, S), zero beyond their ``lengths`` (N,)."""
    return (waveforms.double().square().sum(1) / lengths.to(waveforms.device)).sqrt().to(waveforms.dtype)


def valid_mask(lengths: Tensor, like: Tensor) -> Tensor:
    """A mask that broadcasts to ``like`` (N, T, ...): 1 on the first ``lengths`` (N,) of each row, 0 on padding."""
    valid = torch.arange(like.shape[1], device=like.device) < lengths.to(like.device)[:, None]
    return valid.view(*valid.shape, *[1] * (like.dim() - 2)).to(like.dtype)


def waveform_ball(waveforms: Tensor, lengths: Tensor, level: float) -> Ball:
    """Samples (N, S) in [-1, 1] that change by at most ``level`` dB relative to their clip's root mean square.

    The SNR of such a change is at least -``level`` dB.
    """
    radius = root_mean_square(waveforms, lengths)[:, None] * 10 ** (level / 20) * valid_mask(lengths, waveforms)
    return Ball(waveforms, radius, -1.0, 1.0)


def fbank_ball(features: Tensor, frames: Tensor, level: float) -> Ball:
    """Log mel energies (N, T, D) that change by at most ``level`` dB each."""
    return Ball(features, level * DECIBEL * valid_mask(frames, features))


def gradients_in_eval_mode(device: torch.device) -> AbstractContextManager:
    """The context in which a model in eval mode has gradients on ``device``.

    cuDNN gives those of an RNN in training mode only, so torch's own kernels are used instead.
    """
    on_gpu = device.type == "cuda" and torch.is_grad_enabled()
    return torch.backends.cudnn.flags(enabled=False) if on_gpu else nullcontext()


class WhiteBox:
    """The ESC logits of a model, with gradients."""

    def __init__(self, model: nn.Module, extractor: nn.Module, device: torch.device, name: str):
        """Raises InputError that begins with ``name`` if the model, such as an exported one, has no gradient."""
        if not isinstance(model, nn.Module):
            raise InputError(
                f"{name}: an attack needs the gradient, which {type(model).__name__} does not give; give "
                "the checkpoint or model folder that it was made from."
            )
        self.model, self.extractor, self.device = model.eval(), extractor, device
        noise = 0.1 * torch.randn(1, PROBE_SAMPLES, generator=torch.Generator().manual_seed(0)).to(device)
        logits = self.waveform_logits(torch.tensor([PROBE_SAMPLES]))
        try:
            with torch.no_grad():
                least = logits(noise).argmin(1)  # the loss of this class is not flat
            has_gradient = bool(loss_gradient(logits, noise, least).gradient.any())
        except (RuntimeError, ValueError) as fault:
            reason = (str(fault).splitlines() or [type(fault).__name__])[0]
            raise InputError(f"{name}: cannot be attacked, as it cannot be differentiated ({reason}).") from fault
        if not has_gradient:
            raise InputError(f"{name}: cannot be attacked, the gradient of its logits is 0 everywhere.")

    def _logits(self, features: Tensor, frames: Tensor) -> Tensor:
        with gradients_in_eval_mode(self.device):
            return self.model(features, frames, tasks=("esc",)).esc_logits

    def fbank_logits(self, frames: Tensor) -> Logits:
        """The function from padded features (N, T, D) of ``frames`` (N,) frames to logits (N, K)."""
        return lambda features: self._logits(features, frames)

    def waveform_logits(self, lengths: Tensor) -> Logits:
        """The function from padded waveforms (N, S) of ``lengths`` (N,) samples to logits (N, K)."""
        return lambda waveforms: self._logits(*self.extractor(waveforms, lengths))
