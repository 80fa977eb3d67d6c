import pytest
import torch

from speecheq.config.schema import Config
from speecheq.models.checkpoint import new_model
from speecheq.models.normalisation import MODES, Cmvn


def batch():
    generator = torch.Generator().manual_seed(3)
    features = 4 * torch.randn(3, 40, 8, generator=generator) - 7
    lengths = torch.tensor([40, 25, 1])
    for row, length in enumerate(lengths):
        features[row, length:] = 0
    return features, lengths


def test_utterance_normalisation_is_that_of_each_utterance_alone():
    features, lengths = batch()
    normal = Cmvn("utterance", 8)(features, lengths)
    for row, length in enumerate(lengths):
        alone = features[row, :length]
        expected = (alone - alone.mean(0)) / alone.std(0, unbiased=False).clamp(min=1e-3)
        assert torch.allclose(normal[row, :length], expected, atol=1e-4)
        assert not normal[row, length:].any()


def test_global_normalisation_takes_the_given_statistics():
    features, lengths = batch()
    mean, deviation = torch.linspace(-8, -6, 8), torch.linspace(1, 5, 8)
    normal = Cmvn("global", 8, mean, deviation)(features, lengths)
    assert torch.allclose(normal[0], (features[0] - mean) / deviation, atol=1e-5)
    assert not normal[1, 25:].any()


def test_none_leaves_features_alone():
    features, lengths = batch()
    assert torch.equal(Cmvn("none", 8)(features, lengths), features)


@pytest.mark.parametrize("mode", MODES)
def test_more_padding_changes_no_frame(mode):
    features, lengths = batch()
    cmvn = Cmvn(mode, 8, torch.ones(8), 2 * torch.ones(8))
    padded = torch.cat([features, torch.zeros(3, 13, 8)], 1)
    assert torch.allclose(cmvn(features, lengths), cmvn(padded, lengths)[:, :40], atol=1e-5)


def test_a_constant_filter_bank_stays_finite():
    features = torch.full((1, 20, 8), -15.9)
    assert torch.isfinite(Cmvn("utterance", 8)(features, torch.tensor([20]))).all()


def test_unknown_modes_are_refused():
    with pytest.raises(ValueError, match="cmvn is 'corpus'"):
        Cmvn("corpus", 8)


@pytest.mark.parametrize("mode", MODES)
def test_padding_a_batch_does_not_change_the_whole_models_output(mode):
    config = Config()
    config.data.cmvn = mode
    config.model.channels, config.model.mfa_channels, config.model.bottleneck = 32, 64, 16
    torch.manual_seed(0)
    model = new_model(config, torch.full((80,), -7.0), torch.full((80,), 3.0)).eval()
    long, short = 3 * torch.randn(1, 90, 80) - 7, 3 * torch.randn(1, 31, 80) - 7
    together = torch.zeros(2, 120, 80)
    together[0, :90], together[1, :31] = long[0], short[0]
    with torch.no_grad():
        both = model(together, torch.tensor([90, 31]))
        for row, (alone, length) in enumerate(((long, 90), (short, 31))):
            one = model(alone, torch.tensor([length]))
            for name in ("esc_logits", "eis", "gender_logits"):
                assert torch.allclose(getattr(both, name)[row], getattr(one, name)[0], atol=1e-4)
            assert torch.allclose(both.phoneme_logits[row, :length], one.phoneme_logits[0], atol=1e-4)
