"""Folders of sounds without labels, noises, room impulse responses, unlabelled speech: their manifests (stage 1).

``main`` writes, for every audio file below a folder,

    OUT_DIR/<name>_recordings_all.jsonl.gz
    OUT_DIR/<name>_card.json

A recording keeps its file's sampling rate and channels; its id is ``<name>-<path below the folder>``.
"""

import os
import random
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path

import numpy as np
import soundfile
from lhotse import Recording, RecordingSet

from speecheq.common.command_line import OneLineParser, exit_status, positive, positive_whole, true_or_false
from speecheq.common.digests import iter_tree
from speecheq.common.errors import InputError
from speecheq.common.files import read_json, write_json
from speecheq.common.log import log, set_up_logging
from speecheq.common.progress import progress
from speecheq.common.stages import Drops, Stage, require
from speecheq.corpora.prepare import read_recording

# Endings of the formats that libsndfile reads, and of audio that it does not; the other files of a folder (licences,
# lists) are left aside.
SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".sph", ".w64", ".rf64")
OTHER_SUFFIXES = (".m4a", ".aac", ".wma", ".amr", ".ape", ".wv")
# What below a folder is not even tried to be decoded, and what to do.
FORMAT_UNKNOWN, DEAD_LINK = "in a format that cannot be read", "a dead link or without access"
LOCKED = "a folder that cannot be listed"
REMEDIES = {
    FORMAT_UNKNOWN: "convert it to WAV or FLAC, or remove it",
    LOCKED: "make it readable, or remove it",
    DEAD_LINK: "put back what it leads to, or remove it",
}
# Of shorter speech, in seconds, there is nothing to be learned.
LEAST_SPEECH = 0.5
# Samples decoded at once, so that an hour of noise needs no more memory than a second.
BLOCK = 1 << 16
# Raised when what this module writes changes its meaning.
FORMAT = 1


class HarmfulSound(InputError):
    """A file that is whole but would spoil speech: silence, or values that are not finite."""


def find_sounds(folder: Path, what: str) -> list[str]:
    """The audio files below ``folder``, relative to it and sorted, without hidden ones; ``what`` names them.

    Among them are dead links and folders that cannot be listed, so that these are counted with what cannot be read.
    InputError where the folder is missing or holds no audio.
    """
    folder = Path(folder)
    if not folder.exists():
        raise InputError(f"{folder}: there is no such folder; give one that holds {what}.")
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file, not a folder; give one that holds {what}.")
    left_out: list[str] = []
    files = _without_hidden(iter_tree(folder, left_out))
    sounds = [name for name in files if name.lower().endswith(SUFFIXES + OTHER_SUFFIXES)]
    if len(sounds) < len(files):
        log.info("%s: %d files are not audio by their names and are left aside", folder, len(files) - len(sounds))
    sounds = sorted(sounds + _without_hidden(left_out))
    if not sounds:
        raise InputError(f"{folder}: holds no audio file ({' '.join(SUFFIXES)}); give a folder that holds {what}.")
    return sounds


def _without_hidden(names: Iterable[str]) -> list[str]:
    return [name for name in names if not any(p.startswith(".") for p in Path(name).parts)]


def _untried(path: Path) -> str | None:
    """Why a file need not be decoded; None: it is to be."""
    # os.path says no, where pathlib raises, if a folder above gives no access
    if os.path.isdir(path):
        return LOCKED
    if not os.path.exists(path):
        return DEAD_LINK
    return FORMAT_UNKNOWN if path.name.lower().endswith(OTHER_SUFFIXES) else None


def read_sound(sound_id: str, path: Path) -> Recording:
    """The lhotse recording of an audio file, decoded once from end to end.

    InputError where it is missing, empty, not audio, truncated, or shorter than one 25 ms frame; its subclass
    HarmfulSound where all samples are 0 or some are not finite.
    """
    recording = read_recording(sound_id, path)
    frames, silent = 0, True
    try:
        for block in soundfile.blocks(str(path), blocksize=BLOCK, dtype="float32"):
            if not np.isfinite(block).all():
                raise HarmfulSound(f"{path}: holds samples that are not finite numbers; remove the file.")
            frames += len(block)
            silent = silent and not block.any()
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise InputError(f"{path}: is not audio that can be read to its end ({error}); copy it again.") from error
    if frames != recording.num_samples:
        raise InputError(f"{path}: is truncated, {frames} of {recording.num_samples} samples are there; copy it again.")
    if silent:
        raise HarmfulSound(f"{path}: is silent, all its samples are 0; remove the file.")
    return recording


def prepare(
    name: str,
    what: str,
    folder: Path,
    out_dir: Path,
    partial: bool = False,
    nj: int = 1,
    speech: bool = False,
    hours: float | None = None,
) -> None:
    """Write the manifest and the card of the sounds below ``folder`` into ``out_dir``, unless they are up to date.

    Files that cannot be read are left out and counted if ``partial``; else the first is an InputError, which
    leaves ``out_dir`` as it was. A silent file is an InputError in any case. Of ``speech``, of which there may be
    thousands of hours, all of these are left out and counted, and so is what is shorter than LEAST_SPEECH; ``hours``
    takes a seeded subset.
    """
    sounds = find_sounds(folder, what)
    folder, out_dir = Path(folder).resolve(), Path(out_dir)
    if out_dir.resolve() == folder or folder in out_dir.resolve().parents:
        raise InputError(f"{out_dir}: lies inside the folder of the {what}; name another folder for the manifest.")
    options = {"corpus_dir": str(folder), "partial": partial, **({"speech": True, "hours": hours} if speech else {})}
    stage = Stage("manifests", name, out_dir, options, [folder], FORMAT)
    if not stage.needs_run() or stage.added_to_plan():
        return
    with stage.locked() as is_missing:
        if is_missing:
            _write(name, sounds, folder, stage, partial, nj, speech, hours)


def _write(
    name: str,
    sounds: Sequence[str],
    folder: Path,
    stage: Stage,
    partial: bool,
    nj: int,
    speech: bool,
    hours: float | None,
) -> None:
    """The manifest and the card of ``sounds``, files below ``folder``."""
    drops = Drops()

    def read(sound: str) -> Recording | str:
        """The recording, or why there is none."""
        untried = _untried(folder / sound)
        if untried is not None:
            if not partial and not speech:
                raise InputError(f"{folder / sound}: is {untried}; {REMEDIES[untried]}.")
            return untried
        try:
            recording = read_sound(f"{name}-{sound}", folder / sound)
        except HarmfulSound:
            if not speech:
                raise
            return "silent, or samples that are not finite"
        except InputError:
            if not partial and not speech:
                raise
            return "unreadable or too short"
        return recording if not speech or recording.duration >= LEAST_SPEECH else f"shorter than {LEAST_SPEECH:g} s"

    with ThreadPoolExecutor(max(1, nj)) as pool:
        try:
            found = list(progress(pool.map(read, sounds), f"{name}: reading sounds", len(sounds), "files"))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for sound, reason in zip(sounds, found):
        if isinstance(reason, str):
            drops.add(reason, sound)
    recordings = [recording for recording in found if not isinstance(recording, str)]
    if hours is not None:
        recordings = _some(recordings, hours, drops)
    if not recordings:
        why = ", ".join(f"{count} {reason}" for reason, count in drops.counts().items())
        raise InputError(
            f"{folder}: none of its {len(sounds)} audio files can be used ({why}); copy the folder again, "
            "as WAV or FLAC."
        )
    with stage.replace_folder() as written:
        RecordingSet.from_recordings(recordings).to_file(written / f"{name}_recordings_all.jsonl.gz")
        write_json(written / f"{name}_card.json", card(name, recordings))
        stage.finish(written, len(sounds), len(recordings), drops, unit="files")


def _some(recordings: Sequence[Recording], hours: float, drops: Drops) -> list[Recording]:
    """Recordings in their order, of a random choice that fills at least ``hours`` hours; all where they are fewer."""
    shuffled = list(recordings)
    random.Random("hours").shuffle(shuffled)
    ends = accumulate(recording.duration for recording in shuffled)
    kept = {recording.id for recording, end in zip(shuffled, ends) if end - recording.duration < 3600 * hours}
    for recording in recordings:
        if recording.id not in kept:
            drops.add(f"outside the {hours:g} hours asked for", recording.id)
    return [recording for recording in recordings if recording.id in kept]


def card(name: str, recordings: Sequence[Recording]) -> dict:
    """What later stages and readers know of the folder: hours, and files by sampling rate and by channels."""
    return {
        "name": name,
        "files": len(recordings),
        "hours": round(sum(recording.duration for recording in recordings) / 3600, 4),
        "sampling_rate": {str(rate): n for rate, n in Counter(r.sampling_rate for r in recordings).items()},
        "channels": {str(channels): n for channels, n in Counter(r.num_channels for r in recordings).items()},
    }


def recordings_manifest(folder: Path) -> Path:
    """The manifest that ``prepare`` wrote to ``folder``; InputError where it has not run."""
    require(folder, "manifests")
    return next(iter(sorted(Path(folder).glob("*_recordings_all.jsonl.gz"))))


def files_and_hours(folder: Path) -> dict[str, float]:
    """How many files and hours of audio a folder of manifests names, by the keys ``files`` and ``hours``."""
    made = read_json(next(iter(sorted(Path(folder).glob("*_card.json")))))
    return {name: made[name] for name in ("files", "hours")}


def main(name: str, what: str, argv: Sequence[str] | None = None, speech: bool = False) -> int:
    """The command line of a prep script of sounds: CORPUS_DIR OUT_DIR and options. Returns the exit status."""
    set_up_logging()
    parser = OneLineParser(prog=f"prepare_{name}.py", description=f"Write the lhotse manifest of a folder of {what}.")
    parser.add_argument("corpus_dir", type=Path, metavar="CORPUS_DIR")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR")
    parser.add_argument("--partial", type=true_or_false, default=False, help="true: leave out what cannot be read")
    parser.add_argument("--nj", type=positive_whole, default=1, help="threads that read the files")
    if speech:
        parser.add_argument("--hours", type=positive, help="take a random subset of so many hours")
    parser.add_argument("--check-only", action="store_true", help="only check that the folder holds audio")

    def action() -> None:
        given = parser.parse_args(argv)
        if given.check_only:
            found = find_sounds(given.corpus_dir, what)
            log.info("%s: %s holds %d audio files", name, given.corpus_dir, len(found))
            return
        prepare(
            name,
            what,
            given.corpus_dir,
            given.out_dir,
            given.partial,
            given.nj,
            speech,
            given.hours if speech else None,
        )

    return exit_status(action)


def run(name: str, what: str, speech: bool = False) -> None:
    """What a prep script of sounds calls when it is run as a program; ``speech``: see ``prepare``."""
    sys.exit(main(name, what, speech=speech))
