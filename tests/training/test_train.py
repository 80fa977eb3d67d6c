"""Training, scoring and tables on synthesised nano corpora, through the Python functions of each stage."""

import csv
import dataclasses
import json
import math
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from training_runs import ROOT, compute_toy_features, small_config

from speecheq import seqm
from speecheq.common.errors import InputError
from speecheq.common.stages import Stage, planning
from speecheq.dataset import batch as batch_module
from speecheq.dataset.batch import MultitaskBatch, TaskBatch, collate, crop
from speecheq.dataset.loader import endless_stream, largest_batch, multitask_batches, training_cuts
from speecheq.dataset.msud import unify
from speecheq.dataset.msud_recipe import Recipe
from speecheq.dataset.phoneme_cuts import phonemes
from speecheq.evaluation.predictions import predict_emotions, predict_phones
from speecheq.evaluation.score import score
from speecheq.evaluation.score_files import read_embeddings, read_scores
from speecheq.losses import LossWeights, ctc_loss
from speecheq.models import checkpoint
from speecheq.reporting import report
from speecheq.reporting.experiment import scored_folders, summarise
from speecheq.seqm import SEQM_CLASSES
from speecheq.training import trainer
from speecheq.training.job import Job, check
from speecheq.training.precision import Precision
from speecheq.training.step import StepSetup, stream_loss, train_step
from speecheq.training.train import train

CPU = torch.device("cpu")
FP32 = Precision("fp32", CPU)


@pytest.fixture(scope="module")
def data(toys, tmp_path_factory):
    """Stages 0 to 3 on nano CASIA, SEQD and AISHELL-1; CASIA by speaker, SEQD with its own test part."""
    pytest.importorskip("espeakng_loader", reason="needs the extra `demo` to synthesise corpora")
    from speecheq.corpora.synthetic import synthesise

    folder = tmp_path_factory.mktemp("nano")
    for name in ("casia", "seqd", "aishell"):
        synthesise(name, folder / "corpora" / name, "nano")
        compute_toy_features(toys, name, folder / "corpora" / name, folder)
    for target, protocol in (("casia", "speaker"), ("seqd", "official")):
        unify(Recipe(target, protocol, ["casia", "seqd"]), "1", folder / "manifests", folder / "fbank", folder / "msud")
    phonemes("aishell", folder / "manifests", folder / "fbank", folder / "phonemes" / "aishell")
    return folder


def job(data: Path, folder: Path, target: str = "casia.speaker", with_phonemes: bool = True, **settings) -> Job:
    phonemes = data / "phonemes" / "aishell" if with_phonemes else None
    return Job(small_config(**settings), "nano", (), "speecheq", data / "msud" / target, 1, phonemes, folder)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """SpeechEQ on SEQD and on CASIA, scored."""
    folders = {}
    for target in ("casia.speaker", "seqd.official"):
        folder = tmp_path_factory.mktemp("exp") / "nano-speecheq" / target / "fold1" / "seed1"
        train(job(data, folder, target))
        score(folder, data / "msud" / target, 1)
        folders[target.split(".")[0]] = folder
    return folders


# ---- the streams


def test_every_epoch_of_a_stream_holds_every_clip_once(data):
    cuts = training_cuts(data / "msud/casia.speaker/fold1/emotion.jsonl.gz")
    config = small_config(data__batch_size=7).data
    ids = sorted(cut.id for cut in cuts)
    orders = {0: [], 1: []}
    for batch in endless_stream("emotion", cuts, config, seed=3):
        if batch.position.epoch > 1:
            break
        assert len(batch.ids) >= 2  # batch norm needs two
        orders[batch.position.epoch].extend(batch.ids)
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == ids


def test_streams_are_reproducible_from_the_seed_and_cropped(data):
    cuts = training_cuts(data / "msud/casia.speaker/fold1/emotion.jsonl.gz")
    config = small_config(data__max_seconds=0.8).data

    def first(seed):
        stream = endless_stream("emotion", cuts, config, seed)
        return [next(stream) for _ in range(3)]

    one, again, other = first(1), first(1), first(2)
    assert all(torch.equal(a.inputs, b.inputs) and a.ids == b.ids for a, b in zip(one, again))
    assert any(a.ids != b.ids for a, b in zip(one, other))
    assert max(batch.inputs.shape[1] for batch in one) <= 81


@pytest.mark.parametrize("workers", [1, 3])
def test_loading_in_worker_processes_gives_the_same_batches(data, workers):
    cuts = training_cuts(data / "msud/casia.speaker/fold1/gender.jsonl.gz")
    here, there = (endless_stream("gender", cuts, small_config(data__workers=n).data, 1) for n in (0, workers))
    ended = 0
    while ended < 2:
        a, b = next(here), next(there)
        assert (a.position, a.last, a.ids) == (b.position, b.last, b.ids) and torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets["gender"], b.targets["gender"])
        ended += a.last


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_what_a_worker_cannot_read_is_one_sentence(data, workers, monkeypatch):
    cuts = training_cuts(data / "msud/casia.speaker/fold1/gender.jsonl.gz")
    third = [
        next(stream)
        for stream in [endless_stream("gender", cuts, small_config(data__workers=0).data, 1)]
        for _ in range(3)
    ][-1]
    load = batch_module.load_features

    def breaks(cut):
        if cut.id in third.ids:
            raise InputError(f"the features of {cut.id} cannot be read.")
        return load(cut)

    monkeypatch.setattr(batch_module, "load_features", breaks)
    stream = endless_stream("gender", cuts, small_config(data__workers=workers).data, 1)
    assert [next(stream).position.batch for _ in range(2)] == [0, 1]
    with pytest.raises(InputError) as refused:
        next(stream)
    assert str(refused.value) == f"the features of {third.ids[0]} cannot be read."


def test_phoneme_clips_are_whole_and_batches_bounded(data):
    cuts = training_cuts(data / "phonemes/aishell/train.jsonl.gz")
    frames = {cut.id: cut.num_frames for cut in cuts}
    stream = endless_stream(
        "phoneme", cuts, small_config(data__max_seconds=0.5, data__phoneme_batch_seconds=6.0).data, 1
    )
    for _ in range(5):
        batch = next(stream)
        assert batch.lengths.tolist() == [frames[name] for name in batch.ids]
        assert len(batch.ids) <= 4 or batch.lengths.sum() <= 600 + batch.lengths.max()


def test_a_crop_is_a_piece_of_the_clip(data):
    import random

    cut = next(iter(training_cuts(data / "msud/casia.speaker/fold1/emotion.jsonl.gz")))
    whole = collate("emotion", [cut]).inputs[0]
    piece = collate("emotion", [crop(cut, 0.5, random.Random(1))]).inputs[0]
    assert len(piece) == 50
    assert any(torch.equal(whole[start : start + 50], piece) for start in range(len(whole) - 49))


def test_target_only_leaves_the_other_corpora_out(data):
    path = data / "msud/casia.speaker/fold1/emotion.jsonl.gz"
    assert {cut.supervisions[0].custom["corpus"] for cut in training_cuts(path)} == {"casia", "seqd"}
    assert {cut.supervisions[0].custom["corpus"] for cut in training_cuts(path, "casia")} == {"casia"}


# ---- a step


def one_batch(data) -> MultitaskBatch:
    fold = data / "msud/seqd.official/fold1"
    sets = {name: training_cuts(fold / f"{name}.jsonl.gz") for name in ("emotion", "gender")}
    sets["phoneme"] = training_cuts(data / "phonemes/aishell/train.jsonl.gz")
    return next(multitask_batches(sets, small_config().data, 1))


def step(model, optimizer, batch, config):
    return train_step(model, optimizer, batch, StepSetup(config, "torch", FP32), LossWeights())


def test_passing_back_a_stream_at_a_time_is_the_gradient_of_equation_4(data):
    batch, config = one_batch(data), small_config(optim__clip_gradient=0.0, data__cmvn="none")
    torch.manual_seed(0)
    model = checkpoint.new_model(config)
    copy = checkpoint.new_model(config)
    copy.load_state_dict(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    losses = step(model, optimizer, batch, config)
    copy.train()
    total = sum(
        stream_loss(copy, name, stream, StepSetup(config, "torch", FP32), LossWeights()).total
        for name, stream in batch.streams().items()
    )
    total.backward()
    assert losses["total"] == pytest.approx(float(total.detach()), rel=1e-4)
    weights = config.loss
    by_hand = (
        losses["esc"]
        + weights.alpha * losses["eis"]
        + weights.beta * losses["phoneme"]
        + weights.eta * losses["gender"]
    )
    assert losses["total"] == pytest.approx(by_hand, rel=1e-5)
    for (name, mine), (_, theirs) in zip(model.named_parameters(), copy.named_parameters()):
        assert (mine.grad is None) == (theirs.grad is None), name
        if mine.grad is not None:
            assert torch.allclose(mine.grad, theirs.grad, atol=1e-4, rtol=1e-3), name


def test_a_step_lowers_the_loss_of_its_batch(data):
    batch, config = one_batch(data), small_config(data__cmvn="utterance")
    torch.manual_seed(0)
    model = checkpoint.new_model(config)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    totals = [step(model, optimizer, batch, config) for _ in range(15)]
    for task in ("esc", "eis", "gender", "phoneme"):
        assert totals[-1][task] < totals[0][task], task


def test_a_loss_that_is_not_finite_names_its_utterances(data):
    batch, config = one_batch(data), small_config(data__cmvn="none")
    broken = dataclasses.replace(batch.emotion, inputs=batch.emotion.inputs * math.nan)
    model = checkpoint.new_model(config)
    with pytest.raises(InputError, match=batch.emotion.ids[0]):
        step(model, torch.optim.SGD(model.parameters(), lr=0.1), MultitaskBatch(broken), config)


# ---- a training


def test_an_experiment_folder_holds_all_that_is_needed(trained):
    folder = trained["seqd"]
    run = json.loads((folder / "run.json").read_text())
    assert run["seed"] == 1 and run["fold"] == 1 and run["git"] and run["versions"]["torch"]
    assert run["steps"] == 45 and run["ctc_backend"] == "torch"
    log = (folder / "train.log").read_text()
    assert "best dev UA" in log and "CTC backend: torch" in log
    assert checkpoint.read_config(checkpoint.read(folder / "best.pt"), "best.pt") == small_config()
    assert list((folder / "tensorboard").glob("events.*"))


def test_tensorboard_has_every_loss_and_dev_score(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained["seqd"] / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    losses = ("total", "esc", "eis", "gender", "phoneme", "gradient_norm")
    assert {f"train/{name}" for name in (*losses, "learning_rate", "alpha", "beta", "eta")} <= tags
    assert {f"dev/{name}" for name in ("wa", "ua", "eis_mse", "eis_ccc", "gender", "per")} <= tags
    assert [event.step for event in events.Scalars("train/total")] == list(range(1, 46))
    pictures = events.Images("dev/confusion")
    assert pictures[-1].step == 45 and pictures[-1].encoded_image_string.startswith(b"\x89PNG")
    assert pictures[-1].height > 9 * 40 and pictures[-1].width > 9 * 40


def test_best_is_the_epoch_with_the_highest_dev_ua_and_of_equals_the_lowest_loss(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained["casia"] / "tensorboard"))
    events.Reload()
    best = checkpoint.read(trained["casia"] / "best.pt")
    merits = {
        ua.step: (ua.value, -loss.value) for ua, loss in zip(events.Scalars("dev/ua"), events.Scalars("dev/esc_loss"))
    }
    assert len(merits) >= 3 and len(set(merits.values())) > 1
    assert merits[best["step"]] == max(merits.values())
    assert best["dev"]["ua"] == pytest.approx(merits[best["step"]][0])


def test_the_same_seed_gives_the_same_weights_and_another_does_not(data, tmp_path):
    def weights(name, seed):
        train(job(data, tmp_path / name, run__seed=seed, optim__max_steps=3))
        return checkpoint.read(tmp_path / name / "last.pt")["model"]

    one, again, other = weights("one", 1), weights("again", 1), weights("other", 2)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_finished_training_is_skipped_and_other_settings_redo_it(data, tmp_path):
    folder = tmp_path / "run"
    train(job(data, folder, optim__max_steps=2))
    first = (folder / "last.pt").stat().st_mtime_ns
    train(job(data, folder, optim__max_steps=2))
    assert (folder / "last.pt").stat().st_mtime_ns == first
    train(job(data, folder, optim__max_steps=3))
    assert checkpoint.read(folder / "last.pt")["step"] == 3


def test_a_training_that_another_process_ends_meanwhile_is_left_as_it_is(data, tmp_path, monkeypatch):
    def written():
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}

    def needs_run(stage):
        looks.append(stage)
        return len(looks) == 1 or really_needed(stage)  # at the first look the other one had not ended

    train(job(data, tmp_path / "run", optim__max_steps=2))
    before, looks, really_needed = written(), [], Stage.needs_run
    monkeypatch.setattr(Stage, "needs_run", needs_run)
    train(job(data, tmp_path / "run", optim__max_steps=2))
    assert len(looks) == 2 and written() == before


# ---- what the paper does not have


def test_the_average_of_the_weights_is_what_is_scored_and_kept(data, tmp_path):
    """After the last epoch best.pt, chosen of one epoch, is last.pt's average, and its dev score that model's."""
    settings = dict(optim__ema=0.9, optim__epochs=1, optim__max_steps=None, data__corpora="target", loss__beta=0.0)
    train(job(data, tmp_path, with_phonemes=False, **settings))
    last, best = (checkpoint.read(tmp_path / name) for name in ("last.pt", "best.pt"))
    assert all(torch.equal(value, last["average"][name]) for name, value in best["model"].items())
    assert not torch.equal(last["average"]["model.esc_head.weight"], last["model"]["model.esc_head.weight"])
    dev = list(training_cuts(data / "msud/casia.speaker/fold1/dev.jsonl.gz"))
    model, config, _ = checkpoint.load_model(tmp_path / "best.pt")
    predictions = predict_emotions(model, dev, 8, CPU)
    assert best["dev"]["ua"] == pytest.approx(
        balanced_accuracy_score([p.gold_esc for p in predictions], [p.predicted_esc for p in predictions])
    )


def test_without_an_average_the_checkpoint_has_none(trained):
    assert checkpoint.read(trained["casia"] / "last.pt")["average"] is None


@pytest.mark.parametrize("corpora", ["all", "target"])
def test_classes_are_weighed_by_their_training_clips(data, tmp_path, monkeypatch, corpora):
    seen, original = [], trainer.train_step
    monkeypatch.setattr(trainer, "train_step", lambda *given: seen.append(given[3].class_weights) or original(*given))
    settings = dict(loss__class_balance="inverse", optim__max_steps=1, data__corpora=corpora)
    train(job(data, tmp_path, **settings))
    cuts = training_cuts(data / "msud/casia.speaker/fold1/emotion.jsonl.gz", "casia" if corpora == "target" else None)
    classes = np.array([cut.supervisions[0].custom["class"] for cut in cuts])
    counts = np.bincount(classes, minlength=9)
    for number, weight in enumerate(seen[0].tolist()):
        present = np.count_nonzero(counts)
        expected = len(classes) / (present * counts[number]) if counts[number] else 0.0
        assert weight == pytest.approx(expected)


# ---- starting from another training


def test_a_training_starts_from_the_weights_of_another(trained, data, tmp_path, caplog):
    start = trained["seqd"] / "best.pt"
    job_here = job(data, tmp_path, optim__max_steps=1, optim__learning_rate=0.0, optim__weight_decay=0.0)
    train(dataclasses.replace(job_here, init_from=start))
    old, new = checkpoint.read(start), checkpoint.read(tmp_path / "last.pt")
    for name, value in old["model"].items():
        if "running_" not in name and "num_batches" not in name:
            assert torch.equal(value, new["model"][name]), name
    assert "new, for other labels: nothing" in caplog.text
    assert json.loads((tmp_path / "run.json").read_text())["init_from"] == str(start)
    assert json.loads((tmp_path / "stage.json").read_text())["options"]["init_from"] == checkpoint.fingerprint(start)
    train(dataclasses.replace(job_here, init_from=start))
    assert "already done" in caplog.text
    train(job_here)  # without it, it is another training
    assert not torch.equal(
        checkpoint.read(tmp_path / "last.pt")["model"]["model.esc_head.weight"], old["model"]["model.esc_head.weight"]
    )


def test_other_labels_get_a_head_of_their_own(trained, data, tmp_path, caplog):
    recipe = Recipe("casia", "speaker", ["casia"], classes="corpus")
    unify(recipe, "1", data / "manifests", data / "fbank", tmp_path / "msud")
    (msud,) = (tmp_path / "msud").iterdir()
    start = trained["seqd"] / "best.pt"
    settings = dict(optim__max_steps=1, optim__learning_rate=0.0, optim__weight_decay=0.0, data__cmvn="utterance")
    train(dataclasses.replace(job(data, tmp_path / "run", **settings), msud=msud, init_from=start))
    old, (_, config, new) = checkpoint.read(start), checkpoint.load_model(tmp_path / "run" / "best.pt")
    assert "new, for other labels: esc_head" in caplog.text and len(new["classes"]) == 6
    assert new["model"]["model.esc_head.weight"].shape[0] == 6
    for name in ("model.phoneme_head.weight", "model.backbone.fc.weight", "model.gender_head.bias", "cmvn.mean"):
        assert torch.equal(old["model"][name], new["model"][name]), name
    assert config.data.cmvn == "global"  # what the weights have learned with


def test_a_head_for_other_labels_of_the_same_number_is_new_too(trained):
    content = checkpoint.read(trained["seqd"] / "best.pt")
    model = checkpoint.new_model(checkpoint.read_config(content, "best.pt"))
    before = model.model.esc_head.weight.clone()
    other = seqm.ClassTable(tuple(reversed(SEQM_CLASSES.names)), tuple(reversed(SEQM_CLASSES.categories)))
    assert checkpoint.start_from(model, content, other, content["phones"]) == ["esc_head"]
    assert torch.equal(model.model.esc_head.weight, before)
    assert checkpoint.start_from(model, content, SEQM_CLASSES, []) == []  # no phonemes are learned here


def test_a_backbone_of_another_shape_is_refused(trained, data, tmp_path):
    start = trained["seqd"] / "best.pt"
    other = job(data, tmp_path)
    other.config.model.channels, other.config.model.res_bigru = 32, "none"
    with pytest.raises(InputError) as refused:
        check(dataclasses.replace(other, init_from=start))
    assert str(refused.value).startswith(
        f"{start}: its backbone has model.channels=16, model.res_bigru=before_se, this training's 32, none;"
    )
    with pytest.raises(InputError, match="nowhere.pt: the checkpoint does not exist"):
        check(dataclasses.replace(other, init_from=tmp_path / "nowhere.pt"))


def test_epochs_end_a_training_too(data, tmp_path):
    config = dict(optim__max_steps=None, optim__epochs=1, data__corpora="target", loss__beta=0.0, loss__eta=0.0)
    train(job(data, tmp_path / "run", with_phonemes=False, **config))
    content = checkpoint.read(tmp_path / "run" / "last.pt")
    clips = json.loads((data / "msud/casia.speaker/fold1/msud.json").read_text())["sets"]["emotion"]["corpus"]["casia"]
    assert content["epoch"] == 1 and content["step"] >= clips / 8
    assert content["phones"] == []


@pytest.fixture
def poisoned(data, monkeypatch):
    """``poisoned(share)``: so large a part of the emotion clips (at least one) have features that are not numbers."""

    def poison(share):
        path = data / "msud/casia.speaker/fold1/emotion.jsonl.gz"
        ids = sorted(cut.id for cut in training_cuts(path))
        bad = set(ids[: max(1, round(share * len(ids)))])
        load = batch_module.load_features
        monkeypatch.setattr(batch_module, "load_features", lambda cut: load(cut) * (math.nan if cut.id in bad else 1.0))
        return bad

    return poison


def test_a_step_that_is_not_finite_is_skipped_and_its_batch_kept(data, tmp_path, poisoned, caplog):
    settings = dict(data__cmvn="none", loss__beta=0.0, loss__eta=0.0, optim__epochs=1, optim__max_steps=None)
    (bad,) = poisoned(0.0)
    train(job(data, tmp_path, with_phonemes=False, **settings))
    (path,) = tmp_path.glob("bad_step*.pt")
    number = int(path.stem[len("bad_step") :])
    content = torch.load(path, weights_only=True)
    assert bad in content["emotion"]["ids"] and content["emotion"]["inputs"].isnan().any()
    assert f"Step {number} is skipped" in caplog.text and bad in caplog.text
    last = checkpoint.read(tmp_path / "last.pt")
    assert all(torch.isfinite(value).all() for value in last["model"].values() if value.is_floating_point())
    assert last["bad_steps"] == 0 and last["step"] > number


def test_too_many_steps_in_a_row_that_are_not_finite_end_the_training(data, tmp_path, poisoned):
    poisoned(1.0)
    settings = dict(data__cmvn="none", optim__max_bad_steps=3, optim__max_steps=9)
    with pytest.raises(InputError, match=r"the loss of the emotion batch is nan .* the last of 3 in a row"):
        train(job(data, tmp_path, **settings))
    assert sorted(path.name for path in tmp_path.glob("bad_step*.pt")) == [f"bad_step{n}.pt" for n in (1, 2, 3)]
    assert not (tmp_path / "stage.json").exists()


def test_the_largest_batch_holds_the_longest_clips(data):
    fold = data / "msud/seqd.official/fold1"
    sets = {
        "emotion": training_cuts(fold / "emotion.jsonl.gz"),
        "phoneme": training_cuts(data / "phonemes/aishell/train.jsonl.gz"),
    }
    config = small_config(data__max_seconds=1.0, data__phoneme_batch_seconds=8.0, data__batch_size=6).data
    batch = largest_batch(sets, config)
    longest = {name: max(cut.duration for cut in cuts) for name, cuts in sets.items()}
    assert batch.gender is None and len(batch.emotion.ids) == 6 and batch.emotion.inputs.shape[1] == 100
    assert batch.phoneme.inputs.shape[1] == pytest.approx(100 * longest["phoneme"], abs=1)
    assert len(batch.phoneme.ids) == max(2, int(8.0 / longest["phoneme"]))


def test_a_precision_that_the_device_lacks_is_said_before_training(data, tmp_path):
    with pytest.raises(InputError, match="run.precision is fp16, which needs a GPU"):
        check(job(data, tmp_path, run__precision="fp16", run__device="cpu"))


def test_training_in_bf16(data, tmp_path):
    train(job(data, tmp_path, run__precision="bf16", optim__max_steps=3))
    model, config, _ = checkpoint.load_model(tmp_path / "best.pt")
    assert config.run.precision == "bf16"
    assert {value.dtype for value in model.state_dict().values()} <= {torch.float32, torch.int64}


def test_of_trainings_at_once_the_first_that_fails_ends_all(data, tmp_path):
    from speecheq.cli.training import train_together

    lost = dataclasses.replace(job(data, tmp_path / "lost"), msud=tmp_path / "nothing")
    jobs = [
        job(data, tmp_path / "good", optim__max_steps=1),
        lost,
        job(data, tmp_path / "never", optim__max_steps=9999),
    ]
    with pytest.raises(InputError, match="lost: the training failed"):
        train_together(jobs, 2)
    assert not (tmp_path / "never" / "stage.json").exists()


def test_a_system_with_phonemes_needs_a_phoneme_corpus(data, tmp_path):
    with pytest.raises(InputError, match="--aishell DIR"):
        train(job(data, tmp_path / "run", with_phonemes=False))


def test_k2_asked_for_and_not_importable_is_one_sentence(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "k2", None)
    with pytest.raises(InputError, match="k2 is set as CTC backend"):
        train(job(data, tmp_path / "run", loss__ctc_backend="k2"))


def test_training_and_scoring_with_k2(data, tmp_path):
    pytest.importorskip("k2", reason="needs the k2 stack")
    train(job(data, tmp_path / "run", loss__ctc_backend="k2", optim__max_steps=3))
    metrics = score(tmp_path / "run", data / "msud/casia.speaker", 1)
    assert metrics["run"]["ctc_backend"] == "k2" and metrics["test.per"] is not None


def lattice_job(data: Path, folder: Path, **settings) -> Job:
    """A training on the phoneme cuts with all pronunciations and pauses, which the first such job makes."""
    phones = data / "phonemes" / "aishell.all.silence"
    phonemes("aishell", data / "manifests", data / "fbank", phones, pronunciations="all", silence="optional")
    return dataclasses.replace(job(data, folder, optim__max_steps=3, **settings), phonemes=phones)


def test_training_and_scoring_with_lattices(data, tmp_path, caplog):
    pytest.importorskip("k2", reason="needs the k2 stack")
    lattices = {"phonemes__pronunciations": "all", "phonemes__silence": "optional", "loss__ctc_backend": "auto"}
    train(lattice_job(data, tmp_path / "run", **lattices))
    metrics = score(tmp_path / "run", data / "msud/casia.speaker", 1)
    run = metrics["run"]
    assert (run["ctc_backend"], run["pronunciations"], run["silence"]) == ("k2", "all", "optional")
    assert metrics["test.per"] > 0 and "<sil>" not in (tmp_path / "run" / "phones.tsv").read_text(encoding="utf-8")
    loaded = checkpoint.load_model(tmp_path / "run" / "best.pt")
    assert loaded[1].model.num_phones == 203 and loaded[2]["phones"][-1] == "<sil>"
    # the same cuts serve a training on first pronunciations, with torch's CTC
    train(lattice_job(data, tmp_path / "first"))
    assert score(tmp_path / "first", data / "msud/casia.speaker", 1)["run"]["ctc_backend"] == "torch"


def test_cuts_without_all_pronunciations_are_refused(data, tmp_path):
    with pytest.raises(InputError, match="phonemes.pronunciations is all, but .*aishell was written without"):
        check(job(data, tmp_path / "run", phonemes__pronunciations="all"))


def test_a_stage_that_has_not_run_is_named(data, tmp_path):
    with pytest.raises(InputError, match="stage 3"):
        train(Job(small_config(), "nano", (), "speecheq", tmp_path / "nothing", 1, None, tmp_path / "run"))
    with pytest.raises(InputError, match="stage 4"):
        score(tmp_path / "nothing", data / "msud/casia.speaker", 1)


def test_a_gpu_that_is_not_there_is_said_before_training(data, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="the device is set to 'cuda', but torch finds no GPU; use cpu or auto"):
        check(job(data, tmp_path, run__device="cuda"))


def test_a_fold_that_was_not_made_names_its_stage(data, tmp_path):
    with pytest.raises(InputError, match="fold7.*stage 3"):
        check(dataclasses.replace(job(data, tmp_path), fold=7))


def test_features_that_are_cut_short_name_their_archive(data, tmp_path):
    cut = list(training_cuts(data / "msud/casia.speaker/fold1/emotion.jsonl.gz"))[-1]
    archive = tmp_path / "features.lca"
    archive.write_bytes(Path(cut.features.storage_path).read_bytes()[:50])
    cut.features = dataclasses.replace(cut.features, storage_path=str(archive))
    with pytest.raises(InputError, match="features.lca: the features of .* cannot be read .*; run stage 2 again"):
        collate("emotion", [cut])
    archive.unlink()
    with pytest.raises(InputError, match="features.lca: the features of .* cannot be read .*; run stage 2 again"):
        collate("emotion", [cut])


def test_a_set_without_clips_is_refused(tmp_path):
    CutSet.from_cuts([]).to_file(tmp_path / "emotion.jsonl.gz")
    with pytest.raises(InputError, match="emotion.jsonl.gz: holds no cut of casia, the only corpus that this system"):
        training_cuts(tmp_path / "emotion.jsonl.gz", "casia")


def test_a_checkpoint_that_is_cut_short_is_named(trained, tmp_path):
    whole = (trained["casia"] / "best.pt").read_bytes()
    (tmp_path / "best.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a complete checkpoint"):
        checkpoint.load_model(tmp_path / "best.pt")


def test_a_full_disk_leaves_no_half_written_checkpoint(tmp_path):
    """The limit on the size of a file stands in for the full disk: the write fails in the same place."""
    program = """
        import resource, sys
        from pathlib import Path
        from speecheq.models import checkpoint
        from speecheq.config.schema import Config
        from speecheq.common.errors import InputError
        from speecheq.seqm import SEQM_CLASSES
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        config = Config()
        config.model.channels, config.model.mfa_channels = 64, 64
        try:
            checkpoint.save(Path(sys.argv[1]), checkpoint.new_model(config), config, SEQM_CLASSES, [])
        except InputError as error:
            print(error)
    """
    path = tmp_path / "last.pt"
    path.write_bytes(b"the one before")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(path)], capture_output=True, text=True, cwd=ROOT
    )
    assert "last.pt: could not be written" in done.stdout, done.stderr
    assert path.read_bytes() == b"the one before" and list(tmp_path.iterdir()) == [path]


def test_checkpoints_round_trip_numbers_exactly(tmp_path):
    config = small_config()
    model = checkpoint.new_model(config, mean=np.linspace(-9, 3, 80), deviation=np.linspace(1, 2, 80))
    state = {"numbers": [0.1, -1e-300, (1, 2.5)], "none": None, "text": "float", "deep": {3: {"x": 1 / 3}}}
    checkpoint.save(tmp_path / "c.pt", model, config, SEQM_CLASSES, ["sil", "a1"], **state)
    content = checkpoint.read(tmp_path / "c.pt")
    assert {name: content[name] for name in state} == state and content["phones"] == ["sil", "a1"]
    loaded, loaded_config, _ = checkpoint.load_model(tmp_path / "c.pt")
    assert loaded_config == config
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values()))


# ---- scores and tables


def test_metrics_of_casia_have_no_eis_and_those_of_seqd_do(trained):
    casia = json.loads((trained["casia"] / "metrics.json").read_text())
    seqd = json.loads((trained["seqd"] / "metrics.json").read_text())
    for metrics in (casia, seqd):
        assert all(0 <= metrics[f"test.{name}"] <= 1 for name in ("wa", "ua", "gender"))
        assert metrics["test.per"] > 0 and metrics["test.per_of_constant"] > 0
    assert casia["test.eis_mse"] is None and casia["test.eis_ccc"] is None
    assert seqd["test.eis_mse"] > 0 and -1 <= seqd["test.eis_ccc"] <= 1
    # SEQD has a fixed test part, so CASIA's model is scored on it too
    assert casia["test_seqd.eis_mse"] > 0
    assert casia["test_seqd.clips"] == seqd["test.clips"]


def test_scores_tsv_gives_the_metrics_again(trained):
    metrics = json.loads((trained["casia"] / "metrics.json").read_text())
    predictions = read_scores(trained["casia"] / "scores.tsv")["test"]
    gold, predicted = [p.gold_esc for p in predictions], [p.predicted_esc for p in predictions]
    assert metrics["test.wa"] == pytest.approx(accuracy_score(gold, predicted))
    assert metrics["test.ua"] == pytest.approx(balanced_accuracy_score(gold, predicted))
    assert all(sum(p.posterior) == pytest.approx(1, abs=1e-4) for p in predictions)
    assert len({p.speaker for p in predictions}) == 1  # the fold leaves one speaker out


def test_scores_do_not_depend_on_the_batch(trained, data):
    model, _, _ = checkpoint.load_model(trained["casia"] / "best.pt")
    cuts = list(CutSet.from_jsonl_lazy(data / "msud/casia.speaker/fold1/test.jsonl.gz"))
    many, one = (predict_emotions(model, cuts, size, CPU) for size in (16, 1))
    for a, b in zip(many, one):
        assert a.id == b.id and a.posterior == pytest.approx(b.posterior, abs=1e-4)
        assert a.predicted_eis == pytest.approx(b.predicted_eis, abs=1e-3)
    cuts = list(CutSet.from_jsonl_lazy(data / "phonemes/aishell/test.jsonl.gz"))
    assert predict_phones(model, cuts, 16, CPU) == predict_phones(model, cuts, 1, CPU)


def summarised(experiment):
    return summarise(experiment, scored_folders(experiment)[0]).summary


def test_an_experiment_is_averaged_and_pooled(trained, data, tmp_path):
    target = tmp_path / "exp" / "nano-speecheq" / "casia.speaker"
    for seed in (1, 2):
        folder = target / "fold1" / f"seed{seed}"
        train(job(data, folder, run__seed=seed, optim__max_steps=4))
        score(folder, data / "msud/casia.speaker", 1)
    summary = summarised(target)
    each = [json.loads((target / "fold1" / f"seed{seed}" / "metrics.json").read_text()) for seed in (1, 2)]
    assert summary["test.ua"] == pytest.approx(np.mean([m["test.ua"] for m in each]))
    assert summary["std.test.ua"] == pytest.approx(np.std([m["test.ua"] for m in each], ddof=1))
    assert summary["run"]["seeds"] == [1, 2] and summary["test.eis_mse"] is None
    page = report.report(tmp_path / "exp", "a test", tmp_path / "RESULTS.md")
    assert page == (tmp_path / "RESULTS.md").read_text()
    line, other, *_ = (line for line in page.splitlines() if line.startswith("| speecheq |"))
    assert f"{100 * summary['test.wa']:.2f}" in line and "1 of 4" in line and "n/a" in other
    assert "## casia, speaker: test clips of seqd" in page
    # from the score files alone
    (target / "metrics.json").unlink()
    for path in target.glob("*/*/*.pt"):
        path.unlink()
    score(target / "fold1/seed1", data / "msud/casia.speaker", 1)
    assert summarised(target) == summary
    # what is not whole is scored again, which takes the checkpoint
    scores = (target / "fold1/seed1/scores.tsv").read_text()
    (target / "fold1/seed1/scores.tsv").write_text(scores[:-40])
    with pytest.raises(InputError, match="best.pt: is missing or has changed since stage 4 .train."):
        score(target / "fold1/seed1", data / "msud/casia.speaker", 1)


def test_scores_that_are_not_whole_are_made_again(trained, data, tmp_path):
    folder = tmp_path / "nano-speecheq" / "casia.speaker" / "fold1" / "seed1"
    shutil.copytree(trained["casia"], folder)
    whole = (folder / "scores.tsv").read_bytes()
    score(folder, data / "msud/casia.speaker", 1)  # a copy elsewhere has another key
    (folder / "scores.tsv").write_bytes(whole[: len(whole) // 2])
    score(folder, data / "msud/casia.speaker", 1)
    assert (folder / "scores.tsv").read_bytes() == whole


def test_embeddings_are_what_the_heads_read(trained):
    model, _, _ = checkpoint.load_model(trained["casia"] / "best.pt")
    clips = read_scores(trained["casia"] / "scores.tsv")["test"]
    embeddings = read_embeddings(trained["casia"] / "embeddings.npz", [clip.id for clip in clips])
    with torch.no_grad():
        posteriors = model.model.esc_head(torch.from_numpy(embeddings).float()).softmax(1)
    assert posteriors.numpy() == pytest.approx(np.array([clip.posterior for clip in clips]), abs=0.01)


def test_a_scored_folder_is_completed_without_being_scored_again(trained, data, tmp_path, caplog):
    """Embeddings that an older version did not keep, and on request the target's training clips."""
    folder, msud = tmp_path / "nano-speecheq" / "casia.speaker" / "fold1" / "seed1", data / "msud/casia.speaker"
    shutil.copytree(trained["casia"], folder)
    score(folder, msud, 1)
    kept = {name: (folder / name).stat().st_mtime_ns for name in ("scores.tsv", "metrics.json", "phones.tsv")}
    embeddings = (folder / "embeddings.npz").read_bytes()
    (folder / "embeddings.npz").unlink()
    shutil.rmtree(folder / "scored_embeddings")
    assert not (folder / "train_scores.tsv").exists()
    metrics = score(folder, msud, 1, training_clips=True)
    assert (folder / "embeddings.npz").read_bytes() == embeddings
    sets = read_scores(folder / "train_scores.tsv")
    cuts = list(CutSet.from_jsonl_lazy(msud / "fold1/emotion.jsonl.gz"))
    own = [cut.id for cut in cuts if cut.supervisions[0].custom["corpus"] == "casia"]
    assert [clip.id for clip in sets["train"]] == own and list(sets) == ["train"] and len(own) < len(cuts)
    # both are done once and for all, and nothing else was touched
    for name in ("best.pt", "last.pt"):
        (folder / name).unlink()
    caplog.clear()
    assert score(folder, msud, 1, training_clips=True) == metrics
    assert caplog.text.count("already done") == 3
    assert kept == {name: (folder / name).stat().st_mtime_ns for name in kept}
    # without the checkpoint there are scores, but no embeddings, and no training clips can be scored
    (folder / "embeddings.npz").unlink()
    assert score(folder, msud, 1) == metrics
    assert "best.pt does not exist any more, so no embeddings are made" in caplog.text
    with planning() as missing:
        score(folder, msud, 1)
    assert missing == [], "no job would make them"
    (folder / "train_scores.tsv").unlink()
    with pytest.raises(InputError, match="best.pt: is missing or has changed since stage 4 .train."):
        score(folder, msud, 1, training_clips=True)


def test_a_new_training_leaves_nothing_of_the_old_ones_scores(trained, data, tmp_path):
    folder = tmp_path / "nano-speecheq" / "casia.speaker" / "fold1" / "seed1"
    shutil.copytree(trained["casia"], folder)
    (folder / "train_scores.tsv").write_text("of the old model\n")
    train(job(data, folder, optim__max_steps=2))
    left = {path.name for path in folder.iterdir()}
    assert not left & {"scores.tsv", "phones.tsv", "metrics.json", "train_scores.tsv", "embeddings.npz"}


def test_a_training_without_the_target_has_no_training_clips_of_it(data, tmp_path, caplog):
    unify(Recipe("casia", "cross", ["casia", "seqd"]), "1", data / "manifests", data / "fbank", tmp_path / "msud")
    folder = tmp_path / "run"
    cross = dataclasses.replace(
        job(data, folder, with_phonemes=False, optim__max_steps=2, loss__beta=0.0), msud=tmp_path / "msud/casia.cross"
    )
    train(cross)
    caplog.set_level("INFO")
    score(folder, tmp_path / "msud/casia.cross", 1, training_clips=True)
    assert "trains on no clip of casia, so no training clip of it is scored" in caplog.text
    assert (folder / "embeddings.npz").is_file() and not (folder / "train_scores.tsv").exists()


def test_names_in_scores_are_those_of_the_predicted_point(trained):
    with open(trained["seqd"] / "scores.tsv", encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            emotion = seqm.EMOTIONS[row["name"]]
            assert emotion.category == row["predicted_esc"]
            assert emotion.level in (None, seqm.level_from_eis(float(row["predicted_eis"])))


def test_a_stream_moves_to_a_device_and_keeps_lengths_and_labels_here():
    stream = TaskBatch(torch.zeros(2, 3, 80), torch.tensor([3, 2]), ["a", "b"], {"esc": torch.tensor([1, 2])})
    moved = stream.to(torch.device("meta"))
    assert moved.inputs.device.type == "meta"
    assert moved.lengths.device.type == moved.targets["esc"].device.type == "cpu"


def test_folds_of_different_settings_are_not_averaged(trained, data, tmp_path):
    experiment = tmp_path / "exp" / "nano-speecheq" / "casia.speaker"
    shutil.copytree(trained["casia"], experiment / "fold1" / "seed1")
    other = experiment / "fold1" / "seed2"
    train(job(data, other, run__seed=2, loss__gamma=0.0, optim__max_steps=45))
    score(other, data / "msud/casia.speaker", 1)
    with pytest.raises(InputError, match="differ in loss.gamma"):
        summarised(experiment)


def test_utterances_too_short_for_their_phones_are_named(data, caplog):
    batch, config = one_batch(data), small_config(data__cmvn="none")
    phones = [torch.arange(1, 200)] + batch.phoneme.targets["phones"][1:]
    short = dataclasses.replace(batch.phoneme, targets={"phones": phones}, lengths=batch.phoneme.lengths.clone())
    short.lengths[0] = 50
    model = checkpoint.new_model(config)
    batch = MultitaskBatch(batch.emotion, None, short)
    losses = step(model, torch.optim.SGD(model.parameters(), lr=0.1), batch, config)
    assert losses["ctc_left_out"] == 1 and short.ids[0] in caplog.text


def test_utterances_without_a_path_after_pruning_are_named(data, caplog, monkeypatch):
    batch, config = one_batch(data), small_config(data__cmvn="none")

    def lose_the_first(*given):
        found = ctc_loss(*given)
        lost = torch.arange(len(found.feasible)) == 0
        return dataclasses.replace(found, feasible=found.feasible & ~lost, pathless=lost)

    monkeypatch.setattr("speecheq.training.step.ctc_loss", lose_the_first)
    model = checkpoint.new_model(config)
    losses = step(model, torch.optim.SGD(model.parameters(), lr=0.1), batch, config)
    assert losses["ctc_left_out"] == 1
    assert f"{batch.phoneme.ids[0]} (no path is left after pruning)" in caplog.text


def test_where_it_runs_does_not_redo_a_training(data, tmp_path, caplog):
    train(job(data, tmp_path / "run", optim__max_steps=2))
    train(job(data, tmp_path / "run", optim__max_steps=2, run__threads=1, data__workers=1))
    assert "already done" in caplog.text
