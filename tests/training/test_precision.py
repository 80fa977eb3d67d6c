"""Mixed precision, steps that are not finite, and batches that do not fit."""

import dataclasses
import math

import pytest
import torch
from training_runs import small_config

from speecheq.common.errors import InputError
from speecheq.config.schema import Config
from speecheq.dataset.batch import MultitaskBatch, TaskBatch
from speecheq.losses import LossWeights
from speecheq.models import checkpoint
from speecheq.training import step
from speecheq.training.precision import (
    NotFinite,
    Precision,
    copy_buffers,
    explain_out_of_memory,
    restore_buffers,
    save_batch,
)
from speecheq.training.step import StepSetup, check_memory, gradients, train_step

CPU = torch.device("cpu")
FP32 = Precision("fp32", CPU)


@pytest.fixture
def config() -> Config:
    return small_config(data__cmvn="none")


@pytest.fixture
def batch() -> MultitaskBatch:
    generator = torch.Generator().manual_seed(0)

    def stream(name, clips, frames, targets):
        inputs = torch.randn(clips, frames, 80, generator=generator)
        lengths = torch.tensor([frames - 3 * clip for clip in range(clips)])
        return TaskBatch(inputs, lengths, [f"{name}{clip}" for clip in range(clips)], targets)

    return MultitaskBatch(
        stream("e", 4, 40, {"esc": torch.tensor([0, 1, 2, 8]), "eis": torch.tensor([0.0, 2.5, -1.0, 1.5])}),
        stream("g", 4, 30, {"gender": torch.tensor([0, 1, 1, 0])}),
        stream("p", 3, 50, {"phones": [torch.tensor([3, 4]), torch.tensor([7]), torch.tensor([5, 5, 9])]}),
    )


def a_model(config):
    torch.manual_seed(0)
    return checkpoint.new_model(config)


def take_step(model, batch, config, precision, optimizer=None):
    optimizer = optimizer or torch.optim.Adam(model.parameters(), 1e-3)
    return train_step(model, optimizer, batch, StepSetup(config, "torch", precision), LossWeights())


def test_bf16_is_near_fp32_and_keeps_weights_and_losses_in_float32(config, batch):
    rows, kinds = {}, set()
    for choice in ("fp32", "bf16"):
        model, precision = a_model(config), Precision(choice, CPU)
        if choice == "bf16":
            model.model.backbone.mfa.register_forward_hook(lambda _m, _i, output: kinds.add(output.dtype))
        rows[choice] = take_step(model, batch, config, precision)
        losses = gradients(model, batch, StepSetup(config, "torch", precision), LossWeights()).by_task
        assert {loss.dtype for loss in losses.values()} == {torch.float32}
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
    assert kinds == {torch.bfloat16}
    for name in ("esc", "eis", "gender", "phoneme"):
        assert rows["bf16"][name] == pytest.approx(rows["fp32"][name], rel=0.03, abs=0.03), name
        assert rows["bf16"][name] != rows["fp32"][name], name


def test_bf16_learns_a_batch(config, batch):
    model = a_model(config)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    rows = [take_step(model, batch, config, Precision("bf16", CPU), optimizer) for _ in range(15)]
    assert rows[-1]["total"] < 0.7 * rows[0]["total"]


def test_fp16_needs_a_gpu():
    with pytest.raises(InputError, match="run.precision is fp16, which needs a GPU"):
        Precision("fp16", CPU)


def scaled(start: float) -> Precision:
    """fp16's scaler at work without a GPU, where torch has one for the CPU."""
    if not hasattr(torch.amp, "GradScaler"):
        pytest.skip("torch 1.13 scales losses on a GPU only")
    precision = Precision("fp32", CPU)
    precision.scaler = torch.amp.GradScaler("cpu", init_scale=start)
    return precision


def test_a_scaled_loss_gives_the_same_step_and_norm(config, batch):
    plain, with_scale = a_model(config), a_model(config)
    row = take_step(plain, batch, config, FP32)
    assert take_step(with_scale, batch, config, scaled(1024.0)) == pytest.approx(row, rel=1e-4)
    for mine, theirs in zip(plain.parameters(), with_scale.parameters()):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_a_scale_that_is_too_high_is_lowered_without_a_fault(config, batch):
    model, precision = a_model(config), scaled(2.0**127)
    before = [parameter.clone() for parameter in model.parameters()]
    row = take_step(model, batch, config, precision)
    assert not math.isfinite(row["gradient_norm"]) and precision.scaler.get_scale() == 2.0**126
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


@pytest.mark.parametrize("stream", ["emotion", "gender", "phoneme"])
def test_the_stream_that_is_not_finite_is_named_and_nothing_is_updated(config, batch, stream):
    model = a_model(config)
    before, buffers = [parameter.clone() for parameter in model.parameters()], copy_buffers(model)
    broken = getattr(batch, stream)
    broken.inputs[1, 2, 3] = math.nan
    with pytest.raises(NotFinite, match=f"the loss of the {stream} batch is nan .*{broken.ids[0]} {broken.ids[1]}"):
        take_step(model, batch, config, FP32)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    assert any(not torch.isfinite(buffer).all() for buffer in model.buffers())
    restore_buffers(model, buffers)
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())


def test_a_gradient_that_is_not_finite_is_named(config, batch):
    model = a_model(config)
    model.model.gender_head.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NotFinite, match="the gradient's norm is (nan|inf) .*the utterances of the step: e0 e1"):
        take_step(model, batch, config, FP32)


def test_the_gradient_is_clipped_to_its_norm(config, batch):
    config.optim.clip_gradient = 0.01
    model = a_model(config)
    row = take_step(model, batch, config, FP32, torch.optim.SGD(model.parameters(), 0.0))
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(0.01, rel=1e-3) and row["gradient_norm"] > 0.01


def test_a_saved_batch_can_be_read_again(batch, tmp_path):
    save_batch(tmp_path / "bad.pt", batch, "the sentence")
    content = torch.load(tmp_path / "bad.pt", weights_only=True)
    assert content["error"] == "the sentence" and content["emotion"]["ids"] == batch.emotion.ids
    assert torch.equal(content["phoneme"]["inputs"], batch.phoneme.inputs)
    assert torch.equal(content["phoneme"]["targets"]["phones"][2], torch.tensor([5, 5, 9]))


@pytest.mark.parametrize(
    "stream, setting", [("emotion", "data.max_seconds"), ("phoneme", "data.phoneme_batch_seconds")]
)
def test_memory_that_does_not_suffice_names_the_setting(config, batch, monkeypatch, stream, setting):
    def too_large(model, name, *others):
        if name == stream:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return stream_loss(model, name, *others)

    stream_loss = step.stream_loss
    monkeypatch.setattr(step, "stream_loss", too_large)
    words = f"is too small for a {stream} mini-batch of . clips of 0.[45] s; lower.*{setting}"
    with pytest.raises(InputError, match=words):
        take_step(a_model(config), batch, config, FP32)


def test_other_faults_are_not_taken_for_a_lack_of_memory(batch):
    with pytest.raises(RuntimeError, match="something else"), explain_out_of_memory("emotion", batch.emotion):
        raise RuntimeError("something else")


def test_trying_the_largest_batches_leaves_no_trace(config, batch):
    model = a_model(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_memory(model, batch, StepSetup(config, "torch", FP32), LossWeights())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["speecheq", "baseline"])
@pytest.mark.parametrize("label_ignore", ["fill", "drop"])
def test_forward_and_backward_never_wait_for_the_device(config, batch, kind, label_ignore):
    # A "meta" tensor has no values: whoever looks at one, as a wait for a GPU would, fails. CTC looks at its targets
    # and lengths only, which stay on the CPU, but has no kernel for this device.
    config.model.kind, config.loss.label_ignore = kind, label_ignore
    without_values = torch.device("meta")
    batch = dataclasses.replace(batch, phoneme=None)
    batch.gender.targets["gender"][1] = -1
    with pytest.raises((NotImplementedError, RuntimeError)):
        bool(torch.ones(1, device=without_values))
    model, setup = a_model(config).to(without_values), StepSetup(config, "torch", FP32)
    for name, stream in batch.streams().items():
        loss = step.stream_loss(model, name, stream.to(without_values), setup, LossWeights()).total
        assert loss.device == without_values
        if not torch.__version__.startswith("1."):  # whose convolutions have no gradient on this device
            loss.backward()
            assert model.model.esc_head.weight.grad is not None
