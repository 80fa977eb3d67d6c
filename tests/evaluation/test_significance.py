"""Intervals and tests against scipy, against all resamples of a small case, and by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, t, ttest_1samp

from speecheq.evaluation import metrics
from speecheq.evaluation.significance import (
    EisPredictions,
    PooledPredictions,
    accuracies,
    bootstrap_accuracies,
    bootstrap_eis,
    bootstrap_interval,
    bootstrap_p_value,
    difference,
    holm,
    mcnemar,
    standard_deviation,
)

pooled = PooledPredictions.from_rows
P_VALUES = st.lists(st.floats(0, 1), max_size=12)
CLIPS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40
)


def answers(clips, seeds=(1,), which=0):
    """Of (speaker, gold, predicted of one system, predicted of another): the same in every seed."""
    return pooled(
        [
            (seed, 1 + number % 2, f"clip{number}", clip[0], clip[1], clip[2 + which])
            for seed in seeds
            for number, clip in enumerate(clips)
        ]
    )


def random_answers(speakers, clips, seed=0, right=0.7):
    """Some speakers are easier than others."""
    random = np.random.default_rng(seed)
    easy = random.uniform(right - 0.2, right + 0.2, speakers)
    rows = []
    for number in range(clips):
        speaker, gold = number % speakers, int(random.integers(6))
        predicted = gold if random.random() < easy[speaker] else (gold + 1) % 6
        rows.append((1, 1, f"{number:05d}", f"s{speaker:03d}", gold, predicted))
    return pooled(rows)


@given(CLIPS, st.sampled_from([(1,), (1, 2)]))
@settings(max_examples=50)
def test_accuracies_are_those_of_the_metrics(clips, seeds):
    everyone, gold, predicted = answers(clips, seeds), [clip[1] for clip in clips], [clip[2] for clip in clips]
    assert accuracies(everyone).wa == pytest.approx(metrics.weighted_accuracy(gold, predicted))
    assert accuracies(everyone).ua == pytest.approx(metrics.unweighted_accuracy(gold, predicted))


def test_seeds_are_averaged_also_where_one_has_fewer_clips():
    rows = [(1, 1, "a", "s", 0, 0), (1, 1, "b", "t", 1, 0), (2, 1, "a", "s", 0, 0)]
    assert accuracies(pooled(rows)) == (0.75, 0.75)
    samples = bootstrap_accuracies(pooled(rows), 200)
    # s twice: both seeds right; t twice: the second seed has no clip; one of each: as above
    assert set(samples.wa) == {1.0, 0.0, 0.75} and set(samples.ua) == {1.0, 0.0, 0.75}


def test_resamples_are_all_draws_of_speakers_with_replacement():
    """Three speakers: the 27 draws by hand, each as likely; UA over the classes that occur."""
    clips = [("a", 0, 0), ("a", 1, 1), ("a", 1, 0), ("b", 0, 1), ("b", 2, 2), ("c", 1, 1), ("c", 0, 0), ("c", 0, 1)]
    expected = {"wa": [], "ua": []}
    for drawn in itertools.product("abc", repeat=3):
        taken = [clip for speaker in drawn for clip in clips if clip[0] == speaker]
        gold, predicted = [clip[1] for clip in taken], [clip[2] for clip in taken]
        expected["wa"].append(metrics.weighted_accuracy(gold, predicted))
        expected["ua"].append(metrics.unweighted_accuracy(gold, predicted))
    samples = bootstrap_accuracies(answers(clips), 50_000)
    for name, values in expected.items():
        found = getattr(samples, name)
        assert sorted(set(np.round(found, 9))) == sorted(set(np.round(values, 9)))
        for value in set(np.round(values, 9)):
            share = np.isclose(values, value).mean()
            error = 5 * math.sqrt(share * (1 - share) / len(found))
            assert np.isclose(found, value).mean() == pytest.approx(share, abs=error)


def test_the_interval_of_wa_is_that_of_scipy():
    everyone = random_answers(20, 1200)
    right = np.array([everyone.correct[everyone.speakers == speaker].sum() for speaker in np.unique(everyone.speakers)])
    clips = np.array([(everyone.speakers == speaker).sum() for speaker in np.unique(everyone.speakers)])
    reference = bootstrap(
        (right, clips),
        lambda r, c, axis: r.sum(axis) / c.sum(axis),
        paired=True,
        method="percentile",
        vectorized=True,
        n_resamples=10_000,
        random_state=np.random.default_rng(1),
    )
    # so many units that the expanded percentiles are the plain ones
    low, high = bootstrap_interval(bootstrap_accuracies(everyone).wa, 10**6)
    assert low == pytest.approx(reference.confidence_interval.low, abs=0.005)
    assert high == pytest.approx(reference.confidence_interval.high, abs=0.005)


@pytest.mark.parametrize("units", [6, 7, 10, 24])
def test_of_few_units_a_mean_has_the_interval_and_the_p_of_students_t(units):
    """Plain percentiles of ten units are a sixth shorter."""
    random = np.random.default_rng(units)
    sample = np.round(random.normal(0.5, 1, units), 3)
    means = sample[random.integers(units, size=(400_000, units))].mean(1)
    low, high = t.interval(0.95, units - 1, sample.mean(), sample.std(ddof=1) / math.sqrt(units))
    ends = bootstrap_interval(means, units)
    assert ends[1] - ends[0] == pytest.approx(high - low, rel=0.1)
    assert np.quantile(means, 0.975) - np.quantile(means, 0.025) < 0.9 * (high - low) or units == 24
    assert bootstrap_p_value(means, units) == pytest.approx(ttest_1samp(sample, 0).pvalue, rel=0.35, abs=0.002)


@given(st.integers(2, 40), st.integers(0, 2**32 - 1), st.floats(-2, 2))
@settings(max_examples=100)
def test_interval_and_p_agree_on_where_0_lies(units, seed, middle):
    """But for the sample itself, which the p counts: where all draws lie on one side, of few units p is still large."""
    differences = np.random.default_rng(seed).normal(middle, 1, 2000)
    low, high = bootstrap_interval(differences, units)
    p = bootstrap_p_value(differences, units)
    assert 0 < p <= 1
    if p < 0.05:
        assert low > 0 or high < 0
    elif p > 0.07:
        assert low <= 0 <= high or min((differences < 0).sum(), (differences > 0).sum()) == 0
    assert (
        bootstrap_interval(differences, units + 1)[0] >= low and bootstrap_p_value(differences, units + 1) <= p + 1e-12
    )


def crossed(trainings, speakers, seed=0):
    """Of every training's own skill: (seed, fold, clip, speaker, gold, predicted), all answer the same clips."""
    random = np.random.default_rng(seed)
    skill = random.uniform(0.2, 0.9, trainings)
    return [
        (1, fold, f"{speaker} {clip}", f"s{speaker}", clip % 3, clip % 3 if random.random() < skill[fold] else 3)
        for fold in range(trainings)
        for speaker in range(speakers)
        for clip in range(30)
    ]


def test_where_every_fold_answers_all_clips_trainings_are_drawn_too():
    rows = crossed(8, 20)
    everyone = pooled(rows)
    assert everyone.folds_share_clips and everyone.units == 8 and pooled(crossed(1, 20)).units == 20
    each = [accuracies(pooled([row for row in rows if row[1] == fold])).ua for fold in range(8)]
    assert accuracies(everyone).ua == pytest.approx(np.mean(each))
    low, high = bootstrap_interval(bootstrap_accuracies(everyone).ua, everyone.units)
    by_t = t.interval(0.95, 7, np.mean(each), np.std(each, ddof=1) / math.sqrt(8))
    assert high - low > 0.8 * (by_t[1] - by_t[0]), "skills of trainings differ much more than speakers here"
    # the same answers as those of one training over other clips: only speakers vary, who hardly do
    apart = pooled([(seed, fold, f"{fold} {clip}", *rest) for seed, fold, clip, *rest in rows])
    assert not apart.folds_share_clips and apart.units == 20
    assert np.ptp(bootstrap_interval(bootstrap_accuracies(apart).ua, 20)) < (high - low) / 3


def test_draws_of_trainings_are_not_those_of_speakers():
    """As many of either: one draw for both would couple them."""
    everyone = pooled(
        [(1, fold, f"{speaker}", f"s{speaker}", 0, int(fold != speaker)) for fold in range(9) for speaker in range(9)]
    )
    assert accuracies(everyone).wa == pytest.approx(1 / 9)
    assert bootstrap_accuracies(everyone).wa.mean() == pytest.approx(1 / 9, abs=0.01), (
        "coupled draws would give nearly 2 / 9"
    )


def test_the_order_of_the_answers_does_not_matter_where_trainings_are_drawn():
    rows = crossed(3, 4)
    assert np.array_equal(bootstrap_accuracies(pooled(rows)).ua, bootstrap_accuracies(pooled(rows[::-1])).ua)


def test_clips_of_a_speaker_are_kept_together():
    """Where a speaker's clips are all right or all wrong, there are as many independent observations as speakers."""
    clips = [(speaker, 0, int(speaker in "ab")) for speaker in "abcd" for _ in range(50)]
    one_each = [(speaker, 0, int(speaker in "ab")) for speaker in "abcd"]
    assert (
        bootstrap_interval(bootstrap_accuracies(answers(clips)).wa, 4)
        == bootstrap_interval(bootstrap_accuracies(answers(one_each)).wa, 4)
        == (0, 1)
    )


def test_intervals_do_not_depend_on_the_order_and_are_the_same_again():
    rows = list(zip(*random_answers(5, 60)))
    assert np.array_equal(bootstrap_accuracies(pooled(rows)).ua, bootstrap_accuracies(pooled(rows[::-1])).ua)


def test_one_speaker_has_no_interval():
    assert bootstrap_accuracies(random_answers(1, 30)) is None
    found = difference(random_answers(1, 30), random_answers(1, 30))
    assert found.low is found.high is found.bootstrap is None and found.speakers == 1 and found.mcnemar == 1


def exact_mcnemar(first_only, second_only):
    """The binomial test in whole numbers."""
    trials, fewer = first_only + second_only, min(first_only, second_only)
    term = total = 1
    for k in range(fewer):
        term = term * (trials - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / 2**trials)


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=100)
@example(0, 0)
@example(5000, 5300)
@example(0, 3000)  # smaller than any floating-point number
def test_mcnemar_is_the_exact_binomial_test(first_only, second_only):
    expected = exact_mcnemar(first_only, second_only)
    assert mcnemar(first_only, second_only) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert mcnemar(first_only, second_only) == mcnemar(second_only, first_only)


@given(P_VALUES)
@settings(max_examples=200)
def test_holm_is_monotone_and_between_none_and_bonferroni(values):
    corrected = holm(values)
    assert all(p <= c <= min(1, p * len(values)) + 1e-12 for p, c in zip(values, corrected))
    order = sorted(range(len(values)), key=lambda place: values[place])
    assert [corrected[place] for place in order] == sorted(corrected)
    assert holm(values[::-1]) == corrected[::-1]


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5]) == [0.5] and holm([]) == [] and holm([0.6, 0.9]) == [1, 1]


@given(CLIPS)
@settings(max_examples=50)
def test_a_system_never_differs_from_itself(clips):
    found = difference(answers(clips), answers(clips))
    assert (found.ua, found.first_only, found.second_only, found.mcnemar) == (0, 0, 0, 1)
    assert found.bootstrap in (1, None) and found.low in (0, None) and found.high in (0, None)


@given(CLIPS)
@settings(max_examples=50)
def test_the_other_way_round_a_difference_is_the_same(clips):
    there, back = (difference(answers(clips, which=a), answers(clips, which=1 - a)) for a in (0, 1))
    assert there.ua == pytest.approx(-back.ua, abs=1e-12) and there.mcnemar == back.mcnemar
    assert there.bootstrap == back.bootstrap and there.first_only == back.second_only
    if there.low is not None:
        assert there.low == pytest.approx(-back.high, abs=1e-9)


def test_a_difference_by_hand():
    rows = [("a", 0, 0, 1), ("a", 0, 0, 0), ("b", 1, 1, 0), ("b", 1, 0, 1), ("b", 1, 1, 0)]
    found = difference(answers(rows), answers(rows, which=1))
    assert found.ua == pytest.approx((1 + 2 / 3) / 2 - (1 / 2 + 1 / 3) / 2)
    assert (found.first_only, found.second_only) == (3, 1) and found.mcnemar == pytest.approx(0.625)


def test_a_clip_of_several_seeds_counts_once():
    first = [(seed, 1, clip, "s" + clip, 0, 0) for seed in (1, 2, 3) for clip in "abcdef"]
    second = [(seed, 1, clip, "s" + clip, 0, int(seed > 1)) for seed in (1, 2, 3) for clip in "abcdef"]
    found = difference(pooled(first), pooled(second))
    assert (found.first_only, found.second_only) == (6, 0) and found.mcnemar == pytest.approx(2 / 64)


def test_a_system_that_is_better_with_every_speaker_differs():
    good, bad = random_answers(20, 1200, right=0.8), random_answers(20, 1200, right=0.5)
    found = difference(good, bad)
    assert found.low > 0 and found.bootstrap == bootstrap_p_value(np.ones(10_000), 20) < 0.002 and found.mcnemar < 1e-6
    assert bootstrap_p_value(np.array([0.1] * 999), 10**6) == pytest.approx(2 / 1000, rel=1e-4), "never 0"
    for units in (2, 6, 10**6):
        assert bootstrap_p_value(np.array([-0.1, 0.1] * 50), units) == 1
        assert bootstrap_p_value(np.array([1e-17] * 99), units) == 1, "a difference of rounding is none"


def test_the_interval_of_a_difference_is_of_ua_over_the_same_draws():
    """Two classes of very unequal size: WA and UA differ, and so would draws of one's own for each system."""
    rows = [(f"s{n % 7}", int(n % 10 == 0), int(n % 3 == 0), int(n % (2 + n % 7) == 0)) for n in range(140)]
    first, second = answers(rows), answers(rows, which=1)
    found, again = difference(first, second), difference(pooled(list(zip(*first))[::-1]), second)
    assert (found.low, found.high) == bootstrap_interval(
        bootstrap_accuracies(first).ua - bootstrap_accuracies(second).ua, 7
    )
    assert (found.low, found.high) != bootstrap_interval(
        bootstrap_accuracies(first).wa - bootstrap_accuracies(second).wa, 7
    )
    assert found == again, "the order of the answers does not matter"


def test_systems_over_other_clips_are_not_laid_side_by_side():
    with pytest.raises(ValueError, match="do not predict the same clips"):
        difference(random_answers(3, 30), random_answers(3, 31))


@given(st.lists(st.floats(-1e3, 1e3), max_size=8))
def test_deviation_is_that_of_a_sample(values):
    expected = None if len(values) < 2 else np.std(values, ddof=1)
    assert standard_deviation(values) == pytest.approx(expected)


def eis_clips(speakers="abc", clips=30):
    random = np.random.default_rng(3)
    gold = random.choice([1.0, 2.5, 4.0], clips)
    return np.array([speakers[n % len(speakers)] for n in range(clips)]), gold, gold + random.normal(0.3, 0.8, clips)


def test_eis_scores_are_those_of_all_draws_of_speakers():
    speakers, gold, predicted = eis_clips()
    expected = {}
    for drawn in itertools.product("abc", repeat=3):
        rows = np.concatenate([np.flatnonzero(speakers == speaker) for speaker in drawn])
        scores = (f(gold[rows], predicted[rows]) for f in (metrics.mean_squared_error, metrics.concordance))
        expected["".join(sorted(drawn))] = tuple(scores)
    samples = bootstrap_eis(EisPredictions(np.ones(30), speakers, gold, predicted), 2000)
    found = set(zip(samples.eis_mse.round(9), samples.eis_ccc.round(9)))
    assert found == {(round(mse, 9), round(ccc, 9)) for mse, ccc in expected.values()}


def test_eis_scores_of_seeds_are_averaged():
    speakers, gold, predicted = eis_clips("abcdefgh", 64)
    one = EisPredictions(np.ones(64), speakers, gold, predicted)
    other = one._replace(seeds=np.full(64, 2), predicted=gold)
    both = bootstrap_eis(EisPredictions(*map(np.concatenate, zip(one, other))), 50)
    alone = bootstrap_eis(one, 50)
    assert both.eis_mse == pytest.approx(alone.eis_mse / 2) and both.eis_ccc == pytest.approx((alone.eis_ccc + 1) / 2)


def test_eis_without_an_interval():
    speakers, gold, predicted = eis_clips()
    assert bootstrap_eis(EisPredictions(np.ones(30), np.full(30, "a"), gold, predicted)) is None
    constant = bootstrap_eis(EisPredictions(np.ones(30), speakers, np.full(30, 2.0), predicted), 20)
    assert np.isnan(constant.eis_ccc).all() and np.isfinite(constant.eis_mse).all()
