"""Which folders of a recipe are done, stale or missing: ``run.sh --status true``, ``speecheq status``.

The state is read from the folders and their stamps; nothing is changed.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speecheq.common.errors import InputError
from speecheq.common.files import is_locked, read_json
from speecheq.common.stages import NUMBERS, STAMP, describe_input
from speecheq.corpora import audio_folder, prepare
from speecheq.dataset import msud, phoneme_cuts, shard_writer
from speecheq.evaluation import probe_run, score
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
# Manifests of audio folders without labels, for which no features are stored.
AUDIO_FOLDERS = ("noise", "rir", "unlabelled", "test_noise", "test_rir")
# Folders of stage 5 below that of a training.
SCORED = (*score.FORMATS, *conditions.FORMATS)


@dataclass(frozen=True)
class StageFolder:
    """A folder that a stage writes. ``reason``: why it is not done. ``stamp``: {} if there is none."""

    stage: str
    folder: Path
    state: str
    reason: str
    stamp: Mapping[str, Any]
    bytes: int

    @property
    def dropped(self) -> int:
        return sum(map(len, self.stamp.get("dropped", {}).values()))


def _current_format(stage: str, folder: Path) -> int:
    """The number of the format that this version of the program writes to a folder."""
    if stage == "manifests":
        return (audio_folder if folder.name in AUDIO_FOLDERS else prepare).FORMAT
    if stage == "unify":
        return (phoneme_cuts if folder.parent.name == "phonemes" else msud).FORMAT
    if stage == "score":
        return {**score.FORMATS, **conditions.FORMATS}[folder.name]
    return {"features": storage, "shar": shard_writer, "train": train, "probe": probe_run}[stage].FORMAT


def _outputs(folder: Path, stamp: Mapping[str, Any]) -> Iterator[tuple[Path, int]]:
    """(path, size) of each file that the stamp lists."""
    for name, size in stamp.get("outputs", {}).items():
        yield Path(os.path.normpath(folder / name)), size


def _disk_usage(folder: Path, without: Collection[str]) -> int:
    """Bytes of all files below a folder, except those in folders named in ``without``, which another stage writes."""
    return sum(
        path.lstat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not set(without) & set(path.relative_to(folder).parts)
    )


class Status:
    """The state of the folders below ``data`` and ``exp``; each is read once.

    ``corpora``: whether the corpora themselves are searched for changes, which takes long for a large one.
    """

    def __init__(self, data: Path, exp: Path, corpora: bool = True):
        self.data, self.exp, self.corpora = Path(data), Path(exp), corpora
        self._seen: dict[str, StageFolder] = {}

    def read(self, stage: str, folder: Path) -> StageFolder:
        """The state of the folder that a stage writes."""
        name = os.path.normpath(folder)
        if name not in self._seen:
            stamp, state, reason = self._state(stage, Path(folder))
            if stage == "score":
                disk = sum(path.stat().st_size for path, _ in _outputs(folder, stamp) if path.is_file())
            else:
                disk = _disk_usage(Path(folder), SCORED)
            self._seen[name] = StageFolder(stage, Path(folder), state, reason, stamp, disk)
        return self._seen[name]

    def _state(self, stage: str, folder: Path) -> tuple[Mapping[str, Any], str, str]:
        """(stamp, state, reason) of a folder."""
        if not (folder / STAMP).is_file():
            if is_locked(folder):
                return {}, RUNNING, "a process is writing there"
            if not folder.is_dir() or not any(folder.iterdir()):
                return {}, MISSING, f"stage {NUMBERS[stage]} has not been run for it"
            return {}, BROKEN_OFF, "it has no stamp; run the same command again to continue it"
        try:
            stamp = read_json(folder / STAMP)
        except InputError as damaged:
            return {}, DAMAGED, str(damaged)
        for path, size in _outputs(folder, stamp):
            if not path.is_file() or path.stat().st_size != size:
                if stage == "train" and path.name in score.CHECKPOINTS and not path.exists():
                    continue  # checkpoints may be removed once they are scored
                return stamp, DAMAGED, f"{path} is missing or has changed"
        if stamp["format"] != _current_format(stage, folder):
            return stamp, STALE, "another version of the program wrote it"
        for source, key in stamp["inputs"].items():
            reason = self._why_stale(Path(source), key)
            if reason:
                return stamp, STALE, reason
        return stamp, DONE, ""

    def _why_stale(self, source: Path, key: Any) -> str | None:
        """Why an input is not the one that was read, None if it is."""
        if (source / STAMP).is_file():
            stamp = read_json(source / STAMP)
            if stamp["key"] != key:
                return f"{source} was rewritten since"
            # a damaged folder will be made again with the same key, so what was made from it stays valid
            return f"{source} is {STALE}" if self.read(stamp["stage"], source).state == STALE else None
        if not self.corpora or not source.exists():  # a corpus may be unmounted once its features are stored
            return None
        return None if describe_input(source) == key else f"{source} has changed since"

    def all(self) -> list[StageFolder]:
        """All folders in the order of the stages, with those that can be made from what a stage left."""
        found = [self.read("manifests", folder) for folder in _folders(self.data / "manifests")]
        found += [
            self.read("features", self.data / "fbank" / manifests.folder.name)
            for manifests in found[:]
            if manifests.folder.name not in AUDIO_FOLDERS
        ]
        found += [self.read("unify", folder) for folder in _folders(self.data / "phonemes")]
        found += [self.read("unify", fold) for name in _folders(self.data / "msud") for fold in _folders(name, "fold")]
        found += [
            self.read("shar", folder)
            for kind in _folders(self.data / "shar")
            for name in _folders(kind)
            for folder in _folders(name)
        ]
        for system in _folders(self.exp):
            for experiment in _folders(system):
                found += self._trainings(experiment)
        return sorted(found, key=lambda line: NUMBERS[line.stage])

    def _trainings(self, experiment: Path) -> Iterator[StageFolder]:
        """The trainings and scores of an experiment: for each seed those of all folds that stage 3 prepared."""
        folds_of_seed: dict[str, set[str]] = defaultdict(set)
        for fold in _folders(experiment, "fold"):
            for folder in _folders(fold, "seed"):
                folds_of_seed[folder.name].add(fold.name)
        prepared = {fold.name for fold in _folders(self.data / "msud" / experiment.name, "fold")}
        kind = "probe" if probe_run.is_probe_folder(experiment) else "train"
        for seed, folds in sorted(folds_of_seed.items()):
            for name in sorted(folds | prepared, key=_number):
                trained = self.read(kind, experiment / name / seed)
                yield trained
                for scored in SCORED if trained.stamp else ():
                    # only the scores are always made, the other folders on request or for pictures
                    if scored == score.STAMP_FOLDER or (trained.folder / scored).is_dir():
                        yield self.read("score", trained.folder / scored)


def _number(name: str) -> tuple[int, str]:
    digits = "".join(filter(str.isdigit, name))
    return int(digits or 0), name


def _folders(folder: Path, prefix: str = "") -> list[Path]:
    """The folders in a folder whose names begin with ``prefix``, fold2 before fold10; [] if it does not exist."""
    inside = folder.iterdir() if folder.is_dir() else ()
    found = [path for path in inside if path.is_dir() and path.name.startswith(prefix) and path.name[0] != "."]
    return sorted(found, key=lambda path: _number(path.name) if prefix else (0, path.name))


def _format_size(size: float) -> str:
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def _format_time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {left:02d} s"


def status_lines(found: Sequence[StageFolder]) -> Iterator[str]:
    """For each stage a line of counts, then a line for each folder."""
    if not found:
        yield "nothing has been run here yet"
        return
    width = max(len(str(line.folder)) for line in found)
    for stage, number in NUMBERS.items():
        own = [line for line in found if line.stage == stage]
        if not own:
            continue
        states = [line.state for line in own]
        counts = ", ".join(f"{states.count(state)} {state}" for state in STATES if state in states)
        seconds, disk = sum(line.stamp.get("seconds", 0) for line in own), sum(line.bytes for line in own)
        yield f"stage {number} ({stage}): {counts}; {_format_time(seconds)}, {_format_size(disk)}"
        for line in own:
            detail = line.reason
            if line.state == DONE:
                detail = (
                    f"{line.stamp['in']} in, {line.stamp['out']} out, {line.dropped} dropped; "
                    f"{_format_time(line.stamp['seconds'])}, {_format_size(line.bytes)}"
                )
            yield f"  {line.state:10s} {str(line.folder):{width}s}  {detail}"
