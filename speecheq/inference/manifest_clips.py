"""The clips that lhotse's manifests list, with their supervisions: cuts, recordings, or supervisions beside recordings.

Everything else that ``speecheq predict`` takes is found as there.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lhotse import CutSet, MonoCut, Recording, RecordingSet, SupervisionSet, fastcopy, load_manifest_lazy

from speecheq.common.errors import InputError
from speecheq.corpora.layout import as_on_disk
from speecheq.inference.recordings import MANIFESTS, Segment, find_segments

SUPERVISIONS, RECORDINGS = "supervisions", "recordings"


class CutSegment(Segment):
    """A segment that is a cut of a manifest."""

    cut: MonoCut


def find_clips(names: Sequence[str | Path], cleanup: ExitStack) -> Iterator[Segment | InputError]:
    """The clips of ``names``, in their order; an InputError in the place of each that cannot be found.

    Those of a manifest of cuts or supervisions are CutSegments. Supervisions name recordings, which are looked for in
    the manifests of recordings among ``names``, or else in the one beside them that is named so; such a manifest of
    recordings adds no clips of its own.
    """
    opened = {str(name): _open(name) for name in names}
    supervised = [name for name, found in opened.items() if isinstance(found, SupervisionSet)]
    recordings = [name for name, found in opened.items() if isinstance(found, RecordingSet)]
    for name in map(str, names):
        found = opened[name]
        if isinstance(found, CutSet):
            yield from (_segment(cut, name) for cut in found)
        elif isinstance(found, SupervisionSet):
            yield from _of_supervisions(name, found, recordings)
        elif not (supervised and name in recordings):
            yield from find_segments([name], cleanup)


def _open(name: str | Path) -> Any:
    """The manifest at ``name``, read item by item; None for anything else, and for one that cannot be read."""
    path = as_on_disk(name)
    if not (path.name.endswith(MANIFESTS) and path.is_file()):
        return None
    try:
        return load_manifest_lazy(path.absolute())  # absolute: lhotse runs a name that begins with pipe:
    except Exception:  # gzip, json and lhotse each have their own; find_segments says what is wrong
        return None


def _segment(cut: Any, source: str) -> Segment | InputError:
    recording = getattr(cut, "recording", None)
    if not isinstance(cut, MonoCut) or recording is None or [s.type for s in recording.sources] != ["file"]:
        return InputError(f"{source}: {cut.id} is not an audio file or a part of one.")
    segment = CutSegment(cut.id, as_on_disk(recording.sources[0].source), cut.start, cut.start + cut.duration)
    segment.cut = cut
    return segment


def _of_supervisions(
    name: str, supervisions: SupervisionSet, recordings: Iterable[str]
) -> Iterator[Segment | InputError]:
    path = Path(name)
    beside = path.with_name(path.name.replace(SUPERVISIONS, RECORDINGS))
    chosen = list(recordings) or [str(beside)]
    known: dict[str, Recording] = {}
    for manifest in chosen:
        found = _open(manifest)
        if not isinstance(found, RecordingSet):
            yield InputError(
                f"{name}: holds supervisions, which name recordings, and {manifest} is no manifest of these; give the "
                "recordings too."
            )
            return
        known.update((recording.id, recording) for recording in found)
    for supervision in supervisions:
        recording = known.get(supervision.recording_id)
        if recording is None:
            yield InputError(
                f"{name}: {supervision.id} is a part of {supervision.recording_id}, which is not in "
                f"{', '.join(chosen)}; give its recording too."
            )
            continue
        own = fastcopy(supervision, start=0.0)
        cut = MonoCut(supervision.id, supervision.start, supervision.duration, 0, [own], recording=recording)
        yield _segment(cut, name)
