"""Checkpoints: written atomically, read without running code from the file."""

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from speecheq import seqm
from speecheq.common.errors import InputError
from speecheq.common.files import whole_file
from speecheq.config.encoder import EncoderConfig
from speecheq.config.layers import apply_layer
from speecheq.config.schema import GENDERS, Config
from speecheq.models import build_model
from speecheq.models.folder import folder_fingerprint, read_folder
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
    """Write the model with its settings and labels; ``state`` is the training state for resuming.

    Of a pretrained encoder only what was trained is written, as ``encoder``.
    """
    content = {
        "format": FORMAT,
        "config": asdict(config),
        "model": model.state_without_extractor(),
        **_label_tables(classes, phones),
        **state,
    }
    encoder = model.extractor_state()
    if encoder is not None:
        content["encoder"] = encoder
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
    config: Config,
    mean: Sequence[float] | None = None,
    deviation: Sequence[float] | None = None,
    extractor: nn.Module | None = None,
    factors: Mapping[str, float] = {},
) -> Normalised:
    """An untrained model with its normalisation; for cmvn global, with mean and standard deviation (feature_dim,).

    ``extractor`` and ``factors``: see ``Normalised``.
    """
    cmvn = Cmvn(config.data.cmvn, config.model.feature_dim, mean, deviation)
    return Normalised(cmvn, build_model(config.model), extractor, factors)


def load_model(path: Path) -> tuple[Normalised, Config, dict[str, Any]]:
    """Read a trained model. Raises InputError as ``read`` and ``restore`` do.

    Returns: the model in eval mode, its settings, and the content of the checkpoint.
    """
    content = read(path)
    return (*restore(content, str(path)), content)


def restore(content: dict[str, Any], source: str) -> tuple[Normalised, Config]:
    """The trained model in the ``content`` of a checkpoint, named ``source`` in errors; it takes features.

    Returns: the model in eval mode, and its settings. Raises InputError if weights and settings do not fit.
    """
    config = read_config(content, source)
    try:
        config.validate()
        model = new_model(config)
        model.load_state_dict(content["model"])
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{source}: its weights do not fit its settings ({str(error).splitlines()[0]}).") from error
    model.trained_encoder = content.get("encoder")
    if config.encoder.is_trained and model.trained_encoder is None:
        raise InputError(f"{source}: lacks what its training made of the encoder (encoder.train is not none).")
    return model.eval(), config


def fingerprint(path: Path) -> str:
    """A digest of a checkpoint file, or of a model folder."""
    if Path(path).is_dir():
        return folder_fingerprint(path)
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def read_start(path: Path, config: Config) -> dict[str, Any]:
    """Read the checkpoint, or the model folder, that a training with ``config`` starts from.

    Raises InputError, which names the settings that differ, if the backbone of the checkpoint has another shape.
    """
    content = read_folder(path) if Path(path).is_dir() else read(path)
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
    if source.encoder.is_trained and _trained_parts(source.encoder) != _trained_parts(config.encoder):
        raise InputError(
            f"{path}: was trained together with its encoder (encoder.train={source.encoder.train}); a training that "
            "starts from it needs the same encoder, with the same encoder.train, lora_rank and lora_alpha."
        )
    return content


def _trained_parts(encoder: EncoderConfig) -> tuple[str, str, int, float]:
    """What decides which parameters of an encoder are trained, and what they add to."""
    return encoder.digest, encoder.train, encoder.lora_rank, encoder.lora_alpha


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
    state = model.state_without_extractor()
    for name, value in content["model"].items():
        fits = not name.startswith(LABEL_FREE_HEADS) or name in state and state[name].shape == value.shape
        if fits and not name.startswith(fresh_prefixes):
            state[name] = value
    try:
        model.load_states(state, content.get("encoder"))
    except RuntimeError as error:
        raise InputError(f"the checkpoint's weights do not fit its settings ({str(error).splitlines()[0]}).") from error
    return [head for head in fresh if labels[LABELS_OF_HEADS[head]]]
