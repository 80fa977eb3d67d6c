"""Trainings with the encoder in them: what they change, what checkpoints hold, resuming, scoring, several processes."""

import dataclasses

import pytest
import torch
from encoder_models import write_whisper
from training_runs import assert_same, make_toy_data, run_program, scalars, toy_job

from speecheq.common.errors import InputError
from speecheq.config.encoder import ENCODER_TRAINING
from speecheq.config.layers import learned
from speecheq.config.schema import Config
from speecheq.dataset.batch import load_samples
from speecheq.dataset.lazy_cuts import open_cuts
from speecheq.dataset.model_inputs import ModelInputs, waveform_extractor
from speecheq.evaluation.predictions import esc_loss, predict_emotions
from speecheq.evaluation.robustness.attack_trial import AttackTrial
from speecheq.evaluation.score import BestModel
from speecheq.features.encoder_states import encoder_settings
from speecheq.features.encoders import encoder_digest, make_trainable
from speecheq.models import checkpoint
from speecheq.training import trainer
from speecheq.training.optimizer import AverageModel, build_optimizer
from speecheq.training.train import train

CPU = torch.device("cpu")


def settings_of(whisper, **more):
    """Settings of a light model of two layers of the tiny Whisper in the folder ``whisper``, from waveforms."""
    off = {f"augment__{change}_probability": 0.0 for change in ("pitch", "tempo", "reverb", "noise")}
    encoder = Config().encoder
    encoder.model, encoder.layers, encoder.dim = str(whisper), "1 2", 8
    encoder.digest = encoder_digest(encoder_settings(encoder))
    given = {f"encoder__{item.name}": getattr(encoder, item.name) for item in dataclasses.fields(encoder)}
    model = dict(kind="light", encoder_layers=2, encoder_dim=8, feature_dim=16, projection=8, dropout=0.2)
    given.update({f"model__{name}": value for name, value in model.items()})
    given.update(data__features="tiny", data__input="waveform", optim__max_steps=9, **off)
    given.update(encoder__learning_rate=1e-2, encoder__lora_rank=2)
    return {**given, **more}


@pytest.fixture(scope="module")
def data(toys, tmp_path_factory):
    """Toy CASIA and AISHELL-1 with filter banks, and a tiny Whisper."""
    folder = make_toy_data(toys, tmp_path_factory.mktemp("toy"), "casia", "speaker")
    write_whisper(folder / "whisper", layers=3, dim=8)
    return folder


@pytest.fixture(scope="module")
def run(data):
    """``run(folder, encoder__train="lora", ...)``: a training into ``folder``, which it returns."""

    def training(folder, **more):
        train(toy_job(data, folder, **settings_of(data / "whisper", **more)))
        return folder

    return training


@pytest.fixture(scope="module")
def lora(run, tmp_path_factory):
    return run(tmp_path_factory.mktemp("lora"), encoder__train="lora", optim__ema=0.9)


def test_checkpoints_hold_only_what_was_trained(lora):
    last, best = (checkpoint.read(lora / name) for name in ("last.pt", "best.pt"))
    for content in (last, best):
        assert not any("extractor" in name for name in content["model"])
        assert len(content["encoder"]) == 2 * 2 * 4  # two matrices, two blocks, four layers of weights
        assert all(name.startswith("network.blocks.") for name in content["encoder"])
        assert sum(value.numel() for value in content["encoder"].values()) < 1000
    moved = [value for name, value in last["encoder"].items() if name.endswith(".b")]
    assert all(value.any() for value in moved)
    # best.pt holds the moving average
    assert all(torch.equal(value, last["average_encoder"][name]) for name, value in best["encoder"].items()) or (
        last["best"]["step"] < last["step"]
    )
    assert not torch.equal(last["average_encoder"][name := next(iter(last["encoder"]))], last["encoder"][name])


def test_scoring_takes_the_trained_encoder(lora, data):
    """The dev loss that the training found, with LoRA beside the weights, is that of the encoder put together."""
    trained = BestModel.load(lora)
    cuts = list(open_cuts(data / "msud/casia.speaker/fold1/dev.jsonl.gz"))
    expected = trained.checkpoint["dev"]["esc_loss"]
    found = predict_emotions(trained.model, cuts, 4, CPU, inputs=trained.inputs)
    assert esc_loss(found) == pytest.approx(expected, rel=1e-4)
    untrained = waveform_extractor(trained.config)
    samples, lengths = torch.randn(1, 4000), torch.tensor([4000])
    own = waveform_extractor(trained.config, trained.model.trained_encoder)
    assert (own(samples, lengths)[0] - untrained(samples, lengths)[0]).abs().max() > 1e-3
    # attacks on waveforms go through it
    extractors, _ = AttackTrial(on="waveform", methods=("fgsm",), levels=(-20.0,)).extractors(lora, trained)
    clean, attacked = (
        predict_emotions(trained.model, cuts, 4, CPU, inputs=ModelInputs(load_samples, extract))
        for extract in extractors.values()
    )
    assert esc_loss(clean) == pytest.approx(expected, rel=1e-4) and esc_loss(attacked) >= 0.99 * expected


def test_frozen_for_the_whole_training_it_is_that_of_a_frozen_encoder(run, tmp_path):
    frozen = checkpoint.read(run(tmp_path / "frozen") / "last.pt")
    found = checkpoint.read(run(tmp_path / "lora", encoder__train="lora", encoder__frozen_steps=9) / "last.pt")
    assert "encoder" not in frozen
    assert not any(value.any() for name, value in found["encoder"].items() if name.endswith(".b"))
    for name, value in frozen["model"].items():
        assert torch.equal(value, found["model"][name]), name


def test_frozen_first_then_trained(run, tmp_path):
    """Three of nine steps are frozen: the encoder differs from one that is trained from the start."""
    folders = [run(tmp_path / str(steps), encoder__train="top:1", encoder__frozen_steps=steps) for steps in (0, 3)]
    always, later = (checkpoint.read(folder / "last.pt")["encoder"] for folder in folders)
    assert all(name.startswith("network.blocks.1.") for name in later)
    assert any(not torch.equal(value, later[name]) for name, value in always.items())


@pytest.mark.parametrize("how", ["lora", "all"])
def test_an_interrupted_training_ends_as_one_that_was_not(run, tmp_path, monkeypatch, how):
    settings = dict(encoder__train=how, encoder__frozen_steps=2, encoder__layer_decay=0.7, optim__ema=0.9)
    settings["optim__optimizer"] = "adamw"
    run(tmp_path / "whole", **settings)
    original, calls = trainer.train_step, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(trainer, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", **settings)
    monkeypatch.undo()
    assert checkpoint.read(tmp_path / "broken" / "last.pt")["step"] in (3, 4, 5)
    run(tmp_path / "broken", **settings)
    assert_same(tmp_path / "whole", tmp_path / "broken")


def test_learning_rates_of_the_groups(data):
    config = toy_job(
        data, data, **settings_of(data / "whisper", encoder__train="top:2", encoder__layer_decay=0.5)
    ).config
    extractor = waveform_extractor(config)

    factors = make_trainable(extractor, config.encoder)
    model = checkpoint.new_model(config, extractor=extractor, factors=factors)
    for kind, groups_each in (("adam", 1), ("adamw", 2)):
        config.optim.optimizer = kind
        groups = build_optimizer(model, config.optim, 1e-2).param_groups
        assert [group.get("lr_scale") for group in groups] == [None] * groups_each + [10.0] * groups_each + [
            5.0
        ] * groups_each  # optim.learning_rate is 1e-3
        counted = sum(len(group["params"]) for group in groups)
        assert counted == sum(value.requires_grad for value in model.parameters())
    # the moving average copies what is trained, and shares the rest
    average = dict(AverageModel(model, 0.9).model.named_parameters())
    for name, value in model.named_parameters():
        assert (average[name] is value) == (not value.requires_grad), name


@pytest.mark.parametrize("how", ["lora", "all"])
def test_bf16_is_near_fp32(run, tmp_path, how):
    curves = []
    for precision in ("fp32", "bf16"):
        folder = tmp_path / precision
        run(folder, encoder__train=how, encoder__learning_rate=1e-3, run__precision=precision, optim__max_steps=4)
        curves.append([value for _, value in scalars(folder)["train/total"]])
        assert all(value.dtype == torch.float32 for value in checkpoint.read(folder / "last.pt")["encoder"].values())
    assert curves[1] == pytest.approx(curves[0], rel=0.2) and curves[1] != curves[0]
    assert curves[1][0] == pytest.approx(curves[0][0], rel=0.05)  # before the steps add up


def test_another_encoder_and_a_checkpoint_without_its_part_are_refused(lora, data, tmp_path):
    content = checkpoint.read(lora / "best.pt")
    without = {key: value for key, value in content.items() if key != "encoder"}
    with pytest.raises(InputError, match="lacks what its training made of the encoder"):
        checkpoint.restore(without, "it")
    config = checkpoint.read_config(content, "it")
    config.encoder.model = str(write_whisper(tmp_path / "other", layers=2, dim=8))
    with pytest.raises(InputError, match="is not the encoder that the model was trained with"):
        waveform_extractor(config, content["encoder"])


def test_starting_from_a_model_with_a_trained_encoder(lora, data, tmp_path):
    job = toy_job(
        data, tmp_path / "next", **settings_of(data / "whisper", encoder__train="lora", encoder__frozen_steps=9)
    )
    train(dataclasses.replace(job, init_from=lora / "best.pt"))
    before, after = checkpoint.read(lora / "best.pt")["encoder"], checkpoint.read(tmp_path / "next/last.pt")["encoder"]
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    job = toy_job(data, tmp_path / "frozen", **settings_of(data / "whisper"))
    with pytest.raises(InputError, match="was trained together with its encoder"):
        train(dataclasses.replace(job, init_from=lora / "best.pt"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"encoder__train": "some"}, "must be none, top:N, all or lora"),
        ({"encoder__train": "top:0"}, "must be none, top:N, all or lora"),
        ({"encoder__train": "top:3"}, "2 blocks are used"),
        ({"encoder__layers": "0"}, "0 blocks are used"),
        ({"data__input": "stored"}, "set data.input to waveform"),
        ({"data__features": "fbank"}, "give --features"),
        ({"data__cmvn": "speaker"}, "set it to global or utterance"),
        ({"augment__one_of": "speed"}, "crops features before the model"),
        ({"optim__learning_rate": 0.0}, "optim.learning_rate"),
    ],
)
def test_settings_that_cannot_be_met(data, settings, words):
    given = settings_of(data / "whisper", encoder__train="all")
    with pytest.raises(ValueError, match=words):
        toy_job(data, data, **{**given, **settings}).config.validate()


def test_the_keys_of_other_trainings_stay(data):
    config = toy_job(data, data, **settings_of(data / "whisper", encoder__learning_rate=None)).config
    assert not set(ENCODER_TRAINING) & learned(config)["encoder"].keys()
    key = learned(config)
    config.encoder.lora_rank, config.encoder.frozen_steps = 3, 7
    assert learned(config) == key
    config.encoder.train = "lora"
    assert learned(config)["encoder"]["lora_rank"] == 3


def test_two_processes_train_the_encoder_as_one_does(toys, tmp_path):
    folder = make_toy_data(toys, tmp_path / "toy", "seqd", "official")
    write_whisper(folder / "whisper", layers=3, dim=8)
    settings = settings_of(folder / "whisper", encoder__train="lora", optim__max_steps=6, model__dropout=0.0)
    settings.update(encoder__learning_rate=1e-4, encoder__frozen_steps=2)
    program = f"for size in (1, 2): trained(size, f'of{{size}}', **{settings!r})"
    told, shown = run_program("several_processes", program, folder, tmp_path)
    assert all(set(attempt["statuses"]) == {0} for attempt in told), shown
    curves = [scalars(tmp_path / name) for name in ("of1", "of2")]
    for tag in ("train/total", "train/gradient_norm", "dev/esc_loss"):
        assert [step for step, _ in curves[0][tag]] == [step for step, _ in curves[1][tag]]
        for (_, one), (_, two) in zip(curves[0][tag], curves[1][tag]):
            assert two == pytest.approx(one, rel=1e-3), tag
    # Adam makes whole steps of gradients that are nothing but rounding: the direction is compared
    one, two = (checkpoint.read(tmp_path / name / "last.pt")["encoder"] for name in ("of1", "of2"))
    moved = [torch.cat([part[name].flatten() for name in sorted(part) if name.endswith(".b")]) for part in (one, two)]
    assert moved[0].any() and torch.cosine_similarity(*moved, dim=0) > 0.99
