"""The switches of published protocols: what they leave out, what chooses the epoch, and that they have a name."""

import pytest
from lhotse import MonoCut, SupervisionSegment

from speecheq.common.errors import InputError
from speecheq.dataset.dialogues import by_dialogue
from speecheq.dataset.fold_sets import Partition
from speecheq.dataset.msud_recipe import DEV, TEST, TRAINING, Recipe, experiment_name, parse_switches

CARD = {
    "labels": {"mad": "anger", "sad": "sadness"},
    "utterances": 0,
    "test_split": None,
    "partial": False,
    "levels": [],
    "scale": None,
}


def _cut(name, speaker, label, seconds=3.0, **custom):
    labels = {"corpus": "iemocap", "emotion": label, "esc": CARD["labels"][label], "eis": -1.0, **custom}
    supervision = SupervisionSegment(name, name, 0.0, seconds, speaker=speaker, gender="F", custom=labels)
    return MonoCut(name, 0.0, seconds, 0, supervisions=[supervision])


def _cuts():
    """40 clips of two speakers: every second one improvised, every fourth of 2 s."""
    return [
        _cut(
            f"iemocap-Ses01F_{'impro' if number % 2 else 'script'}01_F{number:03d}",
            f"s{number // 2 % 2}",
            ("mad", "sad")[number // 4 % 2],
            2.0 if number % 4 == 1 else 3.0,
        )
        for number in range(40)
    ]


def _partition(switches="", **changes):
    recipe = Recipe("iemocap", "random5", [], as_published=parse_switches(switches), **changes)
    return Partition(recipe, {"iemocap": CARD}, {"iemocap": _cuts()})


def test_switches_have_one_order_and_are_part_of_the_name():
    assert parse_switches("best_test, improvised") == ("improvised", "best_test")
    assert experiment_name("iemocap", "random5") == "iemocap.random5"
    name = experiment_name("iemocap", "random5", as_published=parse_switches("best_test improvised"))
    assert name == "iemocap.random5.as_published-improvised-best_test"
    with pytest.raises(InputError, match="--as-published: 'best' is not one of improvised, drop_short, best_test"):
        parse_switches("best")


def test_without_switches_all_clips_are_in_the_folds():
    partition = _partition()
    assert len(partition.target_clips) == 40 and partition.dev == "clips" and not len(partition.drops)


def test_what_a_paper_leaves_out_is_left_out_and_counted():
    improvised = _partition("improvised")
    assert len(improvised.target_clips) == 20
    assert improvised.drops.by_reason.keys() == {"iemocap, not improvised (as published)"}
    both = _partition("improvised drop_short")
    assert len(both.target_clips) == 10
    assert sorted(map(len, both.drops.by_reason.values())) == [10, 20]
    assert "iemocap, of 2 s or less (as published)" in both.drops.by_reason


def test_the_epoch_of_best_test_is_chosen_on_the_test_clips():
    strict, published = _partition().fold(1).sets["iemocap"], _partition("best_test")
    sets = published.fold(1).sets["iemocap"]
    assert published.dev == TEST and DEV in strict.values() and DEV not in sets.values()
    assert {name for name, part in sets.items() if part == TEST} == {n for n, part in strict.items() if part == TEST}
    assert list(sets.values()).count(TRAINING) == 32
    with pytest.raises(InputError, match="--as-published best_test has no dev part"):
        _partition("best_test", dev="speaker")


# ---- dialogues


def test_clips_of_a_dialogue_come_in_the_order_in_which_they_were_spoken():
    turns = [("b", "two", 1.5), ("a", "one", 4.0), ("c", "one", 0.5), ("d", "two", 0.0)]
    cuts = [_cut(name, "s", "mad", dialogue=dialogue, begin=begin) for name, dialogue, begin in turns]
    assert [[cut.id for cut in dialogue] for dialogue in by_dialogue(cuts)] == [["c", "a"], ["d", "b"]]
    with pytest.raises(InputError, match="e: iemocap names no dialogues"):
        by_dialogue([*cuts, _cut("e", "s", "mad")])
