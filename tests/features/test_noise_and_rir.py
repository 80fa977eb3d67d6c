"""SNR and reverberation by measurement; noises and RIRs from manifests."""

import math

import numpy as np
import pytest
import soundfile
import torch
from waveforms import batch_of, noise_like, pitch_of, power_db, voice

from speecheq.common.errors import InputError
from speecheq.common.log import set_up_logging
from speecheq.corpora import audio_folder
from speecheq.corpora.prepare import PrepareRequest
from speecheq.features.noise_and_rir import (
    FIRST_REFLECTION,
    WaveformBank,
    add_noise,
    cut_silence,
    cut_to_direct_path,
    load_noises,
    load_responses,
    reverberate,
    simulate_responses,
)
from speecheq.features.waveform_batch import SAMPLING_RATE

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
    bank = WaveformBank([torch.arange(10.0), 100 + torch.arange(4.0)])
    share = torch.tensor([0.0, 0.999, 0.5, 0.5, 0.999])
    found = bank.crops(torch.tensor([0, 0, 0, 1, 1]), share, torch.tensor([6, 6, 10, 6, 4]))
    assert found[0, :6].tolist() == [0, 1, 2, 3, 4, 5] and found[1, :6].tolist() == [4, 5, 6, 7, 8, 9]
    assert set(found[2].tolist()) == set(range(10)), "a noise as long as the clip is turned"
    assert found[3, :6].tolist() == [102, 103, 100, 101, 102, 103], "a shorter one is repeated"
    assert found[4, :4].tolist() == [103, 100, 101, 102]
    assert bank.pick(torch.tensor([0.0, 0.49, 0.5, 0.999])).tolist() == [0, 0, 1, 1]
    assert bank.whole(torch.tensor([1, 0])).tolist() == [[100, 101, 102, 103] + [0] * 6, list(range(10))]


def test_silent_stretches_are_cut_out_of_noises():
    sound, nothing = noise_like(3200), torch.zeros(16000)
    found = cut_silence(torch.cat([nothing, sound[:1600], nothing, sound[1600:], nothing, sound[:100]]))
    assert torch.equal(found, sound)
    assert torch.equal(cut_silence(sound[:1599]), sound[:1599])
    late = torch.cat([torch.zeros(1600), torch.ones(10)])
    assert torch.equal(cut_silence(late), late), "sound in the last block only"


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
    responses = simulate_responses(noise, torch.arange(4) * 50, torch.full((4,), 0.5), torch.tensor([0.0, 3, 6, 12]))
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
    found = simulate_responses(noise, torch.tensor([0, 20000, 40000]), torch.full((3,), t60), direct)
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
    both = simulate_responses(noise, first, torch.tensor([0.2, 0.6]), direct)
    alone = simulate_responses(noise, first[:1], torch.tensor([0.2]), direct[:1])
    assert torch.equal(both[:1, : alone.shape[1]], alone) and not both[0, alone.shape[1] :].any()


def test_the_direct_path_of_a_response():
    response = torch.zeros(5000)
    response[100], response[103], response[900] = 0.1, -0.6, 1.0  # before it, the direct path, a strong reflection
    found = cut_to_direct_path(response)
    assert float(found[0]) == pytest.approx(-0.6) and len(found) == 4897
    assert len(cut_to_direct_path(torch.ones(10 * SAMPLING_RATE))) == 2 * SAMPLING_RATE


# the banks from manifests


@pytest.fixture
def manifest(toys, tmp_path):
    """``manifest(name, {file: (samples, rate)})``: the manifest of such a folder of sounds."""

    def write(name, files):
        for file, (samples, rate) in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / name / file, samples, rate, subtype="FLOAT")
        audio_folder.prepare(name, "sounds", PrepareRequest(tmp_path / name), tmp_path / f"{name}-manifests")
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
    assert len(load_noises(path, 1.0, 1)) == 8 and "noises, which fill" not in capsys.readouterr().err
    some, others = load_noises(path, hours, 1), load_noises(path, hours, 2)
    assert "using 3 of 8 noises" in capsys.readouterr().err
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
        (lambda: soundfile.write(bad, np.ones(100), 16000), "holds 100 samples at 16000 Hz, its manifest gives 8000"),
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
        audio_folder.prepare(name, "sounds", PrepareRequest(samples(name), nj=2), tmp_path / name)
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
