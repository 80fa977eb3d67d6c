"""Former runs of a training folder: kept aside while a run with other settings or data takes their place.

A run is what a training folder holds: checkpoints, logs and scores. A run that is to be replaced is moved beside the
folder, as ``former-seed1-<key>``. The same settings bring it back. It is removed when the new run is scored.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speecheq.common.errors import InputError
from speecheq.common.files import LEFTOVERS, read_json
from speecheq.common.log import log
from speecheq.common.stages import STAMP, Stage
from speecheq.config.layers import flat
from speecheq.evaluation.score_files import EMBEDDINGS, METRICS, PHONES, SCORES, TRAINING_SCORES
from speecheq.models import checkpoint

PREFIX = "former-"
# Of a key, so many characters tell runs apart.
KEY_LENGTH = 8
# What stages 4 and 5 write to a training's folder, beside folders with stamps of stage 5.
WRITTEN = (
    *("config.yaml", "run.json", "train.log", "tensorboard", "best.pt", "last.pt", "bad_step*.pt", STAMP),
    *(METRICS, SCORES, PHONES, EMBEDDINGS, TRAINING_SCORES, ".*.lock", *(f"{kind}.*" for kind in LEFTOVERS)),
)


def _place(folder: Path, key: str) -> Path:
    """Where the run with this stage key is kept while another one is in ``folder``."""
    return folder.with_name(f"{PREFIX}{folder.name}-{key[:KEY_LENGTH]}")


def former_runs(folder: Path) -> list[Path]:
    """The folders of the former runs of a training's folder."""
    prefix = f"{PREFIX}{folder.name}-"
    return [path for path in sorted(folder.parent.iterdir()) if path.is_dir() and path.name.startswith(prefix)]


def _stamp(folder: Path) -> dict[str, Any] | None:
    """The stamp of a finished training; None where there is none that can be read."""
    try:
        stamp = read_json(folder / STAMP)
    except (InputError, FileNotFoundError):
        return None
    return stamp if isinstance(stamp, dict) and isinstance(stamp.get("key"), str) else None


def _key_of_checkpoint(folder: Path) -> str | None:
    """The stage key in last.pt of a training that did not finish; None where there is no checkpoint to go on from."""
    try:
        key = checkpoint.read(folder / "last.pt").get("key")
    except (InputError, FileNotFoundError):
        return None
    return key if isinstance(key, str) else None


def _changes(before: dict[str, Any], now: dict[str, Any], shown: int = 5) -> str:
    """The options that differ, such as ``optim.max_steps 2, now 3``."""
    plain = json.loads(json.dumps(now))
    old, new = ({**flat(options.pop("config", {})), **options} for options in (dict(before), plain))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    changes = [f"{name} {old.get(name)}, now {new.get(name)}" for name in names[:shown]]
    return "; ".join(changes + (["..."] if len(names) > shown else []))


def make_room(stage: Stage) -> bool:
    """Make the folder of ``stage`` ready for its run, before anything is replaced. Call it with the folder locked.

    A run with other settings or data, finished or broken off, is moved out of the folder, with a warning. Returns
    whether a former run with the settings and data of ``stage`` came back in its place. What is no run, as its
    checkpoint is missing or damaged, stays where it is unless one comes back. Raises InputError if files are in the
    way.
    """
    stamp = _stamp(stage.folder)
    key = _key_of_checkpoint(stage.folder) if stamp is None else stamp["key"]
    if key == stage.key:
        return False
    if key is not None:
        _put_aside(stage, key, stamp)
    kept = _place(stage.folder, stage.key)
    if not kept.is_dir():
        return False
    if stage.folder.is_dir():
        for path in _remove_written(stage.folder):
            if (kept / path.name).exists():
                raise InputError(f"{path}: is in {kept} too, which is to come back; move one of them away.")
            os.replace(path, kept / path.name)
        stage.folder.rmdir()
    os.replace(kept, stage.folder)
    log.info("%s: the former run with these settings and data is back from %s", stage.folder, kept)
    return True


def _put_aside(stage: Stage, key: str, stamp: dict[str, Any] | None) -> None:
    folder, kept = stage.folder, _place(stage.folder, key)
    if kept.exists():  # made by hand
        raise InputError(f"{kept}: is where the former run of {folder} is to be kept; move it away or remove it.")
    changes = "" if stamp is None else _changes(stamp.get("options", {}), stage.options)
    log.warning(
        "%s: holds a %s training with other settings or data%s; it is moved to %s and kept until the new one is "
        "scored. The new one starts from the beginning. The former settings bring the former run back; to keep both, "
        "give one of them another --exp.",
        folder,
        "broken-off" if stamp is None else "finished",
        f" ({changes})" if changes else "",
        kept,
    )
    os.replace(folder, kept)


def _remove_written(folder: Path) -> list[Path]:
    """Remove what stages 4 and 5 wrote to a training's folder; returns what is left."""
    ours = [path for pattern in WRITTEN for path in folder.glob(pattern)]
    for path in [*ours, *(stamp.parent for stamp in folder.glob(f"*/{STAMP}"))]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return sorted(folder.iterdir())


def remove_former(folder: Path) -> None:
    """Remove the former runs of a folder whose own run is scored; files that no stage wrote stay and are named."""
    for kept in former_runs(folder):
        others = _remove_written(kept)
        if others:
            log.warning("%s: %s: no stage wrote this, so it stays", kept, ", ".join(path.name for path in others))
        else:
            kept.rmdir()
            log.info("%s: the former run is removed, for the new one is scored", kept)


def unscored(experiment: Path, scored: Sequence[Path]) -> list[str]:
    """A sentence for each training's folder of an experiment that was scored before, but whose new run is not yet."""
    found = []
    for kept in sorted(Path(experiment).glob(f"fold*/{PREFIX}seed*/{METRICS}")):
        folder = kept.parent.with_name(kept.parent.name.removeprefix(PREFIX).rpartition("-")[0])
        if folder not in scored:
            found.append(
                f"{folder}: its new run is not scored yet, the former one lies in {kept.parent}; run stages 4 and 5."
            )
    return found
