"""The probe: an SVM on the mean and standard deviation over time of features, the reference of a trained system.

Of encoder states each layer gets an SVM of its own. The layer is chosen by UA on held-out clips of the training folds,
never on test clips. If no test speaker is trained on but dev speakers are, groups of speakers of the training and dev
clips are held out in turn, since a dev part of trained speakers prefers the layers that know the speaker. Otherwise the
dev part is held out. The SVM of the chosen layer is then trained on training and dev clips.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.svm import SVC

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.evaluation.metrics import unweighted_accuracy

# In place of a kernel: no SVM, but the most frequent class of the training clips, which any system should beat.
MAJORITY = "majority"
SPEAKER_GROUPS = 5  # at most
# Of at most so many clips the kernel is computed at once, which takes seconds where libsvm takes minutes (for vectors
# of thousands of values). With more clips it would take more than 1 GB.
KERNEL_CLIPS = 10_000


@dataclass(frozen=True)
class ProbeSettings:
    """The kernel and C of the SVM; whether vectors are standardised by each speaker's own clips, not the training's.

    For a test speaker the own clips are the test clips: another protocol.
    """

    kernel: str = "rbf"
    by_speaker: bool = False
    c: float = 10.0


@dataclass(frozen=True)
class ProbeClips:
    """``vectors`` (clips, layers, D), ``classes`` (clips,), ``speakers`` (clips,) with their corpus."""

    vectors: np.ndarray
    classes: np.ndarray
    speakers: np.ndarray

    def joined(self, other: "ProbeClips") -> "ProbeClips":
        """These clips, then those of ``other``."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("vectors", "classes", "speakers"))
        return ProbeClips(*map(np.concatenate, pairs))


class ProbeResult(NamedTuple):
    """``layer``: the place of the chosen layer. ``dev_ua``, ``test_ua``: UA by layer. ``posteriors``: of the test clips
    by each layer, (layers, clips, classes).
    """

    layer: int
    dev_ua: list[float]
    test_ua: list[float]
    posteriors: np.ndarray


def _mean_and_deviation(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Over clips; a value that never changes has the deviation 1."""
    deviation = vectors.std(0)
    return vectors.mean(0), np.where(deviation > 0, deviation, 1.0)


def standardise_by_speaker(clips: ProbeClips) -> ProbeClips:
    """The vectors with mean 0 and deviation 1 over the clips of each speaker.

    A speaker with one clip gets the mean and standard deviation of all clips, which is logged.
    """
    vectors = np.empty_like(clips.vectors)
    single = []
    for speaker in np.unique(clips.speakers):
        own = clips.speakers == speaker
        if own.sum() == 1:
            single.append(str(speaker))
        mean, deviation = _mean_and_deviation(clips.vectors if own.sum() == 1 else clips.vectors[own])
        vectors[own] = (clips.vectors[own] - mean) / deviation
    if single:
        log.warning(
            "%d speakers have one clip, which is standardised by the mean and standard deviation of all clips (%s)",
            len(single),
            ", ".join(single[:3]) + (", ..." if len(single) > 3 else ""),
        )
    return ProbeClips(vectors, clips.classes, clips.speakers)


def _kernel(name: str, training: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The kernel between vectors (clips, D) and those of the training: (clips, training clips); gamma is 1 / D var."""
    gamma = 1 / (training.shape[1] * training.var() or 1.0)
    return pairwise_kernels(vectors, training, name, filter_params=True, gamma=gamma)


class _Probe:
    """The SVM of one layer, or the shares of the classes."""

    def __init__(self, vectors: np.ndarray, classes: np.ndarray, settings: ProbeSettings):
        if len(np.unique(classes)) < 2:
            raise InputError("all training clips are of one class, so an SVM has nothing to tell apart.")
        self.shares = np.bincount(classes) / len(classes) if settings.kernel == MAJORITY else None
        if self.shares is not None:
            return
        self.statistics = None if settings.by_speaker else _mean_and_deviation(vectors)
        vectors = self._standardised(vectors)
        self.kernel = partial(_kernel, settings.kernel, vectors) if len(vectors) <= KERNEL_CLIPS else None
        self.svm = SVC(kernel="precomputed" if self.kernel else settings.kernel, C=settings.c)
        self.svm.fit(self.kernel(vectors) if self.kernel else vectors, classes)

    def _standardised(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors by speaker are already."""
        vectors = vectors.astype(np.float64)
        if self.statistics is None:
            return vectors
        mean, deviation = self.statistics
        return (vectors - mean) / deviation

    def posteriors(self, vectors: np.ndarray, number: int) -> np.ndarray:
        """Softmax of the decision values (clips, ``number``); 0 for classes that were not trained on.

        Decision values are no log probabilities. Their softmax has the same most probable class, and needs no
        random split of the training clips, as Platt's scaling does.
        """
        if self.shares is not None:
            return np.tile(np.pad(self.shares, (0, number - len(self.shares))), (len(vectors), 1))
        vectors = self._standardised(vectors)
        values = self.svm.decision_function(self.kernel(vectors) if self.kernel else vectors)
        if values.ndim == 1:  # two classes: the value of the second against the first
            values = np.stack([np.zeros_like(values), values], 1)
        exponentials = np.exp(values - values.max(1, keepdims=True))
        found = np.zeros((len(vectors), number))
        found[:, self.svm.classes_] = exponentials / exponentials.sum(1, keepdims=True)
        return found

    def predict(self, vectors: np.ndarray, number: int) -> np.ndarray:
        """The most probable class of each clip, (clips,)."""
        return self.posteriors(vectors, number).argmax(1)


def held_out_sets(training: ProbeClips, dev: ProbeClips, unseen_speakers: bool) -> list[np.ndarray]:
    """The clips that choose the layer: for each SVM, which clips of training and dev it is not trained on.

    Returns: boolean arrays (training clips + dev clips,). ``unseen_speakers``: whether no test speaker is trained on.
    """
    speakers = np.concatenate([training.speakers, dev.speakers])
    dev_part = np.arange(len(speakers)) >= len(training.speakers)
    names = np.unique(speakers)
    dev_speakers_are_trained_on = bool(set(dev.speakers) & set(training.speakers))
    if len(dev.speakers) and not (unseen_speakers and dev_speakers_are_trained_on) or len(names) < 2:
        return [dev_part]
    groups = min(SPEAKER_GROUPS, len(names))
    return [np.isin(speakers, names[group::groups]) for group in range(groups)]


def _ua(gold: np.ndarray, predicted: np.ndarray) -> float:
    ua = unweighted_accuracy(gold.tolist(), predicted.tolist())
    assert ua is not None, "there are clips"
    return ua


def _dev_ua(
    clips: ProbeClips, layer: int, held_out: Sequence[np.ndarray], number: int, settings: ProbeSettings
) -> float:
    """UA over the clips that are held out in turn."""
    predicted = np.full(len(clips.classes), -1)
    for left_out in held_out:
        kept = ~left_out
        probe = _Probe(clips.vectors[kept, layer], clips.classes[kept], settings)
        predicted[left_out] = probe.predict(clips.vectors[left_out, layer], number)
    known = predicted >= 0
    return _ua(clips.classes[known], predicted[known])


def probe(
    training: ProbeClips,
    dev: ProbeClips,
    test: ProbeClips,
    number: int,
    unseen_speakers: bool,
    settings: ProbeSettings = ProbeSettings(),
) -> ProbeResult:
    """Train the SVMs of a fold, choose the layer (see above) and predict the test clips.

    ``number``: of classes. ``unseen_speakers``: whether no test speaker is trained on. Of layers with the same UA the
    lowest is chosen. Raises InputError if there is no clip to choose on, or only one class to train on.
    """
    own = training.joined(dev)
    if settings.by_speaker:
        own, test = standardise_by_speaker(own), standardise_by_speaker(test)
    held_out = held_out_sets(training, dev, unseen_speakers)
    if not held_out[0].any():
        raise InputError("the fold has no dev part and one training speaker, so no layer can be chosen.")
    layers = range(own.vectors.shape[1])
    dev_ua = [_dev_ua(own, layer, held_out, number, settings) for layer in layers]
    posteriors = np.stack(
        [
            _Probe(own.vectors[:, layer], own.classes, settings).posteriors(test.vectors[:, layer], number)
            for layer in layers
        ]
    )
    test_ua = [_ua(test.classes, found.argmax(1)) for found in posteriors]
    chosen = int(np.argmax(dev_ua))
    return ProbeResult(chosen, dev_ua, test_ua, posteriors)
