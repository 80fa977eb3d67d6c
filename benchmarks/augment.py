#!/usr/bin/env python3
"""Speed of augmentation: 32 clips of 3 s, each change by itself, all together, and the features after them.

python benchmarks/augment.py [--device cuda] [--threads 1] [--batch 32] [--seconds 3] [--repeat 5]
"""

import argparse
import platform
import time

import torch

from speecheq.config.schema import AugmentConfig
from speecheq.features.augment_waveforms import Augmenter
from speecheq.features.fbank import BatchedFbank
from speecheq.features.noise_and_rir import WaveformBank, add_noise, reverberate, simulate_responses
from speecheq.features.phase_vocoder import resample, time_stretch
from speecheq.features.waveform_batch import SAMPLING_RATE


def seconds_of(work, repeat: int, device: torch.device) -> float:
    """Median time of ``work()`` after one call that is not counted."""
    times = []
    for _ in range(repeat + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[repeat // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device, clips = torch.device(given.device), given.batch
    randomness = torch.Generator().manual_seed(0)
    samples = round(given.seconds * SAMPLING_RATE)
    lengths = torch.full((clips,), samples)
    waveforms = (0.1 * torch.randn(clips, samples, generator=randomness)).to(device)
    rates, steps = torch.linspace(0.8, 1.3, clips), torch.linspace(0.84, 1.19, clips)
    noise = torch.randn(60 * SAMPLING_RATE, generator=randomness)
    augmenter = Augmenter(AugmentConfig(), 1, WaveformBank([noise], device), None, device)
    ids = [str(number) for number in range(clips)]
    fbank = BatchedFbank().to(device)
    t60, direct = torch.full((clips,), 0.8), torch.zeros(clips)
    responses = simulate_responses(noise.to(device), torch.arange(clips), t60, direct)
    stretched, read = (lengths / rates).round().long(), (lengths / steps).round().long()

    def everything():
        return fbank(*augmenter(waveforms, lengths, ids, "emotion", 0))

    rows = {
        "tempo (phases locked to peaks)": lambda: time_stretch(waveforms, rates, stretched),
        "tempo (plain phase vocoder)": lambda: time_stretch(waveforms, rates, stretched, locked=False),
        "resampling": lambda: resample(waveforms, steps, read),
        "reverberation": lambda: reverberate(waveforms, lengths, responses),
        "noise": lambda: add_noise(waveforms, lengths, waveforms.flip(0), torch.full((clips,), 15.0)),
        "augmentation with its defaults": lambda: augmenter(waveforms, lengths, ids, "emotion", 0),
        "features": lambda: fbank(waveforms, lengths),
        "augmentation and features": everything,
    }
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    print(f"{clips} clips of {given.seconds:g} s, torch {torch.__version__}, {name}, CPU threads: {given.threads}")
    for title, work in rows.items():
        took = seconds_of(work, given.repeat, device)
        print(f"{title:32s} {1000 * took:8.1f} ms {clips * given.seconds / took:10.0f} times real time")


if __name__ == "__main__":
    main()
