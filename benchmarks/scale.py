#!/usr/bin/env python3
"""Time and memory of stages 1 and 3 on synthetic corpora of any size, in AISHELL-1's layout and as a table.

Every clip is one of a few tiny files under many names (hard links), so that a million of them fit on any disk.
Each stage runs as a program of its own, as a recipe runs it, and is measured by the kernel: wall seconds and the
peak of the memory that was resident in its largest process. Features are the real ones with the stage ``features``
in ``--stages``; without it manifests of features are made up, since stage 3 reads only those.
"""

import argparse
import csv
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
import wave
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("manifests", "features", "phonemes", "import", "unify")

# AISHELL-1's parts: utterances and speakers
AISHELL_PARTS = {"train": (120_098, 340), "dev": (14_326, 40), "test": (7_176, 20)}
AISHELL_SIZE = sum(utterances for utterances, _ in AISHELL_PARTS.values())
TEXTS = (
    "今天 早上 的 火车 晚 了 半 个 小时",
    "城市 中心 的 书店 重新 开门",
    "研究 人员 公布 了 新 的 结果",
    "孩子 们 在 公园 里 放 风筝",
    "这 家 公司 去年 的 利润 有所 下降",
    "请 把 窗户 关 上",
    "比赛 因为 下雨 推迟 到 周末",
    "他 用 两 年 时间 学会 了 弹 钢琴",
)
EMOTION_SPEAKERS = 500
LABELS = {"happy": "joy", "angry": "anger", "sad": "sadness", "calm": "neutral"}
LEVELS = ("mild", "strong")
# Lengths of the clips in samples, at 16 kHz: at least one frame of 25 ms.
CLIP_LENGTHS = range(400, 2000, 100)


class Clips:
    """Tiny audio files under any number of names: hard links to a few, copied anew where a file has too many."""

    def __init__(self, folder: Path, lengths: Sequence[int]):
        folder.mkdir(parents=True)
        self.files: list[Path] = []
        self.next = 0
        noise = random.Random(0)
        for number, length in enumerate(lengths):
            self.files.append(folder / f"{number}.wav")
            with wave.open(str(self.files[-1]), "wb") as audio:
                audio.setnchannels(1)
                audio.setsampwidth(2)
                audio.setframerate(16000)
                audio.writeframes(noise.randbytes(2 * length))

    def link(self, path: str) -> None:
        place = self.next % len(self.files)
        self.next += 1
        try:
            os.link(self.files[place], path)
        except OSError:  # the file system allows no more links to this file, or none at all
            shutil.copyfile(self.files[place], path)
            self.files[place] = Path(path)


def make_aishell(folder: Path, utterances: int, lengths: Sequence[int] = CLIP_LENGTHS) -> None:
    """AISHELL-1's layout with its parts and speakers, and ``utterances`` clips in its proportions."""
    clips = Clips(folder / "clips", lengths)
    corpus = folder / "AISHELL-1"
    sizes = {part: utterances * official // AISHELL_SIZE for part, (official, _) in AISHELL_PARTS.items()}
    sizes["train"] += utterances - sum(sizes.values())
    (corpus / "data_aishell" / "transcript").mkdir(parents=True)
    (corpus / "resource_aishell").mkdir()
    number = 2  # the first speaker is S0002
    with (
        open(corpus / "data_aishell" / "transcript" / "aishell_transcript_v0.8.txt", "w", encoding="utf-8") as texts,
        open(corpus / "resource_aishell" / "speaker.info", "w", encoding="utf-8") as genders,
    ):
        for part, (_, speakers) in AISHELL_PARTS.items():
            for place in range(speakers):
                speaker = f"S{number:04d}"
                number += 1
                genders.write(f"{speaker[1:]} {'FM'[number % 2]}\n")
                wavs = corpus / "data_aishell" / "wav" / part / speaker
                wavs.mkdir(parents=True)
                for take in range(sizes[part] // speakers + (place < sizes[part] % speakers)):
                    name = f"BAC009{speaker}W{121 + take:04d}"
                    clips.link(f"{wavs}/{name}.wav")
                    texts.write(f"{name} {TEXTS[take % len(TEXTS)]}\n")


def make_table(folder: Path, utterances: int, lengths: Sequence[int] = CLIP_LENGTHS) -> None:
    """An emotion corpus as a table: EMOTION_SPEAKERS speakers, four labels at two levels, no official parts."""
    clips = Clips(folder / "clips", lengths)
    corpus = folder / "emotions"
    corpus.mkdir()
    (corpus / "labels.yaml").write_text(
        "language: Mandarin\nlabels: {"
        + ", ".join(f"{label}: {category}" for label, category in LABELS.items())
        + f"}}\nlevels: [{', '.join(LEVELS)}]\n",
        encoding="utf-8",
    )
    labels = list(LABELS)
    with open(corpus / "clips.csv", "w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "speaker", "gender", "emotion", "intensity", "text"])
        for speaker in range(EMOTION_SPEAKERS):
            (corpus / f"speaker{speaker:04d}").mkdir()
            for take in range(utterances // EMOTION_SPEAKERS + (speaker < utterances % EMOTION_SPEAKERS)):
                path = f"speaker{speaker:04d}/clip{take:06d}.wav"
                clips.link(f"{corpus}/{path}")
                label = labels[take % len(labels)]
                table.writerow(
                    [
                        path,
                        f"speaker{speaker:04d}",
                        "FM"[speaker % 2],
                        label,
                        LEVELS[take // 4 % 2],
                        TEXTS[take % len(TEXTS)].replace(" ", ""),
                    ]
                )


def make_features(corpus: str, data: Path) -> None:
    """What stage 2 leaves for stage 3: the cuts of a prepared corpus with a manifest of features, all of one array."""
    import numpy as np
    from lhotse import CutSet, Features
    from lhotse.features.io import LilcomChunkyWriter

    from speecheq.common.stages import Stage
    from speecheq.corpora.prepared_corpus import corpus_cuts, load_card
    from speecheq.features.storage import FORMAT

    manifests, folder = data / "manifests" / corpus, data / "fbank" / corpus
    card = load_card(manifests, corpus)
    folder.mkdir(parents=True)
    with LilcomChunkyWriter(folder / "00000.lca") as archive:
        key = archive.write("all", np.zeros((100, 80), np.float32))
        kind, path = archive.name, str(folder / "00000.lca")

    def cuts():
        for cut in corpus_cuts(manifests, corpus, card["splits"]):
            cut.features = Features(
                type="speecheq-fbank",
                num_frames=round(cut.duration * 100),
                num_features=80,
                frame_shift=0.01,
                sampling_rate=16000,
                start=cut.start,
                duration=cut.duration,
                storage_type=kind,
                storage_path=path,
                storage_key=key,
                recording_id=cut.recording.id,
                channels=0,
            )
            yield cut

    CutSet(cuts()).to_file(folder / "cuts.jsonl.gz")
    stage = Stage("features", corpus, folder, {"corpus": corpus, "made_up": True}, [manifests], FORMAT)
    stage.finish(folder, card["utterances"], card["utterances"], outputs=["cuts.jsonl.gz", "00000.lca"])


class Measured(NamedTuple):
    """What one stage took: seconds by the clock and of the processor, ``peak`` in bytes."""

    stage: str
    utterances: int
    seconds: float
    peak: int
    processor: float = 0.0


def measure(stage: str, utterances: int, command: Sequence[str]) -> Measured:
    """Run a program and ask the kernel what it took; its log is shown only where it fails."""
    started = time.monotonic()
    with open(os.devnull) as nothing:
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdin=nothing,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)  # the peak of this child alone
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - started
    if process.returncode:
        sys.exit(f"the stage {stage} failed with {utterances} utterances:\n{said}")
    return Measured(stage, utterances, seconds, usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime)


def in_a_process_of_its_own(function, *arguments) -> None:
    """So that this program stays small: the memory of a parent counts in the peak of the programs that it starts."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{function.__name__} failed")


def run_stages(folder: Path, utterances: int, stages: Sequence[str], nj: int) -> Iterator[Measured]:
    """Make what the asked stages need and measure each of them."""
    data = folder / "data"
    cli = ("-m", "speecheq.cli")

    def features(corpus: str) -> Iterable[Measured]:
        if "features" in stages:
            yield measure("features", utterances, [*cli, "features", "--data", data, "--corpora", corpus, "--nj", nj])
        else:
            in_a_process_of_its_own(make_features, corpus, data)

    if {"manifests", "features", "phonemes"} & set(stages):
        in_a_process_of_its_own(make_aishell, folder / "read", utterances)
        partial = "false" if utterances == AISHELL_SIZE else "true"
        yield measure(
            "manifests",
            utterances,
            [
                ROOT / "local" / "prepare_aishell.py",
                folder / "read" / "AISHELL-1",
                data / "manifests" / "aishell",
                "--partial",
                partial,
                "--nj",
                nj,
            ],
        )
        if {"features", "phonemes"} & set(stages):
            yield from features("aishell")
        if "phonemes" in stages:
            yield measure("phonemes", utterances, [*cli, "phonemes", "--data", data, "--corpus", "aishell"])
    shutil.rmtree(folder / "read", ignore_errors=True)
    if {"import", "unify"} & set(stages):
        in_a_process_of_its_own(make_table, folder / "spoken", utterances)
        yield measure(
            "import",
            utterances,
            [
                *cli,
                "import",
                folder / "spoken" / "emotions" / "clips.csv",
                data / "manifests" / "emotions",
                "--name",
                "emotions",
                "--nj",
                nj,
            ],
        )
        if "unify" in stages:
            in_a_process_of_its_own(make_features, "emotions", data)
            yield measure(
                "unify",
                utterances,
                [*cli, "unify", "--data", data, "--target", "emotions", "--protocol", "random10", "--folds", "1"],
            )


def print_table(measured: Sequence[Measured]) -> None:
    """One line a stage and size; the bytes an utterance are the slope from the size before."""
    print("| stage | utterances | seconds | peak MB | bytes an utterance |\n| --- | ---: | ---: | ---: | ---: |")
    smaller: dict[str, Measured] = {}
    for now in sorted(measured, key=lambda one: (STAGES.index(one.stage), one.utterances)):
        slope = "-"
        if now.stage in smaller:
            before = smaller[now.stage]
            slope = f"{(now.peak - before.peak) / (now.utterances - before.utterances):.0f}"
        smaller[now.stage] = now
        print(f"| {now.stage} | {now.utterances} | {now.seconds:.0f} | {now.peak / 1e6:.0f} | {slope} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="a new folder; it is removed at the end")
    parser.add_argument("--utterances", type=int, nargs="+", default=[14_160, AISHELL_SIZE, 1_000_000], metavar="N")
    parser.add_argument(
        "--stages",
        nargs="+",
        choices=STAGES,
        metavar="STAGE",
        default=[stage for stage in STAGES if stage != "features"],
        help=", ".join(STAGES),
    )
    parser.add_argument("--nj", type=int, default=2, help="threads that read headers, processes that make features")
    given = parser.parse_args()
    if given.folder.exists():
        sys.exit(f"{given.folder}: is there already; name a new folder.")
    measured: list[Measured] = []
    try:
        for utterances in sorted(set(given.utterances)):
            for one in run_stages(given.folder / str(utterances), utterances, given.stages, given.nj):
                measured.append(one)
                print(
                    f"{one.stage}: {one.utterances} utterances, {one.seconds:.1f} s, {one.processor:.1f} s of the "
                    f"processor, {one.peak / 1e6:.0f} MB",
                    file=sys.stderr,
                    flush=True,
                )
            shutil.rmtree(given.folder / str(utterances))
    finally:
        shutil.rmtree(given.folder, ignore_errors=True)
    print_table(measured)


if __name__ == "__main__":
    main()
