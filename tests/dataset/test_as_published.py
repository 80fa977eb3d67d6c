"""The switches of published protocols: what they leave out, what chooses the epoch, and that they have a name."""

from itertools import islice

import pytest
import torch
from lhotse import CutSet, MonoCut, SupervisionSegment

from speecheq.common.errors import InputError
from speecheq.config.schema import DataConfig
from speecheq.dataset.batch import Position
from speecheq.dataset.dialogues import by_dialogue
from speecheq.dataset.fold_sets import Partition
from speecheq.dataset.loader import endless_stream
from speecheq.dataset.model_inputs import ModelInputs
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


def _load(cut):
    return torch.zeros(int(10 * cut.duration), 2)


def _dialogues():
    return [
        _cut(f"{dialogue}-{turn}", "s", "mad", **{"dialogue": dialogue, "begin": float(turn), "class": 0})
        for turn in (2, 0, 1)
        for dialogue in ("one", "two", "three")
    ]


def test_each_mini_batch_of_a_training_is_a_dialogue_in_its_order():
    config = DataConfig(batches="dialogue", workers=0)
    stream = endless_stream("emotion", CutSet.from_cuts(_dialogues()), config, 1, load=_load)
    batches = list(islice(stream, 6))
    for batch in batches:
        name = batch.ids[0].partition("-")[0]
        assert batch.ids == [f"{name}-{turn}" for turn in range(3)]
    first, second = ({batch.ids[0] for batch in batches[start : start + 3]} for start in (0, 3))
    assert first == second and len(first) == 3
    assert [(batch.position, batch.last) for batch in batches[1:4]] == [
        (Position(0, 1), False),
        (Position(0, 2), True),
        (Position(1, 0), False),
    ]
    again = endless_stream("emotion", CutSet.from_cuts(_dialogues()), config, 1, Position(1, 1), load=_load)
    assert next(again).ids == batches[4].ids, "a training goes on where it was"


def test_each_mini_batch_of_scoring_is_a_dialogue():
    inputs = ModelInputs(_load, dialogues=True)
    found = [batch.ids for batch in inputs.batches("emotion", _dialogues(), 2, torch.device("cpu"))]
    assert found == [[f"{name}-{turn}" for turn in range(3)] for name in ("one", "three", "two")]
