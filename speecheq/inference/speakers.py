"""Prediction by speaker: whose recordings are whose, and the normalisation of features that follows.

A model with ``data.cmvn: speaker`` was trained so. One with ``global`` was normalised by its training data; where the
speakers are known, their own mean and deviation can take that place, which takes out much of what a voice, a microphone
or another language shifts.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from speecheq.common.errors import InputError
from speecheq.corpora.exchange.table_rows import read_records
from speecheq.corpora.layout import NamesInAnyForm, composed
from speecheq.features.frame_statistics import FrameSums, normalise_by
from speecheq.inference.recordings import Segment

# The speaker of a recording; recordings of one name are normalised together.
SpeakerOf = Callable[[Segment], str]
ONE = "one"  # all recordings are of one person
FOLDER = "folder"  # in place of a table: the folder of a file names its speaker
FILE, SPEAKER = COLUMNS = ("file", "speaker")
# The notes of a recording that is the only one of its speaker: of a model by speaker, and of any other.
ALONE = "normalised by this recording alone"
ALONE_AS_TRAINED = "the only recording of its speaker: normalised by the training data"


def one_speaker(_segment: Segment) -> str:
    """All recordings are of one person."""
    return ""


def folder_of(segment: Segment) -> str:
    """The folder of a recording's file."""
    return str(Path(segment.path).absolute().parent)


def each_alone(segment: Segment) -> str:
    """Each recording, or each channel or speaker of it, is of a person of its own."""
    part = segment.speaker if segment.listed else segment.start
    return f"{segment.name} {segment.channel} {part}"


def read_speakers(path: Path) -> SpeakerOf:
    """The speakers by a CSV or TSV file with the columns ``file`` and ``speaker``.

    A file is named as for the command, or relative to the table's folder; a part of a manifest by its id. Raises
    InputError for a table that lacks a column or names a file twice; the result does so for a recording that it lacks.
    """
    speakers: dict[str, str] = {}
    for where, row in read_records(path, COLUMNS):
        name, speaker = row[FILE], composed(row[SPEAKER])
        if not name or not speaker:
            raise InputError(f"{where}: lacks the file or its speaker; fill in both.")
        for key in {name, str((path.parent / name).absolute())}:
            if speakers.setdefault(key, speaker) != speaker:
                raise InputError(f"{where}: {name} has two speakers; keep one of the lines.")

    names = NamesInAnyForm(speakers)

    def speaker_of(segment: Segment) -> str:
        for key in map(names.find, (segment.name, str(segment.path), str(Path(segment.path).absolute()))):
            if key in speakers:
                return speakers[key]
        raise InputError(f"{path}: names no speaker of {segment.name}; add a line for it.")

    return speaker_of


def of_known_speaker(segment: Segment | InputError, speaker_of: SpeakerOf | None) -> Segment | InputError:
    """The segment, or the InputError that ``speaker_of`` raises for it."""
    if speaker_of is not None and not isinstance(segment, InputError):
        try:
            speaker_of(segment)
        except InputError as error:
            return error
    return segment


def speakers_of_options(one: bool, source: str | None) -> SpeakerOf | None:
    """What ``--one-speaker`` and ``--speaker-from`` say: ``source`` is FOLDER or a table; None if they say nothing."""
    if one:
        return one_speaker
    if source is None:
        return None
    return folder_of if source == FOLDER else read_speakers(Path(source))


class SpeakerMoments:
    """Mean and deviation (2, D) over all frames of each speaker's recordings.

    ``trained`` (2, D) are those of the training data where the model normalises by them itself.
    """

    def __init__(self, speaker_of: SpeakerOf, trained: Tensor | None = None) -> None:
        self.speaker_of, self.trained = speaker_of, trained
        self._sums: dict[str, FrameSums] = defaultdict(FrameSums)
        self._recordings: dict[str, set[Segment]] = defaultdict(set)

    def add(self, segments: Iterable[Segment], features: Tensor, frames: Tensor) -> None:
        """Add the features (N, T, D) of clips of ``segments``, with ``frames`` (N,) each."""
        for segment, rows, count in zip(segments, features, frames.tolist()):
            speaker = self.speaker_of(segment)
            self._sums[speaker].add(rows[:count])
            self._recordings[speaker].add(segment)

    def normalise(self, segments: Sequence[Segment], features: Tensor, frames: Tensor) -> Tensor:
        """The features (N, T, D) of clips of ``segments``, with ``frames`` (N,) each, as the model is to get them.

        With ``trained`` they have the speaker's mean and deviation changed to those of the training data, which the
        model then takes out; the only recording of a speaker stays as it is.
        """
        moments = torch.stack([torch.stack(self._sums[self.speaker_of(segment)].moments()) for segment in segments])
        normalised = normalise_by(features, frames, moments)
        if self.trained is None:
            return normalised
        mean, deviation = self.trained.to(features.device)
        alone = torch.tensor([self.is_alone(segment) for segment in segments], device=features.device)
        return torch.where(alone[:, None, None], features, normalised * deviation + mean)

    def is_alone(self, segment: Segment) -> bool:
        """Whether no other recording of its speaker was added."""
        return len(self._recordings[self.speaker_of(segment)]) == 1

    def note(self, segment: Segment) -> str:
        """What to say of the normalisation of a recording; empty if it is that by several of its speaker."""
        if not self.is_alone(segment):
            return ""
        return ALONE if self.trained is None else ALONE_AS_TRAINED
