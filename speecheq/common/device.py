"""The torch device of a command."""

from typing import TYPE_CHECKING

from speecheq.common.errors import InputError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")


def pick_device(choice: str) -> "torch.device":
    """The device for the setting ``choice``: cpu, cuda, mps, or auto, which is cuda if torch finds a GPU, else cpu.

    Raises InputError if ``choice`` is a kind of GPU that torch does not find.
    """
    import torch

    if choice == "cuda" and not torch.cuda.is_available():
        raise InputError("the device is set to 'cuda', but torch finds no GPU; use cpu or auto.")
    if choice == "mps" and not torch.backends.mps.is_available():
        raise InputError(
            "the device is set to 'mps', the GPU of Macs with Apple's processors, but torch finds none; "
            "use cpu or auto."
        )
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(choice)
