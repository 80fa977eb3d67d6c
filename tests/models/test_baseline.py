"""The baseline: pooling, batch statistics, training, CTC at its own frame rate, checkpoints."""

import pytest
import torch
from small_models import FIELDS, SMALL, small_model

from speecheq.common.errors import InputError
from speecheq.config.layers import load, save
from speecheq.config.schema import Config, ModelConfig
from speecheq.dataset.batch import TaskBatch
from speecheq.losses import LossWeights
from speecheq.models import Baseline, SpeechEQ, build_model, checkpoint
from speecheq.models.baseline import max_pool
from speecheq.models.padding_mask import Frames
from speecheq.seqm import SEQM_CLASSES
from speecheq.training.precision import Precision
from speecheq.training.step import StepSetup, stream_loss

CPU = torch.device("cpu")
FP32 = Precision("fp32", CPU)


def _config(**changes):
    return ModelConfig(**{"kind": "baseline", **SMALL["baseline"], **changes})


def _settings(**changes) -> Config:
    config = Config()
    config.model = _config(**changes)
    config.data.cmvn, config.loss.gamma = "none", 1.0
    return config


def test_max_pooling_sees_speech_only():
    lengths = torch.tensor([8, 4, 1])
    x = -torch.arange(1.0, 25.0).view(3, 8, 1)
    pooled, frames = max_pool(x, Frames.from_lengths(lengths, 8, CPU))
    assert pooled[..., 0].tolist() == [[-1.0, -4.0, -7.0], [-9.0, -12.0, 0.0], [-17.0, 0.0, 0.0]]
    assert frames.lengths.tolist() == frames.given_lengths.tolist() == [3, 2, 1]
    short, _ = max_pool(x[1:2, :4], Frames.from_lengths(lengths[1:2], 4, CPU))
    assert short[0, :, 0].tolist() == [-9.0, -12.0]


def test_inference_gives_what_training_mode_gives_but_for_batch_norm():
    """torch computes the attention in another way where no gradient is wanted."""
    model = small_model("baseline").eval()
    features, lengths = torch.randn(3, 50, 80), torch.tensor([50, 31, 2])
    with torch.no_grad():
        quick = model(features, lengths)
    slow = model(features, lengths)
    for name in FIELDS + ("embedding",):
        torch.testing.assert_close(getattr(quick, name), getattr(slow, name), atol=1e-5, rtol=1e-4)


def test_statistics_per_stream():
    model = small_model("baseline", batch_statistics="per_stream").train()
    norm = model.backbone.second.norm
    before = {name: value.clone() for name, value in norm.named_buffers()}
    model(torch.randn(3, 20, 80), torch.tensor([20, 9, 14]), tasks=("phoneme",))
    assert torch.equal(norm.running_mean, before["running_mean"])
    assert not torch.equal(norm.phoneme_mean, before["phoneme_mean"])
    model(torch.randn(3, 20, 80), torch.tensor([20, 9, 14]), tasks=("esc",))
    assert not torch.equal(norm.running_mean, before["running_mean"])


def test_size_at_the_papers_width():
    model = build_model(ModelConfig(kind="baseline"))
    assert model.backbone.attention.linear1.out_features == 512  # theirs
    assert sum(p.numel() for p in model.parameters()) == 1_334_678
    # convolutions with batch norm, LSTM, attention with its feed-forward layers and norms, fully connected, heads
    parts = [61_696 + 512 + 196_864 + 512, 395_264, 263_168 + 262_912 + 1_024, 98_496, 51_914 + 386 + 1_737 + 193]
    assert sum(parts) == 1_334_678


# ---- its training


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
    model = checkpoint.new_model(config).train()
    _, losses, left_out = stream_loss(model, "phoneme", stream, StepSetup(config, "torch", FP32), LossWeights())
    assert left_out == ([] if feasible else ["short"])
    assert torch.isfinite(losses["phoneme"])


def test_decoding_ignores_frames_behind_the_end(monkeypatch):
    from speecheq.evaluation import predictions as evaluate

    class Cut:
        def __init__(self, name):
            self.id = name

    stream = TaskBatch(torch.randn(2, 30, 80), torch.tensor([30, 7]), ["a", "b"], {"phones": [torch.tensor([1])] * 2})

    class Inputs:
        def batches(self, *_):
            return [stream]

    model = checkpoint.new_model(_settings())
    read = []
    monkeypatch.setattr(
        evaluate, "greedy_decode", lambda logits, lengths, pause: read.append(lengths.tolist()) or [[], []]
    )
    evaluate.predict_phones(model, [Cut("a"), Cut("b")], 2, CPU, Inputs())
    assert read == [[10, 3]]


# ---- its settings and checkpoints


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
