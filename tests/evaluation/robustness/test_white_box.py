"""What an attacker may change and what gradient it sees: through the filter banks, for every kind of model."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from speecheq.common.errors import InputError
from speecheq.config.schema import ModelConfig
from speecheq.evaluation.robustness.attacks import loss_gradient
from speecheq.evaluation.robustness.white_box import DECIBEL, WhiteBox, fbank_ball, root_mean_square, waveform_ball
from speecheq.features.fbank import BatchedFbank
from speecheq.models import build_model
from speecheq.models.heads import Predictions
from speecheq.models.normalisation import Cmvn, Normalised

CPU = torch.device("cpu")
LENGTHS = torch.tensor([6400, 4810, 3200])
SMALL = dict(channels=16, mfa_channels=32, scale=4, bottleneck=16, embedding_dim=16)


def model_of(kind="speecheq", cmvn="utterance"):
    torch.manual_seed(0)
    return Normalised(Cmvn(cmvn, 80), build_model(ModelConfig(kind=kind, **SMALL))).eval()


@pytest.fixture(scope="module")
def waveforms():
    made = 0.1 * torch.randn(3, 6400, generator=torch.Generator().manual_seed(0))
    return made * (torch.arange(6400) < LENGTHS[:, None])


def box_of(model):
    return WhiteBox(model, BatchedFbank(), CPU, "a model")


GOLD = torch.tensor([0, 3, 5])


@pytest.mark.parametrize("kind", ["speecheq", "baseline", "cnn_blstm"])
def test_every_kind_of_model_has_a_gradient_in_eval_mode_and_stays_as_it_is(kind, waveforms):
    model = model_of(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = loss_gradient(box_of(model).waveform_logits(LENGTHS), waveforms, GOLD)
    assert found.gradient.flatten(1).any(1).all() and found.gradient.isfinite().all()
    assert not model.training and all(parameter.grad is None for parameter in model.parameters())
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", ["speecheq", "baseline", "cnn_blstm"])
def test_padding_has_no_gradient_and_changes_none(kind, waveforms):
    box = box_of(model_of(kind))
    found = loss_gradient(box.waveform_logits(LENGTHS), waveforms, GOLD)
    for row, length in enumerate(LENGTHS.tolist()):
        assert not found.gradient[row, length:].any()
        alone = loss_gradient(
            box.waveform_logits(LENGTHS[row : row + 1]), waveforms[row : row + 1, :length], GOLD[row : row + 1]
        )
        scale = alone.gradient.abs().max()
        torch.testing.assert_close(found.gradient[row, :length] / scale, alone.gradient[0] / scale, rtol=0, atol=1e-3)
        torch.testing.assert_close(found.loss[row], alone.loss[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cmvn", ["utterance", "global", "none"])
def test_the_gradient_is_that_of_finite_differences(cmvn, waveforms):
    box, x = box_of(model_of(cmvn=cmvn)), waveforms[:1]
    logits = box.waveform_logits(LENGTHS[:1])
    gradient = loss_gradient(logits, x, GOLD[:1]).gradient
    random = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).abs()
    for direction in (gradient, gradient.sign(), gradient.sign() * random):  # along it the loss changes most
        expected = (gradient * direction).sum().item()
        step = 5e-4 / expected * direction
        ends = [cross_entropy(logits(x + sign * step), GOLD[:1]).item() for sign in (1, -1)]
        assert (ends[0] - ends[1]) / 1e-3 == pytest.approx(1.0, rel=0.02)


def test_the_clean_logits_are_those_of_scoring(waveforms):
    model = model_of()
    box, (features, frames) = box_of(model), BatchedFbank()(waveforms, LENGTHS)
    with torch.no_grad():
        expected = model(features, frames, tasks=("esc", "eis", "gender")).esc_logits
        torch.testing.assert_close(box.waveform_logits(LENGTHS)(waveforms), expected)
        torch.testing.assert_close(box.fbank_logits(frames)(features), expected)
    with_gradient = box.fbank_logits(frames)(features.requires_grad_())
    torch.testing.assert_close(with_gradient.detach(), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=50)
@given(level=st.floats(-90, 0), gain=st.floats(0.01, 3), length=st.integers(10, 400), seed=st.integers(0, 99))
def test_the_change_of_a_waveform_is_as_far_below_it_as_its_level_says(level, gain, length, seed):
    random = torch.Generator().manual_seed(seed)
    clip = (gain * 0.5 * torch.randn(1, 400, generator=random)) * (torch.arange(400) < length)
    ball = waveform_ball(clip, torch.tensor([length]), level)
    made = ball.point(torch.randn(1, 400, generator=random).sign())
    change = (made - clip).double()
    assert not change[:, length:].any()
    assert made.abs().max() <= max(1.0, clip.abs().max().item())
    rms = np.sqrt(np.square(clip[0, :length].double().numpy()).mean())
    assert root_mean_square(clip, torch.tensor([length])).item() == pytest.approx(rms, rel=1e-5)
    changed_by = math.sqrt(change.square().sum() / length)
    assert changed_by <= rms * 10 ** (level / 20) * (1 + 1e-4) + 1e-6


def test_the_change_of_filter_banks_is_in_decibels():
    features = torch.zeros(2, 5, 80)
    made = fbank_ball(features, torch.tensor([5, 3]), 2.0).point(torch.ones(2, 5, 80))
    energies = made.exp() / features.exp()
    assert 10 * torch.log10(energies[0]).numpy() == pytest.approx(np.full((5, 80), 2.0), abs=1e-4)
    assert not made[1, 3:].any() and pytest.approx(np.log(10**0.1)) == DECIBEL


class Says(nn.Module):
    """A model that gives what ``logits`` makes of its features."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, features, lengths, tasks):
        return Predictions(lengths, esc_logits=self.logits(features))


def rounded(features):
    """As numbers of 8 bits have it."""
    return features.detach().mean((1, 2))[:, None].round() * torch.ones(9)


@pytest.mark.parametrize(
    "model, words",
    [
        (object(), "needs the gradient, which object does not give"),
        (Says(rounded), "cannot be differentiated (the logits have no gradient)"),
        (
            Says(lambda features: features.mean((1, 2))[:, None].round() * torch.ones(9)),
            "the gradient of its logits is 0",
        ),
    ],
)
def test_what_cannot_be_differentiated_is_refused(model, words):
    with pytest.raises(InputError) as refused:
        WhiteBox(model, BatchedFbank(), CPU, "model.onnx")
    assert words in str(refused.value) and str(refused.value).startswith("model.onnx: ")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["speecheq", "baseline", "cnn_blstm"])
def test_a_gpu_gives_the_same_gradient(kind, waveforms):
    gpu, model = torch.device("cuda"), model_of(kind)
    expected = loss_gradient(box_of(model).waveform_logits(LENGTHS), waveforms, GOLD)
    box = WhiteBox(model.to(gpu), BatchedFbank().to(gpu), gpu, "a model")
    found = loss_gradient(box.waveform_logits(LENGTHS), waveforms.to(gpu), GOLD.to(gpu))
    scale = expected.gradient.abs().max()
    torch.testing.assert_close(found.gradient.cpu() / scale, expected.gradient / scale, rtol=0, atol=1e-2)
