"""The whole model: shapes, blindness to padding, what each task computes and trains, its settings."""

import dataclasses

import pytest
import torch

from speecheq.config.schema import ModelConfig
from speecheq.models import TASKS, build_model, clip_eis

FIELDS = ("phoneme_logits", "gender_logits", "esc_logits", "eis")


def _config(**changes):
    return ModelConfig(**{**dict(channels=16, mfa_channels=24, bottleneck=8, embedding_dim=12), **changes})


def _model(**changes):
    torch.manual_seed(0)
    model = build_model(_config(**changes))
    for module in model.modules():  # statistics that make a mistake in masking visible
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.bias, -1, 1)
    return model


def test_shapes():
    predictions = _model()(torch.randn(3, 20, 80), torch.tensor([20, 7, 1]))
    assert predictions.phoneme_logits.shape == (3, 20, 202)
    assert predictions.gender_logits.shape == (3, 2)
    assert predictions.esc_logits.shape == (3, 9)
    assert predictions.eis.shape == (3,)
    assert predictions.embedding.shape == (3, 12)
    assert predictions.lengths.tolist() == [20, 7, 1]


@pytest.mark.parametrize("place", ["before_se", "after_se", "none"])
def test_padding_changes_nothing_in_inference(place):
    model = _model(res_bigru=place).eval()
    lengths = [40, 23, 7, 1]
    features = torch.randn(4, 50, 80) * 3
    with torch.no_grad():
        batch = model(features, torch.tensor(lengths))
        for n, length in enumerate(lengths):
            alone = model(features[n : n + 1, :length], torch.tensor([length]))
            torch.testing.assert_close(batch.phoneme_logits[n, :length], alone.phoneme_logits[0], atol=1e-4, rtol=0)
            for name in FIELDS[1:] + ("embedding",):
                torch.testing.assert_close(getattr(batch, name)[n], getattr(alone, name)[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("place", ["before_se", "after_se", "none"])
def test_more_padding_changes_nothing_in_training(place):
    torch.manual_seed(1)
    features, lengths = torch.randn(6, 20, 80), torch.tensor([20, 13, 20, 8, 1, 17])
    results = []
    for extra in (0, 17):
        model = _model(res_bigru=place).train()
        padding = torch.full((6, extra, 80), float("nan"))
        predictions = model(torch.cat([features, padding], dim=1), lengths)
        valid = torch.cat([predictions.phoneme_logits[n, :length] for n, length in enumerate(lengths)])
        (valid.square().mean() + predictions.embedding.pow(3).mean() + predictions.eis.sum()).backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        buffers = torch.cat([b.flatten().float() for b in model.buffers()])
        results.append((valid, predictions.embedding, predictions.eis, gradients, buffers))
    *short_values, short_gradients, short_buffers = results[0]
    *long_values, long_gradients, long_buffers = results[1]
    for short, long in zip(short_values + [short_buffers], long_values + [long_buffers]):
        torch.testing.assert_close(short, long, atol=1e-4, rtol=1e-4)
    # Rounding, enlarged by the norms of six embeddings, is about 1e-5 here, as when the batch is permuted.
    assert (short_gradients - long_gradients).norm() < 1e-3 * short_gradients.norm()


@pytest.mark.parametrize("task", TASKS)
def test_a_task_computes_and_trains_its_own_head_only(task):
    model = _model()
    predictions = model(torch.randn(2, 12, 80), torch.tensor([12, 9]), tasks=(task,))
    own = {"phoneme": "phoneme_logits", "eis": "eis"}.get(task, task + "_logits")
    assert [name for name in FIELDS if getattr(predictions, name) is not None] == [own]
    assert (predictions.embedding is None) == (task == "phoneme")
    output = getattr(predictions, own)
    (output * torch.randn_like(output)).sum().backward()
    for other in TASKS:
        head = getattr(model, other + "_head")
        trained = [p.grad is not None and bool((p.grad != 0).any()) for p in head.parameters()]
        assert trained == [other == task] * len(trained), other
    assert model.backbone.first.convolution.weight.grad.abs().sum() > 0
    assert (model.backbone.fc.weight.grad is None) == (task == "phoneme")  # phonemes need no pooling


@pytest.mark.parametrize("tasks", [(), ("phoneme", "age")])
def test_unknown_tasks(tasks):
    with pytest.raises(ValueError, match="phoneme, gender, esc, eis"):
        _model()(torch.randn(2, 12, 80), torch.tensor([12, 9]), tasks=tasks)


def test_eis_starts_in_the_middle_and_is_not_clipped():
    model = _model()
    eis = model(torch.randn(8, 30, 80), torch.full((8,), 30)).eis
    assert (eis - 2).abs().max() < 0.5
    torch.nn.init.constant_(model.eis_head.bias, 9.0)
    assert model(torch.randn(8, 30, 80), torch.full((8,), 30)).eis.min() > 4
    assert clip_eis(torch.tensor([-1.0, 2.5, 9.0])).tolist() == [0.0, 2.5, 4.0]


def test_dropout_only_in_training():
    model = _model(dropout=0.5)
    x, lengths = torch.randn(2, 12, 80), torch.tensor([12, 9])
    assert not torch.equal(model(x, lengths).phoneme_logits, model(x, lengths).phoneme_logits)
    model.eval()
    assert torch.equal(model(x, lengths).phoneme_logits, model(x, lengths).phoneme_logits)


def test_it_runs_and_trains_under_bfloat16_autocast():
    model = _model()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predictions = model(torch.randn(3, 16, 80), torch.tensor([16, 9, 12]))
        loss = sum(getattr(predictions, name).float().square().mean() for name in FIELDS)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    "field, value, range_named",
    [
        ("channels", 0, "at least 2"),
        ("channels", 20, "multiple of scale"),
        ("mfa_channels", 1.5, "whole number"),
        ("res_bigru", "behind", "before_se, after_se, none"),
        ("num_phones", 1, "at least 2"),
        ("dropout", 1.0, "at most 0.99999"),
        ("dropout", float("nan"), "a number"),
        ("num_esc", True, "whole number"),
        ("scale", 1, "at least 2"),
        ("dropout", -0.1, "at least 0"),
    ],
)
def test_settings_out_of_range(field, value, range_named):
    config = dataclasses.replace(ModelConfig(), **{field: value})
    with pytest.raises(ValueError, match=f"{field} is .*{range_named}"):
        config.validate()
    with pytest.raises(ValueError):
        build_model(config)


def test_defaults_are_the_papers():
    config = ModelConfig().validate()
    assert (config.channels, config.mfa_channels, config.num_phones, config.num_esc) == (256, 1536, 202, 9)
