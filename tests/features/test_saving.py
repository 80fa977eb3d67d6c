"""An encoder written as a folder: the same states, and no more than they need."""

import pytest
import torch
from encoder_models import FAMILIES, batch, build, clip, write_whisper
from safetensors import safe_open

from speecheq.common.errors import InputError
from speecheq.features.encoders import EncoderSettings, encoder_digest, load_encoder, save_encoder


def states(encoder):
    with torch.no_grad():
        return encoder(*batch([clip(8000), clip(5000, 1)]))[0]


def resaved(encoder, folder):
    folder.mkdir()
    save_encoder(encoder, folder)
    settings = EncoderSettings(str(folder), encoder.layers, encoder.settings.padding, encoder.settings.normalise)
    return load_encoder(settings)


@pytest.mark.parametrize("layers", [(1, 2), (2, 4)])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_encoder_gives_the_same_states(family, layers, tmp_path):
    pytest.importorskip("transformers", reason="needs the extra `encoders`")
    build(family, tmp_path / "model")
    encoder = load_encoder(EncoderSettings(str(tmp_path / "model"), layers))
    saved = resaved(encoder, tmp_path / "saved")
    expected, found = states(encoder), states(saved)
    assert len(saved.network.blocks) == max(layers)
    assert (found - expected).norm() < 3e-3 * expected.norm()  # float16 weights
    # once rounded, nothing is lost any more
    assert torch.equal(states(resaved(saved, tmp_path / "again")), found)


def test_a_saved_whisper_holds_float16_of_the_chosen_layers_only(tmp_path):
    encoder = load_encoder(EncoderSettings(str(write_whisper(tmp_path / "model", layers=4)), (1, 2)))
    saved = resaved(encoder, tmp_path / "saved")
    assert torch.equal(states(saved), states(encoder))  # its weights were float16
    with safe_open(str(tmp_path / "saved/model.safetensors"), framework="pt") as tensors:
        names = set(tensors.keys())
        assert {tensors.get_tensor(name).dtype for name in names} == {torch.float16}
    assert {name.split(".")[3] for name in names if ".layers." in name} == {"0", "1"}
    assert not any("encoder.layer_norm" in name or "k_proj.bias" in name for name in names)
    settings = EncoderSettings(str(tmp_path / "saved"), (1, 2))
    assert encoder_digest(settings) != encoder_digest(encoder.settings)
    with pytest.raises(InputError, match="lacks the tensor model.encoder.layers.2"):
        load_encoder(EncoderSettings(str(tmp_path / "saved"), (3,)))


def test_a_value_above_float16_stays_as_it_is(tmp_path):
    encoder = load_encoder(EncoderSettings(str(write_whisper(tmp_path / "model")), (2,)))
    with torch.no_grad():
        encoder.network.positions[0, 0] = 1e6
    saved = resaved(encoder, tmp_path / "saved")
    assert torch.equal(saved.network.positions, encoder.network.positions)
    assert torch.equal(states(saved), states(encoder))
