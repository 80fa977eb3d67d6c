"""The picture of a confusion matrix."""

import numpy as np

from speecheq.training.tensorboard import CELL, FULL, confusion_picture

NAMES = ("neutral", "joy", "anticipation")


def test_a_row_is_a_gold_class_and_the_darker_the_more():
    picture = confusion_picture(np.array([[4, 0, 0], [0, 1, 3], [0, 0, 0]]), NAMES)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    left = picture.shape[1] - 8 - 3 * CELL

    def cell(row, column):  # a corner, where nothing is written
        return picture[CELL * (row + 1) + 2, left + CELL * column + 2]

    assert (cell(0, 0) == FULL).all()
    assert (cell(0, 1) == 255).all() and (cell(2, 0) == 255).all()
    assert cell(1, 2).sum() < cell(1, 1).sum() < 3 * 255


def test_names_and_shares_are_written():
    blank = confusion_picture(np.zeros((3, 3), dtype=int), NAMES)
    written = confusion_picture(np.array([[1, 1, 0], [0, 0, 0], [0, 0, 0]]), NAMES)
    assert (blank[:CELL] < 255).any() and (blank[CELL:, : 7 * 8] < 255).any()
    left = written.shape[1] - 8 - 3 * CELL
    one_cell = written[CELL : 2 * CELL - 2, left : left + CELL - 2]
    assert len(np.unique(one_cell.reshape(-1, 3), axis=0)) > 1
