"""How recordings are cut into clips: at equal steps, or along the speech that was found in them."""

from collections.abc import Iterator
from dataclasses import dataclass
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
    """How recordings are cut; ``length`` and ``hop`` in seconds, the default hop is half a window.

    With ``length`` every longer recording is cut; without it those above WHOLE_SECONDS, into windows of WINDOW_SECONDS.
    The last window ends where the recording ends. It does not nearly repeat the one before: where the rest is shorter
    than half a hop (and half a window), the window before is made longer by it instead.

    Raises InputError for a ``length`` below LEAST_WINDOW or a ``hop`` below LEAST_HOP.

    >>> Windows(length=4, hop=3).split(frames=90, rate=10)
    [(0, 40), (30, 40), (50, 40)]
    >>> Windows(length=4, hop=3).split(frames=80, rate=10)
    [(0, 40), (30, 50)]
    """

    length: float | None = None
    hop: float | None = None

    def __post_init__(self) -> None:
        for name, seconds, least, reason in (
            ("window", self.length, LEAST_WINDOW, "so little speech has no class"),
            ("hop", self.hop, LEAST_HOP, "the filter banks have one frame in that time"),
        ):
            if seconds is not None and not least <= seconds < float("inf"):
                raise InputError(f"a {name} of {seconds:g} s is not possible, {reason}; choose {least:g} s or more.")

    def are_for(self, frames: int, rate: int) -> bool:
        """Whether a recording of ``frames`` samples at ``rate`` Hz is cut."""
        return frames > round((WHOLE_SECONDS if self.length is None else self.length) * rate)

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

        A pause above LONGEST_PAUSE ends a stretch of speech. A recording that is not cut is one clip, from its first to
        its last speech without these pauses; of one that is, each stretch is cut into windows. Without speech the
        recording is one clip that says so.
        """
        if not speech:
            return [Span(0, frames, [], 0.0, NO_SPEECH)]
        stretches = list(_stretches(speech, round(LONGEST_PAUSE * rate)))
        if self.are_for(frames, rate):
            places: list[tuple[int, int, Segments]] = [
                (start + first, length, [])
                for start, end in stretches
                for first, length in self._cut(end - start, rate)
            ]
        else:
            start, end = stretches[0][0], stretches[-1][1]
            places = [(start, end - start, [(a, b) for (_, a), (b, _) in zip(stretches, stretches[1:])])]
        spans = []
        for first, count, pauses in places:
            inside = (min(end, first + count) - max(start, first) for start, end in speech)
            seconds = sum(samples for samples in inside if samples > 0) / rate
            spans.append(Span(first, count, pauses, seconds, TOO_SHORT if seconds < LEAST_SPEECH else ""))
        return spans


def _stretches(speech: Segments, longest_pause: int) -> Iterator[tuple[int, int]]:
    """(first sample, one past the last) of each stretch of speech with pauses of ``longest_pause`` samples at most."""
    start, end = speech[0]
    for first, last in speech[1:]:
        if first - end > longest_pause:
            yield start, end
            start = first
        end = last
    yield start, end
