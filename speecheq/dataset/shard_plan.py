"""How the clips of an epoch are dealt out where they are read from shards: who reads which, and which come together.

The shards of a set are brought into an order of this epoch, and their clips, one after the other, are cut into
``parts``, each of these into ``lanes``: runs of clips that lie one after the other on disk and differ in length by one
at most. Mini-batches come from the parts in turn, and the clips of each from the lanes of its part in turn, so clip j
is of lane j mod ``lanes``. With W processes (a divisor of ``lanes``) process r takes the clips r, r + W, ... of a
mini-batch, as always (distributed.share): those of the lanes r, r + W, ... With K loaders, loader k takes the parts k,
k + K, ... So each loader of each process reads runs of its own, and no mini-batch depends on how many there are.

A lane is read a block of rows at a time, and what is shuffled is a block. A row is a clip of each lane, of about the
same duration; a mini-batch is made of whole rows, so but for the last of a part it holds a multiple of ``lanes`` clips.
Nothing is read here: all follows from the seed, how many clips each shard holds, and the durations of a block's clips.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from speecheq.common.errors import InputError

# Clips of like durations come together: so many classes of duration a stream.
BUCKETS = 3


@dataclass(frozen=True)
class Dealing:
    """``clips`` of a set into ``parts`` x ``lanes`` runs; at most ``batch_size`` clips, and ``seconds`` unless that is
    None, a mini-batch; about ``buffer`` clips, over all runs, are a block.

    InputError where there are fewer clips than lanes, or a mini-batch cannot hold one of each.
    """

    clips: int
    lanes: int
    parts: int
    batch_size: int
    seconds: float | None
    buffer: int
    name: str

    def __post_init__(self) -> None:
        if self.clips < max(2, self.lanes):
            raise InputError(
                f"the {self.name} set holds {self.clips} clips, and a mini-batch needs one of each of {self.lanes} "
                "lanes, and two; train without --shar."
            )
        # a part of its own is worth a mini-batch at least
        object.__setattr__(self, "parts", max(1, min(self.parts, self.clips // self.batch_size)))

    def part(self, number: int) -> tuple[int, int]:
        """The first clip of a part, and the first after it, in the order of the epoch."""
        return self.clips * number // self.parts, self.clips * (number + 1) // self.parts

    def run(self, part: int, lane: int) -> tuple[int, int]:
        """The first clip of a lane, and the first after it; the first lanes are those that are longer by one."""
        first, stop = self.part(part)
        each, longer = divmod(stop - first, self.lanes)
        start = first + lane * each + min(lane, longer)
        return start, start + each + (lane < longer)

    @property
    def rows_a_batch(self) -> int:
        return max(1, self.batch_size // self.lanes)

    @property
    def rows_a_block(self) -> int:
        """Whole mini-batches, where only their size counts: few are then smaller than the others."""
        return max(1, self.buffer // (self.parts * self.lanes * self.rows_a_batch)) * self.rows_a_batch

    def blocks(self, part: int) -> int:
        """How many blocks a part has; a row alone, which may lack clips of some lanes, is none."""
        start, stop = self.run(part, 0)
        return max(1, -(-(stop - start - 1) // self.rows_a_block))

    def of_block(self, part: int, block: int, lane: int) -> tuple[int, int]:
        """The clips that a block has of a lane, as ``run``."""
        start, stop = self.run(part, lane)
        first = start + block * self.rows_a_block
        return first, stop if block == self.blocks(part) - 1 else first + self.rows_a_block


class Block(NamedTuple):
    """What comes together: ``grid`` (rows, lanes), places in each lane's piece of the block, -1 for none, and the
    mini-batches, each of some rows."""

    grid: np.ndarray
    batches: list[slice]

    def clips(self, batch: slice) -> list[tuple[int, int]]:
        """(lane, place) of the clips of a mini-batch, in its order."""
        return [(lane, place) for row in self.grid[batch].tolist() for lane, place in enumerate(row) if place >= 0]


def make_block(dealing: Dealing, durations: Sequence[np.ndarray], randomness: np.random.RandomState) -> Block:
    """A block from the durations in seconds of the clips that it has of each lane."""
    grid = np.full((len(durations[0]), dealing.lanes), -1)
    for lane, of_lane in enumerate(durations):
        order = np.argsort(-of_lane, kind="stable")
        shuffled = [randomness.permutation(bucket) for bucket in np.array_split(order, BUCKETS)]
        grid[: len(order), lane] = np.concatenate(shuffled)
    present = grid >= 0
    of_grid = np.stack([np.append(of_lane, 0.0)[grid[:, lane]] for lane, of_lane in enumerate(durations)], 1)
    batches = _batches(dealing, present.sum(1).tolist(), np.where(present, of_grid, 0.0).sum(1).tolist())
    return Block(grid, [batches[place] for place in randomness.permutation(len(batches))])


def _batches(dealing: Dealing, clips: list[int], seconds: list[float]) -> list[slice]:
    """Rows, given how many clips each has and how long they are, to mini-batches."""
    firsts, held = [0], 0.0
    for row, length in enumerate(seconds):
        rows = row - firsts[-1]
        full = dealing.seconds is not None and held + length > dealing.seconds
        if rows == dealing.rows_a_batch or full and rows * dealing.lanes >= 2:
            firsts.append(row)
            held = 0.0
        held += length
    # the rest, which is of the shortest clips, may have none for a process
    if len(firsts) > 1 and sum(clips[firsts[-1] :]) < max(2, dealing.lanes):
        firsts.pop()
    return [slice(first, stop) for first, stop in zip(firsts, [*firsts[1:], len(clips)])]


class Epoch:
    """One pass over a set: ``shards`` says how many clips each shard gives, ``seed`` names the epoch.

    ``durations_of(pieces)`` gives the durations in seconds of the clips of such pieces of shards as ``pieces`` returns.
    """

    def __init__(self, dealing: Dealing, shards: np.ndarray, seed: str, durations_of: Callable[[list], np.ndarray]):
        self.dealing, self.seed, self.durations_of = dealing, seed, durations_of
        self.order = self._randomness("shards").permutation(len(shards))
        self.ends = np.cumsum(shards[self.order])

    def _randomness(self, of: str) -> np.random.RandomState:
        # str hashes change from process to process, this does not
        return np.random.RandomState(random.Random(f"{self.seed} {of}").randrange(2**32))

    def pieces(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """(shard, the first of its clips, the first after them) of a run of clips in the order of the epoch."""
        found = []
        place = int(np.searchsorted(self.ends, start, "right"))
        while start < stop:
            end = int(self.ends[place])
            before = int(self.ends[place - 1]) if place else 0
            until = min(stop, end)
            if until > start:  # a shard may have none of the clips that are wanted
                found.append((int(self.order[place]), start - before, until - before))
            start, place = until, place + 1
        return found

    def block(self, part: int, number: int) -> Block:
        """What comes together of the block with that number."""
        dealing = self.dealing
        durations = [
            self.durations_of(self.pieces(*dealing.of_block(part, number, lane))) for lane in range(dealing.lanes)
        ]
        return make_block(dealing, durations, self._randomness(f"{part} {number}"))

    def turns(self) -> list[int]:
        """The part that each mini-batch of the epoch is of: the parts in turn, as long as they have one."""
        dealing = self.dealing
        left = [
            sum(len(self.block(part, number).batches) for number in range(dealing.blocks(part)))
            for part in range(dealing.parts)
        ]
        return [part for turn in range(max(left)) for part in range(dealing.parts) if turn < left[part]]

    def blocks_from(self, part: int, batch: int) -> Iterator[tuple[int, Block]]:
        """(number, block) of a part from the one that holds its mini-batch ``batch``, without those before it."""
        for number in range(self.dealing.blocks(part)):
            block = self.block(part, number)
            if batch < len(block.batches):
                yield number, Block(block.grid, block.batches[batch:])
            batch = max(0, batch - len(block.batches))
