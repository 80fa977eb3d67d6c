"""``speecheq``, the one console command: every stage of a recipe is one of its subcommands."""

import argparse
import multiprocessing
import multiprocessing.connection
import signal
import sys
from pathlib import Path
from typing import List, Optional, Sequence

from speecheq.commandline import OneLineParser, exit_status, positive_whole
from speecheq.errors import InputError
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
    """(system, fold, seed, its folder) of everything that was asked for."""
    from speecheq.msud import made_folds
    from speecheq.protocol import parse_numbers

    name = f"{given.target}.{given.protocol}"
    folds = made_folds(given.data / "msud" / name, given.folds)
    systems = list(dict.fromkeys(given.systems.replace(",", " ").split()))
    if not systems:
        raise InputError("--systems: names no system.")
    for system in systems:
        for fold in folds:
            for seed in parse_numbers(given.seeds, "seed"):
                folder = given.exp / f"{given.config.stem}-{system}" / name / f"fold{fold}" / f"seed{seed}"
                yield system, fold, seed, folder


def _train(given: argparse.Namespace) -> None:
    from speecheq.config import resolve
    from speecheq.losses import resolve_ctc_backend
    from speecheq.train import Job, check, learns_phonemes, train

    msud = given.data / "msud" / f"{given.target}.{given.protocol}"
    phonemes = given.data / "phonemes" / given.phonemes if given.phonemes else None
    recipe = {"loss.ctc_backend": given.ctc_backend} if given.ctc_backend else {}
    # all jobs are checked before the first is trained: a typing error shows at once, not after hours
    jobs: List[Job] = []
    for system, fold, seed, folder in _runs(given):
        config = resolve(given.config, given.systems_file, system, {**recipe, "run.seed": seed}, given.set)
        if config.run.seed != seed:
            raise InputError("--set run.seed: the seeds are given by --seeds.")
        jobs.append(Job(config, given.config.stem, tuple(given.set), system, msud, fold, phonemes, folder))
        check(jobs[-1])
    for backend in sorted({job.config.loss.ctc_backend for job in jobs if learns_phonemes(job)}):
        resolve_ctc_backend(backend)
    if given.jobs == 1 or len(jobs) == 1:
        for job in jobs:
            train(job)
    else:
        _train_together(jobs, given.jobs)


def _train_one(job) -> None:
    from speecheq.train import train

    set_up_logging()
    sys.exit(exit_status(lambda: train(job)))


def _train_together(jobs: Sequence, at_once: int) -> None:
    """Train in processes of their own, ``at_once`` at a time; the first that fails ends all."""
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    waiting, running = list(jobs), {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                process = context.Process(target=_train_one, args=(waiting[0],))
                process.start()
                running[process] = waiting.pop(0)
            multiprocessing.connection.wait([process.sentinel for process in running])
            for process in [process for process in running if process.exitcode is not None]:
                job = running.pop(process)
                if process.exitcode:
                    raise InputError(
                        f"{job.folder}: the training failed (exit status {process.exitcode}), for the reason above; "
                        "the same command goes on with what is not done yet."
                    )
    finally:
        for process in running:
            process.terminate()
            process.join()


def _score(given: argparse.Namespace) -> None:
    from speecheq.report import summarise
    from speecheq.score import score

    msud = given.data / "msud" / f"{given.target}.{given.protocol}"
    experiments = {}
    for _, fold, _, folder in _runs(given):
        score(folder, msud, fold)
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

    train = command("train", _train, "Stage 4: train systems on folds.")
    run_options(train)
    train.add_argument("--phonemes", help="the phoneme corpus, if any")
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

    def action() -> None:
        given = parser().parse_args(argv)
        given.run(given)

    return exit_status(action)


if __name__ == "__main__":
    sys.exit(main())
