"""Res-BiGRU against nn.GRU: outputs and gradients, with and without padding, training and inference."""

import pytest
import torch
from torch import nn

from speecheq.models.padding_mask import Frames
from speecheq.models.res_bigru import ResBiGRU

CPU = torch.device("cpu")


def _reference(ours: ResBiGRU, channels: int) -> nn.GRU:
    theirs = nn.GRU(channels, channels // 2, bidirectional=True, batch_first=True)
    state = dict(ours.forward_gru.state_dict().items())
    state.update({name + "_reverse": value for name, value in ours.backward_gru.state_dict().items()})
    theirs.load_state_dict(state)
    return theirs


def _reference_gradient(theirs: nn.GRU, name: str) -> torch.Tensor:
    direction, parameter = name.split(".")
    return getattr(theirs, parameter + ("_reverse" if direction == "backward_gru" else "")).grad


@pytest.mark.parametrize("lengths", [[40, 40, 40], [40, 1, 17], [3, 39, 2]])
def test_each_utterance_as_if_alone(lengths):
    torch.manual_seed(0)
    channels, num_frames = 6, 40  # more frames than the backward pass takes at once
    ours = ResBiGRU(channels)
    theirs = _reference(ours, channels)
    frames = Frames.from_lengths(torch.tensor(lengths), num_frames, CPU)
    x = torch.randn(3, num_frames, channels)
    weights = frames.zeroed(torch.randn(3, num_frames, channels))
    started = x.clone().requires_grad_()
    trained = ours(started, frames)
    with torch.no_grad():
        inferred = ours(x, frames)
    (trained * weights).sum().backward()
    for n, length in enumerate(lengths):
        alone = x[n : n + 1, :length].clone().requires_grad_()
        expected = alone + theirs(alone)[0]
        (expected * weights[n : n + 1, :length]).sum().backward()
        for result in (trained, inferred):
            torch.testing.assert_close(result[n : n + 1, :length], expected, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(started.grad[n : n + 1, :length], alone.grad, atol=1e-5, rtol=1e-4)
        assert (started.grad[n, length:] == 0).all()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, _reference_gradient(theirs, name), atol=1e-4, rtol=1e-4, msg=name)


def test_other_precisions_have_the_same_states():
    torch.manual_seed(0)
    ours, x = ResBiGRU(6), torch.randn(2, 9, 6)
    frames = Frames.from_lengths(torch.tensor([9, 4]), 9, CPU)
    expected = ours(x, frames)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(
            frames.zeroed(ours(x.bfloat16(), frames).float()), frames.zeroed(expected), atol=0.02, rtol=0.02
        )
    found = ours.double()(x.double(), frames)
    torch.testing.assert_close(frames.zeroed(found).float(), frames.zeroed(expected), atol=1e-6, rtol=1e-6)
