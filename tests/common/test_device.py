"""The device: by name, and where torch lacks it one sentence; float64 stays off devices that have none."""

import pytest
import torch

from speecheq.common.device import DEVICES, pick_device
from speecheq.common.errors import InputError
from speecheq.common.process_pool import usable_cores
from speecheq.training.precision import Precision


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("has_mps", [True, False])
def test_mps_is_taken_where_torch_has_it(has_mps, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_mps)
    assert "mps" in DEVICES
    if has_mps:
        assert pick_device("mps") == torch.device("mps")
        return
    with pytest.raises(InputError, match="set to 'mps', the GPU of Macs with Apple's processors, but torch finds none"):
        pick_device("mps")


def test_on_mps_models_are_trained_in_fp32():
    for choice in ("bf16", "fp16"):
        with pytest.raises(InputError, match=f"run.precision is {choice}"):
            Precision(choice, torch.device("mps"))


def test_cores_are_counted_on_every_system(monkeypatch):
    assert usable_cores() >= 1
    monkeypatch.delattr("os.sched_getaffinity")  # as on macOS
    assert usable_cores() >= 1
