"""Exported models: the same answers as PyTorch, at any length and in any batch; what they cost is said."""

import json

import numpy as np
import pytest
import torch

from speecheq import seqm
from speecheq.cli import main
from speecheq.common.errors import InputError
from speecheq.config.schema import Config
from speecheq.evaluation.metrics import esc_and_eis_scores
from speecheq.features.fbank import FbankConfig
from speecheq.inference.compare_exports import _gold_and_predicted_eis
from speecheq.inference.export import export_model
from speecheq.inference.predictor import Predictor
from speecheq.inference.trained_model import OUTPUTS, Inference, OnnxModel, load_trained_model, read_weights
from speecheq.models import checkpoint

onnx = pytest.importorskip("onnx", reason="needs the extra `export`")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra `export`")
# two layers of an encoder
STATES = dict(encoder_layers=2, encoder_dim=24, feature_dim=48, projection=16)
LIGHT = {"kind": "light", **STATES}
FUSION = {"kind": "fusion", **STATES, "feature_dim": 160 + 48}
HAS_TORCH_EXPORT = not torch.__version__.startswith("1.")


def write_model(path, kind="speecheq", **settings):
    """A small model whose normalisation is not the identity, as after training."""
    torch.manual_seed(0)
    config = Config()
    sizes = {"kind": kind, "channels": 32, "mfa_channels": 48, "embedding_dim": 24, **settings}
    for name, value in sizes.items():
        setattr(config.model, name, value)
    mean, deviation = torch.randn(config.model.feature_dim), 1 + torch.rand(config.model.feature_dim)
    model = checkpoint.new_model(config, mean, deviation).eval()
    for name, value in model.named_buffers():
        if name.endswith(("running_mean", "phoneme_mean")):
            value.normal_(std=0.3)
        elif name.endswith(("running_var", "phoneme_var")):
            value.uniform_(0.5, 2)
    phones = ["sil", *map(str, range(1, config.model.num_phones))]
    checkpoint.save(path, model, config, seqm.SEQM_CLASSES, phones)
    return path


def inference_of(path):
    model, config, labels = read_weights(path)
    return Inference(model, config, labels.outputs())


def compare(inference, exported, batches=50):
    """Assert that outputs agree within 1e-4 on ``batches`` random batches; phoneme logits on valid frames."""
    rng = np.random.default_rng(0)
    for number in range(batches):
        count, longest = int(rng.integers(1, 5)), int(rng.integers(1, 500))
        lengths = torch.from_numpy(rng.integers(1, longest + 1, count))
        lengths[int(rng.integers(count))] = longest
        features = torch.from_numpy(rng.standard_normal((count, longest, inference.feature_dim)).astype(np.float32))
        with torch.no_grad():
            ours = dict(zip(inference.outputs, inference(features, lengths)))
            theirs = dict(zip(inference.outputs, exported(features, lengths)))
        frames = ours["phoneme_lengths"].tolist()
        assert theirs["phoneme_lengths"].tolist() == frames
        for name in inference.outputs:
            a, b = (np.asarray(found[name], dtype=np.float64) for found in (ours, theirs))
            assert a.shape == b.shape
            rows = [slice(0, frame) for frame in frames] if name == "phoneme_logits" else [slice(None)] * count
            for x, y, row in zip(a, b, rows):
                assert np.abs(np.atleast_1d(x)[row] - np.atleast_1d(y)[row]).max() < 1e-4, (name, number)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_statistics": "per_stream"},
        {"res_bigru": "after_se"},
        {"res_bigru": "none"},
        {"kind": "baseline"},
        {"kind": "cnn_blstm"},
        LIGHT,
        FUSION,
        STATES,
    ],
    ids=lambda settings: " ".join(map(str, settings.values())) or "default",
)
def test_onnx_answers_as_pytorch_on_50_random_lengths(tmp_path, settings):
    path = write_model(tmp_path / "model.pt", **settings)
    export_model(path, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    assert tuple(output.name for output in session.get_outputs()) == OUTPUTS
    compare(
        inference_of(path),
        lambda features, lengths: session.run(None, {"features": features.numpy(), "lengths": lengths.numpy()}),
    )


def test_what_is_padding_does_not_matter_in_onnx(tmp_path):
    export_model(write_model(tmp_path / "model.pt"), tmp_path / "model.onnx")
    model = load_trained_model(tmp_path / "model.onnx")
    features, lengths = torch.randn(2, 100, 80), torch.tensor([100, 40])
    features[1, 40:] = float("nan")
    together, alone = model(features, lengths, phones=True), model(features[1:, :40], lengths[1:], phones=True)
    np.testing.assert_allclose(together.posterior[1], alone.posterior[0], atol=1e-6)
    assert together.phones[1] == alone.phones[0]


def test_the_metadata_say_how_features_are_made_and_what_outputs_mean(tmp_path):
    export_model(write_model(tmp_path / "model.pt"), tmp_path / "model.onnx")
    model = onnx.load(str(tmp_path / "model.onnx"))
    described = json.loads({item.key: item.value for item in model.metadata_props}["speecheq"])
    assert described["labels"]["classes"] == list(seqm.CATEGORIES) and len(described["labels"]["phones"]) == 202
    features = described["features"]
    assert {name: features[name] for name in FbankConfig().to_dict()} == FbankConfig().to_dict()
    assert features["dither"] == 0 and features["snip_edges"] is False
    opened = load_trained_model(tmp_path / "model.onnx")
    assert isinstance(opened, OnnxModel) and opened.extractor.config == FbankConfig()
    assert opened.labels == load_trained_model(tmp_path / "model.pt").labels


def test_a_model_without_intensities_has_none_in_onnx_either(tmp_path):
    path = write_model(tmp_path / "model.pt")
    content = checkpoint.read(path)
    content["config"]["loss"]["alpha"] = 0.0
    checkpoint.write(path, content)
    export_model(path, tmp_path / "model.onnx")
    assert "eis" not in [output.name for output in onnx.load(str(tmp_path / "model.onnx")).graph.output]
    features, lengths = torch.randn(2, 60, 80), torch.tensor([60, 41])
    there, here = (load_trained_model(model)(features, lengths) for model in (tmp_path / "model.onnx", path))
    assert there.eis is here.eis is None
    np.testing.assert_allclose(there.posterior, here.posterior, atol=1e-4)
    gold = [1.5, 2.5]
    assert esc_and_eis_scores([0, 1], [0, 1], *_gold_and_predicted_eis(gold, [here]))["eis_mse"] is None
    known = here._replace(eis=np.array([1.5, 3.5]))
    assert esc_and_eis_scores([0, 1], [0, 1], *_gold_and_predicted_eis(gold, [known]))["eis_mse"] == 0.5


def test_predict_takes_an_onnx_file(experiment, tmp_path, toys, capsys):
    assert main.main(["export-model", str(experiment / "best.pt"), str(tmp_path / "model.onnx")]) == 0
    wav = toys.write_wav(tmp_path / "a.wav", 1.3)
    (there,) = Predictor(tmp_path / "model.onnx", gender=True, phones=True)(wav)
    (here,) = Predictor(experiment / "best.pt", "cpu", gender=True, phones=True)(wav)
    assert list(there.posterior.values()) == pytest.approx(list(here.posterior.values()), abs=1e-5)
    assert (there.gender, there.phones) == (here.gender, here.phones)


def test_int8_is_smaller_and_its_cost_is_said(experiment, tmp_path, capsys):
    wide = write_model(tmp_path / "wide.pt", mfa_channels=512)
    for name, int8 in (("full.onnx", False), ("int8.onnx", True)):
        export_model(wide, tmp_path / name, int8=int8)
    assert (tmp_path / "int8.onnx").stat().st_size < 0.6 * (tmp_path / "full.onnx").stat().st_size
    assert main.main(["export-model", str(experiment / "best.pt"), str(tmp_path / "8.onnx"), "--int8"]) == 0
    assert main.main(["export-model", str(experiment / "best.pt"), str(tmp_path / "32.onnx")]) == 0
    capsys.readouterr()
    msud = experiment.parents[4] / "msud/casia.speaker"
    models = [str(tmp_path / "32.onnx"), str(tmp_path / "8.onnx")]
    assert main.main(["compare-models", str(experiment), *models, "--msud", str(msud)]) == 0
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()
    ]
    metrics = json.loads((experiment / "metrics.json").read_text())
    own, full, int8 = (dict(zip(head, row)) for row in rows)
    assert own["UA"] == full["UA"] == f"{metrics['test.ua']:.4f}" and full["other class"] == "0"
    assert float(full["largest difference"]) <= 1e-5 < float(int8["largest difference"]) < 0.5
    assert own["clips"] == int8["clips"] == str(metrics["test.clips"])


@pytest.mark.skipif(not HAS_TORCH_EXPORT, reason="needs torch 2")
@pytest.mark.parametrize(
    "settings",
    [{}, {"batch_statistics": "per_stream"}, LIGHT, FUSION, STATES],
    ids=lambda settings: " ".join(map(str, settings.values())) or "default",
)
def test_torch_export_answers_as_pytorch_at_any_length(tmp_path, settings):
    path = write_model(tmp_path / "model.pt", **settings)
    export_model(path, tmp_path / "model.pt2")
    described = {"speecheq": "", "outputs": ""}
    program = torch.export.load(str(tmp_path / "model.pt2"), extra_files=described).module()
    compare(inference_of(path), program, batches=10)
    assert json.loads(described["outputs"]) == list(OUTPUTS) and json.loads(described["speecheq"])["labels"]


@pytest.mark.skipif(HAS_TORCH_EXPORT, reason="is about torch 1.13")
def test_without_torch_export_a_sentence(tmp_path):
    with pytest.raises(InputError, match="torch.export is not in torch 1.13"):
        export_model(write_model(tmp_path / "model.pt"), tmp_path / "model.pt2")
    assert not (tmp_path / "model.pt2").exists()


@pytest.mark.skipif(not HAS_TORCH_EXPORT, reason="needs torch 2")
@pytest.mark.parametrize("kind", ["baseline", "cnn_blstm"])
def test_models_with_lstms_do_not_leave_through_torch_export(tmp_path, kind):
    with pytest.raises(InputError, match="export it to .onnx"):
        export_model(write_model(tmp_path / "model.pt", kind=kind), tmp_path / "model.pt2")


@pytest.mark.parametrize(
    "arguments, sentence",
    [(["model.bin"], "must end in .onnx"), (["model.pt2", "--int8"], "--int8 is for .onnx files")],
)
def test_faults_of_the_command_are_one_line(arguments, sentence, tmp_path, capsys):
    path = write_model(tmp_path / "model.pt")
    assert main.main(["export-model", str(path), *[str(tmp_path / arguments[0]), *arguments[1:]]]) == 1
    assert sentence in capsys.readouterr().err


def test_onnx_files_that_cannot_be_used(tmp_path, monkeypatch):
    export_model(write_model(tmp_path / "model.pt"), tmp_path / "model.onnx")
    whole = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="half.onnx: is not a whole ONNX model"):
        load_trained_model(tmp_path / "half.onnx")
    model = onnx.load(str(tmp_path / "model.onnx"))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "foreign.onnx"))
    with pytest.raises(InputError, match="foreign.onnx: is not an ONNX model of SpeechEQ"):
        load_trained_model(tmp_path / "foreign.onnx")
    with pytest.raises(InputError, match="runs on the CPU|finds no GPU"):
        load_trained_model(tmp_path / "model.onnx", "cuda")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(InputError, match="pip install onnxruntime"):
        load_trained_model(tmp_path / "model.onnx")


def test_other_models_are_not_compared(experiment, tmp_path):
    from speecheq.inference.compare_exports import compare_models

    content = checkpoint.read(experiment / "best.pt")
    checkpoint.write(tmp_path / "other.pt", {**content, "classes": content["classes"][::-1]})
    with pytest.raises(InputError, match="its classes are not those of"):
        compare_models(experiment, experiment.parents[4] / "msud/casia.speaker", [str(tmp_path / "other.pt")])
