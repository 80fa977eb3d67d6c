"""The clips that lhotse's manifests list, with their supervisions: cuts, recordings, or supervisions beside recordings.

Everything else that ``speecheq predict`` takes is found as there.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from lhotse import MonoCut, Recording, SupervisionSegment, fastcopy

from speecheq.common.errors import InputError
from speecheq.corpora.layout import as_on_disk
from speecheq.inference.recordings import (
    MANIFESTS,
    Segment,
    find_segments,
    manifest_items,
    segment_of_item,
    without_leftovers,
)

SUPERVISIONS, RECORDINGS = "supervisions", "recordings"


def find_clips(names: Sequence[str | Path], cleanup: ExitStack) -> Iterator[Segment | InputError]:
    """The clips of ``names``, in their order; an InputError in the place of each that cannot be found.

    Those of a manifest of cuts or supervisions are CutSegments. Supervisions name recordings, which are looked for in
    the manifests of recordings among ``names``, or else in the one beside them that is named so; such a manifest of
    recordings adds no clips of its own.
    """
    paths = {str(name): as_on_disk(name) for name in names}
    kinds = {name: _kind(path) for name, path in paths.items()}
    recordings = [path for name, path in paths.items() if kinds[name] is Recording]
    for name in map(str, names):
        if kinds[name] is SupervisionSegment:
            try:
                yield from without_leftovers(paths[name], _of_supervisions(paths[name], recordings))
            except InputError as error:
                yield error
        elif kinds[name] is not Recording or SupervisionSegment not in kinds.values():
            yield from find_segments([name], cleanup)


def _kind(path: Path) -> type | None:
    """Of what a manifest is; None for anything else, and for one that cannot be read."""
    if not (path.name.endswith(MANIFESTS) and path.is_file()):
        return None
    try:
        return type(next(manifest_items(path)))
    except InputError:  # find_segments says what is wrong
        return None


def _of_supervisions(path: Path, recordings: Sequence[Path]) -> Iterator[Segment | InputError]:
    """The clips of a manifest of supervisions; raises InputError where that of their recordings cannot be read."""
    chosen = recordings or [path.with_name(path.name.replace(SUPERVISIONS, RECORDINGS))]
    known: dict[str, Recording] = {}
    for manifest in chosen:
        if _kind(manifest) is not Recording:
            raise InputError(
                f"{path}: holds supervisions, which name recordings, and {manifest} is no manifest of these; give the "
                "recordings too."
            )
        known.update((recording.id, recording) for recording in manifest_items(manifest))
    for supervision in manifest_items(path):
        recording = known.get(supervision.recording_id)
        if recording is None:
            yield InputError(
                f"{path}: {supervision.id} is a part of {supervision.recording_id}, which is not in "
                f"{', '.join(map(str, chosen))}; give its recording too."
            )
            continue
        own = fastcopy(supervision, start=0.0)
        cut = MonoCut(supervision.id, supervision.start, supervision.duration, 0, [own], recording=recording)
        yield segment_of_item(cut, path)
