"""Untargeted white-box attacks within an L-infinity radius: they raise the loss of the gold class.

FGSM (Goodfellow et al., 2015), BIM (Kurakin et al., 2017), PGD (Madry et al., 2018), APGD-CE and APGD-DLR (Croce and
Hein, 2020). ``logits`` maps inputs (N, ...) to (N, K), each clip of the mini-batch by itself; ``gold`` (N,) are class
numbers; ``offset`` (N, ...) is the start of the attack, in radii from the clip, from -1 to 1. The default loss is the
cross-entropy. All attacks return changed inputs of the shape of the ball's centre.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

Logits = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]  # logits (N, K) and gold (N,) -> (N,)
# The constants of APGD (Croce and Hein, section 3.1). The step size is checked after FIRST_CHECK of all steps, then
# after intervals that get shorter by INTERVAL_DECREASE down to MIN_INTERVAL, all as shares of the number of steps; it
# is halved unless the loss rises in MIN_RISING of the steps in between. MOMENTUM is the new step's share of a move.
MOMENTUM, FIRST_CHECK, INTERVAL_DECREASE, MIN_INTERVAL, MIN_RISING = 0.75, 0.22, 0.03, 0.06, 0.75


@dataclass(frozen=True)
class Ball:
    """The inputs that an attacker may use instead of ``centre`` (N, ...): values differ by at most ``radius``.

    ``radius`` has as many dimensions as ``centre`` and may be one value per clip; it is 0 where nothing may change, as
    in padding. Values stay between ``low`` and ``high``; a value outside may only move towards them.
    """

    centre: Tensor
    radius: Tensor
    low: float = -inf
    high: float = inf

    def project(self, x: Tensor) -> Tensor:
        """``x`` with every value moved to the nearest that is allowed."""
        lowest = torch.maximum(self.centre - self.radius, self.centre.clamp(max=self.low))
        highest = torch.minimum(self.centre + self.radius, self.centre.clamp(min=self.high))
        return torch.minimum(torch.maximum(x, lowest), highest)

    def point(self, offset: Tensor) -> Tensor:
        """The point ``offset`` (N, ...) radii from the centre."""
        return self.project(self.centre + self.radius * offset)


def cross_entropies(logits: Tensor, gold: Tensor) -> Tensor:
    """The loss (N,) of each clip. Its gradient is 0 where the logits differ so much that softmax rounds to 0 and 1."""
    return cross_entropy(logits, gold, reduction="none")


def difference_of_logits_ratio(logits: Tensor, gold: Tensor) -> Tensor:
    """DLR (Croce and Hein, section 4), (N,): (best other logit - gold logit) / (highest - third highest logit).

    Scaling or shifting the logits does not change it, so it has a gradient at any scale. With two classes, which have
    no third, it is the numerator alone.
    """
    own = logits.gather(1, gold[:, None])
    lead = (logits.scatter(1, gold[:, None], -inf).amax(1, keepdim=True) - own)[:, 0]
    if logits.shape[1] < 3:
        return lead
    highest = logits.topk(3).values
    return lead / (highest[:, 0] - highest[:, 2] + 1e-12)


class LossGradient(NamedTuple):
    """The loss (N,) at a point, its gradient (N, ...), and which clips are classified correctly (N,).

    ``masked`` (N,): whether the gradient is 0 everywhere, or somewhere not finite.
    """

    loss: Tensor
    gradient: Tensor
    correct: Tensor
    masked: Tensor


def loss_gradient(logits: Logits, x: Tensor, gold: Tensor, loss_function: Loss = cross_entropies) -> LossGradient:
    """The gradient of the loss at ``x``, 0 where it is not finite; raises ValueError if the logits have none."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        outputs = logits(x)
        loss = loss_function(outputs.float(), gold)
        if not loss.requires_grad:
            raise ValueError("the logits have no gradient")
        (gradient,) = torch.autograd.grad(loss.sum(), x)
    flat = gradient.flatten(1)
    masked = ~(flat.any(1) & flat.isfinite().all(1))
    correct = outputs.detach().argmax(1) == gold
    return LossGradient(loss.detach(), gradient.nan_to_num(0.0, 0.0, 0.0), correct, masked)


def ascend(logits: Logits, ball: Ball, gold: Tensor, start: Tensor, steps: int, step: float) -> Tensor:
    """``steps`` moves from ``start``, each by ``step`` radii along the sign of the gradient, always inside the ball."""
    x = start
    for _ in range(steps):
        x = ball.project(x + step * ball.radius * loss_gradient(logits, x, gold).gradient.sign())
    return x


def fgsm(logits: Logits, ball: Ball, gold: Tensor) -> Tensor:
    """One move to the edge of the ball."""
    return ascend(logits, ball, gold, ball.centre, 1, 1.0)


def bim(logits: Logits, ball: Ball, gold: Tensor, steps: int, step: float) -> Tensor:
    """Moves of ``step`` radii from the clip itself."""
    return ascend(logits, ball, gold, ball.centre, steps, step)


def pgd(logits: Logits, ball: Ball, gold: Tensor, steps: int, step: float, offset: Tensor) -> Tensor:
    """Moves of ``step`` radii from a random point."""
    return ascend(logits, ball, gold, ball.point(offset), steps, step)


def _per_clip(values: Tensor, like: Tensor) -> Tensor:
    """(N,) as (N, 1, ...) with as many dimensions as ``like``."""
    return values.view(-1, *[1] * (like.dim() - 1))


def apgd(
    logits: Logits, ball: Ball, gold: Tensor, steps: int, offset: Tensor, loss_function: Loss = cross_entropies
) -> Tensor:
    """APGD: moves with momentum; a clip's step is halved when its loss no longer rises enough.

    The first step is of two radii; the attack ends early where all clips are fooled. Returns for each clip the last
    point that fools the model, or else the point with the highest loss.
    """
    first_check, decrease, min_interval = (
        max(1, int(share * steps)) for share in (FIRST_CHECK, INTERVAL_DECREASE, MIN_INTERVAL)
    )
    x = previous = ball.point(offset)
    current = loss_gradient(logits, x, gold, loss_function)
    best, best_loss, best_gradient = x, current.loss, current.gradient
    fooling, fooled = x, ~current.correct
    step = torch.full_like(current.loss, 2.0)
    rises = torch.zeros_like(current.loss)
    loss_at_check, halved = best_loss, torch.ones_like(fooled)
    until_check = interval = first_check
    gradient, loss = current.gradient, torch.zeros_like(current.loss)
    for number in range(steps):
        if fooled.all():
            break
        moved = ball.project(x + _per_clip(step, x) * ball.radius * gradient.sign())
        if number:
            moved = ball.project(x + MOMENTUM * (moved - x) + (1 - MOMENTUM) * (x - previous))
        x, previous = moved, x
        current = loss_gradient(logits, x, gold, loss_function)
        wrong = ~current.correct
        fooling, fooled = torch.where(_per_clip(wrong, x), x, fooling), fooled | wrong
        higher = current.loss > best_loss
        best = torch.where(_per_clip(higher, x), x, best)
        best_gradient = torch.where(_per_clip(higher, x), current.gradient, best_gradient)
        best_loss = torch.where(higher, current.loss, best_loss)
        rises, loss, gradient = rises + (current.loss > loss), current.loss, current.gradient
        until_check -= 1
        if until_check:
            continue
        stalled = ~halved & (loss_at_check >= best_loss)
        halved, loss_at_check = (rises <= MIN_RISING * interval) | stalled, best_loss
        step = torch.where(halved, step / 2, step)
        x = torch.where(_per_clip(halved, x), best, x)
        gradient = torch.where(_per_clip(halved, x), best_gradient, gradient)
        rises = torch.zeros_like(rises)
        until_check = interval = max(interval - decrease, min_interval)
    return torch.where(_per_clip(fooled, x), fooling, best)


def apgd_with_dlr(logits: Logits, ball: Ball, gold: Tensor, steps: int, offset: Tensor) -> Tensor:
    """APGD by the cross-entropy, and for clips that it does not fool, APGD by DLR from the same start."""

    def correct(x: Tensor) -> Tensor:
        with torch.no_grad():
            return logits(x).argmax(1) == gold

    by_cross_entropy = apgd(logits, ball, gold, steps, offset)
    unfooled = correct(by_cross_entropy)
    if not unfooled.any():
        return by_cross_entropy
    by_dlr = apgd(logits, ball, gold, steps, offset, difference_of_logits_ratio)
    return torch.where(_per_clip(unfooled & ~correct(by_dlr), by_dlr), by_dlr, by_cross_entropy)
