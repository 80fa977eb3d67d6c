"""A bidirectional GRU that trains faster on a CPU than torch's, with the same result.

With autograd, torch's GRU records a dozen small operations per frame and direction, and sums the gradients of the
weights frame by frame; at SpeechEQ's widths that was up to two thirds of a training step. Here both directions step
together, and a custom backward pass takes four operations per frame; everything that does not depend on the frame
before is computed for BLOCK frames at once. On one CPU thread, 32 x 3 s, forward and backward took 23 ms instead of 57
(C = 64) and 133 instead of 213 (C = 256), input projections included (torch 1.13).
"""

import torch
from torch import Tensor

BLOCK = 16  # frames that stay in the processor's cache


class BidirectionalGru(torch.autograd.Function):
    """Input projections (2, T, N, 3H) of two GRUs -> hidden states (2, T, N, H), starting at zero.

    ``recurrent`` (2, H, 3H) is the transposed weight_hh_l0 of nn.GRU for each direction. Of its bias_hh_l0 the part of
    the new gate is ``bias_new`` (2, 1, H), as r multiplies it; the rest is in the projections. The gates are nn.GRU's,
    in its order: reset r, update z, new n. With h the state before: n = tanh(input_n + r hidden_n), and the state is
    n + z (h - n).
    """

    @staticmethod
    def forward(ctx, projected: Tensor, recurrent: Tensor, bias_new: Tensor) -> Tensor:
        _, steps, batch, width = projected.shape
        size = width // 3
        states = projected.new_zeros(2, steps + 1, batch, size)
        gates = projected.new_empty(2, steps, batch, 2 * size)  # r and z
        news = projected.new_empty(2, steps, batch, size)
        hidden_news = torch.empty_like(news)
        hidden = projected.new_empty(2, batch, width)
        gate_projections, new_projections = projected[..., : 2 * size], projected[..., 2 * size :]
        by_frame = (gate_projections, new_projections, gates, news, hidden_news, states[:, :-1], states[:, 1:])
        for gate_inputs, new_inputs, gate, new, hidden_new, before, after in zip(*(x.unbind(1) for x in by_frame)):
            torch.bmm(before, recurrent, out=hidden)
            torch.add(gate_inputs, hidden[..., : 2 * size], out=gate).sigmoid_()
            torch.add(hidden[..., 2 * size :], bias_new, out=hidden_new)
            torch.addcmul(new_inputs, gate[..., :size], hidden_new, out=new).tanh_()
            torch.addcmul(new, gate[..., size:], before - new, out=after)
        ctx.save_for_backward(states, gates, news, hidden_news, recurrent)
        return states[:, 1:]

    @staticmethod
    def backward(ctx, grad):
        states, gates, news, hidden_news, recurrent = ctx.saved_tensors
        _, steps, batch, size = news.shape
        back = recurrent.transpose(1, 2).contiguous()
        grad_projected = news.new_empty(2, steps, batch, 3 * size)
        grad_recurrent = torch.zeros_like(recurrent)
        grad_bias_new = news.new_zeros(2, 1, size)
        carried = torch.zeros_like(news[:, 0])  # the gradient of a state from the frames after it
        for start in reversed(range(0, steps, BLOCK)):
            frames = slice(start, min(start + BLOCK, steps))
            before, new, hidden_new = states[:, frames], news[:, frames], hidden_news[:, frames]
            reset, update = gates[:, frames, :, :size], gates[:, frames, :, size:]
            # the derivatives of the state by the gates before their nonlinearities
            by_new = (1 - update) * (1 - new.square())
            by_update = (before - new) * update * (1 - update)
            by_reset = by_new * hidden_new * reset * (1 - reset)
            derivatives = torch.stack([by_reset, by_update, by_new * reset], dim=3)  # (2, frames, N, 3, H)
            to_hidden = torch.empty_like(derivatives)
            grad_states = torch.empty_like(by_new)
            by_frame = (grad[:, frames], grad_states, derivatives, to_hidden, update)
            for from_output, grad_state, derivative, hidden, kept in zip(*(x.unbind(1)[::-1] for x in by_frame)):
                torch.add(from_output, carried, out=grad_state)
                torch.mul(derivative, grad_state.unsqueeze(2), out=hidden)
                torch.mul(grad_state, kept, out=carried).baddbmm_(hidden.flatten(2), back)
            to_hidden = to_hidden.flatten(3)
            grad_projected[:, frames, :, : 2 * size] = to_hidden[..., : 2 * size]
            torch.mul(grad_states, by_new, out=grad_projected[:, frames, :, 2 * size :])
            to_hidden = to_hidden.flatten(1, 2)
            grad_recurrent.baddbmm_(before.flatten(1, 2).transpose(1, 2), to_hidden)
            grad_bias_new += to_hidden[..., 2 * size :].sum(1, keepdim=True)
        return grad_projected, grad_recurrent, grad_bias_new
