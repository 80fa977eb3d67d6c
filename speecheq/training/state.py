"""Resuming a training: its state besides weights and optimiser.

There is no random state: all draws follow from the seed and the step, or the seed and the position in a stream.
"""

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.dataset.batch import MultitaskBatch, Position
from speecheq.models import checkpoint


@dataclass
class TrainingState:
    """The progress of a training: with weights and optimiser, all that is needed to resume it."""

    step: int = 0  # steps taken
    epoch: int = 0  # complete passes over the emotion stream
    positions: dict[str, Position] = field(default_factory=dict)  # of the next mini-batch, by stream
    sums: dict[str, float] = field(default_factory=dict)  # of the losses of the running epoch
    counted: int = 0  # steps in these sums
    best: dict[str, Any] | None = None  # epoch, step and dev scores of best.pt
    bad_steps: int = 0  # the latest steps in a row that were not finite and skipped
    seconds: float = 0.0  # of training, over all runs

    def count_step(self, batch: MultitaskBatch) -> None:
        """Count the step that was taken on ``batch``."""
        self.step += 1
        self.positions = {name: stream.next_position for name, stream in batch.streams().items()}

    def add_losses(self, row: Mapping[str, float]) -> None:
        """Add the losses of a step to the sums of its epoch."""
        for name, value in row.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.counted += 1

    def means(self) -> dict[str, float]:
        """The mean losses of the running epoch."""
        return {name: total / max(1, self.counted) for name, total in self.sums.items()}

    def end_epoch(self) -> None:
        """Count the epoch and start the sums of the next one."""
        self.epoch, self.sums, self.counted = self.epoch + 1, {}, 0

    def to_checkpoint(self) -> dict[str, Any]:
        """Plain values for ``checkpoint.save``."""
        return {**asdict(self), "positions": {name: list(position) for name, position in self.positions.items()}}

    @classmethod
    def from_checkpoint(cls, content: Mapping[str, Any]) -> "TrainingState":
        """The state that ``to_checkpoint`` wrote into a checkpoint."""
        state = cls(**{item.name: content[item.name] for item in fields(cls)})
        state.positions = {name: Position(*position) for name, position in state.positions.items()}
        return state


def seed_step(seed: int, step: int, process: int = 0) -> None:
    """Seed the draws of step ``step`` (dropout, say) from the training's seed, the step and the process."""
    derived = random.Random(f"{seed} step {step}" + (f" process {process}" if process else "")).randrange(2**63)
    random.seed(derived)
    torch.manual_seed(derived)


def find_checkpoint(folder: Path, key: str) -> dict[str, Any] | None:
    """The content of ``folder``'s last.pt, to resume from it; None, with a log line, if that is not possible.

    It was written under the stage key ``key``, and the best.pt that it names is there.
    """
    last = folder / "last.pt"
    if not last.is_file():
        return None
    try:
        content = checkpoint.read(last)
        if content.get("key") != key:
            log.info("%s: belongs to a training with other settings or data; starting from the beginning", last)
            return None
        if content["best"] is not None and checkpoint.read(folder / "best.pt").get("key") != key:
            raise InputError(f"{folder / 'best.pt'}: belongs to another training.")
    except InputError as error:
        log.warning("%s Starting from the beginning.", error)
        return None
    return content
