#!/usr/bin/env python3
"""CTC by k2 and by torch at the recipes' sizes: seconds forward and backward, peak memory, how far the losses agree.

    python benchmarks/ctc.py [--device cuda] [--threads 1] [--rounds 7]
    python benchmarks/ctc.py --phonemes data/phonemes/aishell.all

The second takes the texts and lengths of the corpus that stage 3 wrote with --pronunciations all, and compares the
first pronunciation of each word with all of them.

Each row runs in a process of its own; the processes take turns, a mini-batch a round.
"""

import argparse
import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from turns import Turns

from speecheq.dataset.phones.lattice import as_words, ctc_graph, first_labels
from speecheq.losses import ctc_loss

UTTERANCES = 32  # of the mini-batch of --phonemes


class Size(NamedTuple):
    """A phoneme mini-batch: utterances of ``seconds`` (from, to), ``labels`` a second, ``classes`` with the blank."""

    utterances: int
    seconds: tuple[float, float]
    labels: float
    classes: int
    rate: int = 100  # frames a second of the logits


SIZES = {
    "Mandarin phones, 32 x 4 to 6 s": Size(32, (4, 6), 9, 202),
    "Mandarin phones at the baseline's rate": Size(32, (4, 6), 9, 202, 34),
    "English phones, 24 x 10 to 16 s": Size(24, (10, 16), 12, 85),
    "English pieces, 24 x 10 to 16 s": Size(24, (10, 16), 5, 500),
    "Mandarin pieces, 32 x 4 to 6 s": Size(32, (4, 6), 3.5, 5000),
}


def mini_batch(size: Size) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Random logits (N, T, C), lengths (N,) and targets, the same in every process."""
    randomness = torch.Generator().manual_seed(0)
    seconds = torch.linspace(*size.seconds, size.utterances)
    lengths = (seconds * size.rate).long()
    targets = [
        torch.randint(1, size.classes, (int(duration * size.labels),), generator=randomness) for duration in seconds
    ]
    return torch.randn(size.utterances, int(lengths.max()), size.classes, generator=randomness), lengths, targets


def prepare(size: Size, backend: str, device: torch.device) -> Callable[[], float]:
    """What computes the loss of the mini-batch and its gradient, and returns the loss."""
    logits, lengths, targets = mini_batch(size)
    logits = logits.to(device).requires_grad_()

    def work() -> float:
        logits.grad = None
        loss = ctc_loss(logits, lengths, targets, backend).loss
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return loss.item()

    return work


def prepare_pronunciations(folder: str, which: str, backend: str, device: torch.device) -> Callable[[], float]:
    """The same of random logits, 50 frames a second, and the first or all pronunciations of a corpus' first texts."""
    with gzip.open(Path(folder) / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        cuts = [json.loads(line) for line, _ in zip(lines, range(UTTERANCES))]
    words = [as_words(cut["supervisions"][0]["custom"]["words"]) for cut in cuts]
    targets = [torch.tensor(first_labels(utterance)) for utterance in words]
    graphs = [ctc_graph(utterance) for utterance in words] if which == "all" else None
    lengths = torch.tensor([int(50 * cut["duration"]) for cut in cuts])
    classes = 1 + max(label for utterance in words for word in utterance for row in word for label in row)
    randomness = torch.Generator().manual_seed(0)
    logits = torch.randn(len(cuts), int(lengths.max()), classes, generator=randomness).to(device).requires_grad_()

    def work() -> float:
        logits.grad = None
        loss = ctc_loss(logits, lengths, targets, backend, graphs).loss
        loss.backward()
        return loss.item()

    return work


def compare_pronunciations(turns: Turns, folder: str, rounds: int) -> None:
    """Print the table of --phonemes."""
    for title, which, backend in (
        ("first, torch", "first", "torch"),
        ("first, k2", "first", "k2"),
        ("all, k2", "all", "k2"),
    ):
        turns.add(title, prepare_pronunciations, folder, which, backend)
    for title, row in turns.take(rounds).items():
        print(f"{title:14s} {1000 * row.seconds:8.1f} ms {row.mebibytes:7.0f} MiB, loss {row.result:.3f} a phone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phonemes", help="folder of stage 3, written with --pronunciations all")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1, help="of each process on the CPU")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    print(f"torch {torch.__version__}, {given.device}, CPU threads: {given.threads}, {given.rounds} rounds")
    if given.phonemes:
        compare_pronunciations(Turns(given.device, given.threads), given.phonemes, given.rounds)
        return
    print(f"{'':40s} {'k2 ms':>8s} {'torch ms':>8s} {'k2/torch':>8s} {'k2 MiB':>7s} {'torch':>7s} {'apart':>8s}")
    for title, size in SIZES.items():
        turns = Turns(given.device, given.threads)
        for backend in ("k2", "torch"):
            turns.add(backend, prepare, size, backend)
        rows = turns.take(given.rounds)
        if len(rows) < 2:
            print(title, *(f"{name}: {1000 * row.seconds:.1f} ms" for name, row in rows.items()))
            continue
        k2, plain = rows["k2"], rows["torch"]
        apart = abs(k2.result - plain.result) / abs(plain.result)
        print(
            f"{title:40s} {1000 * k2.seconds:8.1f} {1000 * plain.seconds:8.1f} {k2.seconds / plain.seconds:8.2f} "
            f"{k2.mebibytes:7.0f} {plain.mebibytes:7.0f} {apart:8.1e}"
        )


if __name__ == "__main__":
    main()
