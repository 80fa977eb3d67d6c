#!/usr/bin/env python3
"""Speed of the features (section 3.2), ours beside others', on the same clips with one thread.

    python benchmarks/features.py CORPUS_FOLDER [--clips 200] [--rounds 3] [--batch 32]

CORPUS_FOLDER is any folder with wav files at 16 kHz. Every row runs in a process of its own, the rows in turn, round
by round; a row's time is the median over the rounds. librosa is not among the package's requirements:
`pip install --target DIR librosa`, then run with DIR at the end of PYTHONPATH; without it its row is left out.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# all rows: 80 filter banks up to 8 kHz, Hamming window, 25 ms every 10 ms
LHOTSE = dict(
    sampling_rate=16000,
    num_filters=80,
    window_type="hamming",
    low_freq=20.0,
    high_freq=8000.0,
    dither=0.0,
    snip_edges=False,
)


def stored(paths: list[Path], batch: int) -> float:
    """Stage 2 as a recipe runs it: from wav on disk to archives and manifests; seconds."""
    from speecheq.corpora import Corpus, Utterance
    from speecheq.corpora.prepare import PrepareRequest, prepare
    from speecheq.features.storage import compute_features

    corpus = Corpus("clips", "clips", "Mandarin", "DIR/*.wav", labels={"neutral": "neutral"})
    utterances = [Utterance(f"{number}", path, "s", "F", label="neutral") for number, path in enumerate(paths)]
    with tempfile.TemporaryDirectory() as folder:
        request = PrepareRequest(paths[0].parent)
        prepare(corpus, lambda *_: utterances, request, Path(folder) / "manifests")
        started = time.perf_counter()
        compute_features("clips", Path(folder) / "manifests", Path(folder) / "fbank")
        return time.perf_counter() - started


def read(paths: list[Path]) -> list:
    import soundfile

    return [soundfile.read(path, dtype="float32")[0] for path in paths]


def one_by_one(extract: Callable) -> Callable[[list[Path], int], float]:
    """A row that takes clip by clip, already in memory."""

    def row(paths: list[Path], _batch: int) -> float:
        clips, work = read(paths), extract()
        work(clips[0])
        started = time.perf_counter()
        for clip in clips:
            work(clip)
        return time.perf_counter() - started

    return row


def in_batches(extract: Callable) -> Callable[[list[Path], int], float]:
    """A row that takes padded batches of clips of like lengths, already in memory."""

    def row(paths: list[Path], batch: int) -> float:
        import torch

        clips, work = sorted(map(torch.from_numpy, read(paths)), key=len), extract()
        batches = []
        for first in range(0, len(clips), batch):
            some = clips[first : first + batch]
            padded = torch.nn.utils.rnn.pad_sequence(some, batch_first=True)
            batches.append((padded, torch.tensor([len(clip) for clip in some])))
        with torch.no_grad():
            work(*batches[0])
            started = time.perf_counter()
            for made in batches:
                work(*made)
            return time.perf_counter() - started

    return row


def ours() -> Callable:
    from speecheq.features.fbank import Fbank

    return lambda clip: Fbank().extract(clip, 16000)


def twin() -> Callable:
    from speecheq.features.fbank import BatchedFbank

    return BatchedFbank()


def lhotse_extractor() -> Callable:
    from lhotse import Fbank, FbankConfig

    extractor = Fbank(FbankConfig(**LHOTSE))
    return lambda clip: extractor.extract(clip, 16000)


def lhotse_layer() -> Callable:
    from lhotse.features.kaldi.layers import Wav2LogFilterBank

    layer = Wav2LogFilterBank(**LHOTSE)
    return lambda padded, _lengths: layer(padded)


def torchaudio_kaldi() -> Callable:
    import torch
    from torchaudio.compliance.kaldi import fbank

    return lambda clip: fbank(
        torch.from_numpy(clip)[None],
        num_mel_bins=80,
        window_type="hamming",
        dither=0.0,
        snip_edges=False,
        low_freq=20,
        high_freq=8000,
    )


def librosa_mel() -> Callable:
    import librosa
    import numpy as np

    return lambda clip: np.log(
        1e-10
        + librosa.feature.melspectrogram(
            y=clip, sr=16000, n_fft=512, win_length=400, hop_length=160, window="hamming", n_mels=80, fmin=20, fmax=8000
        )
    )


ROWS: dict[str, Callable[[list[Path], int], float]] = {
    "stage 2, from wav to archive": stored,
    "Fbank (kaldi-native-fbank)": one_by_one(ours),
    "lhotse.Fbank": one_by_one(lhotse_extractor),
    "torchaudio.compliance.kaldi.fbank": one_by_one(torchaudio_kaldi),
    "librosa melspectrogram and log": one_by_one(librosa_mel),
    "BatchedFbank": in_batches(twin),
    "lhotse Wav2LogFilterBank": in_batches(lhotse_layer),
}


def run_row(title: str, paths: list[Path], batch: int) -> None:
    """What a process of its own does: prints seconds and peak MB, or nothing where a library is missing."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        seconds = ROWS[title](paths, batch)
    except Exception as error:  # a torchaudio that does not fit torch fails in many ways
        print(f"{title} is left out: {error}", file=sys.stderr)
        return
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measured(title: str, given: argparse.Namespace) -> tuple[float, float]:
    """(seconds, peak MB) of a row in a process of its own; (nan, nan) where it cannot run."""
    command = [sys.executable, __file__, given.corpus, "--clips", given.clips, "--batch", given.batch, "--row", title]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    answer = subprocess.run(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    ).stdout.split()
    return (float(answer[0]), float(answer[1])) if answer else (float("nan"), float("nan"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    given = parser.parse_args()
    paths = sorted(given.corpus.rglob("*.wav"))[: given.clips]
    if given.row:
        run_row(given.row, paths, given.batch)
        return
    import soundfile

    if not paths:
        sys.exit(f"{given.corpus}: holds no wav file.")
    hours = sum(soundfile.info(str(path)).duration for path in paths) / 3600
    rounds = [{title: measured(title, given) for title in ROWS} for _ in range(given.rounds)]
    print(f"{len(paths)} clips, {60 * hours:.1f} min, one thread, {given.rounds} rounds\n")
    print("| | times real time | peak MB |\n| --- | ---: | ---: |")
    for title in ROWS:
        seconds, peaks = zip(*(made[title] for made in rounds))
        print(f"| {title} | {3600 * hours / statistics.median(seconds):,.0f} | {max(peaks):.0f} |")


if __name__ == "__main__":
    main()
