"""The layers of the settings, and everything that is refused with its one sentence."""

import pytest
import yaml

from speecheq.common.digests import digest
from speecheq.common.errors import InputError
from speecheq.config.layers import (
    learned,
    load,
    parse_assignment,
    read_layers,
    read_systems,
    resolve,
    save,
    set_value,
    setting_names,
)
from speecheq.config.schema import Config, EncoderConfig


@pytest.fixture
def files(tmp_path):
    """(a size, a file of systems)"""
    (tmp_path / "size.yaml").write_text("loss: {gamma: 2, beta: 0.5}\noptim:\n  learning_rate: 1e-3\n")
    (tmp_path / "systems.yaml").write_text("full: {}\nempty:\nalone: {loss.beta: 0, loss: {gamma: 3}}\n")
    return tmp_path / "size.yaml", tmp_path / "systems.yaml"


def test_later_layers_win(files):
    config = resolve(*files, "full")
    assert (config.loss.gamma, config.loss.beta, config.loss.eta) == (2.0, 0.5, 0.1)
    assert config.optim.learning_rate == 1e-3  # YAML reads 1e-3 as text
    config = resolve(*files, "alone")
    assert (config.loss.gamma, config.loss.beta) == (3.0, 0.0)
    config = resolve(*files, "alone", {"loss.gamma": 4})
    assert config.loss.gamma == 4.0
    config = resolve(*files, "alone", {"loss.gamma": 4}, ["loss.gamma=5", "loss.gamma=6", "data.cmvn=none"])
    assert config.loss.gamma == 6.0 and config.data.cmvn == "none"
    assert resolve(*files, "empty").loss.gamma == 2.0


@pytest.mark.parametrize(
    "assignment, words",
    [
        ("loss.gama=2", "'loss.gama' is not a setting; did you mean loss.gamma?"),
        ("gamma=2", "did you mean loss.gamma?"),
        ("xyzzy=2", "'xyzzy' is not a setting."),
        ("loss.gamma.x=2", "'loss.gamma.x' is not a setting"),
        ("loss=2", "loss is a group of settings, such as loss.gamma"),
        ("loss.gamma=high", "loss.gamma is 'high', but it must be a number"),
        ("loss.gamma=", "loss.gamma is None, but it must be a number"),
        ("loss.gamma=true", "loss.gamma is True, but it must be a number"),
        ("loss.gamma=.nan", "it must be a number"),
        ("optim.learning_rate=.inf", "it must be a number"),
        ("loss.gamma=-1", "loss.gamma is -1, but it must be at least 0"),
        ("data.batch_size=2.5", "data.batch_size is 2.5, but it must be a whole number"),
        ("data.batch_size=1", "must be at least 2"),
        ("optim.epochs=soon", "optim.epochs is 'soon', but it must be a whole number or null"),
        ("data.cmvn=corpus", "data.cmvn is 'corpus', but it must be one of utterance, global, none, speaker"),
        ("data.cmvn=3", "data.cmvn is 3, but it must be a word"),
        ("model.channels=0", "model.channels is 0, but it must be at least 2"),
        ("model.channels=100", "multiple of scale"),
        ("optim.epochs=null", "optim.epochs and optim.max_steps are both null"),
        ("optim.finetune=1.5", "optim.finetune is 1.5, but it must be at most 1"),
        ("optim.ema=1", "optim.ema is 1, but it must be at most 0.99999"),
        ("optim.optimizer=sgd", "optim.optimizer is 'sgd', but it must be one of adam, adamw"),
        ("loss.class_balance=yes", "loss.class_balance is True, but it must be a word"),
        ("mixup.alpha=-0.1", "mixup.alpha is -0.1, but it must be at least 0"),
        ("specaugment.time_share=2", "specaugment.time_share is 2, but it must be at most 1"),
        ("run.checkpoint_steps=0", "run.checkpoint_steps is 0, but it must be at least 1"),
        ("loss.gamma", "expected key=value, for instance loss.gamma=2"),
        ("=2", "expected key=value"),
        ("loss.gamma=[1", "the value is not valid YAML"),
    ],
)
def test_settings_that_are_refused(files, assignment, words):
    with pytest.raises(InputError) as refused:
        resolve(*files, "full", {}, [assignment])
    assert words in str(refused.value) and "\n" not in str(refused.value)
    if assignment not in ("model.channels=100", "optim.epochs=null"):
        assert assignment in str(refused.value)


@pytest.mark.parametrize(
    "text, words",
    [
        ("loss:\n  gamma: [1\n", ", line 3: is not YAML ("),
        ("loss:\n  gamma: 1\n  gamma: 2\n", ", line 3: is not YAML (the key 'gamma' repeats)"),
        ("loss: {gamma: 1}\nloss: {beta: 1}\n", ", line 2: is not YAML (the key 'loss' repeats)"),
        ("- loss\n", ": must hold settings as 'key: value', not a list"),
        ("loss: {gamma: 1\x00}\n", ": is not YAML ("),
        ("loss: {color: 1}\n", ": 'loss.color' is not a setting"),
        ("loss:\n", ": loss is a group of settings"),
        ("1: 2\n", ": '1' is not a setting"),
    ],
)
def test_files_that_are_refused_by_name_and_line(files, text, words):
    files[0].write_text(text)
    with pytest.raises(InputError) as refused:
        resolve(*files, "full")
    assert str(refused.value).startswith(f"{files[0]}{words}") and "\n" not in str(refused.value)


def test_systems_are_named(files):
    with pytest.raises(InputError, match="no system 'ful'; the systems are full, empty, alone"):
        resolve(*files, "ful")
    files[1].write_text("full: 3\n")
    with pytest.raises(InputError, match="the system 'full' must be a mapping"):
        read_systems(files[1])
    files[1].write_text("full: {loss.gama: 1}\n")
    with pytest.raises(InputError, match="systems.yaml, full: 'loss.gama'"):
        resolve(*files, "full")


def test_a_configuration_lies_on_its_base(files, tmp_path):
    (tmp_path / "low.yaml").write_text("loss: {gamma: 1, eta: 0.7}\noptim: {ema: 0.9, warmup_steps: 3}\n")
    (tmp_path / "middle.yaml").write_text("base: low.yaml\nloss: {eta: 0.6}\noptim: {warmup_steps: 4}\n")
    (tmp_path / "top.yaml").write_text("base: [middle.yaml, size.yaml]\nloss: {beta: 0.4}\n")
    config = resolve(tmp_path / "top.yaml", files[1], "full", {}, ["optim.warmup_steps=5"])
    loss, optim = config.loss, config.optim
    assert (loss.gamma, loss.beta, loss.eta) == (2.0, 0.4, 0.6)  # of size, top and middle
    assert (optim.learning_rate, optim.ema, optim.warmup_steps) == (1e-3, 0.9, 5)
    names = [path.name for path, _ in read_layers(tmp_path / "top.yaml")]
    assert names == ["low.yaml", "middle.yaml", "size.yaml", "top.yaml"]


@pytest.mark.parametrize(
    "text, words",
    [
        ("base: nowhere.yaml\n", "nowhere.yaml: the configuration file does not exist"),
        ("base: 3\n", "top.yaml: base is 3, but it must be a file beside this one"),
        ("base: [size.yaml, 3]\n", "top.yaml: base is ['size.yaml', 3], but"),
        ("base:\n", "top.yaml: base is None, but"),
        ("base: top.yaml\n", "top.yaml: is its own base, through top.yaml"),
        ("base: other.yaml\n", "top.yaml: is its own base, through other.yaml"),
        ("base: size.yaml\nloss: {color: 1}\n", "top.yaml: 'loss.color' is not a setting"),
        ("base: wrong.yaml\n", "wrong.yaml: 'loss.color' is not a setting"),
    ],
)
def test_bases_that_are_refused(files, tmp_path, text, words):
    (tmp_path / "other.yaml").write_text("base: top.yaml\n")
    (tmp_path / "wrong.yaml").write_text("loss: {color: 1}\n")
    (tmp_path / "top.yaml").write_text(text)
    with pytest.raises(InputError) as refused:
        resolve(tmp_path / "top.yaml", files[1], "full")
    assert str(refused.value).startswith(f"{tmp_path}/{words}") and "\n" not in str(refused.value)


def test_masks_need_normalised_features(files):
    for masks in ("specaugment.time_masks=1", "specaugment.frequency_masks=2"):
        with pytest.raises(InputError, match="specaugment masks with 0, which is the mean of normalised features only"):
            resolve(*files, "full", {}, ["data.cmvn=none", masks])
    assert not resolve(*files, "full", {}, ["data.cmvn=none"]).specaugment.active


def test_fine_tuning_belongs_to_the_constant_schedule(files):
    with pytest.raises(InputError, match="optim.finetune is the last stage of the constant schedule"):
        resolve(*files, "full", {}, ["optim.schedule=cosine", "optim.finetune=0.2"])
    assert resolve(*files, "full", {}, ["optim.schedule=cosine"]).optim.schedule == "cosine"


def test_the_papers_configuration_has_its_two_stages(toys):
    """Section 3.2: weights from 0.1 to 0.01, learning rate from 1e-4 to 1e-6; the lengths are ours."""
    conf = toys.root / "egs" / "mandarin" / "conf"
    config = resolve(conf / "paper.yaml", conf / "systems.yaml", "speecheq")
    assert (config.optim.epochs, config.optim.finetune, config.optim.schedule) == (80, 0.25, "constant")
    assert (config.optim.learning_rate, config.optim.finetune_learning_rate) == (1e-4, 1e-6)
    assert (config.loss.beta, config.loss.finetune_beta, config.loss.eta, config.loss.finetune_eta) == (0.1, 0.01) * 2


def test_what_secures_a_training_is_not_learned():
    one, other = Config(), Config()
    other.run.checkpoint_steps, other.run.threads, other.run.device, other.data.workers = 7, 3, "cpu", 4
    assert learned(one) == learned(other)
    other.optim.finetune = 0.5
    assert learned(one) != learned(other)


def test_assignments_are_read_as_yaml():
    assert parse_assignment("a.b=1e3=x") == ("a.b", "1e3=x")
    assert parse_assignment(" a = null ") == ("a", None)
    assert parse_assignment("a=true") == ("a", True)


def test_every_setting_can_be_set_and_comes_back_from_its_file(tmp_path):
    config = Config()
    set_value(config, "optim.epochs", None, "test")
    set_value(config, "optim.max_steps", 7, "test")
    set_value(config, "loss.gamma", "1.5e0", "test")
    set_value(config, "data.cmvn", "none", "test")
    save(config, tmp_path / "config.yaml")
    assert load(tmp_path / "config.yaml") == config
    stored = yaml.safe_load((tmp_path / "config.yaml").read_text())
    flat = {f"{group}.{name}" for group, values in stored.items() for name in values}
    assert flat == set(setting_names()) and stored["data"]["cmvn"] == "none"


def test_the_recipes_own_files_resolve(toys):
    for systems in sorted((toys.root / "egs").glob("*/conf/systems.yaml")):
        for size in sorted(systems.parent.glob("*.yaml")):
            if size.name not in ("systems.yaml", "table.yaml"):
                on_states = size.stem.startswith(("light", "starter", "best"))
                encoder = EncoderConfig(layers="1 2 3", dim=512) if on_states else None
                recipe = {"data.features": "whisper-base"} if on_states else {}
                for system in read_systems(systems):
                    resolve(size, systems, system, recipe, encoder=encoder)


def test_settings_that_came_later_leave_the_keys_of_finished_trainings():
    assert digest(learned(Config())) == "e9488717fc7fc442"  # that of version 0.1.0
    config = Config()
    config.model.projection = 320
    assert learned(config)["model"]["projection"] == 320
    assert "encoder_layers" not in learned(config)["model"]


def test_a_file_saved_with_a_setting_that_is_gone_is_read_without_it(tmp_path):
    save(Config(), tmp_path / "config.yaml")
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    saved["optim"]["decay_epochs"] = 3
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(saved))
    assert load(tmp_path / "config.yaml") == Config()
