"""The telephone: its band, its codecs, and clips of the training that go through it."""

import numpy as np
import pytest
import torch
from waveforms import batch_of, noise_like, voice

from speecheq.config.schema import AugmentConfig
from speecheq.features.augment_waveforms import Augmenter, draw
from speecheq.features.telephone import CODECS, telephone_clips, through_telephone

NOTHING = dict(pitch_probability=0.0, tempo_probability=0.0, reverb_probability=0.0, noise_probability=0.0)


def gain_db(frequency, codec):
    """Of a tone of half a second, without its ends."""
    tone = 0.3 * np.sin(2 * np.pi * frequency * np.arange(8000) / 16000).astype(np.float32)
    middle = slice(2000, 6000)
    return 10 * np.log10(np.mean(through_telephone(tone, codec)[middle] ** 2) / np.mean(tone[middle] ** 2))


@pytest.mark.parametrize("codec", ["mu-law", "A-law"])
def test_the_band_passes_and_all_else_is_gone(codec):
    assert all(abs(gain_db(frequency, codec)) < 1.0 for frequency in (500, 1000, 2000, 3000))
    assert all(gain_db(frequency, codec) < -20 for frequency in (60, 120, 4300, 6000))


@pytest.mark.parametrize("codec", CODECS)
def test_length_and_place_are_kept_and_the_codec_is_heard(codec):
    samples = voice(140, 1.003).numpy()
    found = through_telephone(samples, codec)
    assert found.shape == samples.shape and found.dtype == np.float32 and np.isfinite(found).all()
    others = [through_telephone(samples, other) for other in CODECS if other != codec]
    assert not any(np.array_equal(found, other) for other in others)
    assert np.corrcoef(found, others[0])[0, 1] > 0.8
    assert len(through_telephone(samples[:5], codec)) == 5, "shorter than a frame of GSM"


def test_a_clip_does_not_hear_its_padding():
    clips, lengths = batch_of([voice(130, 0.3), voice(150, 0.5)], 0.7)
    names = ["GSM", "mu-law"]
    changed = telephone_clips(clips, lengths, names)
    for row, (length, name) in enumerate(zip(lengths.tolist(), names)):
        alone = torch.from_numpy(through_telephone(clips[row, :length].numpy(), name))
        assert torch.equal(changed[row, :length], alone) and not changed[row, length:].any()


@pytest.mark.parametrize("probability", [0.0, 0.4, 1.0])
def test_a_part_of_the_training_clips_goes_through_a_codec_each(probability):
    ids = [str(number) for number in range(200)]
    waveforms, lengths = noise_like(200, 400), torch.full((200,), 400)
    config = AugmentConfig(**NOTHING, telephone_probability=probability)
    assert config.active == (probability > 0)
    found, same = Augmenter(config, 1)(waveforms, lengths, ids, "emotion", 0)
    assert torch.equal(same, lengths)
    changed = (found != waveforms).any(1)
    assert abs(float(changed.double().mean()) - probability) < 0.12
    assert probability not in (0, 1) or float(changed.double().mean()) == probability
    drawn = (draw(1, "emotion", 0, ids)["codec"] * len(CODECS)).long().tolist()
    names = list(CODECS)
    for row in changed.nonzero()[:, 0].tolist():
        expected = through_telephone(waveforms[row].numpy(), names[drawn[row]])
        assert torch.equal(found[row], torch.from_numpy(expected))
    assert probability == 0 or {drawn[row] for row in changed.nonzero()[:, 0].tolist()} == {0, 1, 2}
