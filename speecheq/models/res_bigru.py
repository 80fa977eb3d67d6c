"""Res-BiGRU (section 2.3, Figure 2): the residual bidirectional GRU that widens ECAPA's receptive field."""

import torch
from torch import Tensor, nn

from speecheq.models.convolution import convolve
from speecheq.models.fast_gru import BidirectionalGru
from speecheq.models.padding_mask import Frames


class ResBiGRU(nn.Module):
    """y <- y + BiGRU(y), hidden size C/2 a direction; (N, T, C) -> (N, T, C).

    The backward direction starts at each utterance's own last frame. It is a second GRU over the utterance
    reversed within its length, not pack_padded_sequence: on one CPU thread, 32 x 3 s, forward and backward took
    163 ms against 388 (C = 64) and 350 against 2,575 (C = 128), as much as an unmasked GRU; and a gather and two
    GRUs are operations that ONNX has, packing is not.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.forward_gru = nn.GRU(channels, channels // 2)
        self.backward_gru = nn.GRU(channels, channels // 2)

    def forward(self, y: Tensor, frames: Frames) -> Tensor:
        training_on_cpu = y.device.type == "cpu" and torch.is_grad_enabled() and y.dtype == torch.float32
        return y + (self._states_on_cpu if training_on_cpu else self._states)(y, frames)

    def _states(self, y: Tensor, frames: Frames) -> Tensor:
        """Both directions' states (N, T, C)."""
        steps = y.transpose(0, 1).contiguous()  # (T, N, C), as the GRU wants it
        there, back = self.forward_gru(steps)[0], self.backward_gru(reversed_speech(steps, frames))[0]
        return torch.cat([there, reversed_speech(back, frames)], dim=2).transpose(0, 1)

    def _states_on_cpu(self, y: Tensor, frames: Frames) -> Tensor:
        """The same through BidirectionalGru, the faster way to train on a CPU."""
        there, back = self.forward_gru, self.backward_gru
        batch, num_frames, width = y.shape
        size = width // 2
        with torch.autocast("cpu", enabled=False):
            bias = torch.stack([there.bias_ih_l0, back.bias_ih_l0])
            hidden_bias = torch.stack([there.bias_hh_l0, back.bias_hh_l0])
            bias = torch.cat([bias[:, : 2 * size] + hidden_bias[:, : 2 * size], bias[:, 2 * size :]], dim=1)
            weight = torch.cat([there.weight_ih_l0, back.weight_ih_l0]).unsqueeze(2)
            projected = convolve(y, weight, bias.flatten())  # (N, T, 6H)
            # A row is a direction of a frame; steps want direction, step, utterance where the batch has utterance,
            # frame, direction.
            place, direction = _place_in_reverse(num_frames, frames), torch.arange(2)
            place = torch.stack([torch.arange(num_frames)[:, None].expand_as(place), place])  # (2, T, N): the frame
            rows = (torch.arange(batch) * num_frames + place) * 2 + direction[:, None, None]
            order = rows.flatten()
            inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
            steps = _Reordered.apply(projected.reshape(-1, 3 * size), order, inverse)
            recurrent = torch.stack([there.weight_hh_l0.t(), back.weight_hh_l0.t()])
            states = BidirectionalGru.apply(
                steps.view(2, num_frames, batch, 3 * size), recurrent, hidden_bias[:, None, 2 * size :]
            )
            return _Reordered.apply(states.reshape(-1, size), inverse, order).view(batch, num_frames, width)


def _place_in_reverse(num_frames: int, frames: Frames) -> Tensor:
    """(T, N): which frame comes at each step when every utterance is reversed; padding stays at the end."""
    frame = torch.arange(num_frames, device=frames.lengths.device)[:, None]
    return torch.where(frame < frames.lengths, frames.lengths - 1 - frame, frame)


def reversed_speech(steps: Tensor, frames: Frames) -> Tensor:
    """(T, N, C) with each utterance's frames in reverse order; padding stays at the end."""
    if frames.mask is None:
        return steps.flip(0)
    num_frames, batch, width = steps.shape
    rows = _place_in_reverse(num_frames, frames) * batch + torch.arange(batch, device=steps.device)
    return steps.reshape(num_frames * batch, width).index_select(0, rows.flatten()).view(num_frames, batch, width)


class _Reordered(torch.autograd.Function):
    """Rows (M, C) in another order, a permutation given with its inverse: its gradient needs no sums."""

    @staticmethod
    def forward(ctx, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx, grad):
        return grad.index_select(0, ctx.saved_tensors[0]), None, None
