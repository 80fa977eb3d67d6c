"""The torch device of a command."""

import torch

from speecheq.common.errors import InputError


def pick_device(choice: str) -> torch.device:
    """The device for the setting ``choice``: cpu, cuda, or auto, which is cuda if torch finds a GPU.

    Raises InputError if ``choice`` is cuda and torch finds no GPU.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise InputError("the device is set to 'cuda', but torch finds no GPU; use cpu or auto.")
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(choice)
