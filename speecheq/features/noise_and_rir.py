"""Noise and reverberation for batches of waveforms (section 2.5), and their recordings.

Reverberation convolves with room impulse responses (RIRs), recorded or simulated. Batches are those of
waveform_batch.py; every clip has its own noise and RIR, and its result does not depend on other clips or padding.
"""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import torch
from lhotse import Recording, RecordingSet
from torch import Tensor

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.common.progress import progress
from speecheq.config.schema import RIR_SECONDS
from speecheq.corpora.decoding import open_audio
from speecheq.features.audio import resampler
from speecheq.features.waveform_batch import SAMPLING_RATE, as_column, to_device, zero_padding

# A block counts as silent if its power is below this factor (-60 dB) of the recording's. Silence is cut out of noises
# in blocks of 0.1 s, so that no crop is silent.
SILENT, SILENT_BLOCK = 1e-6, 1600
# Samples from the direct path to the start of simulated reverberation.
FIRST_REFLECTION = round(0.0025 * SAMPLING_RATE)


def _gain(wanted: Tensor, waveforms: Tensor) -> Tensor:
    """The factors (N, 1) that give waveforms (N, S) the energy ``wanted`` (N, 1); 0 for silent waveforms."""
    energy = waveforms.square().sum(1, keepdim=True)
    return torch.where(energy > 0, (wanted / energy).sqrt(), torch.zeros_like(energy))


def reverberate(waveforms: Tensor, lengths: Tensor, responses: Tensor) -> Tensor:
    """Convolve waveforms (N, S) with RIRs (N, R) whose first sample is the direct path: (N, S).

    Lengths (reverberation after a clip's end is cut) and the mean power of a clip stay the same.
    """
    dry = zero_padding(waveforms, lengths)
    samples = waveforms.shape[1]
    size = 1 << (samples + responses.shape[1] - 2).bit_length()
    spectrum = torch.fft.rfft(dry, size) * torch.fft.rfft(responses, size)
    wet = zero_padding(torch.fft.irfft(spectrum, size)[:, :samples], lengths)
    return wet * _gain(dry.square().sum(1, keepdim=True), wet)


def add_noise(waveforms: Tensor, lengths: Tensor, noise: Tensor, snr: Tensor) -> Tensor:
    """Add ``noise`` (N, S) to waveforms (N, S) at ``snr`` (N,) dB, the ratio of powers over a clip's samples: (N, S).

    A silent clip stays silent, and silent noise adds nothing.
    """
    speech, noise = zero_padding(waveforms, lengths), zero_padding(noise, lengths)
    wanted = speech.square().sum(1, keepdim=True) * 10 ** (-as_column(snr, speech) / 10)
    return speech + noise * _gain(wanted, noise)


def simulate_responses(noise: Tensor, first: Tensor, t60: Tensor, direct: Tensor) -> Tensor:
    """Simulate RIRs (N, R): a direct path of 1, then noise that decays by 60 dB in ``t60`` (N,) seconds, then zeros.

    ``noise`` (M,) are random samples on the device; each tail starts at sample ``first`` (N,) of them.
    ``direct`` (N,) is the ratio in dB of the energy of the direct path to that of the tail.
    """
    sizes = (t60 * SAMPLING_RATE).long()
    time = torch.arange(int(sizes.max()), device=noise.device)
    tail = noise[to_device(first, noise.device)[:, None] + time]
    tail = tail * 10 ** (-3 * time / SAMPLING_RATE / as_column(t60, noise))
    tail = zero_padding(tail, sizes)
    tail[:, :FIRST_REFLECTION] = 0
    tail = tail * 10 ** (-as_column(direct, noise) / 20) / tail.norm(dim=1, keepdim=True)
    tail[:, 0] = 1
    return tail


class WaveformBank:
    """Noises or RIRs of any length in one tensor on the device, from which batches are gathered."""

    def __init__(self, waveforms: Sequence[Tensor], device: torch.device = torch.device("cpu")):
        """``waveforms`` are vectors of samples at 16 kHz, none of them empty."""
        self.sizes = torch.tensor([len(waveform) for waveform in waveforms])
        self.starts = self.sizes.cumsum(0) - self.sizes
        self.samples = torch.cat(list(waveforms)).to(device)

    def __len__(self) -> int:
        return len(self.sizes)

    def pick(self, drawn: Tensor) -> Tensor:
        """Random numbers (N,) in [0, 1) -> numbers of waveforms (N,)."""
        return (drawn * len(self)).long()

    def crops(self, numbers: Tensor, drawn: Tensor, lengths: Tensor) -> Tensor:
        """Pieces of ``lengths`` (N,) samples of waveforms ``numbers`` (N,): (N, longest of them).

        A longer waveform is cropped, a shorter one repeated. ``drawn`` (N,) in [0, 1) gives the start of the piece.
        """
        sizes = self.sizes[numbers]
        first = (drawn * torch.where(sizes > lengths, sizes - lengths + 1, sizes)).long()
        place = torch.arange(int(lengths.max()), device=self.samples.device)
        first, sizes, starts = (to_device(x, place.device)[:, None] for x in (first, sizes, self.starts[numbers]))
        return self.samples[starts + (first + place) % sizes]

    def whole(self, numbers: Tensor) -> Tensor:
        """Waveforms ``numbers`` (N,) as a batch (N, longest of them), zero beyond their ends."""
        sizes = self.sizes[numbers]
        place = torch.arange(int(sizes.max()), device=self.samples.device)
        index = (to_device(self.starts[numbers], place.device)[:, None] + place).clamp(max=len(self.samples) - 1)
        return zero_padding(self.samples[index], sizes)


def _read_channel(recording: Recording, seed: int) -> Tensor:
    """A random non-silent channel (S,) of a recording, at 16 kHz.

    Raises InputError if its file is gone, is not the one of the manifest, or is silent.
    """
    path = recording.sources[0].source
    try:
        with open_audio(path) as audio:
            samples, rate = audio.read(dtype="float32", always_2d=True), audio.samplerate
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run stage 1 again.") from error
    if (len(samples), rate) != (recording.num_samples, recording.sampling_rate):
        raise InputError(
            f"{path}: holds {len(samples)} samples at {rate} Hz, its manifest gives {recording.num_samples} at "
            f"{recording.sampling_rate} Hz; copy it again and run stage 1 again."
        )
    channels = [channel for channel in samples.T if channel.any()]
    if not channels:
        raise InputError(f"{path}: is silent, all its samples are 0; remove the file and run stage 1 again.")
    samples = np.ascontiguousarray(random.Random(f"{seed} {recording.id}").choice(channels))
    if rate != SAMPLING_RATE:
        before, samples = samples, np.asarray(resampler(rate, SAMPLING_RATE)(samples), dtype=np.float32)
        if np.square(samples).mean() < SILENT * np.square(before).mean():
            raise InputError(f"{path}: is silent below {SAMPLING_RATE // 2} Hz; remove the file and run stage 1 again.")
    return torch.from_numpy(samples)


def _read_all(recordings: Sequence[Recording], seed: int, what: str) -> list[Tensor]:
    with ThreadPoolExecutor(4) as pool:
        read = pool.map(lambda recording: _read_channel(recording, seed), recordings)
        return list(progress(read, f"loading {what}", len(recordings), "files"))


def cut_silence(noise: Tensor) -> Tensor:
    """A noise (S,) without its silent blocks of 0.1 s, and without an incomplete last block."""
    if len(noise) < SILENT_BLOCK:
        return noise
    blocks = noise[: len(noise) // SILENT_BLOCK * SILENT_BLOCK].reshape(-1, SILENT_BLOCK)
    power = blocks.square().mean(1)
    kept = blocks[power > SILENT * power.mean()].reshape(-1)
    return kept if len(kept) else noise


def select_noises(manifest: Path, hours: float, seed: int) -> tuple[list[Recording], int]:
    """Choose random noises of a manifest of ``local/prepare_noise.py``, up to ``hours`` in total.

    Returns: the chosen recordings, and the number of recordings in the manifest.
    """
    recordings = list(RecordingSet.from_file(manifest))
    random.Random(f"{seed} noises").shuffle(recordings)
    ends = np.cumsum([recording.duration for recording in recordings])
    return recordings[: max(1, int((ends <= 3600 * hours).sum()))], len(recordings)


def load_noises(manifest: Path, hours: float, seed: int, device: torch.device = torch.device("cpu")) -> WaveformBank:
    """Read the noises of ``select_noises``. Raises InputError for a file that is gone, replaced or silent."""
    used, named = select_noises(manifest, hours, seed)
    if len(used) < named:
        log.info("%s: using %d of %d noises, which fill %g hours", manifest, len(used), named, hours)
    return WaveformBank([cut_silence(noise) for noise in _read_all(used, seed, "noises")], device)


def cut_to_direct_path(response: Tensor) -> Tensor:
    """An RIR (S,) from its direct path, at most 2 s.

    The direct path is the first sample of at least half the largest magnitude, which may be a reflection's.
    """
    magnitude = response.abs()
    first = int((magnitude >= magnitude.max() / 2).int().argmax())
    return response[first : first + round(RIR_SECONDS * SAMPLING_RATE)]


def load_responses(manifest: Path, seed: int, device: torch.device = torch.device("cpu")) -> WaveformBank:
    """Read the RIRs of a manifest of ``local/prepare_rir.py``, each from its direct path.

    Raises InputError for a file that is gone, replaced or silent.
    """
    recordings = list(RecordingSet.from_file(manifest))
    return WaveformBank([cut_to_direct_path(r) for r in _read_all(recordings, seed, "impulse responses")], device)
