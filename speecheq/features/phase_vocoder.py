"""Pitch and tempo of waveforms, in batches on the training device (section 2.5).

The phase vocoder changes the duration at the same pitch, resampling changes both. Batches are those of
waveform_batch.py; every clip has its own factors, and its result does not depend on other clips or padding.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import max_pool1d, pad

from speecheq.features.waveform_batch import as_column, change_rows, fit_length, to_device, zero_padding

# 40 ms every 10 ms: long enough for the harmonics of low voices, short enough for fast changes.
WINDOW, HOP = 640, 160
# Width of the resampler's window in zero crossings on each side, and its cut-off below half the lower rate.
ZERO_CROSSINGS, ROLLOFF = 6, 0.99


def _positions(steps: Tensor, count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The positions 0, step, 2 * step and so on for each of ``steps`` (N,).

    Returns: their integer parts (N, count) int64, and fractions (N, count) of the type of ``like``, on its device.
    """
    # in float32 the fractions would be lost after some seconds of samples, and Apple's GPUs have no float64
    device = torch.device("cpu") if like.device.type == "mps" else like.device
    position = to_device(steps.double(), device)[:, None] * torch.arange(count, device=device)
    index = position.floor()
    return index.long().to(like.device), (position - index).to(like.dtype).to(like.device)


def _lock_phases(magnitudes: Tensor, phases: Tensor, advances: Tensor) -> Tensor:
    """Identity phase locking (Laroche and Dolson, 1999): every bin follows the nearest peak of its spectrum.

    ``magnitudes`` and ``phases`` (N, T, K) are those of the frames that are read, ``advances`` (N, T, K) the increases
    of phase since the frame before. The new phase of a bin is the new phase of its peak's bin one frame before, plus
    the advance of the peak, plus the phase difference between bin and peak in this frame. Frame 0 keeps its phases.
    Returns the new phases (N, T, K).
    """
    batch, frames, bins = magnitudes.shape
    magnitudes = magnitudes.nan_to_num()  # so that every frame has a peak
    bin_number = torch.arange(bins, device=magnitudes.device).expand(batch, frames, bins)
    highest = max_pool1d(magnitudes.reshape(-1, 1, bins), 3, 1, 1).reshape(batch, frames, bins)
    is_peak = magnitudes == highest
    below = torch.where(is_peak, bin_number, -bins).cummax(2).values
    above = torch.where(is_peak, bin_number, 2 * bins).flip(2).cummin(2).values.flip(2)
    peak = torch.where(bin_number - below <= above - bin_number, below, above)
    step = torch.remainder((advances - phases).gather(2, peak) + phases, 2 * math.pi)
    peak[:, 0], step[:, 0] = bin_number[:, 0], phases[:, 0]

    # phase[t] = phase[t - 1][peak[t]] + step[t]. Steps are composed within blocks of frames, for all blocks in
    # parallel; only the blocks are processed one after the other.
    block = math.isqrt(frames - 1) + 1
    blocks = -(-frames // block)
    missing = blocks * block - frames
    peak, step = (pad(x, (0, 0, 0, missing)).reshape(batch, blocks, block, bins) for x in (peak, step))
    origin, growth = [peak[:, :, 0]], [step[:, :, 0]]
    for number in range(1, block):
        origin.append(origin[-1].gather(2, peak[:, :, number]))
        growth.append(growth[-1].gather(2, peak[:, :, number]) + step[:, :, number])
    start = [torch.zeros_like(step[:, 0, 0])]
    for number in range(blocks - 1):
        start.append(start[-1].gather(1, origin[-1][:, number]) + growth[-1][:, number])
    joined = torch.stack(start, 1)[:, :, None].expand(-1, -1, block, -1).gather(3, torch.stack(origin, 2))
    return (joined + torch.stack(growth, 2)).reshape(batch, -1, bins)[:, :frames]


def phase_vocoder(spectra: Tensor, rates: Tensor, frames: int, locked: bool = True) -> Tensor:
    """Complex spectra (N, T, K), read at ``rates`` (N,) times their speed: (N, ``frames``, K).

    New frame t is read at t * rate: its magnitude is interpolated between the two frames around that position, and its
    phase advances as between them. With ``locked`` only the peaks of a frame advance and the bins around a peak follow
    it, which keeps a voice's harmonics together; otherwise each bin advances by itself, as in librosa. After the last
    frame there is silence.
    """
    index, fraction = _positions(rates, frames, spectra.real)
    fraction = fraction[:, :, None]
    # silence before the first and after the last frame, so that frame t is row t + 1
    spectra = pad(spectra, (0, 0, 1, 2))
    row = (index + 1).clamp(max=spectra.shape[1] - 2)[:, :, None].expand(-1, -1, spectra.shape[2])
    magnitudes, phases = spectra.abs(), spectra.angle()
    magnitude = torch.lerp(magnitudes.gather(1, row), magnitudes.gather(1, row + 1), fraction)
    # the phase advances from new frame t - 1 to t as at the position of t - 1; frame 0 keeps its phases
    reached = torch.cat([row[:, :1], row[:, :-1] + 1], 1)
    phase = phases.gather(1, reached)
    advance = phase - phases.gather(1, reached - 1)
    if not locked:
        advance[:, 0] = phase[:, 0]
        return torch.polar(magnitude, torch.remainder(advance, 2 * math.pi).cumsum(1))
    return torch.polar(magnitude, _lock_phases(magnitudes.gather(1, reached), phase, advance))


def time_stretch(waveforms: Tensor, rates: Tensor, lengths: Tensor, locked: bool = True) -> Tensor:
    """Waveforms (N, S), zero beyond their ends, played ``rates`` (N,) times as fast at the same pitch.

    ``lengths`` (N,) are the new lengths, samples / rate. Returns (N, longest of them), zero beyond their ends.
    """
    window = torch.hann_window(WINDOW, dtype=waveforms.dtype, device=waveforms.device)
    # all frames that touch the clip: half a window of silence before it, a full one after it
    framed = pad(waveforms, (WINDOW // 2, WINDOW + HOP))
    spectra = torch.stft(framed, WINDOW, HOP, window=window, center=False, return_complex=True).transpose(1, 2)
    longest = int(lengths.max())
    frames = -(-(longest + WINDOW // 2) // HOP) + 1
    stretched = phase_vocoder(spectra, rates, frames, locked).transpose(1, 2)
    return zero_padding(torch.istft(stretched, WINDOW, HOP, window=window, length=longest), lengths)


def resample(waveforms: Tensor, steps: Tensor, lengths: Tensor) -> Tensor:
    """Waveforms (N, S), zero beyond their ends, read every ``steps`` (N,) samples: band-limited interpolation.

    ``lengths`` (N,) are the new lengths. Returns (N, longest of them), zero beyond their ends. The kernel is a sinc in
    a Hann window; with a step above 1 (a lower rate) it is a low-pass too.
    """
    cutoff = ROLLOFF * as_column((1 / steps).clamp(max=1.0), waveforms)
    reach = math.ceil(ZERO_CROSSINGS / ROLLOFF * max(1.0, float(steps.max())))
    # zeros on both sides, so that taps stay within the row
    padded = pad(waveforms, (reach, 2 * reach))
    longest = int(lengths.max())
    index, fraction = _positions(steps, longest, waveforms)
    first = index.clamp(max=waveforms.shape[1]) + reach
    found = torch.zeros_like(fraction)
    for tap in range(1 - reach, reach + 1):
        # the kernel is even and sin(x) / x is 1 next to 0
        crossing = ((fraction - tap) * cutoff).abs().clamp(1e-6, ZERO_CROSSINGS)
        sinc = torch.sin(math.pi * crossing) / (math.pi * crossing)
        window = torch.cos(math.pi / 2 / ZERO_CROSSINGS * crossing).square()
        found += sinc * window * padded.gather(1, first + tap)
    return zero_padding(found * cutoff, lengths)


def pitch_factors(semitones: Tensor) -> Tensor:
    """Shifts in semitones (N,) -> factors of the pitch (N,) float64."""
    return 2.0 ** (semitones.double() / 12)


def change_pitch_and_tempo(
    waveforms: Tensor, lengths: Tensor, semitones: Tensor, tempo: Tensor
) -> tuple[Tensor, Tensor]:
    """Shift the pitch of waveforms (N, S) by ``semitones`` (N,), and divide their duration by ``tempo`` (N,).

    A clip is stretched once for both and, if its pitch changes, resampled. A clip without a change stays bit-identical.

    Returns: waveforms (N, S'), and their lengths (N,), round(length / tempo) but at least 1.
    """
    pitch = pitch_factors(semitones)
    tempo = tempo.double()
    new_lengths = (lengths / tempo).round().long().clamp(min=1)
    rates = tempo / pitch
    waveforms = zero_padding(waveforms, lengths)

    def stretch(rows: Tensor, clips: Tensor) -> Tensor:
        return time_stretch(clips, rates[rows], (lengths[rows] / rates[rows]).round().long().clamp(min=1))

    def shift_pitch(rows: Tensor, clips: Tensor) -> Tensor:
        return resample(clips, pitch[rows], new_lengths[rows])

    waveforms = change_rows(rates != 1, waveforms, stretch)
    waveforms = change_rows(pitch != 1, waveforms, shift_pitch)
    return fit_length(waveforms, int(new_lengths.max())), new_lengths
