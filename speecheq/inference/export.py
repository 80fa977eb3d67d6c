"""A trained model for other programs: ONNX (float32 or int8) and torch.export.

All take ``features`` (N, T, 80) float32 and ``lengths`` (N,) int64, valid frames, with any N and T, and give the
outputs of ``trained.OUTPUTS`` that the model was trained on; what stands behind an utterance's length has no effect.
An ONNX file's metadata hold, under ``speecheq``, the labels and a description of the features as JSON.
"""

import copy
import json
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from speecheq.common.errors import InputError
from speecheq.common.files import whole_file
from speecheq.features.fbank import FbankConfig
from speecheq.inference.trained_model import INPUTS, PHONES, Inference, Labels, described, read_content
from speecheq.models import checkpoint

OPSET = 17
ONNX, TORCH_EXPORT = ".onnx", ".pt2"


def export_model(name: str | Path | None, out: Path, int8: bool = False) -> None:
    """Write the trained model ``name`` (a checkpoint, a model folder, a hub id) as ``out``, an .onnx or a .pt2 file.

    ``int8`` keeps the weights of an ONNX file in 8 bits. InputError for another suffix, or where what this needs is
    not installed.
    """
    out = Path(out)
    if out.suffix not in (ONNX, TORCH_EXPORT):
        raise InputError(f"{out}: the file must end in {ONNX} (ONNX) or {TORCH_EXPORT} (torch.export).")
    if int8 and out.suffix != ONNX:
        raise InputError(f"{out}: --int8 is for {ONNX} files.")
    content, path = read_content(name)
    model, config = checkpoint.restore(content, str(path))
    labels = Labels.of(content, config)
    inference = Inference(model, labels.outputs())
    with whole_file(out) as temporary:
        if out.suffix == TORCH_EXPORT:
            _write_torch_export(inference, labels, temporary)
        elif int8:
            _write_int8(inference, labels, temporary)
        else:
            _write_onnx(inference, labels, temporary)


def _example() -> tuple[Tensor, Tensor]:
    """A padded batch to record the operations with."""
    return torch.randn(3, 60, FbankConfig().num_filters), torch.tensor([60, 41, 33])


def _replaced(module: nn.Module, kind: type, make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """A copy of ``module`` whose children of type ``kind`` are made anew."""
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kind):
                setattr(parent, name, make(child))
    return module.eval()


class _PlainEncoderLayer(nn.Module):
    """nn.TransformerEncoderLayer (batch first, ReLU, norm last) in operations that keep N and T open when recorded."""

    def __init__(self, layer: nn.TransformerEncoderLayer):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, src_key_padding_mask: Tensor) -> Tensor:
        """x (N, T, C), mask (N, T), true on padding -> (N, T, C)."""
        layer, attention = self.layer, self.layer.self_attn
        projected = nn.functional.linear(x, attention.in_proj_weight, attention.in_proj_bias)
        by_head = (*x.shape[:2], attention.num_heads, attention.head_dim)
        query, key, value = (part.reshape(by_head).transpose(1, 2) for part in projected.chunk(3, dim=2))
        scores = query @ key.transpose(2, 3) * attention.head_dim**-0.5
        scores = scores.masked_fill(src_key_padding_mask[:, None, None], float("-inf"))
        attended = attention.out_proj((scores.softmax(3) @ value).transpose(1, 2).flatten(2))
        x = layer.norm1(x + attended)
        return layer.norm2(x + layer.linear2(torch.relu(layer.linear1(x))))


def _write_onnx(inference: Inference, labels: Labels, path: Path) -> None:
    try:
        import onnx
    except ImportError as error:
        raise InputError("ONNX export needs onnx, which is not installed; install it with pip install onnx.") from error
    inference = _replaced(inference, nn.TransformerEncoderLayer, _PlainEncoderLayer)
    open_axes: dict[str, dict[int, str]] = {INPUTS[0]: {0: "N", 1: "T"}, INPUTS[1]: {0: "N"}}
    open_axes.update({name: {0: "N", 1: "frames"} if name == PHONES else {0: "N"} for name in inference.outputs})
    # The exporter that records one run writes nn.GRU as ONNX's GRU; torch 2's other one unrolls it over time.
    recording = {} if torch.__version__.startswith("1.") else {"dynamo": False}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they fear for N and T, which the tests try
        torch.onnx.export(
            inference,
            _example(),
            str(path),
            input_names=list(INPUTS),
            dynamic_axes=open_axes,
            output_names=list(inference.outputs),
            opset_version=OPSET,
            **recording,
        )
    model = onnx.load(str(path))
    for key, value in described(labels, FbankConfig()).items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _write_int8(inference: Inference, labels: Labels, path: Path) -> None:
    """ONNX with 8-bit weights; activations are quantised clip by clip as they come (dynamic quantisation)."""
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise InputError(
            "--int8 needs onnx and onnxruntime, which are not installed; install them with pip "
            "install onnx onnxruntime."
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder) / "model.onnx"
        _write_onnx(inference, labels, full)
        _part_shared_weights(full)
        logging.disable(logging.WARNING)  # it recommends a preparation that changes nothing here
        try:
            # the type is that of values whose type it cannot infer
            quantize_dynamic(
                str(full),
                str(path),
                weight_type=QuantType.QUInt8,
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
            )
        finally:
            logging.disable(logging.NOTSET)


def _part_shared_weights(path: Path) -> None:
    """What onnxruntime's quantisation needs where two passes share weights.

    It wants the weights themselves where the exporter wrote Identity of them, and for every Gemm weights of its own,
    which it transposes once for each user.
    """
    import onnx

    model = onnx.load(str(path))
    weights = {weight.name: weight for weight in model.graph.initializer}
    same = {
        node.output[0]: node for node in model.graph.node if node.op_type == "Identity" and node.input[0] in weights
    }
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = same[name].input[0] if name in same else name
    for identity in same.values():
        model.graph.node.remove(identity)
    for number, node in enumerate(node for node in model.graph.node if node.op_type == "Gemm"):
        own = onnx.TensorProto()
        own.CopyFrom(weights[node.input[1]])
        own.name = node.input[1] = f"{own.name}.{number}"
        model.graph.initializer.append(own)
    onnx.save(model, str(path))


class _ScannedGru(nn.Module):
    """An nn.GRU as one scan over time: torch.export would unroll it and so fix the length."""

    def __init__(self, gru: nn.GRU):
        super().__init__()
        self.gru = gru

    def forward(self, steps: Tensor) -> tuple[Tensor]:
        """Steps (T, N, C) -> states (T, N, H), as the first of a tuple."""
        from torch._higher_order_ops.scan import scan

        projected = nn.functional.linear(steps, self.gru.weight_ih_l0, self.gru.bias_ih_l0)
        recurrent, bias = self.gru.weight_hh_l0.t(), self.gru.bias_hh_l0

        def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            reset_x, update_x, new_x = x.chunk(3, 1)
            reset_h, update_h, new_h = (state @ recurrent + bias).chunk(3, 1)
            new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
            state = torch.lerp(new, state, torch.sigmoid(update_x + update_h))
            return state, state.clone()

        return (scan(step, steps.new_zeros(steps.shape[1], self.gru.hidden_size), projected, dim=0)[1],)


def _write_torch_export(inference: Inference, labels: Labels, path: Path) -> None:
    try:
        from torch._higher_order_ops.scan import scan  # noqa: F401
        from torch.export import Dim, export, save
    except ImportError as error:
        raise InputError(
            f"torch.export is not in torch {torch.__version__}; use the modern stack, or export to {ONNX}."
        ) from error
    if any(isinstance(module, nn.LSTM) for module in inference.modules()):
        raise InputError(
            "a model with LSTMs (model.kind baseline or cnn_blstm) cannot leave through torch.export with "
            f"any length; export it to {ONNX}."
        )
    inference = _replaced(inference, nn.GRU, _ScannedGru)
    any_size = {INPUTS[0]: {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}, INPUTS[1]: {0: Dim.DYNAMIC}}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = export(inference, _example(), dynamic_shapes=any_size)
    more = {"outputs": json.dumps(inference.outputs), **described(labels, FbankConfig())}
    save(program, str(path), extra_files=more)
