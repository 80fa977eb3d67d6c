"""A fault of onnxruntime's 8-bit products, how it is found, and what goes around it.

Its kernel for processors with AMX was wrong up to version 1.23, the last one for Python 3.10: with 32 or more rows,
where the columns exceed a multiple of 32 by 17 to 31 (github.com/microsoft/onnxruntime/pull/27671). Columns are the
widths of linear layers, which ``is_wrong_width`` finds when a model is exported, and the frames of convolutions, which
are padded when it runs (``pad_frames``).
"""

import base64
from functools import cache

import numpy as np
from torch import Tensor
from torch.nn.functional import pad

# An ONNX model: a (32, 1) times 24 ones, in 8-bit integers.
PRODUCT = (
    "CAgSADpsChgKAWEKAWISAWMiDU1hdE11bEludGVnZXISAWcqIwgBCBgQAkIBYkoYAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBWhMKAWESDgoMCAISCAoC"
    "CCAKAggBYhMKAWMSDgoMCAYSCAoCCCAKAggYQgQKABAO"
)
BLOCK, RIGHT_REST = 32, 16
# The multiple of frames that is also one of BLOCK after strides of 2 and 3.
FRAMES = 2 * 3 * BLOCK


@cache
def is_faulty() -> bool:
    """Whether this onnxruntime on this processor has the fault."""
    import onnxruntime

    session = onnxruntime.InferenceSession(base64.b64decode(PRODUCT), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"a": np.ones((32, 1), np.uint8)})
    return bool((found != 1).any())


def is_wrong_width(columns: int) -> bool:
    """Whether a product of so many columns may be wrong."""
    return columns % BLOCK > RIGHT_REST


def pad_frames(features: Tensor) -> Tensor:
    """Features (N, T, D) with zeros up to a number of frames that is computed rightly; unchanged without the fault."""
    return pad(features, (0, 0, 0, -features.shape[1] % FRAMES)) if is_faulty() else features
