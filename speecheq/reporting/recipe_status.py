"""What of a recipe is done, stale or missing, and what it took: ``run.sh --status true``, ``speecheq status``.

Everything is read from the folders and their stamps; nothing is changed.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speecheq.common.errors import InputError
from speecheq.common.files import is_locked, read_json
from speecheq.common.stages import NUMBERS, STAMP, describe_input
from speecheq.corpora import audio_folder, prepare
from speecheq.dataset import msud, phoneme_cuts, shard_reader
from speecheq.evaluation import score
from speecheq.evaluation.robustness import conditions
from speecheq.features import storage
from speecheq.training import train

DONE, STALE, DAMAGED, RUNNING, BROKEN_OFF, MISSING = STATES = (
    "done",
    "stale",
    "damaged",
    "running",
    "broken off",
    "missing",
)
# Manifests of sounds without labels, which have no stored features.
SOUNDS = ("noise", "rir", "unlabelled", "test_noise", "test_rir")
# Where stage 5 writes beside a training: the scores, what only pictures need, the scores under other conditions.
SCORED = (*score.FORMATS, *conditions.FORMATS)


@dataclass(frozen=True)
class Found:
    """One folder that a stage writes. ``reason`` says why it is not done; ``stamp`` is empty where there is none."""

    stage: str
    folder: Path
    state: str
    reason: str
    stamp: Mapping[str, Any]
    bytes: int

    @property
    def dropped(self) -> int:
        return sum(map(len, self.stamp.get("dropped", {}).values()))


def _format(stage: str, folder: Path) -> int:
    """The format number that this version of the program writes there."""
    if stage == "manifests":
        return (audio_folder if folder.name in SOUNDS else prepare).FORMAT
    if stage == "unify":
        return (phoneme_cuts if folder.parent.name == "phonemes" else msud).FORMAT
    if stage == "score":
        return {**score.FORMATS, **conditions.FORMATS}[folder.name]
    return {"features": storage, "shar": shard_reader, "train": train}[stage].FORMAT


def _written(folder: Path, outputs: Mapping[str, int]) -> Iterator[tuple[Path, int]]:
    for name, size in outputs.items():
        yield Path(os.path.normpath(folder / name)), size


def _disk(folder: Path, below: Collection[str]) -> int:
    """Bytes of all files in a folder, but for the folders ``below`` in it, which another stage writes."""
    return sum(
        path.lstat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not set(below) & set(path.relative_to(folder).parts)
    )


class Status:
    """The folders below ``data`` and ``exp``, each looked at once.

    ``corpora``: whether the corpora themselves are looked through for changes, which takes a while on a large one.
    """

    def __init__(self, data: Path, exp: Path, corpora: bool = True):
        self.data, self.exp, self.corpora = Path(data), Path(exp), corpora
        self._seen: dict[str, Found] = {}

    def look(self, stage: str, folder: Path) -> Found:
        """The state of the folder that a stage writes."""
        name = os.path.normpath(folder)
        if name not in self._seen:
            stamp, state, reason = self._state(stage, Path(folder))
            outputs = [path for path, _ in _written(folder, stamp.get("outputs", {}))]
            disk = (
                sum(path.stat().st_size for path in outputs if path.is_file())
                if stage == "score"
                else _disk(Path(folder), SCORED)
            )
            self._seen[name] = Found(stage, Path(folder), state, reason, stamp, disk)
        return self._seen[name]

    def _state(self, stage: str, folder: Path) -> tuple[Mapping[str, Any], str, str]:
        if not (folder / STAMP).is_file():
            if is_locked(folder):
                return {}, RUNNING, "a process is writing there"
            empty = not folder.is_dir() or not any(folder.iterdir())
            return (
                ({}, MISSING, f"stage {NUMBERS[stage]} has not been run for it")
                if empty
                else ({}, BROKEN_OFF, "it has no stamp; the same command goes on with it")
            )
        try:
            stamp = read_json(folder / STAMP)
        except InputError as damaged:
            return {}, DAMAGED, str(damaged)
        for path, size in _written(folder, stamp["outputs"]):
            if not path.is_file() or path.stat().st_size != size:
                if stage == "train" and path.name in score.CHECKPOINTS and not path.exists():
                    continue  # may be removed once it is scored
                return stamp, DAMAGED, f"{path} is not as the stage left it"
        if stamp["format"] != _format(stage, folder):
            return stamp, STALE, "another version of the program wrote it"
        for source, key in stamp["inputs"].items():
            reason = self._why_stale(Path(source), key)
            if reason:
                return stamp, STALE, reason
        return stamp, DONE, ""

    def _why_stale(self, source: Path, key: Any) -> str | None:
        if (source / STAMP).is_file():
            read = read_json(source / STAMP)
            if read["key"] != key:
                return f"{source} was made anew since"
            # what is damaged is made again with the same key, so what was made of it stays
            return f"{source} is {STALE}" if self.look(read["stage"], source).state == STALE else None
        if not self.corpora or not source.exists():  # a corpus may be unmounted once its features are made
            return None
        return None if describe_input(source) == key else f"{source} has changed since"

    def all(self) -> list[Found]:
        """Of all stages, in their order; with those folders that a stage could fill from what the one before left."""
        found = [self.look("manifests", folder) for folder in _folders(self.data / "manifests")]
        found += [
            self.look("features", self.data / "fbank" / before.folder.name)
            for before in list(found)
            if before.folder.name not in SOUNDS
        ]
        found += [self.look("unify", folder) for folder in _folders(self.data / "phonemes")]
        found += [self.look("unify", fold) for name in _folders(self.data / "msud") for fold in _folders(name, "fold")]
        found += [
            self.look("shar", folder)
            for kind in _folders(self.data / "shar")
            for name in _folders(kind)
            for folder in _folders(name)
        ]
        for experiment in (
            folder for system in _folders(self.exp) for folder in _folders(system) if _folders(folder, "fold")
        ):
            seeds: dict[str, list[str]] = defaultdict(list)
            for fold in _folders(experiment, "fold"):
                for seed in _folders(fold, "seed"):
                    seeds[seed.name].append(fold.name)
            prepared = [fold.name for fold in _folders(self.data / "msud" / experiment.name, "fold")]
            for seed, folds in sorted(seeds.items()):
                for fold in sorted({*folds, *prepared}, key=_number):
                    trained = self.look("train", experiment / fold / seed)
                    found.append(trained)
                    if trained.stamp:
                        found += [
                            self.look("score", trained.folder / name)
                            for name in SCORED
                            # what only pictures need, or nobody has asked for, is not missing
                            if name == score.STAMP_FOLDER or (trained.folder / name).is_dir()
                        ]
        return sorted(found, key=lambda line: NUMBERS[line.stage])


def _number(name: str) -> tuple[int, str]:
    digits = "".join(filter(str.isdigit, name))
    return int(digits or 0), name


def _folders(folder: Path, prefix: str = "") -> list[Path]:
    """The folders in a folder, fold2 before fold10; none where there is no such folder."""
    inside = folder.iterdir() if folder.is_dir() else ()
    found = [path for path in inside if path.is_dir() and path.name.startswith(prefix) and path.name[0] != "."]
    return sorted(found, key=lambda path: _number(path.name) if prefix else (0, path.name))


def _size(number: int) -> str:
    size, unit = float(number), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {left:02d} s"


def in_lines(found: list[Found]) -> Iterator[str]:
    """A line a folder, a sum a stage."""
    if not found:
        yield "nothing has been run here yet"
        return
    width = max(len(str(line.folder)) for line in found)
    for stage, number in NUMBERS.items():
        of_stage = [line for line in found if line.stage == stage]
        if not of_stage:
            continue
        counts = ", ".join(
            f"{sum(line.state == state for line in of_stage)} {state}"
            for state in STATES
            if any(line.state == state for line in of_stage)
        )
        seconds, disk = sum(line.stamp.get("seconds", 0) for line in of_stage), sum(line.bytes for line in of_stage)
        yield f"stage {number} ({stage}): {counts}; {_time(seconds)}, {_size(disk)}"
        for line in of_stage:
            what = line.reason
            if line.state == DONE:
                what = f"{line.stamp['in']} in, {line.stamp['out']} out, {line.dropped} dropped; "
                what += f"{_time(line.stamp['seconds'])}, {_size(line.bytes)}"
            yield f"  {line.state:10s} {str(line.folder):{width}s}  {what}"
