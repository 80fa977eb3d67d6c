"""Packages that are not installed, and one line of an error."""

import sys

import pytest

from speecheq.common.errors import InputError, first_line, optional_package


def test_a_package_that_is_not_installed_is_named_with_what_needs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"^the export needs onnx \(.*\); install it: pip install onnx\.$"):
        with optional_package("onnx", "the export"):
            import onnx
    with pytest.raises(InputError, match="install it: utils/install.sh --extras export"):
        with optional_package("onnx", "the export", "utils/install.sh --extras export"):
            import onnx  # noqa: F401
    with optional_package("sys", "this test"):
        import sys as installed
    assert installed is sys


@pytest.mark.parametrize(
    "error, line",
    [(OSError("\nno route.\nmore words"), "no route"), (ValueError(), "ValueError"), (KeyError("a"), "'a'")],
)
def test_the_first_line_of_an_error(error, line):
    assert first_line(error) == line
