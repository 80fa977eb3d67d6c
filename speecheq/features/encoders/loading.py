"""From EncoderSettings to an encoder, by the architecture that config.json names."""

from collections.abc import Callable

from speecheq.common.digests import digest
from speecheq.common.errors import InputError
from speecheq.features.encoders import emotion2vec
from speecheq.features.encoders.encoder import Encoder
from speecheq.features.encoders.model_files import ModelFiles, find_model
from speecheq.features.encoders.settings import EncoderSettings
from speecheq.features.encoders.signal import SignalFeatures, is_signal, signal_digest

# To be raised when the same settings and files come to give other states.
FORMAT = 1


def load_encoder(settings: EncoderSettings) -> Encoder:
    """The encoder of ``settings``: on the CPU, in float32, in evaluation mode, its parameters frozen.

    Only the blocks up to the highest layer are built, and only their tensors are read. Raises InputError for a model
    that cannot be read, an unknown architecture, or a layer that it does not have.
    """
    if is_signal(settings.model):
        return SignalFeatures(settings).eval()
    folder = find_model(settings.model)
    if emotion2vec.is_emotion2vec(folder):
        encoder: Encoder = emotion2vec.Emotion2vecEncoder(settings, folder)
    else:
        files = ModelFiles(folder)
        encoder = _encoder_class(files)(settings, files)
    return encoder.eval().requires_grad_(False)


def _encoder_class(files: ModelFiles) -> Callable[[EncoderSettings, ModelFiles], Encoder]:
    kind = files.config["model_type"]
    if kind == "whisper":
        from speecheq.features.encoders.whisper import WhisperEncoder

        return WhisperEncoder
    from speecheq.features.encoders import transformers_models

    if kind not in transformers_models.MODEL_CLASSES:
        known = ", ".join(["whisper", *transformers_models.MODEL_CLASSES])
        raise InputError(f"{files.config.path}: model_type is {kind!r}, and there are encoders for {known} only.")
    if kind == "wav2vec2-bert":
        return transformers_models.Wav2Vec2BertEncoder
    return transformers_models.WaveformEncoder


def encoder_digest(settings: EncoderSettings) -> str:
    """A digest of all that decides the states: the content of the model's files and the settings, but not its place."""
    if is_signal(settings.model):
        return signal_digest(settings)
    folder = find_model(settings.model)
    is_emotion2vec = emotion2vec.is_emotion2vec(folder)
    content = emotion2vec.digest_of_files(folder) if is_emotion2vec else ModelFiles(folder).digest()
    chosen = [list(settings.layers), settings.padding, settings.normalise]
    return digest({"format": FORMAT, "files": content, "settings": chosen})
