"""Speech activity of samples that come bit by bit: as ``find_speech`` finds it, with what was heard so far.

``find_speech`` brings a recording to the level of all of its loud frames. Here it is the level of those of the last
LEVEL_SECONDS; the first frames wait until FIRST_SECONDS are there. What lies behind is forgotten: memory is constant.
"""

import numpy as np

from speecheq.features.speech_activity import (
    ENERGY,
    FRAME,
    LEVEL,
    QUIETEST,
    SAMPLING_RATE,
    SHORTEST_PAUSE,
    SHORTEST_SPEECH,
    SILERO,
    STEP,
    WIDENED,
    Segments,
    SileroFrames,
    found_stretches,
    is_loud,
    loud_power,
    step_powers,
    with_exact_ends,
)

LEVEL_SECONDS, FIRST_SECONDS = 600, 2
# Frames before what is not forgotten: so many move the ends of a stretch.
AROUND = SHORTEST_PAUSE + WIDENED


class LiveSpeech:
    """The stretches of speech in a stream at 16 kHz; times are in samples from its beginning.

    ``method`` is silero or energy.
    """

    def __init__(self, method: str) -> None:
        self._is_speech = SileroFrames() if method == SILERO else None
        assert self._is_speech is not None or method == ENERGY, method
        self._rest = np.zeros(0, np.float32)  # less than a frame; the first seconds
        self._levels = np.zeros(LEVEL_SECONDS * SAMPLING_RATE // FRAME)  # the powers of the last frames
        self._seen = 0  # frames
        self._first = 0  # the number of the first frame that is not forgotten
        self._active = np.zeros(0, bool)
        self._steps = np.zeros((0, FRAME // STEP))

    def add(self, samples: np.ndarray, last: bool = False) -> None:
        """Hear the next samples (S,) float32, if any; ``last``: no more follow."""
        rest = np.concatenate((self._rest, samples))
        if last:
            rest = np.pad(rest, (0, -len(rest) % FRAME))
        elif not self._seen and len(rest) < FIRST_SECONDS * SAMPLING_RATE:
            self._rest = rest
            return
        whole = len(rest) // FRAME * FRAME
        self._rest = rest[whole:]
        if whole:
            self._find(rest[:whole].reshape(-1, FRAME))

    def _find(self, frames: np.ndarray) -> None:
        steps = step_powers(frames)
        powers = steps.mean(axis=1)
        self._levels[(self._seen + np.arange(len(frames))) % len(self._levels)] = powers
        self._seen += len(frames)
        levels = self._levels[: self._seen]
        active = np.zeros(len(frames), bool)
        if levels.max() >= QUIETEST:
            if self._is_speech is None:
                active = is_loud(powers, levels)
            else:
                active = self._is_speech(frames * np.float32(LEVEL / loud_power(levels) ** 0.5))
        self._active = np.concatenate((self._active, active))
        self._steps = np.concatenate((self._steps, steps))

    @property
    def end(self) -> int:
        """The first sample that was not looked at yet."""
        return self._seen * FRAME

    def stretches(self) -> Segments:
        """(First sample, one past the last) of the stretches that are not forgotten, as far as they are known."""
        first = self._first * FRAME
        found = with_exact_ends(found_stretches(self._active), self._steps)
        return [(first + start, first + end) for start, end in found]

    def next_start(self, end: int) -> int:
        """The first sample at which a stretch may begin that comes after the one that ends at ``end``.

        It is ``end`` where that stretch may yet become longer.
        """
        pending = len(self._active)
        frames = np.flatnonzero(self._active)
        if len(frames) and pending - 1 - frames[-1] < SHORTEST_PAUSE:  # this one may go on
            gaps = np.flatnonzero(np.diff(frames) > SHORTEST_PAUSE)
            pending = int(frames[gaps[-1] + 1 if len(gaps) else 0])
            if frames[-1] - pending + 1 >= SHORTEST_SPEECH:
                return end
        return max(end, (self._first + pending - WIDENED) * FRAME)

    def forget(self, before: int) -> None:
        """Forget the stretches that end before a sample, and what was heard before it."""
        ended = [
            end for (_, end), (_, exact) in zip(found_stretches(self._active), self.stretches()) if exact <= before
        ]
        if ended:
            self._active[: ended[-1]] = False
        count = before // FRAME - AROUND - self._first
        if count > 0:
            self._active, self._steps = self._active[count:], self._steps[count:]
            self._first += count
