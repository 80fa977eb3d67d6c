"""A bidirectional GRU that is faster on a CPU than torch's, with the same result.

torch's GRU runs one direction after the other in a dozen small operations a frame, and with autograd records them all.
Here both directions step together, in six operations a frame, and a custom backward pass takes three; everything
that does not depend on the frame before is computed for BLOCK frames at once (benchmarks/README.md has figures).
"""

import torch
from torch import Tensor

BLOCK = 16  # frames that stay in the processor's cache
CLOSED = 100.0  # the sigmoid of which is 1


class BidirectionalGru(torch.autograd.Function):
    """Input projections (N, T, 6H) of two GRUs -> hidden states (N, T, 2H), starting at zero.

    The first half of the channels is that of the GRU from the first frame to the last, the second half that of the GRU
    from the last to the first. ``recurrent`` (2, H, 3H) is the transposed weight_hh_l0 of nn.GRU for each direction. Of
    its bias_hh_l0 the part of the new gate is ``bias_new`` (2, 1, H), as r multiplies it; the rest is in the
    projections. ``mask`` (N, T, 1) is 0 on padding at the end of an utterance, None without any.

    The gates are nn.GRU's, in its order: reset r, update z, new n. With h the state before:
    n = tanh(input_n + r hidden_n), and the state is n + z (h - n). In padding z is 1, so that the state of the second
    GRU is zero up to the utterance's last frame.
    """

    @staticmethod
    def forward(ctx, projected: Tensor, recurrent: Tensor, bias_new: Tensor, mask: Tensor | None) -> Tensor:
        gates = _in_steps(projected)  # the inputs of r, z, n, which become r, z, hidden_n
        steps, _, batch, width = gates.shape
        size = width // 3
        news = gates[..., 2 * size :].clone()
        gates[..., 2 * size :] = bias_new
        if mask is not None:
            gates[:, 1, :, size : 2 * size].masked_fill_(mask.transpose(0, 1).flip(0) == 0, CLOSED)
        states = projected.new_zeros(steps + 1, 2, batch, size)
        by_step = (gates, gates[..., : 2 * size], *gates.split(size, dim=3), news, states[:-1], states[1:])
        for gate, r_and_z, r, z, hidden_new, new, before, after in zip(*(x.unbind() for x in by_step)):
            gate.baddbmm_(before, recurrent)
            r_and_z.sigmoid_()
            new.addcmul_(r, hidden_new).tanh_()
            torch.addcmul(new, z, before - new, out=after)
        ctx.save_for_backward(states, gates, news, recurrent)
        return _in_frames(states[1:])

    @staticmethod
    def backward(ctx, grad):
        states, gates, news, recurrent = ctx.saved_tensors
        steps, _, batch, size = news.shape
        back = recurrent.transpose(1, 2).contiguous()
        grad_states = torch.cat([news.new_zeros(1, 2, batch, size), _in_steps(grad)])  # as in ``states``
        grad_projected = torch.empty_like(gates)
        grad_recurrent = torch.zeros_like(recurrent)
        grad_bias_new = news.new_zeros(2, 1, size)
        for start in reversed(range(0, steps, BLOCK)):
            block = slice(start, start + BLOCK)
            before, new, after = states[:-1][block], news[block], grad_states[1:][block]
            reset, update, hidden_new = gates[block].split(size, dim=3)
            # the derivatives of the state by the gates before their nonlinearities
            by_new = (1 - update) * (1 - new.square())
            by_update = (before - new) * update * (1 - update)
            by_reset = by_new * hidden_new * reset * (1 - reset)
            derivatives = torch.stack([by_reset, by_update, by_new * reset], dim=3)  # (steps, 2, N, 3, H)
            to_hidden = torch.empty_like(derivatives)
            rows_of_gates = (after.unsqueeze(3), derivatives, to_hidden, to_hidden.flatten(3))
            by_step = (after, *rows_of_gates, update, grad_states[:-1][block])
            for grad_after, rows, derivative, products, hidden, z, grad_before in zip(
                *(x.unbind()[::-1] for x in by_step)
            ):
                torch.mul(derivative, rows, out=products)
                grad_before.addcmul_(grad_after, z).baddbmm_(hidden, back)
            to_hidden = to_hidden.flatten(3)
            grad_projected[block, ..., : 2 * size] = to_hidden[..., : 2 * size]
            torch.mul(after, by_new, out=grad_projected[block, ..., 2 * size :])
            to_hidden = to_hidden.transpose(0, 1).flatten(1, 2)  # (2, steps N, 3H)
            grad_recurrent.baddbmm_(before.permute(1, 3, 0, 2).flatten(2), to_hidden)
            grad_bias_new += to_hidden[..., 2 * size :].sum(1, keepdim=True)
        return _in_frames(grad_projected), grad_recurrent, grad_bias_new, None


def run_without_gradient(projected: Tensor, recurrent: Tensor, bias_new: Tensor, mask: Tensor | None) -> Tensor:
    """What BidirectionalGru returns, without what a gradient needs: the gates of a step lie where the last ones lay."""
    inputs = _in_steps(projected)
    steps, _, batch, width = inputs.shape
    size = width // 3
    if mask is not None:
        inputs[:, 1, :, size : 2 * size].masked_fill_(mask.transpose(0, 1).flip(0) == 0, CLOSED)
    news = inputs[..., 2 * size :].clone()
    inputs[..., 2 * size :] = bias_new
    gate, change, states = torch.empty_like(inputs[0]), torch.empty_like(news[0]), torch.empty_like(news)
    (r, z, hidden_new), r_and_z = gate.split(size, dim=2), gate[..., : 2 * size]
    before = projected.new_zeros(2, batch, size)
    for given, new, state in zip(inputs.unbind(), news.unbind(), states.unbind()):
        torch.baddbmm(given, before, recurrent, out=gate)
        r_and_z.sigmoid_()
        new.addcmul_(r, hidden_new).tanh_()
        torch.sub(before, new, out=change)
        torch.addcmul(new, z, change, out=state)
        before = state
    return _in_frames(states)


def _in_steps(x: Tensor) -> Tensor:
    """(N, T, 2C) -> (T, 2, N, C): the channels of each direction, in the order of its steps."""
    there, back = x.transpose(0, 1).chunk(2, dim=2)
    return torch.stack([there, back.flip(0)], dim=1)


def _in_frames(steps: Tensor) -> Tensor:
    """The inverse of ``_in_steps``."""
    there, back = steps.permute(1, 2, 0, 3)
    return torch.cat([there, back.flip(1)], dim=2)
