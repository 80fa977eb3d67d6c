"""emotion2vec (Ma et al. 2024), whose network is that of FunASR, where it is installed (pip install funasr).

Its folders hold config.yaml and model.pt. The weights are read as plain tensors: a file with code in it is refused.
"""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speecheq.common.errors import InputError, optional_package
from speecheq.features.encoders.encoder import Encoder, normalise_clips
from speecheq.features.encoders.hidden_states import recorded_states
from speecheq.features.encoders.model_files import check_layers, check_no_whisper_settings
from speecheq.features.encoders.settings import EncoderSettings
from speecheq.features.waveform_batch import fit_length, zero_padding

CONFIG, WEIGHTS = FILES = ("config.yaml", "model.pt")
# Samples of which its convolutions make one frame, and from one frame to the next.
WINDOW, HOP = 400, 320


def is_emotion2vec(folder: Path) -> bool:
    """Whether ``folder`` holds a model in FunASR's layout."""
    return all((folder / name).is_file() for name in FILES)


def digest_of_files(folder: Path) -> str:
    """A digest of the content of both files."""
    return hashlib.sha256(b"".join(hashlib.sha256((folder / name).read_bytes()).digest() for name in FILES)).hexdigest()


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of FunASR's model.pt by name, without the prefixes of its training."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{path}: is damaged, or holds more than plain tensors, which could run code when it is read; copy it from "
            "where the model comes from."
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        content = content.get(key, content)
    return {name.removeprefix("module.").removeprefix("d2v_model."): value for name, value in content.items()}


def build_model(folder: Path) -> Any:
    """FunASR's model of ``folder``. Raises InputError without FunASR, and for files that do not go together."""
    with optional_package("funasr", f"{folder}: emotion2vec"):
        from funasr.models.emotion2vec.model import Emotion2vec
        from omegaconf import OmegaConf
    config = OmegaConf.load(folder / CONFIG)  # PyYAML takes 1e-05, which stands in these files, for text
    if config.get("model") != "Emotion2vec" or "model_conf" not in config:
        raise InputError(f"{folder / CONFIG}: is not of an emotion2vec model, the only kind of FunASR's that is read.")
    with torch.random.fork_rng(devices=[]):  # what is drawn here is replaced below
        model = Emotion2vec(model_conf=config["model_conf"])
    weights = read_weights(folder / WEIGHTS)
    for name, value in model.state_dict().items():
        # the decoder is that of its training
        if ".decoder." not in name and (name not in weights or weights[name].shape != value.shape):
            raise InputError(
                f"{folder / WEIGHTS}: lacks the tensor {name} that its {CONFIG} asks for; copy both again."
            )
    model.load_state_dict(weights, strict=False)
    return model.float()


class Emotion2vecNetwork(nn.Module):
    """FunASR's model, from equally long waveforms to the states of some layers."""

    def __init__(self, model: Any, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.last = len(model.blocks)
        model.blocks = model.blocks[: max(1, *layers)]
        self.model, self.layers = model, layers

    @property
    def blocks(self) -> nn.ModuleList:
        return self.model.blocks

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (N, S), all of the length S = ``lengths`` (N,).

        Returns:
            states (N, T, layers * D); numbers of frames (N,), on the CPU.
        """
        extra = self.model.modality_encoders["AUDIO"].modality_cfg.num_extra_tokens
        with recorded_states(self.blocks, self.layers) as found:
            output = self.model.extract_features(waveforms, padding_mask=None, remove_extra_tokens=False)
        if self.last in self.layers:
            found[self.last] = output["x"]  # after the final layer norm, where there is one
        states = torch.cat([found[layer] for layer in self.layers], dim=-1)[:, extra:]
        return states, torch.full_like(lengths, states.shape[1])


class Emotion2vecEncoder(Encoder):
    """emotion2vec on waveforms; a clip that is too short for one frame is padded with zeros to the length of one."""

    pads_batches = False
    network: Emotion2vecNetwork

    def __init__(self, settings: EncoderSettings, folder: Path) -> None:
        check_no_whisper_settings(folder, settings)
        model = build_model(folder)
        check_layers(folder, settings.layers, len(model.blocks))
        normalise = settings.normalise == "yes" or (settings.normalise == "auto" and bool(model.cfg.get("normalize")))
        super().__init__(settings, Emotion2vecNetwork(model, settings.layers), int(model.cfg.embed_dim), normalise)

    def train(self, mode: bool = True) -> "Emotion2vecEncoder":
        """Its dropout and dropped layers stay off: a frozen encoder inside a model in training mode has none."""
        return super().train(False)

    def inputs(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (N, S), normalised as the model asks, and their lengths (N,) in samples."""
        samples = zero_padding(samples.float(), lengths)
        if self.normalise:
            samples = normalise_clips(samples, lengths, epsilon=1e-5)
        lengths = lengths.clamp(min=WINDOW)
        return fit_length(samples, int(lengths.max())), lengths

    def frames_of_piece(self, samples: Tensor) -> Tensor:
        return (samples.clamp(min=WINDOW) - WINDOW) // HOP + 1

    def stored_tensors(self) -> dict[str, Tensor]:
        raise InputError(f"{self.settings.model}: emotion2vec models cannot be saved with another model.")
