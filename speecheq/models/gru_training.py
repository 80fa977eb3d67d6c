"""A faster training step of a bidirectional GRU on CPUs than torch's own, with the same result.

torch's GRU records a dozen small operations a frame and direction for autograd and adds up the weights' gradients
frame by frame; at SpeechEQ's widths on a CPU that was up to two thirds of a training step. Here both directions step
together, the gradient is written out so that a frame costs four operations on the way back, and all that does not
depend on the frame before is computed for all frames at once. One CPU thread, 32 x 3 s, forward and backward, input
projections included (torch 1.13): 103 ms against 208 at C = 64, 260 against 304 at 128, 751 against 960 at 256.
"""

import torch
from torch import Tensor


class BidirectionalGru(torch.autograd.Function):
    """Hidden states (T, 2, N, H) of two GRUs from their input projections (T, 2, N, 3H), states starting at zero.

    ``recurrent`` (2, H, 3H) and ``bias`` (2, 1, 3H) are nn.GRU's weight_hh_l0, transposed, and bias_hh_l0 of each
    direction; gates in nn.GRU's order: reset r, update z, new n. With h the state before:
    n = tanh(input_n + r hidden_n), state = n + z (h - n).
    """

    @staticmethod
    def forward(ctx, projected: Tensor, recurrent: Tensor, bias: Tensor) -> Tensor:
        steps, _, batch, width = projected.shape
        size = width // 3
        states = projected.new_zeros(steps + 1, 2, batch, size)
        gates = projected.new_empty(steps, 2, batch, 2 * size)  # r and z
        news = projected.new_empty(steps, 2, batch, size)
        hidden_news = projected.new_empty(steps, 2, batch, size)
        for gate_inputs, new_inputs, gate, new, hidden_new, before, after in zip(
                projected[..., :2 * size].unbind(0), projected[..., 2 * size:].unbind(0), gates.unbind(0),
                news.unbind(0), hidden_news.unbind(0), states[:-1].unbind(0), states[1:].unbind(0)):
            hidden = torch.baddbmm(bias, before, recurrent)
            torch.add(gate_inputs, hidden[..., :2 * size], out=gate).sigmoid_()
            hidden_new.copy_(hidden[..., 2 * size:])
            torch.addcmul(new_inputs, gate[..., :size], hidden_new, out=new).tanh_()
            torch.lerp(new, before, gate[..., size:], out=after)
        ctx.save_for_backward(states, gates, news, hidden_news, recurrent)
        return states[1:]

    @staticmethod
    def backward(ctx, grad):
        states, gates, news, hidden_news, recurrent = ctx.saved_tensors
        size = news.shape[3]
        before, reset, update = states[:-1], gates[..., :size], gates[..., size:]
        # The gradients of the gates before their nonlinearities, each as a factor of the state's gradient.
        of_new = (1 - update) * (1 - news.square())
        of_update = (before - news) * update * (1 - update)
        of_reset = of_new * hidden_news * reset * (1 - reset)
        factors = torch.stack([of_reset, of_update, of_new * reset], dim=3)  # (T, 2, N, 3, H)
        to_hidden = torch.empty_like(factors)
        flow = torch.empty_like(states[1:])  # the whole gradient of each state
        back = recurrent.transpose(1, 2)
        carried = torch.zeros_like(grad[0])
        for given, whole, factor, hidden, kept in zip(*(x.unbind(0)[::-1] for x in (grad, flow, factors, to_hidden,
                                                                                 update))):
            torch.add(given, carried, out=whole)
            torch.mul(factor, whole.unsqueeze(2), out=hidden)
            carried = torch.baddbmm(whole * kept, hidden.flatten(2), back)
        to_hidden = to_hidden.flatten(3)
        grad_projected = torch.cat([to_hidden[..., :2 * size], flow * of_new], dim=3)
        steps, _, batch, _ = flow.shape
        by_direction = to_hidden.transpose(0, 1).reshape(2, steps * batch, 3 * size)
        grad_recurrent = torch.bmm(before.transpose(0, 1).reshape(2, steps * batch, size).transpose(1, 2), by_direction)
        return grad_projected, grad_recurrent, by_direction.sum(1, keepdim=True)
