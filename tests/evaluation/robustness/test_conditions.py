"""Scores under other conditions: written a fold at a time, read as rows, shown in tables and curves."""

import json
import shutil
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import style
from report_data import (
    FACTS,
    SPEAKERS,
    add,
    assert_no_labels_overlap,
    in_noise,
    make,
    predictions,
    shares,
    summarised,
    table,
)
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from speecheq.common.stages import Stage
from speecheq.evaluation.robustness import conditions
from speecheq.evaluation.robustness.conditions import (
    ATTACK_ON_WAVEFORM,
    CLEAN,
    NOISE,
    OTHER_CORPORA,
    Condition,
    ConditionResult,
)
from speecheq.reporting import figure_style, figures, plots, report
from speecheq.reporting.recipe_status import DONE, STALE, Status
from speecheq.seqm import SEQM_CLASSES
from speecheq.training import train


@pytest.fixture
def experiment(tmp_path):
    made = make(tmp_path / "exp", speakers=SPEAKERS)
    for folder in made.glob("fold*/seed*"):
        add(folder)
    return made


def test_rows_are_pooled_over_folds_with_intervals(experiment):
    rows, left_out = conditions.read(experiment)
    assert not left_out and [row.condition for row in rows] == list(shares())
    for row in rows:
        clips = [clip for fold in (1, 2) for clip in predictions(fold, 1, shares()[row.condition], SPEAKERS)]
        gold, predicted = [clip.gold_esc for clip in clips], [clip.predicted_esc for clip in clips]
        assert row.metrics["wa"] == pytest.approx(accuracy_score(gold, predicted))
        assert row.metrics["ua"] == pytest.approx(balanced_accuracy_score(gold, predicted))
        assert row.metrics["low_ua"] <= row.metrics["ua"] <= row.metrics["high_ua"]
        assert (row.metrics["clips"], row.metrics["folds"], row.metrics["seeds"]) == (48, [1, 2], [1])
        assert row.facts["notes"] == FACTS["notes"] and len(row.facts["git"]) == 1


def test_a_seed_is_averaged_not_pooled(tmp_path):
    made = make(tmp_path / "exp", folds=(1,), seeds=(1, 2), speakers=SPEAKERS)
    each = [add(folder)[0].metrics["ua"] for folder in sorted(made.glob("fold1/seed*"))]
    rows, _ = conditions.read(made)
    assert rows[0].metrics["ua"] == pytest.approx(sum(each) / 2) and rows[0].metrics["clips"] == 24


def test_one_speaker_has_no_interval(tmp_path):
    made = make(tmp_path / "exp", folds=(1,), speakers=1)
    stage = Stage("score", "t", made / "fold1/seed1" / NOISE.folder, {}, [], NOISE.format)
    (row,) = conditions.write(stage, NOISE, 1, 1, FACTS, {CLEAN: predictions(1, 1, 0.5, 1)}, SEQM_CLASSES)
    assert row.metrics["low_ua"] is None and row.metrics["speakers"] == 1


def spoil_facts(folder):
    add(folder, facts={**FACTS, "seed": 1})


def test_folds_are_read_together_whatever_an_earlier_version_said(experiment):
    add(experiment / "fold2/seed1", facts={**FACTS, "notes": ["made by the tests, with names"]})
    rows, left_out = conditions.read(experiment)
    assert not left_out and all(row.metrics["folds"] == [1, 2] for row in rows)
    for fold, note in ((1, "among joy and anger"), (2, "among joy and fear")):
        add(experiment / f"fold{fold}/seed1", OTHER_CORPORA, facts={**FACTS, "notes": [note]})
    rows, left_out = conditions.read(experiment)
    assert len(left_out) == 1 and "fold2/seed1/scored_other_corpora: was made with other options" in left_out[0]


def spoil_conditions(folder):
    add(folder, correct={CLEAN: 0.8})


def spoil_stamp(folder):
    path = folder / NOISE.folder / "stage.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))


def spoil_scores(folder):
    path = folder / NOISE.folder / "scores.tsv"
    path.write_text(path.read_text()[:-20])


def spoil_place(folder):
    shutil.rmtree(folder / NOISE.folder)
    shutil.copytree(folder.parents[1] / "fold1/seed1" / NOISE.folder, folder / NOISE.folder)


@pytest.mark.parametrize(
    "spoil, words",
    [
        (spoil_facts, "was made with other options than that of fold 1"),
        (spoil_conditions, "was made with other options than that of fold 1"),
        (spoil_stamp, "was made by another version of the program"),
        (spoil_scores, "is missing or has changed since stage 5 (score)"),
        (spoil_place, "holds the scores of fold1/seed1"),
    ],
)
def test_a_fold_that_does_not_fit_is_left_out_with_its_reason(experiment, spoil, words):
    spoil(experiment / "fold2/seed1")
    rows, left_out = conditions.read(experiment)
    assert {tuple(row.metrics["folds"]) for row in rows} == {(1,)}
    assert len(left_out) == 1 and words in left_out[0] and "fold2/seed1" in left_out[0]


def row_of(curve, level, ua):
    return ConditionResult(
        ATTACK_ON_WAVEFORM, Condition(f"{curve} at {level:g} dB", curve, level), {"ua": ua}, {}, None
    )


@given(
    st.sampled_from(["AutoPGD", "AutoPGD+DLR"]),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=5),
)
def test_a_stronger_attack_that_does_less_is_said(stronger, both):
    rows = [
        row
        for level, (weak, strong) in enumerate(both)
        for row in (row_of("FGSM", float(level), weak), row_of(stronger, float(level), strong))
    ]
    found = conditions.masked_gradient_warnings(rows)
    assert len(found) == sum(strong > weak for weak, strong in both)
    assert all("the gradient may be masked" in sentence for sentence in found)


def test_clips_without_a_gradient_are_summed_over_folds_and_said(experiment):
    for number, fold in enumerate((1, 2)):
        add(
            experiment / f"fold{fold}/seed1",
            ATTACK_ON_WAVEFORM,
            facts={**FACTS, "gradients": {"attacked": 10, "without": number}},
        )
    rows, left_out = conditions.read(experiment)
    attacked = [row for row in rows if row.setting == ATTACK_ON_WAVEFORM]
    assert not left_out and all(row.metrics["folds"] == [1, 2] for row in rows)
    assert all(row.facts["gradients"] == {"attacked": 20, "without": 1} for row in attacked)
    (sentence,) = conditions.masked_gradient_warnings(rows)
    assert "of 20 clips that are classified correctly, 1 have a gradient" in sentence
    add(experiment / "fold2/seed1", ATTACK_ON_WAVEFORM)  # as before they were counted
    rows, left_out = conditions.read(experiment)
    assert not left_out and rows[-1].facts["gradients"] == {"attacked": 10, "without": 0}
    assert not conditions.masked_gradient_warnings(rows)


def test_pages_tables_and_the_report_show_the_rows(experiment, tmp_path, no_pictures):
    other = make(tmp_path / "exp", system="wo_mtl", right=0.6, speakers=SPEAKERS)
    for folder in other.glob("fold*/seed*"):
        add(folder, correct=shares(0.6))
    text = report.report(tmp_path / "exp", "Toys", tmp_path / "RESULTS.md")
    found = table(tmp_path / "exp", "toy.random10.test.noise")
    rows, _ = conditions.read(other)
    scores = {row.condition: f"{100 * row.metrics['ua']:.2f}" for row in rows}
    assert [(line["system"], line["curve"]) for line in found] == [("speecheq", "noise"), ("wo_mtl", "noise")]
    assert [found[1][f"{name} UA %"] for name in ("clean", "20 dB", "0 dB", "reverberation")] == [
        scores[condition] for condition in shares()
    ]
    assert "## toy, random10: noisy speech" in text and "made by the tests" in text
    page = (other / "RESULTS.md").read_text()
    assert "## Noisy speech" in page and all(f"| {condition.name} | {ua} |" in page for condition, ua in scores.items())
    assert "noise at 20 dB" in (other / "report.html").read_text()
    kept = json.loads((other / "conditions.json").read_text())
    assert [row["metrics"]["ua"] for row in kept] == [row.metrics["ua"] for row in rows]
    assert all(row["setting"] == "noise" and row["facts"]["git"] for row in kept)
    both = (tmp_path / "exp/pictures/toy.random10.noise.svg").read_text()
    assert "small-wo_mtl" in both and "small-speecheq" in both
    assert "Noisy speech: toy, random10" in (tmp_path / "exp/report.html").read_text()


def test_what_is_left_out_stands_on_the_page(experiment, tmp_path, no_pictures):
    spoil_scores(experiment / "fold2/seed1")
    assert "scores.tsv: is missing or has changed since stage 5" in report.report(
        tmp_path / "exp", "Toys", tmp_path / "RESULTS.md"
    )


def test_the_curve_has_a_point_a_level_and_a_line_for_what_has_none(experiment):
    rows, _ = conditions.read(experiment)
    (axes,) = plots.conditions_figure(NOISE, {"": conditions.by_curve(rows)}).axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {"clean", "noise", "reverberation"}
    scores = {row.condition: row.metrics["ua"] for row in rows}
    assert lines["noise"].get_xdata().tolist() == [0, 20]
    assert lines["noise"].get_ydata().tolist() == [scores[in_noise(0)], scores[in_noise(20)]]
    assert set(lines["clean"].get_ydata()) == {scores[CLEAN]}


@pytest.mark.parametrize("curves", [1, 3, 4])
def test_systems_look_the_same_in_all_panels_and_no_words_overlap(curves, monkeypatch):
    systems = [f"small_best (data.input=waveform, augment.x=0)-wo_mtl_wo_msud_{number}" for number in range(6)]
    metrics = {"ua": 0.5, "low_ua": 0.4, "high_ua": 0.6}
    clean = ConditionResult(ATTACK_ON_WAVEFORM, CLEAN, metrics, {}, None)
    panels = {
        f"curve {number}": {
            name: [
                clean,
                *(replace(row_of("c", level, 0.1 * level / -10), metrics=metrics) for level in (-80.0, -40.0)),
            ]
            for name in systems[number:]
        }
        for number in range(curves)
    }
    with style.context(["default", figure_style.STYLE]):
        figure = plots.conditions_figure(ATTACK_ON_WAVEFORM, panels)
        assert_no_labels_overlap(figure, monkeypatch)
    colours = [
        {line.get_label(): line.get_color() for line in axes.get_lines() if line.get_label()[0] != "_"}
        for axes in figure.axes[:curves]
    ]
    assert all(len(panel) == 6 - number for number, panel in enumerate(colours))
    assert all(panel[label] == colours[0][label] for panel in colours for label in panel)


def test_the_picture_is_among_the_experiments(experiment):
    rows, _ = conditions.read(experiment)
    made = {
        picture.name: picture for picture in figures.draw_pictures(replace(summarised(experiment), conditions=rows))
    }
    ElementTree.fromstring(made["noise"].svg)
    assert "SNR, dB" in made["noise"].svg and "Made by the tests." in made["noise"].caption


def test_status_knows_the_folders(experiment, tmp_path):
    stamp = experiment / "fold1/seed1" / "stage.json"
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "format": train.FORMAT}))
    status = Status(tmp_path / "data", tmp_path / "exp")
    assert status.read("score", experiment / "fold1/seed1" / NOISE.folder).state == DONE
    spoil_stamp(experiment / "fold2/seed1")
    assert status.read("score", experiment / "fold2/seed1" / NOISE.folder).state == STALE
