"""Three cut sets to one stream of multitask batches (Algorithm 1, lines 3 to 5)."""

import heapq
import multiprocessing
import os
import random
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count, cycle, islice
from pathlib import Path
from typing import NamedTuple

from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import DynamicBucketingSampler
from torch.utils.data import DataLoader, IterableDataset

from speecheq.cluster import distributed
from speecheq.common.errors import InputError
from speecheq.config.schema import DataConfig
from speecheq.dataset.batch import START, MultitaskBatch, Position, TaskBatch, collate, crop
from speecheq.dataset.lazy_cuts import open_cuts
from speecheq.dataset.shard_plan import BUCKETS

# Processes that load each stream where data.workers is null. On a CPU one loads far faster than a model learns, and
# takes time from it; a GPU can want a mini-batch every 20 ms, and to read 320 s of FLAC takes one process 60 ms.
WORKERS = {"cpu": 1, "cuda": 4}
# Looking at every cut of 1,000 hours would take a minute.
LARGEST_AMONG = 20000


class Request(NamedTuple):
    """A mini-batch that has not been loaded yet."""

    position: Position
    last: bool
    cuts: list[Cut]  # this process' share
    all_ids: list[str]  # of the whole mini-batch


class Source(ABC):
    """Where the clips of a stream come from. Everything about its mini-batches follows from seed and position."""

    @abstractmethod
    def requests(
        self, stream: str, config: DataConfig, seed: int, start: Position, loader: int, loaders: int
    ) -> Iterator[Request]:
        """For ever, from ``start`` on, the mini-batches that the one with number ``loader`` of ``loaders`` loads."""

    @abstractmethod
    def turns(self, stream: str, config: DataConfig, seed: int, start: Position, loaders: int) -> Iterator[int]:
        """For ever, from ``start`` on, the number of the loader that has the next mini-batch."""


class _StoredCuts(Source):
    """Cuts whose features or audio are found one by one.

    A process that loads makes all requests itself, which is cheap: so nothing but mini-batches passes between
    processes, and the training waits for no manifest.
    """

    def __init__(self, cuts: CutSet):
        self.cuts = cuts

    def requests(self, stream, config, seed, start, loader, loaders):
        return islice(_EndlessSampler(self.cuts, stream, config, seed, start), loader, None, loaders)

    def turns(self, stream, config, seed, start, loaders):
        return cycle(range(loaders))


class _EndlessSampler:
    """Yields requests for ever, from ``start`` on; every epoch is one pass in an order of its own, from the seed.

    An epoch's mini-batches follow from seed, stream and epoch alone, so a training goes on at any position without
    what came before it: the mini-batches of that epoch before ``start`` are only counted, their features not read.
    """

    def __init__(self, cuts: CutSet, stream: str, config: DataConfig, seed: int, start: Position = START):
        clips = len(list(islice(cuts, BUCKETS)))
        if clips < 2:
            raise InputError(f"the {stream} set holds {clips} clip; a mini-batch needs two.")
        self.start = start
        # str hashes change from process to process, this does not
        stream_seed = random.Random(f"{seed} {stream}").randrange(2**31)
        self.sampler = DynamicBucketingSampler(
            cuts,
            max_cuts=config.batch_size,
            max_duration=config.phoneme_batch_seconds if stream == "phoneme" else None,
            num_buckets=min(BUCKETS, clips),
            shuffle=True,
            drop_last=False,
            seed=stream_seed,
            rank=0,
            world_size=1,
        )

    def __iter__(self) -> Iterator[Request]:
        for epoch in count(self.start.epoch):
            for request in self._epoch(epoch):
                if request.position >= self.start:
                    yield request

    def _epoch(self, epoch: int) -> Iterator[Request]:
        self.sampler.set_epoch(epoch)
        number, held = 0, []
        for batch in self.sampler:
            cuts = list(batch)
            # batch norm of pooled statistics needs two clips: one alone joins the batch beside it
            if len(held) >= 2 and len(cuts) >= 2:
                yield self._request(Position(epoch, number), False, held)
                number, held = number + 1, []
            held = held + cuts
        yield self._request(Position(epoch, number), True, held)

    @staticmethod
    def _request(position: Position, last: bool, cuts: list[Cut]) -> Request:
        return Request(position, last, distributed.share(cuts), [cut.id for cut in cuts])


class _Batches(IterableDataset):
    """The mini-batches of a stream from ``start`` on, for ever, that one of ``loaders`` loads.

    Cropping depends on seed, stream, epoch and utterance only.
    """

    def __init__(
        self, stream: str, source: Source, config: DataConfig, seed: int, start: Position, loader: int, loaders: int
    ):
        self.stream, self.source, self.config, self.seed, self.start = stream, source, config, seed, start
        self.loader, self.loaders = loader, loaders

    def __iter__(self) -> Iterator[TaskBatch | InputError]:
        """What cannot be read is handed over as an InputError: raised in a worker it would come with a traceback."""
        try:
            for request in self.source.requests(
                self.stream, self.config, self.seed, self.start, self.loader, self.loaders
            ):
                yield self._load(request)
        except InputError as error:
            yield error

    def _load(self, request: Request) -> TaskBatch:
        chosen = request.cuts
        if self.stream != "phoneme":
            of_epoch = f"{self.seed} {self.stream} {request.position.epoch}"
            chosen = [crop(cut, self.config.max_seconds, random.Random(f"{of_epoch} {cut.id}")) for cut in chosen]
        batch = collate(self.stream, chosen, self.config.input == "waveform")
        return replace(batch, position=request.position, last=request.last, all_ids=request.all_ids)


def _end_with_training(_worker: int) -> None:
    """A scheduler signals every process of a job: the training decides when it stops, and stops its workers.

    Where it was killed they end by themselves. torch's worker looks after its parent too, but only from when it has
    started: one whose parent was gone by then would stay for ever, and hold the job's pipes open.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_after, args=(multiprocessing.parent_process().pid,), daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def endless_stream(
    stream: str, cuts: CutSet | Source, config: DataConfig, seed: int, start: Position = START, device: str = "cpu"
) -> Iterator[TaskBatch]:
    """Mini-batches of one data set for ever, from ``start`` on, loaded by ``config.workers`` processes.

    The processes start at once. ``device`` is the type of the one that trains: a GPU copies from pinned memory without
    being waited for. The mini-batches stay on the CPU.
    """
    source = cuts if isinstance(cuts, Source) else _StoredCuts(cuts)
    workers = WORKERS[device] if config.workers is None else config.workers
    loaders = max(1, workers)
    # a loader a process: lhotse's sampler draws otherwise in a loader's second process than in its first
    return _in_turn(
        [
            iter(
                DataLoader(
                    _Batches(stream, source, config, seed, start, number, loaders),
                    batch_size=None,
                    num_workers=min(1, workers),
                    multiprocessing_context="fork" if workers else None,
                    worker_init_fn=_end_with_training,
                    pin_memory=device == "cuda",
                )
            )
            for number in range(loaders)
        ],
        source.turns(stream, config, seed, start, loaders),
    )


def _in_turn(loaders: list[Iterator[TaskBatch | InputError]], turns: Iterator[int]) -> Iterator[TaskBatch]:
    for number in turns:
        batch = next(loaders[number])
        if isinstance(batch, InputError):
            del loaders  # else the error's traceback would keep the processes waiting for more to do
            raise batch
        yield batch


def training_cuts(path: Path, target: str | None = None) -> CutSet:
    """The cuts of a set that stage 3 wrote; with ``target`` only those of that corpus. InputError where empty."""
    cuts = open_cuts(path, target)
    if next(iter(cuts), None) is None:
        whose = f" of {target}, the only corpus that this system trains on" if target else ""
        raise InputError(f"{path}: holds no cut{whose}; choose another system, or other corpora.")
    return cuts


def multitask_batches(
    cut_sets: Mapping[str, CutSet | Source],
    config: DataConfig,
    seed: int,
    starts: Mapping[str, Position] = {},
    device: str = "cpu",
) -> Iterator[MultitaskBatch]:
    """A mini-batch of each data set a step, for ever; an epoch is one pass over the emotion stream.

    ``starts`` names, by stream, where to go on; a stream without one begins at its beginning. ``device`` is the type of
    the one that trains.
    """
    streams = {
        name: endless_stream(name, cuts, config, seed, starts.get(name, Position()), device)
        for name, cuts in cut_sets.items()
    }
    while True:
        yield MultitaskBatch(**{name: next(stream) for name, stream in streams.items()})


def largest_batch(cut_sets: dict[str, CutSet], config: DataConfig) -> MultitaskBatch:
    """About the largest mini-batch of each stream: of the longest of its first LARGEST_AMONG cuts; one's share."""
    streams = {}
    for name, cuts in cut_sets.items():
        longest = heapq.nlargest(config.batch_size, islice(cuts, LARGEST_AMONG), key=lambda cut: cut.duration)
        if name == "phoneme":
            longest = longest[: max(2, int(config.phoneme_batch_seconds / longest[0].duration))]
        else:
            longest = [crop(cut, config.max_seconds, random.Random(0)) for cut in longest]
        streams[name] = replace(
            collate(name, distributed.share(longest), config.input == "waveform"), all_ids=[cut.id for cut in longest]
        )
    return MultitaskBatch(**streams)
