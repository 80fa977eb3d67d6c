"""Progress as a bar on a terminal, or as plain log lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

from speecheq.common.log import log

T = TypeVar("T")

# Seconds between log lines, so that log files stay short, and between updates of the bar.
PLAIN_LINE_INTERVAL = 15.0
BAR_INTERVAL = 0.1


def _open_bar(**options: Any) -> Any:
    """A tqdm bar with a monotonic clock, so that elapsed time is never negative."""
    from tqdm import tqdm

    started = time.monotonic()

    class Bar(tqdm):
        @property
        def format_dict(self) -> dict[str, Any]:
            return {**super().format_dict, "elapsed": time.monotonic() - started, "rate": None}  # None: the average

    return Bar(dynamic_ncols=True, **options)


class Progress:
    """Counts ``total`` units of work under ``title``; ``done`` of them were done before.

    On a terminal a bar is shown; elsewhere a log line at most every PLAIN_LINE_INTERVAL seconds and at the end.
    """

    def __init__(
        self, title: str, total: int | None = None, unit: str = "it", terminal: bool | None = None, done: int = 0
    ):
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self.count, self.note, self.started = done, "", time.monotonic()
        self.last_shown = self.started
        terminal = sys.stderr.isatty() if terminal is None else terminal
        self.bar = _open_bar(total=total, desc=title, unit=unit, initial=done) if terminal else None

    def update(self, count: int = 1, note: str = "") -> None:
        """Report ``count`` more units done; ``note`` is shown beside the counts (a loss, say)."""
        self.count += count
        self.note = note or self.note
        waited = time.monotonic() - self.last_shown
        if self.bar is not None:
            self.bar.n = self.count
            if note:
                self.bar.set_postfix_str(note, refresh=False)
            if waited >= BAR_INTERVAL:
                self.last_shown += waited
                self.bar.refresh()
        elif waited >= PLAIN_LINE_INTERVAL:
            self._log_line()

    def _log_line(self) -> None:
        self.last_shown = time.monotonic()
        seconds = self.last_shown - self.started
        speed = (self.count - self.done) / seconds if seconds > 0 else 0.0
        total = left = ""
        if self.total is not None:
            total = f"/{self.total}"
            if speed > 0 and self.count < self.total:
                left = f", {(self.total - self.count) / speed:.0f} s left"
        note = f", {self.note}" if self.note else ""
        log.info(
            "%s: %d%s %s in %.0f s (%.1f/s%s)%s", self.title, self.count, total, self.unit, seconds, speed, left, note
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        if self.bar is not None:
            self.bar.close()
        elif kind is None:
            self._log_line()


def progress(items: Iterable[T], title: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Yield ``items`` and report each as one unit of work."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(title, total, unit) as shown:
        for item in items:
            yield item
            shown.update()
