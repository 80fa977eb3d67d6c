"""Filter banks and encoder states side by side, as model.kind fusion takes them, at 50 frames a second."""

import torch
from torch import Tensor, nn

from speecheq.features.encoders import Encoder
from speecheq.features.fbank import BatchedFbank
from speecheq.features.waveform_batch import zero_padding

# Frames of filter banks (10 ms) beside one state (20 ms).
FRAMES_EACH = 2


def beside(fbank: Tensor, states: Tensor) -> Tensor:
    """Filter banks (..., T, 80) and states (..., T', D) -> (..., T', 160 + D): two frames beside each state.

    The filter banks are cut to 2 T' frames, or padded with zeros at the end.
    """
    frames = states.shape[-2]
    fitted = nn.functional.pad(fbank, (0, 0, 0, FRAMES_EACH * frames - fbank.shape[-2]))
    return torch.cat([fitted.reshape(*fitted.shape[:-2], frames, -1), states], dim=-1)


class FitFbank(nn.Module):
    """Filter banks of padded batches, in a given number of frames."""

    def __init__(self, fbank: BatchedFbank) -> None:
        super().__init__()
        self.fbank = fbank

    def forward(self, samples: Tensor, lengths: Tensor, most: int, frames: Tensor) -> Tensor:
        """Samples (N, S), lengths (N,) -> filter banks (N, most, 80), zero after ``frames`` (N,)."""
        features, _ = self.fbank(samples, lengths)
        fitted = nn.functional.pad(features, (0, 0, 0, most - features.shape[1]))
        return zero_padding(fitted, frames)


class FbankAndStates(nn.Module):
    """The features of a padded batch of waveforms, as BatchedFbank gives its own."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.fbank = encoder, BatchedFbank()

    def num_frames(self, num_samples: Tensor) -> Tensor:
        return self.encoder.num_frames(num_samples)

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Samples (N, S), lengths (N,) -> features (N, T', 160 + L D), zero after a clip's frames; frames (N,)."""
        states, frames = self.encoder(samples, lengths)
        return zero_padding(beside(self.fbank(samples, lengths)[0], states), frames), frames
