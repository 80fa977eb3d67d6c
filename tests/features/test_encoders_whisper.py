"""Whisper: the real model against transformers' own, clips of all lengths, what of a file is read."""

import copy

import numpy as np
import pytest
import torch
from encoder_models import batch, clip, write_whisper

from speecheq.features.encoders import EncoderSettings, load_encoder, model_files
from speecheq.features.encoders.activation import gelu
from speecheq.features.encoders.log_mel import LogMel

# of whisper-base, for clip(16000) in frame 20, the first three values of layers 1, 2, 3 and 6; k2 stack, November 2026
REAL_STATES = [1.5208, 1.1524, 0.6472, 1.3108, 1.0391, 0.5512, 1.0159, 0.4069, 0.4499, 0.7071, 0.0789, -0.5519]


@pytest.fixture(scope="module")
def whisper_base(toys):
    folder = toys.root.parent / "shared" / "models" / "whisper-base"
    if not (folder / "model.safetensors").is_file():
        pytest.skip("no real Whisper: shared/models/whisper-base lies beside the repository where there is one")
    return str(folder)


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="needs the extra `encoders`")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(write_whisper(tmp_path_factory.mktemp("models") / "tiny"))


def states_of(settings, samples):
    encoder = load_encoder(settings)
    with torch.no_grad():
        states, frames = encoder(samples[None], torch.tensor([len(samples)]))
    assert frames.tolist() == [states.shape[1]]
    return states[0].view(len(states[0]), len(settings.layers), encoder.dim)


@pytest.mark.parametrize("num_mels", [80, 128])
@pytest.mark.parametrize("length", [16000, 12345, 201, 480000])
def test_log_mel_is_that_of_transformers(transformers, num_mels, length):
    extractor = transformers.WhisperFeatureExtractor(feature_size=num_mels)
    expected = extractor(
        clip(length).numpy(), sampling_rate=16000, padding="do_not_pad", return_tensors="np"
    ).input_features[0]
    found, frames = LogMel(num_mels)(*batch([clip(length), clip(300)]))
    assert frames.tolist() == [length // 160, 1]
    assert np.abs(found[0, : len(expected.T)].numpy() - expected.T).max() < 1e-4


def test_padded_to_30_s_the_real_model_gives_the_states_of_transformers(transformers, whisper_base):
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(whisper_base)
    model = transformers.WhisperModel.from_pretrained(whisper_base).encoder.float().eval()
    given = extractor(clip(40001).numpy(), sampling_rate=16000, return_tensors="pt").input_features
    with torch.no_grad():
        output = model(given, output_hidden_states=True)
    expected = torch.stack([*output.hidden_states[:-1], output.last_hidden_state], dim=2)[0]
    found = states_of(EncoderSettings(whisper_base, tuple(range(7)), padding="30s"), clip(40001))
    assert len(found) == 126  # 40001 / 320, rounded up
    assert (found - expected[:126]).abs().amax(dim=(0, 2))[:4].max() < 1e-4
    assert (found - expected[:126]).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("length", [40001, 16160])  # an even and an odd number of mel frames
def test_unpadded_the_real_model_gives_the_states_of_transformers_with_positions_cut(
    transformers, whisper_base, length
):
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(whisper_base)
    model = transformers.WhisperModel.from_pretrained(whisper_base).encoder.float().eval()
    given = extractor(
        clip(length).numpy(), sampling_rate=16000, padding="do_not_pad", return_tensors="pt"
    ).input_features
    frames = (given.shape[2] + 1) // 2
    cut = copy.deepcopy(model)
    vars(cut.config)["max_source_positions"] = given.shape[2] / 2  # with which it compares the length of its input
    cut.embed_positions = torch.nn.Embedding.from_pretrained(model.embed_positions.weight[:frames].clone())
    with torch.no_grad():
        output = cut(given, output_hidden_states=True)
    expected = torch.stack([*output.hidden_states[:-1], output.last_hidden_state], dim=2)[0]
    found = states_of(EncoderSettings(whisper_base, tuple(range(7))), clip(length))
    assert found.shape == expected.shape
    assert (found - expected).abs().amax(dim=(0, 2))[:4].max() < 1e-4
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_the_real_model_gives_the_same_states_on_both_stacks(whisper_base):
    found = states_of(EncoderSettings(whisper_base, (1, 2, 3, 6)), clip(16000))[20, :, :3].flatten()
    assert found.tolist() == pytest.approx(REAL_STATES, abs=1e-3)


def test_the_two_paddings_give_different_states(whisper_base):
    unpadded = states_of(EncoderSettings(whisper_base, (3,)), clip(32000))
    padded = states_of(EncoderSettings(whisper_base, (3,), padding="30s"), clip(32000))
    assert unpadded.shape == padded.shape and (unpadded - padded).abs().max() > 0.1


def test_the_real_model_gives_a_clip_the_same_states_alone_and_in_a_batch(whisper_base):
    clips = [clip(samples, seed) for seed, samples in enumerate((48000, 16159, 32321, 700))]
    encoder = load_encoder(EncoderSettings(whisper_base, (1, 2, 3)))
    with torch.no_grad():
        states, frames = encoder(*batch(clips))
        for row, count, one in zip(states, frames.tolist(), clips):
            alone, _ = encoder(one[None], torch.tensor([len(one)]))
            assert alone.shape[1] == count and (row[:count] - alone[0]).abs().max() < 1e-4 and not row[count:].any()


@pytest.mark.parametrize("padding", ["none", "30s"])
def test_clips_above_30_s_are_taken_in_pieces(tiny, padding):
    encoder = load_encoder(EncoderSettings(tiny, (1, 2), padding=padding))
    long, short, piece = clip(980_000, seed=1), clip(5000, seed=2), 480_000
    states, frames = encoder(*batch([short, long]))
    pieces = [encoder(part[None], torch.tensor([len(part)]))[0][0] for part in long.split(piece)]
    assert len(pieces) == 3 and torch.allclose(states[1], torch.cat(pieces), atol=1e-4)
    assert torch.allclose(states[0, : frames[0]], encoder(short[None], torch.tensor([5000]))[0][0], atol=1e-4)
    assert frames.tolist() == [len(states[0, : frames[0]]), sum(map(len, pieces))]
    assert frames.tolist() == encoder.num_frames(torch.tensor([5000, 980_000])).tolist()
    assert not states[0, frames[0] :].any()


def test_the_network_without_lengths_takes_rows_as_whole_clips(tiny):
    encoder = load_encoder(EncoderSettings(tiny, (0, 2)))
    given, lengths = encoder.inputs(torch.stack([clip(8000), clip(8000, 1)]), torch.tensor([8000, 8000]))
    whole, frames = encoder.network(given)
    masked, counts = encoder.network(given, lengths)
    assert torch.allclose(whole, masked, atol=1e-5) and frames.tolist() == counts.tolist() == [25, 25]


def test_only_what_is_needed_is_read_and_built(tiny, monkeypatch):
    read = []
    real = model_files.Tensors.read
    monkeypatch.setattr(
        model_files.Tensors, "read", lambda self, name, shape: read.append(name) or real(self, name, shape)
    )
    encoder = load_encoder(EncoderSettings(tiny, (1,)))
    assert len(encoder.network.blocks) == 1 and encoder.network.final_norm is None
    assert not [name for name in read if name.startswith(("layers.1.", "layer_norm"))]
    one_block = sum(parameter.numel() for parameter in encoder.network.blocks.parameters())
    two = load_encoder(EncoderSettings(tiny, (2,)))
    assert sum(p.numel() for p in two.parameters()) - sum(p.numel() for p in encoder.parameters()) == one_block + 16
    assert all(p.dtype == torch.float32 for p in two.parameters())  # of float16


def test_the_real_model_has_the_parameters_of_three_blocks(whisper_base):
    encoder = load_encoder(EncoderSettings(whisper_base, (1, 2, 3)))
    block = 4 * 512**2 + 4 * 512 + 2 * 2048 * 512 + 2048 + 512 + 4 * 512  # keys have a bias here, of zeros
    front = 3 * 80 * 512 + 512 + 3 * 512**2 + 512 + 1500 * 512
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 3 * block + front


def test_clips_of_one_level_have_the_same_states_at_any_gain(tiny):
    level = EncoderSettings(tiny, (1,), normalise="level")
    sound = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    usual = sound * 10 ** (-26 / 20) / sound.square().mean().sqrt()
    expected = states_of(EncoderSettings(tiny, (1,)), usual)
    for gain in (1.0, 0.001, 30.0):
        torch.testing.assert_close(states_of(level, gain * sound), expected, rtol=1e-3, atol=1e-4)
    # each by its own level, whatever stands behind its end and beside it; silence stays finite
    encoder = load_encoder(level)
    padded = torch.stack([torch.cat([0.01 * sound, torch.full((8000,), 0.9)]), torch.zeros(24000)])
    with torch.no_grad():
        states, frames = encoder(padded, torch.tensor([16000, 24000]))
    torch.testing.assert_close(states[0, : frames[0]], expected[:, 0], rtol=1e-3, atol=1e-4)
    assert states.isfinite().all()


def test_normalise_brings_each_clip_to_mean_0_and_variance_1(tiny):
    loud, quiet = clip(6000), 0.5 * clip(6000) + 0.1
    as_it_is = EncoderSettings(tiny, (1,), normalise="auto")
    assert not load_encoder(as_it_is).normalise  # as preprocessor_config.json says
    normalised = EncoderSettings(tiny, (1,), normalise="yes")
    assert torch.allclose(states_of(normalised, quiet), states_of(normalised, loud), rtol=1e-2, atol=1e-2)
    standard = (loud - loud.mean()) / loud.std(unbiased=False)
    assert torch.allclose(states_of(normalised, loud), states_of(as_it_is, standard), rtol=1e-3, atol=1e-3)


def test_gelu_and_its_gradient():
    values = torch.linspace(-6, 6, 1001, requires_grad=True)
    expected = torch.nn.functional.gelu(values)
    (slope,) = torch.autograd.grad(expected.sum(), values)
    found = gelu(values)
    (found_slope,) = torch.autograd.grad(found.sum(), values)
    assert torch.allclose(found, expected, atol=1e-6) and torch.allclose(found_slope, slope, atol=1e-6)


def test_gradients_of_gelu_and_convolution_are_finite():
    """On torch 1.13 one in some forty of these was not, with torch's own GELU."""
    convolution = torch.nn.Conv1d(192, 192, 5)
    noise = torch.Generator().manual_seed(0)
    for step in range(100):
        given = torch.randn(8, 192, 100 + step % 60, generator=noise, requires_grad=True)
        convolution(gelu(given)).square().mean().backward()
        assert given.grad.isfinite().all()
