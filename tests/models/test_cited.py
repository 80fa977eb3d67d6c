"""The four cited systems: sizes, shapes, no effect of padding, one mini-batch can be learned, CTC and its collapse."""

import logging
import math
from dataclasses import replace

import pytest
import torch

from speecheq.config.model import CITED_KINDS, ModelConfig
from speecheq.config.schema import Config
from speecheq.dataset.batch import MultitaskBatch, TaskBatch
from speecheq.losses import LossWeights, emitted, emotion_ctc_loss
from speecheq.models import build_model, checkpoint
from speecheq.models.attention_ctc import ComponentAttention, count_segments
from speecheq.models.padding_mask import Frames
from speecheq.training.precision import Precision
from speecheq.training.step import StepSetup, train_step

EACH_KIND = pytest.mark.parametrize("kind", CITED_KINDS)
CPU = torch.device("cpu")
MFCC = dict(feature_dim=26, frame_shift=0.032)


def _config(kind, **changes):
    widths = MFCC if kind == "head_fusion" else dict(feature_dim=40)
    return ModelConfig(**{"kind": kind, "num_esc": 4, **widths, **changes})


def _model(kind, **changes):
    torch.manual_seed(0)
    model = build_model(_config(kind, **changes))
    for module in model.modules():  # statistics that make a mistake in masking visible
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.bias, -1, 1)
    return model


def _parameters(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


# ---- sizes and shapes


def test_head_fusion_has_the_size_of_its_code():
    model = _model("head_fusion")
    assert _parameters(model.backbone, model.esc_head) == 155_636


def test_head_fusion_has_the_shapes_of_its_code():
    backbone = _model("head_fusion").eval().backbone
    windows, counts = backbone.windows(torch.randn(2, 100, 26), [100, 63])
    assert windows.shape[1:] == (1, 26, 63)  # 2 s
    assert counts.tolist() == [1 + (100 - 63) // 12, 1]  # each 0.4 s, rounded down to whole frames
    assert backbone.tall(windows).shape[2:] == backbone.wide(windows).shape[2:] == (25, 62)
    assert backbone.images(windows).shape[1:] == (80, 6, 15)
    assert backbone.train().windows(torch.randn(1, 100, 26), [100])[1].tolist() == [2]  # each 1 s


def test_the_windows_of_head_fusion_follow_the_frame_rate_of_the_features():
    assert _model("head_fusion", feature_dim=80, frame_shift=0.01).backbone.windows(torch.randn(1, 9, 80), [9])[
        0
    ].shape == (1, 1, 80, 200)


def test_the_logits_of_head_fusion_are_the_mean_of_its_windows():
    model = _model("head_fusion").eval()
    features = torch.randn(1, 100, 26)
    with torch.no_grad():
        whole = model(features, torch.tensor([100])).esc_logits
        pieces = [model(features[:, place : place + 63], torch.tensor([63])).esc_logits for place in (0, 12, 24, 36)]
    torch.testing.assert_close(whole, torch.stack(pieces).mean(0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("changes", [{"heads_joined": "mean"}, {"attention_axis": "space"}])
def test_the_switches_of_head_fusion_change_what_it_computes_and_not_its_size(changes):
    torch.manual_seed(1)
    features, lengths = torch.randn(2, 70, 26), torch.tensor([70, 64])
    one, other = _model("head_fusion").eval(), _model("head_fusion", **changes).eval()
    assert _parameters(one) == _parameters(other)
    assert not torch.allclose(one(features, lengths).esc_logits, other(features, lengths).esc_logits)


def test_hgfm_has_the_size_of_its_code():
    model = _model("hgfm", feature_dim=33, context="dialogue")
    assert _parameters(model.backbone, model.esc_head) == pytest.approx(2.54e6, rel=0.02)
    assert model.backbone.utterance.joined == 1233
    assert model.backbone.dialogue.joined == 1500
    assert _model("hgfm", feature_dim=33).backbone.dialogue is None


def test_the_dialogue_of_hgfm_is_the_mini_batch_in_its_order():
    features, lengths = torch.randn(3, 20, 40), torch.tensor([20, 9, 15])
    order = torch.tensor([2, 0, 1])
    for context, same in (("none", True), ("dialogue", False)):
        model = _model("hgfm", context=context).eval()
        with torch.no_grad():
            given, other = model(features, lengths), model(features[order], lengths[order])
        assert torch.allclose(given.esc_logits[order], other.esc_logits, atol=1e-5) == same, context


@EACH_KIND
def test_shapes(kind):
    model = _model(kind)
    features, lengths = torch.randn(3, 50, model.config.feature_dim), torch.tensor([50, 7, 1])
    predictions = model(features, lengths)
    assert predictions.phoneme_logits is None
    assert predictions.esc_logits.shape == (3, 4)
    assert predictions.gender_logits.shape == (3, 2)
    assert predictions.eis.shape == (3,)
    assert predictions.embedding.shape == (3, model.config.embedding_dim)
    with pytest.raises(ValueError, match="they must be some of gender, esc, eis"):
        model(features, lengths, tasks=("phoneme",))


# ---- padding


@EACH_KIND
def test_padding_changes_nothing_in_inference(kind):
    model = _model(kind).eval()
    lengths = [130, 71, 64, 29, 9, 7, 2, 1]
    features = torch.randn(len(lengths), 150, model.config.feature_dim) * 2
    features[1, 71:] = float("nan")
    with torch.no_grad():
        batch = model(features, torch.tensor(lengths))
        for n, length in enumerate(lengths):
            alone = model(features[n : n + 1, :length], torch.tensor([length]))
            for name in ("esc_logits", "gender_logits", "eis", "embedding"):
                torch.testing.assert_close(getattr(batch, name)[n], getattr(alone, name)[0], atol=1e-4, rtol=1e-4)


@EACH_KIND
def test_more_padding_changes_nothing_in_training(kind, monkeypatch):
    monkeypatch.setattr("torch.nn.Dropout.forward", lambda self, x: x)
    monkeypatch.setattr("torch.nn.functional.dropout", lambda x, *_, **__: x)
    torch.manual_seed(1)
    lengths = torch.tensor([70, 64, 20, 33])
    features, results = torch.randn(4, 70, _config(kind).feature_dim), []
    for extra in (0, 17):
        model = _model(kind).train()
        for module in model.modules():
            if isinstance(module, (torch.nn.MultiheadAttention, torch.nn.Dropout)):
                module.dropout = module.p = 0.0
        padding = torch.full((4, extra, features.shape[2]), float("nan"))
        predictions = model(torch.cat([features, padding], dim=1), lengths)
        predictions.esc_logits.square().sum().backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((predictions.esc_logits, gradients))
    (short, gradients), (long, others) = results
    torch.testing.assert_close(short, long, atol=1e-4, rtol=1e-4)
    assert (gradients - others).norm() < 1e-3 * gradients.norm()


# ---- learning


def _step_config(kind):
    config = Config()
    config.model, config.data.cmvn = _config(kind), "none"
    config.loss.gamma = config.loss.beta = 0.0
    config.validate()
    return config


def _batch(kind, classes=(0, 1, 2, 3, 2, 0)):
    """Noise in which each class is another band, of another level, in two places."""
    generator = torch.Generator().manual_seed(0)
    width = _config(kind).feature_dim
    inputs = torch.randn(len(classes), 75, width, generator=generator) * 0.3
    for clip, label in enumerate(classes):
        for place in (5, 40):
            inputs[clip, place : place + 20, 5 * label : 5 * label + 5] += 1 + 2 * label
    lengths = torch.tensor([75 - 3 * clip for clip in range(len(classes))])
    esc, genders = torch.tensor(classes), torch.tensor([label % 2 for label in classes])
    ids = [f"clip{clip}" for clip in range(len(classes))]
    emotion = TaskBatch(inputs, lengths, ids, {"esc": esc, "eis": torch.full((len(classes),), -1.0)})
    return MultitaskBatch(emotion, replace(emotion, targets={"gender": genders}))


@pytest.mark.parametrize(
    "kind, steps, rate",
    [("attention_ctc", 30, 3e-3), ("hgfm", 12, 3e-3), ("multihead_gender", 25, 3e-3), ("head_fusion", 50, 1e-2)],
)
def test_one_mini_batch_can_be_learned(kind, steps, rate):
    config, batch = _step_config(kind), _batch(kind)
    torch.manual_seed(0)
    model = checkpoint.new_model(config)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    setup = StepSetup(config, "none", Precision("fp32", CPU))
    for _ in range(steps):
        row = train_step(model, optimizer, batch, setup, LossWeights(eta=0.5))
    assert math.isfinite(row["total"])
    with torch.no_grad():
        predictions = model.eval()(batch.emotion.inputs, batch.emotion.lengths, tasks=("esc", "gender"))
    assert predictions.esc_logits.argmax(1).tolist() == batch.emotion.targets["esc"].tolist()
    assert predictions.gender_logits.argmax(1).tolist() == batch.gender.targets["gender"].tolist()
    if kind == "attention_ctc":
        assert row["esc_emitted"] > 0.5  # it says more than blank
        assert 0 < row["esc_blank"] < 1


# ---- CTC of emotions


def test_component_attention_is_the_sum_of_its_formula():
    torch.manual_seed(0)
    attention, lengths = ComponentAttention(), torch.tensor([12, 6])
    h = torch.randn(2, 12, 256)
    with torch.no_grad():
        c = attention(h, Frames.from_lengths(lengths, 12, CPU))
        weights = attention.contents.weight.view(9, 256, 256)
        for clip, t in ((0, 0), (0, 6), (1, 5)):
            around = [u for u in range(t - 4, t + 5) if 0 <= u < lengths[clip]]
            scores = torch.stack([attention.scores(torch.tanh(attention.hidden(h[clip, u]))) for u in around])
            contents = torch.stack([weights[u - t + 4] @ h[clip, u] for u in around])
            torch.testing.assert_close(c[clip, t], (scores.softmax(0) * contents).sum(0), atol=1e-4, rtol=1e-4)


def test_segments_are_runs_of_louder_frames():
    features = torch.zeros(4, 60, 3)
    features[0, 5:20] = features[0, 30:50] = 1.0
    features[1, 10:18] = 1.0  # too short
    features[2, 40:60] = 1.0  # behind the clip's end
    lengths = torch.tensor([60, 60, 35, 60])
    assert count_segments(features, lengths).tolist() == [2, 1, 1, 1]
    assert count_segments(features[:, :5], torch.full((4,), 5)).tolist() == [1, 1, 1, 1]


def test_a_clip_has_no_more_labels_than_ctc_can_emit():
    model = _model("attention_ctc").train()
    features = torch.zeros(2, 60, 40)
    features[:, 2:13] = features[:, 16:27] = features[:, 30:41] = 1.0
    lengths = torch.tensor([60, 2])
    predictions = model(features, lengths, tasks=("esc",))
    assert predictions.esc_labels.tolist() == [3, 1]
    result = emotion_ctc_loss(
        predictions.esc_frame_logits, predictions.lengths, torch.tensor([1, 2]), predictions.esc_labels, "torch"
    )
    assert result.feasible.all() and torch.isfinite(result.per_utterance).all()
    single = _model("attention_ctc", ctc_labels="single").train()(features, lengths, tasks=("esc",))
    assert single.esc_labels.tolist() == [1, 1]


def test_what_is_emitted_is_counted_within_the_clips():
    logits = torch.zeros(2, 4, 5)
    logits[:, :, 0] = 100.0
    logits[0, 1, 3], logits[1, 3, 2] = 200.0, 200.0  # the second behind its clip's end
    found = emitted(logits, torch.tensor([4, 2]))
    assert found.blank.item() == pytest.approx((0.75 + 1) / 2) and found.labels.item() == pytest.approx(0.5)


def test_a_collapse_to_blank_is_logged(caplog, monkeypatch):
    """With a bias towards blank alone the loss is finite, and only the counts of what is emitted tell."""
    from speecheq.training import trainer as module
    from speecheq.training.state import TrainingState

    config, batch = _step_config("attention_ctc"), _batch("attention_ctc")
    model = checkpoint.new_model(config)
    with torch.no_grad():
        model.model.esc_head.bias[0] = 30.0
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    setup = StepSetup(config, "none", Precision("fp32", CPU))
    row = train_step(model, optimizer, MultitaskBatch(batch.emotion), setup, LossWeights())
    assert math.isfinite(row["esc"]) and row["esc_blank"] > 0.99 and row["esc_emitted"] < 0.1

    state = TrainingState()
    state.add_losses(row)
    with caplog.at_level(logging.WARNING):
        module.warn_of_collapse("fold1", state)
    assert "fold1: epoch 1: CTC gives nearly nothing but blank (0.00 labels a clip)" in caplog.text
    caplog.clear()
    state = TrainingState()
    state.add_losses({"esc": 1.0})
    module.warn_of_collapse("fold1", state)
    assert not caplog.text


# ---- settings


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"loss.beta": 0.1}, "model.kind hgfm learns no phonemes; set loss.beta to 0"),
        ({"model.decoder_channels": 8}, "decoder_channels is 8, but hgfm has no decoder"),
        ({"model.kind": "attention_ctc", "loss.gamma": 2.0}, "learns emotions by CTC, without focal loss"),
        ({"model.kind": "attention_ctc", "mixup.alpha": 0.4}, "learns emotions by CTC, without focal loss"),
    ],
)
def test_settings_that_a_cited_system_does_not_take(changes, words):
    config = Config()
    config.model.kind, config.loss.beta, config.loss.gamma = "hgfm", 0.0, 0.0
    config.validate()
    for name, value in changes.items():
        group, key = name.split(".")
        setattr(getattr(config, group), key, value)
    with pytest.raises(ValueError, match=words):
        config.validate()
