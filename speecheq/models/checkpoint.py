"""Checkpoints: written whole or not at all, read without running code from the file."""

import hashlib
import io
import zipfile
from collections.abc import Sequence
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

# The heads whose outputs are labels, and where a checkpoint lists these.
LABELS_OF_HEADS = {"esc_head": "classes", "gender_head": "genders", "phoneme_head": "phones"}
# Settings of the model that need not be those of the checkpoint that a training starts from.
FREE_SETTINGS = ("num_esc", "num_genders", "num_phones", "num_augmentations", "decoder_channels", "dropout")
# MTL-AUG's heads, which a model need not have.
LABEL_FREE_HEADS = ("model.augmentation_head.", "model.decoder.")


# torch 1.13 reads tensors, text, whole numbers, lists and mappings with weights_only, but no floats: they are
# written as text with this mark.
FLOAT = "float:"


def _floats_to_text(value: Any) -> Any:
    if isinstance(value, float):
        return FLOAT + value.hex()
    if isinstance(value, dict):
        return type(value)((key, _floats_to_text(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(map(_floats_to_text, value))
    return value


def _text_to_floats(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FLOAT):
        return float.fromhex(value[len(FLOAT) :])
    if isinstance(value, dict):
        return type(value)((key, _text_to_floats(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return type(value)(map(_text_to_floats, value))
    return value


def save(
    path: Path, model: Normalised, config: Config, classes: seqm.ClassTable, phones: Sequence[str], **state: Any
) -> None:
    """Write the model with its settings and label tables; ``state`` adds what training needs to go on."""
    content = {
        "format": FORMAT,
        "config": asdict(config),
        "model": model.state_dict(),
        "classes": list(classes.names),
        "class_esc": list(classes.categories),
        "genders": list(GENDERS),
        "phones": list(phones),
        **state,
    }
    write(path, content)


def write(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values so that torch.load reads them with weights_only; whole or not at all."""
    # torch reports a full disk in its own way, Python's write as the error that it is
    buffer = io.BytesIO()
    torch.save(_floats_to_text(content), buffer)
    with whole_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read(path: Path) -> dict[str, Any]:
    """What ``save`` wrote, on the CPU; InputError for a file that is missing, not whole or of another kind."""
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such checkpoint; run stage 4 first.")
    try:
        _refuse_programs(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each have their own
        raise InputError(f"{path}: is not a whole checkpoint ({str(error).splitlines()[0]}); train again.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: is not a checkpoint of this version of SpeechEQ (format {FORMAT}).")
    return _text_to_floats(content)


def _refuse_programs(path: Path) -> None:
    """ValueError or BadZipFile for what torch.load, before 2.6, reads without heeding weights_only; loads nothing.

    That is TorchScript, a zip that holds a program, and the tar of very old versions.
    """
    with open(path, "rb") as stream:
        if stream.read(4) != b"PK\3\4":  # a zip may begin with anything
            raise ValueError("it is no zip of tensors")
    with zipfile.ZipFile(path) as archive:
        if any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist()):
            raise ValueError("it holds a program (TorchScript)")


def config_of(content: dict[str, Any], source: str) -> Config:
    """The settings that a checkpoint was trained with."""
    config = Config()
    apply_layer(config, content["config"], source)
    return config


def new_model(
    config: Config, mean: Sequence[float] | None = None, deviation: Sequence[float] | None = None
) -> Normalised:
    """An untrained model with its normalisation."""
    return Normalised(Cmvn(config.data.cmvn, config.model.feature_dim, mean, deviation), build_model(config.model))


def load_model(path: Path) -> tuple[Normalised, Config, dict[str, Any]]:
    """(the trained model in eval mode, its Config, the checkpoint's content)."""
    content = read(path)
    return (*built(content, str(path)), content)


def built(content: dict[str, Any], source: str) -> tuple[Normalised, Config]:
    """The trained model in eval mode and its settings; InputError that begins with ``source`` where they do not fit."""
    config = config_of(content, source)
    try:
        config.validate()
        model = new_model(config)
        model.load_state_dict(content["model"])
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{source}: its weights do not fit its settings ({str(error).splitlines()[0]}).") from error
    return model.eval(), config


def fingerprint(path: Path) -> str:
    """A digest of a checkpoint's file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def read_start(path: Path, config: Config) -> dict[str, Any]:
    """The content of a checkpoint whose weights a training with ``config`` may start from.

    InputError that names the differing settings where its backbone is another.
    """
    content = read(path)
    source = config_of(content, str(path))
    differing = [
        item.name
        for item in fields(source.model)
        if item.name not in FREE_SETTINGS and getattr(source.model, item.name) != getattr(config.model, item.name)
    ]
    if differing:
        its = ", ".join(f"model.{name}={getattr(source.model, name)}" for name in differing)
        ours = ", ".join(str(getattr(config.model, name)) for name in differing)
        raise InputError(
            f"{path}: its backbone has {its}, this training's {ours}; a training starts from one of the same shape "
            "(choose its configuration, or --set these)."
        )
    return content


def start_from(
    model: Normalised, content: dict[str, Any], classes: seqm.ClassTable, phones: Sequence[str]
) -> list[str]:
    """Give the model the weights and the normalisation of what ``read_start`` gave.

    A head whose labels differ keeps its fresh weights; returns the names of those that have labels here. Of MTL-AUG's
    heads the model takes those that fit its own.
    """
    labels = {"classes": list(classes.names), "genders": list(GENDERS), "phones": list(phones)}
    fresh = [head for head, table in LABELS_OF_HEADS.items() if content[table] != labels[table]]
    kept = {
        name: value
        for name, value in content["model"].items()
        if not name.startswith(tuple(f"model.{head}." for head in fresh))
    }
    state = model.state_dict()
    kept = {
        name: value
        for name, value in kept.items()
        if not name.startswith(LABEL_FREE_HEADS) or name in state and state[name].shape == value.shape
    }
    try:
        model.load_state_dict({**state, **kept})
    except RuntimeError as error:
        raise InputError(f"the checkpoint's weights do not fit its settings ({str(error).splitlines()[0]}).") from error
    return [head for head in fresh if labels[LABELS_OF_HEADS[head]]]
