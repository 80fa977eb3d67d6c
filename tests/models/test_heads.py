"""All models with their heads: shapes, no effect of padding, what each task computes and trains, ranges of settings."""

import dataclasses

import pytest
import torch
from small_models import FIELDS, SMALL, random_features, small_model

from speecheq.config.schema import ModelConfig
from speecheq.models import TASKS, Baseline, Fusion, Light, SpeechEQ, build_model, clip_eis

EACH_KIND = pytest.mark.parametrize("kind", SMALL)
EACH_BACKBONE = pytest.mark.parametrize(
    "kind, place",
    [
        ("speecheq", "before_se"),
        ("speecheq", "after_se"),
        ("speecheq", "none"),
        ("baseline", "none"),
        ("light", "none"),
        ("fusion", "before_se"),
        ("speecheq on states", "none"),
        ("baseline on states", "none"),
    ],
)


@EACH_KIND
def test_shapes_and_the_frames_of_the_phonemes(kind):
    lengths = [7, 3, 1, 1] if "baseline" in kind else [20, 7, 3, 1]
    model = small_model(kind)
    predictions = model(random_features(model, 4, 20), torch.tensor([20, 7, 3, 1]))
    assert predictions.lengths.tolist() == lengths
    assert predictions.phoneme_logits.shape == (4, max(lengths), 202)
    assert predictions.gender_logits.shape == (4, 2)
    assert predictions.esc_logits.shape == (4, 9)
    assert predictions.eis.shape == (4,)
    assert predictions.embedding.shape == (4, SMALL[kind]["embedding_dim"])


@EACH_BACKBONE
def test_padding_changes_nothing_in_inference(kind, place):
    model = small_model(kind, res_bigru=place).eval()
    lengths = [40, 29, 23, 9, 7, 1]
    features = random_features(model, 6, 50) * 3
    features[1, 29:] = float("nan")
    with torch.no_grad():
        batch = model(features, torch.tensor(lengths))
        for n, length in enumerate(lengths):
            alone = model(features[n : n + 1, :length], torch.tensor([length]))
            own = int(alone.lengths)
            assert own == batch.lengths[n] == alone.phoneme_logits.shape[1]
            torch.testing.assert_close(batch.phoneme_logits[n, :own], alone.phoneme_logits[0], atol=1e-4, rtol=0)
            for name in FIELDS[1:] + ("embedding",):
                torch.testing.assert_close(getattr(batch, name)[n], getattr(alone, name)[0], atol=1e-4, rtol=0)


@EACH_BACKBONE
def test_more_padding_changes_nothing_in_training(kind, place):
    torch.manual_seed(1)
    features, lengths = random_features(small_model(kind), 6, 20), torch.tensor([20, 13, 20, 8, 1, 17])
    results = []
    for extra in (0, 17):
        model = small_model(kind, res_bigru=place).train()
        padding = torch.full((6, extra, features.shape[2]), float("nan"))
        predictions = model(torch.cat([features, padding], dim=1), lengths)
        valid = torch.cat([row[:length] for row, length in zip(predictions.phoneme_logits, predictions.lengths)])
        (valid.square().mean() + predictions.embedding.pow(3).mean() + predictions.eis.sum()).backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        buffers = torch.cat([b.flatten().float() for b in model.buffers()])
        results.append((valid, predictions.embedding, predictions.eis, buffers, gradients))
    for short, long in zip(*(result[:4] for result in results)):
        torch.testing.assert_close(short, long, atol=1e-4, rtol=1e-4)
    short, long = results[0][4], results[1][4]
    if "baseline" in kind:
        torch.testing.assert_close(short, long, atol=1e-4, rtol=1e-3)
    # Rounding, enlarged by the norms of six embeddings, is about 1e-5 here, as when the batch is permuted.
    assert (short - long).norm() < 1e-3 * short.norm()


@EACH_KIND
@pytest.mark.parametrize("task", TASKS)
def test_a_task_computes_and_trains_its_own_head_only(kind, task):
    model = small_model(kind)
    predictions = model(random_features(model, 2, 32), torch.tensor([32, 19]), tasks=(task,))
    own = {"phoneme": "phoneme_logits", "eis": "eis"}.get(task, task + "_logits")
    assert [name for name in FIELDS if getattr(predictions, name) is not None] == [own]
    assert (predictions.embedding is None) == (task == "phoneme")
    output = getattr(predictions, own)
    (output * torch.randn_like(output)).sum().backward()

    def trained(module):
        return {name: p.grad is not None and bool((p.grad != 0).any()) for name, p in module.named_parameters()}

    for other in TASKS:
        assert set(trained(getattr(model, other + "_head")).values()) == {other == task}, other
    if "baseline" in kind:
        for name, reached in trained(model.backbone).items():
            assert reached == (name.startswith(("first.", "second.")) or task != "phoneme"), name
    if model.backbone.has_phoneme_branch:
        for name, reached in trained(model.backbone).items():
            assert reached == (("phonemes." in name) == (task == "phoneme")), name
    else:
        assert model.backbone.first.convolution.weight.grad.abs().sum() > 0
    assert model.front_end is None or all(trained(model.front_end).values())
    assert (model.backbone.fc.weight.grad is None) == (task == "phoneme")  # phonemes need no pooling


@EACH_KIND
@pytest.mark.parametrize("tasks", [(), ("phoneme", "age")])
def test_unknown_tasks(kind, tasks):
    with pytest.raises(ValueError, match="phoneme, gender, esc, eis"):
        small_model(kind)(torch.randn(2, 12, 80), torch.tensor([12, 9]), tasks=tasks)


@EACH_KIND
def test_eis_starts_in_the_middle_and_is_not_clipped(kind):
    model = small_model(kind)
    features, lengths = random_features(model, 8, 30), torch.full((8,), 30)
    assert (model(features, lengths).eis - 2).abs().max() < 0.5
    torch.nn.init.constant_(model.eis_head.bias, 9.0)
    assert model(features, lengths).eis.min() > 4


def test_eis_is_clipped_for_scores():
    assert clip_eis(torch.tensor([-1.0, 2.5, 9.0])).tolist() == [0.0, 2.5, 4.0]


@EACH_KIND
def test_dropout_only_in_training(kind):
    model = small_model(kind, dropout=0.5)
    x, lengths = random_features(model, 2, 12), torch.tensor([12, 9])
    assert not torch.equal(model(x, lengths).phoneme_logits, model(x, lengths).phoneme_logits)
    model.eval()
    assert torch.equal(model(x, lengths).phoneme_logits, model(x, lengths).phoneme_logits)


@EACH_KIND
def test_it_runs_and_trains_under_bfloat16_autocast(kind):
    model = small_model(kind)
    features, lengths = random_features(model, 3, 32), torch.tensor([32, 9, 20])
    for mode in (model.train(), model.eval()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            predictions = mode(features, lengths)
            loss = sum(getattr(predictions, name).float().square().mean() for name in FIELDS)
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_settings_choose_the_model():
    assert isinstance(small_model("baseline"), Baseline)
    assert isinstance(small_model("speecheq"), SpeechEQ)
    assert isinstance(small_model("light"), Light)
    assert isinstance(small_model("fusion"), Fusion)
    assert ModelConfig().kind == "speecheq"


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(channels=0), "channels is 0, but it must be at least 2"),
        (dict(channels=20), "channels is 20, but it must be a multiple of scale"),
        (dict(mfa_channels=1.5), "mfa_channels is 1.5, but it must be a whole number"),
        (dict(res_bigru="behind"), "res_bigru is 'behind', but it must be one of before_se, after_se, none"),
        (dict(num_phones=1), "num_phones is 1, but it must be at least 2"),
        (dict(dropout=1.0), "dropout is 1.0, but it must be at most 0.99999"),
        (dict(dropout=-0.1), "dropout is -0.1, but it must be at least 0"),
        (dict(dropout=float("nan")), "dropout is nan, but it must be a number"),
        (dict(num_esc=True), "num_esc is True, but it must be a whole number"),
        (dict(scale=1), "scale is 1, but it must be at least 2"),
        (dict(kind="cnn"), "kind is 'cnn', but it must be one of speecheq, baseline"),
        (dict(kind="baseline", channels=15), "channels is 15, but it must be even"),
        (dict(kind="baseline", embedding_dim=0), "embedding_dim is 0, but it must be at least 1"),
        (dict(kind="baseline", dropout=1.0), "dropout is 1.0"),
        (
            dict(kind="light"),
            "kind is light, which takes the states of a pretrained encoder, but the features are fbank",
        ),
        (dict(kind="fusion"), "kind is fusion, which takes the states of a pretrained encoder"),
        (dict(kind="fusion", channels=20), "channels is 20, but it must be a multiple of scale"),
        (dict(kind="fusion", decoder_channels=8), "decoder_channels is 8, but fusion"),
        (
            dict(kind="light", pooled_layers=3, encoder_layers=2, encoder_dim=40),
            "pooled_layers is 3, but the features have 2 of the encoder's layers",
        ),
        (
            dict(kind="light", pooling="statistics", decoder_channels=8),
            "decoder_channels is 8, but with pooling statistics nothing is learned from frames",
        ),
        (dict(encoder_layers=2, encoder_dim=30), "feature_dim is 80, but 2 layers of 30 make 60 values a frame"),
        (
            dict(kind="fusion", encoder_layers=2, encoder_dim=30, feature_dim=60),
            "feature_dim is 60, but 2 layers of 30 make 220 values a frame",
        ),
    ],
)
def test_settings_out_of_range(changes, words):
    config = dataclasses.replace(ModelConfig(), **changes)
    for check in (config.validate, lambda: build_model(config)):
        with pytest.raises(ValueError, match=words):
            check()


def test_defaults_are_the_papers():
    config = ModelConfig().validate()
    assert (config.channels, config.mfa_channels, config.num_phones, config.num_esc) == (256, 1536, 202, 9)
