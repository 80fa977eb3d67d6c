#!/usr/bin/env python3
"""Speed and memory of Whisper's encoder on one CPU core: clips of 3 s in memory, to states.

    python benchmarks/encoder.py MODEL_FOLDER [--clips 4] [--seconds 3] [--rounds 3] [--layers 1 2 3]

MODEL_FOLDER is a Whisper model as the hub lays it out. Beside ours stand transformers' own extractor and encoder as
they come (30 s of input, all layers) and, where it is installed, faster-whisper's int8 `encode`, of the same model,
converted here without a network (its decoder, which nothing here needs, may be untrained). Each row runs in a process
of its own on the same core, the rows in turn; a row's time is its best round, in seconds of the CPU.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RATE = 16000
BATCH = 8
IN_BATCHES = f"ours, {BATCH} clips at a time"


def ours(given: argparse.Namespace, padding: str = "none") -> Callable:
    import torch

    from speecheq.features.encoders import EncoderSettings, load_encoder

    encoder = load_encoder(EncoderSettings(str(given.model), tuple(given.layers), padding=padding))
    return lambda clip: encoder(torch.from_numpy(clip)[None], torch.tensor([len(clip)]))


def ours_in_batches(given: argparse.Namespace) -> Callable:
    import numpy as np
    import torch

    from speecheq.features.encoders import EncoderSettings, load_encoder

    encoder = load_encoder(EncoderSettings(str(given.model), tuple(given.layers)))
    return lambda clip: encoder(torch.from_numpy(np.stack([clip] * BATCH)), torch.tensor([len(clip)] * BATCH))


def ours_padded(given: argparse.Namespace) -> Callable:
    return ours(given, "30s")


def transformers_whole(given: argparse.Namespace) -> Callable:
    from transformers import WhisperFeatureExtractor, WhisperModel

    extractor = WhisperFeatureExtractor.from_pretrained(given.model)
    encoder = WhisperModel.from_pretrained(given.model).float().encoder.eval()

    def encode(clip):
        features = extractor(clip, sampling_rate=RATE, return_tensors="pt").input_features
        return encoder(features, output_hidden_states=True)

    return encode


def convert(model: Path, folder: Path) -> None:
    """The Whisper model as CTranslate2 reads it, its weights in int8."""
    from ctranslate2.converters.transformers import WhisperLoader
    from transformers import WhisperForConditionalGeneration

    whole = WhisperForConditionalGeneration.from_pretrained(model).float()
    spec = WhisperLoader().get_model_spec(whole)
    spec.register_vocabulary([f"<{number}>" for number in range(whole.config.vocab_size)])
    spec.validate()
    spec.optimize(quantization="int8")
    folder.mkdir()
    spec.save(str(folder))


def faster_whisper(given: argparse.Namespace) -> Callable:
    import ctranslate2
    import numpy as np
    from faster_whisper.feature_extractor import FeatureExtractor

    if not given.converted.is_dir():
        subprocess.run([*command(given), "--convert"], check=True, env=environment(), capture_output=True)
    model = ctranslate2.models.Whisper(
        str(given.converted), device="cpu", compute_type="int8", inter_threads=1, intra_threads=1
    )
    extractor = FeatureExtractor()

    def encode(clip):
        features = extractor(np.pad(clip, (0, 30 * RATE - len(clip))))[None, :, :3000]
        return np.array(model.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(features)), to_cpu=True))

    return encode


ROWS: dict[str, Callable[[argparse.Namespace], Callable]] = {
    "ours": ours,
    IN_BATCHES: ours_in_batches,
    "ours, padded to 30 s": ours_padded,
    "transformers, 30 s, all layers": transformers_whole,
    "faster-whisper, int8, 30 s, last layer": faster_whisper,
}


def run_row(given: argparse.Namespace) -> None:
    """What a process of its own does: prints seconds a clip, seconds to the first answer, and peak MB."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    noise = np.random.default_rng(0)
    clips = [noise.normal(0, 0.1, round(given.seconds * RATE)).astype(np.float32) for _ in range(given.clips)]
    started = time.process_time()
    try:
        encode = ROWS[given.row](given)
    except (ImportError, subprocess.CalledProcessError) as error:
        print(f"{given.row} is left out: {error}", file=sys.stderr)
        return
    with torch.no_grad():
        encode(clips[0])
        first = time.process_time() - started
        took = []
        for clip in clips:
            started = time.process_time()
            encode(clip)
            took.append(time.process_time() - started)
    print(
        min(took) / (BATCH if given.row == IN_BATCHES else 1),
        first,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def command(given: argparse.Namespace) -> list[str]:
    options = ["--clips", given.clips, "--seconds", given.seconds, "--converted", given.converted]
    return list(map(str, [sys.executable, __file__, given.model, *options, "--layers", *given.layers]))


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}


def measured(row: str, given: argparse.Namespace) -> list[float]:
    """What ``run_row`` prints, of a process of its own; nothing where the row cannot run."""
    shown = subprocess.run(
        [*command(given), "--row", row], stdout=subprocess.PIPE, text=True, check=True, env=environment()
    ).stdout
    return list(map(float, shown.split()[-3:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--convert", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--converted", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.convert:
        convert(given.model, given.converted)
        return
    if given.row:
        run_row(given)
        return
    import torch

    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    with tempfile.TemporaryDirectory() as folder:
        given.converted = Path(folder) / "ctranslate2"
        rounds = [{row: measured(row, given) for row in ROWS} for _ in range(given.rounds)]
    print(f"torch {torch.__version__}, one core, clips of {given.seconds:g} s, ours layers {given.layers}\n")
    print("| | s a clip | times real time | ours is faster by | first answer, s | peak MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    best = {row: [min(values) for values in zip(*(made[row] for made in rounds))] for row in ROWS}
    for row, values in best.items():
        if values:
            seconds, first, peak = values
            cells = [f"{seconds:.3f}", f"{given.seconds / seconds:.1f}", f"{seconds / best['ours'][0]:.1f}"]
            print(f"| {row} | " + " | ".join([*cells, f"{first:.1f}", f"{peak:.0f}"]) + " |")


if __name__ == "__main__":
    main()
