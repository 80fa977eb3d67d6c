"""Stage 1 for folders of unlabelled audio: noises, room impulse responses, unlabelled speech.

    OUT_DIR/<name>_recordings_all.jsonl.gz
    OUT_DIR/<name>_card.json

A recording keeps the sampling rate and the channels of its file; its id is ``<name>-<path below the folder>``.
"""

import os
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from lhotse import Recording, RecordingSet

from speecheq.common.digests import iter_tree
from speecheq.common.errors import InputError
from speecheq.common.files import read_json, write_json
from speecheq.common.log import log
from speecheq.common.progress import progress
from speecheq.common.stages import Drops, Stage, require
from speecheq.corpora.audio_formats import AUDIO, OTHER_AUDIO
from speecheq.corpora.audio_headers import read_recording
from speecheq.corpora.decoding import can_decode, open_audio
from speecheq.corpora.layout import as_on_disk, is_hidden, report_hidden
from speecheq.corpora.prepare import PrepareRequest

# Why a file is not decoded at all, and what to do about it.
FORMAT_UNKNOWN = "in a format that cannot be read"
DEAD_LINK = "a dead link or without access"
LOCKED = "a folder that cannot be listed"
REMEDIES = {
    FORMAT_UNKNOWN: "install the extra av (pip install av), convert it to WAV or FLAC, or remove it",
    LOCKED: "make it readable, or remove it",
    DEAD_LINK: "put back what it leads to, or remove it",
}
# Speech shorter than so many seconds is left out.
LEAST_SPEECH = 0.5
# Number of samples that are decoded at a time, which bounds the memory that a long file needs.
BLOCK = 1 << 16
FORMAT = 1


class HarmfulAudioError(InputError):
    """A file that is whole but would spoil speech: it is silent, or some samples are not finite."""


def find_audio_files(folder: Path, content: str) -> list[str]:
    """The audio files below ``folder``, by their names, as sorted relative paths, without hidden ones.

    Dead links and folders that cannot be listed are among them, so that they are counted with what cannot be read.
    Raises InputError, in which ``content`` names the files, where the folder is missing or holds no audio.
    """
    folder = as_on_disk(folder)
    if not folder.exists():
        raise InputError(f"{folder}: there is no such folder; give one that holds {content}.")
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file, not a folder; give one that holds {content}.")
    left_out: list[str] = []
    everything = list(iter_tree(folder, left_out))
    report_hidden(str(folder), filter(is_hidden, everything))
    files = _without_hidden(everything)
    audio_files = [name for name in files if name.lower().endswith(AUDIO + OTHER_AUDIO)]
    if len(audio_files) < len(files):
        log.info("%s: %d files are not audio by their names and are ignored", folder, len(files) - len(audio_files))
    audio_files = sorted(audio_files + _without_hidden(left_out))
    if not audio_files:
        raise InputError(f"{folder}: holds no audio file ({' '.join(AUDIO)}); give a folder that holds {content}.")
    return audio_files


def _without_hidden(names: Iterable[str]) -> list[str]:
    return [name for name in names if not is_hidden(name)]


def _undecodable(path: Path) -> str | None:
    """Why a file cannot even be tried to decode, or None."""
    # os.path answers False, where pathlib raises, if a folder above gives no access
    if os.path.isdir(path):
        return LOCKED
    if not os.path.exists(path):
        return DEAD_LINK
    return FORMAT_UNKNOWN if path.name.lower().endswith(OTHER_AUDIO) and not can_decode() else None


def decode_recording(recording_id: str, path: Path) -> Recording:
    """The lhotse recording of an audio file, which is decoded from end to end.

    Raises InputError if it is missing, empty, not audio, truncated, or shorter than one 25 ms frame, and its subclass
    HarmfulAudioError if all samples are 0 or some are not finite.
    """
    recording = read_recording(recording_id, path)
    frames, silent = 0, True
    try:
        with open_audio(path) as audio:
            for block in audio.blocks(blocksize=BLOCK, dtype="float32"):
                if not np.isfinite(block).all():
                    raise HarmfulAudioError(f"{path}: holds samples that are not finite numbers; remove the file.")
                frames += len(block)
                silent = silent and not block.any()
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise InputError(f"{path}: is not audio that can be read to its end ({error}); copy it again.") from error
    if frames != recording.num_samples:
        raise InputError(f"{path}: is truncated, {frames} of {recording.num_samples} samples are there; copy it again.")
    if silent:
        raise HarmfulAudioError(f"{path}: is silent, all its samples are 0; remove the file.")
    return recording


def prepare(name: str, content: str, request: PrepareRequest, out_dir: Path, speech: bool = False) -> None:
    """Write the manifest and the card of an audio folder into ``out_dir``, unless they are up to date.

    A file that cannot be read is an InputError, which leaves ``out_dir`` as it was, or is left out and counted if
    ``request.partial``. A silent file is always an InputError. Of ``speech``, of which there may be thousands of hours,
    unreadable, silent and very short files are left out and counted; ``request.hours`` takes a random subset of it.
    ``content`` is what the files are (noises), for messages.
    """
    request = replace(request, corpus_dir=as_on_disk(request.corpus_dir))
    files = find_audio_files(request.corpus_dir, content)
    folder, out_dir = Path(request.corpus_dir).resolve(), Path(out_dir)
    if out_dir.resolve() == folder or folder in out_dir.resolve().parents:
        raise InputError(f"{out_dir}: lies inside the folder of the {content}; name another folder for the manifest.")
    options: dict[str, Any] = {"corpus_dir": str(folder), "partial": request.partial}
    if speech:
        options.update(speech=True, hours=request.hours)
    stage = Stage("manifests", name, out_dir, options, [folder], FORMAT)
    if not stage.needs_run() or stage.added_to_plan():
        return
    with stage.locked() as is_missing:
        if is_missing:
            _write(name, files, request, stage, speech)


def _read(recording_id: str, path: Path, partial: bool, speech: bool) -> Recording | str:
    """The recording of a file, or why it is left out; raises InputError if it must not be."""
    undecodable = _undecodable(path)
    if undecodable is not None:
        if not partial and not speech:
            raise InputError(f"{path}: is {undecodable}; {REMEDIES[undecodable]}.")
        return undecodable
    try:
        recording = decode_recording(recording_id, path)
    except HarmfulAudioError:
        if not speech:
            raise
        return "silent, or samples that are not finite"
    except InputError:
        if not partial and not speech:
            raise
        return "unreadable or too short"
    if speech and recording.duration < LEAST_SPEECH:
        return f"shorter than {LEAST_SPEECH:g} s"
    return recording


def _write(name: str, files: Sequence[str], request: PrepareRequest, stage: Stage, speech: bool) -> None:
    """The manifest and the card of ``files``, which are named relative to the folder."""
    folder, drops = Path(request.corpus_dir).resolve(), Drops()

    def read(file: str) -> Recording | str:
        return _read(f"{name}-{file}", folder / file, request.partial, speech)

    with ThreadPoolExecutor(max(1, request.nj)) as pool:
        try:
            found = list(progress(pool.map(read, files), f"{name}: reading audio", len(files), "files"))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for file, reason in zip(files, found):
        if isinstance(reason, str):
            drops.add(reason, file)
    recordings = [recording for recording in found if not isinstance(recording, str)]
    if speech and request.hours is not None:
        recordings = _take_hours(recordings, request.hours, drops)
    if not recordings:
        reasons = ", ".join(f"{count} {reason}" for reason, count in drops.counts().items())
        raise InputError(
            f"{folder}: none of its {len(files)} audio files can be used ({reasons}); copy the folder again, "
            "as WAV or FLAC."
        )
    with stage.replace_folder() as written:
        RecordingSet.from_recordings(recordings).to_file(written / f"{name}_recordings_all.jsonl.gz")
        write_json(written / f"{name}_card.json", _card(name, recordings))
        stage.finish(written, len(files), len(recordings), drops, unit="files")


def recordings_manifest(folder: Path) -> Path:
    """The manifest that ``prepare`` wrote to ``folder``; raises InputError if it has not run."""
    require(folder, "manifests")
    return next(iter(sorted(Path(folder).glob("*_recordings_all.jsonl.gz"))))


def files_and_hours(folder: Path) -> dict[str, float]:
    """How many files and hours of audio a folder of manifests names, by the keys ``files`` and ``hours``."""
    made = read_json(next(iter(sorted(Path(folder).glob("*_card.json")))))
    return {name: made[name] for name in ("files", "hours")}


def _take_hours(recordings: Sequence[Recording], hours: float, drops: Drops) -> list[Recording]:
    """A random subset of at least ``hours`` hours, in the order of ``recordings``; all where they are fewer."""
    shuffled = list(recordings)
    random.Random("hours").shuffle(shuffled)
    ends = accumulate(recording.duration for recording in shuffled)
    kept = {recording.id for recording, end in zip(shuffled, ends) if end - recording.duration < 3600 * hours}
    for recording in recordings:
        if recording.id not in kept:
            drops.add(f"outside the {hours:g} hours asked for", recording.id)
    return [recording for recording in recordings if recording.id in kept]


def _card(name: str, recordings: Sequence[Recording]) -> dict[str, Any]:
    """What later stages and readers know of the folder: hours, and files by sampling rate and by channels."""
    return {
        "name": name,
        "files": len(recordings),
        "hours": round(sum(recording.duration for recording in recordings) / 3600, 4),
        "sampling_rate": dict(Counter(str(recording.sampling_rate) for recording in recordings)),
        "channels": dict(Counter(str(recording.num_channels) for recording in recordings)),
    }
