"""``speecheq``, the one console command: every stage of a recipe is one of its subcommands."""

import argparse
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import List, Optional, Sequence

from speecheq.commandline import OneLineParser, positive_whole
from speecheq.errors import InputError
from speecheq.files import NO_SPACE
from speecheq.progress import log, set_up_logging

# Subcommands import what they need themselves, so that --help answers at once.


def _synth(given: argparse.Namespace) -> None:
    from speecheq.synth import synthesise

    for corpus in given.corpora:
        synthesise(corpus, given.out / corpus, given.size, given.seed)


def _features(given: argparse.Namespace) -> None:
    from speecheq.features import compute_features

    for corpus in given.corpora:
        compute_features(corpus, given.data / "manifests" / corpus, given.data / "fbank" / corpus, given.nj)


def _phonemes(given: argparse.Namespace) -> None:
    from speecheq.msud import phonemes

    phonemes(given.corpus, given.data / "manifests", given.data / "fbank", given.data / "phonemes" / given.corpus)


def _unify(given: argparse.Namespace) -> None:
    from speecheq.msud import unify

    unify(given.target, given.protocol, given.folds, given.corpora, given.data / "manifests", given.data / "fbank",
          given.data / "msud", given.dev, given.fold_seed)


def _runs(given: argparse.Namespace):
    """(system, fold, seed, its folder) of everything that was asked for, and where its data is."""
    from speecheq.msud import made_folds
    from speecheq.protocol import parse_numbers

    name = f"{given.target}.{given.protocol}"
    msud = given.data / "msud" / name
    folds = made_folds(msud, given.folds)
    phonemes = given.data / "phonemes" / given.phonemes if given.phonemes else None
    for system in given.systems.replace(",", " ").split():
        for fold in folds:
            for seed in parse_numbers(given.seeds, "seed"):
                folder = given.exp / f"{given.config.stem}-{system}" / name / f"fold{fold}" / f"seed{seed}"
                yield system, fold, seed, folder, msud, phonemes


def _train(given: argparse.Namespace) -> None:
    from speecheq.config import resolve
    from speecheq.train import Job, train

    recipe = {"loss.ctc_backend": given.ctc_backend} if given.ctc_backend else {}
    # every job's settings are resolved before the first is trained: a typing error shows at once
    jobs: List[Job] = []
    for system, fold, seed, folder, msud, phonemes in _runs(given):
        config = resolve(given.config, given.systems_file, system, {**recipe, "run.seed": seed}, given.set)
        if config.run.seed != seed:
            raise InputError("--set run.seed: the seeds are given by --seeds.")
        jobs.append(Job(config, given.config.stem, system, msud, fold, phonemes, folder))
    if given.jobs == 1 or len(jobs) == 1:
        for job in jobs:
            train(job)
        return
    # spawned, not forked: torch's threads do not survive a fork
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn"), initializer=set_up_logging) as pool:
        for training in [pool.submit(train, job) for job in jobs]:
            training.result()


def _score(given: argparse.Namespace) -> None:
    from speecheq.report import summarise
    from speecheq.score import score

    experiments = {}
    for _, fold, _, folder, msud, phonemes in _runs(given):
        score(folder, msud, fold, phonemes)
        experiments[folder.parent.parent] = True
    for experiment in experiments:
        summarise(experiment)


def _report(given: argparse.Namespace) -> None:
    from speecheq.report import report

    print(report(given.exp, given.title, given.results))
    log.info("the table above lies in %s, that of each experiment in %s", given.results,
             given.exp / "<config>-<system>" / "<target>.<protocol>" / "RESULTS.md")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = OneLineParser(prog="speecheq", description="Speech emotion recognition with the SpeechEQ metric and model.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run, help: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help)
        made.set_defaults(run=run)
        return made

    synth = command("synth", _synth, "Stage 0: synthesise mini corpora with espeak-ng.")
    synth.add_argument("--out", type=Path, required=True, help="a folder; each corpus gets one inside it")
    synth.add_argument("--corpora", nargs="+", required=True, metavar="CORPUS")
    synth.add_argument("--size", default="mini", help="mini or nano")
    synth.add_argument("--seed", type=int, default=0)

    features = command("features", _features, "Stage 2: compute and store the features of prepared corpora.")
    features.add_argument("--data", type=Path, default=Path("data"))
    features.add_argument("--corpora", nargs="+", required=True, metavar="CORPUS")
    features.add_argument("--nj", type=positive_whole, default=2, help="processes")

    phonemes = command("phonemes", _phonemes, "Stage 3: the phoneme cuts of an ASR corpus, shared by all folds.")
    phonemes.add_argument("--data", type=Path, default=Path("data"))
    phonemes.add_argument("--corpus", required=True)

    unify = command("unify", _unify, "Stage 3: unify corpora to MsUD, a fold at a time.")
    unify.add_argument("--data", type=Path, default=Path("data"))
    unify.add_argument("--target", required=True)
    unify.add_argument("--protocol", required=True)
    unify.add_argument("--folds", default="all")
    unify.add_argument("--corpora", nargs="*", default=[], metavar="CORPUS", help="the corpora of MsUD")
    unify.add_argument("--dev", default="clips", help="clips: 10 %% of the training clips; speaker: one speaker's")
    unify.add_argument("--fold-seed", type=int, default=0)

    def run_options(made: argparse.ArgumentParser) -> None:
        made.add_argument("--data", type=Path, default=Path("data"))
        made.add_argument("--exp", type=Path, default=Path("exp"))
        made.add_argument("--config", type=Path, required=True, help="the size: a file of conf/")
        made.add_argument("--systems", required=True, help="names of conf/systems.yaml")
        made.add_argument("--target", required=True)
        made.add_argument("--protocol", required=True)
        made.add_argument("--folds", default="all")
        made.add_argument("--seeds", default="1")
        made.add_argument("--phonemes", help="the phoneme corpus, if any")

    train = command("train", _train, "Stage 4: train systems on folds.")
    run_options(train)
    train.add_argument("--systems-file", type=Path, default=Path("conf/systems.yaml"))
    train.add_argument("--jobs", type=positive_whole, default=1, help="trainings at once on this machine")
    train.add_argument("--ctc-backend", choices=("k2", "torch", "auto"))
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting")

    score = command("score", _score, "Stage 5: score trained folds and summarise their experiments.")
    run_options(score)

    report = command("report", _report, "Stage 5: the table of all experiments of a recipe.")
    report.add_argument("--exp", type=Path, default=Path("exp"))
    report.add_argument("--title", required=True)
    report.add_argument("--results", type=Path, required=True, help="the page to write")
    return top


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command. Returns 0; 1 after a fault of the input, which is printed as one sentence."""
    set_up_logging()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        given = parser().parse_args(argv)
        given.run(given)
    except InputError as error:
        log.error("%s", error)
        return 1
    except OSError as error:
        if error.errno is None or error.filename is None and error.errno not in NO_SPACE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        log.error("%s%s.", where, os.strerror(error.errno).lower())
        return 1
    except KeyboardInterrupt:
        log.error("interrupted; the same command goes on with what is not done yet.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
