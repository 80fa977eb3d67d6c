"""Both filter banks, the extractor and its batched twin, against torchaudio's."""

import numpy as np
import pytest
import torch

from speecheq.features import fbank
from speecheq.features.fbank import BatchedFbank, Fbank, FbankConfig

# one frame, the edges of rounding up and down to frames, and ordinary clips
LENGTHS = (400, 479, 480, 560, 639, 16000, 31999, 1203)


def clip(samples, seed=0):
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    tone = torch.sin(torch.arange(samples) * 0.05)
    return (0.1 * noise + 0.3 * tone).clamp(-1, 1)


def reference(samples):
    try:
        from torchaudio.compliance import kaldi
    except Exception as error:
        pytest.skip(f"torchaudio does not import: {error}")
    return kaldi.fbank(
        samples[None],
        num_mel_bins=80,
        frame_length=25,
        frame_shift=10,
        window_type="hamming",
        dither=0.0,
        snip_edges=False,
        low_freq=20,
        high_freq=8000,
        sample_frequency=16000,
    )


@pytest.mark.parametrize("samples", LENGTHS)
def test_the_extractor_agrees_with_torchaudio(samples):
    expected = reference(clip(samples))
    found = Fbank().extract(clip(samples).numpy(), 16000)
    assert found.shape == expected.shape == (FbankConfig().num_frames(samples), 80) and found.dtype == np.float32
    assert np.abs(found - expected.numpy()).max() < 1e-3


def test_the_batched_twin_agrees_with_torchaudio_on_clips_of_very_different_lengths():
    clips = [clip(samples, seed) for seed, samples in enumerate(LENGTHS)]
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=0.7)  # padding must not matter
    found, frames = BatchedFbank()(batch, torch.tensor(LENGTHS))
    for row, samples, count in zip(found, clips, frames.tolist()):
        expected = reference(samples)
        assert count == len(expected) and (row[:count] - expected).abs().max() < 1e-3
        assert not row[count:].any()


def test_the_twins_agree_with_each_other():
    clips = [clip(samples, seed) for seed, samples in enumerate(LENGTHS)]
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    found, frames = BatchedFbank()(batch, torch.tensor(LENGTHS))
    for row, samples, count in zip(found, clips, frames.tolist()):
        expected = torch.from_numpy(Fbank().extract(samples.numpy(), 16000))
        assert count == len(expected) and (row[:count] - expected).abs().max() < 1e-3


@pytest.mark.parametrize("frames_a_piece", [1, 150, 10**6])
def test_the_batched_twin_in_pieces_gives_the_same(monkeypatch, frames_a_piece):
    clips = torch.stack([clip(16000, seed) for seed in range(5)])
    lengths = torch.tensor([16000, 400, 9000, 15999, 480])
    whole = BatchedFbank()(clips, lengths)
    monkeypatch.setattr(fbank, "FRAMES_A_PIECE", frames_a_piece)
    pieces = BatchedFbank()(clips, lengths)
    assert torch.equal(whole[1], pieces[1]) and (whole[0] - pieces[0]).abs().max() < 1e-4


def test_the_batched_twin_can_be_learned_through():
    samples = torch.stack([clip(800), clip(800, 1)]).requires_grad_()
    BatchedFbank()(samples, torch.tensor([800, 500]))[0].sum().backward()
    assert torch.isfinite(samples.grad).all() and samples.grad[0].any()
    assert not samples.grad[1, 500:].any(), "padding has no influence"


def test_what_the_extractor_refuses():
    with pytest.raises(ValueError, match="16000 Hz are expected, not at 8000"):
        Fbank().extract(np.zeros(800), 8000)
    with pytest.raises(ValueError, match="one channel"):
        Fbank().extract(np.zeros((2, 800)), 16000)
    with pytest.raises(ValueError, match="one channel"):
        Fbank().extract(np.zeros(0), 16000)


def test_the_extractor_takes_any_layout_and_type_of_samples():
    samples = clip(4800).numpy()
    expected = Fbank().extract(samples, 16000)
    spaced = np.stack([samples, samples], 1)[:, 0]  # not contiguous
    for same in (spaced, samples[None], samples.astype(np.float64), samples.tolist()):
        assert np.array_equal(Fbank().extract(same, 16000), expected)
