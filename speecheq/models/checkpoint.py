"""Checkpoints: written atomically, read without running code from the file."""

import hashlib
import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from speecheq import seqm
from speecheq.common.errors import InputError
from speecheq.common.files import whole_file
from speecheq.config.layers import apply_layer
from speecheq.config.schema import GENDERS, Config
from speecheq.models import build_model
from speecheq.models.normalisation import Cmvn, Normalised

FORMAT = 2

# The heads with labels, and the keys of these labels in a checkpoint.
LABELS_OF_HEADS = {"esc_head": "classes", "gender_head": "genders", "phoneme_head": "phones"}
# Settings of the model that may differ from those of the checkpoint that a training starts from.
FREE_SETTINGS = ("num_esc", "num_genders", "num_phones", "num_augmentations", "decoder_channels", "dropout")
# MTL-AUG's heads, which are optional.
LABEL_FREE_HEADS = ("model.augmentation_head.", "model.decoder.")


# torch 1.13 with weights_only reads tensors, text, integers, lists and mappings, but no floats: they are written as
# text with this prefix.
FLOAT = "float:"


def _map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """Apply ``change`` to all values in nested mappings, lists and tuples."""
    if isinstance(value, dict):
        return type(value)((key, _map_leaves(item, change)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(_map_leaves(item, change) for item in value)
    return change(value)


def _float_to_text(value: Any) -> Any:
    return FLOAT + value.hex() if isinstance(value, float) else value


def _text_to_float(value: Any) -> Any:
    is_float = isinstance(value, str) and value.startswith(FLOAT)
    return float.fromhex(value[len(FLOAT) :]) if is_float else value


def _label_tables(classes: seqm.ClassTable, phones: Sequence[str]) -> dict[str, list[str]]:
    return {
        "classes": list(classes.names),
        "class_esc": list(classes.categories),
        "genders": list(GENDERS),
        "phones": list(phones),
    }


def save(
    path: Path, model: Normalised, config: Config, classes: seqm.ClassTable, phones: Sequence[str], **state: Any
) -> None:
    """Write the model with its settings and labels; ``state`` is the training state for resuming."""
    content = {
        "format": FORMAT,
        "config": asdict(config),
        "model": model.state_dict(),
        **_label_tables(classes, phones),
        **state,
    }
    write(path, content)


def write(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values atomically, so that torch.load reads them with weights_only."""
    # through a buffer: Python's write reports a full disk, torch's does not
    buffer = io.BytesIO()
    torch.save(_map_leaves(content, _float_to_text), buffer)
    with whole_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read(path: Path) -> dict[str, Any]:
    """Read a file of ``save`` onto the CPU. Raises InputError if it is missing, damaged or no checkpoint."""
    if not Path(path).is_file():
        raise InputError(f"{path}: the checkpoint does not exist; run stage 4 first.")
    try:
        _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of zip, pickle or torch
        raise InputError(
            f"{path}: is not a complete checkpoint ({str(error).splitlines()[0]}); train again."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: is not a checkpoint of this version of SpeechEQ (format {FORMAT}).")
    return _map_leaves(content, _text_to_float)


def _check_archive(path: Path) -> None:
    """Raise ValueError or BadZipFile for files for which torch.load before 2.6 ignores weights_only.

    These are TorchScript (a zip with a program) and the tar files of very old versions. Nothing is loaded.
    """
    with open(path, "rb") as stream:
        if stream.read(4) != b"PK\3\4":  # other zip files may have a prefix
            raise ValueError("it is not a zip of tensors")
    with zipfile.ZipFile(path) as archive:
        if any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist()):
            raise ValueError("it contains a program (TorchScript)")


def read_config(content: dict[str, Any], source: str) -> Config:
    """The settings in the ``content`` of a checkpoint, named ``source`` in errors."""
    config = Config()
    apply_layer(config, content["config"], source)
    return config


def new_model(
    config: Config, mean: Sequence[float] | None = None, deviation: Sequence[float] | None = None
) -> Normalised:
    """An untrained model with its normalisation; for cmvn global, with mean and deviation (feature_dim,)."""
    return Normalised(Cmvn(config.data.cmvn, config.model.feature_dim, mean, deviation), build_model(config.model))


def load_model(path: Path) -> tuple[Normalised, Config, dict[str, Any]]:
    """Read a trained model. Raises InputError as ``read`` and ``restore`` do.

    Returns: the model in eval mode, its settings, and the content of the checkpoint.
    """
    content = read(path)
    return (*restore(content, str(path)), content)


def restore(content: dict[str, Any], source: str) -> tuple[Normalised, Config]:
    """The trained model in the ``content`` of a checkpoint, named ``source`` in errors.

    Returns: the model in eval mode, and its settings. Raises InputError if weights and settings do not fit.
    """
    config = read_config(content, source)
    try:
        config.validate()
        model = new_model(config)
        model.load_state_dict(content["model"])
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{source}: its weights do not fit its settings ({str(error).splitlines()[0]}).") from error
    return model.eval(), config


def fingerprint(path: Path) -> str:
    """A digest of a checkpoint file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def read_start(path: Path, config: Config) -> dict[str, Any]:
    """Read the checkpoint that a training with ``config`` starts from.

    Raises InputError, which names the settings that differ, if the backbone of the checkpoint has another shape.
    """
    content = read(path)
    source = read_config(content, str(path))
    differing = [
        item.name
        for item in fields(source.model)
        if item.name not in FREE_SETTINGS and getattr(source.model, item.name) != getattr(config.model, item.name)
    ]
    if differing:
        its = ", ".join(f"model.{name}={getattr(source.model, name)}" for name in differing)
        ours = ", ".join(str(getattr(config.model, name)) for name in differing)
        raise InputError(
            f"{path}: its backbone has {its}, this training's {ours}; the shapes must be the same "
            "(use the checkpoint's configuration, or --set these)."
        )
    return content


def start_from(
    model: Normalised, content: dict[str, Any], classes: seqm.ClassTable, phones: Sequence[str]
) -> list[str]:
    """Copy weights and normalisation from the ``content`` of ``read_start`` into the model.

    Heads with other labels, and MTL-AUG's heads of another shape, keep their fresh weights.

    Returns: the heads with other labels.
    """
    labels = _label_tables(classes, phones)
    fresh = [head for head, table in LABELS_OF_HEADS.items() if content[table] != labels[table]]
    fresh_prefixes = tuple(f"model.{head}." for head in fresh)
    state = model.state_dict()
    for name, value in content["model"].items():
        fits = not name.startswith(LABEL_FREE_HEADS) or name in state and state[name].shape == value.shape
        if fits and not name.startswith(fresh_prefixes):
            state[name] = value
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"the checkpoint's weights do not fit its settings ({str(error).splitlines()[0]}).") from error
    return [head for head in fresh if labels[LABELS_OF_HEADS[head]]]
