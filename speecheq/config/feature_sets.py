"""Feature sets: filter banks (fbank), and pretrained encoders with their settings.

``conf/features/NAME.yaml`` describes the encoder NAME; so do a file elsewhere (``NAME=FILE.yaml``) and a model folder
(``NAME=FOLDER``), whose encoder and settings are taken; ``starter`` is that of the starter. Stage 2 writes what it has
found to ``DATA/NAME/encoder.yaml``, which is what later stages read: they need neither these nor, for stored states,
the encoder.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml

from speecheq.common.errors import InputError
from speecheq.common.files import write_text
from speecheq.common.yaml_files import read_yaml
from speecheq.config.encoder import ENCODER_TRAINING, EncoderConfig
from speecheq.config.schema import FBANK
from speecheq.config.setting import checked_value

FEATURE_SETS = Path("conf/features")
PREPARED = "encoder.yaml"
# The names of other folders of DATA.
TAKEN = ("manifests", "msud", "phonemes", "shar", "corpora", "jobs")
# What stage 2 finds out.
FOUND = ("source", "dim", "digest", "frame_shift")
# The feature set of the starter, and the model folder that it is.
STARTER = "starter"
STARTER_FOLDER = Path(__file__).resolve().parents[1] / "inference" / STARTER
# Of a model folder (inference/model_folder.py): its settings, and its encoder's name there and its folder.
MODEL_SETTINGS, MODEL_LABELS, MODEL_ENCODER = "config.yaml", "labels.json", "encoder"
SETTINGS = {item.name for item in fields(EncoderConfig)} - set(ENCODER_TRAINING)


def parse_features(text: str) -> tuple[str, str]:
    """Split ``--features NAME[=ENCODER]``. Returns: (name, folder or hub id of the encoder, or nothing)."""
    name, equals, model = text.partition("=")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) or name in TAKEN or (equals and (not model or name == FBANK)):
        raise InputError(f"--features {text}: expected {FBANK}, NAME or NAME=FOLDER; NAME.yaml is in conf/features.")
    return name, model


def _encoder_config(values: Mapping[str, Any], source: Path, allowed: set[str]) -> EncoderConfig:
    config = EncoderConfig()
    for name, value in values.items():
        if name not in allowed:
            raise InputError(
                f"{source}: {name!r} is not a setting of an encoder; they are {', '.join(sorted(allowed))}."
            )
        if name in ("layers", "speeds") and type(value) in (int, float):  # as YAML reads one of them
            value = str(value)
        try:
            setattr(config, name, checked_value(config, name, value))
        except ValueError as error:
            raise InputError(f"{source}: {error}.") from None
    try:
        config.layer_numbers()
        config.speed_numbers()
    except ValueError as error:
        raise InputError(f"{source}: {error}.") from None
    return config


def _of_model_folder(folder: Path, name: str) -> EncoderConfig:
    """The encoder of a model folder, with the settings that the model takes its states with."""
    path = folder / MODEL_SETTINGS
    values = read_yaml(path)
    encoder = values.get("encoder")
    if not isinstance(encoder, dict) or not encoder.get("model"):
        raise InputError(f"--features {name}: the model in {folder} takes filter banks; leave --features out.")
    given = {key: value for key, value in encoder.items() if key in SETTINGS}
    config = _encoder_config(given, path, SETTINGS)
    if config.model == MODEL_ENCODER:
        config.model = str((folder / MODEL_ENCODER).resolve())
    return config


def find_feature_set(data: Path, name: str, folder: Path, model: str = "") -> EncoderConfig:
    """The settings of NAME[=``model``] for stage 2: without ``model``, the encoder is where it was the last time.

    Raises InputError as ``read_feature_set`` does.
    """
    prepared = None if model else load_prepared(data, name)
    if prepared is None:
        return read_feature_set(name, folder, model)
    if not (folder / f"{name}.yaml").is_file():
        return prepared
    return read_feature_set(name, folder, prepared.model)


def read_feature_set(name: str, folder: Path, model: str = "") -> EncoderConfig:
    """The settings in ``folder``/NAME.yaml; ``model`` replaces the encoder's folder or hub id.

    ``model`` may also be a model folder, or the file of a feature set: then the settings are those in there. Raises
    InputError if the file is missing or invalid.
    """
    path = folder / f"{name}.yaml"
    if model.endswith(".yaml"):
        path, model = Path(model), ""
    elif name == STARTER and not model and not path.is_file():
        model = str(STARTER_FOLDER)
    if model and (Path(model) / MODEL_LABELS).is_file():
        return _of_model_folder(Path(model), name)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise InputError(f"--features {name}: there is no {path}; the feature sets are {FBANK}, {known or 'no other'}.")
    config = _encoder_config(read_yaml(path), path, SETTINGS - set(FOUND))
    config.source = Path(config.model).name if Path(config.model).is_absolute() else config.model
    config.model = model or config.model
    if not config.model:
        raise InputError(f"{path}: names no model; give the folder of the encoder: --features {name}=FOLDER.")
    if Path(config.model).is_dir():
        config.model = str(Path(config.model).resolve())
    return config


def save_prepared(data: Path, name: str, config: EncoderConfig) -> None:
    """Write the encoder of a feature set for later stages."""
    (data / name).mkdir(parents=True, exist_ok=True)
    values = {key: value for key, value in asdict(config).items() if key in SETTINGS}
    write_text(data / name / PREPARED, yaml.safe_dump(values, sort_keys=False))


def load_prepared(data: Path, name: str) -> EncoderConfig | None:
    """The encoder of a feature set as stage 2 found it; None if stage 2 has not run for it."""
    path = data / name / PREPARED
    if not path.is_file():
        return None
    return _encoder_config(read_yaml(path), path, SETTINGS)


def require_prepared(data: Path, name: str) -> EncoderConfig | None:
    """The encoder of a feature set, None for fbank; raises InputError if stage 2 has not prepared it."""
    encoder = None if name == FBANK else load_prepared(data, name)
    if encoder is None and name != FBANK:
        raise InputError(f"{data / name / PREPARED}: does not exist; run stage 2 with --features {name} first.")
    return encoder
