"""Option types, parser and exit status shared by the package's commands and the prep scripts."""

import argparse
import os
import re
import signal
from collections.abc import Callable
from typing import Any, NoReturn

from speecheq.common.errors import InputError
from speecheq.common.files import NO_SPACE
from speecheq.common.log import log
from speecheq.common.signals import sigterm_ends
from speecheq.common.stages import status


def true_or_false(value: str) -> bool:
    """The type of an option that is true or false."""
    if value not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{value!r} is neither true nor false")
    return value == "true"


def positive(value: str) -> float:
    """The type of an option that is a number above 0."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{value!r} is not a number above 0")
    return number


def share(value: str) -> float:
    """The type of an option that is a number from 0 to below 1."""
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number from 0 to below 1")
    return number


def positive_whole(value: str) -> int:
    """The type of an option that is a whole number above 0."""
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number above 0")
    return int(value)


def numbers(value: str) -> list[float]:
    """The type of an option that is a list of numbers, separated by spaces or commas; repeated ones are dropped."""
    try:
        found = list(dict.fromkeys(map(float, value.replace(",", " ").split())))
    except ValueError:
        found = []
    if not found or not all(abs(number) < float("inf") for number in found):
        raise argparse.ArgumentTypeError(f"{value!r} is not a list of numbers")
    return found


def parse_numbers(text: str, what: str, available: int | None = None) -> list[int]:
    """Parse ``1 3-5``, ``1,2`` or ``all`` into sorted numbers. Raises InputError for a number that does not exist.

    ``what`` names them (fold, seed); ``available`` is how many there are, which ``all`` needs.
    """
    if text.strip() == "all":
        if available is None:
            raise InputError(f"--{what}s all: there is no list of all {what}s; name them, for instance --{what}s 1-3.")
        return list(range(1, available + 1))
    numbers: list[int] = []
    for item in text.replace(",", " ").split():
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", item)
        if not match:
            raise InputError(f"--{what}s {text!r}: {item!r} is not a {what} number, a range like 1-3, or all.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InputError(f"--{what}s {text!r}: the range {item} ends before it begins.")
        for number in (first, last):
            if available is not None and not 1 <= number <= available:
                raise InputError(f"{what} {number} does not exist; there are {what}s 1 to {available}.")
        numbers.extend(range(first, last + 1))
    if not numbers:
        raise InputError(f"--{what}s {text!r}: names no {what}.")
    return list(dict.fromkeys(numbers))


class OneLineParser(argparse.ArgumentParser):
    """argparse whose errors are InputErrors of one sentence, and whose options cannot be abbreviated."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}; see {self.prog} --help.")


def _check_working_folder() -> None:
    """Raise InputError if the working folder was deleted: torch could not be loaded there."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise InputError(
            "the working folder does not exist any more: change to another one (cd) and run the same command again."
        ) from error


def exit_status(action: Callable[[], None]) -> int:
    """Run ``action`` and return the exit status of a command that does it.

    0 on success; NOT_DONE if it only planned and work remains; 1 for an error of the input or the system, which is
    logged in one sentence; 130 after Ctrl-C. SIGTERM raises SystemExit with 143. Bugs are raised again with their
    traceback.
    """
    try:
        with sigterm_ends():
            _check_working_folder()
            action()
    except InputError as error:
        log.error("%s", error)
        return 1
    except OSError as error:
        if error.errno is None or error.filename is None and error.errno not in NO_SPACE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        log.error("%s%s.", where, os.strerror(error.errno).lower())
        return 1
    except UnicodeEncodeError as error:
        if not "\udc80" <= error.object[error.start] <= "\udcff":  # so Python keeps bytes of file names
            raise
        around = error.object[max(0, error.start - 100) : error.end + 100].encode("utf-8", "backslashreplace").decode()
        log.error("%s: the name of a file or folder is not UTF-8; rename it.", around)
        return 1
    except KeyboardInterrupt:
        log.error("interrupted; run the same command again to continue.")
        return 130
    except SystemExit as ended:
        if ended.code == 128 + signal.SIGTERM:
            log.warning("ended by SIGTERM; run the same command again to continue.")
        raise
    return status()
