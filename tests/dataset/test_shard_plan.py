"""Who reads which clips of an epoch, for all numbers of shards, clips, processes and loaders."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from speecheq.common.errors import InputError
from speecheq.dataset.shard_plan import Epoch, ShardPlan

# How many clips that are wanted each shard has; some have none.
SHARDS = st.lists(st.integers(0, 30), min_size=1, max_size=12)


@st.composite
def epochs(draw, seconds=st.none() | st.floats(5.0, 60.0)):
    """(epoch, all clips as (shard, place), their durations)."""
    shards = np.array(draw(SHARDS))
    readers = draw(st.sampled_from([1, 2, 3, 4, 8]))
    assume(shards.sum() >= max(2, readers))
    # whole numbers of sixteenths of a second, whose sums are exact in any order
    lengths = [np.random.RandomState(number).randint(4, 160, size) / 16 for number, size in enumerate(shards)]
    plan = ShardPlan(
        int(shards.sum()),
        readers,
        draw(st.integers(1, 5)),
        readers * draw(st.integers(2, 5)),
        draw(seconds),
        draw(st.integers(1, 200)),
        "phoneme",
    )

    def durations(pieces):
        return np.concatenate([lengths[shard][first:stop] for shard, first, stop in pieces] or [np.empty(0)])

    seed = draw(st.text(max_size=5))
    clips = [(shard, place) for shard, size in enumerate(shards) for place in range(size)]
    return Epoch(plan, shards, seed, durations), clips, lengths


def clips_between(epoch, start, stop):
    return [(shard, place) for shard, first, last in epoch.pieces(start, stop) for place in range(first, last)]


def group_batches(epoch, group, first=0):
    """(number of its block, its readers and places) of the mini-batches of a group from ``first`` on."""
    return [
        (number, block.clips(batch)) for number, block in epoch.blocks_from(group, first) for batch in block.batches
    ]


def mini_batches(epoch):
    """Of each mini-batch of the epoch, in its turn, (its group, the reader and the clip of each of its clips)."""
    plan, groups = epoch.plan, {}
    for group in range(plan.groups):
        found = []
        for number, places in group_batches(epoch, group):
            clips = [clips_between(epoch, *plan.block_range(group, number, reader)) for reader in range(plan.readers)]
            found.append([(reader, clips[reader][place]) for reader, place in places])
        groups[group] = iter(found)
    found = [(group, next(groups[group])) for group in epoch.round_robin()]
    assert all(next(left, None) is None for left in groups.values())
    return found


@given(epochs())
@settings(max_examples=150)
def test_every_clip_comes_once_an_epoch_and_no_mini_batch_is_too_large_or_too_small(case):
    epoch, clips, lengths = case
    plan, batches = epoch.plan, mini_batches(epoch)
    assert sorted(clip for _, batch in batches for _, clip in batch) == clips
    least = max(2, plan.readers)
    for _, batch in batches:
        assert least <= len(batch) < plan.batch_size + least
        held = sorted((lengths[shard][place] for _, (shard, place) in batch), reverse=True)
        # a few clips that would be too few alone may come on top; a row at least is always taken
        if plan.seconds is not None and len(batch) >= 3 * least:
            assert sum(held[least - 1 :]) <= plan.seconds


@given(epochs())
@settings(max_examples=100)
def test_clip_j_of_a_mini_batch_comes_from_reader_j(case):
    """So the shares of processes, whose number divides the readers, are of readers of their own."""
    epoch, _, _ = case
    for _, batch in mini_batches(epoch):
        assert [reader for reader, _ in batch] == [number % epoch.plan.readers for number in range(len(batch))]


@given(epochs())
@settings(max_examples=100)
def test_a_reader_reads_each_shard_forwards_and_what_no_other_reads(case):
    epoch, clips, _ = case
    plan, read = epoch.plan, []
    for group in range(plan.groups):
        sizes = []
        for reader in range(plan.readers):
            run = clips_between(epoch, *plan.reader_range(group, reader))
            blocks = [plan.block_range(group, block, reader) for block in range(plan.num_blocks(group))]
            assert [clip for block in blocks for clip in clips_between(epoch, *block)] == run
            shards = [shard for shard, _ in run]
            changes = [shard for number, shard in enumerate(shards) if not number or shards[number - 1] != shard]
            assert len(changes) == len(set(changes))
            assert all(b == (a[0], a[1] + 1) for a, b in zip(run, run[1:]) if a[0] == b[0])
            sizes.append(len(run))
            read += run
        assert max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)
    assert Counter(read) == Counter(clips)


@given(epochs())
@settings(max_examples=60)
def test_a_group_goes_on_at_every_mini_batch(case):
    epoch, _, _ = case
    for group in range(epoch.plan.groups):
        whole = group_batches(epoch, group)
        assert all(group_batches(epoch, group, taken) == whole[taken:] for taken in range(len(whole)))


@given(epochs())
@settings(max_examples=60)
def test_the_groups_take_turns_as_long_as_they_have_a_mini_batch(case):
    epoch, _, _ = case
    order, groups = epoch.round_robin(), range(epoch.plan.groups)
    total = Counter(order)
    assert all(total[group] == len(group_batches(epoch, group)) for group in groups)
    for number in range(len(order)):
        before = Counter(order[:number])
        waiting = [group for group in groups if before[group] < total[group]]
        assert before[order[number]] == min(before[group] for group in waiting)


def make_epoch(seed, sizes=(40, 60, 50), readers=2, groups=2, **named):
    values = {"batch_size": 4, "seconds": None, "buffer": 40, "name": "emotion", **named}
    shards = np.array(sizes)
    return Epoch(
        ShardPlan(int(shards.sum()), readers, groups, **values),
        shards,
        seed,
        lambda pieces: np.concatenate([1.0 + np.arange(first, stop) for _, first, stop in pieces]),
    )


def test_epochs_differ_in_the_order_of_shards_and_within_them():
    one, again, other = (mini_batches(make_epoch(seed)) for seed in ("1", "1", "2"))
    assert one == again and one != other
    orders = {tuple(make_epoch(str(seed)).order) for seed in range(20)}
    assert len(orders) == 6  # all of three shards


def test_clips_of_like_durations_come_together():
    spreads = []
    epoch = make_epoch("1", sizes=[200] * 6, readers=4, groups=1, batch_size=8, buffer=1200)
    for _, batch in mini_batches(epoch):
        places = [place for _, (_, place) in batch]
        spreads.append(max(places) - min(places))
    assert np.mean(spreads) < 200 / 2  # of clips at random it would be 200 * 7 / 9


def test_mini_batches_are_full_but_for_the_last_of_a_group():
    batches = mini_batches(make_epoch("1", sizes=[997], readers=4, groups=3, batch_size=16, buffer=500))
    sizes = Counter(len(batch) for _, batch in batches)
    assert sizes[16] >= len(batches) - 3


def test_seconds_bound_a_mini_batch():
    batches = mini_batches(make_epoch("1", readers=2, groups=1, seconds=100.0))
    totals = [sum(1.0 + place for _, (_, place) in batch) for _, batch in batches]
    assert max(totals) <= 100 + 40 and any(len(batch) == 2 for _, batch in batches)


def test_small_sets_have_fewer_groups_and_too_small_ones_are_refused():
    assert ShardPlan(40, 8, 4, 32, None, 4096, "emotion").groups == 1
    assert ShardPlan(128, 8, 4, 32, None, 4096, "emotion").groups == 4
    with pytest.raises(InputError, match="the gender set holds 7 clips, .*one from each of 8 readers"):
        ShardPlan(7, 8, 4, 32, None, 4096, "gender")
    with pytest.raises(InputError, match="holds 1 clips"):
        ShardPlan(1, 1, 1, 2, None, 10, "emotion")
