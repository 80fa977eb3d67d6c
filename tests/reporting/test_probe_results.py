"""The probe in the results: its curve by layer, and the trained systems below it."""

from matplotlib import style
from report_data import assert_no_labels_overlap, make, summarised

from speecheq.reporting import figures, plots, report
from speecheq.reporting.figure_style import STYLE
from speecheq.reporting.probe_results import LayerScore, below_probe, layer_section

LAYERS = ["2", "3"]


def make_probe(exp, system="probe", right=0.9, folds=(1, 2), by_speaker=False):
    """The probe on two layers, as far as score files tell."""
    confusion = [[0] * 9 for _ in range(9)]
    confusion[0][0], confusion[0][1], confusion[4][4] = 3, 1, 2
    return make(
        exp,
        system,
        right,
        folds,
        probe={"kernel": "rbf", "c": 10.0, "by_speaker": by_speaker, "layers": LAYERS},
        by_speaker=by_speaker,
        layer="3",
        confusion_of_layers=dict.fromkeys(LAYERS, confusion),
        scores={f"{part}.ua_of_layer_{layer}": 0.5 for part in ("dev", "test") for layer in LAYERS},
    )


def below(exp, *folders):
    return below_probe([summarised(folder) for folder in folders])


def test_a_trained_system_below_the_probe_is_named(tmp_path):
    probe = make_probe(tmp_path)
    better, worse = make(tmp_path, "speecheq", 1.0), make(tmp_path, "wo_mtl", 0.3)
    (sentence,) = below(tmp_path, probe, better, worse)
    assert sentence.startswith("small-wo_mtl has a UA of ") and "small-probe" in sentence


def test_only_the_best_probe_on_the_same_folds_counts(tmp_path):
    weak, strong = make_probe(tmp_path, "probe_linear", 0.5), make_probe(tmp_path, "probe", 0.95)
    other_folds, trained = make_probe(tmp_path, "probe_other", 1.0, folds=(1,)), make(tmp_path, "speecheq", 0.3)
    (sentence,) = below(tmp_path, weak, strong, other_folds, trained)
    assert "of small-probe:" in sentence
    assert below(tmp_path, other_folds, trained) == []


def test_seeds_of_the_trained_system_do_not_matter(tmp_path):
    assert len(below(tmp_path, make_probe(tmp_path), make(tmp_path, "speecheq", 0.3, seeds=(1, 2)))) == 1


def test_the_page_says_it_and_keeps_protocols_apart(tmp_path, no_pictures):
    make_probe(tmp_path, right=0.4)
    make_probe(tmp_path, "probe_by_speaker", 0.95, by_speaker=True)
    make(tmp_path, right=0.3)
    page = report.report(tmp_path, "a test", tmp_path / "R.md")
    (sentence,) = (line for line in page.splitlines() if "small-speecheq has a UA of" in line)
    assert "of small-probe:" in sentence, "statistics of test speakers are another protocol"


def test_the_curve_by_layer_is_a_table_and_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "DRAWINGS", {})  # those of every system have tests of their own
    experiment = summarised(make_probe(tmp_path))
    (section,) = layer_section(experiment)
    assert section.tables[0].texts() == [
        ["2", "50.00 ± 0.00", "50.00 ± 0.00", "87.50", "-"],
        ["3", "50.00 ± 0.00", "50.00 ± 0.00", "87.50", "1 2"],
    ]
    names = {picture.name: picture for picture in figures.draw_pictures(experiment)}
    assert "folds 1 2 of 2, seed 1" in names["layers"].caption and ">3<" in names["layers"].svg
    trained = summarised(make(tmp_path, "speecheq"))
    assert layer_section(trained) == []
    assert "layers" not in {picture.name for picture in figures.draw_pictures(trained)}


def test_the_labels_of_the_picture_do_not_overlap(tmp_path, monkeypatch):
    scores = [LayerScore(str(layer), (0.5, 0.1), (0.6, None), 0.6, []) for layer in range(25)]
    with style.context(["default", STYLE]):
        assert_no_labels_overlap(plots.layers_figure(scores), monkeypatch)
