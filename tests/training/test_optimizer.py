"""The optimiser against torch's own on hand-made groups, the moving average against torch's AveragedModel."""

import copy

import pytest
import torch
from small_models import random_features, small_model
from torch import nn
from torch.optim.swa_utils import AveragedModel

from speecheq.config.schema import Config, OptimConfig
from speecheq.models import checkpoint
from speecheq.training.optimizer import AverageModel, build_optimizer


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))


def trained(model, optimizer, steps=4, after=lambda step: None):
    torch.manual_seed(1)
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 6)).square().sum().backward()
        optimizer.step()
        after(step)
    return model


def assert_same_weights(one, other):
    for (name, mine), theirs in zip(one.state_dict().items(), other.state_dict().values()):
        torch.testing.assert_close(mine, theirs, msg=lambda text: f"{name}: {text}")


def test_adam_is_the_papers():
    mine, theirs = net(), net()
    trained(mine, build_optimizer(mine, OptimConfig(learning_rate=0.01, weight_decay=0.1)))
    trained(theirs, torch.optim.Adam(theirs.parameters(), 0.01, weight_decay=0.1))
    assert_same_weights(mine, theirs)


def test_adamw_decays_weights_and_neither_biases_nor_norms():
    mine, theirs = net(), net()
    trained(mine, build_optimizer(mine, OptimConfig(optimizer="adamw", learning_rate=0.01, weight_decay=0.5)))
    decayed = [theirs[0].weight, theirs[3].weight]
    others = [theirs[0].bias, theirs[1].weight, theirs[1].bias, theirs[3].bias]
    groups = [{"params": decayed, "weight_decay": 0.5}, {"params": others, "weight_decay": 0.0}]
    trained(theirs, torch.optim.AdamW(groups, 0.01))
    assert_same_weights(mine, theirs)


@pytest.mark.parametrize("kind", ["speecheq", "baseline"])
def test_adamw_decays_the_weights_of_every_layer_of_our_models(kind):
    config = Config()
    config.model.kind, config.model.channels, config.model.mfa_channels = kind, 16, 32
    model = checkpoint.new_model(config)
    decayed, others = build_optimizer(model, OptimConfig(optimizer="adamw")).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, others = ([names[id(p)] for p in group["params"]] for group in (decayed, others))
    assert sorted(decayed + others) == sorted(names.values())
    assert all("weight" in name for name in decayed)
    assert all("bias" in name or "norm" in name for name in others), others


@pytest.mark.parametrize("kind, first", [("speecheq", "phoneme_head"), ("light", "backbone"), ("fusion", "backbone")])
def test_what_learns_phonemes_alone_has_its_own_learning_rate(kind, first):
    model = small_model(kind)
    groups = build_optimizer(model, OptimConfig(optimizer="adamw"), phoneme_factor=5.0).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    faster = [names[id(p)] for group in groups if group.get("lr_scale") == 5.0 for p in group["params"]]
    others = [names[id(p)] for group in groups if "lr_scale" not in group for p in group["params"]]
    assert sorted(faster + others) == sorted(names.values())
    assert {name.split(".")[0] for name in faster} == {first, "phoneme_head"}
    features, lengths = random_features(model, 2, 20), torch.tensor([20, 15])
    predictions = model(features, lengths, ("esc", "eis", "gender"))
    (predictions.esc_logits.sum() + predictions.eis.sum() + predictions.gender_logits.sum()).backward()
    assert all(model.get_parameter(name).grad is None for name in faster), "no other loss reaches them"


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_the_average_is_torchs_with_a_decay_that_rises(decay):
    def rising(old, new, updates):  # torch counts from 1 here
        kept = min(decay, float(updates / (9 + updates)))
        return kept * old + (1 - kept) * new

    model = net()
    average, theirs = AverageModel(model, decay), AveragedModel(model, avg_fn=rising)
    theirs.n_averaged += 1  # else its first update would copy the model

    def after(step):
        average.update(model, step)
        theirs.update_parameters(model)

    trained(model, build_optimizer(model, OptimConfig(learning_rate=0.05)), 12, after)
    for mine, other, now in zip(average.model.parameters(), theirs.module.parameters(), model.parameters()):
        torch.testing.assert_close(mine, other)
        assert not torch.equal(mine, now)


def test_statistics_of_batch_norm_are_averaged_and_counters_copied():
    model = net()
    average, before = AverageModel(model, 0.5), copy.deepcopy(model)
    trained(model, build_optimizer(model, OptimConfig(learning_rate=0.05)), 1, lambda step: average.update(model, 9))
    mine, old, new = average.model[1], before[1], model[1]
    torch.testing.assert_close(mine.running_mean, (old.running_mean + new.running_mean) / 2)
    torch.testing.assert_close(mine.running_var, (old.running_var + new.running_var) / 2)
    assert int(mine.num_batches_tracked) == 1 and not mine.training


def test_what_does_not_change_stays_to_the_bit():
    """The normalisation's mean and deviation are buffers too."""
    config = Config()
    config.model.channels, config.model.mfa_channels = 16, 32
    torch.manual_seed(0)
    model = checkpoint.new_model(config, torch.randn(80), torch.rand(80))
    average = AverageModel(model, 0.99)
    for step in range(50):
        average.update(model, step)
    for name, value in model.state_dict().items():
        assert torch.equal(average.model.state_dict()[name], value), name


def test_training_does_not_move_the_average_by_itself():
    model = net()
    average = AverageModel(model, 0.9)
    before = copy.deepcopy(average.model.state_dict())
    trained(model, build_optimizer(model, OptimConfig(learning_rate=0.05)))
    assert all(torch.equal(before[name], value) for name, value in average.model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
