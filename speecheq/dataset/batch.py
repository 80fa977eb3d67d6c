"""Mini-batches for training and scoring."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from lhotse.cut import Cut
from lhotse.utils import fastcopy
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from speecheq.cluster import distributed
from speecheq.config.schema import GENDERS
from speecheq.dataset.dialogues import by_dialogue
from speecheq.dataset.phones.lattice import as_words
from speecheq.features.audio import load_waveform
from speecheq.features.augment_features import Changes
from speecheq.features.encoder_states import DRAW
from speecheq.features.fbank import FbankConfig
from speecheq.features.storage import load_features

STREAMS = ("emotion", "gender", "phoneme", "unlabelled")
# The streams on which MTL-AUG's tasks are trained.
LABEL_FREE_STREAMS = ("emotion", "unlabelled")
# What is read of a clip: features (T, D), or samples (S,).
ClipLoader = Callable[[Cut], Tensor]


class Position(NamedTuple):
    """A place in a stream: its own pass over the data (from 0), and the mini-batch within that pass (from 0)."""

    epoch: int = 0
    batch: int = 0


START = Position()


@dataclass
class TaskBatch:
    """One padded mini-batch of N clips of one data set; of a split mini-batch this process' share.

    - ``inputs`` (N, T, D): float32 features, zeros after ``lengths`` (N,) frames. Before the front end they may be
      waveforms (N, S), with lengths in samples.
    - ``ids``: the N utterances. ``all_ids``: those of the mini-batch over all processes.
    - ``targets``: ``esc`` (N,) int64 class numbers, ``eis`` (N,) float32 (-1: unspecified) and ``class_shares``, a list
      of N soft labels, float32 vectors (K,), or (0,) without votes; or ``gender`` (N,) int64; or ``phones``, a list of
      N int64 vectors, and where stage 3 wrote them ``words``, a list of N lattice.Words. With MTL-AUG also
      ``augmentation`` (N,) int64, places in AUGMENTATIONS.
    - ``position``: its place in the stream. ``last``: whether it is the last of its epoch.
    - ``changes``: what the model does to the features before it takes them.
    - ``clean`` (N, T, D): with MTL-AUG the features before augmentation, of as many frames.
    """

    inputs: Tensor
    lengths: Tensor
    ids: list[str]
    targets: dict[str, Any] = field(default_factory=dict)
    position: Position = START
    last: bool = False
    changes: Changes = Changes()
    all_ids: list[str] = field(default_factory=list)
    clean: Tensor | None = None

    def __post_init__(self) -> None:
        self.all_ids = self.all_ids or self.ids

    @property
    def next_position(self) -> Position:
        """The position after this mini-batch."""
        epoch, batch = self.position
        return Position(epoch + 1) if self.last else Position(epoch, batch + 1)

    def to(self, device: torch.device) -> "TaskBatch":
        """Features on ``device``; all else stays on the CPU, where masks are drawn and labels are checked."""
        clean = None if self.clean is None else self.clean.to(device, non_blocking=True)
        return replace(self, inputs=self.inputs.to(device, non_blocking=True), clean=clean)

    def pin_memory(self) -> "TaskBatch":
        """Inputs in pinned memory; DataLoader calls this with ``pin_memory``."""
        return replace(self, inputs=self.inputs.pin_memory())


@dataclass
class MultitaskBatch:
    """The mini-batches of one step, one of each data set; None for a task that is left out."""

    emotion: TaskBatch
    gender: TaskBatch | None = None
    phoneme: TaskBatch | None = None
    unlabelled: TaskBatch | None = None

    def streams(self) -> dict[str, TaskBatch]:
        """The streams that are present, by name, in the order of STREAMS."""
        return {name: getattr(self, name) for name in STREAMS if getattr(self, name) is not None}


def join_shares(shares: Sequence[TaskBatch]) -> TaskBatch:
    """The mini-batch, from the shares of all processes (distributed.share)."""
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


def gold_labels(stream: str, cuts: list[Cut]) -> dict[str, Any]:
    """The ``targets`` of a TaskBatch for the task of a stream."""
    if stream == "unlabelled":
        return {}
    supervisions = [cut.supervisions[0] for cut in cuts]
    if stream == "emotion":
        return {
            "esc": torch.tensor([s.custom["class"] for s in supervisions]),
            "eis": torch.tensor([float(s.custom["eis"]) for s in supervisions]),
            "class_shares": [torch.tensor(s.custom.get("class_shares", []), dtype=torch.float32) for s in supervisions],
        }
    if stream == "gender":
        return {"gender": torch.tensor([GENDERS.index(s.gender) for s in supervisions])}
    targets: dict[str, Any] = {"phones": [torch.tensor(s.custom["phones"], dtype=torch.int64) for s in supervisions]}
    if all("words" in s.custom for s in supervisions):
        targets["words"] = [as_words(s.custom["words"]) for s in supervisions]
    return targets


def load_samples(cut: Cut) -> Tensor:
    """The samples (S,) of a cut."""
    return torch.from_numpy(load_waveform(cut))


def collate(stream: str, cuts: list[Cut], load: ClipLoader | None = None) -> TaskBatch:
    """Load and pad a mini-batch of what ``load`` reads of each cut (None: its stored filter banks)."""
    loaded = list(map(load or load_features, cuts))
    lengths = torch.tensor([len(clip) for clip in loaded])
    inputs = pad_sequence(loaded, batch_first=True)
    return TaskBatch(inputs, lengths, [cut.id for cut in cuts], gold_labels(stream, cuts))


def crop(cut: Cut, max_seconds: float, rng: random.Random) -> Cut:
    """A random piece of ``max_seconds`` of a longer cut; shorter cuts stay as they are."""
    if cut.duration <= max_seconds:
        return cut
    frame_shift = cut.frame_shift or FbankConfig().frame_shift  # a cut without features has none
    whole_frames = int((cut.duration - max_seconds) / frame_shift)
    offset = round(rng.randint(0, whole_frames) * frame_shift, 3)
    return cut.truncate(offset=offset, duration=max_seconds, preserve_id=True)


def with_draw(cut: Cut, draw: float) -> Cut:
    """The cut with a number in [0, 1) by which a ClipLoader chooses among copies of it."""
    return fastcopy(cut, custom={**(cut.custom or {}), DRAW: draw})


def scoring_batches(
    stream: str, cuts: list[Cut], batch_size: int, load: ClipLoader | None = None, dialogues: bool = False
) -> Iterator[TaskBatch]:
    """Mini-batches with every cut once, uncropped, cuts of similar durations together; ``load`` as of ``collate``.

    ``dialogues``: each mini-batch is a dialogue instead.
    """
    if dialogues:
        for turns in by_dialogue(cuts):
            yield collate(stream, turns, load)
        return
    ordered = sorted(cuts, key=lambda cut: (cut.duration, cut.id))
    for start in range(0, len(ordered), batch_size):
        yield collate(stream, ordered[start : start + batch_size], load)
