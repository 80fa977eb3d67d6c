"""What changes from step to step: the learning rate and the weights of the losses.

A training has one or two stages (section 3.2). The first is warm-up and then ``optim.schedule``; the last
``optim.finetune`` of the training, 0 for none, is the paper's fine-tuning stage: beta and eta fall linearly, the
learning rate exponentially (by the same factor every step), to the values that the settings name.
All follows from the step and the place in the emotion stream, so there is nothing to keep in a checkpoint.
"""

import math

from speecheq.config.schema import Config
from speecheq.dataset.batch import Position
from speecheq.losses import LossWeights


class Schedule:
    """Learning rate and loss weights of a training whose epochs have about ``epoch_steps`` steps."""

    def __init__(self, config: Config, epoch_steps: int):
        self.config, self.epoch_steps = config, max(1, epoch_steps)

    def steps(self) -> int:
        """About how many steps the training takes."""
        optim = self.config.optim
        by_epochs = optim.epochs * self.epoch_steps if optim.epochs is not None else math.inf
        return int(min(by_epochs, optim.max_steps or math.inf))

    def part(self, step: int, place: Position) -> float:
        """How much of the training is over before step ``step`` at ``place`` of the emotion stream: 0 to 1."""
        optim = self.config.optim
        parts = [step / optim.max_steps] if optim.max_steps is not None else []
        if optim.epochs is not None:
            parts.append((place.epoch + min(1.0, place.batch / self.epoch_steps)) / optim.epochs)
        return min(1.0, max(parts))

    def finetuning(self, part: float) -> float:
        """How much of the fine-tuning stage is over: 0 before and at its start, 1 at the end of the training."""
        stage = self.config.optim.finetune
        return max(0.0, 1 - (1 - part) / stage) if stage else 0.0

    def learning_rate(self, step: int, place: Position) -> float:
        """Of step ``step`` (from 0) at ``place`` of the emotion stream."""
        optim = self.config.optim
        if step < optim.warmup_steps:
            return optim.learning_rate * (step + 1) / optim.warmup_steps
        part = self.part(step, place)
        if optim.schedule == "cosine":
            steps = self.steps()
            after_warmup = (part * steps - optim.warmup_steps) / max(1, steps - optim.warmup_steps)
            return optim.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, after_warmup))))
        over = self.finetuning(part)
        return optim.learning_rate ** (1 - over) * optim.finetune_learning_rate**over

    def loss_weights(self, step: int, place: Position) -> LossWeights:
        """The weights of equation 4 in that step; a task that is left out (weight 0) stays out."""
        loss, over = self.config.loss, self.finetuning(self.part(step, place))

        def falling(first: float, last: float) -> float:
            return first + over * (last - first) if first > 0 else 0.0

        return LossWeights(
            loss.alpha,
            falling(loss.beta, loss.finetune_beta),
            falling(loss.eta, loss.finetune_eta),
            loss.augmentation,
            loss.reconstruction,
        )
