"""Mean and deviation over time of stored features: one vector a clip and layer, kept beside the features of a corpus.

A layer is one of the encoder states that lie one after the other in a frame; fbank is a single layer.
"""

import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lhotse.cut import Cut

from speecheq.common.digests import digest
from speecheq.common.files import whole_file
from speecheq.common.log import log
from speecheq.common.progress import progress
from speecheq.common.stages import require

FILE = "pooled.npz"
FORMAT = 1


class PooledFeatures(NamedTuple):
    """``vectors`` (clips, layers, 2 * D) float32: mean, then deviation, of each of ``ids``."""

    ids: Sequence[str]
    vectors: np.ndarray


def pool(features: torch.Tensor, layers: int) -> np.ndarray:
    """The mean and the deviation over time (layers, 2 * D) of features (T, layers * D)."""
    frames = features.reshape(len(features), layers, -1)
    return torch.cat([frames.mean(0), frames.std(0, correction=0)], 1).numpy()


def pooled_features(
    folder: Path, cuts: Iterable[Cut], load: Callable[[Cut], torch.Tensor], layers: int
) -> PooledFeatures:
    """The pooled features of a corpus, whose features stage 2 has stored in ``folder``.

    They are computed once, from what ``load`` gives for each of ``cuts``, (T, layers * D), and kept in pooled.npz in
    the folder until its features change. Raises InputError if stage 2 has not run.
    """
    stamp = require(folder, "features")
    key = digest([stamp["key"], layers, FORMAT])
    path = Path(folder) / FILE
    known = _read(path, key)
    if known is not None:
        return known
    ids, vectors = [], []
    for cut in progress(cuts, f"{Path(folder).name}: mean and deviation of features", stamp["out"], "clips"):
        ids.append(cut.id)
        vectors.append(pool(load(cut), layers))
    found = PooledFeatures(ids, np.stack(vectors))
    with whole_file(path) as temporary:
        np.savez(temporary, key=np.array(key), ids=np.array(ids), vectors=found.vectors)
    return found


def _read(path: Path, key: str) -> PooledFeatures | None:
    """The content of the file if it is of this key, else None."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["key"]) == key:
                return PooledFeatures(arrays["ids"].tolist(), arrays["vectors"])
    except (EOFError, KeyError, ValueError, zipfile.BadZipFile) as fault:
        log.warning("%s: is damaged (%s): computed again", path, fault)
    return None
