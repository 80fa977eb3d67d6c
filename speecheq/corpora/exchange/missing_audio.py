"""Audio files that a table or a Kaldi data folder names, but that are not there."""

from pathlib import Path

from speecheq.common.errors import InputError
from speecheq.common.files import PathLike

# Why a line is left out that names a leftover of macOS (``._a.wav``) as a clip.
MACOS_LEFTOVER = "leftover of macOS, no audio"


class MissingAudio:
    """The files that ``source`` names and that are missing in a partial copy."""

    def __init__(self, source: Path):
        self.source = source
        self.count, self.first = 0, ""

    def add(self, path: PathLike) -> None:
        """Count a file."""
        self.count += 1
        self.first = self.first or str(path)

    def check(self, found: int) -> None:
        """Raise InputError if files are missing and none was found."""
        if self.count and not found:
            raise InputError(
                f"{self.source}: all {self.count} audio files are missing, the first is {self.first}; copy the audio "
                "there, or correct the paths."
            )
