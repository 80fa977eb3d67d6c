"""What a training on one's own clips starts from, and the settings that go with it (``--from``)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from speecheq.common.errors import InputError
from speecheq.common.files import write_text
from speecheq.config.encoder import ENCODER_TRAINING
from speecheq.config.feature_sets import FOUND, STARTER, STARTER_FOLDER
from speecheq.config.layers import FIXED
from speecheq.config.schema import FBANK, Config, ModelConfig

NOTHING, WHISPER = "nothing", "whisper-base"
# conf/light.yaml, in smaller mini-batches and fewer steps, and its feature set conf/features/whisper-base.yaml
LIGHT: dict[str, Any] = {
    "data": {"max_seconds": 6.0, "batch_size": 32, "workers": 1},
    "model": {"kind": "light", "pooling": "statistics", "dropout": 0.5, "embedding_dim": 256},
    "mixup": {"alpha": 0.4},
    "loss": {"gamma": 0.0, "label_smoothing": 0.1},
    "optim": {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05, "warmup_steps": 20, "max_steps": 300},
}
WHISPER_SET = {"model": "openai/whisper-base", "layers": "2 3", "licence": "MIT"}
# conf/small.yaml, in half the steps
SMALL: dict[str, Any] = {
    "data": {"max_seconds": 4.0},
    "model": {
        "channels": 64,
        "mfa_channels": 192,
        "bottleneck": 64,
        "embedding_dim": 96,
        "batch_statistics": "per_stream",
    },
    "loss": {"gamma": 1.0},
    "optim": {"learning_rate": 2e-3, "warmup_steps": 30, "max_steps": 300},
}
# For a trained model, at the rate of its kind.
ADAPT: dict[str, Any] = {
    "optim": {"optimizer": "adamw", "weight_decay": 0.05, "warmup_steps": 20, "max_steps": 200},
    "loss": {"gamma": 0.0, "label_smoothing": 0.1},
}
RATES = {"light": 1e-3}  # others 3e-4
# The number of steps is fixed, so that the model of all clips can be trained like those of the folds.
FIXED_STEPS: dict[str, Any] = {"optim": {"epochs": None, "schedule": "cosine", "select": "last"}, "run": {"threads": 1}}


@dataclass(frozen=True)
class Start:
    """``features`` is what ``--features`` is given in stage 2, ``init_from`` the model whose weights are taken.

    ``settings`` are those of the training, ``speech_activity`` what finds the speech.
    """

    title: str
    features: str
    settings: Mapping[str, Any]
    init_from: Path | None = None
    speech_activity: str = "silero"


def _merged(*layers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    groups: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for group, values in layer.items():
            groups.setdefault(group, {}).update(values)
    return groups


def choose_start(text: str, conf: Path) -> Start:
    """The start that ``--from`` names: starter, nothing, whisper-base[=FOLDER], or a trained model.

    A feature set that lies nowhere else is written to the folder ``conf``. Raises InputError for a model that cannot be
    used.
    """
    name, _, folder = text.partition("=")
    if text == NOTHING:
        return Start("nothing (filter banks)", FBANK, _merged(SMALL, FIXED_STEPS))
    if name == WHISPER and not Path(text).exists():
        values = {**WHISPER_SET, "model": str(Path(folder).resolve()) if folder else WHISPER_SET["model"]}
        features = f"{WHISPER}={_write_feature_set(conf / f'{WHISPER}.yaml', values)}"
        return Start(text, features, _merged(LIGHT, FIXED_STEPS))
    return _of_model(text, conf)


def _of_model(text: str, conf: Path) -> Start:
    """The encoder, sizes and weights of a trained model."""
    from speecheq.inference.trained_model import find_model, read_weights  # which load torch

    path = STARTER_FOLDER if text == STARTER else find_model(text).resolve()
    if path.suffix == ".onnx":
        raise InputError(f"{path}: an ONNX file cannot be trained further; give its checkpoint or model folder.")
    _, config, _ = read_weights(path)
    if config.encoder.is_trained and not path.is_dir():
        raise InputError(
            f"{path}: was trained together with its encoder; make a model folder of it, whose encoder has what it "
            "learned, and start from that: speecheq package."
        )
    features = FBANK
    if config.data.features != FBANK:
        name = STARTER if text == STARTER else "encoder-of-model"
        given = path if path.is_dir() else _write_feature_set(conf / f"{name}.yaml", _feature_set(config))
        features = f"{name}={given}"
    own: dict[str, Any] = {
        "model": _sizes(config.model),
        "data": {"cmvn": config.data.cmvn, "max_seconds": config.data.max_seconds, "batch_size": 32, "workers": 1},
        "mixup": {"alpha": config.mixup.alpha},
    }
    rate = {"optim": {"learning_rate": RATES.get(config.model.kind, 3e-4)}}
    return Start(text, features, _merged(ADAPT, own, rate, FIXED_STEPS), path, config.data.speech_activity)


def _sizes(model: ModelConfig) -> dict[str, Any]:
    """The settings of a model that users can set, where they are not the defaults; without MTL-AUG's decoder."""
    default, derived = ModelConfig(), {name.removeprefix("model.") for name in FIXED if name.startswith("model.")}
    names = [item.name for item in fields(model) if item.name not in (*derived, "decoder_channels")]
    return {name: getattr(model, name) for name in names if getattr(model, name) != getattr(default, name)}


def _feature_set(config: Config) -> dict[str, Any]:
    """The feature set that a model was trained on, as a file of conf/features has it."""
    return {key: value for key, value in asdict(config.encoder).items() if key not in (*ENCODER_TRAINING, *FOUND)}


def _write_feature_set(path: Path, values: Mapping[str, Any]) -> Path:
    write_text(path, yaml.safe_dump(dict(values), sort_keys=False))
    return path
