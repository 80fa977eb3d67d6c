"""Which systems are compared, and which differences are significant."""

import json

import pytest
from report_data import make, predictions, rewrite, summarised

from speecheq.evaluation import significance
from speecheq.reporting.comparison import FEWEST_SPEAKERS, Pair, compare, why_not_comparable


def test_identical_systems_do_not_differ(tmp_path):
    compared = compare([summarised(make(tmp_path, system=name)) for name in ("a", "b", "c")])
    pairs = compared.pairs
    assert len(pairs) == 3 and not compared.not_comparable
    assert {pair.verdict for pair in pairs} == {"not significant"}
    assert {(pair.mcnemar, pair.bootstrap) for pair in pairs} == {(1.0, 1.0)}


@pytest.mark.parametrize(
    "speakers, verdict",
    [
        (8, "significant"),
        (1, "significant for the clips of this one speaker only, too few"),
        (FEWEST_SPEAKERS - 1, "significant for the clips of these 5 speakers only, too few speakers"),
    ],
)
def test_a_clear_difference(tmp_path, speakers, verdict):
    good, bad = (
        summarised(make(tmp_path, system=name, right=right, speakers=speakers))
        for name, right in (("good", 1.0), ("bad", 0.2))
    )
    (pair,) = compare([bad, good]).pairs
    assert pair.verdict.startswith(verdict) and pair.difference.ua < 0
    assert pair.is_significant == (speakers >= FEWEST_SPEAKERS)


@pytest.mark.parametrize(
    "ua, first_only, mcnemar, bootstrap, verdict",
    [
        (0.1, 20, 0.01, 0.01, "significant"),
        (0.1, 20, 0.05, 0.01, "not significant"),
        (0.1, 20, 0.01, 0.05, "not significant"),
        # more clips right, but of classes that UA gives less weight: the two tests favour one system each
        (-0.1, 20, 0.01, 0.01, "not significant"),
    ],
)
def test_a_difference_is_significant_if_both_tests_say_so(ua, first_only, mcnemar, bootstrap, verdict):
    of = significance.Difference(ua, ua - 0.05, ua + 0.05, first_only, 5, 0.001, 0.001, FEWEST_SPEAKERS)
    assert Pair(None, None, of, mcnemar, bootstrap).verdict == verdict


def test_p_values_are_corrected_over_the_pairs_of_the_table(tmp_path):
    systems = [
        summarised(make(tmp_path, system=name, right=right)) for name, right in (("a", 0.9), ("b", 0.6), ("c", 0.5))
    ]
    pairs = compare(systems).pairs
    alone = [significance.difference(pair.first.predictions, pair.second.predictions) for pair in pairs]
    assert [pair.mcnemar for pair in pairs] == significance.holm([of.mcnemar for of in alone])
    assert [pair.bootstrap for pair in pairs] == significance.holm([of.bootstrap for of in alone])


def test_only_pairs_that_are_one_thing_apart_are_tested(tmp_path):
    a, b, a_long = (
        summarised(make(tmp_path / name, system=system, set=assignments))
        for name, system, assignments in (("1", "a", []), ("2", "b", []), ("3", "a", ["optim.epochs=9"]))
    )
    compared = compare([a, b, a_long])
    assert [(pair.first, pair.second) for pair in compared.pairs] == [(a, b), (a, a_long)]
    assert not compared.not_comparable
    not_tested = "pairs that differ in more than one of system, configuration and data are not tested"
    assert "over the 2 pairs of this table" in compared.section().sentences[0]
    assert not_tested in compared.section().sentences and len(compared.section().tables[0].rows) == 2
    assert not_tested not in compare([a, b]).section().sentences
    # the part of one system: both pairs are a's, one is b's
    assert not_tested not in compared.section(a).sentences and not_tested in compared.section(b).sentences
    assert "over the 2 pairs of all systems" in compared.section(b).sentences[0]
    other_data = summarised(make(tmp_path / "4", system="a", set=["optim.epochs=9"], corpora=["toy", "more"]))
    neither = compare([a, other_data])
    assert not neither.pairs and not neither.not_comparable and len(compare([a_long, other_data]).pairs) == 1
    assert len(compared.section(a).tables[0].rows) == 2 and len(compared.section(b).tables[0].rows) == 1


@pytest.mark.parametrize(
    "changes, reason",
    [
        (dict(folds=(1,)), "different folds (1 2 vs. 1)"),
        (dict(seeds=(1, 2)), "different seeds (1 vs. 1 2)"),
        (dict(protocol="speaker"), "different protocol (random10 vs. speaker)"),
        (dict(target="b"), "different target (toy vs. b)"),
        (dict(speakers=3), "labels or speakers of the same clips differ (toy-1-"),
    ],
)
def test_what_is_not_comparable_is_said_with_its_reason(tmp_path, changes, reason):
    first, second = summarised(make(tmp_path)), summarised(make(tmp_path, system="b", **changes))
    assert reason in why_not_comparable(first, second)
    assert compare([first, second]).pairs == [] and why_not_comparable(first, first) is None


def test_other_test_clips_are_not_comparable(tmp_path):
    first, experiment = summarised(make(tmp_path)), make(tmp_path, system="b")
    clips = predictions(2, 1, 0.5, 8)
    for clip in clips:
        clip.id = "x" + clip.id
    run = json.loads((experiment / "fold2/seed1/metrics.json").read_text())["run"]
    rewrite(experiment / "fold2/seed1", clips, **run)
    assert why_not_comparable(first, summarised(experiment)) == "the folds hold different test clips"


def test_the_probe_is_compared_with_every_seed_of_every_trained_system(tmp_path):
    probe = summarised(make(tmp_path, system="probe", right=0.4, probe={"kernel": "rbf", "layers": []}))
    one, other = (
        summarised(
            make(tmp_path, system=name, right=0.9, seeds=(1, 2), set=[f"optim.epochs={epochs}"], corpora=corpora)
        )
        for name, epochs, corpora in (("a", 1, ["toy"]), ("b", 2, ["toy", "more"]))
    )
    pairs = compare([one, probe, other]).pairs
    assert [(pair.first, pair.second) for pair in pairs] == [(one, probe), (probe, other)]
    ua = [one.summary["pooled.test.ua"], probe.summary["pooled.test.ua"]]
    assert pairs[0].difference.ua == pytest.approx(ua[0] - ua[1]) and pairs[0].is_significant
    assert pairs[0].difference.low > 0 > pairs[1].difference.high
