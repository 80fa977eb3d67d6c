"""The commands that read trainings' options: train (stage 4), and shar (stage 3), which writes what they read."""

import multiprocessing
import multiprocessing.connection
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speecheq.cli.job_parts import missing_tasks, run_part, share_out
from speecheq.cli.options import (
    Commands,
    Run,
    add_command,
    add_run_options,
    add_unit_options,
    config_name,
    features_name,
    msud_folder,
    phonemes_folder,
    runs,
)
from speecheq.cluster import job_arrays
from speecheq.cluster.job_options import LOCAL, Settings
from speecheq.common.command_line import exit_status, parse_numbers, positive_whole
from speecheq.common.errors import InputError
from speecheq.common.log import set_up_logging

if TYPE_CHECKING:
    from speecheq.training.job import Job


def _unchecked_jobs(options: Namespace) -> Iterator["Job"]:
    """The trainings that were asked for, with their settings."""
    from speecheq.config.feature_sets import require_prepared
    from speecheq.config.layers import resolve
    from speecheq.config.phonemes import lattice_options
    from speecheq.training.job import Job

    msud = msud_folder(options)
    features = features_name(options)
    encoder = require_prepared(options.data, features)
    recipe: dict[str, Any] = {"data.features": features}
    if options.ctc_backend:
        recipe["loss.ctc_backend"] = options.ctc_backend
    chosen = lattice_options(options.pronunciations, options.silence)
    recipe.update({f"phonemes.{key}": value for key, value in chosen.items()})
    if options.shar:
        recipe["shar.use"] = True
    for system, fold, seed, folder in runs(options):
        config = resolve(
            options.config, options.systems_file, system, {**recipe, "run.seed": seed}, options.set, encoder
        )
        if config.data.features != features:
            raise InputError("--set data.features: the feature set is given by --features.")
        if config.run.seed != seed:
            raise InputError("--set run.seed: the seeds are given by --seeds.")
        yield Job(
            config=config,
            config_name=config_name(options),
            assignments=tuple(options.set),
            system=system,
            msud=msud,
            fold=fold,
            phonemes=phonemes_folder(options, options.phonemes) if options.phonemes else None,
            folder=folder,
            init_from=options.init_from,
            noise=options.noise,
            rir=options.rir,
            unlabelled=options.unlabelled,
            shards=options.data / "shar",
            states=None if encoder is None else options.data / features,
        )


def _jobs(options: Namespace, here: bool = True) -> list["Job"]:
    """The trainings that were asked for, all checked before the first begins.

    ``here``: also check that this machine can run them.
    """
    from speecheq.common.device import pick_device
    from speecheq.dataset.shard_reader import check_processes
    from speecheq.losses import resolve_ctc_backend
    from speecheq.training.job import check

    jobs = []
    for job in _unchecked_jobs(options):
        jobs.append(job)
        check_processes(job.config, options.gpus * options.nodes)
        check(job, here)
    backends = {
        (job.config.loss.ctc_backend, job.config.run.device, job.config.phonemes.lattices)
        for job in jobs
        if here and job.phoneme_folder()
    }
    for backend, device, lattices in sorted(backends):
        resolve_ctc_backend(backend, pick_device(device), lattices)
    return jobs


def _shar(options: Namespace) -> None:
    from speecheq.dataset.shard_writer import missing_shards, write_shards

    sets = {
        job.shards_of(source): (source, job.config.data.input)
        for job in _unchecked_jobs(options)
        for source in job.training_sets()
    }
    if options.only:
        sets = {out: found for out, found in sets.items() if out == options.only}
    shards = parse_numbers(options.shards, "shard") if options.shards else None

    def missing(out: Path) -> list[int] | None:
        source, kind = sets[out]
        return missing_shards(source, out, kind, options.shard_clips)

    left, nj = share_out(options, "shar", sets, missing, ("--only", "--shards"))
    for out in left:
        source, kind = sets[out]
        write_shards(source, out, kind, options.shard_clips, nj, shards)


def _train(options: Namespace) -> None:
    from speecheq.cluster import distributed, torchrun
    from speecheq.common.device import pick_device
    from speecheq.training.train import train

    if options.jobs > 1 and options.gpus * options.nodes > 1:
        raise InputError("--train-jobs is for trainings beside each other, --gpus for one at a time: give one of them.")
    if distributed.launched():  # by the lines below, or by torchrun itself
        with distributed.process_group(options.rendezvous):
            with distributed.raise_together():
                jobs = _jobs(options)
            for job in jobs:
                train(job)
        return
    if options.cmd != LOCAL:
        _submit(options)
        return
    jobs = _jobs(options)
    devices = [pick_device(job.config.run.device) for job in jobs]
    torchrun.check_process_numbers(devices, options.gpus, options.nodes, options.rendezvous)
    if options.gpus * options.nodes > 1:
        torchrun.launch(options.arguments, options.gpus, options.nodes, options.rendezvous)
    elif options.jobs == 1 or len(jobs) == 1:
        for job in jobs:
            train(job)
    else:
        train_together(jobs, options.jobs)


def _submit(options: Namespace) -> None:
    from speecheq.training.train import train

    if options.rendezvous:
        raise InputError(f"--rendezvous is for --cmd local: jobs of {options.cmd} find each other.")
    jobs = _jobs(options, here=False)
    on_gpus = any(job.config.run.device != "cpu" for job in jobs)
    parts = [run_part(Run(job.system, job.fold, job.config.run.seed, job.folder), partial(train, job)) for job in jobs]
    tasks = [replace(task, saves=task.logs and task.logs / "last.pt") for task in missing_tasks(options, parts)]
    job_arrays.run("train", tasks, Settings.from_options(options, options.gpus if on_gpus else 0, options.nodes))


def _train_one(job: "Job") -> None:
    from speecheq.training.train import train

    set_up_logging()
    sys.exit(exit_status(lambda: train(job)))


def train_together(jobs: Sequence["Job"], at_once: int) -> None:
    """Train in processes of their own, ``at_once`` at a time; the first that fails ends all."""
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    waiting = list(jobs)
    running: dict[multiprocessing.process.BaseProcess, Job] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                process = context.Process(target=_train_one, args=(waiting[0],))
                process.start()
                running[process] = waiting.pop(0)
            multiprocessing.connection.wait([process.sentinel for process in running])
            for ended in [process for process in running if process.exitcode is not None]:
                job = running.pop(ended)
                if ended.exitcode:
                    raise InputError(
                        f"{job.folder}: the training failed (exit status {ended.exitcode}), for the reason above; "
                        "the same command goes on with what is not done yet."
                    )
    finally:
        for left in running:  # all at once: each saves where it is
            left.terminate()
        for left in running:
            left.join()


def _add_training_options(parser: ArgumentParser) -> None:
    add_run_options(parser)
    add = parser.add_argument
    add("--phonemes", help="corpus of the phoneme task, if there is one")
    add_unit_options(parser)
    add(
        "--systems-file",
        type=Path,
        default=Path("conf/systems.yaml"),
        help="file of the systems (default: conf/systems.yaml)",
    )
    add(
        "--init-from",
        type=Path,
        metavar="CHECKPOINT",
        help="start from the weights of a trained model (a best.pt or a model folder), which may have other labels",
    )
    add("--noise", type=Path, metavar="MANIFESTS", help="noises to augment waveforms with")
    add("--rir", type=Path, metavar="MANIFESTS", help="room impulse responses to augment waveforms with")
    add(
        "--unlabelled",
        type=Path,
        metavar="MANIFESTS",
        help="unlabelled speech, for systems that learn from it (MTL-AUG)",
    )
    add("--ctc-backend", choices=("k2", "torch", "auto"), help="library that computes the CTC loss")
    add(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting; may be given several times"
    )


def add_commands(commands: Commands) -> None:
    """Add shar and train."""
    shar = add_command(
        commands, "shar", _shar, "Stage 3: write what trainings read as Lhotse Shar; takes the options of train too."
    )
    _add_training_options(shar)
    add = shar.add_argument
    add("--shard-clips", type=positive_whole, default=1000, help="clips per shard (default: 1000)")
    add("--nj", type=positive_whole, default=2, help="processes, or with --cmd jobs per set (default: 2)")
    add("--only", type=Path, metavar="FOLDER", help="write only the set whose shards are in this folder")
    add("--shards", help="write only these shards, such as 0-9, and leave stamping the set to another run")
    shar.set_defaults(shar=True)

    train = add_command(commands, "train", _train, "Stage 4: train systems on folds.")
    _add_training_options(train)
    add = train.add_argument
    add("--shar", action="store_true", help="read training clips from the shards of stage 3")
    add("--jobs", type=positive_whole, default=1, help="trainings at once on this machine (default: 1)")
    add(
        "--gpus",
        type=positive_whole,
        default=1,
        help="GPUs of this machine that share each training, or on a CPU processes (default: 1)",
    )
    add("--nodes", type=positive_whole, default=1, help="machines that share each training (default: 1)")
    add("--rendezvous", metavar="HOST:PORT", help="where several machines meet: one of them and a free port of it")
