"""Features of librosa and openSMILE in the place of an encoder: shapes, frames, storage, and the settings they give."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from speecheq.common.errors import InputError
from speecheq.common.files import locked_folder
from speecheq.config.encoder import ONE_A_CLIP, EncoderConfig
from speecheq.config.layers import learned, resolve
from speecheq.config.schema import Config
from speecheq.features.encoder_states import open_encoder
from speecheq.features.encoders import EncoderSettings, encoder_digest, load_encoder

librosa = pytest.importorskip("librosa")
opensmile = pytest.importorskip("opensmile")

FRAMES = {"librosa:mfcc26": (26, 0.032), "librosa:logmel40": (40, 0.01), "librosa:hgfm33": (33, 512 / 22050)}


def _clips():
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(16000) / 16000
    tone = 0.3 * torch.sin(2 * np.pi * 200 * time) + 0.01 * torch.randn(16000, generator=generator)
    return torch.stack([tone, tone.flip(0)]), torch.tensor([16000, 7333])


def _load(model):
    return load_encoder(EncoderSettings(model, (0,)))


@pytest.mark.parametrize("model", FRAMES)
def test_frames_of_padded_clips_are_those_of_each_clip(model):
    encoder, (samples, lengths) = _load(model), _clips()
    dim, shift = FRAMES[model]
    assert (encoder.dim, encoder.feature_dim, encoder.frame_shift) == (dim, dim, pytest.approx(shift))
    features, frames = encoder(samples, lengths)
    assert frames.tolist() == encoder.num_frames(lengths).tolist()
    assert features.shape == (2, int(frames.max()), dim) and torch.isfinite(features).all()
    assert frames[0].item() == pytest.approx(1 / shift, abs=1.1)
    alone, _ = encoder(samples[1:, :7333], lengths[1:])
    torch.testing.assert_close(features[1, : frames[1]], alone[0])
    assert not features[1, frames[1] :].any()


def test_mfccs_are_librosas():
    samples, lengths = _clips()
    expected = librosa.feature.mfcc(y=samples[0].numpy(), sr=16000, n_mfcc=26, hop_length=512)
    found = _load("librosa:mfcc26")(samples, lengths)[0][0]
    np.testing.assert_allclose(found.numpy(), expected.T, atol=1e-4)
    assert len(_load("librosa:mfcc26")(samples[:1, : 2 * 16000], lengths[:1])[0][0]) == 32


def test_a_clip_of_one_frame_has_features():
    for model in FRAMES:
        features, frames = _load(model)(torch.full((1, 30), 0.1), torch.tensor([30]))
        assert frames.tolist() == [1] and torch.isfinite(features).all(), model


@pytest.mark.parametrize("model, dim", [("opensmile:eGeMAPSv02", 88), ("opensmile:ComParE_2016", 6373)])
def test_functionals_are_one_vector_a_clip(model, dim):
    encoder, (samples, lengths) = _load(model), _clips()
    features, frames = encoder(samples, lengths)
    assert features.shape == (2, 1, dim) and frames.tolist() == [1, 1] and encoder.frame_shift == ONE_A_CLIP
    names = encoder.smile.feature_names
    assert len(names) == dim and not torch.equal(features[0], features[1])


def test_an_unknown_set_is_named():
    with pytest.raises(InputError, match="librosa:mfcc: there is no such feature set of librosa; it has mfcc26"):
        _load("librosa:mfcc")


def test_the_digest_follows_the_set():
    assert len({encoder_digest(EncoderSettings(model, (0,))) for model in (*FRAMES, "opensmile:eGeMAPSv02")}) == 4


@pytest.fixture
def conf(tmp_path):
    (tmp_path / "small.yaml").write_text("loss: {gamma: 0, beta: 0, eta: 0}\n")
    (tmp_path / "systems.yaml").write_text("hgfm: {model.kind: hgfm}\nlight: {model.kind: light}\n")
    return tmp_path / "small.yaml", tmp_path / "systems.yaml"


def test_models_take_the_frames_as_they_take_filter_banks(conf):
    encoder, _ = open_encoder(EncoderConfig(model="librosa:mfcc26", layers="0"))
    config = resolve(*conf, "hgfm", {"data.features": "mfcc26"}, encoder=encoder)
    assert (config.model.feature_dim, config.model.encoder_layers, config.model.frame_shift) == (26, 0, 0.032)
    with pytest.raises(InputError, match="kind is light, which takes the states of a pretrained encoder"):
        resolve(*conf, "light", {"data.features": "mfcc26"}, encoder=encoder)
    with pytest.raises(InputError, match="encoder.train is all, but the features are those of librosa:mfcc26"):
        resolve(*conf, "hgfm", {"data.features": "mfcc26"}, ["encoder.train=all"], encoder)


def test_functionals_are_for_an_svm(conf):
    encoder, _ = open_encoder(EncoderConfig(model="opensmile:eGeMAPSv02", layers="0"))
    with pytest.raises(InputError, match="--features egemaps: has one vector a clip, for an SVM"):
        resolve(*conf, "hgfm", {"data.features": "egemaps"}, encoder=encoder)


def test_what_was_trained_before_there_were_such_features_stays_done():
    """The later settings are no part of the key at their defaults."""
    config = Config()
    assert "frame_shift" not in learned(config)["model"]
    config.data.features = "whisper-base"
    assert "frame_shift" not in learned(config)["encoder"]
    config.encoder.frame_shift = 0.032
    assert learned(config)["encoder"]["frame_shift"] == 0.032


@pytest.mark.slow
def test_librosa_is_compiled_under_a_lock_into_a_cache_of_its_own(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    folder = tmp_path / "speecheq" / "numba"
    program = "from speecheq.features.encoders.signal import _import; print('begins', flush=True); "
    with locked_folder(folder):
        run = subprocess.Popen(
            [sys.executable, "-c", program + "_import('librosa')"],
            stdout=subprocess.PIPE,
            env={**environment, "XDG_CACHE_HOME": str(tmp_path)},
        )
        assert run.stdout.readline() == b"begins\n"
        assert not folder.exists()
    run.communicate()
    assert run.returncode == 0
    assert list(folder.rglob("*.nbi"))
