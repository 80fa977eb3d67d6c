"""Systems on the states of a pretrained encoder, from stage 2 to the tables: stored, on the fly, by speaker, fused."""

import os
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_runs import make_encoder_recipe

from speecheq.cli import main
from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.config import layers as configuration
from speecheq.config.schema import Config, ModelConfig
from speecheq.dataset.lazy_cuts import open_cuts
from speecheq.dataset.loader import multitask_batches, training_cuts
from speecheq.dataset.model_inputs import (
    SpeakerStatistics,
    by_speaker,
    mean_and_deviation,
    scoring_inputs,
    stored_widths,
)
from speecheq.evaluation.predictions import predict_emotions
from speecheq.evaluation.score import BestModel
from speecheq.evaluation.score_files import read_scores
from speecheq.features.encoder_states import StoredStates
from speecheq.reporting.experiment import summarise
from speecheq.reporting.report_text import experiment_facts
from speecheq.training import trainer, training_data

CPU = torch.device("cpu")
BASELINE = ("--set", "model.kind=baseline")
FOLD = "seqd.official/fold1/seed1"


@pytest.fixture(scope="module")
def data(toys, tmp_path_factory):
    """Toy SEQD and AISHELL-1 with filter banks, a recipe's folder with conf/, and a tiny Whisper."""
    return make_encoder_recipe(toys, tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def run(data, monkeypatch, capsys):
    """``run("train", option, ...)`` in the recipe's folder: the last lines of its log."""
    monkeypatch.chdir(data)

    def command(name, *options, status=0):
        capsys.readouterr()
        common = ["--data", "data", *([] if name == "features" else ["--exp", "exp", "--config", "conf/light.yaml"])]
        labels = ["--target", "seqd", "--protocol", "official", "--folds", "1"] if name != "features" else []
        assert main.main([name, *common, *labels, *map(str, options)]) == status
        return capsys.readouterr().err

    return command


@pytest.fixture
def stored(run, data):
    """Stage 2 with the tiny Whisper, which is done once."""
    run("features", "--features", f"tiny={data / 'whisper'}", "--corpora", "seqd", "aishell", "--nj", "1")
    return data


def train(run, *options, systems="speecheq", phonemes=True, **more):
    given = ["--systems", systems, "--features", "tiny", *(["--phonemes", "aishell"] if phonemes else []), *options]
    return run("train", *given, "--set", "loss.ctc_backend=torch", **more)


def folder_of(data, config="light-tiny", system="speecheq"):
    return data / "exp" / f"{config}-{system}" / FOLD


def test_all_tasks_train_and_score_on_stored_states(run, stored):
    train(run)
    folder = folder_of(stored)
    made = read_json(folder / "run.json")
    assert Path(made["states"]) == Path("data/tiny")
    config = configuration.load(folder / "config.yaml")
    assert (config.data.features, config.encoder.layers, config.encoder.dim) == ("tiny", "1 2", 8)
    assert config.encoder.model == str(stored / "whisper")
    run("score", "--systems", "speecheq", "--features", "tiny")
    scores = read_json(folder / "metrics.json")
    assert 0 <= scores["test.ua"] <= 1 and scores["test.per"] > 0 and scores["test.gender"] is not None
    assert scores["run"]["features"] == "tiny" and scores["run"]["by_speaker"] is False
    summary = summarise(folder.parents[1], [folder]).summary
    assert "features: the states of a pretrained encoder (tiny), frozen" in experiment_facts(summary)
    summary["run"]["encoder_train"] = "lora"
    assert "features: the states of a pretrained encoder (tiny), trained with the model (lora)" in experiment_facts(
        summary
    )


def test_states_computed_in_training_give_the_same_model(run, stored):
    off = [f"augment.{change}_probability=0" for change in ("pitch", "tempo", "reverb", "noise")]
    settings = ["data.max_seconds=20", *off]  # states of a crop are not the crop of states
    options = [word for setting in settings for word in ("--set", setting)]
    answers = []
    for how in ("stored", "waveform"):
        train(run, *options, "--set", f"data.input={how}")
        trained = BestModel.load(folder_of(stored))
        cuts = list(open_cuts(stored / "data/msud/seqd.official/fold1/test.jsonl.gz"))
        answers.append(
            torch.tensor(
                [clip.posterior for clip in predict_emotions(trained.model, cuts, 4, CPU, inputs=trained.inputs)]
            )
        )
    # states of a clip alone and in a batch differ by rounding, which four steps of Adam carry on
    assert (answers[0] - answers[1]).abs().max() < 0.01
    assert answers[0].std(0).max() > 0.0


@pytest.mark.parametrize("cmvn", ["global", "speaker", "utterance"])
def test_emotion_and_gender_read_the_pooled_layers_alone(run, stored, monkeypatch, cmvn):
    """The model is that of training clips with all layers."""
    settings = ["model.pooling=statistics", "model.pooled_layers=1", f"data.cmvn={cmvn}", "mixup.alpha=0.4"]
    options = [word for setting in settings for word in ("--set", setting)]
    widths, states = [], []

    def note(batches):
        for batch in batches:
            widths.append({name: stream.inputs.shape[2] for name, stream in batch.streams().items()})
            yield batch

    monkeypatch.setattr(trainer, "multitask_batches", lambda *given: note(multitask_batches(*given)))
    for every_layer in (False, True):
        if every_layer:
            monkeypatch.setattr(training_data, "stored_widths", lambda config: {})
        shutil.rmtree(stored / "exp" / "light-tiny-speecheq", ignore_errors=True)
        train(run, *options)
        states.append(BestModel.load(folder_of(stored)).model.state_dict())
    half = len(widths) // 2
    assert widths[:half] == [{"emotion": 8, "gender": 8, "phoneme": 16}] * half
    assert widths[half:] == [dict.fromkeys(("emotion", "gender", "phoneme"), 16)] * half
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], atol=1e-5, rtol=1e-4)


def test_what_learns_from_frames_reads_all_layers():
    light = ModelConfig(kind="light", encoder_layers=3, encoder_dim=8, pooled_layers=2)
    config = Config(model=replace(light, pooling="statistics"))
    assert stored_widths(config) == {"emotion": 16, "gender": 16}
    config.loss.reconstruction = 0.1
    assert stored_widths(config) == {}
    assert stored_widths(Config(model=light)) == stored_widths(Config()) == {}


def test_where_nothing_is_stored_the_states_are_computed(run, data, tmp_path):
    log = run("features", "--features", f"tiny={data / 'whisper'}", "--corpora", "seqd", "--store-features", "false")
    assert "states take" not in log and (data / "data/tiny/encoder.yaml").is_file()
    other = tmp_path / "data"
    other.mkdir()
    for name in ("manifests", "fbank", "msud", "phonemes"):
        os.symlink(data / "data" / name, other / name)
    (other / "tiny").mkdir()
    (other / "tiny" / "encoder.yaml").write_bytes((data / "data/tiny/encoder.yaml").read_bytes())
    options = ["--data", other, "--exp", tmp_path / "exp", "--systems", "wo_mtl", "--features", "tiny"]
    log = run("train", *options, status=1)
    assert "data/tiny/seqd: stage 2 (features) has not been run" in log
    run("train", *options, "--set", "data.input=waveform")
    run("score", *options)
    assert (tmp_path / "exp" / "light-tiny-wo_mtl" / FOLD / "scores.tsv").is_file()


def test_training_draws_copies_at_other_speeds(run, stored):
    described = (stored / "conf/features/tiny.yaml").read_text()
    (stored / "conf/features/speeds.yaml").write_text(described + "speeds: 0.8 1.25\n")
    run("features", "--features", f"speeds={stored / 'whisper'}", "--corpora", "seqd", "--nj", "1")
    options = ["--systems", "wo_mtl", "--set", "data.corpora=target"]
    run("train", *options, "--features", "speeds")
    faster = folder_of(stored, "light-speeds", "wo_mtl")
    assert configuration.load(faster / "config.yaml").encoder.speeds == "0.8 1.25"
    config = configuration.load(faster / "config.yaml").data
    load = StoredStates(stored / "data/speeds").load
    cuts = training_cuts(stored / "data/msud/seqd.official/fold1/emotion.jsonl.gz", "seqd")
    lengths = defaultdict(set)
    batches = multitask_batches({"emotion": cuts}, config, 1, load=load)
    again = multitask_batches({"emotion": cuts}, config, 1, load=load)
    for _ in range(60):
        batch, same = next(batches).emotion, next(again).emotion
        assert torch.equal(batch.inputs, same.inputs)
        for name, frames in zip(batch.ids, batch.lengths.tolist()):
            lengths[name].add(frames)
    assert all(len(seen) == 3 for seen in lengths.values()), "in some epoch each clip comes at each speed"
    dev = scoring_inputs(configuration.load(faster / "config.yaml"), stored / "data/speeds", CPU)
    one = next(iter(cuts))
    assert torch.equal(dev.load(one), StoredStates(stored / "data/tiny").load(one)), "what is scored is never changed"
    for refused in ("data.input=waveform", "model.kind=fusion"):
        log = run("train", *options, "--features", "speeds", "--set", refused, status=1)
        assert "holds states at the speeds 0.8 1.25, which data.input waveform and model.kind fusion do not take" in log


def test_fusion_takes_filter_banks_beside_the_states(run, stored):
    sizes = [f"model.{name}" for name in ("kind=fusion", "channels=16", "mfa_channels=32", "scale=4")]
    train(run, *[word for size in sizes for word in ("--set", size)], systems="wo_mtl", phonemes=False)
    config = configuration.load(folder_of(stored, system="wo_mtl") / "config.yaml")
    assert config.model.feature_dim == 160 + 2 * 8
    run("score", "--systems", "wo_mtl", "--features", "tiny")
    model = BestModel.load(folder_of(stored, system="wo_mtl"))
    assert model.model.cmvn.mean.shape == (176,)
    on_the_fly = scoring_inputs(model.config, None, CPU)
    cuts = list(open_cuts(stored / "data/msud/seqd.official/fold1/test.jsonl.gz"))[:4]
    for one, other in zip(*(inputs.batches("emotion", cuts, 4, CPU) for inputs in (model.inputs, on_the_fly))):
        assert one.ids == other.ids and torch.equal(one.lengths, other.lengths)
        assert (one.inputs - other.inputs).abs().max() < 5e-3  # stored filter banks are rounded


@pytest.mark.parametrize("features", ["fbank", "tiny"])
def test_by_speaker_each_speaker_has_mean_0_and_deviation_1(run, stored, features):
    options = ["--systems", "wo_mtl", "--features", features, "--set", "data.cmvn=speaker"]
    if features == "fbank":
        options += ["--set", "model.kind=baseline"]
    run("train", *options)
    run("score", *options[:4])
    folder = folder_of(stored, "light" if features == "fbank" else "light-tiny", "wo_mtl")
    assert read_json(folder / "metrics.json")["run"]["by_speaker"] is True
    trained = BestModel.load(folder)
    cuts = list(open_cuts(stored / "data/msud/seqd.official/fold1/test.jsonl.gz"))
    frames = {}
    for batch in trained.inputs_of(cuts).batches("emotion", cuts, 3, CPU):
        speakers = {cut.id: cut.supervisions[0].speaker for cut in cuts}
        for name, features_of_clip, length in zip(batch.ids, batch.inputs, batch.lengths.tolist()):
            frames.setdefault(speakers[name], []).append(features_of_clip[:length])
            assert not features_of_clip[length:].any()
    assert frames
    for found in map(torch.cat, frames.values()):
        assert found.mean(0).abs().max() < 1e-3
        deviation = found.std(0, unbiased=False)
        assert ((deviation - 1).abs() < 1e-2).all()


def test_statistics_are_those_of_the_clips_that_are_given(stored, run):
    train(run, systems="wo_mtl", phonemes=False)
    trained = BestModel.load(folder_of(stored, system="wo_mtl"))
    cuts = list(open_cuts(stored / "data/msud/seqd.official/fold1/test.jsonl.gz"))
    mean, deviation = mean_and_deviation(trained.inputs, cuts, 3, CPU)
    rows = torch.cat(
        [
            clip[:length]
            for batch in trained.inputs.batches("emotion", cuts, 5, CPU)
            for clip, length in zip(batch.inputs, batch.lengths.tolist())
        ]
    )
    assert torch.allclose(mean, rows.mean(0), atol=1e-4)
    assert torch.allclose(deviation, rows.std(0, unbiased=False).clamp(min=1e-3), atol=1e-4)
    one = SpeakerStatistics(trained.inputs, cuts[:1], 3, CPU)
    with pytest.raises(KeyError):
        by_speaker(trained.inputs, cuts[:1], 3, CPU).collate("emotion", cuts[-1:], CPU)
    assert len(one.moments) == 1


def test_the_trained_model_depends_on_the_states(run, stored):
    """A test of this file that could not fail: the same training on filter banks gives other answers."""
    train(run, systems="wo_mtl", phonemes=False)
    run("score", "--systems", "wo_mtl", "--features", "tiny")
    run("train", "--systems", "wo_mtl", "--set", "model.kind=baseline")
    run("score", "--systems", "wo_mtl")
    one, other = (
        [clip.posterior for clip in read_scores(folder_of(stored, name, "wo_mtl") / "scores.tsv")["test"]]
        for name in ("light-tiny", "light")
    )
    assert len(one) == len(other) and one != other


def test_what_does_not_fit_is_one_sentence(run, stored):
    log = run("train", "--systems", "wo_mtl", *BASELINE, "--set", "data.features=tiny", status=1)
    assert "--set data.features: the feature set is given by --features" in log
    log = run("train", "--systems", "wo_mtl", "--features", "nothing", status=1)
    assert "run stage 2 with --features nothing first" in log
    log = run("train", "--systems", "wo_mtl", "--features", "tiny", "--shar", status=1)
    assert "shards hold no encoder states" in log


def test_damaged_states_stop_the_training_in_a_sentence(run, stored, monkeypatch):
    from speecheq.features import encoder_states

    def gone(path):
        raise OSError("the disk is gone")

    monkeypatch.setattr(encoder_states, "_mapped", gone)
    log = train(run, systems="wo_mtl_wo_msud", phonemes=False, status=1)
    assert "cannot be read (the disk is gone); run stage 2 again" in log and "Traceback" not in log


def test_an_input_error_is_what_missing_states_give(stored):
    from speecheq.features.encoder_states import StoredStates

    with pytest.raises(InputError):
        StoredStates(stored / "data" / "other").open("seqd")
