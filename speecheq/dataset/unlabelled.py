"""Unlabelled speech for training (MTL-AUG), which must not contain dev or test clips."""

import filecmp
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from lhotse import CutSet
from lhotse.cut import Cut

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.corpora.audio_folder import recordings_manifest
from speecheq.dataset.lazy_cuts import open_cuts


def unlabelled_cuts(folder: Path, held_out: Iterable[Cut]) -> CutSet:
    """A cut of each recording that prepare_unlabelled.py found.

    Raises InputError if a recording is gone, or is the audio file of a cut in ``held_out``, a link to it or a copy of
    it.
    """
    cuts = open_cuts(recordings_manifest(folder))
    names = {os.path.realpath(cut.recording.sources[0].source): cut.id for cut in held_out}
    by_size = defaultdict(list)
    for path in filter(os.path.isfile, names):
        by_size[os.path.getsize(path)].append(path)
    missing = len(names) - sum(map(len, by_size.values()))
    if missing:
        log.warning(
            "%d audio files of the dev and test part are gone, so copies of them in %s are not found", missing, folder
        )
    for cut in cuts:
        path = cut.recording.sources[0].source
        if not os.path.isfile(path):
            raise InputError(f"{path}: does not exist any more; restore it or run stage 1 again.")
        file = os.path.realpath(path)
        same_size = [file] if file in names else by_size.get(os.path.getsize(file), [])
        same = next((other for other in same_size if other == file or filecmp.cmp(file, other, shallow=False)), None)
        if same is not None:
            raise InputError(
                f"{path}: is unlabelled speech, but also (the same file, a link or a copy) {names[same]} of "
                "the dev or test part; give a folder of other recordings."
            )
    return cuts
