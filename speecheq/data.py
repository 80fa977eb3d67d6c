"""Three cut sets to one stream of multitask batches (Algorithm 1, lines 3 to 5)."""

import random
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import DynamicBucketingSampler
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from speecheq.config import DataConfig
from speecheq.errors import InputError

# The order of the gender classes is part of every trained model.
GENDERS = ("F", "M")
STREAMS = ("emotion", "gender", "phoneme")


@dataclass
class Stream:
    """One padded mini-batch of one data set.

    ``inputs`` (N, T, D) float32 features, zeros after ``lengths`` (N,) frames; ``ids`` the N utterances;
    ``targets``: esc (N,) int64 class numbers and eis (N,) float32 (-1: unspecified), or gender (N,) int64, or phones, a list
    of N int64 vectors. ``epoch`` counts this stream's own passes from 0.
    """

    inputs: Tensor
    lengths: Tensor
    ids: List[str]
    targets: Dict[str, Any] = field(default_factory=dict)
    epoch: int = 0

    def to(self, device: torch.device) -> "Stream":
        """Inputs and targets on ``device``; the lengths stay on the CPU, where masks are decided."""
        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in self.targets.items()}
        return Stream(self.inputs.to(device, non_blocking=True), self.lengths, self.ids, moved, self.epoch)


@dataclass
class MultitaskBatch:
    """What one step trains on: a mini-batch of each data set; None for a task that is left out."""

    emotion: Stream
    gender: Optional[Stream] = None
    phoneme: Optional[Stream] = None


def load_features(cut: Cut) -> Tensor:
    """The stored features (T, D) of a cut; InputError where the archive is gone or not whole."""
    try:
        features = cut.load_features()
    except Exception as error:  # lilcom, the file system and lhotse each have their own
        raise InputError(
            f"{cut.features.storage_path}: the features of {cut.id} cannot be read ({error}); run stage 2 again."
        ) from error
    return torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))


def targets_of(stream: str, cuts: List[Cut]) -> Dict[str, Any]:
    """The gold labels of a mini-batch for one task."""
    supervisions = [cut.supervisions[0] for cut in cuts]
    if stream == "emotion":
        return {
            "esc": torch.tensor([s.custom["class"] for s in supervisions]),
            "eis": torch.tensor([float(s.custom["eis"]) for s in supervisions]),
        }
    if stream == "gender":
        return {"gender": torch.tensor([GENDERS.index(s.gender) for s in supervisions])}
    return {"phones": [torch.tensor(s.custom["phones"], dtype=torch.int64) for s in supervisions]}


def collate(stream: str, cuts: List[Cut], epoch: int = 0) -> Stream:
    """Load and pad a mini-batch."""
    features = [load_features(cut) for cut in cuts]
    lengths = torch.tensor([len(matrix) for matrix in features])
    inputs = pad_sequence(features, batch_first=True)
    return Stream(inputs, lengths, [cut.id for cut in cuts], targets_of(stream, cuts), epoch)


def crop(cut: Cut, max_seconds: float, randomness: random.Random) -> Cut:
    """A random piece of ``max_seconds`` of a longer cut; shorter cuts stay as they are."""
    if cut.duration <= max_seconds:
        return cut
    whole_frames = int((cut.duration - max_seconds) / cut.frame_shift)
    offset = round(randomness.randint(0, whole_frames) * cut.frame_shift, 3)
    return cut.truncate(offset=offset, duration=max_seconds, preserve_id=True)


class _EndlessSampler:
    """Yields (epoch, cuts) for ever; every epoch is one pass in an order of its own, from the seed."""

    def __init__(self, cuts: CutSet, stream: str, config: DataConfig, seed: int):
        # str hashes change from process to process, this does not
        stream_seed = random.Random(f"{seed} {stream}").randrange(2**31)
        self.sampler = DynamicBucketingSampler(
            cuts,
            max_cuts=config.batch_size,
            max_duration=config.phoneme_batch_seconds if stream == "phoneme" else None,
            num_buckets=3,
            shuffle=True,
            drop_last=False,
            seed=stream_seed,
            rank=0,
            world_size=1,
        )

    def __iter__(self) -> Iterator[Tuple[int, List[Cut]]]:
        single: List[Cut] = []
        for epoch in count():
            self.sampler.set_epoch(epoch)
            for batch in self.sampler:
                cuts = single + list(batch)
                # batch norm of pooled statistics needs two clips: a last one alone joins the next batch
                single = cuts if len(cuts) == 1 else []
                if not single:
                    yield epoch, cuts


class _Batches(Dataset):
    """Takes (epoch, cuts), gives a Stream; cropping depends on seed, stream, epoch and utterance only."""

    def __init__(self, stream: str, config: DataConfig, seed: int):
        self.stream, self.config, self.seed = stream, config, seed

    def __getitem__(self, request: Tuple[int, List[Cut]]) -> Stream:
        epoch, chosen = request
        if self.stream != "phoneme":
            chosen = [
                crop(cut, self.config.max_seconds, random.Random(f"{self.seed} {self.stream} {epoch} {cut.id}"))
                for cut in chosen
            ]
        return collate(self.stream, chosen, epoch)


def endless_stream(stream: str, cuts: CutSet, config: DataConfig, seed: int) -> Iterator[Stream]:
    """Mini-batches of one data set for ever, loaded by ``config.workers`` processes."""
    loader = DataLoader(
        _Batches(stream, config, seed),
        sampler=_EndlessSampler(cuts, stream, config, seed),
        batch_size=None,
        num_workers=config.workers,
        multiprocessing_context="fork" if config.workers else None,
    )
    return iter(loader)


def _is_of(corpus: str, cut: Cut) -> bool:
    return cut.supervisions[0].custom["corpus"] == corpus


def training_cuts(path: Path, target: Optional[str] = None) -> CutSet:
    """The cuts of a set that stage 3 wrote; with ``target`` only those of that corpus. InputError where empty."""
    cuts = CutSet.from_jsonl_lazy(path)
    if target is not None:
        cuts = cuts.filter(partial(_is_of, target))
    if next(iter(cuts), None) is None:
        whose = f" of {target}, the only corpus that this system trains on" if target else ""
        raise InputError(f"{path}: holds no cut{whose}; choose another system, or other corpora.")
    return cuts


def multitask_batches(cut_sets: Dict[str, CutSet], config: DataConfig, seed: int) -> Iterator[MultitaskBatch]:
    """A mini-batch of each data set a step, for ever; an epoch is one pass over the emotion stream."""
    streams = {name: endless_stream(name, cuts, config, seed) for name, cuts in cut_sets.items()}
    while True:
        yield MultitaskBatch(**{name: next(stream) for name, stream in streams.items()})


def scoring_batches(stream: str, cuts: List[Cut], batch_size: int) -> Iterator[Stream]:
    """Every cut once and whole, of like durations together."""
    ordered = sorted(cuts, key=lambda cut: (cut.duration, cut.id))
    for start in range(0, len(ordered), batch_size):
        yield collate(stream, ordered[start : start + batch_size])
