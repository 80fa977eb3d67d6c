"""Synthetic clips for tests, and measurements of clips."""

import math

import torch
from torch.nn.utils.rnn import pad_sequence

from speecheq.features.waveform_batch import SAMPLING_RATE

VOICES = (85.0, 120.0, 180.0, 240.0, 330.0)


def voice(f0, seconds=0.8, glide=0.0):
    """Pulses at ``f0`` Hz through two resonances; the pitch rises by the share ``glide`` over the clip."""
    time = torch.arange(round(seconds * SAMPLING_RATE), dtype=torch.float64) / SAMPLING_RATE
    phase = 2 * math.pi * f0 * (time + glide * time.square() / 2 / seconds)
    total = torch.zeros_like(time)
    for harmonic in range(1, int(6000 / f0)):
        loudness = sum(1 / (1 + ((harmonic * f0 - centre) / 150) ** 2) for centre in (600, 1300)) + 0.02
        total += loudness * torch.cos(harmonic * phase)
    return (0.3 * total / total.abs().max()).float()


def pitch_of(samples, lowest=60, highest=500):
    """F0 in Hz and periodicity (0 to 1) of every 10 ms, by the autocorrelation of 64 ms in a Hann window."""
    size = 1024
    window = torch.hann_window(size)
    frames = samples.unfold(0, size, 160)
    spectra = torch.fft.rfft((frames - frames.mean(1, keepdim=True)) * window, 4 * size)
    own = torch.fft.irfft(torch.fft.rfft(window, 4 * size).abs().square())[: size // 2]
    correlation = torch.fft.irfft(spectra.abs().square())[:, : size // 2] / own
    correlation = correlation / correlation[:, :1].clamp(min=1e-9)
    first, last = SAMPLING_RATE // highest, SAMPLING_RATE // lowest
    here, before, after = (correlation[:, first + d : last + d] for d in (0, -1, 1))
    best = here.amax(1, keepdim=True)
    # of the maxima almost as high as the highest the first: the others are multiples of the period
    found = ((here >= before) & (here >= after) & (here > 0.93 * best)).int().argmax(1, keepdim=True)
    left, middle, right = (x.gather(1, found) for x in (before, here, after))
    vertex = (left - right) / (2 * (left - 2 * middle + right)).clamp(max=-1e-9)
    return SAMPLING_RATE / (first + found + vertex)[:, 0], best[:, 0]


def power_db(samples):
    return 10 * math.log10(float(samples.double().square().mean()))


def batch_of(clips, padding=0.0):
    return pad_sequence(clips, batch_first=True, padding_value=padding), torch.tensor([len(clip) for clip in clips])


def noise_like(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
