"""light and fusion: their size, their branches, what each sees."""

import pytest
import torch
from small_models import random_features, small_model

from speecheq.config.schema import ModelConfig
from speecheq.models import build_model
from speecheq.models.light import unstack
from speecheq.models.padding_mask import Frames

CPU = torch.device("cpu")


@pytest.mark.parametrize("layers, dim, millions", [(3, 512, 1.0), (6, 512, 1.0), (4, 768, 1.0)])
def test_light_is_small(layers, dim, millions):
    config = ModelConfig(kind="light", encoder_layers=layers, encoder_dim=dim, feature_dim=layers * dim)
    assert sum(p.numel() for p in build_model(config).parameters()) < millions * 1e6


@pytest.mark.parametrize("kind", ["light", "light on plain statistics", "fusion"])
def test_all_tasks_in_one_pass_are_the_tasks_one_by_one(kind):
    model = small_model(kind).eval()
    features, lengths = random_features(model, 3, 30), torch.tensor([30, 17, 2])
    with torch.no_grad():
        together = model(features, lengths)
        phonemes, emotion = model(features, lengths, ("phoneme",)), model(features, lengths, ("esc", "eis"))
    assert torch.equal(together.phoneme_logits, phonemes.phoneme_logits)
    assert torch.equal(together.lengths, phonemes.lengths)
    assert torch.equal(together.esc_logits, emotion.esc_logits) and torch.equal(together.eis, emotion.eis)


def test_plain_statistics_are_all_that_it_sees_of_the_frames():
    model = small_model("light on plain statistics").eval()
    features = random_features(model, 1, 30)
    shuffled = features[:, torch.randperm(30, generator=torch.Generator().manual_seed(1))]
    louder = 2 * features
    lengths = torch.tensor([30])
    with torch.no_grad():
        plain, same, other = (model(x, lengths, ("esc",)).esc_logits for x in (features, shuffled, louder))
    torch.testing.assert_close(plain, same, rtol=0, atol=1e-5)
    assert not torch.allclose(plain, other, atol=1e-3)


def test_pooled_layers_leave_the_upper_ones_to_phonemes():
    model = small_model("light on plain statistics", pooled_layers=2).eval()
    features, lengths = random_features(model, 2, 30), torch.tensor([30, 21])
    upper = features.clone()
    upper[..., 32:] += 1.0 + torch.arange(16.0)
    with torch.no_grad():
        plain, other = model(features, lengths), model(upper, lengths)
    assert torch.equal(plain.esc_logits, other.esc_logits) and torch.equal(plain.eis, other.eis)
    assert not torch.allclose(plain.phoneme_logits, other.phoneme_logits, atol=1e-3)


def test_phonemes_begin_with_the_last_layer_and_have_a_dropout_of_their_own():
    model = small_model("light on plain statistics", dropout=0.9, phoneme_dropout=0.0)
    shares = model.backbone.phonemes.mixture.weights()
    assert shares[-1] > 0.9 and torch.equal(shares[0], shares[1])
    features, lengths = random_features(model, 4, 30), torch.full((4,), 30)
    first, second = (model(features, lengths, ("phoneme",)).phoneme_logits for _ in range(2))
    assert torch.equal(first, second)
    emotion = [model(features, lengths, ("esc",)).esc_logits for _ in range(2)]
    assert not torch.equal(*emotion)


def test_unstacked_frames_are_in_the_order_of_time():
    frames = torch.arange(12.0).view(1, 6, 2)  # six frames of two filter banks
    stacked = frames.reshape(1, 3, 4)
    level = unstack(stacked, Frames.from_lengths(torch.tensor([3]), 3, CPU))
    assert torch.equal(level.x, frames) and level.frames.given_lengths.tolist() == [6]


@pytest.mark.parametrize("kind", ["fusion", "fusion on plain statistics"])
def test_fusion_hears_both_and_takes_phonemes_from_the_states(kind):
    model = small_model(kind).eval()
    features, lengths = random_features(model, 2, 25), torch.tensor([25, 14])
    fbank, states = features.clone(), features.clone()
    fbank[..., :160] += torch.randn(2, 25, 160)
    states[..., 160:] += torch.randn(2, 25, 48)
    with torch.no_grad():
        plain, other_fbank, other_states = (model(x, lengths) for x in (features, fbank, states))
    assert not torch.allclose(plain.esc_logits, other_fbank.esc_logits, atol=1e-3)
    assert not torch.allclose(plain.esc_logits, other_states.esc_logits, atol=1e-3)
    assert torch.equal(plain.phoneme_logits, other_fbank.phoneme_logits)
    assert not torch.allclose(plain.phoneme_logits, other_states.phoneme_logits, atol=1e-3)


def test_the_decoder_of_light_gives_the_states_of_all_layers():
    model = small_model("light", decoder_channels=6, num_augmentations=7)
    features, lengths = random_features(model, 2, 20), torch.tensor([20, 11])
    predictions = model(features, lengths, ("reconstruction", "augmentation"))
    assert predictions.reconstruction.shape == features.shape
    assert predictions.augmentation_logits.shape == (2, 7)
