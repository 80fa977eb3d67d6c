"""What a model has heard: in its own training, and in those before it whose weights it started from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.common.stages import STAMP, require
from speecheq.config import layers as configuration
from speecheq.evaluation.score import CHECKPOINTS
from speecheq.models import checkpoint


class Training(NamedTuple):
    """A training, as its ``folder`` tells; ``run`` is what run.json says, ``inputs`` are the folders that it read.

    ``corpora`` are those of which it learned labelled clips.
    """

    folder: Path
    run: Mapping[str, Any]
    inputs: tuple[Path, ...]
    corpora: tuple[str, ...]

    @property
    def phoneme_corpus(self) -> str | None:
        """That of which it learned phonemes, if it did; InputError where that is not at hand any more."""
        if self.run["phonemes"] is None:
            return None
        path = Path(self.run["phonemes"]) / "phonemes.json"
        if not path.is_file():
            raise InputError(
                f"{path}: is not there any more, but {self.folder} was trained with its corpus, so it "
                "cannot be checked that no clip of the test was trained on; put it back."
            )
        return read_json(path)["corpus"]

    @property
    def weights_before(self) -> Path | None:
        """The checkpoint that it started from, if it did; trainings before there was such an option do not name it."""
        name = self.run.get("init_from")
        return Path(name) if name is not None else None


def trainings(folder: Path) -> list[Training]:
    """The training of ``folder``, and those before it from whose weights it started, the latest first.

    InputError where the folder of one is not as it was: nobody knows then what its weights had learned from. It is
    refused, not noted only, as a figure on "unheard" clips or noises means nothing without it; and weights that a
    training can start from (best.pt) always come from such a folder.
    """
    found = [_training(Path(folder))]
    while found[-1].weights_before is not None:
        found.append(_training(_folder_of(found[-1].weights_before, found[-1].folder)))
    return found


def _training(folder: Path) -> Training:
    stamp, run = require(folder, "train", without=CHECKPOINTS), read_json(folder / "run.json")
    note = run["msud"]
    of_target = configuration.load(folder / "config.yaml").data.corpora == "target"
    return Training(
        folder, run, tuple(map(Path, stamp["inputs"])), (note["target"],) if of_target else tuple(note["corpora"])
    )


def _folder_of(weights: Path, after: Path) -> Path:
    """The folder of the training that made ``weights``, from which the training in the folder ``after`` started."""
    noted = require(after, "train", without=CHECKPOINTS)["options"]["init_from"]
    why = ""
    if not weights.is_file():
        why = "are not there any more"
    elif checkpoint.fingerprint(weights) != noted:
        why = "are others now"
    elif not ((weights.parent / STAMP).is_file() and (weights.parent / "run.json").is_file()):
        why = f"have no {STAMP} and run.json of their training beside them"
    if why:
        raise InputError(
            f"{weights.absolute()}: {after} started from these weights, which {why}, so it cannot be "
            "checked what they had learned from; put back the folder of that training."
        )
    return weights.parent
