"""Prediction with a model that is normalised by speaker (data.cmvn speaker): whose recordings are whose."""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from speecheq.common.errors import InputError
from speecheq.corpora.layout import NamesInAnyForm, composed
from speecheq.features.frame_statistics import FrameSums
from speecheq.inference.recordings import Segment

# The speaker of a recording; recordings of one name are normalised together.
SpeakerOf = Callable[[Segment], str]
FOLDER = "folder"  # in place of a table: the folder of a file names its speaker
FILE, SPEAKER = COLUMNS = ("file", "speaker")
# The note of a recording that is the only one of its speaker.
ALONE = "normalised by this recording alone"


def one_speaker(_segment: Segment) -> str:
    """All recordings are of one person."""
    return ""


def folder_of(segment: Segment) -> str:
    """The folder of a recording's file."""
    return str(Path(segment.path).absolute().parent)


def each_alone(segment: Segment) -> str:
    """Each recording is of a person of its own."""
    return f"{segment.name} {segment.start}"


def read_speakers(path: Path) -> SpeakerOf:
    """The speakers by a CSV or TSV file with the columns ``file`` and ``speaker``.

    A file is named as for the command, or relative to the table's folder; a part of a manifest by its id. Raises
    InputError for a table that lacks a column or names a file twice; the result does so for a recording that it lacks.
    """
    speakers: dict[str, str] = {}
    for number, row in enumerate(_rows(path), start=2):
        name, speaker = row[FILE], composed(row[SPEAKER])
        if not name or not speaker:
            raise InputError(f"{path}, line {number}: lacks the file or its speaker; fill in both.")
        for key in {name, str((path.parent / name).absolute())}:
            if speakers.setdefault(key, speaker) != speaker:
                raise InputError(f"{path}, line {number}: {name} has two speakers; keep one of the lines.")

    names = NamesInAnyForm(speakers)

    def speaker_of(segment: Segment) -> str:
        for key in map(names.find, (segment.name, str(segment.path), str(Path(segment.path).absolute()))):
            if key in speakers:
                return speakers[key]
        raise InputError(f"{path}: names no speaker of {segment.name}; add a line for it.")

    return speaker_of


def _rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
            stream.seek(0)
            reader = csv.DictReader(stream, delimiter="\t" if "\t" in first else ",")
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path}: lacks the column {missing[0]}; its columns must be file and speaker.")
            for row in reader:
                yield {name: (row[name] or "").strip() for name in COLUMNS}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table of files and speakers ({error}).") from error


class SpeakerMoments:
    """Mean and deviation (2, D) over all frames of each speaker's recordings."""

    def __init__(self, speaker_of: SpeakerOf) -> None:
        self.speaker_of = speaker_of
        self._sums: dict[str, FrameSums] = defaultdict(FrameSums)
        self._recordings: dict[str, set[Segment]] = defaultdict(set)

    def add(self, segments: Iterable[Segment], features: Tensor, frames: Tensor) -> None:
        """Add the features (N, T, D) of clips of ``segments``, with ``frames`` (N,) each."""
        for segment, rows, count in zip(segments, features, frames.tolist()):
            speaker = self.speaker_of(segment)
            self._sums[speaker].add(rows[:count])
            self._recordings[speaker].add(segment)

    def of(self, segments: Iterable[Segment]) -> Tensor:
        """Mean and deviation of the speaker of each segment, (N, 2, D)."""
        return torch.stack([torch.stack(self._sums[self.speaker_of(segment)].moments()) for segment in segments])

    def is_alone(self, segment: Segment) -> bool:
        """Whether no other recording of its speaker was added."""
        return len(self._recordings[self.speaker_of(segment)]) == 1
