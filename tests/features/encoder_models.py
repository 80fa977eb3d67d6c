"""Tiny models of the real classes of transformers, as folders; the same weights on every stack."""

import json
import re
import zlib

import numpy as np
import torch

CONVOLUTIONS = dict(conv_dim=(16,) * 7, num_feat_extract_layers=7)
SIZES = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48)
POSITIONS = dict(num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2)
STABLE = dict(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)
# name: class of the model, its settings beside the defaults, class of the feature extractor, its settings
FAMILIES = {
    "whisper": (
        "WhisperModel",
        dict(
            d_model=32,
            encoder_layers=4,
            encoder_attention_heads=2,
            encoder_ffn_dim=48,
            decoder_layers=1,
            decoder_attention_heads=2,
            decoder_ffn_dim=16,
            vocab_size=60,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
        ),
        "WhisperFeatureExtractor",
        dict(),
    ),
    "wav2vec2-base": ("Wav2Vec2Model", {**SIZES, **CONVOLUTIONS, **POSITIONS}, "Wav2Vec2FeatureExtractor", dict()),
    "wav2vec2-large": (
        "Wav2Vec2Model",
        {**SIZES, **CONVOLUTIONS, **POSITIONS, **STABLE},
        "Wav2Vec2FeatureExtractor",
        dict(return_attention_mask=True),
    ),
    "hubert-base": ("HubertModel", {**SIZES, **CONVOLUTIONS, **POSITIONS}, "Wav2Vec2FeatureExtractor", dict()),
    "hubert-large": ("HubertModel", {**SIZES, **CONVOLUTIONS, **POSITIONS, **STABLE}, "Wav2Vec2FeatureExtractor", {}),
    "wavlm-base": (
        "WavLMModel",
        {**SIZES, **CONVOLUTIONS, **POSITIONS},
        "Wav2Vec2FeatureExtractor",
        dict(do_normalize=False),
    ),
    "wavlm-large": ("WavLMModel", {**SIZES, **CONVOLUTIONS, **POSITIONS, **STABLE}, "Wav2Vec2FeatureExtractor", {}),
    "data2vec": (
        "Data2VecAudioModel",
        {**SIZES, **CONVOLUTIONS, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5}
        | {"num_conv_pos_embedding_groups": 2},
        "Wav2Vec2FeatureExtractor",
        dict(),
    ),
    "w2v-bert": (
        "Wav2Vec2BertModel",
        {**SIZES, "feature_projection_input_dim": 160, "conv_depthwise_kernel_size": 7},
        "SeamlessM4TFeatureExtractor",
        dict(),
    ),
}


def same_on_every_stack(name):
    """The name of a parameter as torch before 2.1 had it."""
    return re.sub(r"parametrizations\.weight\.original([01])", lambda part: "weight_" + "gv"[int(part[1])], name)


def build(family, folder):
    """Save the tiny model of ``family`` with its feature extractor in ``folder``: (model, extractor)."""
    import transformers

    model_name, settings, extractor_name, extractor_settings = FAMILIES[family]
    model_class = getattr(transformers, model_name)
    model = model_class(model_class.config_class(**settings)).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            name = same_on_every_stack(name)
            noise = np.random.default_rng(zlib.crc32(name.encode()))
            drawn = torch.from_numpy(noise.standard_normal(tuple(value.shape))).float()
            scale = 0.1 if value.dim() < 2 else 1.5 / value[0].numel() ** 0.5
            value.copy_(scale * drawn + (1.0 if "norm.weight" in name or name.endswith("weight_g") else 0.0))
    model.save_pretrained(folder)
    extractor = getattr(transformers, extractor_name)(**extractor_settings)
    extractor.save_pretrained(folder)
    return model, extractor


def write_whisper(folder, layers=2, dim=8):
    """A tiny Whisper in ``folder`` that needs no transformers."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = dict(model_type="whisper", d_model=dim, encoder_layers=layers, encoder_attention_heads=2)
    config.update(encoder_ffn_dim=2 * dim, num_mel_bins=80, max_source_positions=1500, activation_function="gelu")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_size": 80, "do_normalize": False}))
    shapes = {"conv1.weight": (dim, 80, 3), "conv1.bias": (dim,), "conv2.weight": (dim, dim, 3), "conv2.bias": (dim,)}
    shapes.update({"embed_positions.weight": (1500, dim), "layer_norm.weight": (dim,), "layer_norm.bias": (dim,)})
    for number in range(layers):
        block = {"self_attn.k_proj.weight": (dim, dim), "fc1.weight": (2 * dim, dim), "fc1.bias": (2 * dim,)}
        block.update({"fc2.weight": (dim, 2 * dim), "fc2.bias": (dim,)})
        for name in ("q_proj", "v_proj", "out_proj"):
            block.update({f"self_attn.{name}.weight": (dim, dim), f"self_attn.{name}.bias": (dim,)})
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            block.update({f"{name}.weight": (dim,), f"{name}.bias": (dim,)})
        shapes.update({f"layers.{number}.{name}": shape for name, shape in block.items()})
    noise = torch.Generator().manual_seed(0)
    weights = {f"model.encoder.{name}": torch.randn(shape, generator=noise).half() for name, shape in shapes.items()}
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return folder


def clip(samples, seed=0):
    """A clip (samples,): two gliding tones and noise, the same on every stack."""
    time = np.arange(samples) / 16000
    tones = 0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time) + 0.1 * np.sin(2 * np.pi * (1500 - 200 * time) * time)
    noise = np.random.default_rng(seed).standard_normal(samples)
    return torch.from_numpy(tones + 0.02 * noise).float()


def batch(clips):
    """Padded clips (N, S), the padding loud so that it must not matter, and their lengths (N,)."""
    padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=0.7)
    return padded, torch.tensor([len(one) for one in clips])
