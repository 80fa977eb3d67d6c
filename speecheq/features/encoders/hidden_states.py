"""States inside a model of another library, taken by hooks, since libraries differ in how they return them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def recorded_states(blocks: nn.ModuleList, layers: tuple[int, ...]) -> Iterator[dict[int, Tensor]]:
    """While the model runs, note the input of the first of ``blocks`` as layer 0 and the output of block k as layer k.

    Only ``layers`` are noted. A block takes its states as first argument and returns them alone or first in a tuple.
    """
    found: dict[int, Tensor] = {}

    def note(layer: int, value: Any) -> None:
        found[layer] = value[0] if isinstance(value, tuple) else value

    handles = []
    for layer in layers:
        if layer == 0:
            hook = blocks[0].register_forward_pre_hook(lambda _block, given: note(0, given))
        else:
            hook = blocks[layer - 1].register_forward_hook(lambda _block, _given, made, layer=layer: note(layer, made))
        handles.append(hook)
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
