"""The share of each corpus in an epoch: as the exponent says, from the seed alone, resumed in the middle."""

from collections import Counter, deque
from itertools import islice, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhotse import CutSet, MonoCut, SupervisionSegment

from speecheq.config.layers import learned
from speecheq.config.schema import Config
from speecheq.dataset.batch import Position
from speecheq.dataset.corpus_sampling import CorpusSampling
from speecheq.dataset.loader import StoredCuts, Stream

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
    for batch in StoredCuts(cuts).planned_batches(Stream(name, config.data, seed, start), 0, 1):
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
    assert CorpusSampling(1.0).quotas(SIZES) == SIZES
    assert CorpusSampling(0.0).quotas(SIZES) == {"large": 40, "middle": 40, "small": 40}
    assert CorpusSampling(0.5).quotas({"a": 16, "b": 4}) == {"a": 13, "b": 7}  # 4 to 2 of 20


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 5000), min_size=1, max_size=6), st.floats(0, 1))
def test_quotas_sum_to_all_clips_and_rise_with_the_size(sizes, exponent):
    quotas = CorpusSampling(exponent).quotas(sizes)
    assert sum(quotas.values()) == sum(sizes.values()) and min(quotas.values()) >= 1
    rising = [quotas[name] for name in sorted(sizes, key=sizes.__getitem__)]
    assert all(before <= after + 1 for before, after in zip(rising, rising[1:]))


def test_the_target_has_the_share_that_it_is_given():
    assert CorpusSampling(1.0, "small", 0.5).quotas(SIZES) == {"large": 47, "middle": 13, "small": 60}
    assert CorpusSampling(0.0, "small", 0.2).quotas(SIZES) == {"large": 48, "middle": 48, "small": 24}
    assert CorpusSampling(1.0, "small", 0.0).quotas(SIZES) == {"large": 95, "middle": 25, "small": 0}
    for target, share in (("small", None), (None, 0.5), ("not trained on", 0.5)):
        assert CorpusSampling(1.0, target, share).quotas(SIZES) == SIZES
    assert CorpusSampling(1.0, "alone", 0.5).quotas({"alone": 7}) == {"alone": 7}


def test_clips_of_a_small_corpus_occur_equally_often_and_those_of_a_large_one_once_at_most(cuts):
    chosen = Counter(cut.id for cut in CorpusSampling(0.0).resample(cuts, "a seed"))
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


def test_an_epoch_has_the_target_s_share(cuts):
    config = configured(1.0)
    config.data.target_share = 0.5
    stream = Stream("emotion", config.data, 1)
    batches = StoredCuts(cuts, "small").planned_batches(stream, 0, 1)
    first = takewhile(lambda batch: batch.position.epoch == 0, batches)
    assert counts(batch.all_ids for batch in first) == {"large": 47, "middle": 13, "small": 60}


def test_other_streams_take_each_clip_once(cuts):
    assert counts(epochs(cuts, configured(0.0), 1, name="gender")[0]) == SIZES


def test_mini_batches_follow_from_the_seed_and_go_on_from_any_of_them(cuts):
    config = configured(0.3)
    all_of_two = epochs(cuts, config, 2)
    assert epochs(cuts, config, 2) == all_of_two != epochs(cuts, config, 2, seed=2)
    later = epochs(cuts, config, 1, start=Position(1, 3))
    assert later == {1: all_of_two[1][3:]}
    halves = [
        list(islice(StoredCuts(cuts).planned_batches(Stream("emotion", config.data, 1), loader, 2), 4))
        for loader in (0, 1)
    ]
    assert [batch.all_ids for pair in zip(*halves) for batch in pair] == all_of_two[0][:8]


def test_the_default_is_no_part_of_a_training_s_key():
    assert not {"corpus_sampling", "target_share"} & set(learned(configured(1.0))["data"])
    assert learned(configured(0.5))["data"]["corpus_sampling"] == 0.5


def test_shards_are_refused():
    config = configured(0.0)
    config.shar.use = True
    with pytest.raises(ValueError, match=r"data\.corpus_sampling is 0, but shards are read in their order"):
        config.validate()
    config.data.corpus_sampling, config.data.target_share = 1.0, 0.5
    with pytest.raises(ValueError, match=r"data\.target_share has no effect on shards"):
        config.validate()
