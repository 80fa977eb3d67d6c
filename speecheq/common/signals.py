"""Signals that ask a process to stop: SIGTERM, which schedulers send, and SIGINT, which Ctrl-C sends."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def sigterm_ends() -> Iterator[None]:
    """While it is entered, a SIGTERM raises SystemExit, so that clean-up code runs and child processes are ended."""
    if threading.current_thread() is not threading.main_thread():  # Python delivers signals to the main thread alone
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StopRequest:
    """While it is entered, SIGTERM and SIGINT set ``signal`` instead of ending the process, so no step is cut in two.

    A signal that is ignored, as SIGINT is by jobs in the background, stays ignored. Outside the main thread nothing
    changes.
    """

    def __init__(self) -> None:
        self.signal = 0  # the one that came, 0 before
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            watched = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self.before = {number: signal.signal(number, self._request) for number in watched}
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _request(self, number: int, _frame: object) -> None:
        self.signal = number


@contextmanager
def stopping_put_off() -> Iterator[None]:
    """While it is entered, SIGTERM and SIGINT wait until it is left."""
    request = StopRequest()
    try:
        with request:
            yield
    finally:
        if request.signal:
            signal.raise_signal(request.signal)
