"""What is measured of a clip's audio, to tell whether a model was trained on the like: level and bandwidth."""

import math
from collections.abc import Mapping

import numpy as np
from scipy.signal import welch

from speecheq.features.speech_activity import QUIETEST, SAMPLING_RATE, loud_power, powers_of

SECONDS, LEVEL, BANDWIDTH = "seconds", "level", "bandwidth"
# The bandwidth is the frequency below which this share of the energy lies; of speech this much lies above 4 kHz.
ENERGY_SHARE = 0.999
# Samples of a spectrum, and the frequency in Hz from which on energy counts.
WINDOW, LOWEST = 512, 50.0


def clip_statistics(samples: np.ndarray, seconds: float) -> Mapping[str, float]:
    """The statistics of samples (S,) at 16 kHz, of a clip with so many seconds of speech.

    ``level`` is the RMS of its loud frames in dBFS, ``bandwidth`` is in Hz.
    """
    powers = powers_of(samples)
    level = max(QUIETEST, loud_power(powers) if len(powers) else 0.0)
    frequencies, spectrum = welch(samples, SAMPLING_RATE, nperseg=min(WINDOW, len(samples)))
    energy = np.cumsum(np.where(frequencies >= LOWEST, spectrum, 0.0))
    bandwidth = frequencies[np.searchsorted(energy, ENERGY_SHARE * energy[-1])]
    return {SECONDS: seconds, LEVEL: 10 * math.log10(level), BANDWIDTH: float(bandwidth)}
