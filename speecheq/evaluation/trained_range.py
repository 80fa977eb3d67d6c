"""What a model was trained on, to say which clips are out of range: length, level, bandwidth, and how they sound.

How a clip sounds is the input of the model's heads, its embedding. Most of what differs between the training clips lies
in a few directions; how far an embedding lies from these, in the root mean square of its values, is large for other
languages, and for what is no speech. It is given relative to the farthest training clips.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from speecheq.features.clip_statistics import BANDWIDTH, LEVEL, SECONDS

# The range is that of at most so many training clips; with fewer than the second nothing is out of range.
MOST_CLIPS, FEWEST_CLIPS = 500, 50
# So many per cent of the training clips lie outside at either end.
OUTSIDE = 0.5
# The directions in which embeddings differ most: at most so many, and one for so many clips.
DIRECTIONS, CLIPS_A_DIRECTION = 16, 10
NOTE = "out of range: "
# What a note says of each, with its unit and its number of digits.
WORDS = {SECONDS: ("speech of {} s", 1, 2), LEVEL: ("level {} dBFS", 1, 0), BANDWIDTH: ("bandwidth {} kHz", 1000, 1)}
UNLIKE = "sounds unlike the training clips"


def _to_text(array: np.ndarray) -> str:
    return base64.b64encode(array.astype("<f4").tobytes()).decode()


def _from_text(text: str, rows: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").reshape(rows, -1)


@dataclass(frozen=True)
class TrainedRange:
    """The range of the training clips: ``bounds`` by statistic, and ``subspace`` and ``farthest`` of their embeddings.

    ``subspace`` (1 + K, D) is the mean embedding and the directions in which embeddings differ; None: not known.
    ``clips`` is how many were measured.
    """

    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    subspace: np.ndarray | None = field(default=None, compare=False)
    farthest: float = 0.0
    clips: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The values as a checkpoint and JSON can hold them."""
        found: dict[str, Any] = {
            "clips": self.clips,
            "bounds": {name: list(ends) for name, ends in self.bounds.items()},
        }
        if self.subspace is not None:
            found["embedding"] = {
                "rows": len(self.subspace),
                "values": _to_text(self.subspace),
                "farthest": self.farthest,
            }
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> "TrainedRange":
        """What ``to_dict`` wrote; None: of a model without. Raises KeyError, TypeError or ValueError if damaged."""
        if values is None:
            return cls()
        bounds = {str(name): (float(low), float(high)) for name, (low, high) in values["bounds"].items()}
        if any(name not in WORDS or not low <= high for name, (low, high) in bounds.items()):
            raise ValueError("a range is none")
        embedding = values.get("embedding")
        if embedding is None:
            return cls(bounds, clips=int(values["clips"]))
        subspace, farthest = _from_text(embedding["values"], int(embedding["rows"])), float(embedding["farthest"])
        if not (np.isfinite(subspace).all() and farthest > 0):
            raise ValueError("the range of embeddings is none")
        return cls(bounds, subspace, farthest, int(values["clips"]))

    @property
    def in_words(self) -> str:
        """The bounds of all statistics; empty where they are not known."""
        found = []
        for name, bounds in self.bounds.items():
            words, unit, digits = WORDS[name]
            found.append(words.format(" to ".join(f"{end / unit:.{digits}f}" for end in bounds)))
        return ", ".join(found)

    def note(self, statistics: Mapping[str, float], embedding: np.ndarray | None) -> str:
        """What of a clip with these statistics and this embedding (D,) is out of range, and why; else empty."""
        reasons = []
        for name, (low, high) in self.bounds.items():
            words, unit, digits = WORDS[name]
            if not low <= statistics[name] <= high:
                value, *ends = (f"{number / unit:.{digits}f}" for number in (statistics[name], low, high))
                reasons.append(f"{words.format(value)} (trained on {ends[0]} to {ends[1]})")
        if self.subspace is not None and embedding is not None:
            distance = float(distances(embedding[None], self.subspace)[0]) / self.farthest
            if distance > 1:
                reasons.append(f"{UNLIKE} ({distance:.2f} times as far as the farthest)")
        return NOTE + ", ".join(reasons) if reasons else ""


def distances(embeddings: np.ndarray, subspace: np.ndarray) -> np.ndarray:
    """How far embeddings (N, D) lie from a ``subspace`` (1 + K, D): (N,)."""
    centred = embeddings - subspace[0]
    rest = centred - centred @ subspace[1:].T @ subspace[1:]
    return np.sqrt((rest**2).mean(axis=1))


def _finite(embeddings: np.ndarray) -> np.ndarray:
    """Without the rows of a model that has diverged."""
    return embeddings[np.isfinite(embeddings).all(axis=1)]


def fit_range(
    statistics: Sequence[Mapping[str, float]], embeddings: np.ndarray, others: np.ndarray | None = None
) -> TrainedRange:
    """The range of training clips with these ``statistics`` and ``embeddings`` (N, D); few clips have none.

    ``others`` (M, D) are the embeddings of clips that were not trained on, from which those of training clips may
    differ; they are in range too.
    """
    bounds = {}
    if len(statistics) >= FEWEST_CLIPS:
        for name in WORDS:
            low, high = np.percentile([clip[name] for clip in statistics], (OUTSIDE, 100 - OUTSIDE))
            bounds[name] = (float(low), float(high))
    embeddings, others = _finite(embeddings), None if others is None else _finite(others)
    if len(embeddings) < FEWEST_CLIPS:
        return TrainedRange(bounds, clips=len(embeddings))
    # the directions of one half fit that half too well; how far clips lie from them the other half shows
    half, other_half = embeddings[::2].astype(np.float64), embeddings[1::2]
    mean = half.mean(axis=0, keepdims=True)
    _, _, directions = np.linalg.svd(half - mean, full_matrices=False)
    count = min(DIRECTIONS, len(half) // CLIPS_A_DIRECTION, half.shape[1] // 2)
    subspace = np.concatenate((mean, directions[:count])).astype(np.float32)
    known = [part for part in (other_half, others) if part is not None and len(part)]
    farthest = max(float(np.percentile(distances(part, subspace), 100 - OUTSIDE)) for part in known)
    if not farthest > 0:
        return TrainedRange(bounds, clips=len(embeddings))
    return TrainedRange(bounds, subspace, farthest, len(embeddings))
