"""The model folder as weights, settings and labels: what ``speecheq package`` writes, read without running code.

inference/model_folder.py writes it and says what is in it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.common.yaml_files import read_yaml

WEIGHTS, SETTINGS, LABELS, CARD = FILES = ("model.safetensors", "config.yaml", "labels.json", "README.md")
ENCODER = "encoder"
RANGE = "range"  # of the training clips; older folders have none
LABEL_TABLES = ("classes", "class_esc", "genders", "phones")
# To be raised when the contents of the folder change their meaning.
FORMAT = 1


def read_folder(folder: Path) -> dict[str, Any]:
    """The content of a checkpoint of the same model (see ``checkpoint.save``), without the state of training.

    Raises InputError for a folder that lacks a file, or whose files are not whole.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    for name in (WEIGHTS, SETTINGS, LABELS):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder}: is not a model folder, it lacks {name}; speecheq package makes one of a trained experiment."
            )
    tables = read_json(folder / LABELS)
    if not isinstance(tables, dict) or tables.get("format") != FORMAT or any(k not in tables for k in LABEL_TABLES):
        raise InputError(
            f"{folder / LABELS}: is not the label table of a model folder of this version (format {FORMAT})."
        )
    try:
        weights = load_file(str(folder / WEIGHTS))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{folder / WEIGHTS}: is not a whole file of weights ({error}); copy it again.") from error
    settings = read_yaml(folder / SETTINGS)
    encoder = settings.get("encoder")
    if isinstance(encoder, dict) and encoder.get("model") == ENCODER:
        encoder["model"] = str(folder / ENCODER)
    return {"config": settings, "model": weights, **tables}


def labels_text(tables: Mapping[str, Any]) -> str:
    """The content of labels.json."""
    return json.dumps(tables, indent=1, ensure_ascii=False) + "\n"


def folder_fingerprint(folder: Path) -> str:
    """A digest of the weights and labels in a model folder; the range of the training clips, a later addition, is none.

    So trainings that started from a folder are not out of date when it gets one.
    """
    found = hashlib.sha256((Path(folder) / WEIGHTS).read_bytes())
    labels = (Path(folder) / LABELS).read_bytes()
    tables = json.loads(labels)
    if tables.pop(RANGE, None) is not None:
        labels = labels_text(tables).encode()
    found.update(labels)
    return found.hexdigest()[:16]
