"""Export a trained model for other programs: ONNX (float32 or int8) and torch.export.

An exported model takes ``features`` (N, T, D) float32 and ``lengths`` (N,) int64 in frames, for any N and T, and
returns those of ``trained_model.OUTPUTS`` that it was trained on. Frames behind an utterance's length have no effect.
The metadata of an ONNX file hold the labels and a description of the features as JSON, under ``speecheq``.
"""

import copy
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speecheq.common.errors import InputError, optional_package
from speecheq.common.files import whole_file
from speecheq.config.model import CITED_KINDS
from speecheq.config.schema import FBANK
from speecheq.inference.front_end import EncoderAndModel, join_encoder
from speecheq.inference.int8_products import is_wrong_width
from speecheq.inference.trained_model import INPUTS, INT8, PHONES, Inference, onnx_metadata, read_weights

OPSET = 17
ONNX, TORCH_EXPORT = ".onnx", ".pt2"
Graph = Inference | EncoderAndModel


def export_model(name: str | Path | None, out: Path, int8: bool = False) -> None:
    """Write the trained model ``name`` (a checkpoint, a model folder, a hub id) to ``out``, an .onnx or a .pt2 file.

    ``int8`` keeps the weights of an ONNX file in 8 bits. Raises InputError for another suffix, or where a package that
    this needs is not installed.
    """
    out = Path(out)
    if out.suffix not in (ONNX, TORCH_EXPORT):
        raise InputError(f"{out}: the file must end in {ONNX} (ONNX) or {TORCH_EXPORT} (torch.export).")
    if int8 and out.suffix != ONNX:
        raise InputError(f"{out}: --int8 is for {ONNX} files.")
    model, config, labels = read_weights(name)
    if config.model.kind in CITED_KINDS:
        raise InputError(f"{name}: model.kind {config.model.kind}, a system for comparison, cannot be exported.")
    inference: Graph = Inference(model, config, labels.outputs(), labels.calibration.temperature)
    log_mel = None
    if config.data.features != FBANK:
        inference, log_mel = join_encoder(config, inference, inference.outputs, model.trained_encoder)
        if log_mel.with_fbank and out.suffix == TORCH_EXPORT:
            raise InputError(f"torch.export cannot keep the number of clips of model.kind fusion open; use {ONNX}.")
    metadata = onnx_metadata(labels, config, log_mel)
    with whole_file(out) as temporary:
        if out.suffix == TORCH_EXPORT:
            _write_torch_export(inference, metadata, temporary)
        elif int8:
            _write_int8(inference, metadata, temporary)
        else:
            _write_onnx(inference, metadata, temporary)


def _example(inference: Graph) -> tuple[Tensor, Tensor]:
    """A padded batch: the operations of a model are recorded as it computes this one."""
    return torch.randn(3, 60, inference.feature_dim), torch.tensor([60, 41, 33])


def _replaced(inference: Graph, kind: type, replacement: Callable[[Any], nn.Module]) -> Graph:
    """A copy of ``inference`` in which ``replacement(module)`` stands for each module of type ``kind``."""
    inference = copy.deepcopy(inference)
    for parent in list(inference.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kind):
                setattr(parent, name, replacement(child))
    return inference.eval()


class _PlainEncoderLayer(nn.Module):
    """nn.TransformerEncoderLayer (batch first, ReLU, norm last) in operations that do not fix N and T when recorded."""

    def __init__(self, layer: nn.TransformerEncoderLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, src_key_padding_mask: Tensor) -> Tensor:
        """Map x (N, T, C) to (N, T, C); the mask (N, T) is true on padding."""
        layer, attention = self.layer, self.layer.self_attn
        projected = nn.functional.linear(x, attention.in_proj_weight, attention.in_proj_bias)
        by_head = (*x.shape[:2], attention.num_heads, attention.head_dim)
        query, key, value = (part.reshape(by_head).transpose(1, 2) for part in projected.chunk(3, dim=2))
        scores = query @ key.transpose(2, 3) * attention.head_dim**-0.5
        scores = scores.masked_fill(src_key_padding_mask[:, None, None], float("-inf"))
        attended = attention.out_proj((scores.softmax(3) @ value).transpose(1, 2).flatten(2))
        x = layer.norm1(x + attended)
        return layer.norm2(x + layer.linear2(torch.relu(layer.linear1(x))))


def _write_onnx(inference: Graph, metadata: Mapping[str, str], path: Path) -> None:
    with optional_package("onnx", "ONNX export"):
        import onnx
    inference = _replaced(inference, nn.TransformerEncoderLayer, _PlainEncoderLayer)
    features, lengths = INPUTS
    dynamic_axes = {name: {0: "N"} for name in (lengths, *inference.outputs)}
    dynamic_axes[features] = {0: "N", 1: "T"}
    if PHONES in dynamic_axes:
        dynamic_axes[PHONES] = {0: "N", 1: "frames"}
    # The exporter that records one run writes nn.GRU as ONNX's GRU; the other one of torch 2 unrolls it over time.
    exporter: dict[str, Any] = {} if torch.__version__.startswith("1.") else {"dynamo": False}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they doubt that N and T are free, which the tests try
        torch.onnx.export(
            inference,
            _example(inference),
            str(path),
            input_names=list(INPUTS),
            dynamic_axes=dynamic_axes,
            output_names=list(inference.outputs),
            opset_version=OPSET,
            **exporter,
        )
    model = onnx.load(str(path))
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _write_int8(inference: Graph, metadata: Mapping[str, str], path: Path) -> None:
    """ONNX with 8-bit weights; activations are quantised when the model runs (dynamic quantisation)."""
    with optional_package("onnx and onnxruntime", "--int8", "pip install onnx onnxruntime"):
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder) / "model.onnx"
        _write_onnx(inference, {**metadata, INT8: "weights"}, full)
        _unshare_weights(full)
        exact = _keep_exact(full, convolutions=isinstance(inference, EncoderAndModel))
        logging.disable(logging.WARNING)  # onnxruntime recommends a preparation that changes nothing here
        try:
            # the type of values whose type onnxruntime cannot infer
            default_type = {"DefaultTensorType": onnx.TensorProto.FLOAT}
            quantize_dynamic(
                str(full), str(path), weight_type=QuantType.QUInt8, nodes_to_exclude=exact, extra_options=default_type
            )
        finally:
            logging.disable(logging.NOTSET)


def _unshare_weights(path: Path) -> None:
    """Prepare an ONNX file whose two passes share weights for the quantisation of onnxruntime.

    It needs the weights themselves where the exporter wrote Identity nodes of them, and a copy of the weights for every
    Gemm node, because it transposes them once for each.
    """
    import onnx

    model = onnx.load(str(path))
    weights = {weight.name: weight for weight in model.graph.initializer}
    identities = [node for node in model.graph.node if node.op_type == "Identity" and node.input[0] in weights]
    originals = {node.output[0]: node.input[0] for node in identities}
    for identity in identities:
        model.graph.node.remove(identity)
    for node in model.graph.node:
        node.input[:] = [originals.get(name, name) for name in node.input]
    for number, node in enumerate(node for node in model.graph.node if node.op_type == "Gemm"):
        copied = onnx.TensorProto()
        copied.CopyFrom(weights[node.input[1]])
        copied.name = node.input[1] = f"{copied.name}.{number}"
        model.graph.initializer.append(copied)
    onnx.save(model, str(path))


def _keep_exact(path: Path, convolutions: bool) -> list[str]:
    """The names of the nodes of an ONNX file that are not to be in 8 bits, as int8_products.py says.

    These are linear layers of some widths, and ``convolutions``, where frames cannot be padded.
    """
    import onnx

    model, exact = onnx.load(str(path)), []
    weights = {weight.name: weight.dims for weight in model.graph.initializer}
    for number, node in enumerate(model.graph.node):
        is_linear = node.op_type in ("MatMul", "Gemm") and node.input[1] in weights
        is_transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        width = weights[node.input[1]][0 if is_transposed else -1] if is_linear else 0
        if is_wrong_width(width) or (convolutions and node.op_type == "Conv"):
            node.name = node.name or f"exact.{number}"
            exact.append(node.name)
    onnx.save(model, str(path))
    return exact


class _ScannedGru(nn.Module):
    """An nn.GRU as one scan over time; torch.export would unroll nn.GRU and so fix the length."""

    def __init__(self, gru: nn.GRU) -> None:
        super().__init__()
        self.gru = gru

    def forward(self, steps: Tensor) -> tuple[Tensor]:
        """Map steps (T, N, C) to states (T, N, H), the first of a tuple as nn.GRU returns it."""
        from torch._higher_order_ops.scan import scan  # noqa: PLC2701

        input_weight, recurrent_weight, input_bias, bias = self.gru.all_weights[0]
        projected = nn.functional.linear(steps, input_weight, input_bias)
        recurrent = recurrent_weight.t()

        def step(state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            reset_x, update_x, new_x = x.chunk(3, 1)
            reset_h, update_h, new_h = (state @ recurrent + bias).chunk(3, 1)
            new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
            state = torch.lerp(new, state, torch.sigmoid(update_x + update_h))
            return state, state.clone()

        return (scan(step, steps.new_zeros(steps.shape[1], self.gru.hidden_size), projected, dim=0)[1],)


def _write_torch_export(inference: Graph, metadata: Mapping[str, str], path: Path) -> None:
    try:
        from torch._higher_order_ops.scan import scan  # noqa: F401, PLC2701
        from torch.export import Dim, export, save
    except ImportError as error:
        raise InputError(
            f"torch.export is not in torch {torch.__version__}; use the modern stack, or export to {ONNX}."
        ) from error
    if any(isinstance(module, nn.LSTM) for module in inference.modules()):
        raise InputError(
            "torch.export cannot keep the length of a model with LSTMs (model.kind baseline or cnn_blstm) open; "
            f"export it to {ONNX}."
        )
    inference = _replaced(inference, nn.GRU, _ScannedGru)
    any_size = {INPUTS[0]: {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}, INPUTS[1]: {0: Dim.DYNAMIC}}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = export(inference, _example(inference), dynamic_shapes=any_size)
    save(program, str(path), extra_files={"outputs": json.dumps(inference.outputs), **metadata})
