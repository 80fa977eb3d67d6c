"""Every parameter of every kind of model learns, and the losses of all four tasks fall."""

import pytest
import torch
from small_models import SMALL

from speecheq.config.model import STACKED_FBANK
from speecheq.config.schema import Config, ModelConfig
from speecheq.dataset.batch import MultitaskBatch, TaskBatch
from speecheq.losses import LossWeights
from speecheq.models import checkpoint
from speecheq.training.precision import Precision
from speecheq.training.step import StepSetup, train_step

FP32 = Precision("fp32", torch.device("cpu"))
# The noise of 80 values below stands for two layers of an encoder.
LAYERS = dict(encoder_layers=2, encoder_dim=40, projection=24, channels=16)
KINDS = {
    "baseline": {},
    "light": dict(LAYERS, embedding_dim=10),
    "light on means": dict(LAYERS, pooling="mean", embedding_dim=10),
    "light on plain statistics": dict(LAYERS, pooling="statistics", embedding_dim=10),
    "fusion": dict(LAYERS, feature_dim=STACKED_FBANK + 80),
    "fusion on plain statistics": dict(LAYERS, feature_dim=STACKED_FBANK + 80, pooling="statistics"),
}


def batch_of_bands(kind) -> MultitaskBatch:
    """Noise in which every label is a louder band, and phones in turn are too."""
    generator = torch.Generator().manual_seed(0)

    def stream(name, marks, targets):
        inputs = torch.randn(len(marks), 60, 80, generator=generator) * 0.5
        for clip, mark in enumerate(marks):
            inputs[clip, :, 5 * mark : 5 * mark + 5] += 2
        if kind.startswith("fusion"):
            inputs = torch.cat([inputs, inputs, inputs], dim=2)
        lengths = torch.tensor([60 - 3 * clip for clip in range(len(marks))])
        return TaskBatch(inputs, lengths, [f"{name}{clip}" for clip in range(len(marks))], targets)

    esc = torch.tensor([0, 1, 2, 8, 1, 0])
    return MultitaskBatch(
        stream("e", esc.tolist(), {"esc": esc, "eis": torch.tensor([0.0, 2.5, -1.0, 3.5, 2.5, 0.0])}),
        stream("g", [0, 1, 1, 0], {"gender": torch.tensor([0, 1, 1, 0])}),
        stream("p", [3, 7, 5], {"phones": [torch.tensor([3, 4]), torch.tensor([7]), torch.tensor([5, 5, 9])]}),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns_and_the_losses_fall(kind):
    config, batch = Config(), batch_of_bands(kind)
    config.model = ModelConfig(**{"kind": kind.split()[0], **SMALL[kind], "feature_dim": 80, **KINDS[kind]})
    config.data.cmvn, config.loss.gamma = "none", 1.0
    torch.manual_seed(0)
    model = checkpoint.new_model(config)
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    setup = StepSetup(config, "torch", FP32)
    reports = [train_step(model, optimizer, batch, setup, LossWeights(beta=0.5)) for _ in range(25)]
    assert all(not torch.equal(value, before[name]) for name, value in model.named_parameters())
    for task in ("esc", "eis", "gender", "phoneme"):
        assert reports[-1][task] < 0.6 * reports[0][task], (task, reports[0], reports[-1])
    assert reports[0]["ctc_left_out"] == 0
