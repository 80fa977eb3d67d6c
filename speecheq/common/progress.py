"""Progress as a bar on a terminal, or as plain log lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from speecheq.common.log import log

T = TypeVar("T")

# Without a terminal a line is written this often (seconds), so that a log file stays short.
PLAIN_LINE_INTERVAL = 15.0


class Progress:
    """Counts ``total`` units of work under ``title``, of which ``done`` were done before.

    On a terminal a tqdm bar; elsewhere plain log lines, at most one in PLAIN_LINE_INTERVAL seconds and one
    at the end.
    """

    def __init__(
        self, title: str, total: int | None = None, unit: str = "it", terminal: bool | None = None, done: int = 0
    ):
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self.count, self.note, self.started = done, "", time.monotonic()
        self.last_line = self.started
        terminal = sys.stderr.isatty() if terminal is None else terminal
        self.bar = None
        if terminal:
            self.bar = tqdm(total=total, desc=title, unit=unit, initial=done, dynamic_ncols=True)
            # tqdm's own clock may be set back, for which the bar would stand still
            self.bar._time, self.bar.start_t, self.bar.last_print_t = time.monotonic, self.started, self.started

    def update(self, count: int = 1, note: str = "") -> None:
        """Report ``count`` more units done; ``note`` is shown beside the figures (a loss, say)."""
        self.count += count
        self.note = note or self.note
        if self.bar is not None:
            if note:
                self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(count)
        elif time.monotonic() - self.last_line >= PLAIN_LINE_INTERVAL:
            self._line()

    def expect(self, total: int) -> None:
        """Say how many units there will be, once that is known."""
        self.total = total
        if self.bar is not None:
            self.bar.total = total

    def _line(self) -> None:
        self.last_line = time.monotonic()
        seconds = self.last_line - self.started
        speed = (self.count - self.done) / seconds if seconds > 0 else 0.0
        of = f"/{self.total}" if self.total is not None else ""
        left = ""
        if self.total is not None and speed > 0 and self.count < self.total:
            left = f", {(self.total - self.count) / speed:.0f} s left"
        note = f", {self.note}" if self.note else ""
        log.info(
            "%s: %d%s %s in %.0f s (%.1f/s%s)%s", self.title, self.count, of, self.unit, seconds, speed, left, note
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self.bar is not None:
            self.bar.close()
        elif kind is None:
            self._line()


def progress(items: Iterable[T], title: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Yield ``items`` and report each as one unit of work."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    with Progress(title, total, unit) as shown:
        for item in items:
            yield item
            shown.update()
