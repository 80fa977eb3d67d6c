"""The log mel spectrograms that Whisper was trained on."""

import numpy as np
import torch
from torch import Tensor, nn

HOP, WINDOW = 160, 400  # samples: 10 and 25 ms
NYQUIST = 8000.0
# Slaney's mel scale: linear up to 1 kHz, logarithmic above.
HERTZ_A_MEL, BREAK, LOG_STEP = 200 / 3, 1000.0, np.log(6.4) / 27


def mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    """Slaney's mel scale to Hz."""
    knee = BREAK / HERTZ_A_MEL
    return np.where(mel < knee, mel * HERTZ_A_MEL, BREAK * np.exp(LOG_STEP * (mel - knee)))


def mel_filters(num_mels: int) -> np.ndarray:
    """Triangular filters (201, num_mels) over the bins of a 400-point transform, each of area 1 (Slaney's norm)."""
    highest = BREAK / HERTZ_A_MEL + np.log(NYQUIST / BREAK) / LOG_STEP
    edges = mel_to_hertz(np.linspace(0.0, highest, num_mels + 2))
    bins = np.linspace(0.0, NYQUIST, WINDOW // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))


class LogMel(nn.Module):
    """Log mel spectrograms of padded batches, as transformers' ``WhisperFeatureExtractor`` makes them of single clips.

    The loudest value of a clip sets its scale: values more than 8 decades below it are raised to that level.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, num_mels: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.register_buffer("filters", torch.from_numpy(mel_filters(num_mels)).float(), persistent=False)

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``samples`` (N, S) in [-1, 1], padded; ``lengths`` (N,) in samples, on the CPU.

        A clip is mirrored at its own ends, not at those of its row. Less than a hop gives one frame.

        Returns:
            log mel (N, F, num_mels), zero after a clip's frames; numbers of frames (N,), on the CPU.
        """
        frames = (lengths // HOP).clamp(min=1)
        most = int(frames.max())
        ends = (lengths.to(samples.device) - 1)[:, None]
        place = torch.arange((most - 1) * HOP + WINDOW, device=samples.device)[None, :] - WINDOW // 2
        place = ends - (torch.remainder(place, (2 * ends).clamp(min=1)) - ends).abs()  # mirrored at 0 and at ends
        mirrored = samples.float().gather(1, place)
        spectrum = torch.stft(mirrored, WINDOW, HOP, window=self.window, center=False, return_complex=True)
        power = torch.view_as_real(spectrum).square().sum(dim=-1).transpose(1, 2)
        log_mel = (power @ self.filters).clamp(min=1e-10).log10()
        valid = torch.arange(most, device=samples.device)[None, :] < frames.to(samples.device)[:, None]
        valid = valid[:, :, None]
        loudest = log_mel.masked_fill(~valid, -10.0).amax(dim=(1, 2), keepdim=True)
        log_mel = (torch.maximum(log_mel, loudest - 8.0) + 4.0) / 4.0
        return log_mel.masked_fill(~valid, 0.0), frames
