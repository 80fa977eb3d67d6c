"""Sounds that Silero VAD takes for speech, made of nothing: vowels of a voice, in syllables."""

import numpy as np
from scipy.signal import lfilter

RATE = 16000
# Centres and bandwidths of the formants of a, i, o, in Hz.
VOWELS = (
    ((730, 90), (1090, 110), (2440, 160)),
    ((290, 60), (2290, 120), (3010, 180)),
    ((570, 80), (840, 100), (2410, 160)),
)


def speech_like(seconds, pitch=120.0, level=0.1, rate=RATE):
    """Vowels (S,) float32 that change five times a second, with an RMS of ``level``."""
    time = np.arange(round(seconds * rate)) / rate
    phase = np.cumsum(pitch * (1 + 0.1 * np.sin(2 * np.pi * 0.8 * time)) / rate)
    source = (np.diff(np.floor(phase), prepend=0) > 0).astype(float)
    syllable = (time * 5).astype(int)
    samples = np.zeros(len(time))
    for number, formants in enumerate(VOWELS):
        voiced = source * (syllable % len(VOWELS) == number)
        for centre, width in formants:
            radius = np.exp(-np.pi * width / rate)
            voiced = lfilter([1 - radius], [1, -2 * radius * np.cos(2 * np.pi * centre / rate), radius**2], voiced)
        samples += voiced
    samples *= 0.4 + 0.6 * np.sin(np.pi * (time * 5 % 1)) ** 2
    return (level * samples / samples.std()).astype(np.float32)


def silence(seconds, rate=RATE):
    return np.zeros(round(seconds * rate), np.float32)


def hiss(seconds, decibels, seed=0, rate=RATE):
    """White noise (S,) float32 at ``decibels`` of full scale."""
    noise = np.random.default_rng(seed).standard_normal(round(seconds * rate))
    return (10 ** (decibels / 20) * noise).astype(np.float32)
