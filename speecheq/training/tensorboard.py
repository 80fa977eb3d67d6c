"""Curves and pictures for TensorBoard; pictures are drawn with Pillow, a dependency of TensorBoard."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

CELL = 44  # pixels a side
LETTER = 7  # about the width of one
FULL = np.array([8, 48, 107])  # the blue of a cell with 100 % of its row


class Curves:
    """The TensorBoard events of a training, a context manager.

    Only rank 0 writes them (``writes``). Events of an earlier start for steps after ``done`` are dropped: those steps
    are repeated.
    """

    def __init__(self, folder: Path, done: int, writes: bool):
        self.folder, self.done, self.writes = folder, done, writes
        self.writer: SummaryWriter | None = None

    def __enter__(self) -> "Curves":
        if self.writes:
            from torch.utils.tensorboard import SummaryWriter

            number_earlier_events(self.folder)
            self.writer = SummaryWriter(str(self.folder), purge_step=self.done + 1)
        return self

    def __exit__(self, *error: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def add(self, part: str, values: Mapping[str, float | None], step: int) -> None:
        """Add a point to the curve ``part``/name of each value; None gives no point."""
        if self.writer is not None:
            for name, value in values.items():
                if value is not None:
                    self.writer.add_scalar(f"{part}/{name}", value, step)

    def add_confusion(self, counts: np.ndarray, names: Sequence[str], step: int) -> None:
        """Add the picture of the dev part's confusion matrix (K, K)."""
        if self.writer is not None:
            self.writer.add_image("dev/confusion", confusion_picture(counts, names), step, dataformats="HWC")

    def flush(self) -> None:
        """Write all events to disk."""
        if self.writer is not None:
            self.writer.flush()


def number_earlier_events(folder: Path) -> None:
    """Name the events of earlier starts so that TensorBoard reads them in order, and before those of this start.

    It orders files by name, that is by second and process number, which is wrong if two starts fall into one second or
    the clock was set back; then it would show repeated steps, and omit others.
    """
    written = sorted(folder.glob("events.out.tfevents.*"), key=lambda path: path.name)
    for number, path in enumerate(written):
        earlier = path.with_name(f"events.out.tfevents.{number:010d}.earlier")
        if path != earlier:
            path.rename(earlier)


def confusion_picture(counts: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Counts (K, K) -> a picture (H, W, 3) uint8: a row a gold class, its shares in percent, the darker the more."""
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    left = LETTER * max(map(len, names)) + 16
    canvas = Image.new("RGB", (left + CELL * len(names) + 8, CELL * (len(names) + 1)), "white")
    draw = ImageDraw.Draw(canvas)
    for column, name in enumerate(names):
        draw.text((left + CELL * column + 4, CELL - 16), name[:5], fill="black")
    for row, name in enumerate(names):
        top = CELL * (row + 1)
        draw.text((8, top + CELL // 2 - 6), name, fill="black")
        for column, share in enumerate(shares[row]):
            red, green, blue = (int(value) for value in 255 - share * (255 - FULL))
            corner = (left + CELL * column, top)
            draw.rectangle((corner, (corner[0] + CELL - 2, top + CELL - 2)), fill=(red, green, blue))
            if counts[row, column]:
                text_colour = "white" if share > 0.5 else "black"
                draw.text((corner[0] + 12, top + CELL // 2 - 6), f"{100 * share:.0f}", fill=text_colour)
    return np.asarray(canvas)
