"""Clips that are longer than those that a model was trained on: predicted in parts, whose answers are joined.

The states of a pretrained encoder change with the length of a clip. A model on them that has learned from clips of two
to four seconds is often wrong on clips of ten seconds (docs/encoder_results.md).
"""

from collections.abc import Iterable
from math import ceil

import numpy as np

from speecheq.features.clip_statistics import SECONDS
from speecheq.features.fbank import BatchedFbank
from speecheq.features.waveform_batch import SAMPLING_RATE
from speecheq.inference.recordings import AudioClip, Waveform
from speecheq.inference.trained_model import TrainedModel


def longest_clip(model: TrainedModel) -> float:
    """The seconds above which clips are divided: the longest training clips; infinite for a model on filter banks."""
    bounds = model.labels.trained_range.bounds
    if SECONDS not in bounds or isinstance(model.extractor, BatchedFbank):
        return float("inf")
    return bounds[SECONDS][1]


def divide(clips: Iterable[tuple[AudioClip, Waveform]], longest: float) -> list[list[tuple[AudioClip, Waveform]]]:
    """Each clip in as few equal parts as have at most ``longest`` seconds each. A part has the times of its clip."""
    return [_parts(clip, waveform, ceil(len(waveform.samples) / SAMPLING_RATE / longest)) for clip, waveform in clips]


def _parts(clip: AudioClip, waveform: Waveform, count: int) -> list[tuple[AudioClip, Waveform]]:
    if count <= 1:
        return [(clip, waveform)]
    if clip.span.speech is not None:
        clip = clip._replace(span=clip.span._replace(speech=clip.span.speech / count))
    return [(clip, waveform._replace(samples=part)) for part in np.array_split(waveform.samples, count)]
