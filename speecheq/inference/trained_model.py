"""Load a trained model: a checkpoint (best.pt), a model folder, an ONNX file, or the hub id of a model folder.

Every kind of model takes features and returns a ``ModelOutput``.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from speecheq import seqm
from speecheq.common.device import pick_device
from speecheq.common.errors import InputError, first_line, optional_package
from speecheq.config.feature_sets import STARTER_FOLDER
from speecheq.config.schema import Config
from speecheq.dataset.model_inputs import waveform_extractor
from speecheq.evaluation.calibration import DevCalibration
from speecheq.evaluation.trained_range import TrainedRange
from speecheq.features.fbank import BatchedFbank, FbankConfig
from speecheq.features.speech_activity import NONE
from speecheq.inference import model_folder
from speecheq.inference.front_end import LOG_MEL, LogMelExtractor, LogMelInput
from speecheq.inference.int8_products import pad_frames
from speecheq.losses import greedy_decode
from speecheq.models import checkpoint, clip_eis
from speecheq.models.normalisation import Normalised

# The model folder that comes with the package.
DEFAULT_MODEL = STARTER_FOLDER
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

# The inputs and outputs of an exported model, in this order. Outputs of a head that was not trained are left out.
INPUTS = ("features", "lengths")
ESC, EIS, GENDER, EMBEDDING, PHONES, PHONE_FRAMES = OUTPUTS = (
    "esc_posterior",
    "eis",
    "gender_posterior",
    "embedding",
    "phoneme_logits",
    "phoneme_lengths",
)
# The metadata of an ONNX file hold the labels and the settings of the features under this key, in this format.
METADATA_KEY = "speecheq"
METADATA_FORMAT = 1
INT8 = "int8"  # the key of files with 8-bit weights


@dataclass(frozen=True)
class Labels:
    """The labels of a model's outputs; ``genders`` and ``phones`` are empty where it was not trained on them.

    ``intensity`` says whether it was trained on EIS; ``calibration`` has the temperature of its classes' posteriors,
    ``trained_range`` what clips it was trained on.
    """

    classes: seqm.ClassTable
    genders: tuple[str, ...]
    phones: tuple[str, ...]
    intensity: bool = True
    calibration: DevCalibration = DevCalibration()
    trained_range: TrainedRange = TrainedRange()

    @classmethod
    def from_checkpoint(cls, content: Mapping[str, Any], config: Config) -> "Labels":
        """The labels in the content of a checkpoint, without those of tasks that it was not trained on."""
        values = {**content, "intensity": config.loss.alpha > 0}
        for table, task in (("genders", "gender"), ("phones", "phoneme")):
            if task not in config.tasks():
                values[table] = ()
        return cls.from_dict(values)

    def outputs(self, embedding: bool = True, phones: bool = True) -> tuple[str, ...]:
        """The outputs that a model with these labels has, in the order of OUTPUTS; these two on request."""
        phones = phones and bool(self.phones)
        return tuple(compress(OUTPUTS, (True, self.intensity, self.genders, embedding, phones, phones)))

    def predicted(self, phones: bool) -> tuple[str, ...]:
        """The outputs that a prediction needs, in the order of OUTPUTS, with the phones on request."""
        return self.outputs(self.trained_range.subspace is not None, phones)

    def to_dict(self) -> dict[str, Any]:
        """The labels as JSON can hold them."""
        return {
            "classes": self.classes.names,
            "class_esc": self.classes.categories,
            "genders": self.genders,
            "phones": self.phones,
            "intensity": self.intensity,
            "calibration": self.calibration.to_dict(),
            "range": self.trained_range.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Labels":
        """The labels that ``to_dict`` wrote. Raises KeyError where a table is missing."""
        classes = seqm.ClassTable(tuple(values["classes"]), tuple(values["class_esc"]))
        # older files hold neither ``intensity`` nor ``calibration`` nor ``range``
        intensity = bool(values.get("intensity", True))
        calibration = DevCalibration.from_dict(values.get("calibration"))
        trained = TrainedRange.from_dict(values.get("range"))
        return cls(classes, tuple(values["genders"]), tuple(values["phones"]), intensity, calibration, trained)


class ModelOutput(NamedTuple):
    """The output of a model for N clips; None for what it was not trained on."""

    posterior: np.ndarray  # (N, classes)
    eis: np.ndarray | None  # (N,), from 0 to 4
    gender: np.ndarray | None  # (N, genders), posterior
    phones: list[list[int]] | None  # phone numbers of the best path; None too where they were not requested
    embedding: np.ndarray | None  # (N, E), where the range of the training clips' is known


class Inference(nn.Module):
    """A trained model as it is used and exported: it maps features to ``outputs``, which are names of OUTPUTS.

    ``temperature`` is that of the posteriors of ESC.
    """

    def __init__(self, model: Normalised, config: Config, outputs: Sequence[str], temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.model, self.outputs, self.feature_dim = model, tuple(outputs), config.model.feature_dim
        emotion = {"esc"} | {task for task, output in (("eis", EIS), ("gender", GENDER)) if output in outputs}
        phonemes = {"phoneme"} if PHONES in outputs else set()
        # With batch statistics for each stream, batch norm differs between emotion and phonemes.
        separate = config.model.batch_statistics == "per_stream"
        passes = (emotion, phonemes) if separate else (emotion | phonemes,)
        self.passes = tuple(tuple(sorted(tasks)) for tasks in passes if tasks)
        self.eval()

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """Map features (N, T, D) and their lengths (N,) in frames to the tensors of ``outputs``.

        Returns posteriors (N, classes) and (N, genders), EIS (N,), the embedding (N, E), phoneme logits
        (N, T', phones) and their lengths (N,) in frames.
        """
        tensors: dict[str, Tensor] = {}
        for tasks in self.passes:
            predictions = self.model(features, lengths, tasks=tasks)
            if "esc" in tasks:
                tensors[ESC] = (predictions.esc_logits.float() / self.temperature).softmax(1)
                tensors[EMBEDDING] = predictions.embedding.float()
            if "eis" in tasks:
                tensors[EIS] = clip_eis(predictions.eis.float())
            if "gender" in tasks:
                tensors[GENDER] = predictions.gender_logits.float().softmax(1)
            if "phoneme" in tasks:
                tensors[PHONES] = predictions.phoneme_logits.float()
                tensors[PHONE_FRAMES] = predictions.lengths
        return tuple(tensors[name] for name in self.outputs)


def _model_output(tensors: Mapping[str, Tensor]) -> ModelOutput:
    eis, gender = (tensors[name].cpu().numpy() if name in tensors else None for name in (EIS, GENDER))
    phones = greedy_decode(tensors[PHONES], tensors[PHONE_FRAMES]) if PHONES in tensors else None
    embedding = tensors[EMBEDDING].cpu().numpy() if EMBEDDING in tensors else None
    return ModelOutput(tensors[ESC].cpu().numpy(), eis, gender, phones, embedding)


class TorchModel:
    """A model that torch computes, on a CPU or a GPU; ``extractor`` makes its features of waveforms.

    Raises InputError if the pretrained encoder that it stands on cannot be loaded.
    """

    def __init__(self, model: Normalised, config: Config, labels: Labels, device: torch.device) -> None:
        self.labels, self.device, self.cmvn = labels, device, config.data.cmvn
        # mean and deviation (2, D) of the training data, if the model normalises by them
        self.moments = torch.stack([model.cmvn.mean, model.cmvn.deviation]) if self.cmvn == "global" else None
        self.extractor = waveform_extractor(config, model.trained_encoder).to(device)
        self.speech_activity = config.data.speech_activity
        model.to(device)
        _dilate_pointwise(model)
        temperature = labels.calibration.temperature
        self.inference = {
            phones: Inference(model, config, labels.predicted(phones), temperature) for phones in (False, True)
        }

    def __call__(self, features: Tensor, lengths: Tensor, phones: bool = False) -> ModelOutput:
        """Compute padded features (N, T, D) on ``device``; their lengths (N,) in frames are on the CPU."""
        inference = self.inference[phones]
        with torch.inference_mode():
            return _model_output(dict(zip(inference.outputs, inference(features, lengths))))


def _dilate_pointwise(model: nn.Module) -> None:
    """Give 1x1 convolutions a dilation, which changes no result, so that torch uses oneDNN for small batches too.

    Otherwise it takes a slow product on one CPU thread for batches below 16: at C = 256 a clip of 3 s takes 1.7 times
    as long.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv1d) and module.kernel_size == (1,):
            module.dilation = (2,)


class OnnxModel:
    """A model that onnxruntime computes, on a CPU, with as many threads as torch is set to."""

    moments: Tensor | None = None  # those of TorchModel are inside the graph

    def __init__(self, path: Path) -> None:
        with optional_package("onnxruntime", f"{path}: an ONNX model"):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a dozen of its own
            raise InputError(f"{path}: is not a whole ONNX model ({first_line(error)}).") from error
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.is_int8 = INT8 in metadata
        self.labels, self.extractor, self.cmvn, self.speech_activity = _read_metadata(path, metadata)
        # Compute only what leads to the requested outputs.
        self.run_options = onnxruntime.RunOptions()
        self.run_options.only_execute_path_to_fetches = True
        self.device = torch.device("cpu")

    def __call__(self, features: Tensor, lengths: Tensor, phones: bool = False) -> ModelOutput:
        """The same as that of TorchModel."""
        names = self.labels.predicted(phones)
        features = pad_frames(features) if self.is_int8 and isinstance(self.extractor, BatchedFbank) else features
        inputs = dict(zip(INPUTS, (features.numpy(), lengths.long().numpy())))
        arrays = self.session.run(names, inputs, self.run_options)
        return _model_output({name: torch.from_numpy(array) for name, array in zip(names, arrays)})


TrainedModel = TorchModel | OnnxModel


def onnx_metadata(labels: Labels, config: Config, log_mel: LogMelInput | None) -> dict[str, str]:
    """The metadata of an ONNX file: its labels, what finds speech, and how its features are computed.

    Without ``log_mel`` these are fbank.
    """
    features = {
        **FbankConfig().to_dict(),
        "dither": 0.0,
        "snip_edges": False,
        "samples": "mono, in [-1, 1]",
        "energies": "log of the power spectrum's mel bins, as Kaldi's compute-fbank-feats",
    }
    values = {
        "format": METADATA_FORMAT,
        "labels": labels.to_dict(),
        "features": features if log_mel is None else log_mel.to_dict(),
        "cmvn": config.data.cmvn,
        "speech_activity": config.data.speech_activity,
    }
    return {METADATA_KEY: json.dumps(values, ensure_ascii=False)}


def _read_metadata(path: Path, metadata: Mapping[str, str]) -> tuple[Labels, nn.Module, str, str]:
    """The labels of an ONNX file, what makes its features of waveforms, their normalisation, and what finds speech.

    Raises InputError for an ONNX file of another program.
    """
    try:
        values = json.loads(metadata[METADATA_KEY])
        if values["format"] != METADATA_FORMAT:
            raise InputError(f"{path}: was exported by another version of SpeechEQ; export the model again.")
        labels, features = Labels.from_dict(values["labels"]), values["features"]
        # which older files lack
        cmvn, speech_activity = str(values.get("cmvn", "")), str(values.get("speech_activity", NONE))
        if features.get("kind") == LOG_MEL:
            return labels, LogMelExtractor(LogMelInput.from_dict(features)), cmvn, speech_activity
        settings = {name: features[name] for name in FbankConfig().to_dict()}
        return labels, BatchedFbank(FbankConfig.from_dict(settings)), cmvn, speech_activity
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: is not an ONNX model of SpeechEQ, its metadata lack what speecheq export-model writes."
        ) from error


def read_weights(name: str | Path | None) -> tuple[Normalised, Config, Labels]:
    """The model of a checkpoint, a model folder or a hub id, in eval mode on the CPU; its settings; its labels.

    None is the model that comes with the package. Raises InputError if the model cannot be used.
    """
    path = find_model(name)
    content = model_folder.read(path) if path.is_dir() else checkpoint.read(path)
    model, config = checkpoint.restore(content, str(path))
    if config.model.context == "dialogue":
        raise InputError(f"{path}: hears an utterance with the others of its dialogue, which recordings do not tell.")
    return model, config, Labels.from_checkpoint(content, config)


def load_trained_model(name: str | Path | None = None, device: str = "auto") -> TrainedModel:
    """Load a checkpoint, a model folder, an ONNX file or a hub id; None is the model that comes with the package.

    ``device`` is auto, cpu, cuda or mps; an ONNX file runs on the CPU. Raises InputError if the model cannot be used.
    """
    chosen = pick_device(device)
    path = find_model(name)
    if path.suffix != ".onnx":
        return TorchModel(*read_weights(path), chosen)
    if device in ("cuda", "mps"):
        raise InputError(
            f"{path}: an ONNX model runs on the CPU; use --device cpu, or a checkpoint or model folder for a GPU."
        )
    return OnnxModel(path)


def find_model(name: str | Path | None) -> Path:
    """The file or folder of a model; a hub id is downloaded."""
    if name is None:
        if not DEFAULT_MODEL.is_dir():
            raise InputError(
                "no model is given, and none comes with this version: give one with --model (a best.pt, a model "
                "folder, an .onnx file or the id of a model on the hub)."
            )
        return DEFAULT_MODEL
    path = Path(name)
    if path.exists():
        return path
    if path.suffix in (".pt", ".onnx") or not HUB_ID.fullmatch(str(name)):
        raise InputError(f"{path}: there is no such model, neither a checkpoint, nor a model folder, nor an ONNX file.")
    return model_folder.download(str(name))
