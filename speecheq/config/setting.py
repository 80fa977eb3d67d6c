"""How a setting is declared, and how a value is checked against the declaration."""

import math
from collections.abc import Sequence
from dataclasses import field, fields
from types import UnionType
from typing import Any, get_args, get_type_hints

TYPES_IN_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


def setting(
    default: Any, help: str, low: float | None = None, high: float | None = None, choices: Sequence[Any] = ()
) -> Any:
    """A dataclass field with a help text and its allowed values: ``low`` to ``high``, inclusive, or one of ``choices``.

    Its annotation is bool, int, float or str, optionally with None.
    """
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


def _convert(value: Any, kind: type) -> Any:
    """``value`` as the type ``kind``; raises ValueError if it is not. YAML reads 1e-4 as text."""
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        if math.isfinite(float(value)):
            return float(value)
    elif type(value) is kind:
        return value
    raise ValueError


def checked_value(group: Any, name: str, value: Any) -> Any:
    """``value`` in the type of the setting ``name`` of the dataclass ``group``.

    Raises ValueError, which states the allowed values.
    """
    hint = get_type_hints(type(group))[name]
    kind, optional = (get_args(hint)[0], True) if isinstance(hint, UnionType) else (hint, False)
    if value is None and optional:
        return None
    limits = next(item for item in fields(group) if item.name == name).metadata
    low, high, choices = limits["low"], limits["high"], limits["choices"]
    refused = f"{name} is {value!r}, but it must be "
    try:
        converted = _convert(value, kind)
    except ValueError:
        raise ValueError(refused + TYPES_IN_WORDS[kind] + (" or null" if optional else "")) from None
    if choices and converted not in choices:
        raise ValueError(f"{refused}one of {', '.join(map(str, choices))}")
    if low is not None and converted < low:
        raise ValueError(f"{refused}at least {low:g}")
    if high is not None and converted > high:
        raise ValueError(f"{refused}at most {high:g}")
    return converted


def check_settings(group: Any) -> None:
    """Raise ValueError for the first setting of the dataclass ``group`` with a value that is not allowed."""
    for item in fields(group):
        checked_value(group, item.name, getattr(group, item.name))
