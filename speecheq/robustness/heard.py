"""What a model has heard: in its own training, and in those before it whose weights it started from."""

from pathlib import Path
from typing import Any, List, Mapping, NamedTuple, Optional, Tuple

from speecheq import checkpoint, config as configuration
from speecheq.errors import InputError
from speecheq.files import read_json
from speecheq.score import CHECKPOINTS
from speecheq.stages import STAMP, require


class Training(NamedTuple):
    """A training, as its ``folder`` tells; ``run`` is what run.json says, ``inputs`` are the folders that it read.

    ``corpora`` are those of which it learned labelled clips, ``phonemes`` is the one that it learned phonemes from.
    """

    folder: Path
    run: Mapping[str, Any]
    inputs: Tuple[Path, ...]
    corpora: Tuple[str, ...]
    phonemes: Optional[str]


def trainings(folder: Path) -> List[Training]:
    """The training of ``folder``, and those before it from whose weights it started, the latest first.

    InputError where the folder of one is not as it was: nobody knows then what its weights had learned from. It is
    refused, not noted only, as a figure on "unheard" clips or noises means nothing without it; and weights that a
    training can start from (best.pt) always come from such a folder.
    """
    found = [_training(Path(folder))]
    while found[-1].run["init_from"] is not None:
        found.append(_training(_folder_before(found[-1])))
    return found


def _training(folder: Path) -> Training:
    stamp, run = require(folder, "train", without=CHECKPOINTS), read_json(folder / "run.json")
    note = run["msud"]
    of_target = configuration.load(folder / "config.yaml").data.corpora == "target"
    phonemes = None
    if run["phonemes"] is not None:
        path = Path(run["phonemes"]) / "phonemes.json"
        if not path.is_file():
            raise InputError(f"{path}: is not there any more, but {folder} was trained with its corpus, so it cannot "
                             "be checked that no clip of the test was trained on; put it back.")
        phonemes = read_json(path)["corpus"]
    return Training(folder, run, tuple(map(Path, stamp["inputs"])),
                    (note["target"],) if of_target else tuple(note["corpora"]), phonemes)


def _folder_before(training: Training) -> Path:
    """The folder of the training whose weights this one started from."""
    weights = Path(training.run["init_from"])
    noted = require(training.folder, "train", without=CHECKPOINTS)["options"]["init_from"]
    why = ""
    if not weights.is_file():
        why = "are not there any more"
    elif checkpoint.fingerprint(weights) != noted:
        why = "are others now"
    elif not ((weights.parent / STAMP).is_file() and (weights.parent / "run.json").is_file()):
        why = f"have no {STAMP} and run.json of their training beside them"
    if why:
        raise InputError(f"{weights}: {training.folder} started from these weights, which {why}, so it cannot be "
                         "checked what they had learned from; put back the folder of that training.")
    return weights.parent
