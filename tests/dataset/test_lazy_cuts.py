"""Manifests of cuts: what a lazy reader makes of them, and how few of them a training makes before its first step."""

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import CutSet, MonoCut, SupervisionSegment
from lhotse.testing.dummies import dummy_recording

from speecheq.config.schema import DataConfig
from speecheq.dataset import lazy_cuts as module
from speecheq.dataset.lazy_cuts import open_cuts, sample_cuts
from speecheq.dataset.loader import endless_stream, training_cuts


def write(path, corpora):
    """A manifest of one cut a corpus' name, in that order."""
    cuts = []
    for number, corpus in enumerate(corpora):
        supervision = SupervisionSegment(f"{number}", "r", 0.0, 1.0, custom={"corpus": corpus, "note": "b"})
        cuts.append(MonoCut(f"cut{number}", 0.0, 1.0 + number, 0, [supervision], recording=dummy_recording(number)))
    CutSet.from_cuts(cuts).to_file(path)
    return path


@given(
    corpora=st.lists(st.sampled_from(["a", "b", "ab", "emotion"]), min_size=1, max_size=12),
    wanted=st.sampled_from(["a", "b", "ab", None]),
    most=st.integers(1, 15),
)
@settings(max_examples=60)
def test_it_holds_what_lhotse_reads_of_the_corpus(tmp_path_factory, corpora, wanted, most):
    path = write(tmp_path_factory.mktemp("m") / "m.jsonl.gz", corpora)
    expected = [cut for cut in CutSet.from_file(path) if wanted in (None, cut.supervisions[0].custom["corpus"])]
    cuts = open_cuts(path, wanted)
    assert list(cuts) == list(cuts) == expected
    drawn = sample_cuts(cuts, most)
    assert drawn == sample_cuts(cuts, most) and len(drawn) == min(most, len(expected))
    assert drawn == [cut for cut in expected if cut in drawn]


def test_a_sample_is_of_the_whole_manifest(tmp_path):
    path = write(tmp_path / "m.jsonl.gz", ["a"] * 400)
    places = [int(cut.id[3:]) for cut in sample_cuts(open_cuts(path), 100)]
    assert places == sorted(set(places)) and 150 < sum(places) / 100 < 250
    assert all(sum(low <= place < low + 100 for place in places) > 10 for low in (0, 100, 200, 300))


@pytest.fixture
def made(monkeypatch):
    """The cuts that were made of lines, by id."""
    ids, make = [], module.deserialize_item
    monkeypatch.setattr(module, "deserialize_item", lambda item: ids.append(item["id"]) or make(item))
    return ids


def test_only_the_cuts_of_a_sample_are_made(tmp_path, made):
    path = write(tmp_path / "m.jsonl.gz", ["a", "b"] * 200)
    assert len(sample_cuts(training_cuts(path, "b"), 10)) == 10
    assert len(made) == 11  # and the first, for a set must not be empty


def test_the_first_mini_batch_needs_a_bounded_part_of_a_manifest(tmp_path, made, monkeypatch):
    """The sampler estimates durations from 10,000 cuts and shuffles among 20,000; of longer sets no more is read."""
    path = tmp_path / "m.jsonl.gz"
    with gzip.open(write(path, ["a"]), "rt") as lines:
        line = json.loads(next(lines))
    with gzip.open(path, "wt", compresslevel=1) as lines:
        for number in range(60_000):
            lines.write(json.dumps({**line, "id": f"cut{number}"}) + "\n")
    monkeypatch.setattr(
        "speecheq.dataset.loader.collate", lambda stream, cuts, waveforms: pytest.fail(f"{len(cuts)} cuts")
    )
    cuts = training_cuts(path)
    with pytest.raises(pytest.fail.Exception, match="8 cuts"):
        next(endless_stream("phoneme", cuts, DataConfig(batch_size=8, workers=0), 1))
    assert len(made) < 31_000 and len(set(made)) < 21_000
