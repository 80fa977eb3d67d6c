"""The package's log: lines with timestamps on standard error."""

import logging
import re
import sys
from typing import TextIO

log = logging.getLogger("speecheq")
log.setLevel(logging.INFO)

# Line breaks and terminal control characters; and surrogates, which cannot be encoded.
_UNPRINTABLE = re.compile("[\x00-\x08\n-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def one_line(text: str) -> str:
    """A text on one line: control characters, which file names may contain, are escaped (``\\n``)."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _escape(record: logging.LogRecord) -> bool:
    """Make an entry one line, before any handler has it."""
    record.msg, record.args = one_line(record.getMessage()), ()
    return True


log.addFilter(_escape)


class _StderrHandler(logging.StreamHandler):
    """Writes to the current ``sys.stderr``, which may have been replaced since the log was set up."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr


def set_up_logging() -> None:
    """Send the package's log to standard error, with timestamps."""
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.handlers[:] = [handler]
    if not logging.getLogger().handlers:
        # a library that logs to the root logger adds a handler there, and our lines would appear twice
        logging.getLogger().addHandler(logging.NullHandler())
    log.setLevel(logging.INFO)
