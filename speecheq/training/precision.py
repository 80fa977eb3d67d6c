"""Mixed precision, steps that are not finite, and GPU memory that is too small."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from speecheq.common.errors import InputError
from speecheq.dataset.batch import MultitaskBatch, TaskBatch
from speecheq.features.waveform_batch import SAMPLING_RATE
from speecheq.models import checkpoint

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# What to lower if a stream's largest mini-batch does not fit into memory.
SIZE_SETTINGS = {
    "emotion": "data.batch_size or data.max_seconds",
    "gender": "data.batch_size or data.max_seconds",
    "unlabelled": "data.batch_size or data.max_seconds",
    "phoneme": "data.phoneme_batch_seconds or data.batch_size",
}


class Precision:
    """The number type in which the model computes on a device; weights, losses and statistics stay in float32.

    ``choice`` is fp32, bf16 or fp16 (``run.precision``); raises InputError if the device does not have it. fp16 scales
    the loss so that small gradients survive; the scale is part of a checkpoint.
    """

    def __init__(self, choice: str, device: torch.device):
        on_gpu = device.type == "cuda"
        if choice == "fp16" and not on_gpu:
            raise InputError("run.precision is fp16, which needs a GPU; on a CPU use bf16 or fp32.")
        if choice == "bf16" and on_gpu and not torch.cuda.is_bf16_supported():
            raise InputError("run.precision is bf16, which this GPU does not support; use fp16 or fp32.")
        if choice != "fp32" and device.type == "mps":
            raise InputError(f"run.precision is {choice}, and on the device mps models are trained in fp32 alone.")
        self.device, self.type = device, TYPES[choice]
        if hasattr(torch.amp, "GradScaler"):  # torch 2.3 and later
            self.scaler = torch.amp.GradScaler("cuda", enabled=choice == "fp16")
        else:
            self.scaler = torch.cuda.amp.GradScaler(enabled=choice == "fp16")

    def autocast(self) -> torch.autocast:
        """The context of the model's forward pass."""
        lower = self.type != torch.float32
        return torch.autocast(self.device.type, dtype=self.type if lower else None, enabled=lower)

    def may_lower_scale(self) -> bool:
        """Whether a gradient may be infinite because the loss scale of fp16 is still too high."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > 1


class NotFinite(InputError):
    """A loss or a gradient that is not a number, or infinite."""


def copy_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the model's buffers: a forward pass changes the running statistics of batch norm."""
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


@torch.no_grad()
def restore_buffers(model: nn.Module, buffers: dict[str, torch.Tensor]) -> None:
    """Set the model's buffers to what ``copy_buffers`` returned."""
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])


def save_batch(path: Path, batch: MultitaskBatch, error: str) -> None:
    """Write a mini-batch for inspection: of each stream ids, inputs (N, T, D), lengths and targets; and the error."""
    streams: dict[str, Any] = {
        name: {"ids": stream.ids, "inputs": stream.inputs.cpu(), "lengths": stream.lengths, "targets": stream.targets}
        for name, stream in batch.streams().items()
    }
    checkpoint.write(path, {"error": error, **streams})


@contextmanager
def explain_out_of_memory(name: str, stream: TaskBatch) -> Iterator[None]:
    """Turn "out of memory" on the GPU while ``stream`` is computed into an InputError that names what to lower."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        clips, length = stream.inputs.shape[:2]
        seconds = length / (SAMPLING_RATE if stream.inputs.dim() == 2 else 100)  # waveforms, or frames
        raise InputError(
            f"the GPU's memory is too small for a {name} mini-batch of {clips} clips of {seconds:.1f} s; lower "
            f"{SIZE_SETTINGS[name]}, or use run.precision bf16 or fp16."
        ) from error
