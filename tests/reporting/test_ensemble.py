"""Ensembles of seeds: the mean of their predictions, scored in rows of their own."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from report_data import make, predictions, rewrite, summarised, table

from speecheq.evaluation.score_files import read_metrics
from speecheq.reporting import report
from speecheq.reporting.ensemble import ensembles


def change(experiment, fold, seed, changed):
    """Write the score files of a fold anew, its predictions changed by ``changed``."""
    folder = experiment / f"fold{fold}/seed{seed}"
    made = [changed(clip) for clip in predictions(fold, seed, 0.8, 8)]
    return rewrite(folder, made, **read_metrics(folder)["run"])


def test_an_ensemble_averages_posteriors_and_eis(tmp_path):
    experiment = make(tmp_path, seeds=(1, 2, 3))
    for seed, order in ((1, 1), (2, -1), (3, 1)):  # clips are matched by name, not by line
        folder = experiment / f"fold1/seed{seed}"
        made = [replace(clip, predicted_eis=0.5 * seed) for clip in predictions(1, seed, 0.8, 8)]
        rewrite(folder, made[::order], **read_metrics(folder)["run"])
    (found,) = ensembles([summarised(experiment)])
    each = [{clip.id: clip for clip in predictions(1, seed, 0.8, 8)} for seed in (1, 2, 3)]
    assert [fold.run["fold"] for fold in found.scored] == [1, 2]
    for clip in found.scored[0].sets["test"]:
        expected = np.mean([answers[clip.id].posterior for answers in each], axis=0)
        assert clip.posterior == pytest.approx(expected, abs=1e-6) and clip.predicted_eis == pytest.approx(1.0)
    right = [clip.predicted_esc == clip.gold_esc for fold in found.scored for clip in fold.sets["test"]]
    assert found.summary["pooled.test.wa"] == pytest.approx(np.mean(right))
    assert found.summary["pooled.test.wa"] > summarised(experiment).summary["pooled.test.wa"], "two of three are right"
    assert found.summary["std_of_seeds.test.ua"] is None and found.summary["test.per"] is None


def test_the_gender_is_that_of_most_and_of_the_first_in_a_tie(tmp_path):
    experiment = make(tmp_path, folds=(1,), seeds=(1, 2, 3))
    for seed, gender in ((1, "F"), (2, "M"), (3, "M")):
        change(experiment, 1, seed, lambda clip: replace(clip, predicted_gender=gender))
    (found,) = ensembles([summarised(experiment)])
    assert {clip.predicted_gender for clip in found.test_clips} == {"M"}
    shutil.rmtree(experiment / "fold1/seed3")
    (found,) = ensembles([summarised(experiment)])
    assert {clip.predicted_gender for clip in found.test_clips} == {"F"}


def test_it_is_over_the_folds_that_every_seed_has(tmp_path):
    experiment = make(tmp_path, seeds=(1, 2))
    shutil.rmtree(experiment / "fold2/seed2")
    (found,) = ensembles([summarised(experiment)])
    assert found.run["folds"] == [1] and found.run["seeds"] == [1, 2]
    shutil.rmtree(experiment / "fold1/seed1")
    assert ensembles([summarised(experiment)]) == [], "no fold has both"


def test_one_seed_makes_no_ensemble(tmp_path):
    assert ensembles([summarised(make(tmp_path))]) == []


def test_its_size_and_time_are_those_of_all_its_models(tmp_path):
    (found,) = ensembles([summarised(make(tmp_path, seeds=(1, 2, 3), parameters=100))])
    run = found.run
    assert (run["parameters"], run["train_seconds"] / run["trainings"]) == (300, 3.0)


def test_it_names_the_revisions_of_all_its_models(tmp_path):
    experiment = make(tmp_path, seeds=(1, 2))
    rewrite(experiment / "fold1/seed2", trained_at_git="def")  # made before scores had a number of parameters
    (found,) = ensembles([summarised(experiment)])
    assert found.run["trained_at_git"] == ["abc", "def"] and found.run["parameters"] is None


def test_the_page_has_a_row_of_it_and_no_test(tmp_path, no_pictures):
    make(tmp_path, seeds=(1, 2))
    make(tmp_path, "wo_mtl", 0.3, seeds=(1, 2), set=[])
    page = report.report(tmp_path, "a test", tmp_path / "R.md")
    rows = {row["system"]: row for row in table(tmp_path, "toy.random10.test.categories")}
    assert list(rows) == ["speecheq", "speecheq_ensemble", "wo_mtl", "wo_mtl_ensemble"]
    assert {row["seeds"] for row in rows.values()} == {"1 2"}
    differences = table(tmp_path, "toy.random10.test.differences")
    assert [(row["first"], row["second"]) for row in differences] == [("small-speecheq", "small-wo_mtl")]
    assert page.count("an ensemble: the posteriors and EIS of the 2 trainings of a fold are averaged") == 2
