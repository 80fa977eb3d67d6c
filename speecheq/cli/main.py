"""``speecheq``, the one console command: every stage of a recipe is one of its subcommands."""

import argparse
import multiprocessing
import multiprocessing.connection
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from speecheq.cluster import job_arrays
from speecheq.common.command_line import OneLineParser, exit_status, numbers, positive, positive_whole, true_or_false
from speecheq.common.errors import InputError
from speecheq.common.log import log, set_up_logging
from speecheq.common.stages import STAMP, Stage, planning
from speecheq.inference import predict_command

# Subcommands import what they need themselves, so that --help answers at once.


def _own_task(
    given: argparse.Namespace, title: str, *changed: str, logs: Path | None = None, stages: Iterable[Stage] = ()
) -> job_arrays.Task:
    """The command that was given, here and now, with some of its options changed, as a task of an array.

    ``stages``: those that it does.
    """
    command = job_arrays.speecheq(*job_arrays.without_options(given.arguments), *changed)
    return job_arrays.Task(title, command, logs, makes=tuple(stage.folder / STAMP for stage in stages))


# What one task of an array does, its title, the options that make it of the command, the folder of its log.
Part = tuple[Callable[[], Any], str, list[str], Path | None]


def _missing(given: argparse.Namespace, parts: Iterable[Part]) -> list[job_arrays.Task]:
    """Of the parts of a command those that are not done, as tasks."""
    tasks = []
    for work, title, changed, logs in parts:
        with planning() as missing:
            work()
        if missing:
            tasks.append(_own_task(given, title, *changed, logs=logs, stages=missing))
    return tasks


def _run_listed(given: argparse.Namespace) -> None:
    job_arrays.run(given.name, job_arrays.missing_of(sys.stdin.buffer.read()), job_arrays.Settings.of(given))


def _synth(given: argparse.Namespace) -> None:
    from speecheq.corpora.synthetic import synthesise

    for corpus in given.corpora:
        synthesise(corpus, given.out / corpus, given.size, given.seed)


def _corpora(given: argparse.Namespace) -> None:
    from speecheq.corpora.data_card import find_card, read_cards, where_from

    if given.prepared:
        from speecheq.common.files import read_json

        for name in given.names:
            path = given.prepared / name / f"{name}_card.json"
            if not path.is_file():
                raise InputError(f"{path}: stage 1 (manifests) has not been run for {name}; run it first.")
            if read_json(path)["labels"]:
                print(name)
    else:
        cards = read_cards()
        names = [name if name in cards else name.rpartition("_")[0] or name for name in given.names]  # esd_zh -> esd
        for name in dict.fromkeys(names or cards):
            log.info("%s", where_from(find_card(name)))


def _download(given: argparse.Namespace) -> None:
    from speecheq.corpora.data_card import find_card
    from speecheq.corpora.download import download

    print(download(find_card(given.corpus), given.out, given.parts, given.base_url))


def _import(given: argparse.Namespace) -> None:
    from speecheq.corpora.exchange import import_corpus

    import_corpus(
        given.source,
        given.name,
        given.out,
        given.labels,
        given.partial,
        given.hours,
        given.seed,
        given.nj,
        given.check_only,
    )


def _export(given: argparse.Namespace) -> None:
    from speecheq.corpora.exchange import export_corpus

    export_corpus(given.manifests, given.out)


def _check(given: argparse.Namespace) -> None:
    from speecheq.common.files import write_json
    from speecheq.corpora.audit import as_text, check

    report = check(given.manifests, given.nj)
    if given.json:
        write_json(given.json, report)
    print(as_text(report))


def _run_in_shares(
    given: argparse.Namespace, stage: str, missing: Mapping[Any, Sequence[int]], option: str, parts: str
) -> None:
    """The command that was given as an array: the missing parts of each whole in ``--nj`` jobs.

    ``option`` names a whole to the command, ``parts`` is what its parts are called there.
    """
    tasks = []
    for whole, of_whole in missing.items():
        size = -(-len(of_whole) // given.nj)
        for first in range(0, len(of_whole), size or 1):
            of_job = job_arrays.as_ranges(of_whole[first : first + size])
            tasks.append(
                _own_task(
                    given,
                    f"{whole}, {parts} {of_job}",
                    option,
                    str(whole),
                    f"--{parts}",
                    of_job,
                    "--nj",
                    given.cpus or "1",
                )
            )
    job_arrays.run(stage, tasks, job_arrays.Settings.of(given))


def _features(given: argparse.Namespace) -> None:
    from speecheq.common.command_line import parse_numbers
    from speecheq.features.storage import compute_features, missing_parts

    parts = parse_numbers(given.parts, "part") if given.parts else None
    folders = {
        corpus: (corpus, given.data / "manifests" / corpus, given.data / "fbank" / corpus) for corpus in given.corpora
    }
    nj = given.nj
    if given.cmd != job_arrays.LOCAL:
        missing = {corpus: found for corpus in folders if (found := missing_parts(*folders[corpus])) is not None}
        _run_in_shares(given, "features", missing, "--corpora", "parts")
        if given.dry_run:
            return
        folders, nj = {corpus: folders[corpus] for corpus in missing}, 1  # what is left to do is to join them
    for corpus in folders.values():
        compute_features(*corpus, nj, parts=parts)


def _phonemes(given: argparse.Namespace) -> None:
    from speecheq.dataset.phoneme_cuts import phonemes

    work = partial(
        phonemes,
        given.corpus,
        given.data / "manifests",
        given.data / "fbank",
        _phonemes_folder(given, given.corpus),
        given.units,
        given.bpe_size,
    )
    if given.cmd == job_arrays.LOCAL:
        work()
    else:
        job_arrays.run("phonemes", _missing(given, [(work, given.corpus, [], None)]), job_arrays.Settings.of(given))


def _phonemes_folder(given: argparse.Namespace, corpus: str) -> Path:
    """Other units than phones lie in a folder of their own."""
    return given.data / "phonemes" / (corpus if given.units == "phone" else f"{corpus}.{given.units}{given.bpe_size}")


def _unify(given: argparse.Namespace) -> None:
    from speecheq.dataset.msud import unify
    from speecheq.dataset.msud_recipe import Recipe, parse_use

    recipe = Recipe(
        given.target,
        given.protocol,
        given.corpora,
        given.dev,
        given.fold_seed,
        given.classes,
        given.neutral_eis,
        parse_use(given.use),
        given.folds_file,
        given.recipe_corpora,
    )
    work = partial(unify, recipe, given.folds, given.data / "manifests", given.data / "fbank", given.data / "msud")
    if given.cmd == job_arrays.LOCAL:
        work()
        return
    with planning() as stages:
        folds = work()
    missing = {stage.options["fold"]: stage for stage in stages}
    tasks = [
        _own_task(given, f"{recipe.name}, fold {fold}", "--folds", str(fold), stages=[missing[fold]])
        for fold in folds
        if fold in missing
    ]
    job_arrays.run("unify", tasks, job_arrays.Settings.of(given))


def _msud_folder(given: argparse.Namespace) -> Path:
    from speecheq.dataset.msud_recipe import experiment_name

    return given.data / "msud" / experiment_name(given.target, given.protocol, given.classes, given.neutral_eis)


def _runs(given: argparse.Namespace):
    """(system, fold, seed, its folder) of everything that was asked for."""
    from speecheq.common.command_line import parse_numbers
    from speecheq.dataset.msud import made_folds

    msud = _msud_folder(given)
    folds = made_folds(msud, given.folds)
    systems = list(dict.fromkeys(given.systems.replace(",", " ").split()))
    if not systems:
        raise InputError("--systems: names no system.")
    for system in systems:
        for fold in folds:
            for seed in parse_numbers(given.seeds, "seed"):
                folder = given.exp / f"{given.config.stem}-{system}" / msud.name / f"fold{fold}" / f"seed{seed}"
                yield system, fold, seed, folder


def _unchecked_trainings(given: argparse.Namespace) -> Iterator:
    """The trainings that were asked for, with their settings."""
    from speecheq.config.layers import resolve
    from speecheq.training.train import Job

    msud = _msud_folder(given)
    phonemes = _phonemes_folder(given, given.phonemes) if given.phonemes else None
    recipe = {"loss.ctc_backend": given.ctc_backend} if given.ctc_backend else {}
    recipe.update({"shar.use": True} if given.shar else {})
    for system, fold, seed, folder in _runs(given):
        config = resolve(given.config, given.systems_file, system, {**recipe, "run.seed": seed}, given.set)
        if config.run.seed != seed:
            raise InputError("--set run.seed: the seeds are given by --seeds.")
        yield Job(
            config,
            given.config.stem,
            tuple(given.set),
            system,
            msud,
            fold,
            phonemes,
            folder,
            given.init_from,
            given.noise,
            given.rir,
            given.unlabelled,
            given.data / "shar",
        )


def _trainings(given: argparse.Namespace, here: bool = True) -> list:
    """The same, all checked: a typing error shows at once, not after hours.

    ``here``: that this machine can run them too.
    """
    from speecheq.common.device import pick_device
    from speecheq.dataset.shard_reader import check_processes
    from speecheq.losses import resolve_ctc_backend
    from speecheq.training.train import Job, check, learns_phonemes

    trainings: list[Job] = []
    for job in _unchecked_trainings(given):
        trainings.append(job)
        check_processes(job.config, given.gpus * given.nodes)
        check(job, here)
    for backend, device in sorted(
        {(job.config.loss.ctc_backend, job.config.run.device) for job in trainings if here and learns_phonemes(job)}
    ):
        resolve_ctc_backend(backend, pick_device(device))
    return trainings


def _shar(given: argparse.Namespace) -> None:
    from speecheq.common.command_line import parse_numbers
    from speecheq.dataset.shard_reader import missing_shards, write_shards

    sets = {
        job.shards_of(source): (source, job.config.data.input)
        for job in _unchecked_trainings(given)
        for source in job.training_sets()
    }
    if given.only:
        sets = {out: found for out, found in sets.items() if out == given.only}
    shards = parse_numbers(given.shards, "shard") if given.shards else None
    nj = given.nj
    if given.cmd != job_arrays.LOCAL:
        missing = {
            out: found
            for out, (source, kind) in sets.items()
            if (found := missing_shards(source, out, kind, given.shard_clips)) is not None
        }
        _run_in_shares(given, "shar", missing, "--only", "shards")
        if given.dry_run:
            return
        sets, nj = {out: sets[out] for out in missing}, 1  # what is left to do is to stamp them
    for out, (source, kind) in sets.items():
        write_shards(source, out, kind, given.shard_clips, nj, shards)


def _of_run(work: Callable[[], Any], system: str, fold: int, seed: int, folder: Path) -> Part:
    return (
        work,
        f"{system}, fold {fold}, seed {seed}",
        ["--systems", system, "--folds", str(fold), "--seeds", str(seed)],
        folder,
    )


def _train(given: argparse.Namespace) -> None:
    from speecheq.cluster import distributed
    from speecheq.common.device import pick_device
    from speecheq.training.train import train

    if given.jobs > 1 and given.gpus * given.nodes > 1:
        raise InputError("--train-jobs is for trainings beside each other, --gpus for one at a time: give one of them.")
    if distributed.launched():  # by the lines below, or by torchrun itself
        with distributed.processes(given.rendezvous):
            with distributed.raise_together():
                trainings = _trainings(given)
            for job in trainings:
                train(job)
        return
    if given.cmd != job_arrays.LOCAL:
        if given.rendezvous:
            raise InputError(f"--rendezvous is for --cmd local: jobs of {given.cmd} find each other.")
        trainings = _trainings(given, here=False)
        on_gpus = any(job.config.run.device != "cpu" for job in trainings)
        parts = [
            _of_run(partial(train, job), job.system, job.fold, job.config.run.seed, job.folder) for job in trainings
        ]
        tasks = [replace(task, saves=task.logs / "last.pt") for task in _missing(given, parts)]
        job_arrays.run("train", tasks, job_arrays.Settings.of(given, given.gpus if on_gpus else 0, given.nodes))
        return
    trainings = _trainings(given)
    devices = [pick_device(job.config.run.device) for job in trainings]
    distributed.check_numbers(devices, given.gpus, given.nodes, given.rendezvous)
    if given.gpus * given.nodes > 1:
        distributed.launch(given.arguments, given.gpus, given.nodes, given.rendezvous)
    elif given.jobs == 1 or len(trainings) == 1:
        for job in trainings:
            train(job)
    else:
        _train_together(trainings, given.jobs)


def _train_one(job) -> None:
    from speecheq.training.train import train

    set_up_logging()
    sys.exit(exit_status(lambda: train(job)))


def _train_together(trainings: Sequence, at_once: int) -> None:
    """Train in processes of their own, ``at_once`` at a time; the first that fails ends all."""
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    waiting, running = list(trainings), {}
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
        for process in running:  # all at once: each saves where it is
            process.terminate()
        for process in running:
            process.join()


def _score(given: argparse.Namespace) -> None:
    from speecheq.config.layers import load
    from speecheq.evaluation.score import score

    msud = _msud_folder(given)
    if given.cmd == job_arrays.LOCAL:
        for _, fold, _, folder in _runs(given):
            score(folder, msud, fold, given.train_clips)
        return
    runs = list(_runs(given))
    tasks = _missing(given, [_of_run(partial(score, run[-1], msud, run[1], given.train_clips), *run) for run in runs])
    on_gpus = any(load(folder / "config.yaml").run.device != "cpu" for *_, folder in runs)
    job_arrays.run("score", tasks, job_arrays.Settings.of(given, gpus=int(on_gpus)))


def _robustness(given: argparse.Namespace) -> None:
    from speecheq.config.layers import load
    from speecheq.evaluation.robustness.attack_trial import LEVELS, ON, AttackTrial
    from speecheq.evaluation.robustness.cross_corpus_trial import CorpusTrial
    from speecheq.evaluation.robustness.noise_trial import SNRS, NoiseTrial
    from speecheq.evaluation.robustness.run_trials import try_conditions

    trials: list = []
    if "noise" in given.settings:
        if given.noise is None:
            raise InputError("robustness noise: no noise is given; give --noise MANIFESTS (run.sh: --test-noise DIR).")
        trials.append(NoiseTrial(given.noise, given.rir, tuple(given.snr or SNRS)))
    if "attack" in given.settings:
        levels = {
            "waveform": given.waveform_levels or LEVELS["waveform"],
            "fbank": given.fbank_levels or LEVELS["fbank"],
        }
        trials += [
            AttackTrial(on, tuple(dict.fromkeys(given.attacks)), tuple(levels[on])) for on in ON if on in given.on
        ]
    if "corpora" in given.settings:
        if not given.to:
            raise InputError("the setting corpora needs the names of some: give --to.")
        trials.append(
            CorpusTrial(
                tuple(dict.fromkeys(given.to)),
                given.data / "manifests",
                given.data / "fbank",
                tuple(dict.fromkeys(given.shots)),
            )
        )
    msud, runs = _msud_folder(given), list(_runs(given))

    def work(fold: int, folder: Path) -> None:
        for trial in trials:
            try_conditions(folder, msud, fold, trial)

    if given.cmd == job_arrays.LOCAL:
        for _, fold, _, folder in runs:
            work(fold, folder)
        return
    tasks = _missing(given, [_of_run(partial(work, run[1], run[-1]), *run) for run in runs])
    on_gpus = any(load(folder / "config.yaml").run.device != "cpu" for *_, folder in runs)
    job_arrays.run("robustness", tasks, job_arrays.Settings.of(given, gpus=int(on_gpus)))


def _report(given: argparse.Namespace) -> None:
    from speecheq.reporting.report import report

    print(report(given.exp, given.title, given.results, given.table))
    log.info(
        "the tables above lie in %s, as LaTeX and CSV in %s; %s leads to the report of each experiment",
        given.results,
        given.exp / "tables",
        given.exp / "report.html",
    )


def _readme(given: argparse.Namespace) -> None:
    from speecheq.reporting.readme_tables import update

    log.info("%s: %s", given.page, "written anew" if update(given.page) else "is up to date")


def _status(given: argparse.Namespace) -> None:
    from speecheq.reporting.recipe_status import Status, in_lines

    for line in in_lines(Status(given.data, given.exp, not given.no_corpora).all()):
        print(line)


def _listen(given: argparse.Namespace) -> None:
    from speecheq.inference.predictor import Predictor
    from speecheq.inference.trained_model import load_model
    from speecheq.inference.web_page import serve

    model = load_model(given.model, given.device)
    title = f"SpeechEQ: {Path(given.model).name}" if given.model else "SpeechEQ"
    serve(Predictor(model, gender=bool(model.labels.genders)), title, given.host, given.port)


def _package(given: argparse.Namespace) -> None:
    from speecheq.inference.model_folder import write

    write(given.experiment, given.out, given.name, given.licence)


def _export_model(given: argparse.Namespace) -> None:
    from speecheq.inference.export import export_model

    export_model(given.model, given.out, given.int8)


def _compare_models(given: argparse.Namespace) -> None:
    from speecheq.inference.compare_exports import as_text, compare_models

    print(as_text(compare_models(given.experiment, given.msud, given.models)))


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

    corpora = command("corpora", _corpora, "Say where corpora are to be had and under which terms.")
    corpora.add_argument("names", nargs="*", metavar="CORPUS", help="all, where none is named")
    corpora.add_argument(
        "--prepared",
        type=Path,
        metavar="MANIFESTS",
        help="print those that stage 1 prepared there and that have emotion labels",
    )

    download = command("download", _download, "Stage 0: download a corpus that is open.")
    download.add_argument("corpus", metavar="CORPUS")
    download.add_argument("--out", type=Path, required=True, help="a folder; the corpus gets one inside it")
    download.add_argument("--parts", nargs="+", metavar="PART", help="of LibriSpeech, such as train-clean-100")
    download.add_argument("--base-url", help="another server with the same files")

    imported = command("import", _import, "Stage 1 without a prep script: from a Kaldi data folder or a table.")
    imported.add_argument("source", type=Path, metavar="FOLDER_OR_TABLE")
    imported.add_argument("out", type=Path, metavar="OUT_DIR", help="the folder of its manifests")
    imported.add_argument("--name", required=True, help="of the corpus: small letters, digits, underscores")
    imported.add_argument("--labels", type=Path, help="what its labels mean (its own labels.yaml)")
    imported.add_argument("--partial", type=true_or_false, default=False, help="true: leave out lines without audio")
    imported.add_argument("--hours", type=positive, help="a seeded subset of so many hours of the training part")
    imported.add_argument("--seed", type=int, default=0, help="the seed of that subset")
    imported.add_argument("--nj", type=positive_whole, default=1, help="threads that read headers")
    imported.add_argument("--check-only", action="store_true", help="only check that it can be read")

    exported = command("export", _export, "Write a prepared corpus as a Kaldi data folder or a table.")
    exported.add_argument("manifests", type=Path, metavar="MANIFESTS", help="such as data/manifests/casia")
    exported.add_argument("out", type=Path, metavar="FOLDER_OR_TABLE", help="a table where it ends in .csv or .tsv")

    check = command("check", _check, "Listen to a prepared corpus: hours, speakers, labels, duplicates, faults.")
    check.add_argument("manifests", type=Path, metavar="MANIFESTS", help="such as data/manifests/casia")
    check.add_argument("--nj", type=positive_whole, default=2, help="threads")
    check.add_argument("--json", type=Path, help="write the figures to this file too")

    features = command("features", _features, "Stage 2: compute and store the features of prepared corpora.")
    features.add_argument("--data", type=Path, default=Path("data"))
    features.add_argument("--corpora", nargs="+", required=True, metavar="CORPUS")
    features.add_argument("--nj", type=positive_whole, default=2, help="processes; with --cmd, jobs a corpus")
    features.add_argument("--parts", help="only these parts of 250 clips, such as 0-3, which another run joins")
    job_arrays.add_options(features)

    def unit_options(made: argparse.ArgumentParser) -> None:
        made.add_argument("--units", choices=("phone", "bpe"), default="phone", help="what CTC learns")
        made.add_argument("--bpe-size", type=positive_whole, default=500, help="how many pieces, with --units bpe")

    def label_options(made: argparse.ArgumentParser) -> None:
        made.add_argument("--target", required=True)
        made.add_argument("--protocol", required=True)
        made.add_argument("--folds", default="all")
        made.add_argument("--classes", default="seqm", help="seqm: the nine of SEQM; corpus: the target's own")
        made.add_argument(
            "--neutral-eis",
            default="declared",
            help="EIS of neutral clips: as each corpus declares, SEQM's 0 (metric), or the corpus' own",
        )

    phonemes = command("phonemes", _phonemes, "Stage 3: the phoneme cuts of an ASR corpus, shared by all folds.")
    phonemes.add_argument("--data", type=Path, default=Path("data"))
    phonemes.add_argument("--corpus", required=True)
    unit_options(phonemes)
    job_arrays.add_options(phonemes)

    unify = command("unify", _unify, "Stage 3: unify corpora to MsUD, a fold at a time.")
    unify.add_argument("--data", type=Path, default=Path("data"))
    label_options(unify)
    unify.add_argument("--corpora", nargs="*", default=[], metavar="CORPUS", help="the corpora of MsUD")
    unify.add_argument(
        "--recipe-corpora",
        nargs="*",
        default=[],
        metavar="CORPUS",
        help="all that the recipe knows, to name those left out",
    )
    unify.add_argument(
        "--dev",
        default="auto",
        help="clips: 10 %% of the training clips; speaker: one speaker's; "
        "official: the corpus' own dev part; auto: that with the protocol official, else clips",
    )
    unify.add_argument(
        "--use",
        action="append",
        default=[],
        metavar="[CORPUS=]CATEGORY,...",
        help="take only these SEQM categories of a corpus (or of all)",
    )
    unify.add_argument("--folds-file", type=Path, help="a table of published folds: columns clip and test_fold")
    unify.add_argument("--fold-seed", type=int, default=0)
    job_arrays.add_options(unify)

    def run_options(made: argparse.ArgumentParser) -> None:
        made.add_argument("--data", type=Path, default=Path("data"))
        made.add_argument("--exp", type=Path, default=Path("exp"))
        made.add_argument("--config", type=Path, required=True, help="the size: a file of conf/")
        made.add_argument("--systems", required=True, help="names of conf/systems.yaml")
        label_options(made)
        made.add_argument("--seeds", default="1")
        job_arrays.add_options(made)

    def training_options(made: argparse.ArgumentParser) -> None:
        run_options(made)
        made.add_argument("--phonemes", help="the phoneme corpus, if any")
        unit_options(made)
        made.add_argument("--systems-file", type=Path, default=Path("conf/systems.yaml"))
        made.add_argument(
            "--init-from",
            type=Path,
            metavar="CHECKPOINT",
            help="start from the weights of a trained model, also of other labels",
        )
        made.add_argument("--noise", type=Path, metavar="MANIFESTS", help="noises for augmented waveforms")
        made.add_argument(
            "--rir", type=Path, metavar="MANIFESTS", help="room impulse responses for augmented waveforms"
        )
        made.add_argument(
            "--unlabelled",
            type=Path,
            metavar="MANIFESTS",
            help="unlabelled speech, for systems that learn from it (MTL-AUG)",
        )
        made.add_argument("--ctc-backend", choices=("k2", "torch", "auto"))
        made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting")

    shar = command("shar", _shar, "Stage 3: write what trainings read as Lhotse Shar; their options, and these.")
    training_options(shar)
    shar.add_argument("--shard-clips", type=positive_whole, default=1000, help="clips a shard")
    shar.add_argument("--nj", type=positive_whole, default=2, help="processes; with --cmd, jobs a set")
    shar.add_argument("--only", type=Path, metavar="FOLDER", help="only the set whose shards lie there")
    shar.add_argument("--shards", help="only these shards, such as 0-9, which another run stamps")
    shar.set_defaults(shar=True)

    train = command("train", _train, "Stage 4: train systems on folds.")
    training_options(train)
    train.add_argument("--shar", action="store_true", help="read training clips from the shards of stage 3")
    train.add_argument("--jobs", type=positive_whole, default=1, help="trainings at once on this machine")
    train.add_argument(
        "--gpus",
        type=positive_whole,
        default=1,
        help="GPUs of this machine that share each training; on a CPU so many processes",
    )
    train.add_argument("--nodes", type=positive_whole, default=1, help="machines that share each training")
    train.add_argument("--rendezvous", metavar="HOST:PORT", help="where several nodes meet: one of them, a free port")

    listed = command("jobs", _run_listed, "Run commands that standard input lists as jobs, those that are not done.")
    listed.add_argument("--name", required=True, help="of the stage")
    job_arrays.add_options(listed)

    score = command("score", _score, "Stage 5: score trained folds.")
    run_options(score)
    score.add_argument(
        "--train-clips",
        action="store_true",
        help="the target's training clips too, for the distributions of EIS (Figure 3)",
    )

    robustness = command(
        "robustness", _robustness, "Stage 5 under other conditions: on other corpora, in noise, under attack."
    )
    robustness.add_argument(
        "settings", nargs="+", choices=("corpora", "noise", "attack"), metavar="corpora|noise|attack"
    )
    run_options(robustness)
    robustness.add_argument(
        "--to",
        nargs="+",
        default=[],
        metavar="CORPUS",
        help="of corpora: prepared corpora that the system was not trained on",
    )
    robustness.add_argument(
        "--shots",
        nargs="+",
        type=positive_whole,
        default=[],
        metavar="N",
        help="of corpora: adapt the model first, by so many labelled clips of each class",
    )
    robustness.add_argument("--noise", type=Path, metavar="MANIFESTS", help="noises of the test, none of the training")
    robustness.add_argument(
        "--rir",
        type=Path,
        metavar="MANIFESTS",
        help="room impulse responses of the test; without them reverberation is simulated",
    )
    robustness.add_argument("--snr", type=numbers, metavar="LIST", help='of the noise, in dB (default: "20 15 10 5 0")')
    attacks = ("fgsm", "bim", "pgd", "apgd", "apgd_dlr")
    robustness.add_argument("--attacks", nargs="+", choices=attacks, default=attacks, help="(default: all)")
    robustness.add_argument(
        "--on",
        nargs="+",
        choices=("waveform", "fbank"),
        default=["waveform", "fbank"],
        help="what the attacks change (default: each in turn)",
    )
    robustness.add_argument(
        "--waveform-levels",
        type=numbers,
        metavar="LIST",
        help="the largest change of a sample, in dB relative to the clip's RMS, given with = "
        '(default: "-80 -70 -60 -50 -40 -30")',
    )
    robustness.add_argument(
        "--fbank-levels",
        type=numbers,
        metavar="LIST",
        help='the largest change of an energy, in dB (default: "0.03 0.1 0.3 1 3")',
    )

    report = command("report", _report, "Stage 5: the tables of all experiments of a recipe, from their score files.")
    report.add_argument("--exp", type=Path, default=Path("exp"))
    report.add_argument("--title", required=True)
    report.add_argument("--results", type=Path, required=True, help="the page to write")
    report.add_argument("--table", type=Path, help="conf/table.yaml: the paper's table, to be set beside ours")

    readme = command("readme", _readme, "Write the tables of corpora and results into README.md.")
    readme.add_argument("page", type=Path, metavar="README")

    status = command("status", _status, "What of a recipe is done, stale or missing, and the time and disk it took.")
    status.add_argument("--data", type=Path, default=Path("data"))
    status.add_argument("--exp", type=Path, default=Path("exp"))
    status.add_argument("--no-corpora", action="store_true", help="do not look whether the corpora have changed")

    predict_command.add_arguments(command("predict", predict_command.run, "Predict the emotions in recordings."))

    listen = command("listen", _listen, "Serve a page that predicts what a microphone or a file gives.")
    listen.add_argument("--model", metavar="MODEL", help="as of speecheq predict")
    listen.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    listen.add_argument("--host", default="127.0.0.1", help="0.0.0.0: whoever reaches this machine may use it")
    listen.add_argument("--port", type=positive_whole, default=7860)

    package = command("package", _package, "Make a model folder of a trained and scored fold.")
    package.add_argument("experiment", type=Path, metavar="EXPERIMENT", help="such as exp/.../fold1/seed1")
    package.add_argument("out", type=Path, metavar="FOLDER")
    package.add_argument("--name", default="", help="heads the model card (default: the folder's name)")
    package.add_argument("--licence", default="", help="of the weights, such as apache-2.0")

    exported_model = command("export-model", _export_model, "Write a trained model as ONNX or for torch.export.")
    exported_model.add_argument("model", metavar="MODEL", help="a best.pt, a model folder or a hub id")
    exported_model.add_argument("out", type=Path, metavar="FILE", help="ends in .onnx or .pt2")
    exported_model.add_argument("--int8", action="store_true", help="keep the weights of an ONNX file in 8 bits")

    compared = command("compare-models", _compare_models, "Score forms of a model on a fold's test clips.")
    compared.add_argument("experiment", type=Path, metavar="EXPERIMENT", help="such as exp/.../fold1/seed1")
    compared.add_argument("models", nargs="+", metavar="MODEL", help="such as model.onnx model.int8.onnx")
    compared.add_argument("--msud", type=Path, required=True, help="such as data/msud/casia.random10")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0; 1 after a fault of the input, which is printed as one sentence."""
    set_up_logging()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)

    def action() -> None:
        given = parser().parse_args(argv)
        given.arguments = sys.argv[1:] if argv is None else list(argv)
        given.run(given)

    return exit_status(action)


if __name__ == "__main__":
    sys.exit(main())
