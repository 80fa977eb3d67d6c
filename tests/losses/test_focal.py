import pytest
import torch
from torch.nn.functional import cross_entropy

from speecheq.losses import focal_loss


def test_gamma_0_is_cross_entropy():
    torch.manual_seed(0)
    logits, targets, weights = torch.randn(20, 9) * 3, torch.randint(0, 9, (20,)), torch.rand(9) + 0.1
    torch.testing.assert_close(focal_loss(logits, targets, 0), cross_entropy(logits, targets))
    torch.testing.assert_close(focal_loss(logits, targets, 0, weights), cross_entropy(logits, targets, weights))


@pytest.mark.parametrize("gamma", [0.5, 1, 2, 10])
def test_the_formula(gamma):
    torch.manual_seed(0)
    logits, targets = torch.randn(20, 9, dtype=torch.float64) * 2, torch.randint(0, 9, (20,))
    p = torch.softmax(logits, 1)[torch.arange(20), targets]
    expected = (-(1 - p) ** gamma * p.log()).mean()
    assert float(focal_loss(logits, targets, gamma)) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 10])
@pytest.mark.parametrize("height", [200.0, -200.0, 17.0])
def test_gradients_are_finite_at_certainty(gamma, height):
    logits = torch.tensor([[height, 0.0, 0.0]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0]), gamma)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()
    if height < 0:
        assert logits.grad[0, 0] < -0.9  # wrong and certain: a full push


def test_unlabelled_are_left_out():
    torch.manual_seed(0)
    logits = torch.randn(4, 3, requires_grad=True)
    loss = focal_loss(logits, torch.tensor([2, -1, 0, -1]), 2.0)
    torch.testing.assert_close(loss, focal_loss(logits[[0, 2]], torch.tensor([2, 0]), 2.0))
    loss.backward()
    assert (logits.grad[[1, 3]] == 0).all() and (logits.grad[[0, 2]] != 0).any()


def test_no_label_at_all_is_a_zero_with_a_graph():
    logits = torch.randn(4, 3, requires_grad=True)
    loss = focal_loss(logits, torch.full((4,), -1), 2.0)
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_give_a_float32_loss(dtype):
    logits = torch.tensor([[30.0, 0.0], [0.0, 30.0]], dtype=dtype, requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0, 0]), 2.0)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(15, rel=1e-3)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("targets, gamma, named", [([3], 1, r"0\.\.2"), ([-2], 1, r"0\.\.2"), ([0], -1, "gamma")])
def test_out_of_range(targets, gamma, named):
    with pytest.raises(ValueError, match=named):
        focal_loss(torch.zeros(1, 3), torch.tensor(targets), gamma)
