"""The package's log: lines with their time on standard error."""

import logging
import re
import sys
from typing import TextIO

log = logging.getLogger("speecheq")
log.setLevel(logging.INFO)

# What would begin a new line somewhere, or move a terminal's cursor; and halves of characters, which no file takes.
_UNPRINTABLE = re.compile("[\x00-\x08\n-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def one_line(text: str) -> str:
    """A text on one line, whatever file names are in it: control characters as Python writes them, such as ``\\n``."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class _OneLine(logging.Formatter):
    """An entry is a line: no name in it can look like another entry."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))


class _StderrHandler(logging.StreamHandler):
    """Writes to what standard error is at that moment: it may have been replaced since the log was set up."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr


def set_up_logging(level: int = logging.INFO) -> None:
    """Send the package's log to standard error, each line with its time."""
    handler = _StderrHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.handlers[:] = [handler]
    if not logging.getLogger().handlers:
        # a library that warns through the root logger would give it a handler, and our lines would come twice
        logging.getLogger().addHandler(logging.NullHandler())
    log.setLevel(level)
