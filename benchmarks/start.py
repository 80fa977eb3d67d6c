#!/usr/bin/env python3
"""How long `speecheq train` takes from its start to the end of its first step, and how much memory until then.

    python benchmarks/start.py --folder /tmp/start [--hours 10 1000] [--device cpu]

Stages 1 to 3 run on some hundred synthetic clips of 10 s, of a table of emotions and in AISHELL-1's layout; then the
training sets are written as many times over, under other names, as gives the asked hours of each. The other corpora
of MsUD stand for nine tenths of the emotion clips; `target only` is a system that trains on the other tenth.
"""

import argparse
import gzip
import shutil
from pathlib import Path

import scale

from speecheq.common.files import read_json, write_json

CLIPS, SECONDS = 500, 10
TRAINING_SETS = ("emotion", "gender", "train")
# ends the training after its first step
ONE_STEP = """
import os, sys
import speecheq.training.trainer as training
from speecheq.cli.main import main
step = training.train_step
def first(*given):
    step(*given)
    print("stepped", flush=True)
    os._exit(0)
training.train_step = first
sys.exit(main(sys.argv[1:]) or "no step was taken")
"""


def multiply(path: Path, clips: int) -> None:
    """Write the cuts of a manifest under new names until there are ``clips``, nine tenths of them of a corpus `other`,
    and note the manifest's size in the stamp of its stage."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        cuts = list(lines)
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as made:
        for number in range(clips):
            line = cuts[number % len(cuts)].replace('"id": "', f'"id": "{number}-', 1)
            made.write(line if number % 10 == 0 else line.replace('"corpus": "emotions"', '"corpus": "other"'))
    stamp = read_json(path.parent / "stage.json")
    stamp["outputs"][path.name] = path.stat().st_size
    write_json(path.parent / "stage.json", stamp)


def prepare(folder: Path) -> Path:
    """Stages 1 to 3; returns the folder that a recipe calls its data."""
    data, cli = folder / "data", ("-m", "speecheq.cli")
    lengths = [16000 * SECONDS] * 4
    scale.make_aishell(folder / "read", CLIPS, lengths)
    scale.make_table(folder / "spoken", CLIPS, lengths)
    for name, command in (
        (
            "manifests",
            [
                scale.ROOT / "local" / "prepare_aishell.py",
                folder / "read" / "AISHELL-1",
                data / "manifests" / "aishell",
                "--partial",
                "true",
            ],
        ),
        (
            "import",
            [
                *cli,
                "import",
                folder / "spoken" / "emotions" / "clips.csv",
                data / "manifests" / "emotions",
                "--name",
                "emotions",
            ],
        ),
        ("features", [*cli, "features", "--data", data, "--corpora", "emotions", "aishell"]),
        ("unify", [*cli, "unify", "--data", data, "--target", "emotions", "--protocol", "random10", "--folds", "1"]),
        ("phonemes", [*cli, "phonemes", "--data", data, "--corpus", "aishell"]),
    ):
        scale.measure(name, CLIPS, command)
    return data


def start(data: Path, folder: Path, options: list[str]) -> scale.Measured:
    """Run `speecheq train` to the end of its first step."""
    shutil.rmtree(folder, ignore_errors=True)
    conf = scale.ROOT / "egs" / "mandarin" / "conf"
    return scale.measure(
        "start",
        1,
        [
            "-c",
            ONE_STEP,
            "train",
            "--data",
            data,
            "--exp",
            folder,
            "--target",
            "emotions",
            "--protocol",
            "random10",
            "--folds",
            "1",
            "--phonemes",
            "aishell",
            "--systems",
            "speecheq",
            "--config",
            conf / "small.yaml",
            "--systems-file",
            conf / "systems.yaml",
            *options,
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="new; is removed at the end")
    parser.add_argument("--hours", type=int, nargs="+", default=[10, 1000], help="of each of the three training sets")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    try:
        data = prepare(given.folder)
        print(
            "| hours a set | clips a set | system | seconds to the end of the first step | peak MB |\n"
            "| ---: | ---: | --- | ---: | ---: |"
        )
        for hours in given.hours:
            clips = hours * 3600 // SECONDS
            for path in data.rglob("*.jsonl.gz"):
                of_stage_3 = path.relative_to(data).parts[0] in ("msud", "phonemes")
                if of_stage_3 and path.name.split(".")[0] in TRAINING_SETS:
                    multiply(path, clips)
            for system, options in (("all corpora", []), ("target only", ["--set", "data.corpora=target"])):
                took = start(data, given.folder / "exp", [*options, "--set", f"run.device={given.device}"])
                print(f"| {hours} | {clips} | {system} | {took.seconds:.1f} | {took.peak / 2**20:.0f} |", flush=True)
    finally:
        shutil.rmtree(given.folder)


if __name__ == "__main__":
    main()
