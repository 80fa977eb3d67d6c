"""Going on with a training that was broken off: what a checkpoint keeps for it.

Nothing random is kept: what is drawn follows from the seed and the step, or from the seed and the place in a stream.
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
    """How far a training is. Beside weights and optimiser all that a checkpoint needs to go on with it."""

    step: int = 0  # steps taken
    epoch: int = 0  # whole passes over the emotion stream
    positions: dict[str, Position] = field(default_factory=dict)  # by stream: the mini-batch that comes next
    sums: dict[str, float] = field(default_factory=dict)  # of the losses of the running epoch
    counted: int = 0  # steps in these sums
    best: dict[str, Any] | None = None  # epoch, step and dev scores of best.pt
    bad_steps: int = 0  # steps in a row, up to the last one, that were not finite and skipped
    seconds: float = 0.0  # of training, over all runs

    def took(self, batch: MultitaskBatch) -> None:
        """Note that a step was made of ``batch``."""
        self.step += 1
        self.positions = {name: stream.next_position for name, stream in batch.streams().items()}

    def add(self, row: Mapping[str, float]) -> None:
        """Add the losses of a step to the sums of its epoch."""
        for name, value in row.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.counted += 1

    def means(self) -> dict[str, float]:
        """The running epoch's mean losses."""
        return {name: total / max(1, self.counted) for name, total in self.sums.items()}

    def end_epoch(self) -> None:
        """Begin the sums of the next epoch."""
        self.epoch, self.sums, self.counted = self.epoch + 1, {}, 0

    def to_checkpoint(self) -> dict[str, Any]:
        """As plain values, for checkpoint.save."""
        return {**asdict(self), "positions": {name: list(position) for name, position in self.positions.items()}}

    @classmethod
    def from_checkpoint(cls, content: Mapping[str, Any]) -> "TrainingState":
        """What ``to_checkpoint`` gave, from a checkpoint's content."""
        state = cls(**{item.name: content[item.name] for item in fields(cls)})
        state.positions = {name: Position(*position) for name, position in state.positions.items()}
        return state


def seed_step(seed: int, step: int, process: int = 0) -> None:
    """Make what step ``step`` draws (dropout, say) follow from the seed, its number and the process' alone."""
    derived = random.Random(f"{seed} step {step}" + (f" process {process}" if process else "")).randrange(2**63)
    random.seed(derived)
    torch.manual_seed(derived)


def find_checkpoint(folder: Path, key: str) -> dict[str, Any] | None:
    """The content of ``folder``'s last.pt if the training with this stage key wrote it; else None, with a log line.

    It is of no use either where the best.pt that it speaks of is gone.
    """
    last = folder / "last.pt"
    if not last.is_file():
        return None
    try:
        content = checkpoint.read(last)
        if content.get("key") != key:
            log.info("%s: is of a training with other settings or data; the training starts anew", last)
            return None
        if content["best"] is not None and checkpoint.read(folder / "best.pt").get("key") != key:
            raise InputError(f"{folder / 'best.pt'}: is of another training.")
    except InputError as error:
        log.warning("%s The training starts anew.", error)
        return None
    return content
