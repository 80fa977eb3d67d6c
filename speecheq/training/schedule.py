"""The learning rate and the loss weights of each step.

A training has one or two stages (section 3.2). The first is warm-up and then ``optim.schedule``. The second, the last
``optim.finetune`` of the training (0: none), is the paper's fine-tuning: beta and eta fall linearly, the learning rate
exponentially (by the same factor every step), to the values in the settings.
Everything follows from the step and the position in the emotion stream, so checkpoints have no schedule state.
"""

import math

from speecheq.config.schema import Config
from speecheq.dataset.batch import Position
from speecheq.losses import LossWeights


class Schedule:
    """Learning rate and loss weights of a training whose epochs have about ``epoch_steps`` steps.

    In its methods ``step`` counts from 0, and ``position`` is that of the step's mini-batch in the emotion stream.
    """

    def __init__(self, config: Config, epoch_steps: int):
        self.config, self.epoch_steps = config, max(1, epoch_steps)

    def steps(self) -> int:
        """The approximate number of steps of the training."""
        optim = self.config.optim
        by_epochs = optim.epochs * self.epoch_steps if optim.epochs is not None else math.inf
        return int(min(by_epochs, optim.max_steps or math.inf))

    def progress(self, step: int, position: Position) -> float:
        """The share of the training (0 to 1) that is over before a step."""
        optim = self.config.optim
        shares = [step / optim.max_steps] if optim.max_steps is not None else []
        if optim.epochs is not None:
            shares.append((position.epoch + min(1.0, position.batch / self.epoch_steps)) / optim.epochs)
        return min(1.0, max(shares))

    def finetune_progress(self, progress: float) -> float:
        """The share of the fine-tuning stage that is over: 0 before and at its start, 1 at the end of the training."""
        stage = self.config.optim.finetune
        return max(0.0, 1 - (1 - progress) / stage) if stage else 0.0

    def learning_rate(self, step: int, position: Position) -> float:
        """The learning rate of a step."""
        optim = self.config.optim
        if step < optim.warmup_steps:
            return optim.learning_rate * (step + 1) / optim.warmup_steps
        progress = self.progress(step, position)
        if optim.schedule == "cosine":
            steps = self.steps()
            after_warmup = (progress * steps - optim.warmup_steps) / max(1, steps - optim.warmup_steps)
            return optim.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, after_warmup))))
        if optim.schedule == "step":
            return optim.learning_rate * optim.decay ** int(progress / optim.decay_part + 1e-6)
        over = self.finetune_progress(progress)
        return optim.learning_rate ** (1 - over) * optim.finetune_learning_rate**over

    def loss_weights(self, step: int, position: Position) -> LossWeights:
        """The weights of equation 4 in a step; a task that is left out (weight 0) stays out."""
        loss, over = self.config.loss, self.finetune_progress(self.progress(step, position))

        def falling(first: float, last: float) -> float:
            return first + over * (last - first) if first > 0 else 0.0

        return LossWeights(
            loss.alpha,
            falling(loss.beta, loss.finetune_beta),
            falling(loss.eta, loss.finetune_eta),
            loss.augmentation,
            loss.reconstruction,
        )
