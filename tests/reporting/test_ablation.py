"""Ablation effects under each condition: differences, intervals, sentences, and what is not compared."""

from dataclasses import replace

import numpy as np
import pytest
from report_data import FACTS, SPEAKERS, add, in_noise, make, predictions, summarised, table
from sklearn.metrics import balanced_accuracy_score

from speecheq.evaluation import significance
from speecheq.evaluation.robustness import conditions
from speecheq.evaluation.robustness.conditions import CLEAN, OTHER_CORPORA, Condition
from speecheq.reporting import report
from speecheq.reporting.ablation import ABOVE, AROUND, BELOW, OWN_CLIPS, Component, ablation_effects, ablation_section

MTL = Component("learning more", "speecheq", "wo_mtl")
CASIA = Condition("casia")


def tried(tmp_path, system, right, of, folds=(1, 2), speakers=SPEAKERS, facts=FACTS, seeds=(1,), **changes):
    """An experiment with its rows; of its own test clips a share ``right`` is right, and those ``of`` conditions."""
    made = make(tmp_path / "exp", system=system, right=right, folds=folds, speakers=speakers, seeds=seeds, **changes)
    for folder in made.glob("fold*/seed*"):
        if of:
            add(folder, correct=of, facts=facts, speakers=speakers)
    return replace(summarised(made), conditions=conditions.read(made)[0])


def pooled_ua(right, folds, seeds=(1,)):
    """The mean over seeds, by scikit-learn."""
    of_seeds = []
    for seed in seeds:
        said = [clip for fold in folds for clip in predictions(fold, seed, right, SPEAKERS)]
        of_seeds.append(
            balanced_accuracy_score([clip.gold_esc for clip in said], [clip.predicted_esc for clip in said])
        )
    return sum(of_seeds) / len(of_seeds)


def sentence(section, beginning="learning more ("):
    return next(sentence for sentence in section.sentences if sentence.startswith(beginning))


pytestmark = pytest.mark.filterwarnings("ignore:y_pred contains classes")


def test_an_effect_is_computed_over_the_folds_that_both_systems_have(tmp_path):
    with_it = tried(
        tmp_path, "speecheq", 0.8, {CLEAN: 0.8, in_noise(20): 0.9, in_noise(0): 0.1, in_noise(5): 0.5}, (1, 2, 3)
    )
    without = tried(tmp_path, "wo_mtl", 0.8, {CLEAN: 0.7, in_noise(20): 0.2, in_noise(0): 0.9})
    found, others = ablation_effects([MTL], [with_it, without])
    assert not others and [effect.condition for effect in found] == [OWN_CLIPS, "noise at 20 dB", "noise at 0 dB"]
    for effect, (more, less) in zip(found, [(0.8, 0.8), (0.9, 0.2), (0.1, 0.9)]):
        assert effect.difference.ua == pytest.approx(pooled_ua(more, (1, 2)) - pooled_ua(less, (1, 2)))
        assert effect.predictions.trainings == {(1, 1), (1, 2)} and effect.predictions.clip_count == 48
    assert [effect.interval_position for effect in found] == [AROUND, ABOVE, BELOW]

    section = ablation_section("toys", [MTL], [with_it, without])
    up, down = (f"({100 * found[place].difference.ua:+.2f})" for place in (1, 2))
    assert sentence(section) == (
        "learning more (small-speecheq vs. small-wo_mtl) helps under 1 of 3 conditions (the interval lies "
        f"above 0): noisy speech: noise at 20 dB {up}; is harmful under 1 of 3 conditions (the interval lies "
        f"below 0): noisy speech: noise at 0 dB {down}; shows no significant difference under 1 of 3 (the interval "
        "includes 0)"
    )
    rows = list(section.tables[0].texts())
    assert [row[0] for row in rows] == [OWN_CLIPS, "noisy speech: noise at 20 dB", "noisy speech: noise at 0 dB"]
    ends = f"{100 * found[1].difference.low:.2f} to {100 * found[1].difference.high:.2f}"
    assert rows[1][1:] == [f"{100 * found[1].difference.ua:.2f}, {ends}", "1 2", "1", str(SPEAKERS), "48"]


def test_seeds_are_averaged_and_only_common_ones_taken(tmp_path):
    more = tried(tmp_path, "speecheq", 0.7, {in_noise(0): 0.7}, seeds=(1, 2, 3))
    less = tried(tmp_path, "wo_mtl", 0.4, {in_noise(0): 0.4}, seeds=(1, 2))
    own, noisy = ablation_effects([MTL], [more, less])[0]
    for effect in (own, noisy):
        assert effect.predictions.trainings == {(seed, fold) for seed in (1, 2) for fold in (1, 2)}
        assert effect.difference.ua == pytest.approx(pooled_ua(0.7, (1, 2), (1, 2)) - pooled_ua(0.4, (1, 2), (1, 2)))


def test_equal_systems_do_not_differ(tmp_path):
    same = [tried(tmp_path, system, 0.6, {in_noise(0): 0.5}) for system in ("speecheq", "wo_mtl")]
    assert [effect.interval_position for effect in ablation_effects([MTL], same)[0]] == [AROUND, AROUND]


def test_differences_by_rounding_are_none():
    """Other recalls of the classes, with the same sum: the UA is the same but for the last digit."""

    def answers(right):
        rows = [
            (1, 1, f"{speaker} {gold} {clip}", speaker, gold, gold if clip < number else 9)
            for speaker in "abcdefgh"
            for gold, number in enumerate(right)
            for clip in range(10)
        ]
        return significance.PooledPredictions.from_rows(rows)

    for permuted in ((0, 10, 2, 8, 3, 4), (8, 4, 3, 10, 0, 2), (10, 8, 4, 3, 2, 0)):
        of = significance.difference(answers((3, 4, 10, 8, 2, 0)), answers(permuted))
        assert (of.low, of.high, of.bootstrap) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("speakers, place", [(1, None), (2, None), (5, None), (6, ABOVE)])
def test_with_few_speakers_no_effect_is_tested(tmp_path, speakers, place):
    both = [
        tried(tmp_path, system, right, {in_noise(0): right}, speakers=speakers)
        for system, right in (("speecheq", 0.95), ("wo_mtl", 0.1))
    ]
    assert [effect.interval_position for effect in ablation_effects([MTL], both)[0]] == [place, place]
    sentences = ablation_section("toys", [MTL], both).sentences
    names = "learning more (small-speecheq vs. small-wo_mtl)"
    assert (f"not tested, with fewer than 6 speakers (on other corpora: or trainings): {names}" in sentences) == (
        place is None
    )
    assert any(one.startswith(f"{names} helps under 2 of 2 conditions") for one in sentences) == (place is ABOVE)


def test_conditions_over_few_speakers_are_counted_apart(tmp_path):
    """Attacks, say, were tried on one fold, of one speaker."""
    both = [
        tried(tmp_path, system, right, {in_noise(0): right}) for system, right in (("speecheq", 0.95), ("wo_mtl", 0.1))
    ]
    alone = []
    for member in both:
        answers = member.conditions[0].predictions
        own = significance.PooledPredictions(*(values[answers.speakers == "s00"] for values in answers))
        alone.append(replace(member, conditions=[replace(member.conditions[0], predictions=own)]))
    assert sentence(ablation_section("toys", [MTL], alone)).endswith(
        "; is not tested under 1 of 2, with fewer than 6 speakers (on other corpora: or trainings)"
    )


def on_casia(tmp_path, system, right, corpora=("casia",), folds=(1, 2)):
    """All ``folds`` answer the same clips there."""
    made = tried(tmp_path, system, right, {})
    same = predictions(1, 1, right, SPEAKERS)
    answers = significance.PooledPredictions.from_rows(
        [(1, fold, clip.id, clip.speaker, clip.gold_esc, clip.predicted_esc) for fold in folds for clip in same]
    )
    facts = {
        **FACTS,
        "corpora": list(corpora),
        "methods": list(corpora),
        "gradients": {"attacked": len(corpora)},
        "notes": [system],
        "git": [system],
    }
    return replace(
        made,
        conditions=[
            conditions.ConditionResult(OTHER_CORPORA, CASIA, conditions.condition_metrics(answers), facts, answers)
        ],
    )


@pytest.mark.parametrize("trainings, place", [(1, None), (5, None), (6, ABOVE)])
def test_with_few_trainings_no_effect_is_tested_on_another_corpus(tmp_path, trainings, place):
    """However many speakers it has."""
    both = [
        on_casia(tmp_path, system, right, folds=range(1, 1 + trainings))
        for system, right in (("speecheq", 0.95), ("wo_mtl", 0.1))
    ]
    own, there = ablation_effects([MTL], both)[0]
    assert (own.interval_position, there.interval_position) == (ABOVE, place) and there.difference.speakers == SPEAKERS


def test_other_corpora_are_compared_whatever_else_was_tested_and_their_clips_counted_once(tmp_path):
    both = [on_casia(tmp_path, "speecheq", 0.9, ("casia", "emodb")), on_casia(tmp_path, "wo_mtl", 0.2)]
    assert [member.conditions[0].metrics["clips"] for member in both] == [24, 24]
    found, others = ablation_effects([MTL], both)
    assert not others and found[1].predictions.clip_count == 24 and found[1].predictions.trainings == {(1, 1), (1, 2)}
    assert found[1].difference.ua == pytest.approx(pooled_ua(0.9, (1,)) - pooled_ua(0.2, (1,)))


OPTIONS = "they were tested with different options or audio files"
FOLDS = "they have no fold and seed in common"
CLIPS = "they were tested on different clips"


@pytest.mark.parametrize(
    "changes, whys",
    [
        (dict(facts={**FACTS, "seed": 5}), {"noisy speech": OPTIONS}),
        (dict(folds=(2,)), {OWN_CLIPS: FOLDS, "noisy speech": FOLDS}),
        (dict(speakers=4), {OWN_CLIPS: CLIPS, "noisy speech": CLIPS}),
        (dict(set=["loss.gamma=1"]), {"all conditions": "their configurations differ"}),
    ],
)
def test_what_is_not_compared_is_said_once(tmp_path, changes, whys):
    first = tried(tmp_path, "speecheq", 0.8, {in_noise(0): 0.5, in_noise(20): 0.5}, (1,))
    second = tried(tmp_path, "wo_mtl", 0.8, {in_noise(0): 0.5, in_noise(20): 0.5}, **{"folds": (1,), **changes})
    found, others = ablation_effects([MTL], [first, second])
    assert {other.condition: other.reason for other in others} == whys and len(others) == len(whys)
    assert [effect.condition for effect in found] == [OWN_CLIPS] * ("facts" in changes)
    called = "small (loss.gamma=1)-wo_mtl" if "set" in changes else "small-wo_mtl"
    assert ablation_section("toys", [MTL], [first, second]).sentences[-len(whys) :] == [
        f"learning more, {under}: small-speecheq and {called} are not compared: {why}" for under, why in whys.items()
    ]


def test_configurations_stand_side_by_side(tmp_path):
    members = [
        tried(tmp_path / changes["set"][0], system, right, {in_noise(0): right}, folds, **changes)
        for changes, folds in ((dict(set=["a=1"]), (1, 2)), (dict(set=["b=2"]), (1,)))
        for system, right in (("speecheq", 0.9), ("wo_mtl", 0.3))
    ]
    section = ablation_section("toys", [MTL], members)
    (made,) = section.tables
    assert [column.heading for column in made.columns] == [
        "condition",
        "learning more (small (a=1)-speecheq)",
        "learning more (small (b=2)-speecheq)",
        "folds",
        "seeds",
        "speakers",
        "clips",
    ]
    assert [row[3:] for row in made.texts()] == [["1 2 / 1", "1", str(SPEAKERS), "48 / 24"]] * 2
    assert sum("vs. small (b=2)-wo_mtl" in found for found in section.sentences) == 1


def test_what_else_may_be_part_of_a_difference_is_said(tmp_path):
    systems = [
        tried(tmp_path, "speecheq", 0.8, {}, trained_at_git="aaa", corpora=["toy", "other"]),
        tried(tmp_path, "wo_mtl", 0.8, {}, trained_at_git="bbb"),
    ]
    sentences = ablation_section("toys", [MTL], systems).sentences
    assert (
        "small-speecheq and small-wo_mtl were trained with different revisions of the code, which may explain part of "
        "their difference" in sentences
    )
    assert "small-speecheq and small-wo_mtl were trained on different emotion data: toy, other vs. toy" in sentences
    alike = [tried(tmp_path / "alike", system, 0.8, {}) for system in ("speecheq", "wo_mtl")]
    assert not any("were trained" in sentence for sentence in ablation_section("toys", [MTL], alike).sentences)


def test_the_recipes_page_has_the_ablation_effects(tmp_path, no_pictures):
    for system, right in (("speecheq", 0.9), ("wo_mtl", 0.2)):
        tried(tmp_path, system, right, {in_noise(0): right})
    part = "{name: learning more, system: speecheq, without: wo_mtl}"
    for parts in (part, ""):
        (tmp_path / "table.yaml").write_text(
            f"{{title: T, columns: [], rows: [], published: [], notes: [], parts: [{parts}]}}"
        )
        text = report.report(tmp_path / "exp", "Toys", tmp_path / "RESULTS.md", tmp_path / "table.yaml")
        assert ("## toy, random10: ablation effects" in text) == bool(parts)
        if parts:
            own, noisy = table(tmp_path / "exp", "toy.random10.test.parts")
    assert own["condition"] == OWN_CLIPS and noisy["condition"] == "noisy speech: noise at 0 dB"
    assert float(own["learning more"]) == pytest.approx(
        100 * (pooled_ua(0.9, (1, 2)) - pooled_ua(0.2, (1, 2))), abs=0.01
    )


def test_predictions_of_some_folds_alone():
    answers = significance.PooledPredictions.from_rows(
        [(seed, fold, f"{fold} {clip}", "s", 0, clip % 2) for seed in (1, 2) for fold in (1, 2) for clip in range(3)]
    )
    some = answers.select({(1, 2), (2, 1)})
    assert some.trainings == {(1, 2), (2, 1)} and len(some.clips) == 6 and some.clip_count == 6
    assert np.array_equal(some.correct, answers.correct[(answers.seeds + answers.folds) == 3])
