"""White-box attacks within a largest change of every value (L-infinity), untargeted: they raise a loss of the gold
class, the cross-entropy where no other is named.

FGSM (Goodfellow et al., 2015), BIM (Kurakin et al., 2017), PGD (Madry et al., 2018), APGD-CE and APGD-DLR (Croce and
Hein, 2020). ``logits`` maps inputs (N, ...) to (N, K) and treats every clip of a mini-batch apart; ``gold`` (N,) are
class numbers. All return inputs like those of the ball's centre.
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
# Of APGD (Croce and Hein, section 3.1): the share of the new step in a move; the steps between the first two looks at
# the step size, by how many less there are from look to look, and the fewest, as shares of all steps; the least share
# of steps that must raise the loss.
MOMENTUM, FIRST_LOOK, SOONER, SOONEST, RISING = 0.75, 0.22, 0.03, 0.06, 0.75


@dataclass(frozen=True)
class Ball:
    """What an attacker may put in place of ``centre`` (N, ...): no value further than ``radius`` from its own.

    ``radius`` has the same number of dimensions and may be one value a clip; it is 0 where nothing may change, such as
    in padding. Values stay between ``low`` and ``high``; one that lies beyond them already moves towards them only.
    """

    centre: Tensor
    radius: Tensor
    low: float = -inf
    high: float = inf

    def inside(self, x: Tensor) -> Tensor:
        """``x`` with every value moved to the nearest that is allowed."""
        lowest = torch.maximum(self.centre - self.radius, self.centre.clamp(max=self.low))
        highest = torch.minimum(self.centre + self.radius, self.centre.clamp(min=self.high))
        return torch.minimum(torch.maximum(x, lowest), highest)

    def at(self, share: Tensor) -> Tensor:
        """The point ``share`` (N, ...) of the way, from -1 to 1, to the ball's edge."""
        return self.inside(self.centre + self.radius * share)


def cross_entropies(logits: Tensor, gold: Tensor) -> Tensor:
    """Of each clip. Where the logits lie so far apart that softmax rounds to 0 and 1, its gradient is 0."""
    return cross_entropy(logits, gold, reduction="none")


def difference_of_logits_ratio(logits: Tensor, gold: Tensor) -> Tensor:
    """DLR (Croce and Hein, section 4): the lead of the best other class over gold, by that of the first over the third.

    It is the same for logits that are scaled or shifted, so that no scale hides its gradient. Of two classes, which
    have no third, it is the lead alone.
    """
    own = logits.gather(1, gold[:, None])
    lead = (logits.scatter(1, gold[:, None], -inf).amax(1, keepdim=True) - own)[:, 0]
    if logits.shape[1] < 3:
        return lead
    highest = logits.topk(3).values
    return lead / (highest[:, 0] - highest[:, 2] + 1e-12)


class Slope(NamedTuple):
    """What an attacker sees at a point: the loss (N,), its gradient (N, ...), which clips are still right (N,).

    ``blind`` (N,): which gradients are 0 everywhere, or somewhere not finite.
    """

    loss: Tensor
    gradient: Tensor
    right: Tensor
    blind: Tensor


def slope(logits: Logits, x: Tensor, gold: Tensor, loss_of: Loss = cross_entropies) -> Slope:
    """The slope at ``x``; where the gradient is not finite it is 0. ValueError where the logits have none."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        answers = logits(x)
        loss = loss_of(answers.float(), gold)
        if not loss.requires_grad:
            raise ValueError("the logits have no gradient")
        (gradient,) = torch.autograd.grad(loss.sum(), x)
    of_clips = gradient.flatten(1)
    blind = ~(of_clips.any(1) & of_clips.isfinite().all(1))
    return Slope(loss.detach(), gradient.nan_to_num(0.0, 0.0, 0.0), answers.detach().argmax(1) == gold, blind)


def ascend(logits: Logits, ball: Ball, gold: Tensor, start: Tensor, steps: int, step: float) -> Tensor:
    """``steps`` moves from ``start``, each by ``step`` radii along the sign of the gradient, always inside the ball."""
    x = start
    for _ in range(steps):
        x = ball.inside(x + step * ball.radius * slope(logits, x, gold).gradient.sign())
    return x


def fgsm(logits: Logits, ball: Ball, gold: Tensor) -> Tensor:
    """One move to the edge of the ball."""
    return ascend(logits, ball, gold, ball.centre, 1, 1.0)


def bim(logits: Logits, ball: Ball, gold: Tensor, steps: int, step: float) -> Tensor:
    """Moves of ``step`` radii from the clip itself."""
    return ascend(logits, ball, gold, ball.centre, steps, step)


def pgd(logits: Logits, ball: Ball, gold: Tensor, steps: int, step: float, share: Tensor) -> Tensor:
    """Moves of ``step`` radii from a random place: ``share`` (N, ...) of the way to the ball's edge."""
    return ascend(logits, ball, gold, ball.at(share), steps, step)


def _per_clip(values: Tensor, like: Tensor) -> Tensor:
    """(N,) as (N, 1, ...) with as many dimensions as ``like``."""
    return values.view(-1, *[1] * (like.dim() - 1))


def apgd(
    logits: Logits, ball: Ball, gold: Tensor, steps: int, share: Tensor, loss_of: Loss = cross_entropies
) -> Tensor:
    """APGD: moves with momentum, whose size halves for a clip when its loss does not rise enough any more.

    Begins ``share`` (N, ...) of the way to the ball's edge, with a step of two radii, and ends early where all clips
    are fooled. Returns of each clip the last point at which the answer was wrong, else the one with the highest loss.
    """
    first_look, sooner, soonest = (max(1, int(share * steps)) for share in (FIRST_LOOK, SOONER, SOONEST))
    x = before = ball.at(share)
    here = slope(logits, x, gold, loss_of)
    best, best_loss, best_gradient = x, here.loss, here.gradient
    fooling, fooled = x, ~here.right
    step = torch.full_like(here.loss, 2.0)
    rises = torch.zeros_like(here.loss)
    loss_at_look, halved = best_loss, torch.ones_like(fooled)
    until_look = since_look = first_look
    gradient, loss = here.gradient, torch.zeros_like(here.loss)
    for number in range(steps):
        if fooled.all():
            break
        moved = ball.inside(x + _per_clip(step, x) * ball.radius * gradient.sign())
        if number:
            moved = ball.inside(x + MOMENTUM * (moved - x) + (1 - MOMENTUM) * (x - before))
        x, before = moved, x
        here = slope(logits, x, gold, loss_of)
        wrong = ~here.right
        fooling, fooled = torch.where(_per_clip(wrong, x), x, fooling), fooled | wrong
        higher = here.loss > best_loss
        best = torch.where(_per_clip(higher, x), x, best)
        best_gradient = torch.where(_per_clip(higher, x), here.gradient, best_gradient)
        best_loss = torch.where(higher, here.loss, best_loss)
        rises, loss, gradient = rises + (here.loss > loss), here.loss, here.gradient
        until_look -= 1
        if until_look:
            continue
        stalled = ~halved & (loss_at_look >= best_loss)
        halved, loss_at_look = (rises <= RISING * since_look) | stalled, best_loss
        step = torch.where(halved, step / 2, step)
        x = torch.where(_per_clip(halved, x), best, x)
        gradient = torch.where(_per_clip(halved, x), best_gradient, gradient)
        rises = torch.zeros_like(rises)
        until_look = since_look = max(since_look - sooner, soonest)
    return torch.where(_per_clip(fooled, x), fooling, best)


def apgd_of_both(logits: Logits, ball: Ball, gold: Tensor, steps: int, share: Tensor) -> Tensor:
    """The worst of two APGDs: where the one by the cross-entropy does not fool, the one by DLR from the same start."""
    made = apgd(logits, ball, gold, steps, share)
    with torch.no_grad():
        right = logits(made).argmax(1) == gold
    if not right.any():
        return made
    by_dlr = apgd(logits, ball, gold, steps, share, difference_of_logits_ratio)
    with torch.no_grad():
        fooled = logits(by_dlr).argmax(1) != gold
    return torch.where(_per_clip(right & fooled, made), by_dlr, made)
