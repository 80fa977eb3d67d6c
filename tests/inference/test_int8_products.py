"""What goes around onnxruntime's wrong 8-bit products on processors with AMX."""

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx", reason="needs the extra `export`")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra `export`")

from speecheq import seqm  # noqa: E402
from speecheq.config.schema import Config  # noqa: E402
from speecheq.inference import int8_products  # noqa: E402
from speecheq.inference.export import export_model  # noqa: E402
from speecheq.inference.trained_model import load_trained_model  # noqa: E402
from speecheq.models import checkpoint  # noqa: E402


def product(rows, columns):
    """Whether onnxruntime multiplies (rows, 3) by (3, columns) rightly, in 8-bit integers."""
    random = np.random.default_rng(0)
    left, right = (random.integers(0, 255, shape).astype(np.uint8) for shape in ((rows, 3), (3, columns)))
    node = onnx.helper.make_node("MatMulInteger", ["a", "b"], ["c"])
    given = onnx.helper.make_tensor_value_info("a", onnx.TensorProto.UINT8, left.shape)
    made = onnx.helper.make_tensor_value_info("c", onnx.TensorProto.INT32, (rows, columns))
    graph = onnx.helper.make_graph([node], "g", [given], [made], [onnx.numpy_helper.from_array(right, "b")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return bool((session.run(None, {"a": left})[0] == left.astype(int) @ right).all())


def test_the_fault_is_found_where_it_is_and_nowhere_else():
    wrong = [columns for columns in range(1, 100) if not (product(31, columns) and product(33, columns))]
    assert bool(wrong) == int8_products.is_faulty() and all(map(int8_products.is_wrong_width, wrong))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model with 24 phones and convolutions of 64 channels: its checkpoint, and with 8-bit weights."""
    folder, config = tmp_path_factory.mktemp("model"), Config()
    config.model.channels = config.model.mfa_channels = config.model.bottleneck = config.model.embedding_dim = 64
    config.model.num_phones = 24
    torch.manual_seed(0)
    model = checkpoint.new_model(config).eval()
    phones = ["sil", *map(str, range(1, config.model.num_phones))]
    checkpoint.save(folder / "model.pt", model, config, seqm.SEQM_CLASSES, phones)
    export_model(folder / "model.pt", folder / "int8.onnx", int8=True)
    return folder / "model.pt", folder / "int8.onnx"


@pytest.mark.parametrize("frames", [31, 56, 96, 151])
@pytest.mark.parametrize("faulty", [False, True], ids=["as it is", "padded"])
def test_the_answers_are_near_those_of_the_checkpoint_at_any_length(files, frames, faulty, monkeypatch):
    if faulty:
        monkeypatch.setattr(int8_products, "is_faulty", lambda: True)
    exact, int8 = (load_trained_model(path, "cpu") for path in files)
    features, lengths = (
        torch.randn(3, frames, 80, generator=torch.Generator().manual_seed(0)),
        torch.tensor([frames, 20, frames - 3]),
    )
    expected, found = exact(features, lengths, phones=True), int8(features, lengths, phones=True)
    assert found.posterior == pytest.approx(expected.posterior, abs=0.005)
    assert found.eis == pytest.approx(expected.eis, abs=0.005)
    assert [len(row) <= length for row, length in zip(found.phones, lengths.tolist())] == [True] * 3


def test_linear_layers_of_wrong_widths_stay_exact(files):
    model = onnx.load(str(files[1]))
    weights = {weight.name: weight.dims for weight in model.graph.initializer}
    widths = [weights[node.input[1]][-1] for node in model.graph.node if node.op_type == "MatMulInteger"]
    assert widths and not any(map(int8_products.is_wrong_width, widths))
    assert any(node.op_type == "ConvInteger" for node in model.graph.node)


def test_only_what_has_the_fault_is_padded(monkeypatch):
    features = torch.ones(2, 100, 3)
    monkeypatch.setattr(int8_products, "is_faulty", lambda: False)
    assert int8_products.pad_frames(features) is features
    monkeypatch.setattr(int8_products, "is_faulty", lambda: True)
    padded = int8_products.pad_frames(features)
    assert padded.shape == (2, 192, 3) and (padded[:, 100:] == 0).all() and (padded[:, :100] == 1).all()
