"""Pages and tables of a recipe from score files alone: made here, without any training."""

import json

import pytest
from report_data import make, rewrite, table

from speecheq.common.errors import InputError
from speecheq.common.files import write_json
from speecheq.common.stages import STAMP
from speecheq.evaluation import score
from speecheq.reporting import report

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_what_is_not_whole_is_left_out_and_named_on_the_page(tmp_path, caplog):
    experiment = make(tmp_path)
    whole = (experiment / "fold2/seed1/scores.tsv").read_bytes()
    (experiment / "fold2/seed1/scores.tsv").write_bytes(whole[:900])
    page = report.report(tmp_path, "a test", tmp_path / "R.md")
    assert "fold2/seed1/scores.tsv: is missing or has changed since stage 5 (score)" in page.split("## Left out")[1]
    assert "scores.tsv: is missing or has changed" in caplog.text and "| speecheq | small | 1 of 2 |" in page


def test_scores_of_another_version_are_left_out(tmp_path):
    experiment = make(tmp_path)
    for stamp in experiment.glob(f"*/*/{score.STAMP_FOLDER}/{STAMP}"):
        write_json(stamp, {**json.loads(stamp.read_text()), "format": score.FORMAT - 1})
    with pytest.raises(InputError, match="scored by another version of the program; run stage 5"):
        report.report(tmp_path, "a test", tmp_path / "R.md")


def test_mixed_revisions_are_said(tmp_path):
    experiment = make(tmp_path)
    make(tmp_path, system="wo_mtl", trained_at_git="xyz")
    rewrite(experiment / "fold2/seed1", trained_at_git="def")
    page = report.report(tmp_path, "a test", tmp_path / "R.md")
    assert page.count("were trained with different revisions of the code, which its means mix") == 1
    assert "these systems were trained with different revisions of the code" in page and "abc, def" in page


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
