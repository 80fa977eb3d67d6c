"""YAML files: what is read, and what is refused."""

import pytest

from speecheq.common.errors import InputError
from speecheq.common.yaml_files import read_yaml


def test_a_file_that_is_missing_empty_or_not_utf8(tmp_path):
    file = tmp_path / "size.yaml"
    with pytest.raises(InputError, match="size.yaml: the configuration file does not exist"):
        read_yaml(file)
    file.write_bytes(b"loss: \xff\n")
    with pytest.raises(InputError, match="size.yaml: is not YAML"):
        read_yaml(file)
    file.write_text("")
    assert read_yaml(file) == {}
