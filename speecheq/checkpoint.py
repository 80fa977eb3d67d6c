"""Checkpoints: written whole or not at all, read without running code from the file."""

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

import torch

from speecheq import config as configuration
from speecheq import seqm
from speecheq.data import GENDERS
from speecheq.errors import InputError
from speecheq.files import whole_file
from speecheq.models import build_model
from speecheq.models.cmvn import Cmvn, Normalised

FORMAT = 2


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


def save(path: Path, model: Normalised, config: configuration.Config, classes: seqm.ClassTable, phones: Sequence[str],
         **state: Any) -> None:
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
    # torch reports a full disk in its own way, Python's write as the error that it is
    buffer = io.BytesIO()
    torch.save(_floats_to_text(content), buffer)
    with whole_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read(path: Path) -> Dict[str, Any]:
    """What ``save`` wrote, on the CPU; InputError for a file that is missing, not whole or of another kind."""
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such checkpoint; run stage 4 first.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each have their own
        raise InputError(f"{path}: is not a whole checkpoint ({str(error).splitlines()[0]}); train again.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: is not a checkpoint of this version of SpeechEQ (format {FORMAT}).")
    return _text_to_floats(content)


def config_of(content: Dict[str, Any], source: str) -> configuration.Config:
    """The settings that a checkpoint was trained with."""
    config = configuration.Config()
    configuration.apply_layer(config, content["config"], source)
    return config


def new_model(config: configuration.Config, mean: Optional[Sequence[float]] = None,
              deviation: Optional[Sequence[float]] = None) -> Normalised:
    """An untrained model with its normalisation."""
    return Normalised(Cmvn(config.data.cmvn, config.model.feature_dim, mean, deviation), build_model(config.model))


def load_model(path: Path) -> tuple:
    """(the trained model in eval mode, its Config, the checkpoint's content)."""
    content = read(path)
    config = config_of(content, str(path))
    model = new_model(config)
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise InputError(f"{path}: its weights do not fit its settings ({str(error).splitlines()[0]}).") from error
    return model.eval(), config, content
