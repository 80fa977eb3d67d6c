"""Feature sets: filter banks (fbank), and pretrained encoders with their settings.

``conf/features/NAME.yaml`` describes the encoder NAME. Stage 2 writes what it has found to ``DATA/NAME/encoder.yaml``,
which is what later stages read: they need neither the file of conf/ nor, for stored states, the encoder.
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
        if name == "layers" and type(value) is int:  # YAML reads one layer as a number
            value = str(value)
        try:
            setattr(config, name, checked_value(config, name, value))
        except ValueError as error:
            raise InputError(f"{source}: {error}.") from None
    try:
        config.layer_numbers()
    except ValueError as error:
        raise InputError(f"{source}: {error}.") from None
    return config


def read_feature_set(name: str, folder: Path, model: str = "") -> EncoderConfig:
    """The settings in ``folder``/NAME.yaml; ``model`` replaces the encoder's folder or hub id.

    Raises InputError if the file is missing or invalid.
    """
    path = folder / f"{name}.yaml"
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
