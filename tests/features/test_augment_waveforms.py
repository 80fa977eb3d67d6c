"""augment.py by measurement: pitch, duration, SNR, reverberation; and by comparison with torchaudio and stage 2."""

import math

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence

from speecheq.common.errors import InputError
from speecheq.common.log import set_up_logging
from speecheq.config.schema import AugmentConfig
from speecheq.corpora import audio_folder
from speecheq.corpora.prepare import Corpus, Request, Utterance
from speecheq.corpora.prepare import prepare as prepare_corpus
from speecheq.features.audio import load_waveform
from speecheq.features.augment_waveforms import (
    DRAWN,
    FIRST_REFLECTION,
    HOP,
    SAMPLING_RATE,
    WINDOW,
    Augmenter,
    SoundBank,
    add_noise,
    change_pitch_and_tempo,
    draw,
    from_direct_path,
    load_noises,
    load_responses,
    phase_vocoder,
    resample,
    reverberate,
    simulated_responses,
    time_stretch,
    without_silence,
)
from speecheq.features.fbank import BatchedFbank
from speecheq.features.storage import compute_features, load_cuts

NOTHING = dict(pitch_probability=0.0, tempo_probability=0.0, reverb_probability=0.0, noise_probability=0.0)
ALWAYS = dict(pitch_probability=1.0, tempo_probability=1.0, reverb_probability=1.0, noise_probability=1.0)
VOICES = (85.0, 120.0, 180.0, 240.0, 330.0)
SEMITONES = (-3.0, -1.5, 0.0, 2.0, 3.0)
TEMPI = (0.8, 0.9, 1.0, 1.13, 1.3)


def torchaudio_functional():
    try:
        import torchaudio.functional
    except Exception as error:
        pytest.skip(f"torchaudio does not import: {error}")
    return torchaudio.functional


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


# noise


def test_snr_is_measured_over_the_valid_samples():
    clips = [voice(120, 0.7), voice(200, 0.3), noise_like(1000)]
    waveforms, lengths = batch_of(clips, padding=0.9)
    noise = noise_like(3, waveforms.shape[1], seed=5) * torch.tensor([[0.01], [1.0], [100.0]])
    noise[1, 4800:] = 50.0  # beyond the clip: neither heard nor counted
    found = add_noise(waveforms, lengths, noise, torch.tensor([10.0, 17.5, 25.0]))
    for row, clip, snr in zip(found, clips, (10.0, 17.5, 25.0)):
        added = row[: len(clip)] - clip
        assert abs(power_db(clip) - power_db(added) - snr) < 0.2
        assert not row[len(clip) :].any()


def test_silent_clips_and_silent_noise():
    waveforms = torch.stack([torch.zeros(1000), 10 * noise_like(1000)])
    found = add_noise(
        waveforms,
        torch.tensor([1000, 1000]),
        torch.stack([noise_like(1000), torch.zeros(1000)]),
        torch.tensor([10.0, 10.0]),
    )
    assert torch.equal(found, waveforms)


def test_crops_of_noises():
    bank = SoundBank([torch.arange(10.0), 100 + torch.arange(4.0)])
    share = torch.tensor([0.0, 0.999, 0.5, 0.5, 0.999])
    found = bank.crops(torch.tensor([0, 0, 0, 1, 1]), share, torch.tensor([6, 6, 10, 6, 4]))
    assert found[0, :6].tolist() == [0, 1, 2, 3, 4, 5] and found[1, :6].tolist() == [4, 5, 6, 7, 8, 9]
    assert set(found[2].tolist()) == set(range(10)), "a noise as long as the clip is turned"
    assert found[3, :6].tolist() == [102, 103, 100, 101, 102, 103], "a shorter one is repeated"
    assert found[4, :4].tolist() == [103, 100, 101, 102]
    assert bank.chosen(torch.tensor([0.0, 0.49, 0.5, 0.999])).tolist() == [0, 0, 1, 1]
    assert bank.whole(torch.tensor([1, 0])).tolist() == [[100, 101, 102, 103] + [0] * 6, list(range(10))]


def test_silent_stretches_are_cut_out_of_noises():
    sound, nothing = noise_like(3200), torch.zeros(16000)
    found = without_silence(torch.cat([nothing, sound[:1600], nothing, sound[1600:], nothing, sound[:100]]))
    assert torch.equal(found, sound)
    assert torch.equal(without_silence(sound[:1599]), sound[:1599])
    late = torch.cat([torch.zeros(1600), torch.ones(10)])
    assert torch.equal(without_silence(late), late), "sound in the last block only"


# reverberation


def test_the_direct_path_alone_changes_nothing():
    clips = [voice(120, 0.7), voice(200, 0.3)]
    waveforms, lengths = batch_of(clips, padding=0.9)
    responses = torch.zeros(2, 700)
    responses[:, 0] = torch.tensor([1.0, -0.2])
    found = reverberate(waveforms, lengths, responses)
    assert (found[0] - clips[0]).abs().max() < 1e-6
    assert (found[1, : len(clips[1])] + clips[1]).abs().max() < 1e-6 and not found[1, len(clips[1]) :].any()


def test_reverberation_is_a_convolution_at_the_same_level():
    clips = [noise_like(3000), noise_like(2000, seed=1)]
    waveforms, lengths = batch_of(clips, padding=0.9)
    responses = noise_like(2, 900, seed=2)
    found = reverberate(waveforms, lengths, responses)
    for row, clip, response in zip(found, clips, responses):
        expected = np.convolve(clip.double(), response.double())[: len(clip)]
        expected *= math.sqrt(float(clip.square().sum()) / np.square(expected).sum())
        assert np.abs(row[: len(clip)].numpy() - expected).max() < 1e-5
        assert not row[len(clip) :].any()
    assert not reverberate(torch.zeros(1, 500), torch.tensor([500]), responses[:1]).any()


def test_the_onset_does_not_move():
    clip = torch.cat([torch.zeros(4000), voice(150, 0.4)])
    noise = torch.randn(40000, generator=torch.Generator().manual_seed(0))
    responses = simulated_responses(noise, torch.arange(4) * 50, torch.full((4,), 0.5), torch.tensor([0.0, 3, 6, 12]))
    found = reverberate(clip.expand(4, -1), torch.full((4,), len(clip)), responses)
    assert found[:, :4000].abs().max() < 1e-5 * found.abs().max()
    for row in found:  # in the first 2 ms nothing but the direct path is there
        first = row[4000 : 4000 + FIRST_REFLECTION]
        ratio = first / clip[4000 : 4000 + FIRST_REFLECTION]
        assert (ratio / ratio[0] - 1).abs().max() < 1e-2 and ratio[0] > 0.5


@pytest.mark.parametrize("t60", [0.2, 0.5, 0.8])
def test_simulated_responses_decay_as_asked(t60):
    noise = torch.randn(1 << 16, generator=torch.Generator().manual_seed(3))
    direct = torch.tensor([0.0, 12.0, 5.0])
    found = simulated_responses(noise, torch.tensor([0, 20000, 40000]), torch.full((3,), t60), direct)
    assert (found[:, 0] == 1).all() and not found[:, 1:FIRST_REFLECTION].any()
    for response, wanted in zip(found.double(), direct):
        tail = response[1:].square()
        assert abs(-10 * math.log10(float(tail.sum())) - float(wanted)) < 0.01
        left = 10 * torch.log10(tail.flip(0).cumsum(0).flip(0) / tail.sum())  # Schroeder's integral
        early, late = (int((left > -level).sum()) for level in (5, 25))
        assert abs(3 * (late - early) / SAMPLING_RATE / t60 - 1) < 0.1


def test_responses_of_several_lengths_do_not_touch_each_other():
    noise = torch.randn(40000, generator=torch.Generator().manual_seed(0))
    first, direct = torch.tensor([5, 9]), torch.tensor([3.0, 3.0])
    both = simulated_responses(noise, first, torch.tensor([0.2, 0.6]), direct)
    alone = simulated_responses(noise, first[:1], torch.tensor([0.2]), direct[:1])
    assert torch.equal(both[:1, : alone.shape[1]], alone) and not both[0, alone.shape[1] :].any()


def test_the_direct_path_of_a_response():
    response = torch.zeros(5000)
    response[100], response[103], response[900] = 0.1, -0.6, 1.0  # before it, the direct path, a strong reflection
    found = from_direct_path(response)
    assert float(found[0]) == pytest.approx(-0.6) and len(found) == 4897
    assert len(from_direct_path(torch.ones(10 * SAMPLING_RATE))) == 2 * SAMPLING_RATE


# the banks from manifests


@pytest.fixture
def manifest(toys, tmp_path):
    """``manifest(name, {file: (samples, rate)})``: the manifest of such a folder of sounds."""

    def write(name, files):
        for file, (samples, rate) in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / name / file, samples, rate, subtype="FLOAT")
        audio_folder.prepare(name, "sounds", tmp_path / name, tmp_path / f"{name}-manifests")
        return tmp_path / f"{name}-manifests" / f"{name}_recordings_all.jsonl.gz"

    return write


def tone(rate, hertz, seconds=0.5):
    return 0.4 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def test_noises_of_any_rate_and_number_of_channels(manifest):
    path = manifest(
        "noise",
        {
            "a.wav": (tone(16000, 440), 16000),
            "b.wav": (np.stack([np.zeros(22050), tone(44100, 440)], 1), 44100),
            "c.wav": (np.stack([tone(8000, 440)] * 3, 1), 8000),
        },
    )
    bank = load_noises(path, 1.0, 1)
    assert len(bank) == 3 and bank.sizes.tolist() == [8000] * 3
    for sound in bank.whole(torch.arange(3)):
        assert abs(float(pitch_of(sound)[0].median()) / 440 - 1) < 0.01 and sound.abs().max() > 0.3


def test_of_too_many_noises_some_are_held(manifest, capsys):
    set_up_logging()
    path = manifest("noise", {f"{n}.wav": (tone(16000, 200 + 50 * n, 1.0), 16000) for n in range(8)})
    hours = 3.5 / 3600
    assert len(load_noises(path, 1.0, 1)) == 8 and " noises are used" not in capsys.readouterr().err
    some, others = load_noises(path, hours, 1), load_noises(path, hours, 2)
    assert "3 of its 8 noises are used" in capsys.readouterr().err
    assert len(some) == len(others) == 3 and not torch.equal(some.samples, others.samples)
    assert torch.equal(some.samples, load_noises(path, hours, 1).samples)
    assert len(load_noises(path, 0.01 / 3600, 1)) == 1, "one at least"


def test_impulse_responses_begin_with_their_direct_path(manifest):
    def response(rate, channels):
        samples = np.zeros((rate // 2, channels))
        samples[rate // 50] = 0.8
        samples[rate // 50 + rate // 20] = 0.3
        return samples, rate

    path = manifest("rir", {f"{c}-{r}.wav": response(r, c) for c, r in ((1, 16000), (2, 48000), (8, 16000))})
    bank = load_responses(path, 1)
    assert len(bank) == 3
    for sound in bank.whole(torch.arange(3)):
        # band-limited, the direct path may lie between two samples
        assert int(sound.abs().argmax()) <= 1 and abs(int(sound[100:].abs().argmax()) + 100 - 800) <= 1


def test_one_channel_is_chosen_by_the_seed(manifest):
    samples = np.stack([tone(16000, 100 + 40 * channel) for channel in range(8)], 1)
    path = manifest("noise", {"a.wav": (samples, 16000)})
    found = {round(float(pitch_of(load_noises(path, 1.0, seed).samples)[0].median()) / 20) for seed in range(6)}
    assert len(found) > 1
    assert torch.equal(load_noises(path, 1.0, 3).samples, load_noises(path, 1.0, 3).samples)


@pytest.mark.parametrize("load", [lambda path: load_noises(path, 1.0, 1), lambda path: load_responses(path, 1)])
def test_sounds_that_cannot_be_used_are_named(manifest, tmp_path, load):
    path = manifest("noise", {"good.wav": (tone(16000, 440), 16000), "bad.wav": (tone(16000, 440), 16000)})
    bad = tmp_path / "noise" / "bad.wav"
    for spoil, words in (
        (lambda: soundfile.write(bad, np.zeros(8000), 16000), "is silent"),
        (lambda: soundfile.write(bad, np.ones(100), 16000), "holds 100 samples at 16000 Hz, its manifest says 8000"),
        (lambda: bad.write_text("no audio"), "cannot be read"),
        (bad.unlink, "cannot be read"),
    ):
        spoil()
        with pytest.raises(InputError, match=words) as refused:
            load(path)
        assert str(refused.value).startswith(f"{bad}: ") and str(refused.value).endswith(".")


def test_a_noise_above_8_khz_is_silent_here(manifest):
    path = manifest("noise", {"bat.wav": (tone(96000, 30000) * np.hanning(48000), 96000)})
    with pytest.raises(InputError, match="bat.wav: is silent below 8000 Hz"):
        load_noises(path, 1.0, 1)


def test_the_real_noises_and_responses(samples, tmp_path):
    for name in ("noise", "rir"):
        audio_folder.prepare(name, "sounds", samples(name), tmp_path / name, nj=2)
    noises = load_noises(tmp_path / "noise" / "noise_recordings_all.jsonl.gz", 10.0, 1)
    responses = load_responses(tmp_path / "rir" / "rir_recordings_all.jsonl.gz", 1)
    assert len(noises) == 35 and len(responses) == 11
    assert torch.isfinite(noises.samples).all() and torch.isfinite(responses.samples).all()
    assert int(responses.sizes.max()) <= 2 * SAMPLING_RATE
    for sound in responses.whole(torch.arange(11)):
        assert sound[0].abs() >= sound.abs().max() / 2
    clips, lengths = batch_of([voice(150, 1.0)] * 11)
    wet = reverberate(clips, lengths, responses.whole(torch.arange(11)))
    assert all(abs(power_db(row) - power_db(clips[0])) < 0.01 for row in wet)


# draws, and the whole


def test_draws_depend_on_the_utterance_and_not_on_the_batch():
    ids = [f"u{number}" for number in range(50)]
    whole, part = draw(1, "emotion", 3, ids), draw(1, "emotion", 3, [ids[7], ids[3]])
    for name in DRAWN:
        assert whole[name].dtype == torch.float64 and (whole[name] >= 0).all() and (whole[name] < 1).all()
        assert part[name].tolist() == [float(whole[name][7]), float(whole[name][3])]
        assert len(set(whole[name].tolist())) == 50
    for other in (draw(2, "emotion", 3, ids), draw(1, "gender", 3, ids), draw(1, "emotion", 4, ids)):
        assert not any(torch.equal(other[name], whole[name]) for name in DRAWN)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_how_many_clips_are_changed(probability):
    ids = [str(number) for number in range(400)]
    waveforms, lengths = noise_like(400, 200), torch.full((400,), 200)
    config = AugmentConfig(**{**NOTHING, "noise_probability": probability})
    found, same = Augmenter(config, 1, SoundBank([noise_like(900)]))(waveforms, lengths, ids, "emotion", 0)
    assert torch.equal(same, lengths)
    changed = (found != waveforms).any(1).double().mean()
    assert abs(float(changed) - probability) < 0.08 and (probability not in (0, 1) or changed == probability)
    assert config.active == (probability > 0)
    snr = [power_db(row) - power_db(new - row) for row, new in zip(waveforms, found) if not torch.equal(row, new)]
    assert not snr or (min(snr) < 11 and max(snr) > 24), "whether and how far are drawn apart"


def augmented(config, clips, ids=None, seed=1, epoch=0, noises=None, responses=None, padding=0.0, extra=0):
    waveforms, lengths = batch_of(clips, padding)
    waveforms = torch.nn.functional.pad(waveforms, (0, extra), value=padding)
    augmenter = Augmenter(config, seed, noises, responses)
    return augmenter(waveforms, lengths, ids or [str(n) for n in range(len(clips))], "emotion", epoch)


def test_the_ranges_are_kept():
    clips, bank = [voice(130 + number, 0.4) for number in range(24)], SoundBank([noise_like(30000), noise_like(2000)])
    found, new = augmented(AugmentConfig(**{**NOTHING, "noise_probability": 1.0}), clips, noises=bank)
    snr = [power_db(clip) - power_db(row - clip) for clip, row in zip(clips, found)]
    assert 9.8 < min(snr) < 13 and 22 < max(snr) < 25.2
    found, new = augmented(AugmentConfig(**{**NOTHING, "tempo_probability": 1.0}), clips)
    factors = [len(clip) / int(length) for clip, length in zip(clips, new)]
    assert 0.799 < min(factors) < 0.87 and 1.23 < max(factors) < 1.301
    found, new = augmented(AugmentConfig(**{**NOTHING, "pitch_probability": 1.0}), clips)
    assert new.tolist() == [len(clip) for clip in clips]
    shifts = [12 * math.log2(float(pitch_of(row)[0][2:-2].median()) / (130 + n)) for n, row in enumerate(found)]
    assert -3.2 < min(shifts) < -2 and 2 < max(shifts) < 3.2
    asked = draw(1, "emotion", 0, [str(n) for n in range(24)])["semitones"] * 6 - 3
    assert (torch.tensor(shifts) - asked).abs().max() < 0.3


@pytest.mark.parametrize("responses", [None, SoundBank([noise_like(700), noise_like(3000, seed=1)])])
def test_a_clip_does_not_depend_on_its_neighbours_or_its_padding(responses):
    clips = [voice(150, 0.5) + noise_like(8000), voice(220, 0.9), noise_like(3000, seed=3), voice(100, 0.31)]
    given = dict(noises=SoundBank([noise_like(30000, seed=4), noise_like(2500, seed=5)]), responses=responses)
    found, new = augmented(AugmentConfig(**ALWAYS), clips, **given)
    for extra, padding in ((0, 0.0), (1, 0.8), (7001, math.nan)):
        for number, clip in enumerate(clips):
            alone, length = augmented(
                AugmentConfig(**ALWAYS), [clip], [str(number)], extra=extra, padding=padding, **given
            )
            assert length.tolist() == [int(new[number])] and alone.shape == (1, int(length))
            assert (alone[0] - found[number, : int(length)]).abs().max() < 1e-4
            assert not found[number, int(length) :].any()


def test_the_same_again_and_another_in_the_next_epoch():
    clips, bank = [voice(150, 0.5), voice(210, 0.4)], SoundBank([noise_like(30000)])
    config = AugmentConfig(**ALWAYS)
    runs = ((0, 1), (0, 1), (1, 1), (0, 2))
    first, again, later, other = (augmented(config, clips, epoch=e, seed=seed, noises=bank) for e, seed in runs)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[1], later[1]) and not torch.equal(first[1], other[1])


def test_one_change_does_not_move_another():
    clips, bank = [voice(150, 0.5), voice(210, 0.4)], SoundBank([noise_like(30000)])
    tempo = {**NOTHING, "tempo_probability": 1.0}
    plain = augmented(AugmentConfig(**tempo), clips)
    noisy = augmented(AugmentConfig(**{**tempo, "noise_probability": 1.0}), clips, noises=bank)
    assert torch.equal(plain[1], noisy[1])


def test_without_noises_none_is_added():
    clip = voice(150, 0.5)
    assert torch.equal(augmented(AugmentConfig(**{**NOTHING, "noise_probability": 1.0}), [clip])[0][0], clip)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same():
    clips = [voice(150, 0.5) + noise_like(8000), voice(220, 0.9) + noise_like(14400)]
    waveforms, lengths = batch_of(clips)
    results = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        bank = SoundBank([noise_like(30000, seed=4)], device)
        augmenter = Augmenter(AugmentConfig(**ALWAYS), 1, bank, None, device)
        results.append(augmenter(waveforms.to(device), lengths, ["a", "b"], "emotion", 0))
    (here, here_lengths), (there, there_lengths) = results
    assert torch.equal(here_lengths, there_lengths)
    # bins at the edge between two peaks may follow the other one
    assert ((there.cpu() - here).norm() / here.norm()) < 0.05


@pytest.mark.parametrize("name", ["pitch", "tempo", "t60", "direct", "snr"])
def test_ranges_in_the_wrong_order_are_refused(name):
    config = AugmentConfig()
    low, high = getattr(config, f"{name}_low"), getattr(config, f"{name}_high")
    setattr(config, f"{name}_low", high)
    setattr(config, f"{name}_high", low)
    with pytest.raises(ValueError, match=f"{name}_low is .* above {name}_high"):
        Augmenter(config, 1)


def features_as_stored(folder, corpus, find):
    """Stage 1 and 2 of a corpus, then its cuts: stored features against those of waveforms that pass unchanged."""
    prepare_corpus(corpus, find, Request(folder), folder.parent / "manifests")
    compute_features(corpus.name, folder.parent / "manifests", folder.parent / "fbank", 1)
    cuts = list(load_cuts(folder.parent / "fbank"))
    clips = [torch.from_numpy(load_waveform(cut)) for cut in cuts]
    waveforms, lengths = augmented(AugmentConfig(**NOTHING), clips, [cut.id for cut in cuts], padding=0.6)
    found, frames = BatchedFbank()(waveforms, lengths)
    for row, count, cut in zip(found, frames.tolist(), cuts):
        stored = torch.from_numpy(cut.load_features())
        assert count == len(stored) and (row[:count] - stored).abs().max() < 1e-3
    return cuts


def test_unchanged_waveforms_have_the_stored_features(toys, tmp_path):
    corpus = Corpus("toy", "the toy", "Mandarin", "DIR/*.wav", labels={"mad": "anger"})
    for number, rate in enumerate((16000, 16000, 44100, 8000, 16000)):
        toys.write_wav(tmp_path / "toy" / f"{number}.wav", 0.2 + 0.13 * number, rate)

    def find(folder, *_):
        return [Utterance(p.stem, p, "s", "F", label="mad") for p in sorted(folder.glob("*.wav"))]

    assert len(features_as_stored(tmp_path / "toy", corpus, find)) == 5


def test_real_clips_have_the_stored_features(samples, tmp_path):
    corpus = Corpus("toy", "some of CASIA", "Mandarin", "DIR/*.wav", labels={"mad": "anger"})
    (tmp_path / "toy").mkdir()
    for number, path in enumerate(sorted(samples("CASIA").rglob("*.wav"))[::60][:8]):
        (tmp_path / "toy" / f"{number}.wav").symlink_to(path)

    def find(folder, *_):
        return [Utterance(p.stem, p, "s", "F", label="mad") for p in sorted(folder.glob("*.wav"))]

    assert len(features_as_stored(tmp_path / "toy", corpus, find)) > 4
