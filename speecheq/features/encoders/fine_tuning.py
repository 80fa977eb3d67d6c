"""Training an encoder with the model behind it: what of it is trained, LoRA, and how a trained one is put together."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from speecheq.config.encoder import EncoderConfig
from speecheq.features.encoders.encoder import Encoder

# Parts that stay as they are under ``train: all``: the convolutions of wav2vec 2.0 and its kin, which is better on
# little data (SpeechBrain's recipes do so), and the vector for masked frames, which is not in use.
NEVER_TRAINED = ("network.model.feature_extractor.", "network.model.masked_spec_embed")


class LowRank(nn.Module):
    """LoRA (Hu et al., 2021) of a weight W (out, in): W + alpha / r B A, with A (r, in) and B (out, r) trained.

    B is 0 at first. It is a parametrization of the weight, not another layer in place of nn.Linear as in the library
    peft: WavLM's attention takes ``q_proj.weight`` itself and would go past such a layer, untrained. Nor does Whisper
    need transformers in this way, as it would with peft.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        bound = inputs**-0.5  # as nn.Linear draws its weights
        drawn = torch.rand(rank, inputs, generator=generator)
        self.a = nn.Parameter((2 * drawn - 1) * bound)
        self.b = nn.Parameter(torch.zeros(outputs, rank))
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):  # small changes of a weight are lost in bf16
            return torch.addmm(weight, self.b, self.a, alpha=self.scale)


def _find_encoder(extractor: nn.Module) -> tuple[str, Encoder]:
    """The encoder in ``extractor``, or itself; and what the names of its parameters begin with there."""
    for name, module in extractor.named_modules():
        if isinstance(module, Encoder):
            return f"{name}." if name else "", module
    raise ValueError("there is no encoder to train")


def _has_norm_at_end(encoder: Encoder) -> bool:
    """Whether ``model.encoder.layer_norm`` of a model of transformers stands behind the blocks, not before them."""
    config = getattr(getattr(encoder.network, "model", None), "config", None)
    return bool(getattr(config, "do_stable_layer_norm", False))


def _blocks_above(encoder: Encoder) -> dict[str, int]:
    """For each parameter of the encoder the number of blocks between it and the states of the highest layer."""
    number_of = {id(value): number for number, block in enumerate(encoder.blocks) for value in block.parameters()}
    at_end = ["network.final_norm."]
    if _has_norm_at_end(encoder):
        at_end.append("network.model.encoder.layer_norm.")
    above = {}
    for name, value in encoder.named_parameters():
        below = number_of.get(id(value), -1)
        above[name] = 0 if name.startswith(tuple(at_end)) else len(encoder.blocks) - 1 - below
    return above


def _add_lora(encoder: Encoder, config: EncoderConfig, seed: int) -> None:
    """Add LoRA to all linear layers of the blocks."""
    generator = torch.Generator().manual_seed(seed)
    for layer in [module for module in encoder.blocks.modules() if isinstance(module, nn.Linear)]:
        low_rank = LowRank(layer.weight, config.lora_rank, config.lora_alpha, generator)
        parametrize.register_parametrization(layer, "weight", low_rank)


def _trained_names(encoder: Encoder, config: EncoderConfig, above: Mapping[str, int]) -> list[str]:
    """The names of the parameters that ``config.train`` names."""
    if config.train == "all":
        return [name for name in above if not name.startswith(NEVER_TRAINED)]
    if config.train == "lora":
        parts: list[nn.Module] = [module for module in encoder.modules() if isinstance(module, LowRank)]
    else:
        parts = list(encoder.blocks)[-config.top_blocks() :]
    chosen = {id(value) for part in parts for value in part.parameters()}
    return [name for name, value in encoder.named_parameters() if id(value) in chosen]


def make_trainable(extractor: nn.Module, config: EncoderConfig, seed: int = 0) -> dict[str, float]:
    """Let gradients reach what ``config.train`` names of the encoder in ``extractor``; ``seed`` is that of LoRA.

    Returns: the names of these parameters in ``extractor``, each with its factor of the encoder's learning rate.
    """
    prefix, encoder = _find_encoder(extractor)
    if config.train == "lora":
        _add_lora(encoder, config, seed)
    encoder.requires_grad_(False)
    above = _blocks_above(encoder)
    names = _trained_names(encoder, config, above)
    for name in names:
        encoder.get_parameter(name).requires_grad_(True)
    return {prefix + name: config.layer_decay ** above[name] for name in names}


def load_trained(extractor: nn.Module, config: EncoderConfig, trained: Mapping[str, Tensor]) -> None:
    """Put what a training has made of its encoder, the ``trained`` parameters by name, into a fresh ``extractor``.

    LoRA's products are added to the weights: the encoder is then an ordinary one, frozen. Raises ValueError if these
    are not the parameters that ``config.train`` names.
    """
    factors = make_trainable(extractor, config)
    if factors.keys() != trained.keys():
        raise ValueError(f"it does not hold what encoder.train={config.train} trains")
    try:
        extractor.load_state_dict(dict(trained), strict=False)
    except RuntimeError as error:
        raise ValueError(str(error).splitlines()[-1].strip()) from error
    adapted = [module for module in extractor.modules() if _has_lora(module)]
    with torch.no_grad():
        for module in adapted:
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    extractor.eval().requires_grad_(False)


def _has_lora(module: nn.Module) -> bool:
    """Whether the weight of a layer has LoRA; weight norm is a parametrization too."""
    return isinstance(module, nn.Linear) and parametrize.is_parametrized(module, "weight")
