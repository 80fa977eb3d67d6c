import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speecheq import seqm


def test_there_are_nine_categories_and_25_names():
    assert len(seqm.CATEGORIES) == 9
    assert len(seqm.EMOTIONS) == 25
    assert len({(e.category, e.level) for e in seqm.EMOTIONS.values()}) == 25


@pytest.mark.parametrize("name", sorted(seqm.EMOTIONS))
def test_every_emotion_comes_back_from_its_category_and_gold_eis(name):
    emotion = seqm.EMOTIONS[name]
    assert seqm.emotion_name(emotion.category, emotion.eis) == name
    assert seqm.emotion_name(seqm.esc_index(emotion.category), emotion.eis) == name


def test_gold_values_of_the_paper():
    assert [seqm.eis_from_level(level, 3) for level in (1, 2, 3)] == [1.5, 2.5, 3.5]
    assert [seqm.eis_from_level(level, 2) for level in (1, 2)] == [2.0, 3.0]
    assert seqm.EMOTIONS["neutral"].eis == 0.0
    assert (seqm.EMOTIONS["rage"].category, seqm.EMOTIONS["rage"].eis) == ("anger", 3.5)


def test_iemocap_dominance_follows_the_formula():
    for dominance in (1.0, 2.5, 4.0, 5.0):
        assert seqm.eis_from_scale(dominance, 1, 5) == pytest.approx(1 + (dominance - 1) * 3 / 4)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.floats(0, 1))
def test_rescaling_stays_in_range_and_keeps_the_order(low, width, position):
    high = low + width
    value = min(low + position * width, high)
    eis = seqm.eis_from_scale(value, low, high)
    assert 1 <= eis <= 4
    assert seqm.eis_from_scale(low, low, high) <= eis <= seqm.eis_from_scale(high, low, high)


@given(st.floats(0, 4), st.sampled_from(seqm.CATEGORIES))
def test_every_point_of_the_metric_has_a_name_of_its_category(eis, category):
    assert seqm.EMOTIONS[seqm.emotion_name(category, eis)].category == category


@given(st.floats(0, 4), st.floats(0, 4))
def test_levels_rise_with_the_eis(first, second):
    low, high = sorted((first, second))
    assert seqm.LEVELS.index(seqm.level_from_eis(low)) <= seqm.LEVELS.index(seqm.level_from_eis(high))


@pytest.mark.parametrize("eis", [-0.5, 4.1, math.nan, math.inf, -2])
def test_values_outside_the_scale_are_refused(eis):
    with pytest.raises(ValueError):
        seqm.check_eis(eis)
    with pytest.raises(ValueError):
        seqm.emotion_name("joy", eis)


def test_unspecified_is_a_label_but_has_no_name():
    assert seqm.check_eis(-1) == -1
    assert not seqm.is_specified(-1) and seqm.is_specified(0)
    with pytest.raises(ValueError):
        seqm.emotion_name("joy", -1)


@pytest.mark.parametrize("level, levels", [(0, 3), (4, 3), (3, 2), (1, 4), (-1, 2), (1.5, 3), (True, 3)])
def test_levels_outside_the_declared_ones_are_refused(level, levels):
    with pytest.raises(ValueError):
        seqm.eis_from_level(level, levels)


@pytest.mark.parametrize("value, low, high", [(0.5, 1, 5), (5.1, 1, 5), (math.nan, 1, 5), (1, 1, 1), (1, 5, 1)])
def test_values_outside_a_declared_scale_are_refused(value, low, high):
    with pytest.raises(ValueError):
        seqm.eis_from_scale(value, low, high)


@pytest.mark.parametrize("esc", ["happy", -1, 9, ""])
def test_unknown_categories_are_refused(esc):
    with pytest.raises(ValueError):
        seqm.emotion_name(esc, 2.0)
