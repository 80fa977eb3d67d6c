"""How recordings are cut into clips: into its stretches of speech, or windows at equal steps."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from speecheq.common.errors import InputError
from speecheq.features.speech_activity import LEAST_SPEECH, Segments

# Without a window length, recordings longer than WHOLE_SECONDS are cut into windows of WINDOW_SECONDS.
WHOLE_SECONDS = 30.0
WINDOW_SECONDS = 6.0
# The shortest window and hop, in seconds.
LEAST_WINDOW = 0.3
LEAST_HOP = 0.01
# No clip holds longer pauses, in seconds; those of training clips are mostly shorter.
LONGEST_PAUSE = 2.0
# What recordings are cut into: windows of a given length, or stretches of speech; AUTO is the first where a length is
# given, else the second for recordings above WHOLE_SECONDS.
CUTS = AUTO, SPEECH, WINDOWS = "auto", "speech", "windows"
# A pause of so many seconds ends a stretch of speech. Of the clips of EMODB 0.6 % hold a longer one, 2.2 % one above
# 1 s (slow, sad speech); of those of RAVDESS and CASIA none does.
PAUSE = 1.4
# A longer stretch, in seconds, is divided, into parts of at least the second.
LONGEST_STRETCH, LEAST_PART = 15.0, 1.5
# The notes of a clip without a class, for lack of speech.
NO_SPEECH, TOO_SHORT = "no speech", "too short"


class Span(NamedTuple):
    """What is predicted at once, in samples of its recording."""

    first: int
    frames: int
    pauses: Segments = []  # (first, one past the last) of what is left out of it
    speech: float | None = None  # seconds of speech in it, None where speech was not looked for
    note: str = ""  # NO_SPEECH or TOO_SHORT where it gets no class


@dataclass(frozen=True)
class Windows:
    """How recordings are cut; ``length``, ``hop`` and ``pause`` in seconds, the default hop is half a window.

    ``into`` is one of CUTS: ``speech`` cuts every recording into its stretches of speech, which a ``pause`` ends;
    ``auto`` does so for recordings above WHOLE_SECONDS, and ``windows`` cuts these into windows of WINDOW_SECONDS. With
    ``length`` every longer recording is cut into windows of that length. Where speech is not looked for, ``auto`` is
    ``windows``.
    The last window ends where the recording ends. It does not nearly repeat the one before: where the rest is shorter
    than half a hop (and half a window), the window before is made longer by it instead.

    Raises InputError for a ``length`` below LEAST_WINDOW, a ``hop`` or ``pause`` below LEAST_HOP, and for a ``length``
    where recordings are to be cut into speech.

    >>> Windows(length=4, hop=3).split(frames=90, rate=10)
    [(0, 40), (30, 40), (50, 40)]
    >>> Windows(length=4, hop=3).split(frames=80, rate=10)
    [(0, 40), (30, 50)]
    """

    length: float | None = None
    hop: float | None = None
    into: str = AUTO
    pause: float = PAUSE

    def __post_init__(self) -> None:
        if self.into not in CUTS:
            raise InputError(f"recordings cannot be cut into {self.into!r}; choose {', '.join(CUTS)}.")
        if self.into == SPEECH and self.length is not None:
            raise InputError("recordings are cut into their speech or into windows: give a window or speech, not both.")
        for name, seconds, least, reason in (
            ("pause", self.pause, LEAST_HOP, "speech is found in steps of that time"),
            ("window", self.length, LEAST_WINDOW, "so little speech has no class"),
            ("hop", self.hop, LEAST_HOP, "the filter banks have one frame in that time"),
        ):
            if seconds is not None and not least <= seconds < float("inf"):
                raise InputError(f"a {name} of {seconds:g} s is not possible, {reason}; choose {least:g} s or more.")

    def are_for(self, frames: int, rate: int) -> bool:
        """Whether a recording of ``frames`` samples at ``rate`` Hz is cut."""
        return self.into == SPEECH or frames > round((WHOLE_SECONDS if self.length is None else self.length) * rate)

    def split(self, frames: int, rate: int) -> list[tuple[int, int]]:
        """The windows of ``frames`` samples at ``rate`` Hz, each as (first sample, number of samples)."""
        return self._cut(frames, rate) if self.are_for(frames, rate) else [(0, frames)]

    def _cut(self, frames: int, rate: int) -> list[tuple[int, int]]:
        length = round((self.length or WINDOW_SECONDS) * rate)
        if frames <= length:
            return [(0, frames)]
        hop = max(1, round(self.hop * rate) if self.hop else length // 2)
        windows = [(first, length) for first in range(0, frames - length, hop)]
        first, rest = windows[-1][0], frames - length - windows[-1][0]
        if 2 * rest < min(hop, length):
            return [*windows[:-1], (first, length + rest)]
        return [*windows, (frames - length, length)]

    def follow(self, speech: Segments, frames: int, rate: int) -> list[Span]:
        """The clips of a recording of ``frames`` samples at ``rate`` Hz in which ``speech`` was found, at this rate.

        A recording that is not cut is one clip, from its first to its last speech without pauses above LONGEST_PAUSE.
        One that is cut into speech has a clip for each stretch, which ``pause`` ends, or for each part of one above
        LONGEST_STRETCH. Of one that is cut into windows each stretch is, which a pause above LONGEST_PAUSE ends.
        Without speech the recording is one clip that says so.
        """
        if not speech:
            return [Span(0, frames, [], 0.0, NO_SPEECH)]
        if self.are_for(frames, rate) and self.into != WINDOWS and self.length is None:
            return [
                _span(speech, (start, end - start, []), rate)
                for run in _runs(speech, round(self.pause * rate))
                for start, end in _divided(run, rate)
            ]
        return [_span(speech, place, rate) for place in self._places(speech, frames, rate)]

    def ended(self, speech: Segments, next_start: int | None, answered: int, rate: int) -> tuple[list[Span], int]:
        """The clips that are over in a stream in which ``speech`` was found so far, and where the last of them ends.

        ``answered`` is where the clips before these end. Speech may go on, or begin, from ``next_start`` on; None: the
        stream is over. Of a stretch above LONGEST_STRETCH that goes on the first part is over.
        """
        spans = []
        runs = list(
            _runs([(max(first, answered), end) for first, end in speech if end > answered], round(self.pause * rate))
        )
        for number, run in enumerate(runs, 1):
            parts = _divided(run, rate)
            if number == len(runs) and next_start is not None and next_start - run[-1][1] <= round(self.pause * rate):
                parts = parts[: len(parts) > 1]
            spans += [_span(speech, (start, end - start, []), rate) for start, end in parts]
        return spans, max([answered, *(span.first + span.frames for span in spans)])

    def _places(self, speech: Segments, frames: int, rate: int) -> list[tuple[int, int, Segments]]:
        """The first sample, number of samples and pauses of each window, or of a recording that is not cut."""
        stretches = list(_stretches(speech, round(LONGEST_PAUSE * rate)))
        if self.are_for(frames, rate):
            return [
                (start + first, length, [])
                for start, end in stretches
                for first, length in self._cut(end - start, rate)
            ]
        start, end = stretches[0][0], stretches[-1][1]
        return [(start, end - start, [(a, b) for (_, a), (b, _) in zip(stretches, stretches[1:])])]


def _span(speech: Segments, place: tuple[int, int, Segments], rate: int) -> Span:
    """The clip at a place (first sample, number of samples, pauses), with its seconds of speech."""
    first, count, pauses = place
    inside = (min(end, first + count) - max(start, first) for start, end in speech)
    seconds = sum(samples for samples in inside if samples > 0) / rate
    return Span(first, count, pauses, seconds, TOO_SHORT if seconds < LEAST_SPEECH else "")


def _runs(speech: Segments, longest_pause: int) -> Iterator[Segments]:
    """The speech in groups, which pauses above ``longest_pause`` samples separate."""
    run: Segments = []
    for one in speech:
        if run and one[0] - run[-1][1] > longest_pause:
            yield run
            run = []
        run.append(one)
    if run:
        yield run


def _stretches(speech: Segments, longest_pause: int) -> Iterator[tuple[int, int]]:
    """(first sample, one past the last) of each stretch of speech with pauses of ``longest_pause`` samples at most."""
    for run in _runs(speech, longest_pause):
        yield run[0][0], run[-1][1]


def _divided(run: Segments, rate: int) -> list[tuple[int, int]]:
    """A stretch of speech in parts of at most LONGEST_STRETCH, divided at its longest pauses, else in equal parts."""
    start, end = run[0][0], run[-1][1]
    if end - start <= LONGEST_STRETCH * rate:
        return [(start, end)]
    least = LEAST_PART * rate
    gaps = [
        (after[0] - before[1], place)
        for place, (before, after) in enumerate(zip(run, run[1:]), 1)
        if before[1] - start >= least and end - after[0] >= least
    ]
    if gaps:
        _, place = max(gaps)
        return [*_divided(run[:place], rate), *_divided(run[place:], rate)]
    count = ceil((end - start) / (LONGEST_STRETCH * rate))
    borders = [start + (end - start) * number // count for number in range(count + 1)]
    return list(zip(borders, borders[1:]))
