"""Lists of numbers on the command line: ranges, all of them, and what is refused."""

import pytest

from speecheq.common.command_line import parse_numbers
from speecheq.common.errors import InputError


@pytest.mark.parametrize(
    "text, numbers",
    [
        ("1", [1]),
        ("1 3-5", [1, 3, 4, 5]),
        ("2,1", [2, 1]),
        ("all", list(range(1, 11))),
        ("3 2-4", [3, 2, 4]),
        ("4-4", [4]),
    ],
)
def test_numbers(text, numbers):
    assert parse_numbers(text, "fold", 10) == numbers


@pytest.mark.parametrize(
    "text, words",
    [
        ("11", "fold 11 does not exist; there are folds 1 to 10"),
        ("0", "fold 0 does not exist"),
        ("9-1000000000000", "fold 1000000000000 does not exist"),
        ("one", "'one' is not a fold number"),
        ("1-", "'1-' is not a fold number"),
        ("-1", "'-1' is not a fold number"),
        ("5-3", "the range 5-3 ends before it begins"),
        (" ", "names no fold"),
    ],
)
def test_numbers_that_are_refused(text, words):
    with pytest.raises(InputError) as refused:
        parse_numbers(text, "fold", 10)
    assert words in str(refused.value)


def test_seeds_have_no_list_of_all():
    assert parse_numbers("0 7", "seed") == [0, 7]
    with pytest.raises(InputError, match="--seeds all: there is no list of all seeds"):
        parse_numbers("all", "seed")
