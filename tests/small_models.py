"""Small models for tests."""

import torch

from speecheq.config.schema import ModelConfig
from speecheq.models import build_model

FIELDS = ("phoneme_logits", "gender_logits", "esc_logits", "eis")
SMALL = {
    "speecheq": dict(channels=16, mfa_channels=24, bottleneck=8, embedding_dim=12),
    "baseline": dict(channels=12, embedding_dim=10),
}


def small_model(kind, **changes):
    torch.manual_seed(0)
    model = build_model(ModelConfig(**{"kind": kind, **SMALL[kind], **changes}))
    for module in model.modules():  # statistics that make a mistake in masking visible
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.bias, -1, 1)
    return model
