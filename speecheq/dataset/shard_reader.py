"""Read training clips from the shards of ``shard_writer``, in long sequential runs (docs/scale.md).

A shard holds JSON, lilcom and FLAC; nothing in it is ever unpickled or unpacked to disk.
"""

import gzip
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np
from lhotse.cut import Cut
from lhotse.shar.utils import fill_shar_placeholder

from speecheq.cluster import distributed
from speecheq.common.errors import InputError
from speecheq.common.stages import require
from speecheq.config.schema import Config, SharConfig
from speecheq.dataset.batch import Position
from speecheq.dataset.lazy_cuts import cut_from_line
from speecheq.dataset.loader import ClipSource, PlannedBatch, Stream
from speecheq.dataset.shard_plan import Epoch, Piece, ShardPlan
from speecheq.dataset.shard_writer import FIELDS, shard_paths


def _read_shard(manifest: Path, archive: Path, places: Sequence[int]) -> Iterator[Cut]:
    """The cuts at these places of a shard, in rising order, with their features or audio in memory.

    InputError that names the file where it is gone, damaged or ends too early.
    """
    field = archive.name.split(".")[0]
    ending = dict(FIELDS.values())[field]
    wanted = iter(places)
    next_wanted, read = next(wanted, None), 0
    if next_wanted is None:
        return
    try:
        with gzip.open(manifest, "rb") as lines, tarfile.open(archive, "r:") as tar:
            for place, line in enumerate(lines):
                member, _ = tar.next(), tar.next()  # the second one repeats the manifest
                if member is None:
                    break
                read = place + 1
                if place != next_wanted:
                    continue
                cut = cut_from_line(line)
                if member.name != cut.id + ending:
                    raise InputError(
                        f"{archive}: holds {member.name} where {cut.id + ending} is expected by {manifest.name}; "
                        "remove both and run stage 3 again."
                    )
                data = tar.extractfile(member)
                if data is None:
                    raise tarfile.ReadError(f"{member.name} is not a file")
                fill_shar_placeholder(getattr(cut, field), data.read(), member.name)
                if field == "features":
                    cut.features.storage_path = str(archive)  # named where they cannot be decoded
                yield cut
                next_wanted = next(wanted, None)
                if next_wanted is None:
                    return
    except InputError:
        raise
    except Exception as error:  # of gzip, tarfile, JSON, lhotse or the file system
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        culprit = manifest if isinstance(error, (EOFError, gzip.BadGzipFile)) else archive
        culprit = getattr(error, "filename", None) or culprit
        raise InputError(f"{culprit}: cannot be read ({reason}); remove it and run stage 3 again.") from error
    raise InputError(
        f"{archive}: it or {manifest.name} ends after {read} clips, but clips.npy names clip {next_wanted + 1}; "
        "remove both and run stage 3 again."
    )


class _StreamClips:
    """The clips that a stream has of a set: the rows of its ``table`` that are ``wanted``.

    ``first`` is the first row of each shard, and at its end the number of rows.
    """

    def __init__(self, table: np.ndarray, first: np.ndarray, wanted: np.ndarray):
        self.table, self.first, self.wanted = table, first, wanted

    def counts(self) -> np.ndarray:
        """The number of the stream's clips in each shard."""
        return np.add.reduceat(self.wanted.astype(np.int64), self.first[:-1])

    def rows(self, piece: Piece) -> np.ndarray:
        """The rows of a piece of a shard, whose places count the stream's clips only."""
        first, stop = self.first[piece.shard : piece.shard + 2]
        return first + np.flatnonzero(self.wanted[first:stop])[piece.start : piece.stop]

    def column(self, name: str, pieces: Sequence[Piece]) -> np.ndarray:
        return np.concatenate([self.table[name][self.rows(piece)] for piece in pieces] or [np.empty(0)])


class Shards(ClipSource):
    """A set that ``write_shards`` has written to ``folder``, with all its clips or those of one ``corpus``."""

    def __init__(self, folder: Path, config: SharConfig, corpus: str | None = None):
        folder = Path(folder)
        stamp = require(folder, "shar")
        self.kind, self.config = stamp["options"]["input"], config
        self.folder = folder / f"shards-{stamp['key']}"
        path = folder / "clips.npy"
        try:
            self.table = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise InputError(f"{path}: cannot be read ({error}); remove it and run stage 3 again.") from error
        self.first = np.searchsorted(self.table["shard"], np.arange(self.table["shard"][-1] + 2))  # row of each shard
        self.wanted = self.table["corpus"] == corpus.encode() if corpus else np.ones(len(self.table), bool)

    def _clips(self, stream: Stream) -> _StreamClips:
        wanted = self.wanted & (self.table["gender"] != b"") if stream.name == "gender" else self.wanted
        return _StreamClips(self.table, self.first, wanted)

    def _epoch(self, stream: Stream, clips: _StreamClips, number: int) -> Epoch:
        counts = clips.counts()
        plan = ShardPlan(
            int(counts.sum()),
            readers=self.config.lanes,
            groups=self.config.parts,
            batch_size=stream.config.batch_size,
            seconds=stream.config.phoneme_batch_seconds if stream.name == "phoneme" else None,
            buffer=self.config.buffer,
            name=stream.name,
        )
        return Epoch(plan, counts, f"{stream.seed} {stream.name} {number}", partial(clips.column, "duration"))

    def planned_batches(self, stream: Stream, loader: int, loaders: int) -> Iterator[PlannedBatch]:
        clips = self._clips(stream)
        for number in count(stream.start.epoch):
            epoch = self._epoch(stream, clips, number)
            if loader >= epoch.plan.groups:
                return  # this loader has no group
            order = epoch.round_robin()
            before = order[: stream.start.batch] if number == stream.start.epoch else []
            groups = {
                group: self._group_batches(epoch, clips, group, before.count(group))
                for group in set(order)
                if group % loaders == loader
            }
            for place, group in islice(enumerate(order), len(before), None):
                if group in groups:
                    cuts, ids = next(groups[group])
                    yield PlannedBatch(Position(number, place), place == len(order) - 1, cuts, ids)

    def loader_order(self, stream: Stream, loaders: int) -> Iterator[int]:
        clips = self._clips(stream)
        for number in count(stream.start.epoch):
            order = self._epoch(stream, clips, number).round_robin()
            for group in order[stream.start.batch if number == stream.start.epoch else 0 :]:
                yield group % loaders

    def _group_batches(
        self, epoch: Epoch, clips: _StreamClips, group: int, batch: int
    ) -> Iterator[tuple[list[Cut], list[str]]]:
        """The mini-batches of a group from ``batch`` on: this process' cuts, and the ids of all cuts.

        A block is read while the one before it is handed out.
        """
        plan = epoch.plan
        readers = range(plan.readers)
        own_readers = readers[distributed.rank() :: distributed.size()]
        opened: dict[int, Iterator[Cut]] = {}

        def read(number: int) -> dict[int, list[Cut]]:
            cuts = {}
            for reader in own_readers:
                first, stop = plan.block_range(group, number, reader)
                if reader not in opened:
                    opened[reader] = self._read(clips, epoch.pieces(first, plan.reader_range(group, reader)[1]))
                cuts[reader] = list(islice(opened[reader], stop - first))
            return cuts

        def read_ids(number: int, reader: int) -> list[str]:
            pieces = epoch.pieces(*plan.block_range(group, number, reader))
            return [name.decode() for name in clips.column("id", pieces)]

        with ThreadPoolExecutor(1) as ahead:
            reading: Future | None = None
            for number, block in epoch.blocks_from(group, batch):
                cuts = (reading or ahead.submit(read, number)).result()
                is_last = number + 1 == plan.num_blocks(group)
                reading = None if is_last else ahead.submit(read, number + 1)
                ids = {reader: read_ids(number, reader) for reader in readers}
                for rows in block.batches:
                    places = block.clips(rows)
                    yield (
                        [cuts[reader][place] for reader, place in places if reader in cuts],
                        [ids[reader][place] for reader, place in places],
                    )

    def _read(self, clips: _StreamClips, pieces: list[Piece]) -> Iterator[Cut]:
        for piece in pieces:
            places = (clips.rows(piece) - self.first[piece.shard]).tolist()
            yield from _read_shard(*shard_paths(self.folder, self.kind, piece.shard), places)


def check_processes(config: Config, processes: int) -> None:
    """Raise InputError unless ``processes`` processes can share a training from shards."""
    if config.shar.use and config.shar.lanes % processes:
        raise InputError(
            f"shar.lanes is {config.shar.lanes}, but {processes} processes train, and it must be a multiple of them: "
            f"give --set shar.lanes={processes} (and the same for all runs that are to be compared)."
        )
