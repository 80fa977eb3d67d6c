"""Whether /dev/shm has room for the mini-batches that loading processes hand over.

Processes of torch hand tensors over in shared memory, which lies in /dev/shm. Containers often have 64 MB there, and a
process that writes past its end is killed by the system. torch's sharing strategy file_system uses the same place.
"""

import math
import os
from collections.abc import Collection

from speecheq.cluster import distributed
from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.config.schema import DataConfig
from speecheq.features.fbank import FbankConfig
from speecheq.features.waveform_batch import SAMPLING_RATE

SHARED_MEMORY = "/dev/shm"
# Mini-batches of a stream that are there at once: two that each process has made or makes, and the one in use.
AHEAD, IN_USE = 2, 1
# Mini-batches are padded, and other programs need room too.
SLACK = 1.5
BYTES = 4  # of a float32
STEP = 64  # MB, to which a size is rounded up
# Bytes that the semaphores of a loading process take, however it hands its mini-batches over.
SEMAPHORES = 100_000


def free_bytes() -> int | None:
    """Free bytes in /dev/shm; None if unknown."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def needed_bytes(streams: Collection[str], config: DataConfig, loaders: int, values: int | None = None) -> int:
    """Bytes that ``loaders`` processes of each stream may need at most, all processes of a training together.

    ``values`` is the number of values of a second; None: that of ``config.input`` with filter banks.
    """
    fbank = FbankConfig()
    if values is None:
        values = SAMPLING_RATE if config.input == "waveform" else round(fbank.num_filters / fbank.frame_shift)
    cropped = config.batch_size * config.max_seconds
    seconds = sum(config.phoneme_batch_seconds if name == "phoneme" else cropped for name in streams)
    return math.ceil(SLACK * seconds * values * BYTES * (AHEAD * loaders + IN_USE))


def has_room(streams: Collection[str], config: DataConfig, loaders: int, values: int | None = None) -> bool:
    """Whether ``loaders`` processes of each stream may share memory; if not, logs what is short and what to do.

    Raises InputError if there is not even room for their semaphores.
    """
    free, needed = free_bytes(), needed_bytes(streams, config, loaders, values)
    if not loaders or free is None or free >= needed:
        return True
    size = STEP * math.ceil(needed / 1e6 / STEP)
    lack = f"{SHARED_MEMORY}: has {free / 1e6:.1f} MB free, but loading processes may need {needed / 1e6:.0f} MB"
    remedy = f"start the container with --shm-size={size}m, or set data.workers=0"
    if free < SEMAPHORES * loaders * len(streams):
        raise InputError(f"{lack}; {remedy}.")
    if distributed.is_first():
        log.warning("%s: mini-batches go through pipes, which takes longer; to avoid that, %s", lack, remedy)
    return False
