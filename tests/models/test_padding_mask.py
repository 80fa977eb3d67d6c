"""Batch norm over valid frames against nn.BatchNorm1d; the mask itself."""

import pytest
import torch
from torch import nn

from speecheq.models.padding_mask import Frames, MaskedBatchNorm1d

CPU = torch.device("cpu")


def _pair(channels):
    ours, theirs = MaskedBatchNorm1d(channels), nn.BatchNorm1d(channels)
    nn.init.uniform_(theirs.weight, 0.5, 2)
    nn.init.uniform_(theirs.bias, -1, 1)
    ours.load_state_dict(theirs.state_dict())  # same parameters and buffers
    return ours, theirs


def _assert_same_buffers(ours, theirs):
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(getattr(ours, name), buffer, msg=name)


def test_without_padding_it_is_batch_norm():
    torch.manual_seed(0)
    ours, theirs = _pair(6)
    frames = Frames.from_lengths(torch.tensor([9, 9, 9]), 9, CPU)
    assert frames.mask is None
    for _ in range(3):
        x = torch.randn(3, 9, 6) * 3 + 5
        torch.testing.assert_close(ours(x, frames), theirs(x.transpose(1, 2)).transpose(1, 2))
    _assert_same_buffers(ours, theirs)
    torch.testing.assert_close(ours.eval()(x, frames), theirs.eval()(x.transpose(1, 2)).transpose(1, 2))


def test_with_padding_it_is_batch_norm_of_the_packed_frames():
    torch.manual_seed(0)
    ours, theirs = _pair(6)
    lengths = torch.tensor([9, 1, 5])
    frames = Frames.from_lengths(lengths, 11, CPU)
    valid = frames.mask.bool().squeeze(2)
    for _ in range(3):
        x = torch.randn(3, 11, 6) * 3 + 50  # an offset that would drown the variance of E[x^2] - E[x]^2
        grad = torch.randn(3, 11, 6)
        padded, packed = x.clone().requires_grad_(), x[valid].requires_grad_()
        y, expected = ours(padded, frames), theirs(packed)
        torch.testing.assert_close(y[valid], expected, atol=1e-4, rtol=1e-4)
        for norm in (ours, theirs):
            norm.zero_grad()
        y.backward(grad)
        expected.backward(grad[valid])
        assert torch.isfinite(y).all()
        torch.testing.assert_close(padded.grad[valid], packed.grad, atol=1e-4, rtol=1e-4)
        assert (padded.grad[~valid] == 0).all()
        torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(ours.bias.grad, theirs.bias.grad, atol=1e-4, rtol=1e-4)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), atol=1e-4, rtol=1e-4)


def test_gradient_of_masked_batch_norm_by_differences():
    torch.manual_seed(0)
    norm = MaskedBatchNorm1d(2)
    nn.init.uniform_(norm.weight, 0.5, 2)
    frames = Frames.from_lengths(torch.tensor([4, 2]), 4, CPU)
    x, direction, weights = torch.randn(2, 4, 2), torch.randn(2, 4, 2), torch.randn(2, 4, 2)

    def value(shift):
        return (frames.zeroed(norm(x + shift * direction, frames)) * weights).sum()

    start = x.clone().requires_grad_()
    (frames.zeroed(norm(start, frames)) * weights).sum().backward()
    slope = (value(1e-2) - value(-1e-2)) / 2e-2
    assert float(slope.detach()) == pytest.approx(float((start.grad * direction).sum()), rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_are_float32_for_half_inputs(dtype):
    norm = MaskedBatchNorm1d(1)
    x = torch.full((2, 3000, 1), 60000.0 if dtype == torch.float16 else 300.0, dtype=dtype)  # sums overflow float16
    y = norm(x, Frames.from_lengths(torch.tensor([3000, 2999]), 3000, CPU))
    assert y.dtype == torch.float32 and torch.isfinite(y).all()
    torch.testing.assert_close(norm.running_mean, 0.1 * x[0, 0].float())


@pytest.mark.parametrize("lengths", [[3, 0], [3, 6]])
def test_lengths_out_of_range(lengths):
    with pytest.raises(ValueError, match=r"must be in 1\.\.5"):
        Frames.from_lengths(torch.tensor(lengths), 5, CPU)


def test_mean_is_of_own_frames():
    x = torch.arange(8.0).view(2, 4, 1)
    torch.testing.assert_close(Frames.from_lengths(torch.tensor([4, 2]), 4, CPU).mean(x), torch.tensor([[1.5], [4.5]]))


@pytest.mark.parametrize("padded", [False, True])
def test_per_stream_statistics_keep_the_phoneme_stream_apart(padded):
    torch.manual_seed(0)
    lengths = torch.tensor([30, 20 if padded else 30])
    emotion, phoneme = torch.randn(2, 30, 6), 5 + 3 * torch.randn(2, 30, 6)
    apart, emotion_only, phoneme_only = MaskedBatchNorm1d(6, True), MaskedBatchNorm1d(6), MaskedBatchNorm1d(6)
    for _ in range(3):
        for norm, batch, phoneme_stream in (
            (apart, emotion, False),
            (apart, phoneme, True),
            (emotion_only, emotion, False),
            (phoneme_only, phoneme, False),
        ):
            norm(batch, Frames.from_lengths(lengths, 30, batch.device, phoneme_stream))
    assert torch.allclose(apart.running_mean, emotion_only.running_mean)
    assert torch.allclose(apart.running_var, emotion_only.running_var)
    assert torch.allclose(apart.phoneme_mean, phoneme_only.running_mean)
    assert torch.allclose(apart.phoneme_var, phoneme_only.running_var)
    apart.eval(), phoneme_only.eval()
    frames = Frames.from_lengths(lengths, 30, phoneme.device, phoneme_stream=True)
    assert torch.allclose(apart(phoneme, frames), phoneme_only(phoneme, frames), atol=1e-6)
    assert not torch.allclose(
        apart(phoneme, Frames.from_lengths(lengths, 30, phoneme.device)), apart(phoneme, frames), atol=0.1
    )
