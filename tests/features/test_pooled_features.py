"""Mean and deviation of stored features, and the file that keeps them."""

import numpy as np
import pytest
import torch

from speecheq.common.errors import InputError
from speecheq.common.stages import Stage
from speecheq.features.pooled_features import FILE, pool, pooled_features


class Clip:
    def __init__(self, name):
        self.id = name


CLIPS = [Clip("a"), Clip("b")]
STATES = {"a": torch.arange(24.0).reshape(4, 6), "b": torch.ones(1, 6)}


@pytest.fixture
def folder(tmp_path):
    """Stage 2 of a corpus of two clips, as far as its stamp tells."""
    store(tmp_path / "corpus", "first")
    return tmp_path / "corpus"


def store(folder, options):
    folder.mkdir(exist_ok=True)
    Stage("features", "corpus", folder, {"model": options}, [], 1).finish(folder, 2, 2, outputs=[])


def never(cut):
    raise AssertionError("the features are read again")


def test_each_layer_has_its_own_mean_and_deviation():
    states = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    found = pool(states, 2)
    first, second = states[:, :3].numpy(), states[:, 3:].numpy()
    assert found.shape == (2, 6)
    for layer, part in zip(found, (first, second)):
        assert np.allclose(layer, [*part.mean(0), *part.std(0)], atol=1e-6)
    assert np.allclose(pool(STATES["b"], 1), [[1.0] * 6 + [0.0] * 6]), "a single frame has no deviation"


def test_they_are_computed_once(folder):
    first = pooled_features(folder, CLIPS, lambda cut: STATES[cut.id], 2)
    assert list(first.ids) == ["a", "b"] and first.vectors.shape == (2, 2, 6) and first.vectors.dtype == np.float32
    again = pooled_features(folder, CLIPS, never, 2)
    assert list(again.ids) == ["a", "b"] and np.array_equal(again.vectors, first.vectors)


def test_other_features_are_pooled_again(folder):
    first = pooled_features(folder, CLIPS, lambda cut: STATES[cut.id], 2)
    store(folder, "second")
    other = pooled_features(folder, CLIPS, lambda cut: 2 * STATES[cut.id], 2)
    assert np.allclose(other.vectors, 2 * first.vectors)
    assert pooled_features(folder, CLIPS, lambda cut: STATES[cut.id], 3).vectors.shape == (2, 3, 4)


def test_a_damaged_file_is_made_again(folder, caplog):
    first = pooled_features(folder, CLIPS, lambda cut: STATES[cut.id], 2)
    whole = (folder / FILE).read_bytes()
    for damaged in (whole[:100], b"", b"no zip"):
        (folder / FILE).write_bytes(damaged)
        again = pooled_features(folder, CLIPS, lambda cut: STATES[cut.id], 2)
        assert np.array_equal(again.vectors, first.vectors) and "is damaged" in caplog.text


def test_stage_2_must_have_run(tmp_path):
    with pytest.raises(InputError, match="stage 2"):
        pooled_features(tmp_path, CLIPS, never, 1)
