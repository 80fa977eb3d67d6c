"""The settings of a run in layers, and the files that they are read from and written to.

Later layers win: the defaults of schema.py (the paper's values) < the configuration (``conf/small.yaml``, above the
files that its key ``base`` names) < the system (one line of ``conf/systems.yaml``) < the recipe's own options <
``--set key=value``.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from speecheq.common.errors import InputError
from speecheq.common.files import write_text
from speecheq.common.yaml_files import read_yaml
from speecheq.config.encoder import ENCODER_TRAINING, ONE_A_CLIP, EncoderConfig
from speecheq.config.model import STACKED_FBANK
from speecheq.config.schema import AUGMENTATIONS, FBANK, Config
from speecheq.config.setting import checked_value

# Settings that the program derives: they are saved with a model, but users cannot set them.
FIXED = {
    **{
        f"encoder.{item.name}": "the feature set (conf/features)"
        for item in fields(EncoderConfig)
        if item.name not in ENCODER_TRAINING
    },
    "data.speech_activity": "the features (speecheq features --speech-activity)",
    "model.feature_dim": "the features",
    "model.encoder_layers": "the features",
    "model.encoder_dim": "the features",
    "model.frame_shift": "the features",
    "model.num_phones": "the phone table",
    "model.num_esc": "the classes",
    "model.num_genders": "the labels",
    "model.num_augmentations": "the types of augmentation",
}
# Where a training runs and how it is saved: no effect on what it learns.
NOT_LEARNED = (
    "run.device",
    "run.threads",
    "run.checkpoint_steps",
    "data.workers",
    "optim.max_bad_steps",
    "encoder.model",  # its digest counts, not its place
    "encoder.source",
    "encoder.licence",
)
# Settings that came later: at their defaults they are no part of a stage's key, so that what is done stays done.
LATER = (
    "encoder.frame_shift",
    "encoder.speeds",
    "augment.telephone_probability",
    "loss.soft_labels",
    "data.features",
    "data.speech_activity",
    "data.corpus_sampling",
    "data.target_share",
    "data.versions",
    "data.cache_states",
    "data.batches",
    "model.encoder_layers",
    "model.encoder_dim",
    "model.projection",
    "model.pooling",
    "model.pooled_layers",
    "model.frame_shift",
    "model.ctc_labels",
    "model.heads_joined",
    "model.attention_axis",
    "model.context",
    "optim.select",
    "phonemes.pronunciations",
    "phonemes.silence",
    "phonemes.learning_rate_factor",
    "model.phoneme_dropout",
    "optim.decay",
    "optim.decay_part",
)

# Settings that are gone: a file saved with one is read without it.
GONE = ("optim.decay_epochs",)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one mapping with dotted keys, such as ``loss.gamma``."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def setting_names() -> list[str]:
    """All settings, by their dotted keys."""
    return list(flat(asdict(Config())))


def set_value(config: Config, name: str, value: Any, source: str) -> None:
    """Set the setting ``name`` (dotted).

    Raises InputError, which begins with ``source``, if the setting does not exist or the value is not allowed.
    """
    *path, last = name.split(".")
    group: Any = config
    for step in path:
        group = getattr(group, step, None)
    known = is_dataclass(group) and last in [item.name for item in fields(group)]
    if known and is_dataclass(getattr(group, last)):
        example = f"{name}.{fields(getattr(group, last))[0].name}"
        raise InputError(f"{source}: {name} is a group of settings, such as {example}, and has no value of its own.")
    if not known:
        near = difflib.get_close_matches(name, setting_names(), 1, 0.4)
        raise InputError(f"{source}: {name!r} is not a setting{f'; did you mean {near[0]}?' if near else '.'}")
    try:
        setattr(group, last, checked_value(group, last, value))
    except ValueError as error:
        raise InputError(f"{source}: {'.'.join(path)}.{error}.") from None


def apply_layer(config: Config, values: Mapping[str, Any], source: str) -> None:
    """Set all of ``values``, nested or dotted, in ``config``. Raises InputError as ``set_value`` does."""
    for name, value in flat(values).items():
        set_value(config, name, value, source)


def read_layers(path: str | Path, above: Sequence[Path] = ()) -> list[tuple[Path, dict[str, Any]]]:
    """Read a configuration and its bases.

    The key ``base`` is a file or a list of files, relative to the file that has the key. ``above`` is the chain of
    files that led here.

    Returns: (file, its settings), lowest layer first: the bases in their order, then the file itself.
    Raises InputError if a base does not exist, or the bases form a circle.
    """
    path = Path(path)
    if path.resolve() in above:
        raise InputError(f"{path}: is its own base, through {above[-1].name}; remove one of the keys 'base'.")
    values = read_yaml(path)
    names = values.pop("base", [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: base is {names!r}, but it must be a file beside this one, or a list of such files.")
    below = [layer for name in names for layer in read_layers(path.parent / name, (*above, path.resolve()))]
    return [*below, (path, values)]


def read_systems(path: str | Path) -> dict[str, Mapping[str, Any]]:
    """The systems that ``conf/systems.yaml`` lists, each with its settings. Raises InputError for invalid content."""
    systems = read_yaml(path)
    for name, values in systems.items():
        if values is not None and not isinstance(values, dict):
            raise InputError(f"{path}: the system {name!r} must be a mapping of settings.")
    return {str(name): values or {} for name, values in systems.items()}


def parse_assignment(assignment: str) -> tuple[str, Any]:
    """Split ``key=value`` of ``--set``. Returns: (key, value parsed as YAML). Raises InputError if it is malformed."""
    name, equals, text = assignment.partition("=")
    if not equals or not name.strip():
        raise InputError(f"--set {assignment!r}: expected key=value, for instance loss.gamma=2.")
    try:
        return name.strip(), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {assignment!r}: the value is not valid YAML.") from error


def one_setting(size: Path, assignments: Sequence[str], name: str) -> Any:
    """The value of the setting ``name`` in the file ``size`` of ``conf/`` with ``assignments`` of ``--set``."""
    config = Config()
    for path, values in read_layers(size):
        apply_layer(config, values, str(path))
    for assignment in assignments:
        set_value(config, *parse_assignment(assignment), f"--set {assignment}")
    return flat(asdict(config))[name]


def resolve(
    size: Path,
    systems: Path,
    system: str,
    recipe: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
    encoder: EncoderConfig | None = None,
) -> Config:
    """The settings of ``system`` at ``size``, with all layers applied in order.

    ``size`` and ``systems`` are files of ``conf/``, ``recipe`` the recipe's own options, ``assignments`` those of
    ``--set``, ``encoder`` that of the feature set. Raises InputError, which names the layer, for an invalid setting.
    """
    config = Config()
    for path, values in read_layers(size):
        apply_layer(config, values, str(path))
    known = read_systems(systems)
    if system not in known:
        raise InputError(f"{systems}: there is no system {system!r}; the systems are {', '.join(known)}.")
    apply_layer(config, known[system], f"{systems}, {system}")
    apply_layer(config, recipe or {}, "the recipe's options")
    for assignment in assignments:
        name, value = parse_assignment(assignment)
        set_value(config, name, value, f"--set {assignment}")
    chosen, defaults = flat(asdict(config)), flat(asdict(Config()))
    for name, source in FIXED.items():
        if chosen[name] != defaults[name]:
            raise InputError(f"{name} cannot be set: it is given by {source}.")
    if encoder is not None:
        _take_encoder(config, encoder)
    if config.loss.augmentation > 0:
        config.model.num_augmentations = len(AUGMENTATIONS)
    try:
        config.validate()
    except ValueError as error:
        raise InputError(f"{size}, system {system}: {error}.") from error
    return config


def _take_encoder(config: Config, encoder: EncoderConfig) -> None:
    """Set the encoder of the feature set, and the widths that follow from it."""
    training = {name: getattr(config.encoder, name) for name in ENCODER_TRAINING}
    config.encoder, model = replace(encoder, **training), config.model
    if encoder.is_signal:
        if encoder.frame_shift >= ONE_A_CLIP:
            raise InputError(
                f"--features {config.data.features}: has one vector a clip, for an SVM; give it with --systems probe."
            )
        model.feature_dim, model.frame_shift = encoder.dim, encoder.frame_shift
        return
    model.encoder_layers, model.encoder_dim = len(encoder.layer_numbers()), encoder.dim
    model.feature_dim = model.encoder_layers * model.encoder_dim
    if model.kind == "fusion":
        model.feature_dim += STACKED_FBANK


def learned(config: Config) -> dict[str, Any]:
    """The settings that change what is learned, by group: all but NOT_LEARNED, and LATER only where they are set."""
    values = asdict(config)
    for name in NOT_LEARNED:
        group, key = name.split(".")
        del values[group][key]
    if not config.shar.use:  # its other settings have no effect
        del values["shar"]
    if not config.encoder.is_trained:
        for name in ENCODER_TRAINING:
            del values["encoder"][name]
    if config.data.features == FBANK:
        del values["encoder"]
    defaults = flat(asdict(Config()))
    for name in LATER:
        group, key = name.split(".")
        if group in values and values[group][key] == defaults[name]:
            del values[group][key]
    return {group: found for group, found in values.items() if found}


def save(config: Config, path: str | Path) -> None:
    """Write all resolved settings."""
    write_text(path, yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True))


def load(path: str | Path) -> Config:
    """Read a file written by ``save``. Raises InputError for invalid content."""
    config = Config()
    values = flat(read_yaml(path))
    apply_layer(config, {name: value for name, value in values.items() if name not in GONE}, str(path))
    return config
