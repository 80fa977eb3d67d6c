#!/usr/bin/env python3
"""What shards take and give: bytes an hour, how fast they are written and read, how long an epoch takes to plan.

    python benchmarks/shards.py SOURCE... [--copies 20] [--rounds 3] [--folder DIR] [--clips 1000000 7000000]

SOURCE is what stage 3 left: a fold (data/msud/casia.random10/fold1) or phonemes (data/phonemes/aishell). Its clips,
so many times under other names that there are more shards than runs, are written as shards of features and of audio,
and read as a training reads them, by one process, beside the same clips found one by one. A row is the best of the
rounds. "cold" is read after the kernel was asked to forget the files, which it may not do for all of them; the machine
under it may remember them too.
"""

import argparse
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import start
import torch

from speecheq.common.digests import tree_sizes
from speecheq.common.files import read_json, write_json
from speecheq.config.schema import DataConfig, SharConfig
from speecheq.dataset.loader import endless_stream, training_cuts
from speecheq.dataset.shard_plan import Epoch, ShardPlan
from speecheq.dataset.shard_reader import Shards
from speecheq.dataset.shard_writer import training_set, write_shards


class Took(NamedTuple):
    """Seconds of the processor, and by the clock."""

    processor: float
    clock: float


def timed(work: Callable[[], None]) -> Took:
    used, started = time.process_time(), time.perf_counter()
    work()
    return Took(time.process_time() - used, time.perf_counter() - started)


def best(tries: Iterable[Took]) -> Took:
    """The least of each: other programs only add to both."""
    return Took(*map(min, zip(*tries)))


def forget(paths: Iterable[Path]) -> None:
    """Ask the kernel to drop files from its cache."""
    for path in paths:
        with open(path, "rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def one_epoch(stream: str, clips: object, config: DataConfig, seed: int) -> Callable[[], None]:
    """A function that loads an epoch's mini-batches in this process."""

    def load() -> None:
        batches: Iterator = endless_stream(stream, clips, config, seed)
        for batch in takewhile(lambda batch: not batch.last, batches):
            del batch

    return load


def copied(source: Path, folder: Path, copies: int) -> Path:
    """What stage 3 left in a folder, its training clips ``copies`` times."""
    made = folder / "sources" / source.name
    shutil.copytree(source, made)
    manifest, clips = training_set(made)
    start.multiply(manifest, copies * clips)
    for name, keys in (("msud.json", ("sets", "emotion", "clips")), ("phonemes.json", ("clips", "train"))):
        if (made / name).is_file():
            note = part = read_json(made / name)
            for key in keys[:-1]:
                part = part[key]
            part[keys[-1]] = copies * clips
            write_json(made / name, note)
            stamp = read_json(made / "stage.json")
            stamp["outputs"][name] = (made / name).stat().st_size
            write_json(made / "stage.json", stamp)
    return made


def measure(source: Path, folder: Path, rounds: int, shard_clips: int) -> None:
    """Print the sizes and speeds of one set."""
    manifest, _ = training_set(source)
    cuts = list(training_cuts(manifest))
    stream = "emotion" if manifest.stem.startswith("emotion") else "phoneme"
    hours = sum(cut.duration for cut in cuts) / 3600
    audio = {Path(cut.recording.sources[0].source) for cut in cuts}
    archives = {Path(cut.features.storage_path) for cut in cuts}
    print(f"\n{source.name}: {len(cuts)} clips, {hours:.2f} h, {3600 * hours / len(cuts):.2f} s a clip")
    print(f"  {'':34s} {'MB an hour':>10s} {'clips/s':>9s} {'x real time':>11s} {'clips/s by clock':>17s}")

    def row(name: str, took: Took, megabytes: float = float("nan")) -> None:
        print(
            f"  {name:34s} {megabytes:10.1f} {len(cuts) / took.processor:9.0f} "
            f"{3600 * hours / took.processor:11.0f} {len(cuts) / took.clock:17.0f}"
        )

    for kind in ("stored", "waveform"):
        out = folder / kind / source.name
        took = timed(lambda: write_shards(source, out, kind, shard_clips))
        sizes = tree_sizes(out)
        shards = sum(size for name, size in sizes.items() if name.endswith(".tar"))
        tables = sum(size for name, size in sizes.items() if not name.endswith(".tar"))
        row(f"{kind}: written as shards", took, shards / 1e6 / hours)
        a_clip = f"{tables / len(cuts):.0f} bytes a clip"
        print(f"  {'of it manifests and clips.npy':34s} {tables / 1e6 / hours:10.1f}, {a_clip}")
        config = DataConfig(input=kind, workers=0)
        shar = Shards(out, SharConfig(True, lanes=8, parts=4, buffer=4096))
        places = {
            "cuts": (training_cuts(manifest), archives if kind == "stored" else audio),
            "shards": (shar, list(out.rglob("*.tar"))),
        }
        for name, (clips, files) in places.items():
            row(
                f"{kind}: read from {name}",
                best(timed(one_epoch(stream, clips, config, seed)) for seed in range(rounds)),
            )

            def cold() -> Iterator[Took]:
                for seed in range(rounds):
                    forget(files)
                    yield timed(one_epoch(stream, clips, config, seed))

            row(f"{kind}: read from {name}, cold", best(cold()))


def plan_epoch(clips: int) -> None:
    """Print what the plan of an epoch of so many clips takes."""
    durations = np.random.default_rng(0).uniform(1.0, 16.0, clips)
    first = np.append(np.arange(0, clips, 1000), clips)

    def get_durations(pieces: list) -> np.ndarray:
        return np.concatenate([durations[first[shard] + a : first[shard] + b] for shard, a, b in pieces])

    plan = ShardPlan(clips, 8, 4, 32, 320.0, 4096, "phoneme")
    found = []
    took = timed(lambda: found.extend(Epoch(plan, np.diff(first), "0", get_durations).round_robin()))
    print(
        f"an epoch of {clips} clips ({durations.sum() / 3600:.0f} h) is planned as {len(found)} mini-batches in "
        f"{took.processor:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="*", type=Path, metavar="SOURCE")
    parser.add_argument("--folder", type=Path, help="where shards are written (default: a temporary folder)")
    parser.add_argument("--copies", type=int, default=20, help="of each clip")
    parser.add_argument("--shard-clips", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, nargs="*", default=[], help="plan epochs of so many clips")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for source in given.sources:
            measure(copied(source, Path(folder), given.copies), Path(folder), given.rounds, given.shard_clips)
    for clips in given.clips:
        plan_epoch(clips)
    print(f"peak of memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
