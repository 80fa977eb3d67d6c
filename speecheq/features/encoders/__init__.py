"""Pretrained encoders as front ends: padded waveforms to the states of chosen layers, 50 frames a second.

An encoder is the folder of a model as the Hugging Face hub lays it out (config.json, preprocessor_config.json,
model.safetensors), or the id of a model of the hub. Layer k is the state after block k, layer 0 the input of block 1,
and the last layer is taken after the encoder's final layer norm: ``hidden_states[k]`` of the transformers library.
"""

from speecheq.features.encoders.encoder import Encoder
from speecheq.features.encoders.fine_tuning import load_trained, make_trainable
from speecheq.features.encoders.loading import encoder_digest, load_encoder
from speecheq.features.encoders.saving import save_encoder
from speecheq.features.encoders.settings import EncoderSettings

__all__ = [
    "Encoder",
    "EncoderSettings",
    "encoder_digest",
    "load_encoder",
    "load_trained",
    "make_trainable",
    "save_encoder",
]
