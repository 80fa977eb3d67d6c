"""Training clips as Lhotse Shar: written once a fold or phoneme corpus, read in long sequential runs (docs/scale.md).

    <out>/shards-<key>/cuts.<n>.jsonl.gz     the cuts of a shard, of the set in a random order
    <out>/shards-<key>/features.<n>.tar      their stored features (lilcom), or
    <out>/shards-<key>/recording.<n>.tar     their audio: 16 kHz, one channel, 16 bits (FLAC)
    <out>/notes-<key>/<n>.json               sizes of these two files, written last
    <out>/clips.npy                          a row a clip, in the order of the shards: what is asked before it is read

The gender stream reads the shards of the emotion stream and leaves out the clips without a gender: so no clip is
written twice. A shard holds JSON, lilcom and FLAC; nothing in it is ever unpickled or unpacked to disk.
"""

import gzip
import io
import json
import os
import shutil
import tarfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from lhotse import AudioSource, Recording
from lhotse.cut import Cut
from lhotse.serialization import SequentialJsonlWriter
from lhotse.shar.utils import fill_shar_placeholder, to_shar_placeholder
from lhotse.utils import fastcopy

from speecheq.cluster import distributed
from speecheq.common.errors import InputError
from speecheq.common.files import (
    folder_in_use,
    make_parent,
    note_sizes,
    read_json,
    remove_leftovers,
    sizes_are_as_noted,
    whole_file,
)
from speecheq.common.process_pool import in_processes
from speecheq.common.progress import Progress
from speecheq.common.stages import Stage, require
from speecheq.config.schema import Config, DataConfig, SharConfig
from speecheq.dataset.batch import Position
from speecheq.dataset.lazy_cuts import CutFile, cut_from_line
from speecheq.dataset.loader import Request, Source
from speecheq.dataset.shard_plan import Dealing, Epoch
from speecheq.features.audio import load_waveform
from speecheq.features.fbank import FbankConfig
from speecheq.features.storage import TICK_POWER, load_features

# Raised when what this module writes changes its meaning.
FORMAT = 1
# By data.input: the field of a cut that a shard holds, and the ending of its files there.
FIELDS = {"stored": ("features", ".llc"), "waveform": ("recording", ".flac")}
# A process looks through the whole manifest once for so many shards, whose lines it then holds (about 1 kB a clip).
SHARDS_A_PASS = 100


# ---- writing


def folder_of(root: Path, kind: str, source: Path) -> Path:
    """Where the shards of what stage 3 left in ``source`` lie, by data.input: a fold's or those of a phoneme corpus."""
    return Path(root) / kind / source.parent.name / source.name


def training_set(source: Path) -> tuple[Path, int]:
    """The training cuts that stage 3 left in a folder, and how many they are."""
    require(source, "unify")
    if (source / "msud.json").is_file():
        return source / "emotion.jsonl.gz", read_json(source / "msud.json")["sets"]["emotion"]["clips"]
    return source / "train.jsonl.gz", read_json(source / "phonemes.json")["clips"]["train"]


class _Writing:
    """The shards of one set while they are made."""

    def __init__(self, source: Path, out_dir: Path, kind: str, shard_clips: int):
        self.out, self.kind, self.shard_clips = Path(out_dir), kind, shard_clips
        self.manifest, self.clips = training_set(source)
        options: dict[str, Any] = {"input": kind, "shard_clips": shard_clips}
        if kind == "stored":
            options["tick_power"] = TICK_POWER
        title = f"{kind} shards of {source.parent.name}/{source.name}"
        self.stage = Stage("shar", title, self.out, options, [source], FORMAT)
        self.shards = range(-(-self.clips // shard_clips))
        self.folder, self.notes = self.out / f"shards-{self.stage.key}", self.out / f"notes-{self.stage.key}"

    def paths(self, number: int) -> tuple[Path, Path]:
        return _paths(self.folder, self.kind, number)

    def note(self, number: int) -> Path:
        return self.notes / f"{number:06d}.json"

    def missing(self) -> list[int]:
        return [number for number in self.shards if not sizes_are_as_noted(self.note(number))]

    def write(self, numbers: Collection[int]) -> int:
        """Write these shards; returns how many they are."""
        # stage 3 leaves clips by corpus and speaker; a place in this order is a place in the shards
        places = np.random.RandomState(0).permutation(self.clips)
        chosen = np.isin(places // self.shard_clips, list(numbers))
        lines: dict[int, bytes] = {
            int(place): line for place, wanted, line in zip(places, chosen, CutFile(self.manifest).lines()) if wanted
        }
        for number in numbers:
            first = number * self.shard_clips
            of_shard = [lines.pop(place) for place in range(first, min(first + self.shard_clips, self.clips))]
            self._write_shard(number, map(cut_from_line, of_shard))
        return len(numbers)

    def _write_shard(self, number: int, cuts: Iterable[Cut]) -> None:
        manifest, archive = self.paths(number)
        with whole_file(archive) as new_archive, whole_file(manifest) as new_manifest:
            # lhotse's own writers take a % in a folder's name for a pattern, and round features more coarsely
            with tarfile.open(new_archive, "w") as tar, SequentialJsonlWriter(new_manifest) as lines:
                for cut in cuts:
                    cut, data = _for_shard(cut, self.kind)
                    field, ending = FIELDS[self.kind]
                    of_field = json.dumps(getattr(cut, field).to_dict()).encode()
                    for name, content in ((cut.id + ending, data), (f"{cut.id}.json", of_field)):
                        member = tarfile.TarInfo(name)
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
                    lines.write(cut)
        note_sizes(self.note(number), (manifest, archive))

    def finish(self) -> None:
        """Gather what is known of each clip, write the stamp, remove what is of no use any more."""
        self.stage.invalidate()
        with whole_file(self.out / "clips.npy") as temporary:
            np.save(temporary, _describe([self.paths(number)[0] for number in self.shards]), allow_pickle=False)
        names = [os.path.relpath(path, self.out) for number in self.shards for path in self.paths(number)]
        self.stage.finish(self.out, self.clips, self.clips, outputs=["clips.npy", *names], unit="clips")
        for stale in (*self.out.glob("shards-*"), *self.out.glob("notes-*")):
            if stale not in (self.folder, self.notes):
                shutil.rmtree(stale)
        for folder in (self.folder, self.notes):
            remove_leftovers(folder)


def _paths(folder: Path, kind: str, number: int) -> tuple[Path, Path]:
    """(manifest, archive) of a shard."""
    return folder / f"cuts.{number:06d}.jsonl.gz", folder / f"{FIELDS[kind][0]}.{number:06d}.tar"


def _for_shard(cut: Cut, kind: str) -> tuple[Cut, bytes]:
    """A cut as a shard's manifest has it, and its features or audio."""
    if kind == "stored":
        import lilcom

        data = lilcom.compress(load_features(cut).numpy(), tick_power=TICK_POWER)
        return fastcopy(cut, start=0, features=to_shar_placeholder(cut.features, cut), recording=None), data
    samples, rate = load_waveform(cut), FbankConfig.sampling_rate
    audio = io.BytesIO()
    whole_numbers = np.clip(np.rint(samples * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16)
    soundfile.write(audio, whole_numbers, rate, format="FLAC", subtype="PCM_16")
    seconds = len(samples) / rate  # a resampled clip may differ from its cut by a part of a sample
    recording = Recording(cut.recording.id, [AudioSource("shar", [0], "")], rate, len(samples), seconds, [0])
    return fastcopy(cut, start=0, duration=seconds, channel=0, features=None, recording=recording), audio.getvalue()


def _describe(manifests: Sequence[Path]) -> np.ndarray:
    """A row a clip: shard, id, duration in seconds, corpus, gender (empty: none is known)."""
    columns: list[list[np.ndarray]] = [[], [], [], [], []]
    for number, manifest in enumerate(manifests):
        cuts = [json.loads(line) for line in CutFile(manifest).lines()]
        labels = [cut["supervisions"][0] for cut in cuts]
        for column, values in zip(
            columns,
            (
                np.full(len(cuts), number, np.int32),
                np.array([cut["id"].encode() for cut in cuts]),
                np.array([cut["duration"] for cut in cuts]),
                np.array([of["custom"]["corpus"].encode() for of in labels]),
                np.array([(of.get("gender") or "").encode() for of in labels], "S1"),
            ),
        ):
            column.append(values)
    joined = [np.concatenate(column) for column in columns]
    names = ("shard", "id", "duration", "corpus", "gender")
    table = np.empty(len(joined[0]), [(name, values.dtype) for name, values in zip(names, joined)])
    for name, values in zip(names, joined):
        table[name] = values
    return table


def missing_shards(source: Path, out_dir: Path, kind: str, shard_clips: int) -> list[int] | None:
    """The numbers, from 0, of the shards that ``write_shards`` would write; None where all is done."""
    writing = _Writing(source, out_dir, kind, shard_clips)
    return writing.missing() if writing.stage.needs_run() else None


def write_shards(
    source: Path, out_dir: Path, kind: str, shard_clips: int, nj: int = 1, numbers: Collection[int] | None = None
) -> None:
    """Write what stage 3 left in ``source``, a fold or phonemes, as shards of ``shard_clips`` clips below ``out_dir``.

    ``kind`` is what training reads of them (data.input). ``nj`` processes write; shards that are there and whole are
    kept. With ``numbers`` only these are written, and left for a run without to be stamped: so jobs share a set.
    InputError where stage 3 has not run or a clip cannot be read.
    """
    writing = _Writing(Path(source), out_dir, kind, shard_clips)
    if not writing.stage.needs_run() or writing.stage.added_to_plan():
        return
    if numbers is not None:
        make_parent(out_dir)
        with folder_in_use(source), folder_in_use(out_dir):  # many jobs may have shards, but none beside a whole run
            _write(writing, nj, numbers)
        return
    with writing.stage.locked() as is_missing:
        if is_missing:
            _write(writing, nj)
            writing.finish()


def _write(writing: _Writing, nj: int, numbers: Collection[int] | None = None) -> None:
    """The shards that are missing, of all or of ``numbers``."""
    missing = [number for number in writing.missing() if numbers is None or number in numbers]
    size = max(1, min(SHARDS_A_PASS, -(-len(missing) // nj)))
    tasks = [(missing[first : first + size],) for first in range(0, len(missing), size)]
    whole = len(writing.shards if numbers is None else numbers) - len(missing)
    with Progress(writing.stage.title, whole + len(missing), "shards", done=whole) as shown:
        for written in in_processes(writing.write, tasks, nj, str(writing.out)):
            shown.update(written)


# ---- reading


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
                member, _ = tar.next(), tar.next()  # the second one says again what the manifest says
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
                of_field = getattr(cut, field)
                fill_shar_placeholder(of_field, tar.extractfile(member).read(), member.name)
                if field == "features":
                    of_field.storage_path = str(archive)  # for what is said where it cannot be decoded
                yield cut
                next_wanted = next(wanted, None)
                if next_wanted is None:
                    return
    except InputError:
        raise
    except Exception as error:  # gzip, tarfile, JSON, lhotse and the file system each have their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        culprit = manifest if isinstance(error, (EOFError, gzip.BadGzipFile)) else archive
        culprit = getattr(error, "filename", None) or culprit
        raise InputError(f"{culprit}: cannot be read ({reason}); remove it and run stage 3 again.") from error
    raise InputError(
        f"{archive}: it or {manifest.name} ends after {read} clips, but clip {next_wanted + 1} is there by clips.npy; "
        "remove both and run stage 3 again."
    )


class Shards(Source):
    """A set that ``write_shards`` has written to ``folder``, with all its clips or those of one ``corpus``."""

    def __init__(self, folder: Path, config: SharConfig, corpus: str | None = None):
        folder = Path(folder)
        stamp = require(folder, "shar")
        self.kind, self.config = stamp["options"]["input"], config
        self.folder = folder / f"shards-{stamp['key']}"
        try:
            self.clips = np.load(folder / "clips.npy", mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise InputError(
                f"{folder / 'clips.npy'}: cannot be read ({error}); remove it and run stage 3 again."
            ) from error
        self.first = np.searchsorted(self.clips["shard"], np.arange(self.clips["shard"][-1] + 2))  # of each shard
        self.of_corpus = self.clips["corpus"] == corpus.encode() if corpus else np.ones(len(self.clips), bool)

    def _wanted(self, stream: str) -> np.ndarray:
        """Which clips the stream has, as bools."""
        return self.of_corpus & (self.clips["gender"] != b"") if stream == "gender" else self.of_corpus

    def _rows(self, wanted: np.ndarray, pieces: list[tuple[int, int, int]]) -> list[tuple[int, np.ndarray]]:
        """(shard, rows of clips.npy) of pieces of shards, counted in clips that are wanted."""
        return [
            (shard, self.first[shard] + np.flatnonzero(wanted[self.first[shard] : self.first[shard + 1]])[a:b])
            for shard, a, b in pieces
        ]

    def _epoch(self, stream: str, config: DataConfig, seed: int, number: int, wanted: np.ndarray) -> Epoch:
        counts = np.add.reduceat(wanted.astype(np.int64), self.first[:-1])
        seconds = config.phoneme_batch_seconds if stream == "phoneme" else None
        shar = self.config
        dealing = Dealing(int(counts.sum()), shar.lanes, shar.parts, config.batch_size, seconds, shar.buffer, stream)

        def durations(pieces: list[tuple[int, int, int]]) -> np.ndarray:
            return self._column("duration", wanted, pieces)

        return Epoch(dealing, counts, f"{seed} {stream} {number}", durations)

    def _column(self, name: str, wanted: np.ndarray, pieces: list[tuple[int, int, int]]) -> np.ndarray:
        return np.concatenate([self.clips[name][rows] for _, rows in self._rows(wanted, pieces)] or [np.empty(0)])

    def requests(self, stream, config, seed, start, loader, loaders):
        wanted = self._wanted(stream)
        for number in count(start.epoch):
            epoch = self._epoch(stream, config, seed, number, wanted)
            if loader >= epoch.dealing.parts:
                return  # nothing is left for it, and nobody asks
            turns = epoch.turns()
            before = turns[: start.batch] if number == start.epoch else []
            parts = {
                part: self._part(epoch, wanted, part, before.count(part))
                for part in set(turns)
                if part % loaders == loader
            }
            for place, part in islice(enumerate(turns), len(before), None):
                if part in parts:
                    cuts, ids = next(parts[part])
                    yield Request(Position(number, place), place == len(turns) - 1, cuts, ids)

    def turns(self, stream, config, seed, start, loaders):
        wanted = self._wanted(stream)
        for number in count(start.epoch):
            turns = self._epoch(stream, config, seed, number, wanted).turns()
            yield from (part % loaders for part in turns[start.batch if number == start.epoch else 0 :])

    def _part(self, epoch: Epoch, wanted: np.ndarray, part: int, batch: int) -> Iterator[tuple[list[Cut], list[str]]]:
        """This process' cuts, and the ids of all, of the mini-batches of a part from ``batch`` on.

        A block is read while the one before it is handed out.
        """
        lanes = range(distributed.rank(), epoch.dealing.lanes, distributed.size())
        readers: dict[int, Iterator[Cut]] = {}

        def read(number: int) -> dict[int, list[Cut]]:
            cuts = {}
            for lane in lanes:
                first, stop = epoch.dealing.of_block(part, number, lane)
                if lane not in readers:
                    readers[lane] = self._read(wanted, epoch.pieces(first, epoch.dealing.run(part, lane)[1]))
                cuts[lane] = list(islice(readers[lane], stop - first))
            return cuts

        def ids(number: int, lane: int) -> list[str]:
            pieces = epoch.pieces(*epoch.dealing.of_block(part, number, lane))
            return [name.decode() for name in self._column("id", wanted, pieces)]

        with ThreadPoolExecutor(1) as ahead:
            reading = None
            for number, block in epoch.blocks_from(part, batch):
                reading = reading or ahead.submit(read, number)
                cuts = reading.result()
                is_last = number + 1 == epoch.dealing.blocks(part)
                reading = None if is_last else ahead.submit(read, number + 1)
                names = {lane: ids(number, lane) for lane in range(epoch.dealing.lanes)}
                for of_batch in block.batches:
                    clips = block.clips(of_batch)
                    yield (
                        [cuts[lane][place] for lane, place in clips if lane in cuts],
                        [names[lane][place] for lane, place in clips],
                    )

    def _read(self, wanted: np.ndarray, pieces: list[tuple[int, int, int]]) -> Iterator[Cut]:
        for shard, rows in self._rows(wanted, pieces):
            yield from _read_shard(*_paths(self.folder, self.kind, shard), (rows - self.first[shard]).tolist())


def check_processes(config: Config, processes: int) -> None:
    """InputError unless so many processes can share a training from shards."""
    if config.shar.use and config.shar.lanes % processes:
        raise InputError(
            f"shar.lanes is {config.shar.lanes}, but {processes} processes train, and it must be a multiple of them: "
            f"give --set shar.lanes={processes} (and the same for all runs that are to be compared)."
        )
