"""Strict reading of YAML files: errors are reported with file and line."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from speecheq.common.errors import InputError


class _StrictLoader(yaml.SafeLoader):
    """A loader that rejects repeated keys, of which PyYAML's own takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(self.construct_object(key, deep=True))
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} repeats", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, {} for an empty file.

    Raises InputError, with the line where there is one, if the file is missing, is not YAML, repeats a key or holds
    anything but a mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: the configuration file does not exist.")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise InputError(f"{path}{where}: is not YAML ({problem}).") from error
    if values is not None and not isinstance(values, dict):
        raise InputError(f"{path}: must hold settings as 'key: value', not a {type(values).__name__}.")
    return values or {}


def from_mapping(kind: type, values: Any, where: str) -> Any:
    """The dataclass ``kind`` from a mapping, such as ``read_yaml`` gives; lists become tuples.

    Fields are text, numbers, true or false, dataclasses in tuples, or None where the annotation allows it. Raises
    InputError, which begins with ``where``, for an unknown or missing key and for a value of another type.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: must be 'key: value' lines, not {values!r}.")
    kinds = get_type_hints(kind)
    unknown = [str(key) for key in values if key not in kinds]
    if unknown:
        raise InputError(f"{where}: {unknown[0]!r} is not a key; the keys are {', '.join(kinds)}.")
    for item in fields(kind):
        if item.default is MISSING and item.name not in values:
            raise InputError(f"{where}: lacks the key {item.name}.")
    return kind(**{key: _value(kinds[key], value, f"{where}: {key}") for key, value in values.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    """``value`` as the type ``kind``, lists as tuples; InputError that begins with ``where`` for another type."""
    arguments = get_args(kind)
    if type(None) in arguments:
        return None if value is None else _value(arguments[0], value, where)
    if arguments:  # a tuple of any length
        if not isinstance(value, list):
            raise InputError(f"{where} is {value!r}, but it must be a list.")
        make = from_mapping if is_dataclass(arguments[0]) else _value
        return tuple(make(arguments[0], one, f"{where}, item {number}") for number, one in enumerate(value, 1))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        words = {
            str: "text (in quotes, if it looks like a number)",
            int: "a whole number",
            float: "a number",
            bool: "true or false",
        }
        raise InputError(f"{where} is {value!r}, but it must be {words[kind]}.")
    return value
