"""Three cut sets to one stream of multitask batches (Algorithm 1, lines 3 to 5)."""

import heapq
import multiprocessing
import os
import random
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import DynamicBucketingSampler
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, IterableDataset

from speecheq.cluster import distributed
from speecheq.common.errors import InputError
from speecheq.config.schema import GENDERS, DataConfig
from speecheq.dataset.lazy_cuts import cuts_of
from speecheq.dataset.shard_plan import BUCKETS
from speecheq.features.audio import load_waveform
from speecheq.features.augment_features import Changes
from speecheq.features.fbank import FbankConfig
from speecheq.features.storage import load_features

STREAMS = ("emotion", "gender", "phoneme", "unlabelled")
# Those on which MTL-AUG's tasks are trained.
LABEL_FREE_STREAMS = ("emotion", "unlabelled")
# Processes that load each stream where data.workers is null. On a CPU one loads far faster than a model learns, and
# takes time from it; a GPU can want a mini-batch every 20 ms, and to read 320 s of FLAC takes one process 60 ms.
WORKERS = {"cpu": 1, "cuda": 4}
# Looking at every cut of 1,000 hours would take a minute.
LARGEST_AMONG = 20000


class Position(NamedTuple):
    """A place in a stream: its own pass over the data (from 0), and the mini-batch within that pass (from 0)."""

    epoch: int = 0
    batch: int = 0


START = Position()


@dataclass
class TaskBatch:
    """One padded mini-batch of one data set.

    ``inputs`` (N, T, D) float32 features, zeros after ``lengths`` (N,) frames, or, before the front end has turned them
    into features, waveforms (N, S) with lengths in samples; ``ids`` the N utterances;
    ``targets``: esc (N,) int64 class numbers and eis (N,) float32 (-1: unspecified), or gender (N,) int64, or phones, a
    list of N int64 vectors; of MTL-AUG's augmentation also augmentation (N,) int64, places in AUGMENTATIONS, and
    ``clean`` (N, T, D), the features before it, of as many frames. ``position`` is its place in the stream, ``last``
    whether it is the last of its epoch, ``changes`` what the model does to the features before it takes them. Of a
    mini-batch that several processes share out this is one's share, and ``all_ids`` are the whole's utterances.
    """

    inputs: Tensor
    lengths: Tensor
    ids: list[str]
    targets: dict[str, Any] = field(default_factory=dict)
    position: Position = START
    last: bool = False
    changes: Changes = Changes()
    all_ids: list[str] = None
    clean: Tensor | None = None

    def __post_init__(self) -> None:
        if self.all_ids is None:
            self.all_ids = self.ids

    @property
    def next_position(self) -> Position:
        """Where the stream goes on after this mini-batch."""
        epoch, batch = self.position
        return Position(epoch + 1) if self.last else Position(epoch, batch + 1)

    def to(self, device: torch.device) -> "TaskBatch":
        """Features on ``device``; all else stays on the CPU, where masks are decided and labels are checked."""
        clean = None if self.clean is None else self.clean.to(device, non_blocking=True)
        return replace(self, inputs=self.inputs.to(device, non_blocking=True), clean=clean)

    def pin_memory(self) -> "TaskBatch":
        """Inputs in memory from which a GPU copies by itself; DataLoader calls this where it is asked to."""
        return replace(self, inputs=self.inputs.pin_memory())


@dataclass
class MultitaskBatch:
    """What one step trains on: a mini-batch of each data set; None for a task that is left out."""

    emotion: TaskBatch
    gender: TaskBatch | None = None
    phoneme: TaskBatch | None = None
    unlabelled: TaskBatch | None = None

    def streams(self) -> dict[str, TaskBatch]:
        """The streams that are there, by name, in the order of STREAMS."""
        return {name: getattr(self, name) for name in STREAMS if getattr(self, name) is not None}


def whole_stream(shares: Sequence[TaskBatch]) -> TaskBatch:
    """A mini-batch from what each process took of it (distributed.share)."""
    first = shares[0]
    if len(first.ids) == len(first.all_ids):
        return first

    def rows(name: str) -> list[Any]:
        return distributed.interleaved([list(share.targets[name]) for share in shares])

    def padded(name: str) -> Tensor:
        return pad_sequence(distributed.interleaved([list(getattr(share, name)) for share in shares]), batch_first=True)

    return replace(
        first,
        inputs=padded("inputs"),
        clean=None if first.clean is None else padded("clean"),
        lengths=torch.tensor(distributed.interleaved([share.lengths.tolist() for share in shares])),
        ids=first.all_ids,
        targets={
            name: torch.stack(rows(name)) if isinstance(value, Tensor) else rows(name)
            for name, value in first.targets.items()
        },
    )


def targets_of(stream: str, cuts: list[Cut]) -> dict[str, Any]:
    """The gold labels of a mini-batch for one task."""
    if stream == "unlabelled":
        return {}
    supervisions = [cut.supervisions[0] for cut in cuts]
    if stream == "emotion":
        return {
            "esc": torch.tensor([s.custom["class"] for s in supervisions]),
            "eis": torch.tensor([float(s.custom["eis"]) for s in supervisions]),
        }
    if stream == "gender":
        return {"gender": torch.tensor([GENDERS.index(s.gender) for s in supervisions])}
    return {"phones": [torch.tensor(s.custom["phones"], dtype=torch.int64) for s in supervisions]}


def collate(stream: str, cuts: list[Cut], waveforms: bool = False) -> TaskBatch:
    """Load and pad a mini-batch of stored features, or of ``waveforms``: then (N, S), lengths in samples."""
    loaded = [torch.from_numpy(load_waveform(cut)) if waveforms else load_features(cut) for cut in cuts]
    lengths = torch.tensor([len(clip) for clip in loaded])
    inputs = pad_sequence(loaded, batch_first=True)
    return TaskBatch(inputs, lengths, [cut.id for cut in cuts], targets_of(stream, cuts))


def crop(cut: Cut, max_seconds: float, randomness: random.Random) -> Cut:
    """A random piece of ``max_seconds`` of a longer cut; shorter cuts stay as they are."""
    if cut.duration <= max_seconds:
        return cut
    frame_shift = cut.frame_shift or FbankConfig().frame_shift  # a cut without features has none
    whole_frames = int((cut.duration - max_seconds) / frame_shift)
    offset = round(randomness.randint(0, whole_frames) * frame_shift, 3)
    return cut.truncate(offset=offset, duration=max_seconds, preserve_id=True)


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
    cuts = cuts_of(path, target)
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


def scoring_batches(stream: str, cuts: list[Cut], batch_size: int, waveforms: bool = False) -> Iterator[TaskBatch]:
    """Every cut once and whole, of like durations together; stored features, or ``waveforms``."""
    ordered = sorted(cuts, key=lambda cut: (cut.duration, cut.id))
    for start in range(0, len(ordered), batch_size):
        yield collate(stream, ordered[start : start + batch_size], waveforms)
