"""emotion2vec: the glue around FunASR's model with a stand-in for it, and FunASR's own class where it is installed."""

import os
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml
from encoder_models import batch, clip
from torch import nn

from speecheq.common.errors import InputError
from speecheq.features.encoders import EncoderSettings, encoder_digest, load_encoder

EXTRA = 3  # tokens in front of the frames
AUDIO = dict(
    type="AUDIO", prenet_depth=2, prenet_layerdrop=0.05, prenet_dropout=0.1, start_drop_path_rate=0.0,
    end_drop_path_rate=0.0, num_extra_tokens=10, init_extra_token_zero=True, local_grad_mult=1.0,
    use_alibi_encoder=True, alibi_scale=1.0, learned_alibi=False, alibi_max_pos=None, learned_alibi_scale=True,
    learned_alibi_scale_per_head=True, learned_alibi_scale_per_layer=False, num_alibi_heads=2, model_depth=3,
    decoder=None, extractor_mode="layer_norm", conv_pos_width=95, conv_pos_groups=2, conv_pos_depth=5,
    conv_pos_pre_ln=False, feature_encoder_spec="[(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16,2,2)] + [(16,2,2)]",
)  # fmt: skip
MODEL = dict(
    depth=3, start_drop_path_rate=0.0, end_drop_path_rate=0.0, num_heads=2, norm_eps=1e-5, norm_affine=True,
    encoder_dropout=0.1, post_mlp_drop=0.1, attention_dropout=0.1, activation_dropout=0.0, dropout_input=0.0,
    layerdrop=0.05, embed_dim=16, mlp_ratio=2.0, layer_norm_first=False, end_of_block_targets=False, normalize=True,
    modalities=dict(audio=AUDIO),
)  # fmt: skip


class Config(dict):
    """As much of OmegaConf's mappings as is used."""

    __getattr__ = dict.__getitem__

    @staticmethod
    def load(path):
        return Config(yaml.safe_load(Path(path).read_text()))


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.linear, self.dropout = nn.Linear(dim, dim), nn.Dropout(0.5)

    def forward(self, states, padding_mask=None, alibi_bias=None):
        states = states + self.dropout(torch.tanh(self.linear(states)))
        return states + 0.01 * states.mean(dim=1, keepdim=True), None


class StandIn(nn.Module):
    """Shaped like FunASR's Emotion2vec: its frames, extra tokens, blocks, and what it returns."""

    def __init__(self, model_conf):
        super().__init__()
        self.cfg = Config(model_conf)
        dim = self.cfg.embed_dim
        self.front = nn.Conv1d(1, dim, 400, stride=320)
        self.blocks = nn.ModuleList(Block(dim) for _ in range(self.cfg.depth))
        self.modality_encoders = nn.ModuleDict({"AUDIO": nn.Module()})
        self.modality_encoders["AUDIO"].modality_cfg = Config(num_extra_tokens=EXTRA)

    def extract_features(self, source, padding_mask=None, remove_extra_tokens=True):
        states = nn.functional.pad(self.front(source[:, None]).transpose(1, 2), (0, 0, EXTRA, 0), value=1.0)
        for block in self.blocks:
            states, _ = block(states, padding_mask=padding_mask)
        return {"x": states[:, EXTRA:] if remove_extra_tokens else states}


@pytest.fixture
def stand_in(monkeypatch):
    """FunASR and omegaconf as modules that hold the two classes above."""
    for name in ("funasr", "funasr.models", "funasr.models.emotion2vec"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    model, omegaconf = types.ModuleType("funasr.models.emotion2vec.model"), types.ModuleType("omegaconf")
    model.Emotion2vec, omegaconf.OmegaConf = StandIn, Config
    monkeypatch.setitem(sys.modules, model.__name__, model)
    monkeypatch.setitem(sys.modules, "omegaconf", omegaconf)
    return StandIn


def write(folder, model_class, settings=MODEL):
    """A model with random weights in FunASR's layout: the model."""
    torch.manual_seed(0)
    model = model_class(model_conf=settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": "Emotion2vec", "model_conf": settings}))
    torch.save(
        {"model": {"d2v_model." + name: value for name, value in model.state_dict().items()}}, folder / "model.pt"
    )
    return model


def check(folder, model):
    every = load_encoder(EncoderSettings(str(folder), (0, 1, 2, 3)))
    assert (every.dim, every.feature_dim, every.pads_batches, every.normalise) == (16, 64, False, True)
    clips = [clip(samples, seed) for seed, samples in enumerate((16000, 9000, 150, 16000))]
    with torch.no_grad():
        states, frames = every(*batch(clips))
        assert frames.tolist() == [49, 27, 1, 49] and not states[1, 27:].any()
        normalised = nn.functional.layer_norm(clips[1], clips[1].shape)[None]
        expected = model.extract_features(normalised, padding_mask=None, remove_extra_tokens=True)["x"]
        assert (states[1, :27, 48:] - expected[0]).abs().max() < 1e-4
        for row, count, one in zip(states, frames.tolist(), clips):
            alone, _ = every(one[None], torch.tensor([len(one)]))
            assert (row[:count] - alone[0]).abs().max() < 1e-4
        two = load_encoder(EncoderSettings(str(folder), (1, 2))).train()  # which switches no dropout on
        found, _ = two(clips[0][None], torch.tensor([16000]))
    assert len(two.network.blocks) == 2 and torch.allclose(found[0], states[0, :, 16:48], atol=1e-5)


def test_the_glue_with_a_stand_in_for_funasr(tmp_path, stand_in):
    check(tmp_path / "model", write(tmp_path / "model", stand_in))


@pytest.mark.skipif(
    "SPEECHEQ_FUNASR" not in os.environ, reason="SPEECHEQ_FUNASR=1 where FunASR is installed; half a minute"
)
def test_funasr_s_own_class(tmp_path):
    from funasr.models.emotion2vec.model import Emotion2vec

    check(tmp_path / "model", write(tmp_path / "model", Emotion2vec))


def refused(folder, *words, layers=(1,), **settings):
    with pytest.raises(InputError) as caught:
        load_encoder(EncoderSettings(str(folder), layers, **settings))
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".") and all(word in message for word in words), message


def test_files_that_do_not_go_together(tmp_path, stand_in):
    folder = tmp_path / "model"
    write(folder, stand_in)
    refused(folder, "has no layer 4; its layers are 0 to 3", layers=(4,))
    refused(folder, "only those are padded to 30 s", padding="30s")
    refused(folder, "only those take normalise=level", normalise="level")
    weights = torch.load(folder / "model.pt")
    del weights["model"]["d2v_model.blocks.1.linear.bias"]
    torch.save(weights, folder / "model.pt")
    refused(folder, "model.pt: lacks the tensor blocks.1.linear.bias")
    (folder / "config.yaml").write_text("model: Paraformer\n")
    refused(folder, "config.yaml: is not of an emotion2vec model")


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("code-was-run",)


def test_weights_that_would_run_code(tmp_path, stand_in, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "model", stand_in)
    for content in ({"model": RunsCode()}, RunsCode()):
        torch.save(content, tmp_path / "model" / "model.pt")
        refused(tmp_path / "model", "model.pt: is damaged, or holds more than plain tensors")
    (tmp_path / "model" / "model.pt").write_bytes(b"no weights")
    refused(tmp_path / "model", "model.pt: is damaged")
    assert not (tmp_path / "code-was-run").exists()


def test_without_funasr(tmp_path, stand_in, monkeypatch):
    write(tmp_path / "model", stand_in)
    monkeypatch.setitem(sys.modules, "funasr", None)
    monkeypatch.delitem(sys.modules, "funasr.models.emotion2vec.model")
    refused(tmp_path / "model", "emotion2vec needs funasr", "pip install funasr")


def test_the_digest_follows_both_files(tmp_path, stand_in):
    write(tmp_path / "model", stand_in)
    settings = EncoderSettings(str(tmp_path / "model"), (1,))
    first = encoder_digest(settings)
    with open(tmp_path / "model" / "config.yaml", "a") as file:
        file.write("# more\n")
    second = encoder_digest(settings)
    with open(tmp_path / "model" / "model.pt", "ab") as file:
        file.write(b"\0")
    assert len({first, second, encoder_digest(settings)}) == 3
