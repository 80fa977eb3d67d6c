"""What a program gives to be predicted, by the names that ``speecheq predict`` takes, and whose recordings they are."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from speecheq.common.errors import InputError
from speecheq.inference.parts import MIX, Channels, SegmentsFile, find_parts, parse_channels
from speecheq.inference.recordings import Segment, find_segments
from speecheq.inference.speakers import ONE, SpeakerOf, speakers_of_options

# A recording lasts at least one frame of the filter banks.
LEAST_SECONDS = 0.025
Found = list[Segment | InputError]
# The names of the speakers, one for each source; or ``one``, ``folder``, or a table of files and speakers.
Speakers = Sequence[str] | str | Path | None


def raise_error(error: InputError) -> None:
    """What ``on_error`` does by default."""
    raise error


def recording_of(source: object) -> Segment:
    """A recording that is named by its path; raises InputError for anything else."""
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"a recording is a path, or samples as a numpy array, and this is of the type {type(source).__name__}; "
            "convert samples with numpy.asarray, and give several recordings one after the other."
        )
    return Segment(str(source), Path(source))


def find_sources(sources: Iterable[str | Path], cleanup: ExitStack) -> list[Found]:
    """The recordings of each of ``sources``, which ``find_segments`` describes; an InputError for what is none."""
    if not isinstance(sources, Iterable) or isinstance(sources, str | bytes):
        raise InputError(f"recordings are a list of paths, and this is of the type {type(sources).__name__}.")
    return [list(find_segments([recording_of(source).path], cleanup)) for source in sources]


def as_segments(
    sources: Iterable[str | Path | Segment | InputError], cleanup: ExitStack
) -> Iterator[Segment | InputError]:
    """The recordings of ``sources``, and what are segments already, one after the other."""
    for one in sources:
        if isinstance(one, Segment | InputError):
            yield one
        else:
            yield from find_segments([recording_of(one).path], cleanup)


def speakers_of_found(found: Sequence[Found], speakers: Speakers) -> SpeakerOf | None:
    """Whose the recordings are that ``find_sources`` found; InputError where a list lacks or has spare names."""
    if speakers is None or isinstance(speakers, str | Path):
        return speakers_of_options(speakers == ONE, None if speakers in (None, ONE) else str(speakers))
    if len(speakers) != len(found):
        raise InputError(f"{len(found)} recordings have {len(speakers)} speakers; give one for each.")
    known = {
        (one.name, one.path): speaker
        for of_source, speaker in zip(found, speakers)
        for one in of_source
        if isinstance(one, Segment)
    }
    return lambda segment: known[segment.name, segment.path]


def parts_of_found(
    found: Sequence[Found], segments: str | Path | None = None, channels: Channels = MIX, tiers: Sequence[str] = ()
) -> Found:
    """The parts to predict: of each recording its ``channels``, or the segments that the file ``segments`` lists."""
    listed = None if segments is None else SegmentsFile(Path(segments), tiers)
    recordings = [one for of_source in found for one in of_source]
    return list(find_parts(recordings, parse_channels(channels), listed))


def checked_samples(samples: np.ndarray, rate: int | None) -> tuple[np.ndarray, int]:
    """Samples (S,) or (S, channels) as (S, channels) float32, and their rate in Hz; InputError if they are none."""
    if samples.dtype.kind not in "fiu":
        raise InputError(f"samples must be real numbers, and these are of the type {samples.dtype}.")
    samples = samples.astype(np.float32, copy=False)
    samples = samples[:, None] if samples.ndim == 1 else samples
    hertz = _whole_rate(rate)
    if not hertz or samples.ndim != 2 or not samples.shape[1] or len(samples) < LEAST_SECONDS * hertz:
        raise InputError(
            "samples must have the shape (S,) or (S, channels), a sampling rate in Hz, and a duration of at least "
            "25 ms."
        )
    return samples, hertz


def _whole_rate(rate: object) -> int:
    """A sampling rate in Hz as an int, 0 for None; InputError for one that is no whole number above 0."""
    if rate is None:
        return 0
    whole = isinstance(rate, int | float | np.integer | np.floating) and rate > 0 and float(rate).is_integer()
    if not whole or isinstance(rate, bool):
        raise InputError(f"the sampling rate must be a whole number of Hz above 0, and is {rate!r}.")
    return int(rate)  # type: ignore[call-overload]
