"""InputError, the exception that users see as one plain sentence."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(Exception):
    """An input or option cannot be used.

    The message is one sentence: which file, which line, what is wrong and what to do. Commands print it
    and exit with status 1, without a traceback.
    """


@contextmanager
def optional_package(package: str, needed_for: str, install: str = "") -> Iterator[None]:
    """Turn an ImportError into an InputError: what needs ``package``, and the command that installs it.

    >>> with optional_package("onnx", needed_for="ONNX export"):
    ...     import onnx
    """
    try:
        yield
    except ImportError as error:
        install = install or f"pip install {package}"
        raise InputError(f"{needed_for} needs {package} ({error}); install it: {install}.") from error


def first_line(error: Exception) -> str:
    """The first line of an error's text without its full stop; its class name if it has no text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
