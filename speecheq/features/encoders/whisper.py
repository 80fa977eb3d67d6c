"""Whisper's encoder (Radford et al. 2022), up to the last layer that is asked for.

Its own code, in place of transformers' ``WhisperModel``, since that takes 30 s of input only and has no mask: here
clips are as long as they are, and those of a batch do not see each other's padding.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from speecheq.common.errors import InputError
from speecheq.features.encoders.activation import gelu
from speecheq.features.encoders.encoder import SAMPLING_RATE, Encoder, level_clips, normalise_clips
from speecheq.features.encoders.log_mel import HOP, LogMel
from speecheq.features.encoders.model_files import ModelFiles, check_layers
from speecheq.features.encoders.settings import EncoderSettings
from speecheq.features.waveform_batch import fit_length, zero_padding

WHOLE_INPUT = 30 * SAMPLING_RATE  # samples
# The prefixes of the encoder's tensors in files that transformers' classes write.
PREFIXES = ("model.encoder.", "encoder.", "")
TORCH_1 = torch.__version__.startswith("1.")


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of (N, heads, T, D / heads); ``mask`` (N, 1, 1, T) is True for the keys that may be seen."""
    if hasattr(functional, "scaled_dot_product_attention"):  # torch 2
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(2, 3)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ value


# Layers without values, as ``load`` fills them in. (On torch's device "meta" they take seconds of imports.)
class Linear(nn.Linear):
    def reset_parameters(self) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, C) to (N, T, C')."""
        slow = TORCH_1 and x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.jit.is_tracing()
        if not slow:
            return super().forward(x)
        # With a dilation, which changes nothing here, oneDNN computes it: on an AMD CPU 2.2 times as fast as MKL.
        return functional.conv1d(x.transpose(1, 2), self.weight[:, :, None], self.bias, dilation=2).transpose(1, 2)


class LayerNorm(nn.LayerNorm):
    def reset_parameters(self) -> None:
        pass


class Conv1d(nn.Conv1d):
    def reset_parameters(self) -> None:
        pass


class Block(nn.Module):
    """Self-attention and feed-forward, each behind a layer norm, added to their input."""

    def __init__(self, dim: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = LayerNorm(dim)
        self.query_key_value = Linear(dim, 3 * dim)
        self.attention_out = Linear(dim, dim)
        self.feed_forward_norm = LayerNorm(dim)
        self.feed_forward_in = Linear(dim, inner)
        self.feed_forward_out = Linear(inner, dim)

    def forward(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """(N, T, D) to (N, T, D); ``mask``: see ``attend``."""
        batch, frames, dim = states.shape
        projected = self.query_key_value(self.attention_norm(states))
        query, key, value = projected.reshape(batch, frames, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        attended = attend(query, key, value, mask).transpose(1, 2).reshape(batch, frames, dim)
        states = states + self.attention_out(attended)
        return states + self.feed_forward_out(gelu(self.feed_forward_in(self.feed_forward_norm(states))))


class WhisperNetwork(nn.Module):
    """From log mel spectrograms to the states of some layers. ``masked`` is False where padding belongs to the input.

    The parameters have no values before ``load``.
    """

    def __init__(self, config: dict, layers: tuple[int, ...], masked: bool) -> None:
        super().__init__()
        dim = config["d_model"]
        self.layers, self.masked = layers, masked
        self.conv1 = Conv1d(config["num_mel_bins"], dim, 3, padding=1)
        self.conv2 = Conv1d(dim, dim, 3, stride=2, padding=1)
        self.positions = nn.Parameter(torch.empty(config["max_source_positions"], dim))
        self.blocks = nn.ModuleList(
            Block(dim, config["encoder_ffn_dim"], config["encoder_attention_heads"]) for _ in range(max(layers))
        )
        has_last = config["encoder_layers"] in layers
        self.final_norm = LayerNorm(dim) if has_last else None

    def forward(self, log_mel: Tensor, mel_frames: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``log_mel`` (N, F, mels), zero after the ``mel_frames`` (N,) of a clip; None: all rows are whole clips.

        Returns:
            states (N, T, layers * D), zero after a clip's frames; numbers of frames (N,).
        """
        mask = frames = None
        states = gelu(self.conv1(log_mel.transpose(1, 2)))
        if mel_frames is not None and self.masked:
            counts = mel_frames.to(log_mel.device)[:, None]
            states = states * (torch.arange(log_mel.shape[1], device=log_mel.device) < counts)[:, None]
        states = gelu(self.conv2(states)).transpose(1, 2)
        states = states + self.positions[: states.shape[1]]
        if mel_frames is None:
            frames = torch.full((log_mel.shape[0],), states.shape[1])
        else:
            frames = (mel_frames + 1) // 2
            mask = torch.arange(states.shape[1], device=log_mel.device) < frames.to(log_mel.device)[:, None]
        found = {0: states}
        for number, block in enumerate(self.blocks, start=1):
            states = block(states, mask[:, None, None] if mask is not None and self.masked else None)
            found[number] = states
        if self.final_norm is not None:
            found[len(self.blocks)] = self.final_norm(states)
        chosen = torch.cat([found[layer] for layer in self.layers], dim=-1)
        if mask is None:
            return chosen, frames
        return chosen * mask[:, :, None], frames

    def stored_names(self) -> Iterator[tuple[Tensor, list[str]]]:
        """Each parameter and the names of the tensors, without prefix, that it is made of, one below the other."""
        names = {
            "attention_norm": ["self_attn_layer_norm"],
            "query_key_value": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            "attention_out": ["self_attn.out_proj"],
            "feed_forward_norm": ["final_layer_norm"],
            "feed_forward_in": ["fc1"],
            "feed_forward_out": ["fc2"],
        }
        for name, parameter in self.named_parameters():
            place, _, kind = name.rpartition(".")
            if name == "positions":
                yield parameter, ["embed_positions.weight"]
            elif place.startswith("blocks."):
                _, number, part = place.split(".")
                yield parameter, [f"layers.{number}.{stored}.{kind}" for stored in names[part]]
            else:
                yield parameter, [f"{place.replace('final_norm', 'layer_norm')}.{kind}"]

    def load(self, files: ModelFiles) -> "WhisperNetwork":
        """Fill the parameters from ``files``, converted to float32; no other tensor is read. Returns self."""
        with files.tensors(PREFIXES, "conv1.weight") as tensors, torch.no_grad():
            for parameter, names in self.stored_names():
                rows = len(parameter) // len(names)
                for place, name in enumerate(names):
                    part = parameter[place * rows : (place + 1) * rows]
                    if name.endswith("k_proj.bias"):  # keys have none, since it would not change the attention
                        part.zero_()
                    else:
                        part.copy_(tensors.read(name, tuple(part.shape)))
        return self

    def stored_tensors(self) -> dict[str, Tensor]:
        """The parameters as ``load`` reads them."""
        found: dict[str, Tensor] = {}
        for parameter, names in self.stored_names():
            found.update(zip(names, parameter.chunk(len(names))))
        return {name: value for name, value in found.items() if not name.endswith("k_proj.bias")}


class WhisperInputs(nn.Module):
    """From waveforms to what ``WhisperNetwork`` takes; the arguments are those of EncoderSettings."""

    def __init__(self, num_mels: int, padding: str, normalise: bool, level: bool = False) -> None:
        super().__init__()
        self.num_mels, self.padding, self.normalise, self.level = num_mels, padding, normalise, level
        self.log_mel = LogMel(num_mels)

    def num_frames(self, lengths: Tensor) -> Tensor:
        """See ``Encoder``: unpadded a frame for each two mel frames, padded one for each 320 samples begun."""
        if self.padding == "none":
            return ((lengths // HOP).clamp(min=1) + 1) // 2
        return (lengths + 2 * HOP - 1) // (2 * HOP)

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log mel spectrograms (N, F, mels) and, for each clip, the mel frames (N,) whose states are kept."""
        if self.normalise:
            samples = normalise_clips(samples, lengths)
        if self.level:
            samples = level_clips(samples, lengths)
        if self.padding == "none":
            return self.log_mel(samples, lengths)
        padded = fit_length(zero_padding(samples, lengths), WHOLE_INPUT)
        log_mel, _ = self.log_mel(padded, torch.full_like(lengths, WHOLE_INPUT))
        return log_mel, 2 * self.num_frames(lengths)


class WhisperEncoder(Encoder):
    """Whisper's encoder on waveforms; clips above 30 s are taken in pieces of 30 s."""

    max_samples = WHOLE_INPUT
    network: WhisperNetwork

    def __init__(self, settings: EncoderSettings, files: ModelFiles) -> None:
        config = files.config
        files.check_preprocessor(
            sampling_rate=SAMPLING_RATE, hop_length=HOP, n_fft=400, chunk_length=30, feature_size=config["num_mel_bins"]
        )
        if config.get("activation_function", "gelu") != "gelu" or config["max_source_positions"] != 1500:
            raise InputError(
                f"{files.folder}/config.json: is not of a Whisper encoder for 30 s of input with gelu as its "
                "activation, the only kind that this package reads."
            )
        check_layers(files.folder, settings.layers, config["encoder_layers"])
        network = WhisperNetwork(config, settings.layers, masked=settings.padding == "none").load(files)
        super().__init__(settings, network, config["d_model"], files.normalises(settings.normalise, False))
        level = settings.normalise == "level"
        self.front_end = WhisperInputs(config["num_mel_bins"], settings.padding, self.normalise, level)

    def inputs(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log mel spectrograms (N, F, mels) and, for each clip, the mel frames (N,) whose states are kept."""
        return self.front_end(samples, lengths)

    def stored_tensors(self) -> dict[str, Tensor]:
        return {PREFIXES[0] + name: value for name, value in self.network.stored_tensors().items()}

    def frames_of_piece(self, samples: Tensor) -> Tensor:
        return self.front_end.num_frames(samples)
