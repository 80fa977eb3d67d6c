"""Augmentation as a whole: what is drawn, what each clip gets, and comparison with stage 2."""

import math

import pytest
import torch
from waveforms import batch_of, noise_like, pitch_of, power_db, voice

from speecheq.config.schema import AugmentConfig
from speecheq.corpora import Corpus, Utterance
from speecheq.corpora.prepare import PrepareRequest
from speecheq.corpora.prepare import prepare as prepare_corpus
from speecheq.features.audio import load_waveform
from speecheq.features.augment_waveforms import DRAWN, Augmenter, draw
from speecheq.features.fbank import BatchedFbank
from speecheq.features.noise_and_rir import WaveformBank
from speecheq.features.storage import compute_features, load_cuts

NOTHING = dict(pitch_probability=0.0, tempo_probability=0.0, reverb_probability=0.0, noise_probability=0.0)
ALWAYS = dict(pitch_probability=1.0, tempo_probability=1.0, reverb_probability=1.0, noise_probability=1.0)


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
    found, same = Augmenter(config, 1, WaveformBank([noise_like(900)]))(waveforms, lengths, ids, "emotion", 0)
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
    clips, bank = (
        [voice(130 + number, 0.4) for number in range(24)],
        WaveformBank([noise_like(30000), noise_like(2000)]),
    )
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


@pytest.mark.parametrize("responses", [None, WaveformBank([noise_like(700), noise_like(3000, seed=1)])])
def test_a_clip_does_not_depend_on_its_neighbours_or_its_padding(responses):
    clips = [voice(150, 0.5) + noise_like(8000), voice(220, 0.9), noise_like(3000, seed=3), voice(100, 0.31)]
    given = dict(noises=WaveformBank([noise_like(30000, seed=4), noise_like(2500, seed=5)]), responses=responses)
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
    clips, bank = [voice(150, 0.5), voice(210, 0.4)], WaveformBank([noise_like(30000)])
    config = AugmentConfig(**ALWAYS)
    runs = ((0, 1), (0, 1), (1, 1), (0, 2))
    first, again, later, other = (augmented(config, clips, epoch=e, seed=seed, noises=bank) for e, seed in runs)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[1], later[1]) and not torch.equal(first[1], other[1])


def test_one_change_does_not_move_another():
    clips, bank = [voice(150, 0.5), voice(210, 0.4)], WaveformBank([noise_like(30000)])
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
        bank = WaveformBank([noise_like(30000, seed=4)], device)
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


def features_as_stored(folder):
    """Stage 1 and 2 of clips, then their cuts: stored features against those of waveforms that pass unchanged."""
    corpus = Corpus("toy", "the toy", "Mandarin", "DIR/*.wav", labels={"mad": "anger"})

    def find(folder, *_):
        return [Utterance(p.stem, p, "s", "F", label="mad") for p in sorted(folder.glob("*.wav"))]

    prepare_corpus(corpus, find, PrepareRequest(folder), folder.parent / "manifests")
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
    for number, rate in enumerate((16000, 16000, 44100, 8000, 16000)):
        toys.write_wav(tmp_path / "toy" / f"{number}.wav", 0.2 + 0.13 * number, rate)
    assert len(features_as_stored(tmp_path / "toy")) == 5


def test_real_clips_have_the_stored_features(samples, tmp_path):
    (tmp_path / "toy").mkdir()
    for number, path in enumerate(sorted(samples("CASIA").rglob("*.wav"))[::60][:8]):
        (tmp_path / "toy" / f"{number}.wav").symlink_to(path)
    assert len(features_as_stored(tmp_path / "toy")) > 4
