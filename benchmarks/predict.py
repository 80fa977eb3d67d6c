#!/usr/bin/env python3
"""Speed of prediction on one CPU core: clips of 3 s, from wav files on disk to answers, at C = 256.

    python benchmarks/predict.py [--channels 256] [--seconds 3] [--clips 32] [--batches 1 8 32] [--rounds 5]
    python benchmarks/predict.py --speech speech.wav
    python benchmarks/predict.py --encoder /models/whisper-base [--layers 1 2 3]

The second line cuts the clips from a recording of speech. It measures the package's own model too, which answers at
once where it finds no speech. The third line measures model.kind light on the states of a pretrained Whisper encoder.
The weights of all other models are untrained: speed does not depend on them. SpeechBrain's ECAPA-TDNN of the same
width, with its own features, is measured beside ours where it is installed (pip install speechbrain==1.0.3; it needs
the k2 stack).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile
import torch

from speecheq import seqm
from speecheq.config.schema import Config, EncoderConfig
from speecheq.features.encoder_states import open_encoder
from speecheq.inference.export import export_model
from speecheq.inference.predictor import Predictor
from speecheq.inference.recordings import Segment
from speecheq.inference.trained_model import DEFAULT_MODEL
from speecheq.models import checkpoint

RATE = 16000
PEER = "SpeechBrain's ECAPA-TDNN"
Run = Callable[[list[Path]], None]


def write_clips(folder: Path, clips: int, seconds: float, speech: str | None) -> list[Path]:
    """Clips of noise, or cut from the recording ``speech``, over and over."""
    samples = round(clips * seconds * RATE)
    if speech:
        audio, rate = soundfile.read(speech)
        if rate != RATE or audio.ndim != 1:
            sys.exit(f"error: {speech} has a rate of {rate} Hz or several channels; give one channel of {RATE} Hz.")
        audio = np.resize(audio, samples)
    else:
        audio = 0.1 * np.random.default_rng(0).standard_normal(samples)
    paths = [folder / f"{number}.wav" for number in range(clips)]
    for path, clip in zip(paths, np.split(audio, clips), strict=True):
        soundfile.write(path, clip, RATE, subtype="PCM_16")
    return paths


def encoder_config(folder: str, layers: list[int]) -> Config:
    """The settings of ``light`` on the states of the encoder in ``folder``."""
    config = Config()
    given = EncoderConfig(model=folder, layers=" ".join(map(str, layers)))
    config.data.features, (config.encoder, _) = "encoder", open_encoder(given)
    model = config.model
    model.kind, model.encoder_layers, model.encoder_dim = "light", len(layers), config.encoder.dim
    model.feature_dim = len(layers) * config.encoder.dim
    return config


def write_models(folder: Path, config: Config) -> dict[str, Path]:
    """An untrained model in all its forms, by name."""
    model = checkpoint.new_model(config).eval()
    paths = {"PyTorch": folder / "model.pt"}
    phones = ["sil", *map(str, range(1, config.model.num_phones))]
    checkpoint.save(paths["PyTorch"], model, config, seqm.SEQM_CLASSES, phones)
    if find_spec("onnx") and find_spec("onnxruntime"):
        paths.update({"onnxruntime": folder / "model.onnx", "onnxruntime, int8": folder / "int8.onnx"})
        export_model(paths["PyTorch"], paths["onnxruntime"])
        export_model(paths["PyTorch"], paths["onnxruntime, int8"], int8=True)
    return paths


def megabytes(path: Path) -> float:
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path])) / 1e6


def ours(model: Path, batch_size: int) -> Run:
    predictor = Predictor(model, "cpu", gender=True, batch_size=batch_size)
    return lambda paths: list(predictor.predict_segments([Segment(str(path), path) for path in paths], print))


def speechbrain(channels: int, batch_size: int) -> Run:
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    fbank = Fbank(n_mels=80)
    model = ECAPA_TDNN(
        80, channels=[channels] * 4 + [1536], kernel_sizes=[5, 3, 3, 3, 1], dilations=[1, 2, 3, 4, 1], lin_neurons=192
    ).eval()

    def predict(paths: list[Path]) -> None:
        for start in range(0, len(paths), batch_size):
            clips = [
                torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in paths[start : start + batch_size]
            ]
            with torch.inference_mode():
                model(fbank(torch.stack(clips)))

    return predict


def seconds_of(runs: dict[tuple[str, int], Run], paths: list[Path], rounds: int) -> dict[tuple[str, int], float]:
    """The best of ``rounds`` of each, after one that is not counted; all take turns, so that noise falls on all.

    Seconds of the CPU: on one core they are those of the clock, less what other programs took of it.
    """
    took: dict[tuple[str, int], list[float]] = {key: [] for key in runs}
    for number in range(rounds + 1):
        for key, run in runs.items():
            started = time.process_time()
            run(paths)
            if number:
                took[key].append(time.process_time() - started)
    return {key: min(times) for key, times in took.items()}


def first_answer(model: Path, clip: Path, rounds: int) -> float:
    """Seconds from the start of the command to its end; the best of ``rounds``."""
    took = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "speecheq.predict", "--model", str(model), str(clip)],
            check=True,
            capture_output=True,
        )
        took.append(time.perf_counter() - started)
    return min(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--encoder", metavar="FOLDER", help="measure light on the states of this Whisper")
    parser.add_argument("--speech", metavar="FILE", help="a recording of speech, of which clips are cut")
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        clips = write_clips(Path(folder), given.clips, given.seconds, given.speech)
        if given.encoder:
            config, name = encoder_config(given.encoder, given.layers), f"light on layers {given.layers}"
        else:
            config, name = Config(), f"C = {given.channels}"
            config.model.channels = given.channels
        models = write_models(Path(folder), config)
        if given.speech and not given.encoder:
            models["the package's own, PyTorch"] = DEFAULT_MODEL
        print(f"torch {torch.__version__}, one core, {given.clips} clips of {given.seconds:g} s, {name}")
        batches = " | ".join(f"batch {size}, x real time" for size in given.batches)
        print(f"| model | MB | {batches} | first answer, s |")
        print("| --- |" + " --- |" * (len(given.batches) + 2), flush=True)
        runs = {(name, size): ours(path, size) for name, path in models.items() for size in given.batches}
        if find_spec("speechbrain") and not given.encoder:
            runs.update({(PEER, size): speechbrain(given.channels, size) for size in given.batches})
        took = seconds_of(runs, clips, given.rounds)
        for name in dict.fromkeys(name for name, _ in runs):
            cells = [f"{len(clips) * given.seconds / took[name, size]:.0f}" for size in given.batches]
            cells.append(f"{first_answer(models[name], clips[0], given.rounds):.2f}" if name in models else "-")
            size = f"{megabytes(models[name]):.1f}" if name in models else "-"
            print(f"| {name} | {size} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
