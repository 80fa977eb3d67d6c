"""Pitch and duration by measurement; the parts against torchaudio and plain definitions."""

import math

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from waveforms import VOICES, batch_of, noise_like, pitch_of, power_db, voice

from speecheq.features.phase_vocoder import HOP, WINDOW, change_pitch_and_tempo, phase_vocoder, resample, time_stretch
from speecheq.features.waveform_batch import SAMPLING_RATE

SEMITONES = (-3.0, -1.5, 0.0, 2.0, 3.0)
TEMPI = (0.8, 0.9, 1.0, 1.13, 1.3)


def torchaudio_functional():
    try:
        import torchaudio.functional
    except Exception as error:
        pytest.skip(f"torchaudio does not import: {error}")
    return torchaudio.functional


# pitch and tempo, measured

# every shift with every tempo, the voices in turn
GRID = [(VOICES[(i + j) % 5], SEMITONES[i], TEMPI[j]) for i in range(5) for j in range(5)]


@pytest.fixture(scope="module")
def changed():
    """The voices of GRID, changed in one batch: clips before, clips after."""
    clips = [voice(f0, 0.6 + 0.01 * number) for number, (f0, _, _) in enumerate(GRID)]
    waveforms, lengths = batch_of(clips, padding=0.5)
    semitones, tempi = torch.tensor([s for _, s, _ in GRID]), torch.tensor([t for _, _, t in GRID], dtype=torch.float64)
    found, new = change_pitch_and_tempo(waveforms, lengths, semitones, tempi)
    return clips, found, new


def test_duration_and_padding_are_exact(changed):
    clips, found, new = changed
    assert new.tolist() == [round(len(clip) / tempo) for clip, (_, _, tempo) in zip(clips, GRID)]
    assert found.shape == (len(clips), int(new.max())) and found.dtype == torch.float32
    for row, length in zip(found, new):
        assert not row[length:].any() and row[length - 400 : length].any()


def test_pitch_moves_by_the_semitones_and_stays_under_tempo(changed):
    clips, found, new = changed
    for row, length, (f0, semitones, tempo) in zip(found, new, GRID):
        pitch, periodicity = pitch_of(row[:length])
        wrong = (pitch[2:-2] / (f0 * 2 ** (semitones / 12)) - 1).abs() > 0.01  # 5 % is asked
        assert not wrong.any(), (f0, semitones, tempo)
        assert periodicity[2:-2].min() > 0.8


def test_level_stays(changed):
    clips, found, new = changed
    for clip, row, length in zip(clips, found, new):
        assert abs(power_db(row[:length]) - power_db(clip)) < 0.5


def test_a_gliding_pitch_keeps_its_course():
    clips = [voice(130, 1.2, 0.4), voice(200, 1.2, -0.3)]
    waveforms, lengths = batch_of(clips)
    for semitones, tempo in ((0.0, 0.8), (0.0, 1.3), (3.0, 0.8), (-3.0, 1.3)):
        found, new = change_pitch_and_tempo(waveforms, lengths, torch.full((2,), semitones), torch.full((2,), tempo))
        for row, length, f0, glide in zip(found, new, (130, 200), (0.4, -0.3)):
            pitch = pitch_of(row[:length])[0]
            middle = (torch.arange(len(pitch)) * 160 + 512) / int(length)
            expected = f0 * (1 + glide * middle) * 2 ** (semitones / 12)
            assert ((pitch / expected - 1).abs()[3:-3] < 0.05).all(), (semitones, tempo, f0)


def test_nothing_asked_changes_no_bit():
    clips = [noise_like(5000), noise_like(3000, seed=1), voice(120, 0.3)]
    waveforms, lengths = batch_of(clips, padding=0.3)
    # the second is changed, and grows beyond the others
    found, new = change_pitch_and_tempo(
        waveforms, lengths, torch.tensor([0.0, 1.0, 0.0]), torch.tensor([1.0, 0.5, 1.0])
    )
    assert new.tolist() == [5000, 6000, 4800] and found.shape == (3, 6000)
    for number in (0, 2):
        assert torch.equal(found[number, : new[number]], clips[number]) and not found[number, new[number] :].any()


@pytest.mark.parametrize("samples", [1, 2, 159, 400, 641])
def test_clips_shorter_than_a_window(samples):
    found, new = change_pitch_and_tempo(
        noise_like(2, samples), torch.full((2,), samples), torch.tensor([3.0, -3.0]), torch.tensor([1.3, 0.8])
    )
    assert new.tolist() == [max(1, round(samples / 1.3)), round(samples / 0.8)]
    assert torch.isfinite(found).all() and found.shape[1] == int(new.max())


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 6000), st.floats(-12, 12), st.floats(0.5, 2)), min_size=1, max_size=4))
def test_any_factors_give_exact_lengths_and_finite_samples(clips):
    sizes, semitones, tempi = (list(column) for column in zip(*clips))
    found, new = change_pitch_and_tempo(
        noise_like(len(clips), max(sizes)),
        torch.tensor(sizes),
        torch.tensor(semitones, dtype=torch.float64),
        torch.tensor(tempi, dtype=torch.float64),
    )
    assert new.tolist() == [max(1, round(size / tempo)) for size, tempo in zip(sizes, tempi)]
    assert found.shape == (len(clips), max(new.tolist())) and torch.isfinite(found).all()
    assert not any(row[length:].any() for row, length in zip(found, new))


def test_silence_stays_silence():
    found, _ = change_pitch_and_tempo(
        torch.zeros(2, 8000), torch.tensor([8000, 7000]), torch.tensor([3.0, -2.0]), torch.tensor([1.0, 0.8])
    )
    assert not found.any()


def test_values_that_are_not_finite_stay_in_their_clip():
    waveforms = torch.stack([voice(120), voice(120)])
    waveforms[1, 5000:5010] = math.nan
    found, new = change_pitch_and_tempo(
        waveforms, torch.tensor([12800, 12800]), torch.full((2,), 2.0), torch.full((2,), 0.9)
    )
    assert torch.isfinite(found[0]).all() and not torch.isfinite(found[1]).all()


def test_real_clips(samples):
    paths = sorted(samples("CASIA").rglob("*.wav"))[::37][:6]
    clips = [torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in paths]
    waveforms, lengths = batch_of(clips)
    for semitones, tempo in ((3.0, 1.0), (-3.0, 1.0), (0.0, 0.8), (0.0, 1.3), (2.0, 0.9)):
        found, new = change_pitch_and_tempo(
            waveforms, lengths, torch.full((len(clips),), semitones), torch.full((len(clips),), tempo)
        )
        for clip, row, length in zip(clips, found, new):
            before, periodic = pitch_of(clip)
            after, _ = pitch_of(row[:length], 50, 600)
            frame = (torch.arange(len(before)) * 160 + 512) / len(clip) * int(length)
            frame = ((frame - 512) / 160).round().long().clamp(0, len(after) - 1)
            ratio = (after[frame] / before)[periodic > 0.85]
            assert len(ratio) > 10 and abs(float(ratio.median()) / 2 ** (semitones / 12) - 1) < 0.05


# the parts against torchaudio and plain definitions

RATES = (0.67, 0.8, 1.0, 1.13, 1.3, 1.55)


def spectra_of(clips, dtype=torch.float64):
    return torch.stft(
        torch.stack(clips).to(dtype), WINDOW, HOP, window=torch.hann_window(WINDOW, dtype=dtype), return_complex=True
    )


def test_the_vocoder_agrees_with_torchaudio_clip_by_clip():
    functional = torchaudio_functional()
    spectra = spectra_of([voice(100 + 30 * number, 0.5) + noise_like(8000, seed=number) for number in range(6)])
    advance = torch.linspace(0, math.pi * HOP, spectra.shape[1], dtype=torch.float64)[:, None]
    expected = [functional.phase_vocoder(spectra[[n]], rate, advance)[0] for n, rate in enumerate(RATES)]
    frames = max(x.shape[1] for x in expected) + 3
    plain = phase_vocoder(spectra.transpose(1, 2), torch.tensor(RATES, dtype=torch.float64), frames, locked=False)
    locked = phase_vocoder(spectra.transpose(1, 2), torch.tensor(RATES, dtype=torch.float64), frames)
    for number, reference in enumerate(expected):
        count = reference.shape[1]
        assert (plain[number, :count].T - reference).abs().max() < 1e-6 * reference.abs().max()
        assert (locked[number, :count].T.abs() - reference.abs()).abs().max() < 1e-6 * reference.abs().max()
        assert plain[number, count + 1 :].abs().max() == 0 if count + 1 < frames else True


def locked_frame_by_frame(spectrum, rate, frames):
    """Identity phase locking by its definition, one bin after the other: (T, K) complex -> (frames, K)."""
    spectrum = np.concatenate([spectrum, np.zeros((2, spectrum.shape[1]))])
    phase = np.angle(spectrum[0])
    found = [np.abs(spectrum[0]) * np.exp(1j * phase)]
    for frame in range(1, frames):
        reached = min(int(math.floor((frame - 1) * rate)) + 1, len(spectrum) - 1)
        magnitude, new = np.abs(spectrum[reached]), np.angle(spectrum[reached])
        old = np.angle(spectrum[reached - 1])
        around = np.concatenate([[-1], magnitude, [-1]])
        peaks = [k for k in range(len(magnitude)) if magnitude[k] >= max(around[k], around[k + 2])]
        next_phase = np.empty_like(phase)
        for k in range(len(magnitude)):
            peak = min(peaks, key=lambda p: (abs(p - k), p))
            next_phase[k] = phase[peak] + new[peak] - old[peak] + new[k] - new[peak]
        phase = next_phase
        row = min(int(math.floor(frame * rate)), len(spectrum) - 2)
        share = frame * rate - math.floor(frame * rate)
        found.append(((1 - share) * np.abs(spectrum[row]) + share * np.abs(spectrum[row + 1])) * np.exp(1j * phase))
    return np.stack(found)


@pytest.mark.parametrize("frames", [1, 2, 17, 60])
def test_locked_phases_are_those_of_the_definition(frames):
    generator = torch.Generator().manual_seed(frames)
    spectra = torch.randn(len(RATES), 40, 21, 2, generator=generator, dtype=torch.float64)
    spectra = torch.view_as_complex(spectra)
    found = phase_vocoder(spectra, torch.tensor(RATES, dtype=torch.float64), frames)
    for row, spectrum, rate in zip(found, spectra, RATES):
        inside = math.floor(39 / rate) + 1  # beyond the last frame there is silence, whose phases mean nothing
        expected = locked_frame_by_frame(spectrum.numpy(), rate, frames)
        assert np.abs(row.numpy() - expected)[:inside].max() < 1e-9


def test_locking_keeps_the_harmonics_together():
    """Why it is the default: the overlapping frames agree better, and so does what is heard with what is meant."""
    clips = [voice(f0, 1.0, 0.2) for f0 in VOICES]
    waveforms, lengths = batch_of(clips)
    for rate in (0.7, 0.85, 1.4):
        rates = torch.full((len(clips),), rate)
        new = (lengths / rate).round().long()
        errors = []
        for locked in (False, True):
            found = time_stretch(waveforms, rates, new, locked)
            meant = torch.stack([voice(f0 * 1.0, 1.0 / rate, 0.2)[: found.shape[1]] for f0 in VOICES])
            made, ideal = (
                torch.stft(x[:, : meant.shape[1]], 400, 160, window=torch.hann_window(400), return_complex=True).abs()
                for x in (found, meant)
            )
            errors.append(float((made - ideal).square().sum() / ideal.square().sum()))
        assert errors[1] < 0.75 * errors[0], (rate, errors)


@pytest.mark.parametrize("old, new", [(5, 4), (4, 5), (6, 5), (119, 100), (84, 100), (441, 160), (1, 1)])
def test_resampling_agrees_with_torchaudio(old, new):
    functional = torchaudio_functional()
    clips = [noise_like(2000 + 311 * number, seed=number) for number in range(3)]
    waveforms, lengths = batch_of(clips)
    steps = torch.full((3,), old / new, dtype=torch.float64)
    expected = [functional.resample(clip, old, new) for clip in clips] if old != new else clips
    if old == new:  # torchaudio does nothing then; here the band is cut at 0.99 of the whole
        waveforms = torch.nn.functional.conv1d(waveforms[:, None], torch.ones(1, 1, 5) / 5, padding=2)[:, 0]
        expected = [row[: len(clip)] for row, clip in zip(waveforms, clips)]
    found = resample(waveforms, steps, torch.tensor([len(clip) for clip in expected]))
    for row, clip in zip(found, expected):
        assert (row[: len(clip)] - clip).abs().max() < (1e-4 if old != new else 0.02)
        assert not row[len(clip) :].any()


def test_resampling_reads_every_clip_at_its_own_step():
    time = torch.arange(16000) / SAMPLING_RATE
    tones = torch.stack([torch.sin(2 * math.pi * 700 * time)] * 4)
    steps = torch.tensor([0.84, 1.0, 1.077, 1.19], dtype=torch.float64)
    new = (16000 / steps).long()
    found = resample(tones, steps, new)
    for row, step, length in zip(found, steps, new):
        expected = torch.sin(2 * math.pi * 700 / SAMPLING_RATE * step * torch.arange(int(length)))
        assert (row[: int(length)] - expected)[50:-50].abs().max() < 2e-3


def test_long_clips_keep_their_precision():
    """Positions in float32 would be some hundredths of a sample off after 20 s."""
    size = 20 * SAMPLING_RATE
    tone = torch.sin(2 * math.pi * 3000 / SAMPLING_RATE * torch.arange(size, dtype=torch.float64))
    step = 2 ** (2.7 / 12)
    found = resample(tone.float()[None], torch.tensor([step], dtype=torch.float64), torch.tensor([int(size / step)]))
    expected = torch.sin(2 * math.pi * 3000 / SAMPLING_RATE * step * torch.arange(found.shape[1], dtype=torch.float64))
    assert (found[0] - expected)[-2000:-100].abs().max() < 3e-3


def test_the_pitch_is_that_of_torchaudios_pitch_shift():
    functional = torchaudio_functional()
    for f0, semitones in ((110, 3), (220, -3), (180, 2)):
        # the rate that torchaudio is told is only how finely it rounds the shift, and how slow it is
        expected = functional.pitch_shift(voice(f0)[None], 1000, semitones)[0]
        found, _ = change_pitch_and_tempo(
            voice(f0)[None], torch.tensor([12800]), torch.tensor([float(semitones)]), torch.ones(1)
        )
        assert abs(float(pitch_of(found[0])[0].median() / pitch_of(expected)[0].median()) - 1) < 0.01
