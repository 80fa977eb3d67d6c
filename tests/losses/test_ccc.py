import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speecheq.losses import ccc, eis_loss

EIS = st.floats(0, 4, width=32)
PAIRS = st.lists(st.tuples(EIS, EIS), min_size=2, max_size=40).map(lambda pairs: torch.tensor(pairs).t())


def _direct(x, y):
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    correlation = np.corrcoef(x, y)[0, 1]
    return 2 * correlation * x.std() * y.std() / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def test_direct_formula():
    generator = np.random.default_rng(0)
    for size in (2, 5, 32, 500):
        x, y = generator.uniform(0, 4, size), generator.uniform(0, 4, size)
        y = 0.6 * x + 0.4 * y
        assert float(ccc(torch.tensor(x), torch.tensor(y))) == pytest.approx(_direct(x, y), rel=1e-4)


@given(PAIRS)
def test_symmetric_and_within_one(pair):
    value = float(ccc(pair[0], pair[1]))
    assert value == pytest.approx(float(ccc(pair[1], pair[0])), abs=1e-6)
    assert -1 - 1e-5 <= value <= 1 + 1e-5


@given(PAIRS)
def test_one_at_equality(pair):
    x = pair[0]
    if float(x.var(unbiased=False)) > 1e-3:
        assert float(ccc(x, x)) == pytest.approx(1, abs=1e-4)
    assert float(ccc(x, x)) <= 1 + 1e-5


@given(PAIRS)
def test_gradients_are_finite(pair):
    predicted = pair[0].clone().requires_grad_()
    eis_loss(predicted, pair[1]).backward()
    assert torch.isfinite(predicted.grad).all()


@pytest.mark.parametrize(
    "predicted, gold",
    [([2.0, 2.0, 2.0], [2.0, 2.0, 2.0]), ([2.0, 2.0], [1.0, 3.0]), ([1.0, 3.0], [2.0, 2.0]), ([1.0], [3.0])],
)
def test_zero_variance_is_zero_concordance(predicted, gold):
    predicted = torch.tensor(predicted, requires_grad=True)
    value = ccc(predicted, torch.tensor(gold))
    value.backward()
    assert value.item() == 0 and torch.isfinite(predicted.grad).all()


def test_drop_leaves_unlabelled_out():
    predicted = torch.tensor([1.0, 2.5, 9.0, 3.0], requires_grad=True)
    gold = torch.tensor([1.5, 2.0, -1.0, 3.5])
    loss = eis_loss(predicted, gold, "drop")
    assert loss.item() == pytest.approx(1 - _direct([1.0, 2.5, 3.0], [1.5, 2.0, 3.5]), rel=1e-4)
    loss.backward()
    assert predicted.grad[2] == 0 and (predicted.grad[[0, 1, 3]] != 0).all()


def test_fill_takes_the_clipped_prediction_as_a_constant_label():
    predicted = torch.tensor([1.0, 2.5, 9.0, 3.0, -2.0], requires_grad=True)
    gold = torch.tensor([1.5, 2.0, -1.0, 3.5, -1.0])
    loss = eis_loss(predicted, gold, "fill")
    filled = [1.5, 2.0, 4.0, 3.5, 0.0]
    assert loss.item() == pytest.approx(1 - _direct(predicted.detach(), filled), rel=1e-4)
    loss.backward()
    constant = predicted.detach().clone().requires_grad_()
    (1 - ccc(constant, torch.tensor(filled))).backward()
    torch.testing.assert_close(predicted.grad, constant.grad)


def test_the_test_is_on_the_label_not_on_the_prediction():
    predicted, gold = torch.tensor([-1.0, 2.0, 3.0]), torch.tensor([1.0, 2.5, 3.0])
    for label_ignore in ("fill", "drop"):
        assert float(eis_loss(predicted, gold, label_ignore)) == pytest.approx(1 - _direct(predicted, gold), rel=1e-4)


@pytest.mark.parametrize("label_ignore", ["fill", "drop"])
def test_no_label_at_all_is_a_zero_with_a_graph(label_ignore):
    predicted = torch.tensor([5.0, 2.0, -3.0], requires_grad=True)
    loss = eis_loss(predicted, torch.full((3,), -1.0), label_ignore)
    loss.backward()
    assert loss.item() == 0 and (predicted.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("label_ignore", ["fill", "drop"])
def test_half_inputs_give_a_float32_loss(dtype, label_ignore):
    predicted = torch.tensor([1.0, 2.5, 3.0], dtype=dtype, requires_grad=True)
    loss = eis_loss(predicted, torch.tensor([1.5, -1.0, 3.5], dtype=dtype), label_ignore)
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(predicted.grad).all()


def test_unknown_label_ignore():
    with pytest.raises(ValueError, match="fill, drop"):
        eis_loss(torch.zeros(2), torch.zeros(2), "skip")
