"""The pictures of an experiment: what they show is what the score files say."""

import re
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import style
from matplotlib.collections import PathCollection
from report_data import assert_no_labels_overlap, eis_clip, make, rewrite, some_clips, summarised
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix
from torch.utils.tensorboard import SummaryWriter

from speecheq.common.errors import InputError
from speecheq.config import layers
from speecheq.evaluation import metrics, score_files
from speecheq.reporting import figure_data, figure_style, figures, plots, report
from speecheq.seqm import CATEGORIES, SEQM_CLASSES

SVG = "{http://www.w3.org/2000/svg}"
EPOCHS, STEPS = 4, 40
ALL = ["eis", "confusion", "learning_curves", "embeddings", "calibration", "coverage", "speakers"]


def clips_of(folder):
    return score_files.read_scores(folder / "scores.tsv")["test"]


def complete(folder, best_epoch=3, training=True):
    """Beside the scores of a folder all that pictures are drawn of."""
    number = int(folder.parent.name[len("fold") :])
    with SummaryWriter(str(folder / "tensorboard")) as curves:
        for step in range(1, STEPS + 1):
            curves.add_scalar("train/total", number + 1 / step, step)
        for epoch in range(1, EPOCHS + 1):
            for name in ("wa", "ua", "eis_ccc", "per"):
                curves.add_scalar(f"dev/{name}", epoch / 10, epoch * STEPS // EPOCHS)
    clips = clips_of(folder)
    random = np.random.default_rng(number)
    for made in clips:
        made.embedding = (5 * np.eye(9, 12)[made.gold_esc] + random.normal(size=12)).astype(np.float16)
    score_files.write_embeddings(folder / "embeddings.npz", clips)
    if training:
        score_files.write_scores(folder / "train_scores.tsv", {"train": clips[:7]}, SEQM_CLASSES)
    rewrite(folder, best_epoch=best_epoch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An experiment of two folds and two seeds with all of its files."""
    made = make(tmp_path_factory.mktemp("exp"), seeds=(1, 2))
    for path in made.glob("fold*/seed*"):
        complete(path)
    return made


@pytest.fixture(scope="module")
def experiment(folder):
    return summarised(folder)


@pytest.fixture(scope="module")
def pictures(experiment):
    return {picture.name: picture for picture in figures.draw_pictures(experiment)}


def texts(picture):
    return [element.text for element in ElementTree.fromstring(picture.svg).iter(f"{SVG}text")]


# ---- all pictures


def test_each_picture_is_one_whole_svg_and_needs_nothing_else(pictures):
    assert list(pictures) == ALL
    for picture in pictures.values():
        root = ElementTree.fromstring(picture.svg)
        assert root.tag == f"{SVG}svg" and picture.svg.startswith("<svg")
        references = [value for element in root.iter() for name, value in element.attrib.items() if "href" in name]
        references += re.findall(r"url\((.*?)\)", picture.svg)
        assert not [value for value in references if not value.startswith("#")], "a link leads out of the file"
        assert not list(root.iter(f"{SVG}image")) and "@import" not in picture.svg
        assert picture.pdf.startswith(b"%PDF") and picture.title and picture.caption.endswith(".")
        assert "fold" in picture.caption and "seed" in picture.caption


def test_the_same_scores_give_the_same_bytes(experiment, pictures):
    for picture in figures.draw_pictures(experiment):
        assert picture.svg == pictures[picture.name].svg and picture.pdf == pictures[picture.name].pdf


def test_what_is_absent_is_left_out_and_said(tmp_path, caplog):
    """Score files alone give the pictures that need no more."""
    caplog.set_level("INFO")
    found = figures.draw_pictures(summarised(make(tmp_path)))
    assert [picture.name for picture in found] == ["eis", "confusion", "calibration", "coverage", "speakers"]
    assert "no picture learning_curves: there are no TensorBoard events" in caplog.text
    assert "no picture embeddings: " in caplog.text and "embeddings.npz is not there" in caplog.text
    assert "Training clips were not scored (run.sh --score-train true does)" in found[0].caption


def test_what_is_damaged_is_left_out_and_said(folder, tmp_path, caplog):
    shutil.copytree(folder, tmp_path / "exp")
    caplog.set_level("INFO")
    for name in ("embeddings.npz", "train_scores.tsv"):
        path = tmp_path / "exp/fold1/seed1" / name
        path.write_bytes(path.read_bytes()[:-30])
    found = {picture.name: picture for picture in figures.draw_pictures(summarised(tmp_path / "exp"))}
    assert list(found) == [name for name in ALL if name != "embeddings"]
    assert "embeddings.npz: is cut off" in caplog.text and "train_scores.tsv: is cut off" in caplog.text
    assert "Training clips (predicted by the model trained on them): 14 clips, 21 predictions" in found["eis"].caption


def test_stage_5_writes_them_and_links_them(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "small-speecheq/toy.random10")
    report.report(tmp_path, "a test", tmp_path / "R.md")
    own = tmp_path / "small-speecheq/toy.random10"
    page = (own / "RESULTS.md").read_text()
    linked = re.findall(r"!\[.*\]\((.*)\)", page)
    assert linked == [f"pictures/{name}.svg" for name in ALL]
    assert {path.name for path in (own / "pictures").iterdir()} == {
        f"{name}.{end}" for name in ALL for end in ("svg", "pdf")
    }
    ElementTree.parse(own / linked[0])
    # what cannot be drawn any more goes
    for path in own.glob("fold*/seed*/embeddings.npz"):
        path.unlink()
    report.report(tmp_path, "a test", tmp_path / "R.md")
    assert not (own / "pictures/embeddings.svg").exists() and (own / "pictures/confusion.pdf").is_file()


def test_a_folder_of_other_files_is_refused(pictures, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds files that are not pictures \(holiday.jpg\); move them away"):
        figures.write_pictures(tmp_path, list(pictures.values()))


@given(st.text(max_size=60))
def test_any_name_is_a_label_that_xml_can_hold(name):
    label = figure_style.printable(name)
    assert len(label) <= 24 and (label == name or len(name) > 24 or not name.isprintable())
    escaped = label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")  # ]]> may not stand there
    assert (ElementTree.fromstring(f"<t>{escaped}</t>").text or "") == label


def test_labels_do_not_overlap_with_many_classes_and_speakers(monkeypatch):
    random = np.random.default_rng(0)
    speakers = [
        figure_data.SpeakerScore(f"a speaker of a long name $<{number}>", number / 24, 1200) for number in range(25)
    ]
    every = [
        eis_clip(number, number % 9, (-1.0, 0.0, 1.5, 2.5, 3.5)[number % 5], number % 40 / 10) for number in range(900)
    ]
    bins = metrics.calibration(random.integers(0, 9, 9000), random.dirichlet(np.full(9, 0.2), 9000))
    curve = [(step, 1000.0 / step) for step in range(1, 600)]
    runs = {
        f"fold {fold}, seed {seed}": {
            f"{part}/{name}": curve
            for part, names in (("train", plots.LOSSES), ("dev", plots.DEV_SCORES))
            for name in names
        }
        for fold in range(1, 5)
        for seed in (1, 2)
    }
    with style.context(["default", figure_style.STYLE]):
        for figure in (
            plots.confusion_figure(random.integers(0, 12000, (9, 9)), CATEGORIES),
            plots.speakers_figure(speakers, 0.5),
            plots.eis_figure({"training": every, "test": every}, SEQM_CLASSES),
            plots.calibration_figure(bins, 0.1),
            plots.coverage_figure(metrics.accuracy_by_coverage([0] * 900, random.dirichlet(np.ones(9), 900)), 10),
            plots.curves_figure(runs, dict.fromkeys(runs, 5)),
            plots.map_figure(random.normal(size=(900, 2)), np.arange(900) % 9, CATEGORIES),
        ):
            assert_no_labels_overlap(figure, monkeypatch)


# ---- 1: the distributions of EIS


@settings(max_examples=5)
@given(some_clips, some_clips)
def test_bars_are_as_high_as_the_shares(training, test):
    figure = plots.eis_figure({"training": training, "test": test}, SEQM_CLASSES)
    grid = np.array(figure.axes).reshape(-1, 2)
    assert [axes.get_title() for axes in grid[0]] == ["training clips", "test clips"]
    rows = [axes.get_ylabel().split("\n")[0] for axes in grid[:, 0]]
    for column, clips in zip(grid.T, (training, test)):
        groups = figure_data.group_by_intensity(clips, SEQM_CLASSES)
        for axes, name in zip(column, rows):
            heights = [bar.get_height() for bar in axes.patches]
            note = axes.texts[0].get_text()
            if name in groups:
                assert heights == figure_data.eis_shares(groups[name]).tolist() and f"n = {len(groups[name]):,}" in note
            else:
                assert heights == [] and note == "no clip"


def test_the_caption_counts_clips_without_a_level(experiment, pictures):
    assert "Test clips: 48 clips, 96 predictions, folds 1 2 of 2, seeds 1 2." in pictures["eis"].caption
    assert (
        "Training clips (predicted by the model trained on them): 14 clips, 28 predictions" in pictures["eis"].caption
    )
    assert "Without a gold level" not in pictures["eis"].caption
    assert {"training clips", "test clips", "predicted EIS"} <= set(texts(pictures["eis"]))
    for fold in experiment.scored:
        for made in fold.sets["test"][:5]:
            made.gold_eis = -1.0
    try:
        caption = figures.DRAWINGS["eis"](experiment).caption
    finally:
        for fold in experiment.scored:
            fold.sets["test"][:] = clips_of(fold.folder)
    assert caption.endswith(
        "Without a gold level (unspecified): 0 of 28 predictions of training clips, 20 of 96 predictions of test clips."
    )


# ---- 2: the confusion matrix


def test_the_confusion_matrix_says_percent_and_counts(experiment, pictures):
    gold, predicted = experiment.predictions.gold, experiment.predictions.predicted
    counts = confusion_matrix(gold, predicted, labels=range(9))
    rows = [row for row in counts if row.sum()]
    figure = plots.confusion_figure(counts, CATEGORIES)
    written = [text.get_text() for text in figure.axes[0].texts]
    expected = [
        part for row in rows for value in row if value for part in (f"{100 * value / row.sum():.0f}", f"{value:,}")
    ]
    assert written == expected
    assert figure.axes[0].collections[0].get_array().ravel().tolist() == pytest.approx(
        [value / row.sum() for row in rows for value in row]
    )
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["neutral", "joy", "anger"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == list(CATEGORIES)
    assert set(expected) <= set(texts(pictures["confusion"]))


def test_a_share_that_rounds_to_nothing_is_not_called_nothing():
    figure = plots.confusion_figure(np.array([[999, 1], [0, 0]]), ["a", "b"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["100", "999", "<1", "1"]


# ---- 3: learning curves


def test_intensities_that_were_not_learned_are_not_drawn(tmp_path):
    made = make(tmp_path / "exp")
    for path in made.glob("fold*/seed*"):
        complete(path)
    without = summarised(made)
    assert without.summary["pooled.test.eis_mse"] is not None
    for path in made.glob("fold*/seed*"):
        settings = layers.load(path / "config.yaml")
        settings.loss.alpha = 0.0
        layers.save(settings, path / "config.yaml")
    with pytest.raises(InputError, match="it was not trained on EIS"):
        figures.DRAWINGS["eis"](without)


def test_each_fold_and_seed_has_a_curve_and_a_star_at_its_checkpoint(folder, pictures):
    runs = {
        name: figure_data.read_curves(folder / place)
        for name, place in (("fold 1, seed 1", "fold1/seed1"), ("fold 2, seed 1", "fold2/seed1"))
    }
    figure = plots.curves_figure(runs, {"fold 1, seed 1": 30, "fold 2, seed 1": None})
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_visible()}
    assert list(panels) == ["total loss", "dev WA %", "dev UA %", "dev EIS CCC", "dev PER %"]
    lines = panels["dev UA %"].lines
    assert lines[0].get_xdata().tolist() == [10, 20, 30, 40] and lines[0].get_ydata() == pytest.approx([10, 20, 30, 40])
    stars = [line for line in lines if line.get_marker() == "*"]
    assert [(star.get_xdata().tolist(), star.get_ydata().tolist()) for star in stars] == [([30], [pytest.approx(30)])]
    assert len({line.get_linestyle() for line in lines if line not in stars}) == 2, "colour alone tells them apart"
    assert panels["total loss"].lines[1].get_ydata() == pytest.approx([2 + 1 / step for step in range(1, STEPS + 1)])
    assert "fold 2, seed 2" in texts(pictures["learning_curves"])


def test_the_star_is_at_the_epoch_of_the_metrics(folder, experiment, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "curves_figure", lambda runs, best: drawn.append(best))
    assert "Star: the epoch of the checkpoint" in figures.DRAWINGS["learning_curves"](experiment).caption
    assert drawn == [{f"fold {fold}, seed {seed}": 30 for fold in (1, 2) for seed in (1, 2)}]


# ---- 4: the embedding map


def test_the_map_has_a_point_a_clip_and_a_marker_a_class(experiment, pictures):
    clips = experiment.scored[0].sets["test"]
    places = np.random.default_rng(0).normal(size=(len(clips), 2))
    gold = [made.gold_esc for made in clips]
    groups = [
        made
        for made in plots.map_figure(places, gold, CATEGORIES).axes[0].collections
        if isinstance(made, PathCollection)
    ]
    for group, number in zip(groups, sorted(set(gold)), strict=True):
        assert group.get_offsets().tolist() == places[np.array(gold) == number].tolist()
        assert group.get_label() == f"{CATEGORIES[number]} ({gold.count(number)})"
    assert len({group.get_paths()[0].vertices.tobytes() for group in groups}) == len(groups)
    assert {f"{name} (8)" for name in ("neutral", "joy", "anger")} <= set(texts(pictures["embeddings"]))
    assert "(24), fold 1, seed 1," in pictures["embeddings"].caption


@pytest.mark.parametrize(
    "vectors, reason",
    [(np.ones((24, 5)), "all alike or not finite"), (np.full((24, 5), np.inf), "all alike or not finite")],
)
def test_embeddings_that_give_no_map(tmp_path, vectors, reason):
    folder = make(tmp_path, folds=(1,)) / "fold1/seed1"
    clips = clips_of(folder)
    for made, vector in zip(clips, vectors):
        made.embedding = vector.astype(np.float16)
    score_files.write_embeddings(folder / "embeddings.npz", clips)
    with pytest.raises(InputError, match=reason):
        figures.DRAWINGS["embeddings"](summarised(folder.parent.parent))


# ---- 5: calibration


def test_calibration_is_that_of_scikit_learn_and_the_ece_that_of_the_metrics(experiment, pictures):
    random = np.random.default_rng(0)
    posteriors = random.dirichlet(np.full(9, 0.3), 2000)
    gold = random.integers(0, 9, 2000)
    figure = plots.calibration_figure(metrics.calibration(gold, posteriors), 0.25)
    upper, lower = figure.axes
    right = posteriors.argmax(1) == gold
    accuracy, confidence = calibration_curve(right, posteriors.max(1), n_bins=metrics.CALIBRATION_BINS)
    heights = [bar.get_height() for bar in upper.patches]
    counts = np.array([bar.get_height() for bar in lower.patches])
    assert [height for height, clips in zip(heights, counts) if clips] == pytest.approx(accuracy.tolist())
    points = upper.lines[1]
    assert points.get_xdata() == pytest.approx(confidence) and points.get_ydata() == pytest.approx(accuracy)
    assert counts.sum() == 2000 and len(counts) == metrics.CALIBRATION_BINS
    assert [text.get_text() for text in lower.texts] == [str(int(number)) for number in counts if number]

    clips = [made for fold in experiment.scored for made in fold.sets["test"]]
    error = metrics.calibration_error([made.gold_esc for made in clips], [made.posterior for made in clips])
    assert f"ECE {100 * error:.2f} %" in texts(pictures["calibration"])
    assert f"The ECE is {100 * error:.2f} %" in pictures["calibration"].caption


def test_the_coverage_curve_is_the_accuracy_of_the_surest(experiment, pictures):
    clips = sorted(experiment.test_clips, key=lambda clip: -max(clip.posterior))
    right = [clip.predicted_esc == clip.gold_esc for clip in clips]
    curve = metrics.accuracy_by_coverage([clip.gold_esc for clip in clips], [clip.posterior for clip in clips])
    axes = plots.coverage_figure(curve, 10).axes[0]
    line, everything = axes.lines
    assert line.get_xdata().tolist() == pytest.approx([number / len(clips) for number in range(10, len(clips) + 1)])
    assert line.get_ydata()[-1] == everything.get_ydata()[0] == pytest.approx(np.mean(right))
    # the posteriors of this experiment take two values, a higher one where it is wrong
    first = sum(max(clip.posterior) == max(clips[0].posterior) for clip in clips)
    assert curve.accuracy[first - 1] == pytest.approx(np.mean(right[:first])) == 0
    assert f"the mean error rate over all coverages (AURC) is {100 * (1 - curve.accuracy).mean():.2f} %" in (
        pictures["coverage"].caption
    )


# ---- 6: speakers


def test_bars_of_speakers_are_sorted_and_the_line_is_the_pooled_ua(experiment, pictures):
    scores = figure_data.speaker_scores(experiment.predictions)
    figure = plots.speakers_figure(scores, experiment.summary["pooled.test.ua"])
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [made.ua for made in scores]
    assert [label.get_text() for label in axes.get_yticklabels()] == [made.speaker for made in scores]
    assert axes.lines[0].get_xdata()[0] == experiment.summary["pooled.test.ua"]
    written = texts(pictures["speakers"])
    assert f"pooled UA {100 * experiment.summary['pooled.test.ua']:.1f} %" in written
    assert all(f"{100 * made.ua:.1f} %, {made.clips} clips" in written for made in scores)


def test_of_very_many_speakers_the_ends_are_drawn_and_that_is_said(experiment, monkeypatch):
    many = [figure_data.SpeakerScore(f"s{number:03d}", number / 200, 3) for number in range(200)]
    drawn = []
    monkeypatch.setattr(figure_data, "speaker_scores", lambda answers: many)
    monkeypatch.setattr(plots, "speakers_figure", lambda scores, pooled: drawn.append(scores))
    caption = figures.DRAWINGS["speakers"](experiment).caption
    assert drawn == [many[:30] + many[-30:]] and "each of the 200 test speakers" in caption
    assert caption.endswith("Only the 30 lowest and the 30 highest are drawn.")
