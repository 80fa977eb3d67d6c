"""Write an encoder as a folder that ``load_encoder`` reads: of the model, only what the chosen layers need."""

import shutil
from pathlib import Path

from torch import Tensor

from speecheq.common.files import whole_file
from speecheq.features.encoders.encoder import Encoder
from speecheq.features.encoders.model_files import CONFIG, PREPROCESSOR, WEIGHTS, find_model


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write ``encoder`` into ``folder``, which exists: its two tables as they are, its weights as float16.

    A tensor with values that float16 cannot hold stays float32. The tables say how many layers the model had, which
    decides whether a state is taken after the final layer norm; layers that the encoder does not compute are left out.
    Raises InputError for an encoder that cannot be written so.
    """
    from safetensors.torch import save

    weights = {name: _as_float16(value) for name, value in encoder.stored_tensors().items()}
    source = find_model(encoder.settings.model)
    for name in (CONFIG, PREPROCESSOR):
        shutil.copyfile(source / name, folder / name)
    with whole_file(folder / WEIGHTS) as temporary:
        temporary.write_bytes(save(weights, metadata={"format": "pt"}))


def _as_float16(values: Tensor) -> Tensor:
    values = values.detach().cpu().contiguous()
    if not values.is_floating_point():
        return values
    half = values.half()
    return half.clone() if bool(half.isfinite().all()) else values.clone()
