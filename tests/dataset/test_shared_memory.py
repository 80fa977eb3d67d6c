"""Loading processes where /dev/shm is small, as in containers: by a statvfs that is made up, and on a real mount."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from training_runs import make_toy_data

from speecheq.common.errors import InputError
from speecheq.config.schema import DataConfig
from speecheq.dataset import shared_memory
from speecheq.dataset.loader import multitask_batches, training_cuts
from speecheq.dataset.shared_memory import has_room, needed_bytes

ROOT = Path(__file__).resolve().parents[2]
SMALL = "mount -t tmpfs -o size=1m tmpfs /dev/shm"


@pytest.fixture(scope="module")
def cuts(toys, tmp_path_factory):
    folder = make_toy_data(toys, tmp_path_factory.mktemp("toy"), "casia", "speaker")
    return folder / "msud/casia.speaker/fold1/emotion.jsonl.gz"


@pytest.fixture
def free(monkeypatch):
    """``free(bytes)`` makes /dev/shm have so many bytes left."""

    def set_free(number):
        found = SimpleNamespace(f_bavail=number // 4096, f_frsize=4096)
        monkeypatch.setattr(shared_memory, "os", SimpleNamespace(statvfs=lambda path: found))

    return set_free


def test_what_is_needed_grows_with_clips_seconds_and_processes():
    config = DataConfig(batch_size=10, max_seconds=2.0, phoneme_batch_seconds=50.0)
    assert needed_bytes(["emotion"], config, 1) == 1.5 * 10 * 2.0 * 8000 * 4 * 3
    assert needed_bytes(["emotion", "phoneme"], config, 4) == 1.5 * 70 * 8000 * 4 * 9
    waveforms = DataConfig(batch_size=10, max_seconds=2.0, input="waveform")
    assert needed_bytes(["emotion"], waveforms, 1) == 1.5 * 20 * 16000 * 4 * 3


def test_room_is_looked_for_before_processes_start(free, caplog):
    streams, config = ("emotion", "gender", "phoneme"), DataConfig()
    needed = needed_bytes(streams, config, 1)
    free(needed + 4096)
    assert has_room(streams, config, 1) and not caplog.text
    free(needed - 4096)
    assert not has_room(streams, config, 1)
    (record,) = caplog.records
    said = record.getMessage()
    assert record.levelname == "WARNING" and "--shm-size=128m" in said and "data.workers=0" in said
    free(4096)
    with pytest.raises(InputError, match=r"^/dev/shm: has 0.0 MB free, .*--shm-size=128m, or set data.workers=0\.$"):
        has_room(streams, config, 1)
    assert has_room(streams, config, 0), "nothing is shared without processes"


def test_a_system_without_dev_shm_is_no_fault(monkeypatch):
    monkeypatch.setattr(shared_memory, "SHARED_MEMORY", "/no/such/place")
    assert has_room(("emotion",), DataConfig(), 4)


def test_mini_batches_are_the_same_through_pipes(cuts, free):
    def first(workers):
        batches = multitask_batches({"emotion": training_cuts(cuts)}, DataConfig(batch_size=8, workers=workers), 1)
        return [next(batches).emotion for _ in range(4)]

    here = first(0)
    free(1_000_000)
    for one, other in zip(here, first(2)):
        assert torch.equal(one.inputs, other.inputs) and one.ids == other.ids and one.position == other.position
        assert torch.equal(one.targets["esc"], other.targets["esc"]) and one.last == other.last


def test_training_works_with_a_megabyte_of_shared_memory(cuts):
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-m", "bash", "-c", SMALL], capture_output=True).returncode
    ):
        pytest.skip("may not mount a small /dev/shm of its own")
    program = f"""if True:
        from speecheq.config.schema import DataConfig
        from speecheq.dataset.loader import multitask_batches, training_cuts
        sets = {{name: training_cuts({str(cuts)!r}) for name in ("emotion", "gender")}}
        batches = multitask_batches(sets, DataConfig(batch_size=32, max_seconds=60.0, workers=2), 1)
        print(sum(len(next(batches).emotion.ids) for _ in range(6)))
        del batches  # its processes end
    """
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", f'{SMALL}; exec "$@"', "bash", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert "Bus error" not in done.stderr and int(done.stdout) > 100
