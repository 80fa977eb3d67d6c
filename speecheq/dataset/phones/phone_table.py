"""The table that numbers phones, and the exception for a text without phones."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from speecheq.common.errors import InputError
from speecheq.common.files import write_text

# Silence is number 0 in every table and the blank of CTC: with the paper's numbers of phones (202 and 85) there is no
# separate blank.
SILENCE = "sil"
# Where silence between words is to be told from the blank, it is a symbol of its own, the last one of the table.
PAUSE = "<sil>"


class NoPhones(ValueError):
    """A text that cannot be turned into phones; ``reason`` is counted, ``found`` is the offending part."""

    def __init__(self, reason: str, found: str):
        super().__init__(f"{reason}: {found!r}")
        self.reason, self.found = reason, found


class Word(NamedTuple):
    """A spoken word and its pronunciations, the usual one first, each a row of phones (or pieces)."""

    text: str
    pronunciations: list[tuple[str, ...]]


class PhoneTable:
    """Symbols and their numbers; number 0 is silence and the blank."""

    def __init__(self, symbols: Sequence[str]):
        if not symbols or symbols[0] != SILENCE:
            raise ValueError(f"a phone table begins with {SILENCE!r}, the blank")
        if len(set(symbols)) != len(symbols):
            raise ValueError("a phone table holds a symbol twice")
        self.symbols: list[str] = list(symbols)
        self.index: dict[str, int] = {symbol: number for number, symbol in enumerate(symbols)}

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def pause(self) -> int | None:
        """The number of silence between words; None where that is the blank, as in most tables."""
        return self.index.get(PAUSE)

    def with_pause(self) -> "PhoneTable":
        """This table with PAUSE as its last symbol."""
        return PhoneTable([*self.symbols, PAUSE])

    def encode(self, phones: Sequence[str]) -> list[int]:
        """Phones to numbers; raises KeyError for an unknown phone."""
        return [self.index[phone] for phone in phones]

    def decode(self, numbers: Sequence[int]) -> list[str]:
        return [self.symbols[number] for number in numbers]

    def save(self, path: str | Path) -> None:
        """Write one ``symbol number`` line a phone, the form that k2 and Kaldi read."""
        write_text(path, "".join(f"{symbol} {number}\n" for number, symbol in enumerate(self.symbols)))

    @classmethod
    def load(cls, path: str | Path) -> "PhoneTable":
        """Read a file of ``save``; raises InputError, which names the first line that is not ``symbol number``."""
        symbols: list[str] = []
        for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines()):
            fields = line.split()
            if len(fields) != 2 or fields[1] != str(number):
                raise InputError(f"{path}, line {number + 1}: expected '<symbol> {number}', found {line!r}.")
            symbols.append(fields[0])
        try:
            return cls(symbols)
        except ValueError as error:
            raise InputError(f"{path}: {error}.") from error
