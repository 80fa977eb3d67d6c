#!/usr/bin/env python3
"""Seconds a step of training from files, over the same steps with their waveforms already on the device.

    python benchmarks/data_path.py [--data DIR --target NAME.PROTOCOL] [--noise DIR] [--device cuda] ...

Both augment with everything that conf/paper.yaml does, rooms simulated unless --rir is given, and take the same
mini-batches; only one of them reads, mixes down, resamples and pads. They alternate, round by round. The data are a
recipe's after stage 3; the default is what `make demo` leaves, with 10 min of white noise where no noise is given.
"""

import argparse
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
import torch
from lhotse import MonoCut, Recording

from speecheq.common.yaml_files import read_yaml
from speecheq.config.layers import apply_layer, parse_assignment, set_value
from speecheq.config.schema import Config
from speecheq.corpora import audio_folder
from speecheq.corpora.prepare import PrepareRequest
from speecheq.dataset.batch import MultitaskBatch
from speecheq.dataset.frontend import Frontend
from speecheq.dataset.loader import WORKERS, multitask_batches, training_cuts
from speecheq.features.audio import load_waveform
from speecheq.losses import LossWeights, resolve_ctc_backend
from speecheq.models.checkpoint import new_model
from speecheq.training.precision import Precision
from speecheq.training.step import StepSetup, train_step

ROOT = Path(__file__).resolve().parent.parent


def loading(seconds: float, clips: int) -> None:
    """Print what it takes to load a mini-batch of clips at 16 kHz and at 48 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        for rate in (16000, 48000):
            path = Path(folder) / f"{rate}.wav"
            soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate)), rate)
            cut = MonoCut("clip", 0.0, seconds, 0, recording=Recording.from_file(path))
            load_waveform(cut)
            started = time.perf_counter()
            for _ in range(clips):
                load_waveform(cut)
            took = time.perf_counter() - started
            print(f"loading {clips} clips of {seconds:g} s at {rate} Hz: {1000 * took:.0f} ms in one process")


def steps_of(frontend: Frontend, config: Config, device: torch.device) -> Callable[[MultitaskBatch], None]:
    """A function that trains a new model on a mini-batch of waveforms."""
    torch.manual_seed(1)
    model = new_model(config).to(device)
    optimizer = torch.optim.Adam(model.parameters(), config.optim.learning_rate)
    backend = resolve_ctc_backend(config.loss.ctc_backend, device)
    setup = StepSetup(config, backend, Precision(config.run.precision, device))

    def step(batch: MultitaskBatch) -> None:
        train_step(model, optimizer, frontend(batch), setup, LossWeights())

    return step


def seconds_a_step(step: Callable[[MultitaskBatch], None], batches: Iterator[MultitaskBatch], number: int) -> float:
    """Mean over ``number`` steps, after one that is not counted; a step ends when the device is done with it."""
    step(next(batches))
    started = time.perf_counter()
    for batch in islice(batches, number):
        step(batch)
    return (time.perf_counter() - started) / number


def on_device(batch: MultitaskBatch, device: torch.device) -> MultitaskBatch:
    return MultitaskBatch(
        **{name: replace(stream, inputs=stream.inputs.to(device)) for name, stream in batch.streams().items()}
    )


def noise_of(folder: Path) -> Path:
    """A prepared folder with 10 min of white noise."""
    (folder / "noise").mkdir()
    noise = 0.1 * np.random.default_rng(0).standard_normal(600 * 16000)
    soundfile.write(folder / "noise" / "white.wav", noise, 16000)
    audio_folder.prepare("noise", "noises", PrepareRequest(folder / "noise"), folder / "manifest")
    return folder / "manifest"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "egs" / "mandarin" / "data-mini")
    parser.add_argument("--target", default="casia.random10", help="a folder of DATA/msud; its fold 1 is taken")
    parser.add_argument("--phonemes", default="aishell", help="a folder of DATA/phonemes")
    parser.add_argument("--noise", type=Path, help="manifests of noises, such as DATA/manifests/noise")
    parser.add_argument("--rir", type=Path, help="manifests of room impulse responses")
    parser.add_argument("--config", type=Path, nargs="+", default=[ROOT / "egs" / "mandarin" / "conf" / "small.yaml"])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the training; each worker has one of its own")
    parser.add_argument("--steps", type=int, default=20, help="a round")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device, config = torch.device(given.device), Config()
    for path in given.config:
        apply_layer(config, read_yaml(path), str(path))
    for assignment in given.set:
        set_value(config, *parse_assignment(assignment), "--set")
    config.data.input = "waveform"
    fold, phonemes = given.data / "msud" / given.target / "fold1", given.data / "phonemes" / given.phonemes
    cut_sets = {name: training_cuts(fold / f"{name}.jsonl.gz") for name in ("emotion", "gender")}
    cut_sets["phoneme"] = training_cuts(phonemes / "train.jsonl.gz")
    on_gpu = device.type == "cuda"

    def batches() -> Iterator[MultitaskBatch]:
        return multitask_batches(cut_sets, config.data, 1, device=device.type)

    with tempfile.TemporaryDirectory() as folder:
        frontend = Frontend(config, device, given.noise or noise_of(Path(folder)), given.rir)
    step = steps_of(frontend, config, device)
    held: list[MultitaskBatch] = [on_device(batch, device) for batch in islice(batches(), given.steps + 1)]
    name = torch.cuda.get_device_name() if on_gpu else platform.machine()
    print(
        f"torch {torch.__version__}, {name}, {given.threads} CPU thread(s), "
        f"{WORKERS[device.type] if config.data.workers is None else config.data.workers} worker(s) a stream"
    )
    files, memory = [], []
    for _ in range(given.rounds):
        memory.append(seconds_a_step(step, iter(held), given.steps))
        files.append(seconds_a_step(step, batches(), given.steps))
        print(f"from files {files[-1]:.3f} s a step, waveforms on the device {memory[-1]:.3f} s", flush=True)
    ratio = statistics.median(files) / statistics.median(memory)
    print(f"medians: {statistics.median(files):.3f} s, {statistics.median(memory):.3f} s, ratio {ratio:.3f}")
    peak, worker = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        f"peak memory: {peak:.0f} MB in the training, {worker:.0f} MB in the largest worker (what they share "
        "counts in both)"
    )
    if on_gpu:
        print(f"peak memory of the GPU: {torch.cuda.max_memory_allocated() / 2**20:.0f} MB")
    loading(3.0, config.data.batch_size)


if __name__ == "__main__":
    main()
