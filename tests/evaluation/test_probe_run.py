"""The probe on the folds of stage 3, and what stages 5 and status make of its folders."""

import numpy as np
import pytest
import soundfile
import torch
from training_runs import compute_toy_features

from speecheq.cli import main
from speecheq.common.errors import InputError
from speecheq.common.stages import Stage
from speecheq.dataset.msud import unify
from speecheq.dataset.msud_recipe import Recipe
from speecheq.evaluation.probe import ProbeSettings
from speecheq.evaluation.probe_run import ProbeRun, StoredFeatures, run_probe
from speecheq.evaluation.score_files import read_metrics, read_scores
from speecheq.features.storage import load_features
from speecheq.reporting.experiment import scored_folders, summarise
from speecheq.reporting.probe_results import layer_scores
from speecheq.reporting.recipe_status import DONE, MISSING, Status
from speecheq.reporting.report_text import experiment_facts

NAME = "casia.speaker"


@pytest.fixture(scope="module")
def data(toys, tmp_path_factory):
    """Stages 1 to 3 of a toy CASIA whose emotions are tones of different heights."""
    folder = tmp_path_factory.mktemp("tones")
    corpus = toys.casia(folder / "corpus")
    for path in sorted(corpus.rglob("*.wav")):
        emotions = sorted(other.name for other in path.parents[1].iterdir())
        time, tone = np.arange(3200) / 16000, 300 * 1.6 ** emotions.index(path.parent.name)
        samples = soundfile.read(path)[0] * 0.1 + 0.3 * np.sin(2 * np.pi * tone * time)
        soundfile.write(path, samples, 16000, subtype="PCM_16")
    compute_toy_features(toys, "casia", corpus, folder)
    unify(Recipe("casia", "speaker", ["casia"]), "all", folder / "manifests", folder / "fbank", folder / "msud")
    return folder


def two_layers(data):
    """A second set of features: silence as layer 1, fbank as layer 2."""
    folder = data / "two" / "casia"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        Stage("features", "casia", folder, {}, [data / "fbank" / "casia"], 1).finish(folder, 48, 48, outputs=[])

    def load(cut):
        features = load_features(cut)
        return torch.cat([torch.zeros_like(features), features], 1)

    return StoredFeatures("two", ["1", "2"], data, load)


def run_command(data, exp, *options):
    arguments = ["--data", data, "--exp", exp, "--target", "casia", "--protocol", "speaker", *options]
    return main.main(["probe", *map(str, arguments)])


def test_the_command_leaves_scored_folds_that_the_report_takes(data, tmp_path, capsys, no_pictures):
    exp = tmp_path / "exp"
    assert run_command(data, exp) == 0
    assert "| fbank | " in capsys.readouterr().out
    config = tmp_path / "light_by_speaker.yaml"
    config.write_text("data: {cmvn: speaker}\n")
    assert run_command(data, exp, "--kernel", "linear", "--config", config, "--folds", "1") == 0
    assert run_command(data, exp, "--kernel", "linear", "--cmvn", "speaker", "--folds", "1 2") == 0
    assert main.main(["report", "--exp", str(exp), "--title", "a test", "--results", str(tmp_path / "R.md")]) == 0
    page = (tmp_path / "R.md").read_text()
    assert "| probe | fbank | 1 2 3 4 of 4 | 1 | 100.00 ± 0.00 |" in page
    assert "| probe_linear_by_speaker | fbank | 1 2 of 4 | 1 |" in page
    assert "SVM (rbf kernel, C = 10)" in page and "another protocol" in page and "0 steps" not in page
    folder = exp / "fbank-probe" / NAME / "fold1" / "seed1"
    clips = read_scores(folder / "scores.tsv")["test"]
    assert {clip.speaker for clip in clips} == {clips[0].speaker} and len(clips) == 12
    metrics = read_metrics(folder)
    assert metrics["test.ua"] == 1.0 and metrics["test.gender"] is None and metrics["test.eis_mse"] is None
    states = {line.folder: line.state for line in Status(data, exp, corpora=False).all() if line.stage != "manifests"}
    assert states[folder] == states[folder / "scored"] == DONE
    assert {folder.parts[-2] for folder, state in states.items() if state == MISSING} == {"fold3", "fold4"}
    assert set(states.values()) == {DONE, MISSING}, "two folds of the linear one were not asked for"


def test_what_is_done_is_skipped_and_other_features_are_probed_again(data, tmp_path, caplog):
    run = ProbeRun(StoredFeatures.open("fbank", data), ProbeSettings(), tmp_path, data / "msud" / NAME, 1)
    assert run_probe(run)
    written = (run.folder / "scores.tsv").stat().st_mtime_ns
    caplog.clear()
    assert run_probe(run) and "skipped" in caplog.text
    assert (run.folder / "scores.tsv").stat().st_mtime_ns == written
    (run.folder / "scores.tsv").unlink()
    assert run_probe(run) and (run.folder / "scores.tsv").is_file(), "what is missing is made again"


def test_every_layer_has_its_ua_and_the_chosen_one_is_scored(data, tmp_path):
    features = two_layers(data)
    runs = [ProbeRun(features, ProbeSettings(), tmp_path, data / "msud" / NAME, fold) for fold in (1, 2)]
    for run in runs:
        run_probe(run)
    metrics = read_metrics(runs[0].folder)
    assert metrics["run"]["layer"] == "2" and metrics["test.ua"] == metrics["test.ua_of_layer_2"] == 1.0
    assert metrics["test.ua_of_layer_1"] == pytest.approx(1 / 6), "silence is one class for all"
    assert metrics["dev.ua"] == metrics["dev.ua_of_layer_2"] > metrics["dev.ua_of_layer_1"]
    experiment = runs[0].folder.parents[1]
    summary = summarise(experiment, scored_folders(experiment)[0]).summary
    first, second = layer_scores(summarise(experiment, scored_folders(experiment)[0]))
    assert (first.pooled, second.pooled) == (pytest.approx(1 / 6), 1.0) and second.chosen_in == [1, 2]
    assert summary["test.ua_of_layer_1"] == pytest.approx(1 / 6) and summary["run"]["probe"]["layers"] == ["1", "2"]


def test_features_that_stage_2_has_not_stored_are_refused(data, tmp_path, caplog):
    features = StoredFeatures("whisper", ["1"], data, load_features)
    with pytest.raises(InputError, match="stage 2"):
        run_probe(ProbeRun(features, ProbeSettings(), tmp_path, data / "msud" / NAME, 1))


def test_only_planning_writes_nothing(data, tmp_path):
    from speecheq.common.stages import planning

    run = ProbeRun(StoredFeatures.open("fbank", data), ProbeSettings(), tmp_path, data / "msud" / NAME, 1)
    with planning() as stages:
        assert not run_probe(run)
    assert [stage.name for stage in stages] == ["probe"] and not list(tmp_path.iterdir())


def test_where_the_dev_part_is_the_test_clips_no_probe_is_trained_on_them(data, tmp_path):
    recipe = Recipe("casia", "random5", ["casia"], as_published=("best_test",))
    unify(recipe, "1", data / "manifests", data / "fbank", data / "msud")
    run = ProbeRun(StoredFeatures.open("fbank", data), ProbeSettings(), tmp_path, data / "msud" / recipe.name, 1)
    assert run.cuts("dev") == [] and len(run.cuts("test")) > 0
    assert run_probe(run) and read_metrics(run.folder)["run"]["as_published"] == ["best_test"]


def test_the_majority_class_is_scored_like_the_others(data, tmp_path, capsys, no_pictures):
    exp = tmp_path / "exp"
    assert run_command(data, exp, "--kernel", "majority") == 0
    folder = exp / "none-majority" / NAME
    metrics = read_metrics(folder / "fold1" / "seed1")
    assert metrics["test.ua"] == pytest.approx(1 / 6) and metrics["run"]["probe"]["kernel"] == "majority"
    experiment = summarise(folder, scored_folders(folder)[0])
    assert experiment.name == "none-majority"
    assert any("the most frequent class of the training" in fact for fact in experiment_facts(experiment.summary))
