"""CTC for emotions, as attention_ctc learns them: a clip's class, repeated, with blanks between."""

from typing import NamedTuple

import torch
from torch import Tensor

from speecheq.losses.ctc import BLANK, CtcResult, ctc_loss

# A clip that emits fewer labels than this on average says nothing but blank: the usual failure of CTC.
FEWEST_EMITTED = 0.5


class Emitted(NamedTuple):
    """What a mini-batch emits: the share of blank in the posteriors, and the labels of a clip, each a mean ()."""

    blank: Tensor
    labels: Tensor


def emotion_ctc_loss(logits: Tensor, lengths: Tensor, classes: Tensor, repeats: Tensor, backend: str) -> CtcResult:
    """The CTC loss of logits (N, T, 1 + K), whose label 0 is blank, for classes (N,) in 0..K-1, each ``repeats`` times.

    ``lengths`` (N,) are valid frames. Raises ValueError as ``ctc_loss`` does.
    """
    targets = [torch.full((count,), label + 1) for label, count in zip(classes.tolist(), repeats.tolist())]
    return ctc_loss(logits, lengths, targets, backend)


@torch.no_grad()
def emitted(logits: Tensor, lengths: Tensor) -> Emitted:
    """What logits (N, T, 1 + K) of ``lengths`` (N,) frames emit."""
    lengths = lengths.to(logits.device)
    speech = torch.arange(logits.shape[1], device=logits.device) < lengths[:, None]
    blank = (logits.float().softmax(2)[:, :, BLANK] * speech).sum(1)
    return Emitted((blank / lengths).mean(), (lengths - blank).mean())
