"""Encoders of all families against transformers' own, alone and in batches, and what of them is read."""

import pytest
import torch
from encoder_models import FAMILIES, batch, build, clip

from speecheq.features.encoders import EncoderSettings, load_encoder

transformers = pytest.importorskip("transformers", reason="needs the extra `encoders`")

LENGTHS = (16000, 9000, 16123, 400, 16000, 150)
# of clip(8000) in frame 7, the first three values of layers 2 and 4; k2 stack, November 2026
EXPECTED = {
    "whisper": [6.7151, 5.1446, 2.1436, 2.3849, -0.107, 1.6052],
    "wav2vec2-base": [-1.2588, -1.2146, 0.8024, -0.0041, 0.1425, 2.8875],
    "wav2vec2-large": [-0.375, -6.2817, 3.277, -0.3985, -0.5243, 1.1356],
    "hubert-base": [-1.2588, -1.2146, 0.8024, -0.0041, 0.1425, 2.8875],
    "hubert-large": [-0.375, -6.2817, 3.277, -0.3985, -0.5243, 1.1356],
    "wavlm-base": [-1.4225, -1.1709, 0.8655, -0.0194, 0.0895, 2.8921],
    "wavlm-large": [-0.5046, -6.214, 2.9822, -0.5947, -0.8074, 1.1096],
    "data2vec": [-0.8665, -1.3583, 0.6065, -0.4215, 0.1007, 2.9072],
    "w2v-bert": [0.803, -0.7652, 0.3456, -0.6819, -0.5127, -0.0297],
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """``tiny(family)``: (folder, model, feature extractor) of a tiny model, made once."""
    made = {}

    def of_family(family):
        if family not in made:
            folder = tmp_path_factory.mktemp("models") / family
            made[family] = (folder, *build(family, folder))
        return made[family]

    return of_family


def whole(encoder, samples):
    """The states (T, layers, D) of one clip."""
    with torch.no_grad():
        states, frames = encoder(samples[None], torch.tensor([len(samples)]))
    assert frames.tolist() == [states.shape[1]] == encoder.num_frames(torch.tensor([len(samples)])).tolist()
    assert states.dtype == torch.float32 and states.shape[2] == encoder.feature_dim
    return states[0].view(len(states[0]), len(encoder.layers), encoder.dim)


def reference(model, extractor, samples):
    """The states (T, layers, D) that transformers gives, the last after the final layer norm."""
    given = extractor(samples.numpy(), sampling_rate=16000, return_tensors="pt")
    network = model.encoder if "input_features" in given and hasattr(model, "decoder") else model
    with torch.no_grad():
        output = network(
            given["input_features" if "input_features" in given else "input_values"], output_hidden_states=True
        )
    return torch.stack([*output.hidden_states[:-1], output.last_hidden_state], dim=2)[0]


@pytest.mark.parametrize("length", [16000, 9999])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_is_that_of_transformers(tiny, family, length):
    folder, model, extractor = tiny(family)
    padding = "30s" if family == "whisper" else "none"
    encoder = load_encoder(EncoderSettings(str(folder), (0, 1, 2, 3, 4), padding=padding))
    expected = reference(model, extractor, clip(length))
    found = whole(encoder, clip(length))
    assert len(found) in (len(expected), (length + 319) // 320) and found.abs().max() > 0.5
    # the filter banks of w2v-BERT: ours in single precision, transformers' in double
    assert (found - expected[: len(found)]).abs().max() < (5e-4 if family == "w2v-bert" else 1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_both_stacks_give_the_same_states(tiny, family):
    encoder = load_encoder(EncoderSettings(str(tiny(family)[0]), (2, 4)))
    assert whole(encoder, clip(8000))[7, :, :3].flatten().tolist() == pytest.approx(EXPECTED[family], abs=1e-3)


@pytest.mark.parametrize("layers", [(2,), (0,), (4, 1), (1, 2, 3)])
@pytest.mark.parametrize("family", FAMILIES)
def test_some_layers_are_those_of_all(tiny, family, layers):
    folder, _, _ = tiny(family)
    every = whole(load_encoder(EncoderSettings(str(folder), (0, 1, 2, 3, 4))), clip(8000))
    encoder = load_encoder(EncoderSettings(str(folder), layers))
    assert len(encoder.network.blocks) == max(1, *layers) or family == "whisper" and layers == (0,)
    assert torch.allclose(whole(encoder, clip(8000)), every[:, list(layers)], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_clip_has_the_same_states_alone_and_in_a_batch_in_any_order(tiny, family):
    encoder = load_encoder(EncoderSettings(str(tiny(family)[0]), (1, 3, 4)))
    clips = [clip(samples, seed) for seed, samples in enumerate(LENGTHS)]
    alone = [whole(encoder, one).flatten(1) for one in clips]
    for order in ([0, 1, 2, 3, 4, 5], [5, 2, 0, 1, 4, 3]):
        samples, lengths = batch([clips[place] for place in order])
        with torch.no_grad():
            states, frames = encoder(samples, lengths)
        assert frames.tolist() == [len(alone[place]) for place in order] and states.shape[1] == frames.max()
        for row, count, place in zip(states, frames.tolist(), order):
            assert (row[:count] - alone[place]).abs().max() < 1e-4
            assert not row[count:].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_training_mode_and_random_numbers_change_nothing(tiny, family):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    encoder = load_encoder(EncoderSettings(str(tiny(family)[0]), (1, 4)))
    assert torch.equal(before, torch.random.get_rng_state())
    assert not encoder.training and not any(parameter.requires_grad for parameter in encoder.parameters())
    frozen = whole(encoder, clip(6000))
    assert torch.equal(whole(encoder.train(), clip(6000)), frozen)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_the_samples(tiny, family):
    encoder = load_encoder(EncoderSettings(str(tiny(family)[0]), (2,)))
    samples, lengths = batch([clip(5000), clip(3000)])
    samples.requires_grad_(True)
    for _ in range(5):
        samples.grad = None
        encoder(samples, lengths)[0].square().sum().backward()
        assert samples.grad.isfinite().all()
        assert samples.grad[0].abs().max() > 0 and not samples.grad[1, 3000:].any()


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ("whisper", "w2v-bert")])
def test_which_models_take_padded_batches(tiny, family):
    encoder = load_encoder(EncoderSettings(str(tiny(family)[0]), (1,)))
    assert encoder.pads_batches == family.endswith("-large")
    assert encoder.normalise == (family != "wavlm-base")
