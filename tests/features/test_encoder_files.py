"""The files of pretrained models: what is refused, and with which sentence; digests; the hub."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from encoder_models import build, clip, write_whisper

from speecheq.common.errors import InputError
from speecheq.features.encoders import EncoderSettings, encoder_digest, load_encoder


@pytest.fixture
def tiny(tmp_path):
    return write_whisper(tmp_path / "tiny")


def refused(model, *words, layers=(1,), **settings):
    with pytest.raises(InputError) as caught:
        load_encoder(EncoderSettings(str(model), layers, **settings))
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".") and len(message) < 500, message
    for word in words:
        assert word in message, message


def change(path, **values):
    table = json.loads(path.read_text())
    table.update(values)
    path.write_text(json.dumps({key: value for key, value in table.items() if value is not None}))


@pytest.mark.parametrize("model", ["/no/such/folder", "whisper-base", "./no/folder", "../folder"])
def test_a_folder_that_is_not_there(model):
    refused(model, f"{model}: there is no such folder", "OWNER/NAME")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_a_missing_file(tiny, name):
    (tiny / name).unlink()
    refused(tiny, f"{tiny}: lacks {name}")


def test_weights_as_bin_only(tiny):
    (tiny / "model.safetensors").rename(tiny / "pytorch_model.bin")
    refused(tiny, ".bin", "can run code", "save_pretrained")


@pytest.mark.parametrize("content", [b"", b"not a file of tensors", b"\x80\x02" + bytes(1000)])
def test_foreign_weights(tiny, content):
    (tiny / "model.safetensors").write_bytes(content)
    refused(tiny, "model.safetensors: is not a whole file of safetensors", "copy it again")


def test_damaged_weights(tiny):
    whole = (tiny / "model.safetensors").read_bytes()
    (tiny / "model.safetensors").write_bytes(whole[:-1000])
    refused(tiny, "model.safetensors: is not a whole file of safetensors")


@pytest.mark.parametrize("content", ["{", "[1]", "\xff"])
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_damaged_table(tiny, name, content):
    (tiny / name).write_text(content, encoding="latin-1")
    refused(tiny, f"{name}: is not the table of a model")


@pytest.mark.parametrize("key", ["model_type", "d_model", "encoder_layers", "num_mel_bins"])
def test_a_table_without_a_key(tiny, key):
    change(tiny / "config.json", **{key: None})
    refused(tiny, f"config.json: lacks {key}")


def test_an_unknown_architecture(tiny):
    change(tiny / "config.json", model_type="llama")
    refused(tiny, "config.json: model_type is 'llama'", "whisper, wav2vec2, hubert, wavlm")


def test_a_layer_that_does_not_exist(tiny):
    refused(tiny, "has no layer 3; its layers are 0 to 2", layers=(1, 3))


@pytest.mark.parametrize("layers", [(), (-1,), (1, 1)])
def test_settings_that_are_no_layers(layers):
    with pytest.raises(ValueError, match="layers is"):
        EncoderSettings("model", layers)


def test_settings_with_unknown_words():
    with pytest.raises(ValueError, match="padding is '15s'"):
        EncoderSettings("model", (1,), padding="15s")
    with pytest.raises(ValueError, match="normalise is 'maybe'"):
        EncoderSettings("model", (1,), normalise="maybe")


def test_a_missing_tensor_and_one_of_another_shape(tiny):
    from safetensors.torch import load_file, save_file

    weights = load_file(str(tiny / "model.safetensors"))
    bias = weights.pop("model.encoder.layers.0.fc1.bias")
    save_file(weights, str(tiny / "model.safetensors"))
    refused(tiny, "lacks the tensor model.encoder.layers.0.fc1.bias")
    save_file({**weights, "model.encoder.layers.0.fc1.bias": bias[:3].clone()}, str(tiny / "model.safetensors"))
    refused(tiny, "model.encoder.layers.0.fc1.bias has the shape (3,)", "(16,)")


def test_weights_of_another_model(tiny):
    from safetensors.torch import save_file

    save_file({"bert.embeddings.weight": torch.zeros(2, 2)}, str(tiny / "model.safetensors"))
    refused(tiny, "holds no tensor model.encoder.conv1.weight")


def test_another_sampling_rate(tiny):
    change(tiny / "preprocessor_config.json", sampling_rate=8000)
    refused(tiny, "preprocessor_config.json: sampling_rate is 8000", "16000")


def test_another_architecture_without_transformers(tiny, monkeypatch):
    change(tiny / "config.json", model_type="wavlm", num_hidden_layers=2)
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(tiny, "WavLMModel needs transformers", "utils/install.sh --extras encoders")


def test_30_s_for_another_model_than_whisper(tmp_path):
    pytest.importorskip("transformers", reason="needs the extra `encoders`")
    build("wavlm-large", tmp_path / "wavlm")
    refused(tmp_path / "wavlm", "only those are padded to 30 s", padding="30s")
    refused(tmp_path / "wavlm", "only those take normalise=level", normalise="level")


def test_a_config_that_transformers_cannot_take(tmp_path):
    pytest.importorskip("transformers", reason="needs the extra `encoders`")
    build("wavlm-large", tmp_path / "wavlm")
    change(tmp_path / "wavlm" / "config.json", num_attention_heads=5)
    refused(tmp_path / "wavlm", "config.json: is not the table of a WavLMModel")


def test_nothing_asks_the_network_for_a_folder(tiny, monkeypatch):
    def connect(*_):
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    load_encoder(EncoderSettings(str(tiny), (1,)))
    encoder_digest(EncoderSettings(str(tiny), (1,)))


# digests


def test_the_digest_follows_the_files_and_the_settings_but_not_the_place(tiny, tmp_path):
    settings = EncoderSettings(str(tiny), (1, 2))
    first = encoder_digest(settings)
    tiny.rename(tmp_path / "elsewhere")
    moved = str(tmp_path / "elsewhere")
    assert encoder_digest(EncoderSettings(moved, (1, 2))) == first
    others = [
        EncoderSettings(moved, (1,)),
        EncoderSettings(moved, (2, 1)),
        EncoderSettings(moved, (1, 2), padding="30s"),
        EncoderSettings(moved, (1, 2), normalise="yes"),
    ]
    assert len({first, *map(encoder_digest, others)}) == 5
    weights = tmp_path / "elsewhere" / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert encoder_digest(EncoderSettings(moved, (1, 2))) != first


# the hub

LOAD = """
import sys, torch
from speecheq.common.errors import InputError
from speecheq.features.encoders import EncoderSettings, load_encoder
try:
    print(load_encoder(EncoderSettings(sys.argv[1], (1,))).feature_dim)
except InputError as error:
    print(error)
"""


def load_offline(model, home):
    variables = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", LOAD, model], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_model_of_the_hub_comes_from_its_cache_where_that_is_offline(tmp_path):
    pytest.importorskip("huggingface_hub", reason="needs the extra `encoders`")
    commit = "a" * 40
    cache = tmp_path / "hub" / "models--owner--tiny"
    write_whisper(cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    assert load_offline("owner/tiny", tmp_path) == "8"
    message = load_offline("owner/other", tmp_path)
    assert (
        message.startswith("owner/other: there is no such folder, and no model of that id") and message.count(".") >= 1
    )
    assert "\n" not in message


def test_a_model_of_the_hub_without_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused("owner/name", "owner/name: there is no such folder", "needs huggingface_hub", "pip install")


def test_three_files_are_asked_of_the_hub(tiny, monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra `encoders`")
    asked = []

    def snapshot_download(model, allow_patterns):
        asked.append((model, allow_patterns))
        return str(tiny)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    encoder = load_encoder(EncoderSettings("owner/name", (1,)))
    assert asked == [("owner/name", ["config.json", "preprocessor_config.json", "model.safetensors"])]
    assert encoder(clip(4000)[None], torch.tensor([4000]))[0].shape == (1, 13, 8)
