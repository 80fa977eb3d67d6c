"""What is measured of a clip's audio, to tell whether a model was trained on the like: level and bandwidth."""

import math
from collections.abc import Mapping

import numpy as np

from speecheq.features.speech_activity import QUIETEST, SAMPLING_RATE, loud_power, powers_of

SECONDS, LEVEL, BANDWIDTH = "seconds", "level", "bandwidth"
# The bandwidth is the frequency below which this share of the energy lies; of speech this much lies above 4 kHz.
ENERGY_SHARE = 0.999
# Samples of a spectrum, and the frequency in Hz from which on energy counts.
WINDOW, LOWEST = 512, 50.0


def mean_spectrum(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Welch's estimate, but for a factor: frequencies (F,) in Hz and powers (F,) of samples (S,) at 16 kHz.

    scipy.signal has it too, but takes a second to import, as long as the answer to a clip.
    """
    size = min(WINDOW, len(samples))
    pieces = np.lib.stride_tricks.sliding_window_view(samples, size)[:: size - size // 2]
    window = np.hanning(size + 1)[:-1]
    powers = np.abs(np.fft.rfft((pieces - pieces.mean(axis=1, keepdims=True)) * window)) ** 2
    two_sided = np.full(powers.shape[1], 2.0)
    two_sided[0] = 1.0
    if size % 2 == 0:
        two_sided[-1] = 1.0
    return np.fft.rfftfreq(size, 1 / SAMPLING_RATE), powers.mean(axis=0) * two_sided


def clip_statistics(samples: np.ndarray, seconds: float) -> Mapping[str, float]:
    """The statistics of samples (S,) at 16 kHz, of a clip with so many seconds of speech.

    ``level`` is the RMS of its loud frames in dBFS, ``bandwidth`` is in Hz.
    """
    powers = powers_of(samples)
    level = max(QUIETEST, loud_power(powers) if len(powers) else 0.0)
    frequencies, spectrum = mean_spectrum(samples)
    energy = np.cumsum(np.where(frequencies >= LOWEST, spectrum, 0.0))
    bandwidth = frequencies[np.searchsorted(energy, ENERGY_SHARE * energy[-1])]
    return {SECONDS: seconds, LEVEL: 10 * math.log10(level), BANDWIDTH: float(bandwidth)}
