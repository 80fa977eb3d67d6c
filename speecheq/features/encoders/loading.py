"""From EncoderSettings to an encoder, by the architecture that config.json names."""

from speecheq.common.digests import digest
from speecheq.common.errors import InputError
from speecheq.features.encoders.encoder import Encoder
from speecheq.features.encoders.model_files import ModelFiles
from speecheq.features.encoders.settings import EncoderSettings
from speecheq.features.encoders.whisper import WhisperEncoder

# To be raised when the same settings and files come to give other states.
FORMAT = 1


def load_encoder(settings: EncoderSettings) -> Encoder:
    """The encoder of ``settings``: on the CPU, in float32, in evaluation mode, its parameters frozen.

    Only the blocks up to the highest layer are built, and only their tensors are read. Raises InputError for a model
    that cannot be read, an unknown architecture, or a layer that it does not have.
    """
    files = ModelFiles(settings.model)
    kind = files.config.get("model_type")
    if kind != "whisper":
        raise InputError(f"{files.folder}/config.json: model_type is {kind!r}, but it must be whisper.")
    return WhisperEncoder(settings, files).eval().requires_grad_(False)


def encoder_digest(settings: EncoderSettings) -> str:
    """A digest of all that decides the states: the content of the model's files and the settings, but not its place."""
    files = ModelFiles(settings.model)
    chosen = [list(settings.layers), settings.padding, files.normalises(settings.normalise)]
    return digest({"format": FORMAT, "files": files.digest(), "settings": chosen})
