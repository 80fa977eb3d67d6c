"""Augmentation of waveforms in batches on the training device (section 2.5): pitch, tempo, reverberation and noise.

All functions take waveforms (N, S) float32, padded, and their lengths (N,) int64 on the CPU, and treat every clip of
the batch with a factor of its own; a clip's result does not depend on the other clips or on the padding. What happens
to a clip is drawn on the CPU from (seed, stream, epoch, utterance id) alone: it is the same in any batch and on any
device. Samples may leave [-1, 1]: the features need no clipping.
"""

import math
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import torch
from lhotse import Recording, RecordingSet
from torch import Tensor
from torch.nn.functional import max_pool1d, pad

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.common.progress import progress
from speecheq.config.schema import AUGMENTATIONS, RIR_SECONDS, AugmentConfig
from speecheq.features.audio import resampler

SAMPLING_RATE = 16000
# 40 ms every 10 ms: long enough for the harmonics of low voices, short enough to keep what changes fast in its place.
WINDOW, HOP = 640, 160
# Width of the resampler's window in zero crossings on each side, and its cut-off below half the lower rate.
ZERO_CROSSINGS, ROLLOFF = 6, 0.99
# What is this much weaker than the whole (a factor of power, -60 dB) counts as silence. It is cut out of noises in
# blocks of 0.1 s, so that no crop is silent.
SILENT, SILENT_BLOCK = 1e-6, 1600
# Simulated reverberation begins so long after the direct path, and is cut out of so many random samples.
FIRST_REFLECTION = round(0.0025 * SAMPLING_RATE)
TAIL_SAMPLES = 1 << 18


def _sent(values: Tensor, device: torch.device) -> Tensor:
    """Values on ``device``, which is not waited for."""
    return values.to(device, non_blocking=True)


def without_padding(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Zeros beyond each clip's length."""
    valid = torch.arange(waveforms.shape[1], device=waveforms.device) < _sent(lengths, waveforms.device)[:, None]
    return torch.where(valid, waveforms, torch.zeros((), dtype=waveforms.dtype, device=waveforms.device))


def _column(values: Tensor, like: Tensor) -> Tensor:
    """Values (N,) as a column (N, 1) of the device and type of ``like``."""
    return _sent(values, like.device).to(like.dtype)[:, None]


def _positions(steps: Tensor, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """0, step, 2 * step and so on for every step (N,): whole parts (N, count) int64, and what remains, float64."""
    # in float32 what remains would be lost after some seconds of samples
    position = _sent(steps.double(), device)[:, None] * torch.arange(count, device=device)
    whole = position.floor()
    return whole.long(), position - whole


def _locked_phases(magnitudes: Tensor, phases: Tensor, advances: Tensor) -> Tensor:
    """Phases (N, T, K) of frames that follow each other, with every bin locked to the peak of the spectrum next to it.

    ``magnitudes`` and ``phases`` (N, T, K) are those of the frames that are moved to their new places, ``advances``
    (N, T, K) what their phases grew by since the frame before; at t = 0 the phases themselves are taken. The new phase
    of a bin is that of its peak's bin one frame before, plus the peak's advance, plus what lies between peak and bin in
    this frame (Laroche and Dolson's identity phase locking).
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

    # phase[t] = phase[t - 1][peak[t]] + step[t]. Such steps can be joined before they are applied, so blocks of frames
    # are joined side by side, and only from block to block is one step taken after the other.
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
    """Spectra (N, T, K) read at ``rates`` (N,) times their speed: ``frames`` new ones, complex (N, frames, K).

    Frame t is read at t * rate, its magnitude between those of the two frames around it. Beyond the last frame there
    is silence. Phases grow as they do between those two frames, bin by bin (as in librosa), or ``locked``: only at the
    peaks of a frame, with the bins around them moving along, which keeps the harmonics of a voice together.
    """
    whole, between = _positions(rates, frames, spectra.device)
    between = between.to(spectra.real.dtype)[:, :, None]
    # before the first frame and after the last one stands silence, so that frame t is row t + 1
    spectra = pad(spectra, (0, 0, 1, 2))
    row = (whole + 1).clamp(max=spectra.shape[1] - 2)[:, :, None].expand(-1, -1, spectra.shape[2])
    magnitudes, phases = spectra.abs(), spectra.angle()
    magnitude = torch.lerp(magnitudes.gather(1, row), magnitudes.gather(1, row + 1), between)
    # what leads to frame t is the step at the place of frame t - 1; the first has its own phases
    reached = torch.cat([row[:, :1], row[:, :-1] + 1], 1)
    phase = phases.gather(1, reached)
    advance = phase - phases.gather(1, reached - 1)
    if not locked:
        advance[:, 0] = phase[:, 0]
        return torch.polar(magnitude, torch.remainder(advance, 2 * math.pi).cumsum(1))
    return torch.polar(magnitude, _locked_phases(magnitudes.gather(1, reached), phase, advance))


def time_stretch(waveforms: Tensor, rates: Tensor, lengths: Tensor, locked: bool = True) -> Tensor:
    """Waveforms (N, S), zero beyond their ends, played ``rates`` (N,) times as fast at the same pitch.

    ``lengths`` (N,) are the new lengths, samples / rate; returns (N, most of them), zeros beyond.
    """
    window = torch.hann_window(WINDOW, dtype=waveforms.dtype, device=waveforms.device)
    # all frames that touch the clip, whatever the padding: half a window of silence before, a whole one after
    framed = pad(waveforms, (WINDOW // 2, WINDOW + HOP))
    spectra = torch.stft(framed, WINDOW, HOP, window=window, center=False, return_complex=True).transpose(1, 2)
    longest = int(lengths.max())
    frames = -(-(longest + WINDOW // 2) // HOP) + 1
    stretched = phase_vocoder(spectra, rates, frames, locked).transpose(1, 2)
    return without_padding(torch.istft(stretched, WINDOW, HOP, window=window, length=longest), lengths)


def resample(waveforms: Tensor, steps: Tensor, lengths: Tensor) -> Tensor:
    """Waveforms (N, S), zero beyond their ends, read every ``steps`` (N,) samples.

    ``lengths`` (N,) are the new lengths; returns (N, most of them), zeros beyond. Band-limited interpolation by
    a sinc in a Hann window; a step above 1 is a lower rate and is low-passed before.
    """
    cutoff = ROLLOFF * _column((1 / steps).clamp(max=1.0), waveforms)
    reach = math.ceil(ZERO_CROSSINGS / ROLLOFF * max(1.0, float(steps.max())))
    # zeros on both sides, so that no tap reaches out of the row
    padded = pad(waveforms, (reach, 2 * reach))
    longest = int(lengths.max())
    whole, between = _positions(steps, longest, waveforms.device)
    first, between = whole.clamp(max=waveforms.shape[1]) + reach, between.to(waveforms.dtype)
    found = torch.zeros_like(between)
    for tap in range(1 - reach, reach + 1):
        # the kernel is even and sin(x) / x is 1 next to 0
        crossing = ((between - tap) * cutoff).abs().clamp(1e-6, ZERO_CROSSINGS)
        sinc = torch.sin(math.pi * crossing) / (math.pi * crossing)
        window = torch.cos(math.pi / 2 / ZERO_CROSSINGS * crossing).square()
        found += sinc * window * padded.gather(1, first + tap)
    return without_padding(found * cutoff, lengths)


def pitch_factors(semitones: Tensor) -> Tensor:
    """How many times as high the pitch is, float64."""
    return 2.0 ** (semitones.double() / 12)


def change_pitch_and_tempo(
    waveforms: Tensor, lengths: Tensor, semitones: Tensor, tempo: Tensor
) -> tuple[Tensor, Tensor]:
    """Shift the pitch by ``semitones`` (N,) and divide the duration by ``tempo`` (N,): waveforms and new lengths.

    The new length is round(length / tempo), at least 1. The clip is stretched once for both and, where the pitch
    changes, read at another rate. A clip with neither stays as it is, bit by bit.
    """
    pitch = pitch_factors(semitones)
    tempo = tempo.double()
    new_lengths = (lengths / tempo).round().long().clamp(min=1)
    rates = tempo / pitch
    waveforms = without_padding(waveforms, lengths)

    def stretched(rows: Tensor, clips: Tensor) -> Tensor:
        return time_stretch(clips, rates[rows], (lengths[rows] / rates[rows]).round().long().clamp(min=1))

    def read(rows: Tensor, clips: Tensor) -> Tensor:
        return resample(clips, pitch[rows], new_lengths[rows])

    waveforms = _on_rows(rates != 1, waveforms, stretched)
    waveforms = _on_rows(pitch != 1, waveforms, read)
    return _fit(waveforms, int(new_lengths.max())), new_lengths


def _fit(waveforms: Tensor, samples: int) -> Tensor:
    """Zeros added or cut off at the end, to that many samples."""
    return pad(waveforms, (0, samples - waveforms.shape[1]))


def _on_rows(chosen: Tensor, waveforms: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """``change(rows, clips)`` for the clips where ``chosen`` (N,), the others as they are."""
    rows = chosen.nonzero()[:, 0]
    if len(rows) == 0:
        return waveforms
    if len(rows) == len(waveforms):
        return change(rows, waveforms)
    place = _sent(rows, waveforms.device)
    changed = change(rows, waveforms[place])
    samples = max(waveforms.shape[1], changed.shape[1])
    return _fit(waveforms, samples).index_copy(0, place, _fit(changed, samples))


def _gain(wanted: Tensor, waveforms: Tensor) -> Tensor:
    """The factors (N, 1) that give waveforms (N, S) the energy ``wanted`` (N, 1); 0 for silent ones."""
    energy = waveforms.square().sum(1, keepdim=True)
    return torch.where(energy > 0, (wanted / energy).sqrt(), torch.zeros_like(energy))


def reverberate(waveforms: Tensor, lengths: Tensor, responses: Tensor) -> Tensor:
    """Convolve waveforms (N, S) with impulse responses (N, R) whose first sample is the direct path.

    Lengths stay (the reverberation of a clip's end is cut off), and so does the power over a clip's valid samples.
    """
    dry = without_padding(waveforms, lengths)
    samples = waveforms.shape[1]
    size = 1 << (samples + responses.shape[1] - 2).bit_length()
    spectrum = torch.fft.rfft(dry, size) * torch.fft.rfft(responses, size)
    wet = without_padding(torch.fft.irfft(spectrum, size)[:, :samples], lengths)
    return wet * _gain(dry.square().sum(1, keepdim=True), wet)


def add_noise(waveforms: Tensor, lengths: Tensor, noise: Tensor, snr: Tensor) -> Tensor:
    """Add ``noise`` (N, S) at ``snr`` (N,) dB, the ratio of the powers over a clip's valid samples.

    A clip that is silent stays so, and silent noise adds nothing.
    """
    speech, noise = without_padding(waveforms, lengths), without_padding(noise, lengths)
    wanted = speech.square().sum(1, keepdim=True) * 10 ** (-_column(snr, speech) / 10)
    return speech + noise * _gain(wanted, noise)


def simulated_responses(noise: Tensor, first: Tensor, t60: Tensor, direct: Tensor) -> Tensor:
    """Impulse responses (N, R): a direct path of 1, then noise that falls by 60 dB within ``t60`` (N,) seconds.

    ``direct`` (N,) is the energy of the direct path over that of all that follows, in dB. ``noise`` (M,) are random
    samples on the device, ``first`` (N,) where in them each response begins; a response is zero after its t60.
    """
    sizes = (t60 * SAMPLING_RATE).long()
    time = torch.arange(int(sizes.max()), device=noise.device)
    tail = noise[_sent(first, noise.device)[:, None] + time]
    tail = tail * 10 ** (-3 * time / SAMPLING_RATE / _column(t60, noise))
    tail = without_padding(tail, sizes)
    tail[:, :FIRST_REFLECTION] = 0
    tail = tail * 10 ** (-_column(direct, noise) / 20) / tail.norm(dim=1, keepdim=True)
    tail[:, 0] = 1
    return tail


class SoundBank:
    """Sounds of any length in one tensor on the device, from which a batch is gathered at once."""

    def __init__(self, sounds: Sequence[Tensor], device: torch.device = torch.device("cpu")):
        """``sounds``: vectors of samples at 16 kHz, none of them empty."""
        self.sizes = torch.tensor([len(sound) for sound in sounds])
        self.starts = self.sizes.cumsum(0) - self.sizes
        self.samples = torch.cat(list(sounds)).to(device)

    def __len__(self) -> int:
        return len(self.sizes)

    def chosen(self, share: Tensor) -> Tensor:
        """Numbers (N,) of sounds for random numbers (N,) in [0, 1)."""
        return (share * len(self)).long()

    def crops(self, numbers: Tensor, share: Tensor, lengths: Tensor) -> Tensor:
        """Of sounds ``numbers`` (N,) pieces of ``lengths`` (N,) samples: (N, most of them).

        A longer sound is cropped, a shorter one repeated; ``share`` (N,) in [0, 1) says where the piece begins.
        """
        sizes = self.sizes[numbers]
        first = (share * torch.where(sizes > lengths, sizes - lengths + 1, sizes)).long()
        place = torch.arange(int(lengths.max()), device=self.samples.device)
        first, sizes, starts = (_sent(x, self.samples.device)[:, None] for x in (first, sizes, self.starts[numbers]))
        return self.samples[starts + (first + place) % sizes]

    def whole(self, numbers: Tensor) -> Tensor:
        """Sounds ``numbers`` (N,) from their beginning: (N, longest of them), zeros beyond."""
        sizes = self.sizes[numbers]
        place = torch.arange(int(sizes.max()), device=self.samples.device)
        index = (_sent(self.starts[numbers], place.device)[:, None] + place).clamp(max=len(self.samples) - 1)
        return without_padding(self.samples[index], sizes)


def _read_channel(recording: Recording, seed: int) -> Tensor:
    """One channel of a sound, a random one of those that are not silent, at 16 kHz.

    InputError where its file is gone, is not the one of the manifest, or is silent.
    """
    path = recording.sources[0].source
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run stage 1 again.") from error
    if (len(samples), rate) != (recording.num_samples, recording.sampling_rate):
        raise InputError(
            f"{path}: holds {len(samples)} samples at {rate} Hz, its manifest says {recording.num_samples} at "
            f"{recording.sampling_rate} Hz; copy it again and run stage 1 again."
        )
    heard = [channel for channel in samples.T if channel.any()]
    if not heard:
        raise InputError(f"{path}: is silent, all its samples are 0; remove the file and run stage 1 again.")
    samples = np.ascontiguousarray(random.Random(f"{seed} {recording.id}").choice(heard))
    if rate != SAMPLING_RATE:
        before, samples = samples, np.asarray(resampler(rate, SAMPLING_RATE)(samples), dtype=np.float32)
        if np.square(samples).mean() < SILENT * np.square(before).mean():
            raise InputError(f"{path}: is silent below {SAMPLING_RATE // 2} Hz; remove the file and run stage 1 again.")
    return torch.from_numpy(samples)


def _read_all(recordings: Sequence[Recording], seed: int, what: str) -> list[Tensor]:
    with ThreadPoolExecutor(4) as pool:
        read = pool.map(lambda recording: _read_channel(recording, seed), recordings)
        return list(progress(read, f"loading {what}", len(recordings), "files"))


def without_silence(noise: Tensor) -> Tensor:
    """A noise (S,) without its silent stretches; what does not fill a last block of 0.1 s is left out too."""
    if len(noise) < SILENT_BLOCK:
        return noise
    blocks = noise[: len(noise) // SILENT_BLOCK * SILENT_BLOCK].reshape(-1, SILENT_BLOCK)
    power = blocks.square().mean(1)
    kept = blocks[power > SILENT * power.mean()].reshape(-1)
    return kept if len(kept) else noise


def noises_held(manifest: Path, hours: float, seed: int) -> tuple[list[Recording], int]:
    """The noises that are used of a manifest of ``local/prepare_noise.py``, and how many it names.

    Where these are longer than ``hours``, some are used, by the seed.
    """
    recordings = list(RecordingSet.from_file(manifest))
    random.Random(f"{seed} noises").shuffle(recordings)
    ends = np.cumsum([recording.duration for recording in recordings])
    return recordings[: max(1, int((ends <= 3600 * hours).sum()))], len(recordings)


def load_noises(manifest: Path, hours: float, seed: int, device: torch.device = torch.device("cpu")) -> SoundBank:
    """The samples of ``noises_held``. InputError for a file that is gone, replaced or silent."""
    held, named = noises_held(manifest, hours, seed)
    if len(held) < named:
        log.info("%s: %d of its %d noises are used, they fill %g hours", manifest, len(held), named, hours)
    return SoundBank([without_silence(noise) for noise in _read_all(held, seed, "noises")], device)


def from_direct_path(response: Tensor) -> Tensor:
    """An impulse response (S,) from its direct path on, at most 2 s.

    The direct path is the first sample of at least half the largest magnitude: a strong reflection may be the largest.
    """
    magnitude = response.abs()
    first = int((magnitude >= magnitude.max() / 2).int().argmax())
    return response[first : first + round(RIR_SECONDS * SAMPLING_RATE)]


def load_responses(manifest: Path, seed: int, device: torch.device = torch.device("cpu")) -> SoundBank:
    """The impulse responses of a manifest of ``local/prepare_rir.py``, each from its direct path on.

    InputError for a file that is gone, replaced or silent.
    """
    recordings = list(RecordingSet.from_file(manifest))
    return SoundBank([from_direct_path(r) for r in _read_all(recordings, seed, "impulse responses")], device)


# The random numbers of a clip, in the order in which they are drawn. All are drawn for every clip, so that a setting of
# one change has no effect on the others.
DRAWN = (
    "pitch",
    "semitones",
    "tempo",
    "tempo_factor",
    "reverb",
    "response",
    "t60",
    "direct",
    "noise",
    "snr",
    "sound",
    "crop",
    "type",
    "speed_factor",
    "piece",
)


def draw(seed: int, stream: str, epoch: int, ids: Sequence[str]) -> dict[str, Tensor]:
    """Random numbers in [0, 1) for every clip: name of ``DRAWN`` -> (N,) float64 on the CPU."""
    rows = []
    for utterance in ids:
        randomness = random.Random(f"{seed} augment {stream} {epoch} {utterance}")
        rows.append([randomness.random() for _ in DRAWN])
    return dict(zip(DRAWN, torch.tensor(rows, dtype=torch.float64).T))


def _is_type(types: Tensor, name: str) -> Tensor:
    return types == AUGMENTATIONS.index(name)


class Augmenter:
    """Changes mini-batches as ``config`` says: pitch and tempo, then reverberation, then noise.

    With ``config.one_of`` every clip has one change at most; those of features (frontend.py) are drawn here too.
    """

    def __init__(
        self,
        config: AugmentConfig,
        seed: int,
        noises: SoundBank | None = None,
        responses: SoundBank | None = None,
        device: torch.device = torch.device("cpu"),
    ):
        """Without ``noises`` none is added; without ``responses`` reverberation is simulated."""
        config.validate()
        self.config, self.seed, self.noises, self.responses = config, seed, noises, responses
        possible = [name for name in config.chosen() if name != "noise" or noises is not None]
        self.possible = torch.tensor([AUGMENTATIONS.index(name) for name in ("none", *possible)])
        generator = torch.Generator().manual_seed(seed)
        self.tail = torch.randn(TAIL_SAMPLES, generator=generator).to(device)  # drawn on the CPU: alike on all devices

    def types(self, drawn: dict[str, Tensor]) -> Tensor | None:
        """The one change of every clip, (N,) int64 of AUGMENTATIONS; None where changes come one by one.

        Noise is left out where there is none. Each of those that are left has the same odds, and so has none.
        """
        if not self.config.one_of:
            return None
        return self.possible[(drawn["type"] * len(self.possible)).long()]

    def __call__(
        self, waveforms: Tensor, lengths: Tensor, ids: Sequence[str], stream: str, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Waveforms (N, S) of utterances ``ids``, lengths (N,) -> changed ones (N, S'), lengths (N,) on the CPU."""
        return self.changed(waveforms, lengths, draw(self.seed, stream, epoch, ids))

    def changed(self, waveforms: Tensor, lengths: Tensor, drawn: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The same for what ``draw`` gave."""
        config, lengths = self.config, lengths.cpu()
        never = torch.zeros(len(lengths), dtype=torch.float64)

        def between(name: str, low: float, high: float) -> Tensor:
            return low + (high - low) * drawn[name]

        semitones = between("semitones", config.pitch_low, config.pitch_high)
        tempo = between("tempo_factor", config.tempo_low, config.tempo_high)
        types = self.types(drawn)
        if types is None:
            semitones = torch.where(drawn["pitch"] < config.pitch_probability, semitones, never)
            tempo = torch.where(drawn["tempo"] < config.tempo_probability, tempo, never + 1)
            is_reverberated = drawn["reverb"] < config.reverb_probability
            is_noisy = drawn["noise"] < config.noise_probability
        else:
            # another speed is a pitch and a tempo that are the same factor: the clip is then read, not stretched
            speed = 12 * torch.log2(between("speed_factor", config.speed_low, config.speed_high))
            is_speed = _is_type(types, "speed")
            semitones = torch.where(is_speed, speed, torch.where(_is_type(types, "pitch"), semitones, never))
            tempo = torch.where(is_speed, pitch_factors(speed), never + 1)
            is_reverberated, is_noisy = _is_type(types, "reverberation"), _is_type(types, "noise")
        waveforms, lengths = change_pitch_and_tempo(waveforms, lengths, semitones, tempo)

        def reverberated(rows: Tensor, clips: Tensor) -> Tensor:
            choice = drawn["response"][rows]
            if self.responses is not None:
                return reverberate(clips, lengths[rows], self.responses.whole(self.responses.chosen(choice)))
            first = (choice * (TAIL_SAMPLES - RIR_SECONDS * SAMPLING_RATE)).long()
            t60 = between("t60", config.t60_low, config.t60_high)[rows]
            direct = between("direct", config.direct_low, config.direct_high)[rows]
            return reverberate(clips, lengths[rows], simulated_responses(self.tail, first, t60, direct))

        def noisy(rows: Tensor, clips: Tensor) -> Tensor:
            noise = self.noises.crops(self.noises.chosen(drawn["sound"][rows]), drawn["crop"][rows], lengths[rows])
            snr = between("snr", config.snr_low, config.snr_high)[rows]
            return add_noise(clips, lengths[rows], _fit(noise, clips.shape[1]), snr)

        waveforms = _on_rows(is_reverberated, waveforms, reverberated)
        if self.noises is not None:
            waveforms = _on_rows(is_noisy, waveforms, noisy)
        return waveforms, lengths
