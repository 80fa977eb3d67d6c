"""Unlabelled speech to learn from (MTL-AUG), none of which may be in the dev or test part."""

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

    InputError where one is the file of a cut ``held_out``, also behind a link or as a copy of it, or is gone.
    """
    cuts = open_cuts(recordings_manifest(folder))
    of_held_out = {os.path.realpath(cut.recording.sources[0].source): cut.id for cut in held_out}
    of_size = defaultdict(list)
    for path in filter(os.path.isfile, of_held_out):
        of_size[os.path.getsize(path)].append(path)
    if sum(map(len, of_size.values())) < len(of_held_out):
        log.warning(
            "%d audio files of the dev and test part are gone, so no copies of them are found in %s",
            len(of_held_out) - sum(map(len, of_size.values())),
            folder,
        )
    for cut in cuts:
        path = cut.recording.sources[0].source
        if not os.path.isfile(path):
            raise InputError(f"{path}: is not there any more; put it back or run stage 1 again.")
        file = os.path.realpath(path)
        same = (
            [file]
            if file in of_held_out
            else [other for other in of_size.get(os.path.getsize(file), ()) if filecmp.cmp(file, other, shallow=False)]
        )
        if same:
            raise InputError(
                f"{path}: is among the unlabelled speech, but also (the same file, a link or a copy) "
                f"{of_held_out[same[0]]} of the dev or test part; give a folder of other recordings."
            )
    return cuts
