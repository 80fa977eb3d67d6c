"""The log file of a training."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from speecheq.common.files import write_fault_is_an_input_error
from speecheq.common.log import log


class _LogFile(logging.FileHandler):
    """Ends the training if the log cannot be written, as a checkpoint does."""

    def handleError(self, record: logging.LogRecord) -> None:
        with write_fault_is_an_input_error(self.baseFilename):
            raise  # noqa: PLE0704 (logging calls it inside its handler)


@contextmanager
def log_to_file(path: Path, mode: str) -> Iterator[None]:
    """Inside this context, the package's log also goes to ``path``, opened with ``mode`` (w or a).

    Raises InputError if the file cannot be written.
    """
    with write_fault_is_an_input_error(path):
        handler = _LogFile(path, mode=mode, encoding="utf-8")
    handler.setFormatter(log.handlers[0].formatter if log.handlers else None)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        with write_fault_is_an_input_error(path):
            handler.close()
