"""Scores against scikit-learn and scipy, a direct formula, and plain dynamic programming."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    mean_absolute_error,
    precision_recall_fscore_support,
)

from speecheq.evaluation import metrics

PAIRS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=60)
PHONES = st.lists(st.integers(1, 4), max_size=9)


@given(PAIRS)
@settings(max_examples=100)
@pytest.mark.filterwarnings("ignore")
def test_accuracies_and_confusion_are_those_of_scikit_learn(pairs):
    gold, predicted = map(list, zip(*pairs))
    assert metrics.weighted_accuracy(gold, predicted) == pytest.approx(accuracy_score(gold, predicted))
    assert metrics.unweighted_accuracy(gold, predicted) == pytest.approx(balanced_accuracy_score(gold, predicted))
    expected = confusion_matrix(gold, predicted, labels=range(9))
    assert (metrics.confusion(gold, predicted, 9) == expected).all()


@given(PAIRS)
@settings(max_examples=100)
def test_recall_precision_and_f1_are_those_of_scikit_learn(pairs):
    gold, predicted = map(list, zip(*pairs))
    found = metrics.class_scores(gold, predicted, 9)
    precision, recall, f1, support = precision_recall_fscore_support(gold, predicted, labels=range(9), zero_division=0)
    for label in range(9):
        assert (found.recall[label] is None) == (found.f1[label] is None) == (support[label] == 0)
        assert (found.precision[label] is None) == (label not in predicted)
        assert (found.recall[label] or 0) == pytest.approx(recall[label])
        assert (found.precision[label] or 0) == pytest.approx(precision[label])
        assert (found.f1[label] or 0) == pytest.approx(f1[label])
    assert metrics.macro_f1(gold, predicted, 9) == pytest.approx(f1[support > 0].mean())


POSTERIORS = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.integers(1, 9), min_size=3, max_size=3)), min_size=1, max_size=60
)


@given(POSTERIORS)
@settings(max_examples=100)
def test_calibration_bins_are_those_of_scikit_learn(pairs):
    gold = [label for label, _ in pairs]
    posteriors = np.array([weights for _, weights in pairs], dtype=float)
    posteriors /= posteriors.sum(1, keepdims=True)
    right = posteriors.argmax(1) == gold
    bins = metrics.calibration(gold, posteriors)
    accuracy, confidence = calibration_curve(right, posteriors.max(1), n_bins=15, strategy="uniform")
    there = bins.clips > 0
    assert bins.clips.sum() == len(gold) and len(bins.clips) == 15
    assert bins.accuracy[there] == pytest.approx(accuracy) and bins.confidence[there] == pytest.approx(confidence)
    error = metrics.calibration_error(gold, posteriors)
    assert error == pytest.approx((bins.clips[there] * abs(accuracy - confidence)).sum() / len(gold))
    assert 0 <= error <= 1


def test_calibration_by_hand():
    # sure and right, sure and wrong; 0.6 and right: three clips in two bins
    posteriors = [[1, 0], [1, 0], [0.4, 0.6]]
    assert metrics.calibration_error([0, 1, 1], posteriors) == pytest.approx(2 / 3 * 0.5 + 1 / 3 * 0.4)
    assert metrics.calibration_error([0, 0], [[1, 0], [1, 0]]) == 0
    # 0.6 is the upper end of the ninth bin of (8/15, 9/15], and in it
    assert metrics.calibration([1], [[0.4, 0.6]]).clips.tolist() == [0] * 8 + [1] + [0] * 6


def test_unweighted_accuracy_of_some_classes():
    gold, predicted = [1, 1, 2, 2, 3], [1, 2, 2, 2, 1]
    assert metrics.unweighted_accuracy(gold, predicted, [1, 2]) == 0.75
    assert metrics.unweighted_accuracy(gold, predicted, [2, 7]) == 1.0, "a class that does not occur has no recall"
    assert metrics.unweighted_accuracy(gold, predicted, [7]) is None


def test_unweighted_accuracy_by_hand():
    # recalls 3/4 and 0/1
    assert metrics.unweighted_accuracy([1, 1, 1, 1, 2], [1, 1, 1, 2, 1]) == 0.375
    assert metrics.weighted_accuracy([1, 1, 1, 1, 2], [1, 1, 1, 2, 1]) == 0.6


@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 1.5, 2.5, 3.5]), st.floats(-1, 5)), min_size=2, max_size=40))
@settings(max_examples=100)
def test_scores_of_the_eis_take_clips_with_a_label(pairs):
    kept = [(g, p) for g, p in pairs if g >= 0]
    gold, predicted = zip(*pairs)
    mse, ccc = metrics.mean_squared_error(gold, predicted), metrics.concordance(gold, predicted)
    mae, pearson = metrics.mean_absolute_error(gold, predicted), metrics.correlation(gold, predicted)
    if not kept:
        assert mse is mae is pearson is ccc is None
        return
    x, y = np.array(kept).T
    assert mse == pytest.approx(np.mean((x - y) ** 2))
    assert mae == pytest.approx(mean_absolute_error(x, y))
    if len(kept) < 2 or min(x.std(), y.std()) < 1e-12:
        assert pearson is None
    elif min(x.std(), y.std()) > 1e-6:  # nearer to a constant, rounding decides
        assert pearson == pytest.approx(pearsonr(x, y).statistic, abs=1e-6)
    if len(kept) < 2 or x.std() == 0:
        assert ccc is None
    else:
        # equation 2 of Lin, by way of Pearson's correlation where both vary
        covariance = np.cov(x, y, bias=True)[0, 1]
        expected = 2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
        assert ccc == pytest.approx(expected, abs=1e-9)
        assert -1 - 1e-9 <= ccc <= 1 + 1e-9


def test_ccc_at_its_ends():
    assert metrics.concordance([1, 2, 3], [1, 2, 3]) == pytest.approx(1)
    assert metrics.concordance([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert metrics.concordance([1, 2, 3], [2, 2, 2]) == 0
    assert metrics.concordance([0.1] * 3, [0.1, 0.2, 0.3]) is None  # one label: nothing to follow; its mean is rounded
    assert metrics.concordance([1.0], [1.0]) is None


def test_pearson_at_its_ends():
    assert metrics.correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1), "of any scale, which CCC is not"
    assert metrics.correlation([1, 2, 3, -1], [3, 2, 1, 9]) == pytest.approx(-1)
    assert metrics.correlation([1, 2, 3], [2, 2, 2]) is None and metrics.correlation([2, 2], [1, 3]) is None


def distance(reference, hypothesis):
    """Levenshtein's table, cell by cell."""
    table = np.zeros((len(reference) + 1, len(hypothesis) + 1), dtype=int)
    table[:, 0], table[0, :] = range(len(reference) + 1), range(len(hypothesis) + 1)
    for i, r in enumerate(reference, 1):
        for j, h in enumerate(hypothesis, 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (r != h))
    return table[-1, -1]


@given(st.lists(st.tuples(PHONES, PHONES), max_size=6))
@settings(max_examples=100)
def test_per_is_all_errors_over_all_phones(pairs):
    errors = [distance(r, h) for r, h in pairs]
    assert [metrics.phone_errors(r, h) for r, h in pairs] == errors
    total = sum(len(r) for r, _ in pairs)
    expected = sum(errors) / total if total else None
    assert metrics.phone_error_rate([r for r, _ in pairs], [h for _, h in pairs]) == expected


@given(st.lists(PHONES, min_size=1, max_size=5))
@settings(max_examples=50)
def test_the_best_constant_is_no_worse_than_silence_and_is_reached(references):
    best = metrics.phone_error_rate(references, [metrics.greedy_constant(references)] * len(references))
    if not any(references):
        assert best is None
        return
    assert best <= 1
    # no phone more makes it better
    constant = metrics.greedy_constant(references)
    for phone in {phone for reference in references for phone in reference}:
        longer = metrics.phone_error_rate(references, [constant + [phone]] * len(references))
        assert longer >= best
    if len(set(map(tuple, references))) == 1:
        assert constant == references[0]


def test_nothing_to_score():
    assert metrics.weighted_accuracy([], []) is None and metrics.unweighted_accuracy([], []) is None
    assert metrics.macro_f1([], [], 9) is None and metrics.calibration_error([], []) is None
    assert metrics.phone_error_rate([[]], [[1]]) is None
    assert metrics.esc_and_eis_scores([1], [1], [-1], [2.0]) == {"wa": 1, "ua": 1, "eis_mse": None, "eis_ccc": None}


def test_accuracy_by_coverage_by_hand():
    posteriors = [[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]  # the most confident are right, right, wrong, right
    curve = metrics.accuracy_by_coverage([0, 0, 1, 0], posteriors)
    assert curve.share.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.accuracy.tolist() == pytest.approx([1, 1, 2 / 3, 3 / 4])
    # of two equal posteriors, one right and one wrong, each counts a half
    assert metrics.accuracy_by_coverage([0, 1], [[0.9, 0.1], [0.9, 0.1]]).accuracy.tolist() == [0.5, 0.5]
