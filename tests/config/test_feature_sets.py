"""Feature sets: the files of conf/features, and what stage 2 leaves for later stages."""

from pathlib import Path

import pytest

from speecheq.common.errors import InputError
from speecheq.config.feature_sets import (
    load_prepared,
    parse_features,
    read_feature_set,
    require_prepared,
    save_prepared,
)
from speecheq.config.layers import learned, resolve
from speecheq.config.schema import Config, EncoderConfig

CONF = Path(__file__).resolve().parents[2] / "egs" / "mandarin" / "conf"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("fbank", ("fbank", "")), ("whisper-base", ("whisper-base", "")), ("w2v-bert-2.0=a/b", ("w2v-bert-2.0", "a/b"))],
)
def test_options_are_split(text, expected):
    assert parse_features(text) == expected


@pytest.mark.parametrize("text", ["", "a b", "../x", "msud", "fbank=there", "whisper-base="])
def test_options_that_name_no_feature_set_are_refused(text):
    with pytest.raises(InputError, match="expected fbank, NAME or NAME=FOLDER"):
        parse_features(text)


def test_every_file_of_the_recipes_can_be_read():
    names = [path.stem for path in sorted((CONF / "features").glob("*.yaml"))]
    assert "whisper-base" in names
    for name in names:
        found = read_feature_set(name, CONF / "features")
        assert (found.model.count("/") == 1 or found.is_signal) and found.layer_numbers()


def write(folder, text):
    (folder / "mine.yaml").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: m\nlayer: 1 2", "'layer' is not a setting of an encoder; they are layers, licence, model, normalise"),
        ("model: m\nlayers: 1 1", "layers is '1 1', but it must be whole numbers in rising order"),
        ("model: m\nlayers: [1, 2]", "layers is"),
        ("model: m", "layers is ''"),
        ("model: m\nlayers: 1\npadding: 10s", "padding is '10s', but it must be one of none, 30s"),
        ("model: m\nlayers: 1\nspeeds: 0.9 1.1 0.9", "speeds is '0.9 1.1 0.9', but it must be different speeds"),
        ("model: m\nlayers: 1\nspeeds: 1", "speeds is '1', but it must be different speeds from 0.5 to 2 beside 1"),
        ("model: m\nlayers: 1\nspeeds: fast", "speeds is 'fast', but it must be different speeds"),
        ("model: m\nlayers: 1\ndigest: abc", "'digest' is not a setting"),
        ("layers: 1", "names no model; give the folder of the encoder: --features mine=FOLDER"),
    ],
)
def test_faults_of_a_file_are_one_sentence(tmp_path, text, message):
    with pytest.raises(InputError) as refused:
        read_feature_set("mine", write(tmp_path, text))
    assert "mine.yaml" in str(refused.value) and message in str(refused.value)


def test_an_unknown_name_gets_those_that_there_are(tmp_path):
    write(tmp_path, "model: m\nlayers: 1")
    with pytest.raises(InputError, match="there is no .*other.yaml; the feature sets are fbank, mine"):
        read_feature_set("other", tmp_path)


def test_a_layer_alone_is_a_list_of_one(tmp_path):
    assert read_feature_set("mine", write(tmp_path, "model: m\nlayers: 3")).layer_numbers() == (3,)


def test_a_folder_takes_the_place_of_the_hub_id(tmp_path, monkeypatch):
    (tmp_path / "encoder").mkdir()
    monkeypatch.chdir(tmp_path)
    found = read_feature_set("mine", write(tmp_path, "model: some/id\nlayers: 1"), "encoder")
    assert found.model == str(tmp_path / "encoder"), "later stages run elsewhere"


def test_stage_2_leaves_what_later_stages_read(tmp_path):
    assert load_prepared(tmp_path, "mine") is None
    assert require_prepared(tmp_path, "fbank") is None
    with pytest.raises(InputError, match="encoder.yaml: does not exist; run stage 2 with --features mine first"):
        require_prepared(tmp_path, "mine")
    made = EncoderConfig(model="m", layers="0 3", dim=8, digest="abc")
    save_prepared(tmp_path, "mine", made)
    assert require_prepared(tmp_path, "mine") == load_prepared(tmp_path, "mine") == made


def resolved(encoder=None, **recipe):
    return resolve(CONF / "small.yaml", CONF / "systems.yaml", "speecheq", recipe, (), encoder)


def test_the_widths_of_a_model_follow_from_the_encoder():
    encoder = EncoderConfig(model="m", layers="1 2 3", dim=512, digest="abc")
    config = resolved(encoder, **{"data.features": "mine"})
    assert (config.model.encoder_layers, config.model.encoder_dim, config.model.feature_dim) == (3, 512, 1536)
    fused = resolved(encoder, **{"data.features": "mine", "model.kind": "fusion"})
    assert fused.model.feature_dim == 160 + 1536


def test_the_key_of_a_training_knows_the_encoder_and_not_its_place():
    def key(**changed):
        encoder = EncoderConfig(**{"model": "m", "layers": "1 2 3", "dim": 512, "digest": "abc", **changed})
        return learned(resolved(encoder, **{"data.features": "mine"}))

    assert key() == key(model="elsewhere") != key(digest="abd")
    assert "encoder" not in learned(resolved()), "trainings on fbank keep the keys that they had"
    assert "features" not in learned(Config())["data"]


def test_settings_of_the_feature_set_cannot_be_set():
    with pytest.raises(InputError, match="encoder.layers cannot be set: it is given by the feature set"):
        resolve(CONF / "small.yaml", CONF / "systems.yaml", "speecheq", {}, ["encoder.layers='1 2'"])


def test_the_encoder_of_a_model_folder_is_a_feature_set(tmp_path):
    from speecheq.config.feature_sets import STARTER_FOLDER, find_feature_set

    starter = read_feature_set("starter", tmp_path)
    assert (starter.layers, starter.normalise, starter.licence) == ("3", "level", "MIT")
    assert starter.model == str(STARTER_FOLDER / "encoder") and starter.source == "openai/whisper-base"
    assert read_feature_set("any", tmp_path, str(STARTER_FOLDER)) == starter
    save_prepared(tmp_path / "data", "starter", starter)
    assert find_feature_set(tmp_path / "data", "starter", tmp_path) == starter, "where it was the last time"
    elsewhere = tmp_path / "own.yaml"
    elsewhere.write_text("model: some/id\nlayers: 1 2\n")
    assert read_feature_set("mine", tmp_path, str(elsewhere)).layers == "1 2"
    filter_banks = tmp_path / "model"
    filter_banks.mkdir()
    (filter_banks / "labels.json").write_text("{}")
    (filter_banks / "config.yaml").write_text("encoder: {model: ''}\n")
    with pytest.raises(InputError, match="takes filter banks; leave --features out"):
        read_feature_set("mine", tmp_path, str(filter_banks))
