"""The mask of valid frames in a padded batch, and masked means, softmax and batch norm.

Batches are (N, T, C): utterances, frames, channels. Utterance n has ``lengths[n]`` frames, the rest is padding.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from speecheq.cluster import distributed


def _is_exported() -> bool:
    """Whether the model is being exported (torch.onnx, torch.export)."""
    exporting = getattr(getattr(torch, "compiler", None), "is_exporting", None)  # torch 1.13 has neither
    return torch.jit.is_tracing() or (exporting is not None and exporting())


def is_eager_on_cpu(x: Tensor) -> bool:
    """Whether Python may look at the values of ``x`` at no cost: on a CPU, and not in an export."""
    return x.device.type == "cpu" and not _is_exported()


class Frames(NamedTuple):
    """The valid frames of a batch."""

    given_lengths: Tensor  # (N,) int, the input, preferably on the CPU
    lengths: Tensor  # (N,) int64, on the batch's device
    mask: Tensor | None  # (N, T, 1) float32, 1 on valid frames; None if no frame is padding
    counts: Tensor  # (N, 1) float32: lengths, the divisor of sums over time
    total: Tensor  # () float32: the number of valid frames
    phoneme_stream: bool = False  # whether to use the batch statistics of the phoneme stream

    @classmethod
    def from_lengths(
        cls, given_lengths: Tensor, num_frames: int, device: torch.device, phoneme_stream: bool = False
    ) -> "Frames":
        """The frames of a batch (N, ``num_frames``, C) on ``device``, with lengths (N,) int.

        Lengths on the CPU are checked, and a batch without padding gets no mask. Lengths on a GPU always get one, to
        avoid synchronisation; so does an exported model, which must handle both kinds of batches.
        Raises ValueError for a length outside 1..num_frames.
        """
        padded = True
        if is_eager_on_cpu(given_lengths):
            shortest, longest = int(given_lengths.min()), int(given_lengths.max())
            if shortest < 1 or longest > num_frames:
                raise ValueError(
                    f"lengths run from {shortest} to {longest}; with {num_frames} frames in the batch "
                    f"they must be in 1..{num_frames}"
                )
            padded = shortest < num_frames
        lengths = given_lengths.to(device=device, dtype=torch.int64, non_blocking=True)
        mask = None
        if padded:
            mask = (torch.arange(num_frames, device=device) < lengths[:, None]).unsqueeze(2).float()
        counts = lengths.float().unsqueeze(1)
        return cls(given_lengths, lengths, mask, counts, counts.sum(), phoneme_stream)

    def zeroed(self, x: Tensor) -> Tensor:
        """(N, T, C) with padding, which must be finite, set to zero."""
        return x if self.mask is None else x * self.mask.to(x.dtype)

    def zero_padding_(self, x: Tensor) -> Tensor:
        """``zeroed``, in place where that is faster: on a CPU, of a tensor without a gradient."""
        if self.mask is None or x.requires_grad or not is_eager_on_cpu(x):
            return self.zeroed(x)
        for clip, length in zip(x, self.given_lengths.tolist()):  # padding alone is written
            clip[length:] = 0
        return x

    def cleared(self, x: Tensor) -> Tensor:
        """(N, T, C) with padding, which may hold anything, also NaN, set to zero."""
        if self.mask is None:
            return x
        if is_eager_on_cpu(x):  # to look is faster than to copy, and it is zero already where it was normalised
            if not any(clip[length:].any() for clip, length in zip(x.detach(), self.given_lengths.tolist())):
                return x
        return x.masked_fill(self.mask == 0, 0.0)

    def mean(self, x: Tensor) -> Tensor:
        """(N, T, C) -> (N, C): the mean over each utterance's own frames."""
        return self.zeroed(x).sum(1) / self.counts

    def softmax(self, scores: Tensor) -> Tensor:
        """(N, T, C) -> (N, T, C): the softmax over each utterance's own frames, 0 on padding."""
        return (scores if self.mask is None else scores.masked_fill(self.mask == 0, float("-inf"))).softmax(1)


class MaskedBatchNorm1d(nn.BatchNorm1d):
    """nn.BatchNorm1d over (N, T, C), with batch statistics of valid frames only, in float32.

    Parameters, buffers and, without padding, results are nn.BatchNorm1d's. Its output on padding is finite but
    meaningless. With ``per_stream`` the phoneme stream, read speech of another corpus, has its own running statistics;
    weight and bias are shared. If a mini-batch is split over processes (cluster/distributed.py), the batch statistics
    are those of the valid frames of all of them.
    """

    running_mean: Tensor
    running_var: Tensor
    phoneme_mean: Tensor
    phoneme_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, channels: int, per_stream: bool = False):
        super().__init__(channels)
        self.per_stream = per_stream
        if per_stream:
            self.register_buffer("phoneme_mean", torch.zeros(channels))
            self.register_buffer("phoneme_var", torch.ones(channels))

    def forward(self, x: Tensor, frames: Frames | None = None) -> Tensor:
        """(N, T, C) with its frames, or (N, C) without any -> the same shape, normalised."""
        running_mean, running_var = self.running_mean, self.running_var
        if self.per_stream and frames is not None and frames.phoneme_stream:
            running_mean, running_var = self.phoneme_mean, self.phoneme_var
        mask = None if frames is None else frames.mask
        if not self.training or mask is None and not distributed.is_shared_out():
            if self.training:
                self.num_batches_tracked += 1
            # as rows (N T, C), the only fast shape for channels last
            rows, running = x.flatten(0, -2), (running_mean, running_var)
            return batch_norm(rows, *running, self.weight, self.bias, self.training, self.momentum, self.eps).view_as(x)
        if mask is not None and not distributed.is_shared_out() and is_eager_on_cpu(x):
            self.num_batches_tracked += 1
            rows, valid = x.float().flatten(0, 1), mask.flatten().nonzero().squeeze(1)
            constants = running_mean, running_var, self.momentum, self.eps
            return _ValidRowsBatchNorm.apply(rows, valid, self.weight, self.bias, constants).view_as(x)
        total = torch.tensor(float(len(x)), device=x.device) if frames is None else frames.total
        batch = x.unsqueeze(1) if frames is None else x
        mask = x.new_ones(1, 1, 1) if mask is None else mask
        y, mean, unbiased = _ValidFramesBatchNorm.apply(batch, self.weight, self.bias, mask, total, self.eps)
        with torch.no_grad():
            self.num_batches_tracked += 1
            running_mean.lerp_(mean, self.momentum)
            running_var.lerp_(unbiased, self.momentum)
        return y.view_as(x)


class _ValidRowsBatchNorm(torch.autograd.Function):
    """torch's batch norm of the valid rows (R,) of (N T, C), and its gradient; padding is zero in both. For a CPU.

    On one CPU thread, 32 x 300 x 384, a quarter of them padding, forward and backward: 8 ms; _ValidFramesBatchNorm
    13 ms; torch's of all rows 4 ms. Autograd's own gradient of index_select takes a step a row.
    """

    @staticmethod
    def forward(ctx, rows, valid, weight, bias, constants):
        own, (running_mean, running_var, momentum, eps) = rows.index_select(0, valid), constants
        y, mean, inverse_std = torch.native_batch_norm(
            own, weight, bias, running_mean, running_var, True, momentum, eps
        )
        ctx.save_for_backward(own, valid, weight, running_mean, running_var, mean, inverse_std)
        ctx.eps = eps
        return torch.zeros_like(rows).index_copy_(0, valid, y)

    @staticmethod
    def backward(ctx, grad):
        own, valid, weight, running_mean, running_var, mean, inverse_std = ctx.saved_tensors
        grad_own, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad.index_select(0, valid), own, weight, running_mean, running_var, mean, inverse_std, True, ctx.eps,
            [True, True, True],
        )  # fmt: skip
        return torch.zeros_like(grad).index_copy_(0, valid, grad_own), None, grad_weight, grad_bias, None


class _ValidFramesBatchNorm(torch.autograd.Function):
    """The same on any device, of frames (N, T, C) that may be those of several processes."""

    @staticmethod
    def forward(ctx, x, weight, bias, mask, total, eps):
        x = x.float()
        mean = (x * mask).sum((0, 1)) / total
        # centred before squaring, which is accurate for channels with a mean far from 0
        centred = (x - mean).mul_(mask)
        squares = torch.linalg.vector_norm(centred, dim=(0, 1)).square()
        ctx.shared_out = distributed.is_shared_out()
        if ctx.shared_out:
            totals, means, others = distributed.gather(torch.cat([total[None], mean, squares])).split(
                [1, len(mean), len(mean)], dim=1
            )
            total, own_mean = totals.sum(), mean
            mean = (totals * means).sum(0) / total
            squares = (others + totals * (means - mean).square()).sum(0)
            centred.add_(own_mean - mean).mul_(mask)
        variance = squares / total
        inverse_std = torch.rsqrt(variance + eps)
        unbiased = variance * (total / (total - 1).clamp(min=1))
        ctx.save_for_backward(centred, weight, inverse_std, mask, total)
        ctx.mark_non_differentiable(mean, unbiased)
        y = torch.addcmul(bias, centred, weight * inverse_std)
        return y, mean, unbiased

    @staticmethod
    def backward(ctx, grad, _mean, _unbiased):
        centred, weight, inverse_std, mask, total = ctx.saved_tensors
        grad = grad.float() * mask
        grad_bias = grad.sum((0, 1))
        grad_weight = (grad * centred).sum((0, 1)) * inverse_std
        all_bias, all_weight = grad_bias, grad_weight
        if ctx.shared_out:  # the statistics carry the gradients of all processes
            all_bias, all_weight = distributed.gather(torch.stack([grad_bias, grad_weight])).sum(0)
        scale = weight * inverse_std
        along = scale * inverse_std * all_weight / total
        grad_x = grad.mul_(scale).sub_(scale * all_bias / total)
        grad_x = grad_x.addcmul_(centred, along, value=-1).mul_(mask)
        return grad_x, grad_weight, grad_bias, None, None, None
