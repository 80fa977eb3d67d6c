"""Handling of SIGTERM (sent by schedulers) and SIGINT (Ctrl-C)."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def sigterm_ends() -> Iterator[None]:
    """Inside this context, a SIGTERM raises SystemExit, so that clean-up code runs and child processes are ended."""
    if threading.current_thread() is not threading.main_thread():  # Python delivers signals to the main thread alone
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StopRequest:
    """Inside this context, SIGTERM and SIGINT set ``signal`` instead of ending the process, so no step is cut in two.

    Ignored signals, such as SIGINT in background jobs, stay ignored. Does nothing outside the main thread.
    """

    def __init__(self) -> None:
        self.signal = 0  # the received signal, 0 if none
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
    """Inside this context, SIGTERM and SIGINT are delayed until it ends."""
    request = StopRequest()
    try:
        with request:
            yield
    finally:
        if request.signal:
            signal.raise_signal(request.signal)
