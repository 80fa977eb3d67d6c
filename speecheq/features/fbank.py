"""80-dimensional log mel filter banks (section 3.2), as in Kaldi's fbank.

``Fbank`` is a lhotse feature extractor over kaldi-native-fbank and fills the archives of stage 2;
``BatchedFbank`` computes the same in torch, in batches on the training device. Both take samples in [-1, 1] and agree
with Kaldi's fbank of the same options (the paper uses librosa's mel filter banks; this is a stated deviation).
"""

import warnings
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, TypeVar

import kaldi_native_fbank
import numpy as np
import torch
from lhotse.features.base import FeatureExtractor, register_extractor
from lhotse.features.kaldi.layers import Wav2LogFilterBank
from torch import nn

from speecheq.features.waveform_batch import zero_padding

# Frames computed at a time on a CPU, so that intermediate values stay in its cache.
FRAMES_A_PIECE = 2000


Samples = TypeVar("Samples", int, torch.Tensor)


@dataclass(frozen=True)
class FbankConfig:
    """Settings of the filter banks: frame length and shift in seconds, sampling rate and frequencies in Hz."""

    sampling_rate: int = 16000
    num_filters: int = 80
    frame_length: float = 0.025
    frame_shift: float = 0.01
    window_type: str = "hamming"
    low_freq: float = 20.0
    high_freq: float = 8000.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FbankConfig":
        return cls(**values)

    @property
    def shift_samples(self) -> int:
        return round(self.frame_shift * self.sampling_rate)

    @property
    def window_samples(self) -> int:
        return round(self.frame_length * self.sampling_rate)

    def num_frames(self, num_samples: Samples) -> Samples:
        """Number of samples -> number of frames: an int, or a tensor of integers."""
        return (num_samples + self.shift_samples // 2) // self.shift_samples


@lru_cache(maxsize=8)
def _kaldi_options(config: FbankConfig) -> kaldi_native_fbank.FbankOptions:
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = config.sampling_rate
    options.frame_opts.frame_length_ms = 1000 * config.frame_length
    options.frame_opts.frame_shift_ms = 1000 * config.frame_shift
    options.frame_opts.window_type = config.window_type
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = config.num_filters
    options.mel_opts.low_freq = config.low_freq
    options.mel_opts.high_freq = config.high_freq
    options.use_energy = False
    return options


@register_extractor
class Fbank(FeatureExtractor):
    """kaldi-native-fbank as a lhotse feature extractor: (samples,) in [-1, 1] -> (frames, 80) float32."""

    name = "speecheq-fbank"
    config_type = FbankConfig

    @property
    def frame_shift(self) -> float:
        return self.config.frame_shift

    def feature_dim(self, sampling_rate: int) -> int:
        return self.config.num_filters

    def extract(self, samples: Any, sampling_rate: int) -> np.ndarray:
        """The features (T, 80) float32 of one clip, samples (S,) or (1, S) in [-1, 1].

        Raises ValueError for another sampling rate, several channels, or no samples.
        """
        samples = np.ascontiguousarray(samples, dtype=np.float32)
        if samples.ndim == 2 and samples.shape[0] == 1:
            samples = samples[0]
        if samples.ndim != 1 or samples.size == 0:
            raise ValueError(f"one channel of samples is expected, not an array of shape {samples.shape}")
        if sampling_rate != self.config.sampling_rate:
            raise ValueError(f"samples at {self.config.sampling_rate} Hz are expected, not at {sampling_rate} Hz")
        fbank = kaldi_native_fbank.OnlineFbank(_kaldi_options(self.config))
        # of all sequence types that the binding accepts, a memoryview is the fastest
        fbank.accept_waveform(self.config.sampling_rate, memoryview(samples))
        fbank.input_finished()
        return np.array([fbank.get_frame(index) for index in range(fbank.num_frames_ready)])


class BatchedFbank(nn.Module):
    """The features of ``Fbank`` for a padded batch, differentiable and on any device."""

    def __init__(self, config: FbankConfig = FbankConfig()) -> None:
        super().__init__()
        self.config = config
        with warnings.catch_warnings():
            # lhotse expects snip_edges=False; here ``forward`` adds the edges itself
            warnings.simplefilter("ignore")
            self.layer = Wav2LogFilterBank(
                sampling_rate=config.sampling_rate,
                frame_length=config.frame_length,
                frame_shift=config.frame_shift,
                window_type=config.window_type,
                dither=0.0,
                snip_edges=True,
                low_freq=config.low_freq,
                high_freq=config.high_freq,
                num_filters=config.num_filters,
            )

    def num_frames(self, num_samples: torch.Tensor) -> torch.Tensor:
        """Numbers of samples (N,) -> numbers of frames (N,)."""
        return self.config.num_frames(num_samples)

    def forward(self, samples: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The features of a batch: ``samples`` (N, S) in [-1, 1], padded, and their ``lengths`` (N,) in samples.

        Kaldi mirrors a clip at both ends. In a padded batch the end of a clip is not the end of its row, so the
        mirrored samples are gathered for each clip.

        Returns:
            features (N, T, 80), zero beyond a clip's frames; numbers of frames (N,), on the device of ``lengths``. On
            the CPU this needs no synchronisation with the device of the samples.
        """
        window, shift = self.config.window_samples, self.config.shift_samples
        frames = self.config.num_frames(lengths)
        most = int(frames.max())
        lengths, counts = (values.to(samples.device, non_blocking=True) for values in (lengths, frames))
        # frame t is centred on sample t * shift + shift / 2
        position = torch.arange((most - 1) * shift + window, device=samples.device) - (window - shift) // 2
        period = 2 * lengths[:, None]
        position = torch.remainder(position[None, :], period)
        mirrored = torch.where(position < lengths[:, None], position, period - 1 - position)
        features = self._filter_banks(samples.float().gather(1, mirrored), most)
        return zero_padding(features, counts), frames

    def _filter_banks(self, samples: torch.Tensor, frames: int) -> torch.Tensor:
        if samples.device.type != "cpu":
            return self.layer(samples)
        return torch.cat([self.layer(rows) for rows in samples.split(max(1, FRAMES_A_PIECE // frames))])
