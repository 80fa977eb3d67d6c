"""Convolution over (N, T, C) against nn.Conv1d over (N, C, T)."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from speecheq.models.convolution import Convolution

SIZE = st.integers(1, 9)


@settings(max_examples=60)
@given(
    batch=SIZE,
    frames=SIZE,
    into=SIZE,
    out=SIZE,
    kernel=st.sampled_from([1, 3, 5]),
    dilation=st.integers(1, 4),
    relu=st.booleans(),
)
def test_it_is_conv1d(batch, frames, into, out, kernel, dilation, relu):
    torch.manual_seed(0)
    ours = Convolution(into, out, kernel, dilation, relu)
    torch.manual_seed(0)
    theirs = nn.Conv1d(into, out, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)
    x, grad = torch.randn(batch, frames, into, requires_grad=True), torch.randn(batch, frames, out)
    again = x.detach().clone().requires_grad_()
    y, expected = ours(x), theirs(again.transpose(1, 2)).transpose(1, 2)
    if relu:  # where it is 0 but for rounding, chance decides whether the gradient passes
        grad = grad * (expected.detach().abs() > 1e-5)
    expected = expected.relu() if relu else expected
    y.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(x.grad, again.grad, atol=1e-5, rtol=1e-5)
    for one, other in zip(ours.parameters(), theirs.parameters()):
        assert torch.equal(one, other)  # the same start from the same seed
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-5)
