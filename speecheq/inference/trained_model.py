"""A trained model, ready to be used, and where it may come from.

``load_model`` takes a checkpoint (best.pt), a model folder, an ONNX file, or the id of a model folder on the hub.
Whatever it is, what comes back maps features to the same ``Answers``.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from speecheq import seqm
from speecheq.common.device import pick_device
from speecheq.common.errors import InputError
from speecheq.config.schema import Config
from speecheq.features.fbank import FbankConfig
from speecheq.inference import model_folder
from speecheq.losses import greedy_decode
from speecheq.models import checkpoint, clip_eis
from speecheq.models.normalisation import Normalised

# The model that is taken where none is named: a model folder that comes with the package.
DEFAULT_MODEL = Path(__file__).resolve().parent / "starter"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

# What an exported model gives, in this order; the outputs of a head that was not trained are left out.
ESC, EIS, GENDER, EMBEDDING, PHONES, PHONE_FRAMES = OUTPUTS = (
    "esc_posterior",
    "eis",
    "gender_posterior",
    "embedding",
    "phoneme_logits",
    "phoneme_lengths",
)
INPUTS = ("features", "lengths")
# The key of an ONNX file's metadata under which labels and features are described, and the version of that.
METADATA_KEY = "speecheq"
METADATA_FORMAT = 1


@dataclass(frozen=True)
class Labels:
    """What a model's outputs mean; ``genders`` and ``phones`` are empty where it was not trained on them, and
    ``intensity`` is false where it was not trained on EIS."""

    classes: seqm.ClassTable
    genders: tuple[str, ...]
    phones: tuple[str, ...]
    intensity: bool = True

    @classmethod
    def of(cls, content: dict[str, Any], config: Config) -> "Labels":
        """Those of a checkpoint's content."""
        return cls(
            seqm.ClassTable(tuple(content["classes"]), tuple(content["class_esc"])),
            tuple(content["genders"]) if "gender" in config.tasks() else (),
            tuple(content["phones"]) if "phoneme" in config.tasks() else (),
            config.loss.alpha > 0,
        )

    def outputs(self) -> tuple[str, ...]:
        """The outputs that such a model has, in the order of OUTPUTS."""
        missing = {
            EIS: not self.intensity,
            GENDER: not self.genders,
            PHONES: not self.phones,
            PHONE_FRAMES: not self.phones,
        }
        return tuple(name for name in OUTPUTS if not missing.get(name))

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "classes": self.classes.names,
            "class_esc": self.classes.categories,
            "genders": self.genders,
            "phones": self.phones,
            "intensity": self.intensity,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Labels":
        """What ``to_dict`` gave; KeyError where a table is missing."""
        classes = seqm.ClassTable(tuple(values["classes"]), tuple(values["class_esc"]))
        # files that do not say it have an EIS, which means nothing where it was not learned
        return cls(classes, tuple(values["genders"]), tuple(values["phones"]), bool(values.get("intensity", True)))


class Answers(NamedTuple):
    """What a model says of N clips."""

    posterior: np.ndarray  # (N, classes)
    eis: np.ndarray | None  # (N,), in 0 to 4; None where the model was not trained on it
    gender: np.ndarray | None  # (N, genders), posterior; None where the model was not trained on it
    phones: list[list[int]] | None  # phone numbers of the best path; None where they were not asked for


class Inference(nn.Module):
    """A trained model as it is used and exported: features to posteriors, clipped EIS, and what else is asked for."""

    def __init__(self, model: Normalised, outputs: Sequence[str]):
        super().__init__()
        self.model, self.outputs = model, tuple(outputs)
        emotion = {"esc"} | {task for task, output in (("eis", EIS), ("gender", GENDER)) if output in outputs}
        phonemes = {"phoneme"} if PHONES in outputs else set()
        # With statistics of its own for the phoneme stream, batch norm differs from task to task.
        apart = model.model.config.batch_statistics == "per_stream"
        passes = (emotion, phonemes) if apart else (emotion | phonemes,)
        self.passes = tuple(tuple(sorted(tasks)) for tasks in passes if tasks)
        self.eval()

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """Features (N, T, D), lengths (N,) in frames -> ``self.outputs``.

        Posteriors (N, classes) and (N, genders), EIS (N,), the embedding (N, E), phoneme logits (N, T', phones) and
        their valid frames (N,).
        """
        found: dict[str, Tensor] = {}
        for tasks in self.passes:
            predictions = self.model(features, lengths, tasks=tasks)
            if "esc" in tasks:
                found[ESC] = predictions.esc_logits.float().softmax(1)
                found[EMBEDDING] = predictions.embedding.float()
            if "eis" in tasks:
                found[EIS] = clip_eis(predictions.eis.float())
            if "gender" in tasks:
                found[GENDER] = predictions.gender_logits.float().softmax(1)
            if "phoneme" in tasks:
                found[PHONES] = predictions.phoneme_logits.float()
                found[PHONE_FRAMES] = predictions.lengths
        return tuple(found[name] for name in self.outputs)


def _wanted(labels: Labels, phones: bool) -> tuple[str, ...]:
    """The outputs that ``Answers`` are made of."""
    left_out = {EMBEDDING} if phones else {EMBEDDING, PHONES, PHONE_FRAMES}
    return tuple(name for name in labels.outputs() if name not in left_out)


def _answers(found: dict[str, Tensor]) -> Answers:
    phones = greedy_decode(found[PHONES], found[PHONE_FRAMES]) if PHONES in found else None
    gender = found[GENDER].cpu().numpy() if GENDER in found else None
    eis = found[EIS].cpu().numpy() if EIS in found else None
    return Answers(found[ESC].cpu().numpy(), eis, gender, phones)


class TorchModel:
    """A model that torch computes, on a CPU or a GPU."""

    def __init__(self, model: Normalised, labels: Labels, device: torch.device):
        self.labels, self.device, self.fbank = labels, device, FbankConfig()
        model.to(device)
        _dilate_pointwise(model)
        self.inference = {phones: Inference(model, _wanted(labels, phones)) for phones in (False, True)}

    def __call__(self, features: Tensor, lengths: Tensor, phones: bool = False) -> Answers:
        """Features (N, T, D) on ``device``, padded, and lengths (N,) in frames, on the CPU -> what is said of them."""
        inference = self.inference[phones]
        with torch.inference_mode():
            return _answers(dict(zip(inference.outputs, inference(features, lengths))))


def _dilate_pointwise(model: nn.Module) -> None:
    """Give 1x1 convolutions a dilation, which changes no result, so that torch leaves small batches to oneDNN too.

    On one CPU thread it else takes a slow product for batches below 16: at C = 256 a clip of 3 s is 1.7 times as fast.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv1d) and module.kernel_size == (1,):
            module.dilation = (2,)


class OnnxModel:
    """A model that onnxruntime computes, on a CPU, with as many threads as torch is set to."""

    def __init__(self, path: Path):
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError(
                f"{path}: an ONNX model needs onnxruntime, which is not installed; install it with "
                "pip install onnxruntime, or give a checkpoint or a model folder."
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a dozen of its own
            raise InputError(f"{path}: is not a whole ONNX model ({_first_line(error)}).") from error
        self.labels, self.fbank = _described(path, self.session.get_modelmeta().custom_metadata_map)
        # only what leads to the outputs asked for is computed
        self.run_options = onnxruntime.RunOptions()
        self.run_options.only_execute_path_to_fetches = True
        self.device = torch.device("cpu")

    def __call__(self, features: Tensor, lengths: Tensor, phones: bool = False) -> Answers:
        """As TorchModel's."""
        outputs = _wanted(self.labels, phones)
        given = dict(zip(INPUTS, (features.numpy(), lengths.long().numpy())))
        found = self.session.run(outputs, given, self.run_options)
        return _answers({name: torch.from_numpy(value) for name, value in zip(outputs, found)})


TrainedModel = TorchModel | OnnxModel


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def described(labels: Labels, fbank: FbankConfig, **more: Any) -> dict[str, str]:
    """An ONNX file's metadata: its labels, and how its features are made."""
    features = {
        **fbank.to_dict(),
        "dither": 0.0,
        "snip_edges": False,
        "samples": "mono, in [-1, 1]",
        "energies": "log of the power spectrum's mel bins, as Kaldi's compute-fbank-feats",
    }
    values = {"format": METADATA_FORMAT, "labels": labels.to_dict(), "features": features, **more}
    return {METADATA_KEY: json.dumps(values, ensure_ascii=False)}


def _described(path: Path, metadata: dict[str, str]) -> tuple[Labels, FbankConfig]:
    """What ``described`` wrote; InputError for an ONNX file of another program."""
    try:
        values = json.loads(metadata[METADATA_KEY])
        if values["format"] != METADATA_FORMAT:
            raise InputError(f"{path}: was exported by another version of SpeechEQ; export the model again.")
        settings = {name: values["features"][name] for name in FbankConfig().to_dict()}
        return Labels.from_dict(values["labels"]), FbankConfig.from_dict(settings)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: is not an ONNX model of SpeechEQ, its metadata lack what speecheq export-model writes."
        ) from error


def read_content(name: str | Path | None) -> tuple[dict[str, Any], Path]:
    """The content of a checkpoint or a model folder (see ``checkpoint.save``), and its path. InputError for others."""
    path = _local(name)
    return (model_folder.read(path) if path.is_dir() else checkpoint.read(path)), path


def load_model(name: str | Path | None = None, device: str = "auto") -> TrainedModel:
    """The trained model ``name``: a checkpoint, a model folder, an ONNX file or a hub id; None: the package's own.

    ``device`` is auto, cpu or cuda; an ONNX file runs on the CPU. InputError says what is wrong with the model.
    """
    chosen = pick_device(device)
    path = _local(name)
    if path.suffix == ".onnx":
        if device == "cuda":
            raise InputError(
                f"{path}: an ONNX model runs on the CPU here; use --device cpu, or a checkpoint or model "
                "folder for a GPU."
            )
        return OnnxModel(path)
    content, path = read_content(path)
    model, config = checkpoint.restore(content, str(path))
    return TorchModel(model, Labels.of(content, config), chosen)


def _local(name: str | Path | None) -> Path:
    """The file or folder of a model, fetched from the hub where ``name`` is an id there."""
    if name is None:
        if not DEFAULT_MODEL.is_dir():
            raise InputError(
                "no model is given, and this version brings none: give one with --model (a best.pt, a "
                "model folder, an .onnx file or the id of a model on the hub)."
            )
        return DEFAULT_MODEL
    path = Path(name)
    if path.exists():
        return path
    if path.suffix in (".pt", ".onnx") or not HUB_ID.fullmatch(str(name)):
        raise InputError(f"{path}: there is no such model, neither a checkpoint, nor a model folder, nor an ONNX file.")
    return model_folder.fetch(str(name))
