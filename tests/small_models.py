"""Small models for tests."""

import torch

from speecheq.config.schema import ModelConfig
from speecheq.models import build_model

FIELDS = ("phoneme_logits", "gender_logits", "esc_logits", "eis")
STATES = dict(encoder_layers=3, encoder_dim=16, feature_dim=48)
FUSION = dict(channels=16, mfa_channels=24, bottleneck=8, projection=8, embedding_dim=12, **STATES)
FUSION["feature_dim"] += 160  # pairs of frames of filter banks
# By name: the kind, or the kind and what it stands on.
SMALL = {
    "speecheq": dict(channels=16, mfa_channels=24, bottleneck=8, embedding_dim=12),
    "baseline": dict(channels=12, embedding_dim=10),
    "light": dict(channels=16, projection=8, bottleneck=4, embedding_dim=10, **STATES),
    "light on means": dict(channels=16, pooling="mean", embedding_dim=10, **STATES),
    "light on plain statistics": dict(channels=16, pooling="statistics", embedding_dim=10, **STATES),
    "fusion": FUSION,
    "fusion on plain statistics": dict(FUSION, pooling="statistics"),
    "speecheq on states": dict(channels=16, mfa_channels=24, bottleneck=8, projection=8, embedding_dim=12, **STATES),
    "baseline on states": dict(channels=12, projection=8, embedding_dim=10, **STATES),
}


def small_config(name, **changes):
    return ModelConfig(**{"kind": name.split()[0], **SMALL[name], **changes})


def small_model(name, **changes):
    torch.manual_seed(0)
    model = build_model(small_config(name, **changes))
    for module in model.modules():  # statistics that make a mistake in masking visible
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.bias, -1, 1)
    return model


def random_features(model, clips, num_frames):
    """Features (clips, num_frames, feature_dim) for ``model``."""
    return torch.randn(clips, num_frames, model.config.feature_dim)
