"""The weighted sum of an encoder's layers against its formula."""

import torch

from speecheq.config.schema import ModelConfig
from speecheq.models.layer_mixture import LayerMixture, build_front_end


def test_the_mixture_is_the_projected_sum_of_normalised_layers():
    torch.manual_seed(0)
    mixture = LayerMixture(num_layers=3, layer_dim=5, projection=4)
    torch.nn.init.normal_(mixture.scores)
    states = torch.randn(2, 7, 15) * torch.tensor([1.0, 30.0, 900.0]).repeat_interleave(5)
    with torch.no_grad():
        mixed = mixture(states)
        shares = torch.exp(mixture.scores) / torch.exp(mixture.scores).sum()
        for clip in range(2):
            for frame in range(7):
                total = torch.zeros(5)
                for layer in range(3):
                    state = states[clip, frame, 5 * layer : 5 * layer + 5]
                    deviation = (state.var(unbiased=False) + 1e-5).sqrt()
                    total += shares[layer] * (state - state.mean()) / deviation
                expected = mixture.project.weight @ total + mixture.project.bias
                torch.testing.assert_close(mixed[clip, frame], expected, atol=1e-5, rtol=1e-4)


def test_all_layers_weigh_the_same_at_first_and_the_useful_one_more_later():
    torch.manual_seed(0)
    mixture = LayerMixture(num_layers=2, layer_dim=6, projection=1)
    assert mixture.weights().tolist() == [0.5, 0.5]
    states = torch.randn(16, 4, 12)
    target = torch.nn.functional.layer_norm(states[..., 6:], (6,))[..., :1]  # layer 1 has it, layer 0 is noise
    optimizer = torch.optim.Adam(mixture.parameters(), 0.05)
    for _ in range(150):
        optimizer.zero_grad()
        (mixture(states) - target).square().mean().backward()
        optimizer.step()
    assert mixture.weights()[1] > 0.9


def test_constant_and_zero_frames_have_finite_gradients():
    mixture = LayerMixture(num_layers=2, layer_dim=3, projection=2)
    states = torch.zeros(1, 2, 6)
    states[0, 1] = 4.0
    states.requires_grad_()
    mixture(states).sum().backward()
    assert torch.isfinite(states.grad).all() and all(torch.isfinite(p.grad).all() for p in mixture.parameters())


def test_filter_banks_go_to_the_backbone_as_they_are():
    assert build_front_end(ModelConfig()) == (None, 80)
    mixture, width = build_front_end(ModelConfig(encoder_layers=2, encoder_dim=6, feature_dim=12, projection=7))
    assert isinstance(mixture, LayerMixture) and width == 7
    assert mixture(torch.randn(1, 3, 12)).shape == (1, 3, 7)
