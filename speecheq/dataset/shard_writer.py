"""Write training clips as Lhotse Shar, once for each fold or phoneme corpus (docs/scale.md).

    <out>/shards-<key>/cuts.<n>.jsonl.gz     the cuts of a shard; the set is in a random order
    <out>/shards-<key>/features.<n>.tar      their stored features (lilcom), or
    <out>/shards-<key>/recording.<n>.tar     their audio: 16 kHz, one channel, 16 bits (FLAC)
    <out>/notes-<key>/<n>.json               the sizes of these two files, written last
    <out>/clips.npy                          a row a clip, in the order of the shards: what is needed to plan an epoch

The gender stream reads the shards of the emotion stream and skips clips without a gender, so no clip is written twice.
"""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from lhotse import AudioSource, Recording
from lhotse.cut import Cut
from lhotse.serialization import SequentialJsonlWriter
from lhotse.shar.utils import to_shar_placeholder
from lhotse.utils import fastcopy

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
from speecheq.dataset.lazy_cuts import CutFile, cut_from_line
from speecheq.features.audio import load_waveform
from speecheq.features.fbank import FbankConfig
from speecheq.features.storage import TICK_POWER, load_features

FORMAT = 1
# By data.input: the field of a cut that a shard holds, and the ending of its files there.
FIELDS = {"stored": ("features", ".llc"), "waveform": ("recording", ".flac")}
# Shards written in one pass over the manifest by a process, which holds their lines (about 1 kB a clip).
SHARDS_PER_PASS = 100


def shard_folder(root: Path, kind: str, source: Path) -> Path:
    """The folder of the shards of ``source``, a fold or phoneme corpus of stage 3; ``kind``: data.input."""
    return Path(root) / kind / source.parent.name / source.name


def shard_paths(folder: Path, kind: str, number: int) -> tuple[Path, Path]:
    """(manifest, archive) of a shard."""
    return folder / f"cuts.{number:06d}.jsonl.gz", folder / f"{FIELDS[kind][0]}.{number:06d}.tar"


def training_set(source: Path) -> tuple[Path, int]:
    """(manifest, number of cuts) of the training set that stage 3 left in a folder."""
    require(source, "unify")
    if (source / "msud.json").is_file():
        return source / "emotion.jsonl.gz", read_json(source / "msud.json")["sets"]["emotion"]["clips"]
    return source / "train.jsonl.gz", read_json(source / "phonemes.json")["clips"]["train"]


class _ShardWriter:
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
        return shard_paths(self.folder, self.kind, number)

    def note(self, number: int) -> Path:
        return self.notes / f"{number:06d}.json"

    def missing(self) -> list[int]:
        return [number for number in self.shards if not sizes_are_as_noted(self.note(number))]

    def write_missing(self, nj: int, numbers: Collection[int] | None = None) -> None:
        """Write the shards that are missing, of all or of ``numbers``, with ``nj`` processes."""
        missing = [number for number in self.missing() if numbers is None or number in numbers]
        size = max(1, min(SHARDS_PER_PASS, -(-len(missing) // nj)))
        tasks = [(missing[first : first + size],) for first in range(0, len(missing), size)]
        whole = len(self.shards if numbers is None else numbers) - len(missing)
        with Progress(self.stage.title, whole + len(missing), "shards", done=whole) as shown:
            for written in in_processes(self.write, tasks, nj, str(self.out)):
                shown.update(written)

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
            clips = range(first, min(first + self.shard_clips, self.clips))
            self._write_shard(number, (cut_from_line(lines.pop(place)) for place in clips))
        return len(numbers)

    def _write_shard(self, number: int, cuts: Iterable[Cut]) -> None:
        field, ending = FIELDS[self.kind]
        manifest, archive = self.paths(number)
        with whole_file(archive) as new_archive, whole_file(manifest) as new_manifest:
            # lhotse's own writers take a % in a folder's name for a pattern, and round features more coarsely
            with tarfile.open(new_archive, "w") as tar, SequentialJsonlWriter(new_manifest) as lines:
                for cut in cuts:
                    cut, data = _for_shard(cut, self.kind)
                    description = json.dumps(getattr(cut, field).to_dict()).encode()
                    for name, content in ((cut.id + ending, data), (f"{cut.id}.json", description)):
                        member = tarfile.TarInfo(name)
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
                    lines.write(cut)
        note_sizes(self.note(number), (manifest, archive))

    def finish(self) -> None:
        """Write the table of clips and the stamp, remove the shards of other keys."""
        self.stage.invalidate()
        with whole_file(self.out / "clips.npy") as temporary:
            np.save(temporary, _clips_table([self.paths(number)[0] for number in self.shards]), allow_pickle=False)
        names = [os.path.relpath(path, self.out) for number in self.shards for path in self.paths(number)]
        self.stage.finish(self.out, self.clips, self.clips, outputs=["clips.npy", *names], unit="clips")
        for stale in (*self.out.glob("shards-*"), *self.out.glob("notes-*")):
            if stale not in (self.folder, self.notes):
                shutil.rmtree(stale)
        for folder in (self.folder, self.notes):
            remove_leftovers(folder)


def _for_shard(cut: Cut, kind: str) -> tuple[Cut, bytes]:
    """A cut as written in a shard's manifest, and its features or audio."""
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


def _clips_table(manifests: Sequence[Path]) -> np.ndarray:
    """A row a clip: shard, id, duration in seconds, corpus, gender (empty: unknown)."""
    shards = []
    for number, manifest in enumerate(manifests):
        cuts = [json.loads(line) for line in CutFile(manifest).lines()]
        labels = [cut["supervisions"][0] for cut in cuts]
        shards.append(
            {
                "shard": np.full(len(cuts), number, np.int32),
                "id": np.array([cut["id"].encode() for cut in cuts]),
                "duration": np.array([cut["duration"] for cut in cuts]),
                "corpus": np.array([label["custom"]["corpus"].encode() for label in labels]),
                "gender": np.array([(label.get("gender") or "").encode() for label in labels], "S1"),
            }
        )
    columns = {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}
    table = np.empty(len(columns["id"]), [(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        table[name] = values
    return table


def missing_shards(source: Path, out_dir: Path, kind: str, shard_clips: int) -> list[int] | None:
    """The numbers, from 0, of the shards that ``write_shards`` would write; None where all is done."""
    writer = _ShardWriter(source, out_dir, kind, shard_clips)
    return writer.missing() if writer.stage.needs_run() else None


def write_shards(
    source: Path, out_dir: Path, kind: str, shard_clips: int, nj: int = 1, numbers: Collection[int] | None = None
) -> None:
    """Write what stage 3 left in ``source``, a fold or phonemes, as shards of ``shard_clips`` clips below ``out_dir``.

    ``kind`` is data.input. ``nj`` processes write; complete shards are kept. So that jobs can share a set, with
    ``numbers`` only these shards are written, without a stamp: a later call without ``numbers`` stamps the set. Raises
    InputError if stage 3 has not run or a clip cannot be read.
    """
    writer = _ShardWriter(Path(source), out_dir, kind, shard_clips)
    if not writer.stage.needs_run() or writer.stage.added_to_plan():
        return
    if numbers is not None:
        make_parent(out_dir)
        with folder_in_use(source), folder_in_use(out_dir):  # several jobs may write here, but not beside a full run
            writer.write_missing(nj, numbers)
        return
    with writer.stage.locked() as is_missing:
        if is_missing:
            writer.write_missing(nj)
            writer.finish()
