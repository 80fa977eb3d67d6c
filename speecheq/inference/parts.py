"""Which parts of recordings are predicted: channels, and the segments that a file lists."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.corpora.audio_headers import read_header
from speecheq.corpora.layout import composed
from speecheq.inference.recordings import Segment
from speecheq.inference.segment_files import read_segments
from speecheq.inference.segment_files.listed import ListedSegment

MIX, EACH = "mix", "each"
Channels = str | int  # MIX, EACH, or the number of a channel


def parse_channels(text: str | int) -> Channels:
    """MIX, EACH or a number from 1 on; raises InputError for anything else."""
    if text in (MIX, EACH):
        return text
    if isinstance(text, bool) or not str(text).isascii() or not str(text).isdigit() or int(text) < 1:
        raise InputError(f"the channels {text!r} are not mix, each, or the number of a channel from 1 on.")
    return int(text)


def per_channel(recordings: Iterable[Segment | InputError], channels: Channels) -> Iterator[Segment | InputError]:
    """The recordings with the channel that is read; with EACH one for each channel of each recording.

    Where a recording cannot be read, its InputError stands in its place.
    """
    for recording in recordings:
        if isinstance(recording, InputError) or channels == MIX:
            yield recording
        elif channels == EACH:
            try:
                count = read_header(recording.path).channels
            except InputError as error:
                yield error
                continue
            for channel in range(1, count + 1):
                yield recording._replace(channel=channel)
        else:
            yield recording._replace(channel=int(channels))


def _names_of(recording: Segment) -> set[str]:
    """What a file of segments may call a recording: its name, its path, the name of its file with or without ending."""
    path = Path(recording.path)
    names = {recording.name, str(path), str(path.absolute()), path.name, path.stem}
    return {key for name in names for key in (composed(name), composed("_".join(name.split())))}


class SegmentsFile:
    """The segments of a file, by recording. Raises InputError as ``read_segments`` does."""

    def __init__(self, path: Path, tiers: Sequence[str] = ()) -> None:
        self.path = Path(path)
        self._by_name: dict[str, list[ListedSegment]] = defaultdict(list)
        for segment in read_segments(self.path, tiers):
            self._by_name[composed(segment.recording)].append(segment)
        self._overlapping = sum(map(_overlapping, self._by_name.values()))

    def parts_of(
        self, recordings: Iterable[Segment | InputError], channels: Channels
    ) -> Iterator[Segment | InputError]:
        """The segments of each recording, in the order of time; an InputError in the place of one without any.

        With EACH a segment is read from the channel that the file names. InputError where the file names none of
        several recordings, and for segments without a channel with EACH.
        """
        given = list(recordings)
        named = [recording for recording in given if isinstance(recording, Segment)]
        if "" in self._by_name and len(named) > 1:
            raise InputError(
                f"{self.path}: does not say of which recording its segments are, and {len(named)} are given; give "
                "one recording."
            )
        used: set[str] = set()
        for recording in given:
            if isinstance(recording, InputError):
                yield recording
                continue
            names = {"", *_names_of(recording)} & set(self._by_name)
            used |= names
            yield from self._parts(
                recording, [segment for name in sorted(names) for segment in self._by_name[name]], channels
            )
        if self._overlapping:
            log.info(
                "%s: %d segments overlap the one before; each is predicted by itself", self.path, self._overlapping
            )
        others = sum(len(segments) for name, segments in self._by_name.items() if name not in used)
        if others:
            log.warning("%s: %d segments of other recordings are left out", self.path, others)

    def _parts(
        self, recording: Segment, listed: Sequence[ListedSegment], channels: Channels
    ) -> Iterator[Segment | InputError]:
        if recording.is_part:
            yield InputError(f"{recording.path}: {recording.name} is a part of a recording already; give whole ones.")
            return
        if not listed:
            yield InputError(f"{self.path}: lists no segments of {recording.name}; give its recording or another file.")
            return
        left_out = 0
        for place, one in enumerate(listed, 1):
            channel = None if channels == MIX else one.channel if channels == EACH else int(channels)
            if channels == EACH and channel is None:
                yield InputError(
                    f"{one.where}: names no channel, which --channels each needs; add it, or leave that out."
                )
                continue
            if channels not in (MIX, EACH) and one.channel not in (None, channel):
                left_out += 1
                continue
            yield Segment(recording.name, recording.path, one.start, one.end, channel, one.speaker, one.columns, place)
        if left_out:
            log.info("%s: %d segments of other channels are left out", self.path, left_out)


def find_parts(
    recordings: Iterable[Segment | InputError], channels: Channels, listed: SegmentsFile | None
) -> Iterator[Segment | InputError]:
    """What is predicted of each recording: the segments that a file lists, or its ``channels``."""
    return per_channel(recordings, channels) if listed is None else listed.parts_of(recordings, channels)


def _overlapping(segments: Sequence[ListedSegment]) -> int:
    """How many segments, sorted by time, begin before the one before them ends."""
    return sum(after.start < (before.end or float("inf")) for before, after in zip(segments, segments[1:]))
