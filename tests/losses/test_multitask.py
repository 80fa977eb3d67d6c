from dataclasses import asdict

import pytest
import torch

from speecheq.losses import LossWeights, combine

LOSSES = {"esc": torch.tensor(1.0), "eis": torch.tensor(2.0), "phoneme": torch.tensor(4.0), "gender": torch.tensor(8.0)}


def test_equation_4():
    assert float(combine(LOSSES, LossWeights())) == pytest.approx(1 + 2 + 0.4 + 0.8)
    assert float(combine(LOSSES, LossWeights(alpha=3, beta=0.5, eta=0.25))) == pytest.approx(1 + 6 + 2 + 2)


def test_weights_have_other_names_than_losses():
    """Both are curves of a training."""
    assert not set(asdict(LossWeights())) & set(LossWeights().by_task())


def test_streams_add_up():
    weights = LossWeights()
    parts = sum(combine({task: loss}, weights) for task, loss in LOSSES.items())
    torch.testing.assert_close(parts, combine(LOSSES, weights))


def test_half_losses_are_summed_in_float32():
    assert combine({"esc": torch.tensor(1.0, dtype=torch.float16)}, LossWeights()).dtype == torch.float32


@pytest.mark.parametrize("losses", [{}, {"age": torch.tensor(1.0)}])
def test_unknown_or_no_losses(losses):
    with pytest.raises(ValueError, match="esc, eis, phoneme, gender"):
        combine(losses, LossWeights())


@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_weights_out_of_range(value):
    with pytest.raises(ValueError, match="beta"):
        LossWeights(beta=value)
