"""Sizes of the backbone against the published ones; its pooling against the plain formula."""

import pytest
import torch

from speecheq.config.schema import ModelConfig
from speecheq.models.ecapa import AttentiveStatisticsPooling, EcapaTdnn, Res2Convolution, moments
from speecheq.models.padding_mask import Frames

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "channels, res_bigru, millions",
    [(512, "none", 6.2), (1024, "none", 14.7), (256, "none", 3.33), (256, "before_se", 4.2), (256, "after_se", 4.2)],
)
def test_parameter_count(channels, res_bigru, millions):
    model = EcapaTdnn(ModelConfig(channels=channels, res_bigru=res_bigru), 80)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.008)


def test_attentive_pooling_against_the_formula_utterance_by_utterance():
    torch.manual_seed(0)
    pooling = AttentiveStatisticsPooling(channels=5, bottleneck=3).eval()
    with torch.no_grad():
        pooling.norm.running_mean.normal_()
        pooling.norm.running_var.uniform_(0.5, 2)
    lengths = [7, 1, 4]
    h = torch.randn(3, 7, 5)
    pooled = pooling(h, Frames.from_lengths(torch.tensor(lengths), 7, CPU))
    norm = pooling.norm
    for n, length in enumerate(lengths):
        own = h[n, :length]  # (T, C)
        mean, std = own.mean(0), own.var(0, unbiased=False).clamp(min=1e-5).sqrt()
        seen = torch.cat([own, mean.expand_as(own), std.expand_as(own)], dim=1)  # [h; mean; std]
        weight = torch.cat([pooling.local.weight.squeeze(2), pooling.context.weight], dim=1)
        inner = torch.relu(seen @ weight.t() + pooling.local.bias)
        inner = (inner - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        scores = torch.tanh(inner) @ pooling.scores.weight.squeeze(2).t() + pooling.scores.bias
        alpha = torch.softmax(scores, dim=0)
        mean = (alpha * own).sum(0)
        std = ((alpha * own**2).sum(0) - mean**2).clamp(min=1e-5).sqrt()
        torch.testing.assert_close(pooled[n], torch.cat([mean, std]), atol=1e-4, rtol=1e-4)


def test_pooling_of_constant_frames_has_finite_gradients():
    pooling = AttentiveStatisticsPooling(channels=3, bottleneck=2)
    h = torch.ones(2, 4, 3, requires_grad=True)
    pooling(h, Frames.from_lengths(torch.tensor([4, 1]), 4, CPU)).sum().backward()
    assert torch.isfinite(h.grad).all()


def test_res2_passes_the_first_group_and_chains_the_others():
    torch.manual_seed(0)
    res2 = Res2Convolution(channels=8, scale=4, kernel=3, dilation=2).eval()
    frames = Frames.from_lengths(torch.tensor([6]), 6, CPU)
    x = torch.randn(1, 6, 8)
    y = res2(x, frames)
    torch.testing.assert_close(y[..., :2], x[..., :2])
    torch.testing.assert_close(y[..., 2:4], res2.units[0](x[..., 2:4], frames))
    torch.testing.assert_close(y[..., 6:], res2.units[2](x[..., 6:] + y[..., 4:6], frames))


@pytest.mark.parametrize("per_channel", [False, True])
def test_moments_and_their_gradients_are_autograds(per_channel):
    torch.manual_seed(0)
    h, scores = torch.randn(3, 7, 5, dtype=torch.float64), torch.randn(3, 7, 5 if per_channel else 1).double()
    direction = torch.randn(2, 3, 5).double()
    results = []
    for compute in (moments, plain_moments):
        own, its_scores = h.clone().requires_grad_(), scores.clone().requires_grad_(per_channel)
        found = torch.stack(compute(own, torch.softmax(its_scores, dim=1)))
        (found * direction).sum().backward()
        results.append([found, own.grad] + ([its_scores.grad] if per_channel else []))
    torch.testing.assert_close(results[0], results[1])
    with torch.no_grad():
        torch.testing.assert_close(torch.stack(moments(h, torch.softmax(scores, dim=1))), results[1][0])


def plain_moments(h, weights):
    mean = (weights * h).sum(1)
    return mean, (weights * (h - mean[:, None]) ** 2).sum(1)
