"""An endless stream of multitask batches from cut sets (Algorithm 1, lines 3 to 5)."""

import heapq
import math
import multiprocessing
import os
import pickle
import random
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
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
from speecheq.dataset.batch import (
    START,
    ClipLoader,
    MultitaskBatch,
    Position,
    TaskBatch,
    collate,
    crop,
    load_samples,
    with_draw,
)
from speecheq.dataset.corpus_sampling import CorpusSampling
from speecheq.dataset.dialogues import by_dialogue
from speecheq.dataset.lazy_cuts import open_cuts
from speecheq.dataset.shard_plan import BUCKETS
from speecheq.dataset.shared_memory import has_room

# Processes that load each stream where data.workers is null. On a CPU one loads far faster than a model learns, and
# takes time from it; a GPU can want a mini-batch every 20 ms, and to read 320 s of FLAC takes one process 60 ms.
WORKERS = {"cpu": 1, "cuda": 4, "mps": 0}
# Cuts among which the largest mini-batch is searched: all cuts of 1,000 hours would take a minute.
LARGEST_AMONG = 20000


@dataclass(frozen=True)
class Stream:
    """Everything besides the clips that determines the mini-batches of a data set; ``start`` is the first one."""

    name: str  # one of STREAMS
    config: DataConfig
    seed: int
    start: Position = START
    load: ClipLoader | None = None  # None: what ``config.input`` says of filter banks

    def collate(self, cuts: list[Cut]) -> TaskBatch:
        """Load a mini-batch."""
        waveforms = self.config.input == "waveform"
        return collate(self.name, cuts, load_samples if waveforms else self.load)


class PlannedBatch(NamedTuple):
    """A mini-batch that has not been loaded yet."""

    position: Position
    last: bool
    cuts: list[Cut]  # this process' share
    all_ids: list[str]  # of the mini-batch over all processes


class ClipSource(ABC):
    """Where the clips of a stream come from. Everything about its mini-batches follows from seed and position."""

    @abstractmethod
    def planned_batches(self, stream: Stream, loader: int, loaders: int) -> Iterator[PlannedBatch]:
        """The mini-batches, without end, that the loader with number ``loader`` of ``loaders`` loads."""

    @abstractmethod
    def loader_order(self, stream: Stream, loaders: int) -> Iterator[int]:
        """For each mini-batch, without end, the number of the loader that loads it."""


class StoredCuts(ClipSource):
    """Cuts whose features or audio are found one by one.

    Each process that loads plans all mini-batches itself, which is cheap: nothing but loaded mini-batches passes
    between processes, and the training waits for no manifest. The mini-batches of an epoch follow from seed, stream
    and epoch alone: those before the start are only counted, their features are not read.

    ``target``: the corpus that ``data.target_share`` is of; None: none.
    """

    def __init__(self, cuts: CutSet, target: str | None = None):
        self.cuts, self.target = cuts, target

    def planned_batches(self, stream: Stream, loader: int, loaders: int) -> Iterator[PlannedBatch]:
        dialogues = stream.config.batches == "dialogue" and stream.name == "emotion"
        return islice(self._dialogues(stream) if dialogues else self._all_batches(stream), loader, None, loaders)

    def loader_order(self, stream: Stream, loaders: int) -> Iterator[int]:
        return cycle(range(loaders))

    def _all_batches(self, stream: Stream) -> Iterator[PlannedBatch]:
        sampling = CorpusSampling()
        if stream.name == "emotion":
            sampling = CorpusSampling(stream.config.corpus_sampling, self.target, stream.config.target_share)
        clips = None if sampling.takes_each_clip_once() else list(self.cuts)
        sampler = self._sampler(stream, self.cuts)
        for epoch in count(stream.start.epoch):
            if clips is not None:
                chosen = sampling.resample(clips, f"{stream.seed} {stream.name} {epoch} corpora")
                sampler = self._sampler(stream, CutSet(deque(chosen)))  # of a list the sampler would warn
            sampler.set_epoch(epoch)
            for number, (cuts, last) in enumerate(_at_least_two_clips(sampler)):
                position = Position(epoch, number)
                if position >= stream.start:
                    yield PlannedBatch(position, last, distributed.share(cuts), [cut.id for cut in cuts])

    def _dialogues(self, stream: Stream) -> Iterator[PlannedBatch]:
        """Each mini-batch is a dialogue."""
        if distributed.size() > 1:
            raise InputError(
                "data.batches dialogue: a dialogue cannot be shared by several processes; leave out --gpus."
            )
        dialogues = by_dialogue(self.cuts)
        for epoch in count(stream.start.epoch):
            order = random.Random(f"{stream.seed} {stream.name} {epoch}").sample(dialogues, len(dialogues))
            for number, cuts in enumerate(order):
                position = Position(epoch, number)
                if position >= stream.start:
                    yield PlannedBatch(position, number + 1 == len(order), cuts, [cut.id for cut in cuts])

    def _sampler(self, stream: Stream, cuts: CutSet) -> DynamicBucketingSampler:
        clips = len(list(islice(cuts, BUCKETS)))
        if clips < 2:
            raise InputError(f"the {stream.name} set holds {clips} clip; a mini-batch needs two.")
        return DynamicBucketingSampler(
            cuts,
            max_cuts=stream.config.batch_size,
            max_duration=stream.config.phoneme_batch_seconds if stream.name == "phoneme" else None,
            num_buckets=min(BUCKETS, clips),
            shuffle=True,
            drop_last=False,
            # str hashes change from process to process, this does not
            seed=random.Random(f"{stream.seed} {stream.name}").randrange(2**31),
            rank=0,
            world_size=1,
        )


def _at_least_two_clips(sampler: Iterable[CutSet]) -> Iterator[tuple[list[Cut], bool]]:
    """The mini-batches of an epoch, and whether each is the last.

    Batch norm of pooled statistics needs two clips: one alone joins the mini-batch beside it.
    """
    held: list[Cut] = []
    for batch in sampler:
        cuts = list(batch)
        if len(held) >= 2 and len(cuts) >= 2:
            yield held, False
            held = []
        held = held + cuts
    yield held, True


class _LoadedBatches(IterableDataset):
    """The mini-batches of a stream, without end, that one of ``loaders`` loads.

    Cropping and the choice of copies depend on seed, stream, epoch and utterance only. ``as_bytes``: for processes
    without shared memory.
    """

    def __init__(self, source: ClipSource, stream: Stream, loader: int, loaders: int, as_bytes: bool):
        self.source, self.stream, self.loader, self.loaders = source, stream, loader, loaders
        self.as_bytes = as_bytes

    def __iter__(self) -> Iterator[TaskBatch | InputError | bytes]:
        """Yields an InputError instead of raising it: from a worker it would come with a traceback."""
        try:
            for planned in self.source.planned_batches(self.stream, self.loader, self.loaders):
                batch = self._load(planned)
                yield pickle.dumps(batch, pickle.HIGHEST_PROTOCOL) if self.as_bytes else batch
        except InputError as error:
            yield error

    def _load(self, planned: PlannedBatch) -> TaskBatch:
        name, config = self.stream.name, self.stream.config
        cuts = planned.cuts
        if name != "phoneme":
            seed = f"{self.stream.seed} {name} {config.version_of(planned.position.epoch)}"
            draws = [random.Random(f"{seed} {cut.id}") for cut in cuts]
            cuts = [crop(cut, config.max_seconds, draw) for cut, draw in zip(cuts, draws)]
            if self.stream.load is not None:
                cuts = [with_draw(cut, draw.random()) for cut, draw in zip(cuts, draws)]
        batch = self.stream.collate(cuts)
        return replace(batch, position=planned.position, last=planned.last, all_ids=planned.all_ids)


def _end_with_training(_worker: int) -> None:
    """Leave it to the training to end this worker: a scheduler signals every process of a job.

    If the training was killed, the worker ends by itself. torch's worker watches its parent too, but only once it has
    started: a worker whose parent was gone by then would never end, and keep the job's pipes open.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "this runs in workers only"
    threading.Thread(target=_end_after, args=(parent.pid,), daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _count_workers(config: DataConfig, device: str) -> int:
    return WORKERS[device] if config.workers is None else config.workers


def endless_stream(
    name: str,
    cuts: CutSet | ClipSource,
    config: DataConfig,
    seed: int,
    start: Position = START,
    device: str = "cpu",
    shares_memory: bool = True,
    load: ClipLoader | None = None,
) -> Iterator[TaskBatch]:
    """Mini-batches of one data set without end, from ``start`` on, loaded by ``config.workers`` processes.

    The processes start immediately. ``device`` is the type of the training device: for a GPU, mini-batches are in
    pinned memory. The mini-batches stay on the CPU. The processes hand them over in shared memory, or in
    pipes where not ``shares_memory``.
    """
    source = cuts if isinstance(cuts, ClipSource) else StoredCuts(cuts)
    stream = Stream(name, config, seed, start, load)
    workers = _count_workers(config, device)
    loaders = max(1, workers)
    as_bytes = workers > 0 and not shares_memory
    # a DataLoader for each process: in the second process of one, lhotse's sampler would draw other numbers
    loading: list[Iterator[TaskBatch | InputError | bytes]] = [
        iter(
            DataLoader(
                _LoadedBatches(source, stream, number, loaders, as_bytes),
                batch_size=None,
                num_workers=min(1, workers),
                multiprocessing_context="fork" if workers else None,
                worker_init_fn=_end_with_training,
                pin_memory=device == "cuda",
            )
        )
        for number in range(loaders)
    ]
    return _merge(loading, source.loader_order(stream, loaders), device)


def _merge(
    loading: list[Iterator[TaskBatch | InputError | bytes]], order: Iterator[int], device: str
) -> Iterator[TaskBatch]:
    for number in order:
        batch = next(loading[number])
        if isinstance(batch, bytes):
            loaded: TaskBatch = pickle.loads(batch)
            batch = loaded.pin_memory() if device == "cuda" else loaded
        if isinstance(batch, InputError):
            del loading  # else the error's traceback would keep the processes alive
            raise batch
        yield batch


def training_cuts(path: Path, target: str | None = None) -> CutSet:
    """The cuts of a set that stage 3 wrote; with ``target`` only those of that corpus. Raises InputError if empty."""
    cuts = open_cuts(path, target)
    if next(iter(cuts), None) is None:
        whose = f" of {target}, the only corpus that this system trains on" if target else ""
        raise InputError(f"{path}: holds no cut{whose}; choose another system, or other corpora.")
    return cuts


def multitask_batches(
    cut_sets: Mapping[str, CutSet | ClipSource],
    config: DataConfig,
    seed: int,
    starts: Mapping[str, Position] = {},
    device: str = "cpu",
    load: ClipLoader | None = None,
    widths: Mapping[str, int] = {},
) -> Iterator[MultitaskBatch]:
    """A mini-batch of each data set a step, without end; an epoch is one pass over the emotion stream.

    ``starts`` are the positions to resume from, by stream; a stream without one starts at its beginning. ``device`` is
    the type of the device that trains. ``load`` reads the stored features of a clip (None: filter banks), of which a
    stream gets the first values of each frame, as many as ``widths`` says, or all. Raises InputError if /dev/shm is too
    small for loading processes.
    """
    values = None if load is None else _values_a_second(next(iter(cut_sets.values())), load)
    shares_memory = has_room(cut_sets.keys(), config, _count_workers(config, device), values)
    streams = {
        name: endless_stream(
            name, cuts, config, seed, starts.get(name, START), device, shares_memory, _first(load, widths.get(name))
        )
        for name, cuts in cut_sets.items()
    }
    while True:
        yield MultitaskBatch(**{name: next(stream) for name, stream in streams.items()})


def _first(load: ClipLoader | None, width: int | None) -> ClipLoader | None:
    """The same, of the first ``width`` values of each frame; None: of all."""
    if load is None or width is None:
        return load
    return lambda cut: load(cut)[:, :width]


def _values_a_second(cuts: CutSet | ClipSource, load: ClipLoader) -> int:
    """Values of the features of a second, by the first clip."""
    cuts = cuts.cuts if isinstance(cuts, StoredCuts) else cuts
    assert isinstance(cuts, CutSet), "shards hold no encoder states"
    cut = next(iter(cuts))
    return math.ceil(load(cut).numel() / cut.duration)


def largest_batch(
    cut_sets: dict[str, CutSet], config: DataConfig, load: ClipLoader | None = None, widths: Mapping[str, int] = {}
) -> MultitaskBatch:
    """About the largest mini-batch of each stream: the longest of its first LARGEST_AMONG cuts; this process' share."""
    streams = {}
    for name, cuts in cut_sets.items():
        longest = heapq.nlargest(config.batch_size, islice(cuts, LARGEST_AMONG), key=lambda cut: cut.duration)
        if name == "phoneme":
            longest = longest[: max(2, int(config.phoneme_batch_seconds / longest[0].duration))]
        else:
            longest = [crop(cut, config.max_seconds, random.Random(0)) for cut in longest]
        batch = Stream(name, config, 0, load=_first(load, widths.get(name))).collate(distributed.share(longest))
        streams[name] = replace(batch, all_ids=[cut.id for cut in longest])
    return MultitaskBatch(**streams)
