"""The last part of a training: the range of its clips (``TrainedRange``) is measured and kept in best.pt."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lhotse.cut import Cut

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.dataset.lazy_cuts import sample_cuts
from speecheq.dataset.model_inputs import ModelInputs, by_speaker, scoring_inputs
from speecheq.evaluation.predictions import predict_emotions
from speecheq.evaluation.trained_range import MOST_CLIPS, TrainedRange, fit_range
from speecheq.features.audio import load_waveform
from speecheq.features.clip_statistics import clip_statistics
from speecheq.features.speech_activity import SAMPLING_RATE, SECONDS_KEY
from speecheq.models import checkpoint
from speecheq.models.folder import RANGE
from speecheq.models.normalisation import Normalised
from speecheq.training.training_data import TrainingData


def add_range(path: Path, data: TrainingData, states: Path | None, device: torch.device) -> None:
    """Add the range of the training clips to the checkpoint ``path``, unless it is there.

    ``states`` is the folder of stored states of the encoder. Models of dialogues have none: they predict no recordings.
    """
    content = checkpoint.read(path)
    if RANGE in content:
        return
    model, config = checkpoint.restore(content, str(path))
    if config.model.context == "dialogue":
        return
    inputs = scoring_inputs(config, states, device, model.trained_encoder)
    training = sample_cuts(data.cut_sets["emotion"], MOST_CLIPS)
    size = config.data.batch_size

    def embeddings(cuts: Sequence[Cut]) -> np.ndarray:
        return _embeddings(model.to(device), cuts, inputs, size, device, config.data.cmvn == "speaker")

    found = measure_range(training, embeddings(training), embeddings(data.dev) if data.dev else None)
    checkpoint.write(path, {**content, RANGE: found.to_dict()})


def _embeddings(
    model: Normalised, cuts: Sequence[Cut], inputs: ModelInputs, size: int, device: torch.device, speaker: bool
) -> np.ndarray:
    if speaker:
        inputs = by_speaker(inputs, cuts, size, device)
    found = predict_emotions(model, cuts, size, device, embeddings=True, inputs=inputs)
    return np.stack([one.embedding for one in found if one.embedding is not None])


def measure_range(cuts: Sequence[Cut], embeddings: np.ndarray, others: np.ndarray | None = None) -> TrainedRange:
    """The range of training clips with these ``embeddings`` (N, D); ``others``: see ``fit_range``.

    Where the audio of a clip cannot be read, levels and bandwidths are not known, which is logged.
    """
    try:
        statistics = [
            clip_statistics(load_waveform(cut, SAMPLING_RATE), (cut.custom or {}).get(SECONDS_KEY, cut.duration))
            for cut in cuts
        ]
    except InputError as error:
        log.warning("the range of levels and bandwidths of the training clips is not measured: %s", error)
        statistics = []
    return fit_range(statistics, embeddings, others)
