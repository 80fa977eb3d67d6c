"""What an exported model takes, and how it is made of waveforms.

That is filter banks, or for a model on the states of Whisper's encoder, which is a part of the exported model then, log
mel spectrograms; for model.kind fusion both, side by side.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from speecheq.common.errors import InputError
from speecheq.config.schema import Config
from speecheq.dataset.model_inputs import encoder_of, waveform_extractor
from speecheq.features.encoders.encoder import SAMPLING_RATE
from speecheq.features.encoders.whisper import WhisperEncoder, WhisperInputs
from speecheq.features.fbank import BatchedFbank, FbankConfig
from speecheq.features.fbank_and_states import FRAMES_EACH, FitFbank

LOG_MEL = "log_mel"  # its kind in the metadata of an exported model
LONGEST = 30  # seconds that Whisper takes


@dataclass(frozen=True)
class LogMelInput:
    """The settings of Whisper's log mel spectrograms, and whether filter banks stand beside them."""

    num_mels: int
    padding: str
    normalise: bool
    with_fbank: bool
    level: bool = False  # whether clips are brought to one level; files of earlier versions do not say

    @property
    def feature_dim(self) -> int:
        return self.num_mels + (FbankConfig().num_filters if self.with_fbank else 0)

    def to_dict(self) -> dict[str, Any]:
        """As JSON in the metadata of an exported model."""
        return {
            "kind": LOG_MEL,
            **asdict(self),
            "sampling_rate": SAMPLING_RATE,
            "samples": "mono, in [-1, 1]",
            "log_mel": "as transformers' WhisperFeatureExtractor, of clips as long as they are; 30 s at most",
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LogMelInput":
        needed = {name: values[name] for name in ("num_mels", "padding", "normalise", "with_fbank")}
        return cls(**needed, level=bool(values.get("level", False)))


class LogMelExtractor(nn.Module):
    """Padded waveforms to what ``EncoderAndModel`` takes."""

    def __init__(self, settings: LogMelInput) -> None:
        super().__init__()
        self.log_mel = WhisperInputs(settings.num_mels, settings.padding, settings.normalise, settings.level)
        self.fbank = FitFbank(BatchedFbank()) if settings.with_fbank else None

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Samples (N, S) in [-1, 1], lengths (N,) -> features (N, F, D), and their frames (N,) of 10 ms, on the CPU.

        Raises InputError for a clip above 30 s.
        """
        if int(lengths.max()) > LONGEST * SAMPLING_RATE:
            raise InputError(
                f"an ONNX model with Whisper's encoder takes {LONGEST} s at most; cut recordings: --window {LONGEST}."
            )
        log_mel, frames = self.log_mel(samples, lengths)
        if self.fbank is None:
            return log_mel, frames
        padded = nn.functional.pad(log_mel, (0, 0, 0, -log_mel.shape[1] % FRAMES_EACH))
        states = (frames + 1) // FRAMES_EACH
        return torch.cat([padded, self.fbank(samples, lengths, padded.shape[1], FRAMES_EACH * states)], dim=2), frames


class EncoderAndModel(nn.Module):
    """Whisper's network and the model on its states, as they are exported: from log mel spectrograms to ``outputs``.

    With ``with_fbank`` the filter banks come behind the log mel spectrograms in each frame.
    """

    def __init__(self, network: nn.Module, inference: nn.Module, outputs: tuple[str, ...], settings: LogMelInput):
        super().__init__()
        self.network, self.inference, self.outputs = network, inference, outputs
        self.num_mels, self.with_fbank, self.feature_dim = settings.num_mels, settings.with_fbank, settings.feature_dim

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """Map features (N, F, D) and their lengths (N,) in frames of 10 ms to what ``Inference`` gives."""
        if not self.with_fbank:
            return self.inference(*self.network(features, lengths))
        log_mel, fbank = features.split([self.num_mels, self.feature_dim - self.num_mels], dim=2)
        states, frames = self.network(log_mel, lengths)
        stacked = fbank.reshape(fbank.shape[0], -1, FRAMES_EACH * fbank.shape[2])
        return self.inference(torch.cat([stacked, states], dim=2), frames)


def join_encoder(
    config: Config, inference: nn.Module, outputs: tuple[str, ...], trained: Mapping[str, Tensor] | None = None
) -> tuple[EncoderAndModel, LogMelInput]:
    """A model behind its encoder, to be exported, and what it takes; ``trained``: see ``waveform_extractor``.

    Raises InputError for an encoder that is not Whisper's, and for a model that is normalised by speaker.
    """
    if config.data.cmvn == "speaker":
        raise InputError(
            "a model that is normalised by speaker cannot be exported with its encoder, since the mean of a speaker "
            "is one of states inside it; speecheq package makes a model folder of it."
        )
    extractor = waveform_extractor(config, trained)
    encoder = encoder_of(extractor)
    if not isinstance(encoder, WhisperEncoder):
        raise InputError(
            f"a model can be exported with a Whisper encoder only, and {config.encoder.model} is none; speecheq "
            "package makes a model folder of it."
        )
    made = encoder.front_end
    settings = LogMelInput(made.num_mels, made.padding, made.normalise, extractor is not encoder, made.level)
    return EncoderAndModel(encoder.network, inference, outputs, settings), settings
