"""The share of each corpus in an epoch: as the exponent says, from the seed alone, resumed in the middle."""

from collections import Counter, deque
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhotse import CutSet, MonoCut, SupervisionSegment

from speecheq.config.layers import learned
from speecheq.config.schema import Config
from speecheq.dataset.batch import Position
from speecheq.dataset.corpus_sampling import corpus_quotas, resample
from speecheq.dataset.loader import Stream, _StoredCuts

SIZES = {"large": 90, "middle": 24, "small": 6}


def cut(corpus, number):
    name, seconds = f"{corpus}-{number:02d}", 1.0 + number % 7 / 10
    label = SupervisionSegment(name, name, 0.0, seconds, custom={"corpus": corpus})
    return MonoCut(name, 0.0, seconds, 0, supervisions=[label])


@pytest.fixture(scope="module")
def cuts():
    return CutSet(deque(cut(corpus, number) for corpus, size in SIZES.items() for number in range(size)))


def epochs(cuts, config, number, seed=1, name="emotion", start=Position(0, 0)):
    """The ids of each planned mini-batch from ``start`` on, by epoch."""
    found = {}
    for batch in _StoredCuts(cuts).planned_batches(Stream(name, config.data, seed, start), 0, 1):
        if batch.position.epoch == start.epoch + number:
            return found
        found.setdefault(batch.position.epoch, []).append(batch.all_ids)


def counts(batches):
    return Counter(name.split("-")[0] for batch in batches for name in batch)


def configured(exponent):
    config = Config()
    config.data.batch_size, config.data.corpus_sampling = 8, exponent
    return config


def test_quotas_by_hand():
    assert corpus_quotas(SIZES, 1.0) == SIZES
    assert corpus_quotas(SIZES, 0.0) == {"large": 40, "middle": 40, "small": 40}
    assert corpus_quotas({"a": 16, "b": 4}, 0.5) == {"a": 13, "b": 7}  # 4 to 2 of 20


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 5000), min_size=1, max_size=6), st.floats(0, 1))
def test_quotas_sum_to_all_clips_and_rise_with_the_size(sizes, exponent):
    quotas = corpus_quotas(sizes, exponent)
    assert sum(quotas.values()) == sum(sizes.values()) and min(quotas.values()) >= 1
    rising = [quotas[name] for name in sorted(sizes, key=sizes.__getitem__)]
    assert all(before <= after + 1 for before, after in zip(rising, rising[1:]))


def test_clips_of_a_small_corpus_occur_equally_often_and_those_of_a_large_one_once_at_most(cuts):
    chosen = Counter(cut.id for cut in resample(cuts, 0.0, "a seed"))
    assert {chosen[f"small-{number:02d}"] for number in range(6)} == {6, 7}
    assert {times for name, times in chosen.items() if name.startswith("large")} == {1}
    assert sum(name.startswith("large") for name in chosen) == 40


def test_an_epoch_has_the_shares_that_the_exponent_says(cuts):
    assert counts(epochs(cuts, configured(1.0), 1)[0]) == SIZES
    even = epochs(cuts, configured(0.0), 2)
    assert all(counts(batches) == {"large": 40, "middle": 40, "small": 40} for batches in even.values())
    first, second = ({name for batch in batches for name in batch} for batches in even.values())
    assert first != second, "another part of the large corpus in each epoch"
    assert sum(map(len, even[0])) == len(cuts) and len(even[0]) == len(epochs(cuts, configured(1.0), 1)[0])


def test_other_streams_take_each_clip_once(cuts):
    assert counts(epochs(cuts, configured(0.0), 1, name="gender")[0]) == SIZES


def test_mini_batches_follow_from_the_seed_and_go_on_from_any_of_them(cuts):
    config = configured(0.3)
    all_of_two = epochs(cuts, config, 2)
    assert epochs(cuts, config, 2) == all_of_two != epochs(cuts, config, 2, seed=2)
    later = epochs(cuts, config, 1, start=Position(1, 3))
    assert later == {1: all_of_two[1][3:]}
    halves = [
        list(islice(_StoredCuts(cuts).planned_batches(Stream("emotion", config.data, 1), loader, 2), 4))
        for loader in (0, 1)
    ]
    assert [batch.all_ids for pair in zip(*halves) for batch in pair] == all_of_two[0][:8]


def test_the_default_is_no_part_of_a_training_s_key():
    assert "corpus_sampling" not in learned(configured(1.0))["data"]
    assert learned(configured(0.5))["data"]["corpus_sampling"] == 0.5


def test_shards_are_refused():
    config = configured(0.0)
    config.shar.use = True
    with pytest.raises(ValueError, match=r"data\.corpus_sampling is 0, but shards are read in their order"):
        config.validate()
