"""What is trained of an encoder: only that gets a gradient and changes, and it is put together again."""

import pytest
import torch
from encoder_models import batch, build, clip, write_whisper
from torch.nn.utils import parametrize

from speecheq.config.encoder import EncoderConfig
from speecheq.features.encoders import EncoderSettings, load_encoder, load_trained, make_trainable, save_encoder
from speecheq.features.encoders.fine_tuning import LowRank
from speecheq.features.fbank_and_states import FbankAndStates

LAYERS = (1, 2)


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """``load(family)``: an encoder of a tiny model, which is made once."""
    folders = {}

    def fresh(family, layers=LAYERS):
        if family not in folders:
            folder = folders[family] = tmp_path_factory.mktemp("models") / family
            if family == "whisper":
                write_whisper(folder, layers=3, dim=8)
            else:
                pytest.importorskip("transformers", reason="needs the extra `encoders`")
                build(family, folder)
        return load_encoder(EncoderSettings(str(folders[family]), layers))

    return fresh


def states_of(encoder):
    return encoder(*batch([clip(6000), clip(4000, seed=1)]))[0]


def assert_near(found, expected):
    """Rounding apart; tiny encoders have large states."""
    assert (found.detach() - expected).abs().max() < 1e-4 * expected.abs().max()


def train_a_step(encoder, factors):
    """A step of plain gradient descent, twice, as LoRA's first matrix has a gradient from the second step on."""
    for _ in range(2):
        for parameter in encoder.parameters():
            parameter.grad = None
        states_of(encoder).square().mean().backward()
        with torch.no_grad():
            for name in factors:
                parameter = encoder.get_parameter(name)
                if parameter.grad is not None:
                    parameter -= 0.01 * parameter.grad.sign()


FAMILIES = ["whisper", "wav2vec2-base", "wavlm-base", "hubert-large", "w2v-bert"]


@pytest.mark.parametrize("train", ["lora", "top:1", "all"])
@pytest.mark.parametrize("family", FAMILIES)
def test_only_what_is_named_is_trained_and_is_put_together_again(load, family, train):
    config = EncoderConfig(train=train, lora_rank=2)
    encoder, before = load(family), states_of(load(family)).detach()
    factors = make_trainable(encoder, config)
    assert_near(states_of(encoder), before)  # the second matrix of LoRA is 0
    values = {name: value.detach().clone() for name, value in encoder.named_parameters()}
    train_a_step(encoder, factors)
    assert {name for name, value in encoder.named_parameters() if value.requires_grad} == factors.keys()
    changed = {name for name, value in encoder.named_parameters() if not torch.equal(value, values[name])}
    assert changed and changed <= factors.keys()
    # the last norm of a model that is cut before its last layer is not in use, nor is WavLM's constant everywhere
    assert all(name.endswith("gru_rel_pos_const") or "encoder.layer_norm." in name for name in factors.keys() - changed)
    after = states_of(encoder).detach()
    assert (after - before).abs().max() > 1e-3

    state = encoder.state_dict()
    again = load(family)
    load_trained(again, config, {name: state[name] for name in factors})
    assert_near(states_of(again), after)
    assert not any(value.requires_grad for value in again.parameters())
    assert not any(isinstance(module, LowRank) for module in again.modules())


@pytest.mark.parametrize("family", ["whisper", "wav2vec2-base"])
def test_what_is_named(load, family):
    encoder = load(family)
    blocks = [
        name
        for name, _ in encoder.named_parameters()
        if any(f"{part}.1." in name for part in ("network.blocks", "encoder.layers"))
    ]
    assert list(make_trainable(load(family), EncoderConfig(train="top:1"))) == blocks
    every = make_trainable(load(family), EncoderConfig(train="all"))
    assert not any("feature_extractor" in name for name in every)
    assert set(make_trainable(load(family), EncoderConfig(train="top:2"))) < set(every)
    lora = make_trainable(load(family), EncoderConfig(train="lora", lora_rank=3))
    assert all(name.endswith(("weight.0.a", "weight.0.b")) for name in lora)
    linear = [module for module in encoder.blocks.modules() if isinstance(module, torch.nn.Linear)]
    assert len(lora) == 2 * len(linear) and linear


def test_layer_decay_lowers_the_rate_block_by_block(load):
    encoder = load("whisper", (2, 3))  # 3 is the last one, after the final norm
    factors = make_trainable(encoder, EncoderConfig(train="all", layer_decay=0.5))
    expected = {"network.final_norm": 1, "network.blocks.2": 1, "network.blocks.1": 0.5, "network.blocks.0": 0.25}
    expected.update({"network.conv1": 0.125, "network.positions": 0.125})
    for name, factor in factors.items():
        assert any(name.startswith(start) and factor == value for start, value in expected.items()) or (
            name.startswith("network.conv2") and factor == 0.125
        )


def test_the_seed_decides_the_first_matrices_and_no_others_are_drawn(load):
    config, torch_state = EncoderConfig(train="lora"), torch.random.get_rng_state()
    first, same, other = load("whisper"), load("whisper"), load("whisper")
    for encoder, seed in ((first, 1), (same, 1), (other, 2)):
        factors = make_trainable(encoder, config, seed)
    assert torch.equal(torch_state, torch.random.get_rng_state())
    matrices = [
        [encoder.get_parameter(name) for name in factors if name.endswith(".a")] for encoder in (first, same, other)
    ]
    assert all(torch.equal(a, b) for a, b in zip(matrices[0], matrices[1]))
    assert not any(torch.equal(a, b) for a, b in zip(matrices[0], matrices[2]))


def test_an_encoder_beside_filter_banks_is_found(load):
    both = FbankAndStates(load("whisper"))
    factors = make_trainable(both, EncoderConfig(train="top:1"))
    assert factors and all(name.startswith("encoder.network.blocks.1.") for name in factors)


def test_what_is_not_of_this_training_is_refused(load):
    encoder = load("whisper")
    state = encoder.state_dict()
    names = make_trainable(encoder, EncoderConfig(train="top:1"))
    trained = {name: state[name] for name in names}
    with pytest.raises(ValueError, match="encoder.train=top:2"):
        load_trained(load("whisper"), EncoderConfig(train="top:2"), trained)
    trained[next(iter(trained))] = torch.zeros(3)
    with pytest.raises(ValueError, match="size mismatch"):
        load_trained(load("whisper"), EncoderConfig(train="top:1"), trained)


@pytest.mark.parametrize("family", ["whisper", "wav2vec2-base"])
def test_a_trained_encoder_is_saved_as_an_ordinary_one(load, family, tmp_path):
    config = EncoderConfig(train="lora", lora_rank=2)
    encoder = load(family)
    factors = make_trainable(encoder, config)
    train_a_step(encoder, factors)
    merged = load(family)
    load_trained(merged, config, {name: encoder.state_dict()[name] for name in factors})
    save_encoder(merged, tmp_path)
    saved = load_encoder(EncoderSettings(str(tmp_path), LAYERS))
    expected = states_of(encoder).detach()
    assert (states_of(saved) - expected).abs().max() < 0.02 * expected.abs().max()  # as float16
    assert not any(parametrize.is_parametrized(layer) for layer in saved.blocks.modules())
