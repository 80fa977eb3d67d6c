import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy

from speecheq.losses import focal_loss, inverse_weights


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
    expected = (-((1 - p) ** gamma) * p.log()).mean()
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


@pytest.mark.parametrize("smoothing", [0.05, 0.3])
def test_label_smoothing_is_torchs(smoothing):
    torch.manual_seed(0)
    logits, targets, weights = torch.randn(20, 9) * 3, torch.randint(0, 9, (20,)), torch.rand(9) + 0.1
    for given in (None, weights):
        torch.testing.assert_close(
            focal_loss(logits, targets, 0, given, smoothing),
            cross_entropy(logits, targets, given, label_smoothing=smoothing),
        )


def test_label_smoothing_is_the_mean_over_targets_of_the_focal_loss():
    torch.manual_seed(0)
    logits, targets = torch.randn(7, 4), torch.randint(0, 4, (7,))
    of_class = [focal_loss(logits, torch.full((7,), k), 2.0) for k in range(4)]
    expected = 0.8 * focal_loss(logits, targets, 2.0) + 0.2 * sum(of_class) / 4
    torch.testing.assert_close(focal_loss(logits, targets, 2.0, None, 0.2), expected)


@pytest.mark.parametrize("gamma", [0, 0.5, 10])
def test_gradients_are_finite_at_certainty_with_smoothed_labels(gamma):
    logits = torch.tensor([[200.0, 0.0, 0.0], [0.0, 17.0, -200.0]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0, 2]), gamma, None, 0.1)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("gamma", [0, 2.0])
def test_soft_labels_are_the_mean_over_classes_of_the_focal_loss(gamma):
    torch.manual_seed(0)
    logits, targets, weights = torch.randn(5, 3), torch.tensor([0, 1, -1, 2, 2]), torch.tensor([0.5, 2.0, 1.0])
    shares = torch.tensor([[0.2, 0.8, 0], [0, 1, 0], [0.3, 0.3, 0.4], [0.5, 0.25, 0.25], [0, 0, 1]])
    of_class = torch.stack(
        [torch.stack([focal_loss(row, torch.tensor([k]), gamma) for k in range(3)]) for row in logits[:, None]]
    )
    kept = [0, 1, 3, 4]
    weighted = shares[kept] * weights
    expected = (weighted * of_class[kept]).sum() / weighted.sum()
    torch.testing.assert_close(focal_loss(logits, targets, gamma, weights, shares=shares), expected)
    hard = torch.eye(3)[targets.clamp(min=0)]
    torch.testing.assert_close(
        focal_loss(logits, targets, gamma, weights, shares=hard), focal_loss(logits, targets, gamma, weights)
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_labels_at_gamma_0_are_torchs(smoothing):
    torch.manual_seed(0)
    logits, shares = torch.randn(6, 4), torch.rand(6, 4).softmax(1)
    torch.testing.assert_close(
        focal_loss(logits, shares.argmax(1), 0, None, smoothing, shares=shares),
        cross_entropy(logits, shares, label_smoothing=smoothing),
    )


def test_clips_have_weights():
    torch.manual_seed(0)
    logits, targets, weights = torch.randn(4, 3), torch.tensor([2, -1, 0, 1]), torch.tensor([1.0, 9.0, 0.5, 2.0])
    single = torch.stack([focal_loss(logits[[row]], targets[[row]], 2.0) for row in (0, 2, 3)])
    kept = weights[[0, 2, 3]]
    found = focal_loss(logits, targets, 2.0, clip_weights=weights)
    torch.testing.assert_close(found, (kept * single).sum() / kept.sum())
    torch.testing.assert_close(
        focal_loss(logits, targets, 2.0, clip_weights=torch.ones(4)), focal_loss(logits, targets, 2.0)
    )


def test_inverse_weights_are_scikit_learns_balanced_ones():
    labels = np.repeat([0, 2, 3], [7, 2, 11])
    counts = {0: 7, 2: 2, 3: 11}
    theirs = compute_class_weight("balanced", classes=np.array([0, 2, 3]), y=labels)
    weights = inverse_weights(counts, 5)
    np.testing.assert_allclose(weights[[0, 2, 3]], theirs, rtol=1e-6)
    assert weights[1] == weights[4] == 0
    assert float(weights[labels].mean()) == pytest.approx(1)
    with pytest.raises(ValueError, match="no clips"):
        inverse_weights({}, 5)
