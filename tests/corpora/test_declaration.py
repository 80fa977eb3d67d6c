"""The declaration of a corpus: its labels and intensities in SEQM terms."""

import pytest

from speecheq.corpora import Corpus

LABELS = {"mad": "anger", "calm": "neutral"}
TOY = Corpus("toy", "the toy", "Mandarin", "DIR/*.wav", labels=LABELS, levels=("weak", "strong"))


def test_eis_comes_from_the_declared_levels():
    assert TOY.eis("mad", "weak") == 2.0 and TOY.eis("mad", "strong") == 3.0 and TOY.eis("mad", None) == -1
    # neutral is SEQM's 0 in a corpus with levels, whatever level its clips carry
    assert TOY.eis("calm", None) == TOY.eis("calm", "weak") == 0.0
    three = Corpus("t", "T", "x", "", labels=TOY.labels, levels=("a", "b", "c"))
    assert [three.eis("mad", level) for level in "abc"] == [1.5, 2.5, 3.5]
    without = Corpus("t", "T", "x", "", labels=TOY.labels)
    assert without.eis("calm", None) == without.eis("mad", None) == -1


def test_labels_and_levels_outside_the_declaration():
    assert TOY.esc("mad") == "anger" and TOY.esc(None) is None
    with pytest.raises(ValueError, match="'bored' is not one of the toy's: mad, calm"):
        TOY.esc("bored")
    with pytest.raises(ValueError, match="'mild' is not one of the toy's: weak, strong"):
        TOY.eis("mad", "mild")
    with pytest.raises(ValueError, match="'mild'"):
        TOY.eis("calm", "mild")
    with pytest.raises(ValueError, match="'fury' is neither a category nor an emotion of SEQM"):
        Corpus("t", "T", "x", "", labels={"mad": "fury"})
    with pytest.raises(ValueError, match="2 or 3 levels, not 4"):
        Corpus("t", "T", "x", "", levels=tuple("abcd"))


SCALED = Corpus(
    "scaled", "the scaled", "English", "DIR/*.wav", labels={"mad": "anger", "calm": "neutral"}, scale=(1.0, 5.0)
)


def test_continuous_intensity_is_rescaled_to_1_to_4_and_neutral_keeps_its_own():
    assert [SCALED.eis("mad", None, value) for value in (1.0, 3.0, 5.0)] == [1.0, 2.5, 4.0]
    assert SCALED.eis("calm", None, 5.0) == 4.0 and SCALED.eis("mad", None) == -1
    metric = Corpus("t", "T", "x", "", labels=SCALED.labels, scale=(1.0, 5.0), neutral_eis="metric")
    assert metric.eis("calm", None, 5.0) == 0.0 and metric.own_eis("calm", None, 5.0) == 4.0
    with pytest.raises(ValueError, match="outside the declared scale 1 to 5"):
        SCALED.eis("mad", None, 0.5)
    with pytest.raises(ValueError, match="declares no scale"):
        TOY.eis("mad", None, 2.0)


def test_a_label_can_be_a_name_of_seqm_with_its_intensity():
    named = Corpus("t", "T", "x", "", labels={"bored": "boredom", "loath": "disgust", "furious": "rage"})
    assert (named.esc("bored"), named.eis("bored", None)) == ("disgust", 1.5)
    assert (named.esc("loath"), named.eis("loath", None)) == ("disgust", -1)
    assert (named.esc("furious"), named.eis("furious", None)) == ("anger", 3.5)


@pytest.mark.parametrize(
    "declaration, words",
    [
        (dict(levels=("a", "b"), scale=(1, 5)), "by levels or by a scale"),
        (dict(scale=(5.0, 1.0)), "not a finite range"),
        (dict(neutral_eis="zero"), "not one of metric, corpus"),
        (dict(splits=("train",), test_split="test"), "'test' is not among its parts"),
    ],
)
def test_declarations_that_contradict_themselves(declaration, words):
    with pytest.raises(ValueError, match=words):
        Corpus("t", "T", "x", "", **declaration)
