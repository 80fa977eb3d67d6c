"""SpeechEQ: one metric and one multitask model for speech emotion recognition.

The names to begin with; each is imported from its module when it is first used:

    Predictor           predicts recordings with a trained model
    Prediction          the prediction for a recording or a window of one
    Timeline            the predictions along a recording, and for all of it
    Embedder            embeddings of recordings by a trained model, or a layer of its encoder
    Windows             how recordings are cut
    load_trained_model  reads a checkpoint, a model folder, an ONNX file or a model of the hub
    Corpus              declares the labels of a corpus
    Utterance           one labelled clip of a corpus
    Config              all settings of a training
    FbankConfig         settings of the filter banks
    SpeechEQ            the model of the paper, features to predictions
    build_model         makes a model, SpeechEQ or a baseline, of its settings
    train               trains a system on a fold (stage 4)
    score               scores a trained fold (stage 5)
    InputError          raised, with a sentence, where something that was given cannot be used
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

# Read when torch is imported: what Apple's GPUs lack is computed on the CPU.
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

__version__ = "0.1.0"

_MODULES = {
    "Predictor": "speecheq.inference.predictor",
    "Prediction": "speecheq.inference.prediction",
    "Timeline": "speecheq.inference.results",
    "Embedder": "speecheq.inference.embedder",
    "Windows": "speecheq.inference.windows",
    "load_trained_model": "speecheq.inference.trained_model",
    "Corpus": "speecheq.corpora",
    "Utterance": "speecheq.corpora",
    "Config": "speecheq.config.schema",
    "FbankConfig": "speecheq.features.fbank",
    "SpeechEQ": "speecheq.models",
    "build_model": "speecheq.models",
    "train": "speecheq.training.train",
    "score": "speecheq.evaluation.score",
    "InputError": "speecheq.common.errors",
}
__all__ = list(_MODULES)

if TYPE_CHECKING:  # the same for type checkers and editors
    from speecheq.common.errors import InputError as InputError
    from speecheq.config.schema import Config as Config
    from speecheq.corpora import Corpus as Corpus
    from speecheq.corpora import Utterance as Utterance
    from speecheq.evaluation.score import score as score
    from speecheq.features.fbank import FbankConfig as FbankConfig
    from speecheq.inference.embedder import Embedder as Embedder
    from speecheq.inference.prediction import Prediction as Prediction
    from speecheq.inference.predictor import Predictor as Predictor
    from speecheq.inference.results import Timeline as Timeline
    from speecheq.inference.trained_model import load_trained_model as load_trained_model
    from speecheq.inference.windows import Windows as Windows
    from speecheq.models import SpeechEQ as SpeechEQ
    from speecheq.models import build_model as build_model
    from speecheq.training.train import train as train
else:

    def __getattr__(name):
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
