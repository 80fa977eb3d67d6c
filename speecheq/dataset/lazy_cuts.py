"""Manifests on disk from which only the requested cuts are parsed.

Finding a line takes a fifteenth of the time of parsing it: for 1,000 hours, seconds instead of a minute.
"""

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

from lhotse import CutSet, Recording
from lhotse.cut import Cut
from lhotse.serialization import deserialize_item


class CutFile:
    """The cuts of a ``.jsonl.gz``, or only those of ``corpus``; can be iterated repeatedly.

    A recording in place of a cut counts as a cut of all of it.
    """

    def __init__(self, path: Path, corpus: str | None = None):
        self.path, self.corpus = Path(path), corpus

    def lines(self) -> Iterator[bytes]:
        """The line of each cut, for ``cut_from_line``."""
        # a line without the corpus' name as a word of JSON need not be parsed
        name = json.dumps(self.corpus).encode() if self.corpus else b""
        with gzip.open(self.path, "rb") as stream:
            for line in stream:
                if not name or (
                    name in line and json.loads(line)["supervisions"][0]["custom"]["corpus"] == self.corpus
                ):
                    yield line

    def __iter__(self) -> Iterator[Cut]:
        return map(cut_from_line, self.lines())

    def sample(self, most: int) -> list[Cut]:
        """At most ``most`` of the cuts, drawn from all of them, in their order; the same ones every time."""
        number = sum(1 for _ in self.lines())
        chosen = set(random.Random(0).sample(range(number), min(most, number)))
        return [cut_from_line(line) for place, line in enumerate(self.lines()) if place in chosen]


def cut_from_line(line: bytes) -> Cut:
    """The cut in a line of a manifest, or a cut of the entire recording in it."""
    item = deserialize_item(json.loads(line))
    return item.to_cut() if isinstance(item, Recording) else item


def open_cuts(path: Path, corpus: str | None = None) -> CutSet:
    """The cuts of a ``.jsonl.gz``, or only those of ``corpus``, read one by one."""
    return CutSet(CutFile(path, corpus))


def sample_cuts(cuts: CutSet, most: int) -> list[Cut]:
    """At most ``most`` cuts of a set that ``open_cuts`` gave, the same ones every time."""
    return cuts.data.sample(most)
