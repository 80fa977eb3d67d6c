"""Strict reading of YAML files: errors are reported with file and line."""

from pathlib import Path
from typing import Any

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
