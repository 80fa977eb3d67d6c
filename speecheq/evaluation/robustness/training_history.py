"""The data of a model's training, and of earlier trainings whose weights it started from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.common.stages import STAMP, require
from speecheq.config import layers
from speecheq.evaluation.score import CHECKPOINTS
from speecheq.models.checkpoint import fingerprint


class TrainingRecord(NamedTuple):
    """A finished training, as its ``folder`` describes it.

    ``run`` is the content of run.json, ``inputs`` are the folders that it read, ``corpora`` those whose emotion and
    gender labels it learned.
    """

    folder: Path
    run: Mapping[str, Any]
    inputs: tuple[Path, ...]
    corpora: tuple[str, ...]

    @property
    def phoneme_corpus(self) -> str | None:
        """The corpus whose phonemes it learned, if any; raises InputError if its folder is gone."""
        if self.run["phonemes"] is None:
            return None
        path = Path(self.run["phonemes"]) / "phonemes.json"
        if not path.is_file():
            raise InputError(
                f"{path}: does not exist any more, but {self.folder} was trained with its corpus, so it "
                "cannot be checked that no clip of the test was trained on; restore it."
            )
        return read_json(path)["corpus"]

    @property
    def initial_weights(self) -> Path | None:
        """The checkpoint that it started from, if any. Older trainings do not name it, as there was no such option."""
        name = self.run.get("init_from")
        return Path(name) if name is not None else None


def training_history(folder: Path) -> list[TrainingRecord]:
    """The training in ``folder`` and those before it whose weights it started from, the latest first.

    Raises InputError if one of the folders is gone or has changed: scores on "unseen" clips or noises mean nothing
    unless it is known what the weights were trained on.
    """
    history = [_read_record(Path(folder))]
    while (weights := history[-1].initial_weights) is not None:
        history.append(_read_record(_training_folder(weights, history[-1].folder)))
    return history


def _read_record(folder: Path) -> TrainingRecord:
    stamp, run = require(folder, "train", without=CHECKPOINTS), read_json(folder / "run.json")
    corpora = run["msud"]["corpora"]
    if layers.load(folder / "config.yaml").data.corpora == "target":
        corpora = [run["msud"]["target"]]
    return TrainingRecord(folder, run, tuple(map(Path, stamp["inputs"])), tuple(corpora))


def _training_folder(weights: Path, started: Path) -> Path:
    """The folder of the training that made ``weights``, from which the training in the folder ``started`` started."""
    expected = require(started, "train", without=CHECKPOINTS)["options"]["init_from"]
    why = ""
    if weights.is_dir():
        why = "are those of a model folder, which does not hold what they were trained on"
    elif not weights.is_file():
        why = "do not exist any more"
    elif fingerprint(weights) != expected:
        why = "have changed"
    elif not ((weights.parent / STAMP).is_file() and (weights.parent / "run.json").is_file()):
        why = f"have no {STAMP} and run.json of their training beside them"
    if why:
        raise InputError(
            f"{weights.absolute()}: {started} started from these weights, which {why}, so it cannot be "
            "checked what they were trained on; put back the folder of that training."
        )
    return weights.parent
