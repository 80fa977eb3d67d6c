"""The baseline: shapes, blindness to padding, what each task trains, CTC at its own frame rate, its settings."""

import dataclasses

import pytest
import torch

from speecheq.common.errors import InputError
from speecheq.config.layers import load, save
from speecheq.config.schema import Config, ModelConfig
from speecheq.dataset.batch import MultitaskBatch, TaskBatch
from speecheq.losses import LossWeights
from speecheq.models import TASKS, Baseline, SpeechEQ, build_model, checkpoint
from speecheq.models.baseline import max_pool
from speecheq.models.padding_mask import Frames
from speecheq.seqm import SEQM_CLASSES
from speecheq.training.precision import Precision
from speecheq.training.step import stream_loss, train_step

FIELDS = ("phoneme_logits", "gender_logits", "esc_logits", "eis")
CPU = torch.device("cpu")
FP32 = Precision("fp32", CPU)


def _config(**changes):
    return ModelConfig(**{**dict(kind="baseline", channels=12, embedding_dim=10), **changes})


def _model(**changes):
    torch.manual_seed(0)
    model = build_model(_config(**changes))
    for module in model.modules():  # statistics that make a mistake in masking visible
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.bias, -1, 1)
    return model


def _settings(**of_model) -> Config:
    config = Config()
    config.model = _config(**of_model)
    config.data.cmvn, config.loss.gamma = "none", 1.0
    return config


def _batch() -> MultitaskBatch:
    """Noise in which every label is a louder band, and phones in turn are too."""
    generator = torch.Generator().manual_seed(0)

    def stream(name, marks, targets):
        inputs = torch.randn(len(marks), 60, 80, generator=generator) * 0.5
        for clip, mark in enumerate(marks):
            inputs[clip, :, 5 * mark : 5 * mark + 5] += 2
        lengths = torch.tensor([60 - 3 * clip for clip in range(len(marks))])
        return TaskBatch(inputs, lengths, [f"{name}{clip}" for clip in range(len(marks))], targets)

    esc = torch.tensor([0, 1, 2, 8, 1, 0])
    return MultitaskBatch(
        stream("e", esc.tolist(), {"esc": esc, "eis": torch.tensor([0.0, 2.5, -1.0, 3.5, 2.5, 0.0])}),
        stream("g", [0, 1, 1, 0], {"gender": torch.tensor([0, 1, 1, 0])}),
        stream("p", [3, 7, 5], {"phones": [torch.tensor([3, 4]), torch.tensor([7]), torch.tensor([5, 5, 9])]}),
    )


def test_shapes_and_a_third_of_the_frames():
    predictions = _model()(torch.randn(4, 20, 80), torch.tensor([20, 7, 3, 1]))
    assert predictions.lengths.tolist() == [7, 3, 1, 1]
    assert predictions.phoneme_logits.shape == (4, 7, 202)
    assert predictions.gender_logits.shape == (4, 2)
    assert predictions.esc_logits.shape == (4, 9)
    assert predictions.eis.shape == (4,)
    assert predictions.embedding.shape == (4, 10)


def test_max_pooling_sees_speech_only():
    lengths = torch.tensor([8, 4, 1])
    x = -torch.arange(1.0, 25.0).view(3, 8, 1)
    pooled, frames = max_pool(x, Frames.from_lengths(lengths, 8, CPU))
    assert pooled[..., 0].tolist() == [[-1.0, -4.0, -7.0], [-9.0, -12.0, 0.0], [-17.0, 0.0, 0.0]]
    assert frames.lengths.tolist() == frames.given_lengths.tolist() == [3, 2, 1]
    short, _ = max_pool(x[1:2, :4], Frames.from_lengths(lengths[1:2], 4, CPU))
    assert short[0, :, 0].tolist() == [-9.0, -12.0]


def test_padding_changes_nothing_in_inference():
    model = _model().eval()
    lengths = [40, 29, 23, 9, 7, 1]
    features = torch.randn(6, 50, 80) * 3
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


def test_inference_gives_what_training_mode_gives_but_for_batch_norm():
    """torch computes the attention in another way where no gradient is wanted."""
    model = _model().eval()
    features, lengths = torch.randn(3, 50, 80), torch.tensor([50, 31, 2])
    with torch.no_grad():
        quick = model(features, lengths)
    slow = model(features, lengths)
    for name in FIELDS + ("embedding",):
        torch.testing.assert_close(getattr(quick, name), getattr(slow, name), atol=1e-5, rtol=1e-4)


def test_more_padding_changes_nothing_in_training():
    torch.manual_seed(1)
    features, lengths = torch.randn(6, 20, 80), torch.tensor([20, 13, 20, 8, 1, 17])
    results = []
    for extra in (0, 17):
        model = _model().train()
        padding = torch.full((6, extra, 80), float("nan"))
        predictions = model(torch.cat([features, padding], dim=1), lengths)
        valid = torch.cat([row[:length] for row, length in zip(predictions.phoneme_logits, predictions.lengths)])
        (valid.square().mean() + predictions.embedding.pow(3).mean() + predictions.eis.sum()).backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        buffers = torch.cat([b.flatten().float() for b in model.buffers()])
        results.append((valid, predictions.embedding, predictions.eis, gradients, buffers))
    for short, long in zip(*results):
        torch.testing.assert_close(short, long, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_computes_and_trains_its_own_head_only(task):
    model = _model()
    predictions = model(torch.randn(2, 32, 80), torch.tensor([32, 19]), tasks=(task,))
    own = {"phoneme": "phoneme_logits", "eis": "eis"}.get(task, task + "_logits")
    assert [name for name in FIELDS if getattr(predictions, name) is not None] == [own]
    assert (predictions.embedding is None) == (task == "phoneme")
    output = getattr(predictions, own)
    (output * torch.randn_like(output)).sum().backward()
    for other in TASKS:
        head = getattr(model, other + "_head")
        trained = [p.grad is not None and bool((p.grad != 0).any()) for p in head.parameters()]
        assert trained == [other == task] * len(trained), other
    for name, parameter in model.backbone.named_parameters():
        shared = name.startswith(("first.", "second."))
        reached = parameter.grad is not None and bool((parameter.grad != 0).any())
        assert reached == (shared or task != "phoneme"), name


@pytest.mark.parametrize("tasks", [(), ("phoneme", "age")])
def test_unknown_tasks(tasks):
    with pytest.raises(ValueError, match="phoneme, gender, esc, eis"):
        _model()(torch.randn(2, 12, 80), torch.tensor([12, 9]), tasks=tasks)


def test_eis_starts_in_the_middle_and_is_not_clipped():
    model = _model()
    features, lengths = torch.randn(8, 30, 80), torch.full((8,), 30)
    assert (model(features, lengths).eis - 2).abs().max() < 0.5
    torch.nn.init.constant_(model.eis_head.bias, 9.0)
    assert model(features, lengths).eis.min() > 4


def test_dropout_only_in_training():
    model = _model(dropout=0.5)
    x, lengths = torch.randn(2, 12, 80), torch.tensor([12, 9])
    assert not torch.equal(model(x, lengths).phoneme_logits, model(x, lengths).phoneme_logits)
    model.eval()
    assert torch.equal(model(x, lengths).phoneme_logits, model(x, lengths).phoneme_logits)


def test_statistics_per_stream():
    model = _model(batch_statistics="per_stream").train()
    norm = model.backbone.second.norm
    before = {name: value.clone() for name, value in norm.named_buffers()}
    model(torch.randn(3, 20, 80), torch.tensor([20, 9, 14]), tasks=("phoneme",))
    assert torch.equal(norm.running_mean, before["running_mean"])
    assert not torch.equal(norm.phoneme_mean, before["phoneme_mean"])
    model(torch.randn(3, 20, 80), torch.tensor([20, 9, 14]), tasks=("esc",))
    assert not torch.equal(norm.running_mean, before["running_mean"])


def test_it_runs_and_trains_under_bfloat16_autocast():
    model = _model()
    features, lengths = torch.randn(3, 32, 80), torch.tensor([32, 9, 20])
    for mode in (model.train(), model.eval()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            predictions = mode(features, lengths)
            loss = sum(getattr(predictions, name).float().square().mean() for name in FIELDS)
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_size_at_the_papers_width():
    model = build_model(ModelConfig(kind="baseline"))
    assert model.backbone.attention.linear1.out_features == 512  # theirs
    assert sum(p.numel() for p in model.parameters()) == 1_334_678
    # convolutions with batch norm, LSTM, attention with its feed-forward layers and norms, fully connected, heads
    parts = [61_696 + 512 + 196_864 + 512, 395_264, 263_168 + 262_912 + 1_024, 98_496, 51_914 + 386 + 1_737 + 193]
    assert sum(parts) == 1_334_678


# ---- its training


def test_every_parameter_learns_and_the_losses_fall():
    config, batch = _settings(), _batch()
    torch.manual_seed(0)
    model = checkpoint.new_model(config)
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    reports = [
        train_step(model, optimizer, batch, config, "torch", CPU, LossWeights(beta=0.5), FP32) for _ in range(25)
    ]
    assert all(not torch.equal(value, before[name]) for name, value in model.named_parameters())
    for task in ("esc", "eis", "gender", "phoneme"):
        assert reports[-1][task] < 0.6 * reports[0][task], (task, reports[0], reports[-1])
    assert reports[0]["ctc_left_out"] == 0


@pytest.mark.parametrize(
    "kind, frames, feasible", [("speecheq", 12, True), ("baseline", 12, False), ("baseline", 13, True)]
)
def test_ctc_counts_the_frames_of_the_logits(kind, frames, feasible):
    """Five phones need five frames: a third of 13, rounded up."""
    config = _settings(kind=kind, channels=16, mfa_channels=24, bottleneck=8)
    lengths = torch.tensor([60, frames])
    stream = TaskBatch(
        torch.randn(2, 60, 80), lengths, ["long", "short"], {"phones": [torch.tensor([1, 2, 3, 4, 5])] * 2}
    )
    torch.manual_seed(0)
    _, losses, left_out = stream_loss(
        checkpoint.new_model(config).train(), "phoneme", stream, config, "torch", LossWeights(), FP32
    )
    assert left_out == ([] if feasible else ["short"])
    assert torch.isfinite(losses["phoneme"])


def test_decoding_ignores_frames_behind_the_end(monkeypatch):
    from speecheq.evaluation import predictions as evaluate

    class Cut:
        def __init__(self, name):
            self.id = name

    stream = TaskBatch(torch.randn(2, 30, 80), torch.tensor([30, 7]), ["a", "b"], {"phones": [torch.tensor([1])] * 2})
    monkeypatch.setattr(evaluate, "scoring_batches", lambda *_: [stream])
    model = checkpoint.new_model(_settings())
    read = []
    monkeypatch.setattr(evaluate, "greedy_decode", lambda logits, lengths: read.append(lengths.tolist()) or [[], []])
    evaluate.predict_phones(model, [Cut("a"), Cut("b")], 2, CPU)
    assert read == [[10, 3]]


# ---- its settings and checkpoints


def test_the_settings_choose_the_model():
    assert isinstance(build_model(_config()), Baseline)
    assert isinstance(build_model(_config(kind="speecheq", channels=16)), SpeechEQ)
    assert ModelConfig().kind == "speecheq"


@pytest.mark.parametrize(
    "changes, sentence",
    [
        (dict(kind="cnn"), "kind is 'cnn', but it must be one of speecheq, baseline"),
        (dict(kind="baseline", channels=15), "channels is 15, but it must be even"),
        (dict(kind="baseline", embedding_dim=0), "embedding_dim is 0, but it must be at least 1"),
        (dict(kind="baseline", dropout=1.0), "dropout is 1.0"),
    ],
)
def test_settings_out_of_range(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        build_model(dataclasses.replace(ModelConfig(), **changes))


def test_the_baseline_needs_no_multiple_of_scale():
    model = build_model(_config(channels=10))
    assert model.backbone.attention.self_attn.num_heads == 2


def test_settings_and_weights_survive_the_disk(tmp_path):
    config = _settings()
    save(config, tmp_path / "config.yaml")
    assert load(tmp_path / "config.yaml") == config
    model = checkpoint.new_model(config).eval()
    phones = ["SIL", *map(str, range(1, 202))]
    checkpoint.save(tmp_path / "best.pt", model, config, SEQM_CLASSES, phones)
    again, its_config, content = checkpoint.load_model(tmp_path / "best.pt")
    assert isinstance(again.model, Baseline) and its_config == config
    features, lengths = torch.randn(2, 20, 80), torch.tensor([20, 11])
    with torch.no_grad():
        one, other = model(features, lengths), again(features, lengths)
    assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in FIELDS)
    assert checkpoint.start_from(checkpoint.new_model(config), content, SEQM_CLASSES, phones) == []


def test_a_baseline_does_not_start_from_speecheq(tmp_path):
    config = _settings(kind="speecheq", channels=16)
    checkpoint.save(tmp_path / "best.pt", checkpoint.new_model(config), config, SEQM_CLASSES, ["SIL"])
    with pytest.raises(InputError, match="its backbone has model.kind=speecheq, this training's baseline"):
        checkpoint.read_start(tmp_path / "best.pt", _settings(channels=16))


def test_checkpoints_from_before_there_was_a_choice_are_speecheqs(tmp_path):
    config = _settings(kind="speecheq", channels=16)
    checkpoint.save(tmp_path / "best.pt", checkpoint.new_model(config), config, SEQM_CLASSES, ["SIL"])
    content = checkpoint.read(tmp_path / "best.pt")
    del content["config"]["model"]["kind"]
    checkpoint.write(tmp_path / "old.pt", content)
    model, _, _ = checkpoint.load_model(tmp_path / "old.pt")
    assert isinstance(model.model, SpeechEQ)
