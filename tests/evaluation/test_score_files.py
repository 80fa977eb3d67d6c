"""Score files: what was written comes back; a damaged file is refused in one sentence."""

from dataclasses import replace

import numpy as np
import pytest
from report_data import make, predictions

from speecheq.common.errors import InputError
from speecheq.evaluation import score_files

CLIPS = predictions(1, 1, 0.8, 8)
IDS = [clip.id for clip in CLIPS]
VECTORS = np.random.default_rng(0).standard_normal((len(CLIPS), 12)).astype(np.float16)


@pytest.fixture
def written(tmp_path):
    """A file of embeddings."""
    path = tmp_path / "embeddings.npz"
    score_files.write_embeddings(path, [replace(clip, embedding=x) for clip, x in zip(CLIPS, VECTORS)])
    return path


def test_scores_that_are_no_text(tmp_path):
    (tmp_path / "scores.tsv").write_bytes(b"\xff\xfe\n")
    with pytest.raises(InputError, match="is no text"):
        score_files.read_scores(tmp_path / "scores.tsv")


@pytest.mark.parametrize(
    "text, sentence",
    [
        ('{"test.ua": 0.5', "is not valid JSON"),
        ("[]", "does not say what was run"),
        ('{"run": {}}', "does not say what was run"),
    ],
)
def test_damaged_metrics_are_one_sentence(tmp_path, text, sentence):
    folder = make(tmp_path) / "fold1/seed1"
    (folder / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=sentence):
        score_files.read_metrics(folder)


def test_embeddings_come_back_in_the_order_of_the_scores(written):
    found = score_files.read_embeddings(written, IDS)
    assert found.dtype == np.float16 and np.array_equal(found, VECTORS)
    with pytest.raises(InputError, match="embeddings.npz: is not of the test clips of scores.tsv beside it; remove it"):
        score_files.read_embeddings(written, IDS[::-1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-40],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"",
        lambda whole: b"a text\n",
        lambda whole: whole.replace(b"embeddings.npy", b"embeddingz.npy"),
        lambda whole: whole[:200] + bytes(60) + whole[260:],
    ],
)
def test_damaged_embeddings_are_one_sentence(written, tmp_path, damage):
    whole = written.read_bytes()
    (tmp_path / "embeddings.npz").write_bytes(damage(whole))
    with pytest.raises(InputError) as refused:
        score_files.read_embeddings(tmp_path / "embeddings.npz", IDS)
    assert "is cut off, or no file of embeddings" in str(refused.value) and "\n" not in str(refused.value)
    assert str(tmp_path / "embeddings.npz") in str(refused.value) and "run stage 5 (score) again" in str(refused.value)


def test_an_array_is_no_file_of_embeddings(tmp_path):
    np.save(tmp_path / "embeddings.npy", np.zeros(3))
    with pytest.raises(InputError, match="no file of embeddings"):
        score_files.read_embeddings(tmp_path / "embeddings.npy", ["a"])
