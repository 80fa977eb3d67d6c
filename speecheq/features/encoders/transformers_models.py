"""wav2vec 2.0, HuBERT, WavLM, data2vec-audio and w2v-BERT 2.0, whose networks are those of the transformers library.

transformers 4.41 (torch 1.13) and 5 (torch 2.4 and later) give the same states.
"""

import warnings
from typing import Any

import torch
from lhotse.features.kaldi.layers import Wav2LogFilterBank
from torch import Tensor, nn

from speecheq.common.errors import InputError, first_line, optional_package
from speecheq.features.encoders.activation import gelu
from speecheq.features.encoders.encoder import SAMPLING_RATE, Encoder, normalise_clips
from speecheq.features.encoders.hidden_states import recorded_states
from speecheq.features.encoders.model_files import ModelFiles, Tensors, check_layers, check_no_whisper_settings
from speecheq.features.encoders.settings import EncoderSettings
from speecheq.features.waveform_batch import fit_length, zero_padding

# The class of each model_type in config.json.
MODEL_CLASSES = {
    "wav2vec2": "Wav2Vec2Model",
    "hubert": "HubertModel",
    "wavlm": "WavLMModel",
    "data2vec-audio": "Data2VecAudioModel",
    "wav2vec2-bert": "Wav2Vec2BertModel",
}
# A tensor that all of them have.
KNOWN_TENSOR = "feature_projection.projection.weight"
Convolutions = list[tuple[int, int]]  # kernel and stride of each
# The two names of the parts of a normalised weight: of torch before 2.1, and since.
WEIGHT_NORM = (("weight_g", "parametrizations.weight.original0"), ("weight_v", "parametrizations.weight.original1"))


def num_conv_frames(samples: Tensor, convolutions: Convolutions) -> Tensor:
    """Frames (N,) that ``convolutions`` make of numbers of samples (N,)."""
    for kernel, stride in convolutions:
        samples = (samples - kernel) // stride + 1
    return samples


def shortest_input(convolutions: Convolutions) -> int:
    """Samples of which ``convolutions`` make one frame."""
    samples = 1
    for kernel, stride in reversed(convolutions):
        samples = (samples - 1) * stride + kernel
    return samples


def build_model(files: ModelFiles, blocks: int) -> Any:
    """The model of ``files`` with its first ``blocks`` blocks, in float32, with the weights that the files hold.

    Dropout, dropped layers and masks in time are switched off: a frozen encoder inside a model in training mode has
    none of them. Raises InputError without transformers, and for files that do not go together.
    """
    name = MODEL_CLASSES[files.config["model_type"]]
    with optional_package("transformers", f"{files.folder}: {name}", "utils/install.sh --extras encoders"):
        import transformers

        model_class = getattr(transformers, name)
        table = {key: 0.0 if key.endswith(("dropout", "layerdrop")) else value for key, value in files.config.items()}
        changed = dict(num_hidden_layers=blocks, apply_spec_augment=False, mask_time_prob=0.0, mask_feature_prob=0.0)
        try:
            with torch.random.fork_rng(devices=[]):  # what is drawn here is replaced below
                model = model_class(model_class.config_class.from_dict({**table, **changed, "add_adapter": False}))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{files.folder}/config.json: is not the table of a {name} ({first_line(error)}); copy it again."
            ) from error
    model = model.float()
    for module in model.modules():
        if type(module).__name__ == "GELUActivation":
            module.act = gelu
    with files.tensors((f"{model_class.base_model_prefix}.", ""), KNOWN_TENSOR) as tensors, torch.no_grad():
        for key, value in model.state_dict().items():
            value.copy_(tensors.read(stored_name(key, tensors), tuple(value.shape)))
    return model


def stored_name(name: str, tensors: Tensors) -> str:
    """The name that the parameter ``name`` has in ``tensors``, whichever torch wrote them."""
    for pair in WEIGHT_NORM:
        for here, there in (pair, pair[::-1]):
            other = name.removesuffix(here) + there
            if name.endswith(here) and other in tensors:
                return other
    return name


class TransformersNetwork(nn.Module):
    """A model of transformers, from its inputs to the states of some layers.

    Args:
        model: the model, cut after the highest of ``layers``.
        layers: whose states are taken.
        last: the number of the model's last layer before it was cut.
        masked: whether the model is told which of its inputs are padding; all clips are equally long otherwise.

    Attributes:
        convolutions: those that make frames of a waveform; none where the inputs are frames.
    """

    def __init__(self, model: Any, layers: tuple[int, ...], last: int, masked: bool) -> None:
        super().__init__()
        self.model, self.layers, self.last, self.masked = model, layers, last, masked
        config = model.config
        self.convolutions: Convolutions = (
            list(zip(config.conv_kernel, config.conv_stride)) if hasattr(config, "conv_kernel") else []
        )

    @property
    def blocks(self) -> nn.ModuleList:
        return self.model.encoder.layers

    def forward(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (N, S), or frames (N, F, D), zero after their ``lengths`` (N,), which are on the CPU.

        Returns:
            states (N, T, layers * D), zero after a clip's frames; numbers of frames (N,), on the CPU.
        """
        mask = None
        if self.masked and int(lengths.min()) < inputs.shape[1]:
            places = torch.arange(inputs.shape[1], device=inputs.device)
            mask = (places < lengths.to(inputs.device)[:, None]).long()
        with recorded_states(self.blocks, self.layers) as found:
            output = self.model(inputs, attention_mask=mask)
        if self.last in self.layers:
            found[self.last] = output[0]  # after the final layer norm, where there is one
        states = torch.cat([found[layer] for layer in self.layers], dim=-1)
        frames = num_conv_frames(lengths, self.convolutions)
        return zero_padding(states, frames), frames


class TransformersEncoder(Encoder):
    """What the two kinds below share: the model behind ``network``."""

    network: TransformersNetwork

    def __init__(self, settings: EncoderSettings, files: ModelFiles) -> None:
        check_no_whisper_settings(files.folder, settings)
        config = files.config
        check_layers(files.folder, settings.layers, config["num_hidden_layers"])
        files.check_preprocessor(sampling_rate=SAMPLING_RATE)
        model = build_model(files, max(1, max(settings.layers)))
        network = TransformersNetwork(model, settings.layers, config["num_hidden_layers"], self.is_batched(config))
        super().__init__(settings, network, config["hidden_size"], files.normalises(settings.normalise, True))
        self.pads_batches = network.masked

    def stored_tensors(self) -> dict[str, Tensor]:
        return dict(self.network.model.state_dict())

    @staticmethod
    def is_batched(config: dict[str, Any]) -> bool:
        """Whether clips of different lengths can go through the model of ``config`` together."""
        raise NotImplementedError


class WaveformEncoder(TransformersEncoder):
    """wav2vec 2.0, HuBERT, WavLM and data2vec-audio: convolutions over the waveform, then blocks.

    A clip that is too short for one frame is padded with zeros to the length of one.
    """

    @staticmethod
    def is_batched(config: dict[str, Any]) -> bool:
        # Group norm takes its statistics over the whole row. data2vec has several convolutions for positions, and after
        # the first what was padding is no longer zero.
        return config.get("feat_extract_norm") == "layer" and config["model_type"] != "data2vec-audio"

    def inputs(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (N, S), normalised as the model asks, and their lengths (N,) in samples."""
        samples = samples.float()
        samples = normalise_clips(samples, lengths) if self.normalise else zero_padding(samples, lengths)
        lengths = lengths.clamp(min=shortest_input(self.network.convolutions))
        return fit_length(samples, int(lengths.max())), lengths

    def frames_of_piece(self, samples: Tensor) -> Tensor:
        convolutions = self.network.convolutions
        return num_conv_frames(samples.clamp(min=shortest_input(convolutions)), convolutions)


class Wav2Vec2BertEncoder(TransformersEncoder):
    """w2v-BERT 2.0: Kaldi's filter banks, normalised over each clip, two frames of 10 ms side by side, then blocks."""

    HOP, WINDOW = 160, 400  # samples
    SHORTEST = WINDOW + HOP

    def __init__(self, settings: EncoderSettings, files: ModelFiles) -> None:
        files.check_preprocessor(num_mel_bins=80, feature_size=80, stride=2)
        super().__init__(settings, files)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lhotse expects snip_edges=False
            self.filter_banks = Wav2LogFilterBank(dither=0.0, snip_edges=True, high_freq=8000.0, num_filters=80)

    @staticmethod
    def is_batched(config: dict[str, Any]) -> bool:
        return True

    def inputs(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Filter banks (N, T, 160), as transformers' ``SeamlessM4TFeatureExtractor`` makes them, and lengths (N,)."""
        samples, lengths = zero_padding(samples.float(), lengths), lengths.clamp(min=self.SHORTEST)
        samples = fit_length(samples, int(lengths.max()))
        counts = (lengths - self.WINDOW) // self.HOP + 1
        features = self.filter_banks(samples * 2**15)[:, : int(counts.max())]
        features = zero_padding(features, counts)
        if self.normalise:
            divisor = counts.to(features.device)[:, None, None]
            centred = zero_padding(features - features.sum(dim=1, keepdim=True) / divisor, counts)
            variance = centred.square().sum(dim=1, keepdim=True) / (divisor - 1)
            features = centred / (variance + 1e-7).sqrt()
        pairs = features.shape[1] // 2
        return features[:, : 2 * pairs].reshape(len(features), pairs, -1), counts // 2

    def frames_of_piece(self, samples: Tensor) -> Tensor:
        return ((samples.clamp(min=self.SHORTEST) - self.WINDOW) // self.HOP + 1) // 2
