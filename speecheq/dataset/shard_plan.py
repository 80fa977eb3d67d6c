"""The plan of an epoch: which reader reads which shards, and which clips form a mini-batch.

With 2 groups of 3 readers:

    shards, in an order of this epoch    |  shard 4  |  shard 0  |  shard 2  |  shard 3  |  shard 1  |
    groups                               |           group 0           |           group 1           |
    readers, a run of clips each         |    0    |    1    |    2    |    0    |    1    |    2    |
    mini-batches come from the groups      group 0, group 1, group 0, group 1, ...
    clips of one come from the readers     reader 0, 1, 2, 0, 1, 2, ... of its group: rows of 3 clips
    blocks of a reader                     |  0  | 1 |  clips are shuffled within a block

In the settings ``shar.parts`` is the number of groups, and ``shar.lanes`` the number of readers of each.

Invariants:

- Every clip occurs once an epoch.
- A reader reads consecutive clips on disk. Readers of a group differ in length by at most one clip.
- Clip j of a mini-batch comes from reader j mod ``readers``. Of W processes (a divisor of ``readers``), process r takes
  the clips r, r + W, ... of a mini-batch (distributed.share), so it needs the readers r, r + W, ... only.
- Of K loaders, loader k takes the groups k, k + K, ... So each loader of each process has readers of its own, and no
  mini-batch depends on the number of processes or loaders.
- A row is a clip of each reader, all of about the same duration. A mini-batch has whole rows, so but for the last one
  of a group its number of clips is a multiple of ``readers``.
- Nothing is read to make the plan: it follows from the seed, the number of clips of each shard, and the durations of a
  block's clips.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from speecheq.common.errors import InputError

# Duration buckets of a stream: clips of similar durations are batched together.
BUCKETS = 3


class Piece(NamedTuple):
    """A run of clips of a shard: the number of the shard, the first clip, and the first clip after the run."""

    shard: int
    start: int
    stop: int


@dataclass(frozen=True)
class ShardPlan:
    """How ``clips`` of the set ``name`` are split between ``groups`` of ``readers``.

    A mini-batch has at most ``batch_size`` clips, and ``seconds`` of speech unless that is None; about ``buffer``
    clips, over all readers, are a block. A small set has fewer groups: each has a mini-batch at least.
    Raises InputError if there are fewer clips than readers, or fewer than two.
    """

    clips: int
    readers: int
    groups: int
    batch_size: int
    seconds: float | None
    buffer: int
    name: str

    def __post_init__(self) -> None:
        if self.clips < max(2, self.readers):
            raise InputError(
                f"the {self.name} set holds {self.clips} clips, but a mini-batch from shards needs at least two, and "
                f"one from each of {self.readers} readers (shar.lanes); train without --shar."
            )
        object.__setattr__(self, "groups", max(1, min(self.groups, self.clips // self.batch_size)))

    def reader_range(self, group: int, reader: int) -> tuple[int, int]:
        """The first clip of a reader, and the first after it, in the order of the epoch."""
        first, stop = (self.clips * number // self.groups for number in (group, group + 1))
        size, longer = divmod(stop - first, self.readers)  # the first readers have one clip more
        start = first + reader * size + min(reader, longer)
        return start, start + size + (1 if reader < longer else 0)

    @property
    def rows_per_batch(self) -> int:
        return max(1, self.batch_size // self.readers)

    @property
    def rows_per_block(self) -> int:
        """A multiple of ``rows_per_batch``: where only the number of clips counts, few mini-batches are smaller."""
        return max(1, self.buffer // (self.groups * self.readers * self.rows_per_batch)) * self.rows_per_batch

    def num_blocks(self, group: int) -> int:
        """How many blocks a group has; a single row at the end, which may lack clips of some readers, is none."""
        start, stop = self.reader_range(group, 0)
        return max(1, -(-(stop - start - 1) // self.rows_per_block))

    def block_range(self, group: int, block: int, reader: int) -> tuple[int, int]:
        """The clips that a block has of a reader, as ``reader_range`` gives them."""
        start, stop = self.reader_range(group, reader)
        first = start + block * self.rows_per_block
        return first, stop if block == self.num_blocks(group) - 1 else first + self.rows_per_block


class Block(NamedTuple):
    """The mini-batches of a block, each of some rows of ``grid``.

    ``grid`` (rows, readers) holds the place of each clip among those that the block has of its reader, -1 for none.
    """

    grid: np.ndarray
    batches: list[slice]

    def clips(self, batch: slice) -> list[tuple[int, int]]:
        """(reader, place) of the clips of a mini-batch, in its order."""
        return [(reader, place) for row in self.grid[batch].tolist() for reader, place in enumerate(row) if place >= 0]


def make_block(plan: ShardPlan, durations: Sequence[np.ndarray], rng: np.random.RandomState) -> Block:
    """A block from the durations in seconds of the clips that it has of each reader."""
    grid = np.full((len(durations[0]), plan.readers), -1)
    seconds = np.zeros(grid.shape)
    for reader, values in enumerate(durations):
        order = np.argsort(-values, kind="stable")
        order = np.concatenate([rng.permutation(bucket) for bucket in np.array_split(order, BUCKETS)])
        grid[: len(order), reader] = order
        seconds[: len(order), reader] = values[order]
    batches = _split_rows(plan, (grid >= 0).sum(1).tolist(), seconds.sum(1).tolist())
    return Block(grid, [batches[place] for place in rng.permutation(len(batches))])


def _split_rows(plan: ShardPlan, clips: list[int], seconds: list[float]) -> list[slice]:
    """Split rows into mini-batches; ``clips`` and ``seconds`` are the number of clips and the duration of each row."""
    firsts, held = [0], 0.0
    for row, length in enumerate(seconds):
        rows = row - firsts[-1]
        full = plan.seconds is not None and held + length > plan.seconds
        if rows == plan.rows_per_batch or full and rows * plan.readers >= 2:
            firsts.append(row)
            held = 0.0
        held += length
    # the last rows have the shortest clips; if they are too few, a process may have none of them
    if len(firsts) > 1 and sum(clips[firsts[-1] :]) < max(2, plan.readers):
        firsts.pop()
    return [slice(first, stop) for first, stop in zip(firsts, [*firsts[1:], len(clips)])]


class Epoch:
    """One pass over a set.

    ``shards`` are the numbers of clips of the shards, ``seed`` identifies the epoch, and ``get_durations`` returns the
    durations in seconds of the clips of pieces of shards.
    """

    def __init__(
        self, plan: ShardPlan, shards: np.ndarray, seed: str, get_durations: Callable[[list[Piece]], np.ndarray]
    ):
        self.plan, self.seed, self.get_durations = plan, seed, get_durations
        self.order = self._rng("shards").permutation(len(shards))
        self.ends = np.cumsum(shards[self.order])

    def _rng(self, purpose: str) -> np.random.RandomState:
        # unlike str hashes, the same in all processes
        return np.random.RandomState(random.Random(f"{self.seed} {purpose}").randrange(2**32))

    def pieces(self, start: int, stop: int) -> list[Piece]:
        """The pieces of shards that a run of clips in the order of the epoch is made of."""
        found = []
        place = int(np.searchsorted(self.ends, start, "right"))
        while start < stop:
            end = int(self.ends[place])
            before = int(self.ends[place - 1]) if place else 0
            until = min(stop, end)
            if until > start:  # a shard may have none of the requested clips
                found.append(Piece(int(self.order[place]), start - before, until - before))
            start, place = until, place + 1
        return found

    def block(self, group: int, number: int) -> Block:
        ranges = [self.plan.block_range(group, number, reader) for reader in range(self.plan.readers)]
        durations = [self.get_durations(self.pieces(*clips)) for clips in ranges]
        return make_block(self.plan, durations, self._rng(f"{group} {number}"))

    def round_robin(self) -> list[int]:
        """The group of each mini-batch of the epoch: the groups in turn, each as long as it has a mini-batch."""
        left = [
            sum(len(self.block(group, number).batches) for number in range(self.plan.num_blocks(group)))
            for group in range(self.plan.groups)
        ]
        return [group for turn in range(max(left)) for group in range(self.plan.groups) if turn < left[group]]

    def blocks_from(self, group: int, batch: int) -> Iterator[tuple[int, Block]]:
        """(number, block) of a group, from its mini-batch ``batch`` on; the first block lacks those before it."""
        for number in range(self.plan.num_blocks(group)):
            block = self.block(group, number)
            if batch < len(block.batches):
                yield number, Block(block.grid, block.batches[batch:])
            batch = max(0, batch - len(block.batches))
