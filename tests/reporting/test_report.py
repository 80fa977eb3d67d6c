"""Summaries, comparisons and pages from score files alone: made here, without any training."""

import json
import re
import shutil

import numpy as np
import pytest
from report_data import make, predictions, rewrite, summarised, table

from speecheq.common.errors import InputError
from speecheq.common.files import write_json
from speecheq.common.stages import STAMP
from speecheq.evaluation import score, score_files, significance
from speecheq.reporting import report
from speecheq.reporting.comparison import FEWEST_SPEAKERS, Pair, compare, why_not_comparable
from speecheq.reporting.experiment import scored_folders

pytestmark = pytest.mark.usefixtures("no_pictures")


# ---- an experiment


def test_means_deviations_and_pooled_scores(tmp_path):
    experiment = make(tmp_path, seeds=(1, 2, 3))
    summary = summarised(experiment).summary
    ua = np.array(
        [
            [
                json.loads((experiment / f"fold{fold}/seed{seed}/metrics.json").read_text())["test.ua"]
                for seed in (1, 2, 3)
            ]
            for fold in (1, 2)
        ]
    )
    assert summary["test.ua"] == pytest.approx(ua.mean())
    assert summary["std.test.ua"] == pytest.approx(ua.std(ddof=1))
    assert summary["std_of_folds.test.ua"] == pytest.approx(ua.mean(1).std(ddof=1))
    assert summary["std_of_seeds.test.ua"] == pytest.approx(ua.mean(0).std(ddof=1))
    # as many clips of each class in both folds: pooled over them is the mean
    assert summary["pooled.test.ua"] == pytest.approx(ua.mean())
    assert summary["low.pooled.test.ua"] < summary["pooled.test.ua"] < summary["high.pooled.test.ua"]
    assert summary["run"]["test_speakers"] == 8 and summary["run"]["seeds"] == [1, 2, 3]


def test_pooled_scores_are_taken_over_all_clips_together(tmp_path):
    """Two folds of unequal size: the mean of folds and the pooled score differ."""
    experiment = make(tmp_path, right=1.0)
    run = json.loads((experiment / "fold2/seed1/metrics.json").read_text())["run"]
    rewrite(experiment / "fold2/seed1", predictions(2, 1, 0.0, 8, clips=6), **run)
    summary = summarised(experiment).summary
    assert summary["test.wa"] == 0.5 and summary["pooled.test.wa"] == pytest.approx(24 / 30)
    merged = score_files.read_scores(experiment / "scores.tsv")
    assert {name: len(clips) for name, clips in merged.items()} == {"test/fold1/seed1": 24, "test/fold2/seed1": 6}


def test_deviations_are_over_the_folds_that_every_seed_has(tmp_path):
    experiment = make(tmp_path, seeds=(1, 2))
    shutil.rmtree(experiment / "fold2/seed2")
    summary = summarised(experiment).summary
    ua = [json.loads((experiment / f"fold1/seed{seed}/metrics.json").read_text())["test.ua"] for seed in (1, 2)]
    assert summary["std_of_folds.test.ua"] is None
    assert summary["std_of_seeds.test.ua"] == pytest.approx(np.std(ua, ddof=1))


def test_intensities_that_no_fold_learned_are_not_scored_over_all_folds_either(tmp_path):
    experiment = make(tmp_path)
    assert summarised(experiment).summary["pooled.test.eis_mse"] is not None
    for folder in experiment.glob("fold*/seed*"):
        metrics = json.loads((folder / "metrics.json").read_text())
        write_json(
            folder / "metrics.json",
            {name: None if name.startswith("test.eis") else value for name, value in metrics.items()},
        )
        rewrite(folder)
    assert summarised(experiment).summary["pooled.test.eis_mse"] is None


def test_restricted_scores_are_of_the_corpus_own_classes(tmp_path):
    """Every wrong answer is a class that the corpus lacks."""
    summary = summarised(make(tmp_path, right=0.5)).summary
    assert summary["test.ua"] < 0.8 and summary["test.restricted_ua"] == 1.0
    page = (tmp_path / "small-speecheq/toy.random10/metrics.json").read_text()
    assert "test.recall.joy" in page and "test.precision.trust" in page
    assert summary["test.recall.trust"] is None and summary["test.precision.trust"] == 0
    assert summary["test.eis_mae"] > 0 and -1 <= summary["test.eis_pearson"] <= 1 and 0 < summary["test.ece"] < 1


# ---- score files that are damaged or mixed


@pytest.mark.parametrize(
    "damage, sentence",
    [
        (lambda text: text[:-1], "is cut off, its last line does not end"),
        (lambda text: text[: text.rindex("\ttoy\t")] + "\n", "line 25: is damaged"),
        (lambda text: text[: text.rindex("\ntest") + 1], "has 23 clips of the set test, but metrics.json beside it c"),
        (lambda text: text.replace("\t0.010101", "\tx"), "line 2: is damaged (could not convert string to float"),
        (lambda text: text.replace("\t0.010101", "\tnan"), "line 2: is damaged (a number is not finite)"),
        (lambda text: text.replace("\tneutral\t", "\tnoise\t", 1), "line 2: is damaged"),
        (lambda text: text.replace("predicted_esc", "answer"), "is no table of scores"),
        (lambda text: "", "is cut off"),
        (lambda text: re.sub(r"(toy\ts\d+\t\w+)\t\w+\t", r"\1\tfear\t", text), "fear is not its most probable class"),
    ],
)
def test_damaged_scores_are_one_sentence(tmp_path, damage, sentence):
    folder = make(tmp_path) / "fold1/seed1"
    text = (folder / "scores.tsv").read_text()
    assert damage(text) != text
    (folder / "scores.tsv").write_text(damage(text))
    rewrite(folder)  # of the same size as the stamp says
    with pytest.raises(InputError) as refused:
        summarised(folder.parent.parent)
    assert sentence in str(refused.value) and str(folder / "scores.tsv") in str(refused.value)
    assert "run stage 5 (score) again" in str(refused.value) and "\n" not in str(refused.value)


def test_what_is_not_whole_is_left_out_and_named_on_the_page(tmp_path, caplog):
    experiment = make(tmp_path)
    whole = (experiment / "fold2/seed1/scores.tsv").read_bytes()
    (experiment / "fold2/seed1/scores.tsv").write_bytes(whole[:900])
    page = report.report(tmp_path, "a test", tmp_path / "R.md")
    assert "fold2/seed1/scores.tsv: is not as stage 5 (score) left it" in page.split("## Left out")[1]
    assert "scores.tsv: is not as" in caplog.text and "| speecheq | small | 1 of 2 |" in page


def test_scores_of_another_version_are_left_out(tmp_path):
    experiment = make(tmp_path)
    for stamp in experiment.glob(f"*/*/{score.STAMP_FOLDER}/{STAMP}"):
        write_json(stamp, {**json.loads(stamp.read_text()), "format": score.FORMAT - 1})
    with pytest.raises(InputError, match="scored by another version of the program; run stage 5"):
        report.report(tmp_path, "a test", tmp_path / "R.md")


def test_a_training_without_its_stamp_is_left_out(tmp_path):
    experiment = make(tmp_path)
    (experiment / "fold1/seed1" / STAMP).unlink()
    folders, reasons = scored_folders(experiment)
    assert [folder.parent.name for folder in folders] == ["fold2"] and "stage 4 (train) has not been run" in reasons[0]


def test_a_fold_in_the_place_of_another(tmp_path):
    experiment = make(tmp_path)
    for name in ("scores.tsv", "metrics.json"):
        shutil.copy(experiment / "fold1/seed1" / name, experiment / "fold2/seed1")
    rewrite(experiment / "fold2/seed1")
    with pytest.raises(InputError, match="holds the scores of fold1/seed1, but lies in fold2/seed1"):
        summarised(experiment)
    rewrite(experiment / "fold2/seed1", fold=2)
    with pytest.raises(InputError, match="clip toy-1-00 is also one of .*fold1/seed1, so the score files of different"):
        summarised(experiment)


@pytest.mark.parametrize(
    "changes, named",
    [({"partition": "q"}, "partition"), ({"system": "wo_mtl"}, "system"), ({"corpora": ["toy", "b"]}, "corpora")],
)
def test_folds_of_other_data_are_not_averaged(tmp_path, changes, named):
    experiment = make(tmp_path)
    rewrite(experiment / "fold2/seed1", **changes)
    with pytest.raises(InputError, match=f"differ in {named}, so no mean"):
        summarised(experiment)


def test_mixed_revisions_are_said(tmp_path):
    experiment = make(tmp_path)
    make(tmp_path, system="wo_mtl", trained_at_git="xyz")
    rewrite(experiment / "fold2/seed1", trained_at_git="def")
    page = report.report(tmp_path, "a test", tmp_path / "R.md")
    assert page.count("were trained with different revisions of the code, which its means mix") == 1
    assert "these systems were trained with different revisions of the code" in page and "abc, def" in page


# ---- comparisons


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


# ---- the page and the tables


def test_the_page_says_in_words_what_is_significant(tmp_path):
    make(tmp_path, right=1.0)
    make(tmp_path, system="wo_mtl", right=0.2)
    make(tmp_path, system="wo_msud", folds=(1,))
    page = report.report(tmp_path, "a test", tmp_path / "R.md")
    line = next(line for line in page.splitlines() if line.startswith("- small-speecheq has a UA"))
    assert "points higher than small-wo_mtl (McNemar p <0.001, bootstrap p 0.010): significant" in line
    assert "small-speecheq and small-wo_msud are not comparable: different folds (1 2 vs. 1)" in page
    assert "corrected (Holm) over the 1 pair of this table" in page
    assert "95 % interval" in page and "over 8 test speakers (coarse)" in page
    assert "restricted scores are over neutral, joy, anger" in page


def test_one_test_speaker_is_said(tmp_path):
    experiment = make(tmp_path, speakers=1)
    page = report.report(tmp_path, "a test", tmp_path / "R.md")
    assert "all test clips are from one speaker: no interval" in page
    assert json.loads((experiment / "metrics.json").read_text())["low.pooled.test.ua"] is None
    assert table(tmp_path, "toy.random10.test.uncertainty")[0]["pooled UA % low"] == "n/a"


def test_tables_hold_the_figures_of_the_page(tmp_path):
    experiment = make(tmp_path, right=0.9, seeds=(1, 2))
    make(tmp_path, system="wo_mtl", right=0.5, seeds=(1, 2))
    page = report.report(tmp_path, "a test", tmp_path / "R.md")
    summary = json.loads((experiment / "metrics.json").read_text())
    row = table(tmp_path, "toy.random10.test.categories")[0]
    assert row["system"] == "speecheq" and row["UA %"] == f"{100 * summary['test.ua']:.2f}"
    assert row["UA % std"] == f"{100 * summary['std.test.ua']:.2f}" and row["seeds"] == "1 2"
    assert f"{row['UA %']} ± {row['UA % std']}" in page
    row = table(tmp_path, "toy.random10.test.uncertainty")[0]
    assert row["std of UA over seeds"] == f"{100 * summary['std_of_seeds.test.ua']:.2f}"
    assert (row["pooled UA % low"], row["pooled UA % high"]) == tuple(
        f"{100 * summary[f'{end}.pooled.test.ua']:.2f}" for end in ("low", "high")
    )
    row = table(tmp_path, "toy.random10.test.classes")[0]
    assert row["joy recall %"] == f"{100 * summary['test.recall.joy']:.2f}" and "trust recall %" not in row
    assert len(table(tmp_path, "toy.random10.test.differences")) == 1
    assert {path.stem for path in (tmp_path / "tables").glob("*.tex")} == {
        f"toy.random10.test.{name}" for name in ("categories", "classes", "differences", "other_tasks", "uncertainty")
    }
    assert "## toy, random10" in page and page == (tmp_path / "R.md").read_text()
    assert "## Test clips of toy" in (experiment / "RESULTS.md").read_text()


def test_the_same_score_files_give_the_same_page(tmp_path):
    make(tmp_path, seeds=(1, 2))

    def written():
        return {path: path.read_text() for path in [*tmp_path.glob("tables/*"), *tmp_path.rglob("report.html")]}

    first = report.report(tmp_path, "a test", tmp_path / "R.md")
    pages = written()
    assert report.report(tmp_path, "a test", tmp_path / "R.md") == first
    assert written() == pages and len(pages) > 2


def test_nothing_scored_is_said(tmp_path):
    with pytest.raises(InputError, match="no experiment has been scored"):
        report.report(tmp_path, "a test", tmp_path / "RESULTS.md")
