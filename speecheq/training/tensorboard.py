"""Pictures for TensorBoard, drawn with Pillow, which TensorBoard brings along: those of stage 5 are in figures.py."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

CELL = 44  # pixels a side
LETTER = 7  # about the width of one
FULL = np.array([8, 48, 107])  # the blue of a cell that holds its whole row


def confusion_picture(counts: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Counts (K, K) as a picture (H, W, 3) uint8: a row a gold class, its shares in percent, the darker the more."""
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
            colour = tuple(int(value) for value in 255 - share * (255 - FULL))
            corner = (left + CELL * column, top)
            draw.rectangle([corner, (corner[0] + CELL - 2, top + CELL - 2)], fill=colour)
            if counts[row, column]:
                draw.text(
                    (corner[0] + 12, top + CELL // 2 - 6),
                    f"{100 * share:.0f}",
                    fill="white" if share > 0.5 else "black",
                )
    return np.asarray(canvas)
