"""What the command lines of the package and of the prep scripts share. Imports nothing heavy."""

import argparse

from speecheq.errors import InputError


def true_or_false(value: str) -> bool:
    """Parse a boolean option; argparse turns the ValueError into a message."""
    if value not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{value!r} is neither true nor false")
    return value == "true"


def positive(value: str) -> float:
    """A number above 0."""
    number = float(value)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{value!r} is not above 0")
    return number


class OneLineParser(argparse.ArgumentParser):
    """argparse whose errors are one sentence and exit status 1."""

    def error(self, message: str) -> None:
        raise InputError(f"{self.prog}: {message}; see {self.prog} --help.")


def positive_whole(value: str) -> int:
    """A whole number above 0."""
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number above 0")
    return number
