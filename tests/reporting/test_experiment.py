"""Summaries of experiments from score files alone, and score files that are damaged or mixed."""

import json
import re
import shutil

import numpy as np
import pytest
from report_data import make, predictions, rewrite, summarised

from speecheq.common.errors import InputError
from speecheq.common.files import write_json
from speecheq.common.stages import STAMP
from speecheq.evaluation import score_files
from speecheq.reporting.experiment import scored_folders
from speecheq.reporting.report_text import experiment_facts
from speecheq.seqm import SEQM_CLASSES


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


def test_folds_that_test_one_class_are_named(tmp_path):
    experiment = make(tmp_path)
    assert summarised(experiment).summary["run"]["one_class_folds"] == []
    run = json.loads((experiment / "fold2/seed1/metrics.json").read_text())["run"]
    alike = [clip for clip in predictions(2, 1, 0.8, 8) if SEQM_CLASSES.names[clip.gold_esc] == "joy"]
    rewrite(experiment / "fold2/seed1", alike, **run)
    summary = summarised(experiment).summary
    assert summary["run"]["one_class_folds"] == [2]
    assert any("UA and WA say little: 2" in fact for fact in experiment_facts(summary))


def test_what_features_are_of_is_said_and_score_files_of_before_do_not_know(tmp_path):
    whole = "features are of whole clips, with the silence around the speech"
    experiment = make(tmp_path, speech_activity="none")
    assert whole in experiment_facts(summarised(experiment).summary)
    metrics = json.loads((experiment / "fold1/seed1/metrics.json").read_text())
    del metrics["run"]["speech_activity"]  # scored before
    (experiment / "fold1/seed1/metrics.json").write_text(json.dumps(metrics))
    assert whole in experiment_facts(summarised(experiment).summary)
    facts = experiment_facts(summarised(make(tmp_path, "wo_mtl")).summary)
    assert not any(fact.startswith("features are of") for fact in facts)
