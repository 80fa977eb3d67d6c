"""The CTC loss of label sequences on a CPU: torch's, faster.

Forward and backward variables of all utterances (Graves et al., 2006, section 4.1) take each step together, in a dozen
operations on the whole mini-batch. torch's loops over utterances, states and, in its gradient, classes take most of the
time of a training step (benchmarks/README.md).
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

NEVER = -1e30  # in place of the logarithm of 0, as sums of it stay finite
LOWEST = -80.0  # exp of less takes 20 times as long, and changes no sum in float32


class CtcLoss(torch.autograd.Function):
    """Log probabilities (N, T, C) -> negative log-likelihoods (N,) of each utterance's labels; class 0 is the blank.

    ``lengths`` (N,) are the frames, ``labels`` (N, L) the targets, padded by 0, and ``label_lengths`` (N,) their
    lengths, all on the CPU. Each utterance must have a path. Frames of padding get a gradient of 0.

    The states of an utterance are blank, first label, blank, second label, ..., blank. The forward variable of a state
    at a frame is the log of the sum over all beginnings of paths that are in it then, the frame's own output included;
    the backward variable is that of all ends. In reverse, by frames and states, backward variables step as forward ones
    do, as further rows of the same mini-batch.
    """

    @staticmethod
    def forward(ctx, log_probs, lengths, labels, label_lengths):
        labels = labels if labels.shape[1] else pad(labels, (0, 1))
        frames, (batch, most) = log_probs.shape[1], labels.shape
        states = labels.new_zeros(batch, 2 * most + 1)
        states[:, 1::2] = labels
        outputs = log_probs.detach().transpose(0, 1).gather(2, states.expand(frames, *states.shape))  # (T, N, S)
        variables = _forward_and_backward(outputs, lengths, states, label_lengths)
        backward = variables[:, batch:].flip(0, 2)
        total = backward[0, :, :2].logsumexp(1)
        # the probability of being in a state at a frame, given the labels
        occupied = backward.add_(variables[:, :batch]).sub_(outputs).sub_(total[:, None]).clamp_(min=LOWEST).exp_()
        occupied.masked_fill_((torch.arange(frames)[:, None] >= lengths).unsqueeze(2), 0.0)
        occupied = occupied.transpose(0, 1)
        classes = outputs.new_zeros(batch, most, log_probs.shape[2]).scatter_(2, labels.unsqueeze(2), 1.0)
        of_class = torch.bmm(occupied[:, :, 1::2], classes)
        of_class[:, :, 0] = occupied[:, :, ::2].sum(2)
        ctx.save_for_backward(of_class)
        return -total

    @staticmethod
    def backward(ctx, grad):
        (occupied,) = ctx.saved_tensors  # (N, T, C)
        return occupied * -grad[:, None, None], None, None, None


def _forward_and_backward(outputs: Tensor, lengths: Tensor, states: Tensor, label_lengths: Tensor) -> Tensor:
    """(T, 2N, S): the forward variables; then the backward ones, with frames and states in reverse.

    A path begins in an entry before the first state of its direction, and leaves it with the first frame that is not
    padding. The columns of the table are two that are always NEVER, the entry of forward variables, and the states; the
    entry of backward ones stands where the padding of the states ends.
    """
    frames, batch, size = outputs.shape
    places, ends = torch.arange(size), 2 * label_lengths[:, None]
    table = outputs.new_full((frames + 1, 2 * batch, size + 3), NEVER)
    given = table[1:, :, 3:]
    no_output = (torch.arange(frames)[:, None] >= lengths).unsqueeze(2) | (places > ends)
    given[:, :batch] = outputs.masked_fill(no_output, NEVER)
    given[:, batch:] = given[:, :batch].flip(0, 2)
    entries = torch.cat([torch.full_like(ends, 2), size + 1 - ends])
    table[0].scatter_(1, entries, 0.0)
    waits = (torch.arange(frames)[:, None] < frames - lengths).unsqueeze(2)
    table[1:, batch:].scatter_(2, entries[batch:].expand(frames, batch, 1), _log(waits).to(table.dtype))
    _run(table, _log(_skips(states, places, ends)).to(table.dtype))
    return given


def _skips(states: Tensor, places: Tensor, ends: Tensor) -> Tensor:
    """(2N, S + 1), bool: where a path may come from two columns before.

    These are labels after another label, and the first label of each direction after the entry.
    """
    differs = torch.zeros(states.shape, dtype=torch.bool)
    differs[:, 3::2] = states[:, 3::2] != states[:, 1:-2:2]
    forward = differs | (places == 1)
    backward = pad(differs[:, 2:], (0, 2)) & (places < ends - 1) | (places == ends - 1)
    return pad(torch.cat([forward, backward.flip(1)]), (1, 0))


def _log(allowed: Tensor) -> Tensor:
    """0 where a transition is allowed, NEVER elsewhere."""
    return torch.where(allowed, 0.0, NEVER)


def _run(table: Tensor, skips: Tensor) -> None:
    """Add to each row of ``table`` from the second on, which holds the outputs, the sum over the row before."""
    terms = skips.new_empty(3, *skips.shape)
    stay, step, skip = terms.unbind()
    highest, total = torch.empty_like(skips), torch.empty_like(skips)
    steps = (table[:-1, :, 2:], table[:-1, :, 1:-1], table[:-1, :, :-2], table[1:, :, 2:])
    for same, last, last_but_one, row in zip(*(x.unbind() for x in steps)):
        torch.add(last_but_one, skips, out=skip)
        torch.maximum(same, last, out=highest)
        torch.maximum(highest, skip, out=highest)
        torch.sub(same, highest, out=stay)
        torch.sub(last, highest, out=step)
        skip.sub_(highest)
        terms.clamp_(min=LOWEST).exp_()
        torch.sum(terms, 0, out=total)
        row.add_(total.log_()).add_(highest)
