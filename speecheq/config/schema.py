"""The typed settings of a training, their layers, and what is refused.

Layers, later ones win: the defaults here (the paper's values) < the configuration (``conf/small.yaml``; what its key
``base`` names lies below it) < the system (one line of ``conf/systems.yaml``) < what the recipe sets <
``--set key=value``.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from speecheq.common.errors import InputError
from speecheq.common.files import write_text
from speecheq.common.yaml_files import read_yaml
from speecheq.models.config import LABEL_FREE_TASKS, ModelConfig


def setting(default: Any, help: str, low: float = None, high: float = None, choices: Sequence[Any] = None) -> Any:
    """A dataclass field with its meaning and the values that it takes."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


@dataclass
class DataConfig:
    corpora: str = setting(
        "all",
        "whose emotion and gender clips are trained on: all of MsUD, or the target's only",
        choices=("all", "target"),
    )
    batch_size: int = setting(32, "clips a mini-batch of each of the three streams (section 3.2)", low=2)
    input: str = setting(
        "stored",
        "what is trained on: the features of stage 2, or waveforms, which are augmented and "
        "turned into the same features on the training device",
        choices=("stored", "waveform"),
    )
    max_seconds: float = setting(6.0, "emotion and gender clips are cropped to this length, at random", low=0.1)
    phoneme_batch_seconds: float = setting(320.0, "a phoneme mini-batch holds at most this much speech", low=1.0)
    cmvn: str = setting("global", "normalisation of the features", choices=("utterance", "global", "none"))
    unlabelled: bool = setting(
        False,
        "learn from unlabelled speech too (MTL-AUG): a mini-batch of it a step, with the losses that need no labels",
    )
    dev_phoneme_clips: int = setting(500, "dev utterances, at most, whose phones are scored every epoch", low=1)
    workers: int | None = setting(
        None,
        "processes that load each stream; null: 1, or 4 where a GPU trains; 0 loads in the training process",
        low=0,
    )


@dataclass
class LossConfig:
    gamma: float = setting(10.0, "of the focal loss (section 3.2)", low=0.0)
    alpha: float = setting(1.0, "weight of the CCC loss for EIS (equation 4); with 0 EIS is not scored", low=0.0)
    beta: float = setting(0.1, "weight of the CTC loss for phonemes (equation 4); 0 leaves the task out", low=0.0)
    eta: float = setting(0.1, "weight of the focal loss for gender (equation 4); 0 leaves the task out", low=0.0)
    augmentation: float = setting(
        0.0, "weight of the loss of the augmentation's type (MTL-AUG); 0 leaves the task out", low=0.0
    )
    reconstruction: float = setting(
        0.0, "weight of the loss of the features before augmentation (MTL-AUG); 0 leaves the task out", low=0.0
    )
    finetune_beta: float = setting(0.01, "beta at the end of the fine-tuning stage (section 3.2)", low=0.0)
    finetune_eta: float = setting(0.01, "eta at the end of the fine-tuning stage (section 3.2)", low=0.0)
    label_smoothing: float = setting(
        0.0, "so much of each label of ESC and gender is spread evenly over all classes", low=0.0, high=0.9
    )
    class_balance: str = setting(
        "none",
        "weights of the ESC classes: none, or inverse to the number of their training clips",
        choices=("none", "inverse"),
    )
    label_ignore: str = setting(
        "fill", "clips without EIS: filled with the prediction (Algorithm 1), or dropped", choices=("fill", "drop")
    )
    ctc_backend: str = setting(
        "auto",
        "who computes CTC; auto takes torch on a CPU, k2 on a GPU if it imports",
        choices=("auto", "k2", "torch"),
    )


# Impulse responses are cut to this length: by then those of ordinary rooms have decayed by 60 dB.
RIR_SECONDS = 2.0


# What MTL-AUG's augmentation head tells apart; the order is part of every model that has one.
AUGMENTATIONS = ("none", "speed", "pitch", "noise", "reverberation", "specaugment", "mixup")


@dataclass
class AugmentConfig:
    """How often and how far waveforms are changed; a probability of 0 leaves that change out."""

    one_of: str = setting(
        "",
        "each clip has exactly one of these changes, or none, at equal odds (MTL-AUG), such as "
        "'speed pitch noise'; empty: changes come one by one, by their probabilities",
    )
    speed_low: float = setting(
        0.85, "of speed, which with one_of is a change of tempo and pitch alike: the slowest", low=0.5, high=2.0
    )
    speed_high: float = setting(1.15, "the fastest speed", low=0.5, high=2.0)

    pitch_probability: float = setting(1.0, "how many clips are shifted in pitch (section 2.5)", low=0.0, high=1.0)
    pitch_low: float = setting(-3.0, "the lowest shift in semitones", low=-12.0, high=12.0)
    pitch_high: float = setting(3.0, "the highest shift in semitones", low=-12.0, high=12.0)
    tempo_probability: float = setting(1.0, "how many clips change their tempo, at the same pitch", low=0.0, high=1.0)
    tempo_low: float = setting(0.8, "the slowest tempo; the duration is divided by it", low=0.5, high=2.0)
    tempo_high: float = setting(1.3, "the fastest tempo", low=0.5, high=2.0)
    reverb_probability: float = setting(0.5, "how many clips are reverberated", low=0.0, high=1.0)
    t60_low: float = setting(
        0.2, "of simulated reverberation: shortest time in seconds to fall by 60 dB", low=0.05, high=RIR_SECONDS
    )
    t60_high: float = setting(0.8, "the longest such time", low=0.05, high=RIR_SECONDS)
    direct_low: float = setting(
        0.0, "the direct path over the simulated reverberation in dB, at least", low=-20.0, high=40.0
    )
    direct_high: float = setting(12.0, "and at most", low=-20.0, high=40.0)
    noise_probability: float = setting(
        0.5, "how many clips have a noise added, where noises are given", low=0.0, high=1.0
    )
    snr_low: float = setting(10.0, "the lowest signal-to-noise ratio in dB (section 2.5)", low=-20.0, high=80.0)
    snr_high: float = setting(25.0, "the highest signal-to-noise ratio in dB", low=-20.0, high=80.0)
    noise_hours: float = setting(10.0, "hours of noise held in memory at most, 0.23 GB each", low=0.01)

    def validate(self) -> None:
        """ValueError for a range whose ends are in the wrong order, or an unknown name in ``one_of``."""
        for name in self.chosen():
            if name not in AUGMENTATIONS[1:]:
                raise ValueError(f"augment.one_of names {name!r}; it must be some of {', '.join(AUGMENTATIONS[1:])}")
        for name in ("speed", "pitch", "tempo", "t60", "direct", "snr"):
            low, high = getattr(self, f"{name}_low"), getattr(self, f"{name}_high")
            if low > high:
                raise ValueError(f"{name}_low is {low:g}, above {name}_high, which is {high:g}")

    @property
    def active(self) -> bool:
        """Whether any clip is changed at all."""
        return bool(self.one_of) or any(
            (self.pitch_probability, self.tempo_probability, self.reverb_probability, self.noise_probability)
        )

    def chosen(self) -> tuple[str, ...]:
        """The names in ``one_of``."""
        return tuple(self.one_of.split())

    def uses(self, sound: str) -> bool:
        """Whether sounds of that kind, noise or rir, would be used where there are some."""
        if self.one_of:
            return {"noise": "noise", "rir": "reverberation"}[sound] in self.chosen()
        return {"noise": self.noise_probability, "rir": self.reverb_probability}[sound] > 0


@dataclass
class SpecAugmentConfig:
    """Masks over the normalised features of training clips (Park et al., 2019); without masks it is off."""

    time_masks: int = setting(0, "masks of successive frames a clip", low=0)
    time_width: float = setting(0.25, "the widest of them in seconds", low=0.0)
    time_share: float = setting(0.2, "and as a part of the clip", low=0.0, high=1.0)
    frequency_masks: int = setting(0, "masks of successive filter banks a clip", low=0)
    frequency_width: int = setting(10, "the widest of them in filter banks", low=0)

    @property
    def active(self) -> bool:
        """Whether any clip is masked at all."""
        return bool(self.time_masks or self.frequency_masks)


@dataclass
class MixupConfig:
    """Clips of the emotion and gender streams are mixed in pairs, features and labels (Zhang et al., 2018)."""

    alpha: float = setting(0.0, "of the Beta distribution of a clip's own share; 0: no clip is mixed", low=0.0)


@dataclass
class SharConfig:
    """Training clips that are read from shards, in long sequential runs (dealing.py, docs/scale.md)."""

    use: bool = setting(False, "training clips come from the shards that stage 3 wrote (run.sh --shar true)")
    lanes: int = setting(8, "runs that each mini-batch is dealt from, a multiple of the processes that train", low=1)
    parts: int = setting(
        4,
        "lots of such runs, from which mini-batches come in turn: as many as loading processes a stream, or more",
        low=1,
    )
    buffer: int = setting(4096, "clips of a stream, over all runs and processes, among which is shuffled", low=1)


@dataclass
class OptimConfig:
    epochs: int | None = setting(60, "passes over the emotion stream; null: max_steps decides", low=1)
    max_steps: int | None = setting(None, "stop after so many steps, if that comes first", low=1)
    optimizer: str = setting(
        "adam",
        "adam (section 3.2), or adamw, whose weight decay is decoupled from the gradient "
        "and leaves biases and norms alone",
        choices=("adam", "adamw"),
    )
    learning_rate: float = setting(1e-4, "of Adam (section 3.2)", low=0.0)
    weight_decay: float = setting(1e-5, "of Adam (section 3.2)", low=0.0)
    ema: float = setting(
        0.0,
        "decay a step of a moving average of the weights, which is then scored on the dev part "
        "and is what best.pt holds; 0: none",
        low=0.0,
        high=0.99999,
    )
    warmup_steps: int = setting(0, "the learning rate rises linearly over so many steps", low=0)
    schedule: str = setting("constant", "of the learning rate after the warm-up", choices=("constant", "cosine"))
    finetune: float = setting(
        0.0,
        "the last so large a part of the training, 0.25 say, is the fine-tuning stage of section 3.2",
        low=0.0,
        high=1.0,
    )
    finetune_learning_rate: float = setting(1e-6, "at the end of the fine-tuning stage (section 3.2)", low=0.0)
    clip_gradient: float = setting(5.0, "the gradient is scaled down to this norm; 0: never", low=0.0)
    max_bad_steps: int = setting(
        10, "steps whose loss or gradient is not finite are skipped; so many in a row end the training", low=1
    )


@dataclass
class RunConfig:
    seed: int = setting(1, "of weights, sampling and cropping", low=0)
    device: str = setting("auto", "auto takes a GPU where torch finds one", choices=("auto", "cpu", "cuda"))
    threads: int = setting(0, "of torch on the CPU; 0 leaves torch's own choice", low=0)
    precision: str = setting(
        "fp32", "in what the model computes; weights and losses stay in float32", choices=("fp32", "bf16", "fp16")
    )
    checkpoint_steps: int = setting(200, "last.pt is written every so many steps, and at the end of every epoch", low=1)


@dataclass
class Config:
    """All settings of one training."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    specaugment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    mixup: MixupConfig = field(default_factory=MixupConfig)
    shar: SharConfig = field(default_factory=SharConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def validate(self) -> None:
        """ValueError for a model that cannot be built; ranges of single settings are checked when they are set."""
        self.model.validate()
        self.augment.validate()
        if self.optim.epochs is None and self.optim.max_steps is None:
            raise ValueError("optim.epochs and optim.max_steps are both null, so training would never end")
        if self.optim.schedule != "constant" and self.optim.finetune > 0:
            raise ValueError("optim.finetune is the last stage of the constant schedule; set it to 0 with another")
        if self.specaugment.active and self.data.cmvn == "none":
            raise ValueError(
                "specaugment masks with 0, which is the mean of normalised features only; with data.cmvn "
                "none set its masks to 0"
            )
        if self.shar.use and self.data.batch_size % self.shar.lanes:
            raise ValueError(
                f"data.batch_size is {self.data.batch_size}, but from shards it must be a multiple of "
                f"shar.lanes, which is {self.shar.lanes}"
            )
        if self.shar.use and (self.data.workers or 0) > self.shar.parts:
            raise ValueError(
                f"data.workers is {self.data.workers}, but only shar.parts, which is {self.shar.parts}, "
                "can load from shards"
            )
        chosen = self.augment.chosen()
        if chosen and self.data.input != "waveform":
            raise ValueError("augment.one_of changes waveforms; with it data.input must be waveform")
        if "specaugment" in chosen and not self.specaugment.active:
            raise ValueError("augment.one_of names specaugment, but specaugment has no masks; set its time_masks")
        if "mixup" in chosen and self.mixup.alpha == 0:
            raise ValueError("augment.one_of names mixup, but mixup.alpha is 0; set it to 0.5, say")
        if self.loss.augmentation > 0 and not chosen:
            raise ValueError("loss.augmentation is the loss of what augment.one_of names, which is empty")
        if self.loss.reconstruction > 0 and not chosen:
            raise ValueError("loss.reconstruction is of features before augmentation; name some in augment.one_of")
        if self.loss.reconstruction > 0 and not self.model.decoder_channels:
            raise ValueError("loss.reconstruction needs a decoder; set model.decoder_channels to 64, say")
        if self.data.unlabelled and not self.label_free_tasks():
            raise ValueError("data.unlabelled has no loss without labels; set loss.augmentation or loss.reconstruction")

    def label_free_tasks(self) -> tuple[str, ...]:
        """MTL-AUG's tasks that are trained: those whose weight is not 0."""
        return tuple(task for task in LABEL_FREE_TASKS if getattr(self.loss, task) > 0)

    def tasks(self) -> list[str]:
        """The streams that are trained: emotion always, gender and phoneme where their weight is not 0, unlabelled."""
        return (
            ["emotion"]
            + ["gender"] * (self.loss.eta > 0)
            + ["phoneme"] * (self.loss.beta > 0)
            + ["unlabelled"] * self.data.unlabelled
        )


def setting_names(config: Any = None, prefix: str = "") -> list[str]:
    """All keys in dotted form, such as ``loss.gamma``."""
    config = Config() if config is None else config
    names = []
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            names += setting_names(value, f"{prefix}{item.name}.")
        else:
            names.append(prefix + item.name)
    return names


def _converted(value: Any, kind: Any) -> Any:
    """``value`` as the type ``kind``; ValueError where it is something else. YAML reads 1e-4 as text."""
    if get_origin(kind) in (Union, UnionType):
        if value is None:
            return None
        kind = next(argument for argument in get_args(kind) if argument is not type(None))
    if kind is bool:
        if isinstance(value, bool):
            return value
    elif kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif kind is float:
        if isinstance(value, (int, float, str)) and not isinstance(value, bool) and math.isfinite(float(value)):
            return float(value)
    elif kind is str and isinstance(value, str):
        return value
    raise ValueError


def _in_words(kind: Any) -> str:
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_in_words(argument) for argument in get_args(kind))
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a word", type(None): "null"}[kind]


def set_value(config: Config, name: str, value: Any, source: str) -> None:
    """Set the setting ``name`` (dotted); InputError that begins with ``source`` where that is not possible."""
    *path, last = name.split(".")
    part: Any = config
    for step in path:
        part = getattr(part, step, None)
    known = is_dataclass(part) and {item.name: item for item in fields(part)}
    if known and last in known and is_dataclass(getattr(part, last)):
        example = setting_names(getattr(part, last), f"{name}.")[0]
        raise InputError(f"{source}: {name} is a group of settings, such as {example}, and has no value of its own.")
    if not known or last not in known:
        near = difflib.get_close_matches(name, setting_names(), 1, 0.4)
        raise InputError(f"{source}: {name!r} is not a setting{f'; did you mean {near[0]}?' if near else '.'}")
    kind = get_type_hints(type(part))[last]
    try:
        converted = _converted(value, kind)
    except ValueError:
        raise InputError(f"{source}: {name} is {value!r}, but it must be {_in_words(kind)}.") from None
    limits = known[last].metadata
    if limits.get("choices") and converted not in limits["choices"]:
        choices = ", ".join(map(str, limits["choices"]))
        raise InputError(f"{source}: {name} is {value!r}, but it must be one of {choices}.")
    if converted is not None:
        if limits.get("low") is not None and not converted >= limits["low"]:
            raise InputError(f"{source}: {name} is {value!r}, but it must be at least {limits['low']:g}.")
        if limits.get("high") is not None and not converted <= limits["high"]:
            raise InputError(f"{source}: {name} is {value!r}, but it must be at most {limits['high']:g}.")
    setattr(part, last, converted)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one mapping with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def layers_of(path: str | Path, above: Sequence[Path] = ()) -> list[tuple[Path, dict[str, Any]]]:
    """(file, settings) of a configuration, the lowest first: what its ``base`` names, in that order, then its own.

    ``base`` is a file or a list of files, relative to the one that names them. InputError where it names something
    else, or a file that lies ``above`` it.
    """
    path = Path(path)
    if path.resolve() in above:
        raise InputError(f"{path}: is its own base, by way of {above[-1].name}; take one of the keys 'base' out.")
    values = read_yaml(path)
    names = values.pop("base", [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: base is {names!r}, but it must be a file beside this one, or a list of such files.")
    below = [layer for name in names for layer in layers_of(path.parent / name, (*above, path.resolve()))]
    return [*below, (path, values)]


def apply_layer(config: Config, values: Mapping[str, Any], source: str) -> None:
    """Lay nested or dotted ``values`` over ``config``."""
    for name, value in flat(values).items():
        set_value(config, name, value, source)


def parse_assignment(assignment: str) -> tuple:
    """``key=value`` of ``--set`` -> (key, value read as YAML)."""
    name, equals, text = assignment.partition("=")
    if not equals or not name.strip():
        raise InputError(f"--set {assignment!r}: expected key=value, for instance loss.gamma=2.")
    try:
        return name.strip(), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {assignment!r}: the value cannot be read.") from error


def systems_of(path: str | Path) -> dict[str, Mapping[str, Any]]:
    """The systems that ``conf/systems.yaml`` names, each with its settings."""
    systems = read_yaml(path)
    for name, values in systems.items():
        if values is not None and not isinstance(values, dict):
            raise InputError(f"{path}: the system {name!r} must be a mapping of settings.")
    return {str(name): values or {} for name, values in systems.items()}


# What other parts of the program decide; to be read in a saved configuration, not to be chosen.
FIXED = {
    "model.feature_dim": "the features",
    "model.num_phones": "the phone table",
    "model.num_esc": "the classes",
    "model.num_genders": "the labels",
    "model.num_augmentations": "the types of augmentation",
}


def resolve(
    size: str | Path, systems: str | Path, system: str, recipe: Mapping[str, Any] = (), assignments: Sequence[str] = ()
) -> Config:
    """The settings of ``system`` at ``size``: all layers in their order, checked. InputError names the culprit."""
    config = Config()
    for path, values in layers_of(size):
        apply_layer(config, values, str(path))
    known = systems_of(systems)
    if system not in known:
        raise InputError(f"{systems}: there is no system {system!r}; the systems are {', '.join(known)}.")
    apply_layer(config, known[system], f"{systems}, {system}")
    apply_layer(config, dict(recipe), "the recipe's options")
    for assignment in assignments:
        name, value = parse_assignment(assignment)
        set_value(config, name, value, f"--set {assignment}")
    for name, by in FIXED.items():
        part, key = name.split(".")
        if getattr(getattr(config, part), key) != getattr(getattr(Config(), part), key):
            raise InputError(f"{name} cannot be set: it is given by {by}.")
    if config.loss.augmentation > 0:
        config.model.num_augmentations = len(AUGMENTATIONS)
    try:
        config.validate()
    except ValueError as error:
        raise InputError(f"{size}, system {system}: {error}.") from error
    return config


# These say where a training runs and how it is secured, not what it learns.
NOT_LEARNED = (
    ("run", "device"),
    ("run", "threads"),
    ("run", "checkpoint_steps"),
    ("data", "workers"),
    ("optim", "max_bad_steps"),
)


def learned(config: Config) -> dict[str, Any]:
    """The settings that change what is learned: all but those of NOT_LEARNED."""
    values = asdict(config)
    for part, name in NOT_LEARNED:
        del values[part][name]
    if not config.shar.use:  # the rest of it has no effect
        del values["shar"]
    return values


def save(config: Config, path: str | Path) -> None:
    """Write all settings, resolved."""
    write_text(path, yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True))


def load(path: str | Path) -> Config:
    """Read what ``save`` wrote."""
    config = Config()
    apply_layer(config, read_yaml(path), str(path))
    return config
