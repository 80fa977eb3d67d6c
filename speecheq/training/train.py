"""Stage 4: one training, from what stage 3 left to its checkpoints."""

import copy
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch

from speecheq.cluster import distributed
from speecheq.common.device import pick_device
from speecheq.common.files import write_fault_is_an_input_error, write_json
from speecheq.common.log import log
from speecheq.common.provenance import run_information
from speecheq.common.stages import Stage
from speecheq.config import layers as configuration
from speecheq.config.schema import Config
from speecheq.corpora.audio_folder import files_and_hours
from speecheq.dataset import shard_reader
from speecheq.dataset.classes import class_table
from speecheq.dataset.msud import load_fold
from speecheq.losses import resolve_ctc_backend
from speecheq.models import checkpoint
from speecheq.training.job import Job
from speecheq.training.log_file import log_to_file
from speecheq.training.precision import Precision
from speecheq.training.state import TrainingState, find_checkpoint
from speecheq.training.step import StepSetup
from speecheq.training.trainer import Run, Trainer
from speecheq.training.training_data import PhonemeData, esc_weights, load_phoneme_data, load_training_data

# Raised when what training writes changes its meaning.
FORMAT = 3


@dataclass(frozen=True)
class _Prepared:
    """A training before its folder is opened: settings, a description of the fold's data, its stage."""

    job: Job
    config: Config  # the job's, to be fitted to the data
    note: dict[str, Any]
    phoneme_data: PhonemeData | None
    start_weights: dict[str, Any] | None  # the checkpoint that job.init_from names
    stage: Stage


def _prepare(job: Job) -> _Prepared:
    """Read what the stage key is made of; InputError if an earlier stage is missing or a setting cannot be met."""
    config = copy.deepcopy(job.config)
    note = load_fold(job.msud, job.fold)
    phoneme_data = load_phoneme_data(job)
    inputs = [*job.training_sets(), *job.audio_folders().values()]
    if config.shar.use:
        shard_reader.check_processes(config, distributed.size())
        inputs += [job.shards_of(training_set) for training_set in job.training_sets()]
    start_weights, fingerprint = None, None
    if job.init_from is not None:
        start_weights = checkpoint.read_start(job.init_from, config)
        fingerprint = checkpoint.fingerprint(job.init_from)
    options = {
        "config": configuration.learned(config),
        "config_name": job.config_name,
        "system": job.system,
        "fold": job.fold,
        "init_from": fingerprint,
    }
    title = f"{job.config_name}, {note['name']}: {job.name}"
    stage = Stage("train", title, job.folder, options, inputs, FORMAT)
    return _Prepared(job, config, note, phoneme_data, start_weights, stage)


def _open_folder(stage: Stage, opened: ExitStack) -> tuple[bool, dict[str, Any] | None]:
    """Lock the training's folder, remove what is out of date, log to it.

    Returns: whether there is still something to do, as another process may have done it meanwhile; the content of the
    checkpoint to resume from, None if there is none.
    """
    folder = stage.folder
    if not opened.enter_context(stage.locked(wait=False)):
        return False, None
    with write_fault_is_an_input_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
    content = find_checkpoint(folder, stage.key)
    stage.invalidate()
    # they describe the model that was here before
    for stale in ("scores.tsv", "phones.tsv", "metrics.json", "train_scores.tsv", "embeddings.npz"):
        (folder / stale).unlink(missing_ok=True)
    if content is None:
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        for bad in folder.glob("bad_step*.pt"):
            bad.unlink()
    opened.enter_context(log_to_file(folder / "train.log", "w" if content is None else "a"))
    return True, content


def _fit_to_data(prepared: _Prepared, device: torch.device) -> StepSetup:
    """Set what the data decide in the settings, and choose the CTC backend."""
    config, job = prepared.config, prepared.job
    if prepared.phoneme_data is not None:
        config.model.num_phones = len(prepared.phoneme_data.phones)
    config.model.num_esc = len(class_table(prepared.note).names)
    if prepared.start_weights is not None:  # what the weights have learned with
        config.data.cmvn = checkpoint.read_config(prepared.start_weights, str(job.init_from)).data.cmvn
    ctc_backend = "none"
    if prepared.phoneme_data is not None:
        ctc_backend = resolve_ctc_backend(config.loss.ctc_backend, device)
    return StepSetup(config, ctc_backend, Precision(config.run.precision, device))


def _describe(prepared: _Prepared, setup: StepSetup) -> dict[str, Any]:
    """The content of run.json: what is trained on which data, with which versions and where."""
    job = prepared.job
    return run_information(
        system=job.system,
        config_name=job.config_name,
        assignments=list(job.assignments),
        phonemes=str(job.phonemes) if prepared.phoneme_data is not None else None,
        fold=job.fold,
        seed=setup.config.run.seed,
        msud=prepared.note,
        ctc_backend=setup.ctc_backend,
        device=str(setup.device),
        threads=torch.get_num_threads(),
        processes=distributed.size(),
        init_from=str(job.init_from) if job.init_from is not None else None,
        sounds={
            kind: {"manifests": str(folder), **files_and_hours(folder)} for kind, folder in job.audio_folders().items()
        },
    )


def _finish(prepared: _Prepared, state: TrainingState, information: dict[str, Any], clips: int) -> None:
    """Write the outcome to run.json and the stage's stamp; ``clips`` emotion clips were learned from."""
    folder, best = prepared.job.folder, state.best
    assert best is not None, "the last step ends an epoch"
    outcome = {"steps": state.step, "train_seconds": round(state.seconds, 1), "best": best}
    write_json(folder / "run.json", {**information, **outcome})
    log.info(
        "%s: %d steps in %.0f s (%.2f s a step); best dev UA %.3f at epoch %d",
        prepared.job.name,
        state.step,
        state.seconds,
        state.seconds / state.step,
        best["dev"]["ua"],
        best["epoch"],
    )
    used = clips + prepared.note["sets"]["dev"]["clips"]
    outputs = ["config.yaml", "run.json", "last.pt", "best.pt"]
    prepared.stage.finish(folder, used, used, outputs=outputs, unit="clips")


def train(job: Job) -> None:
    """Stage 4 for one job: leaves config.yaml, run.json, train.log, TensorBoard events, last.pt and best.pt.

    ``best.pt`` is the epoch with the highest UA on the dev part (of equals, the one with the lower ESC loss).
    A training that was broken off goes on from its last.pt and ends with the weights it would have had anyway. SIGTERM
    and SIGINT end the process after the running step (or the running scoring of the dev part), with that step saved.
    Several processes (distributed.py) call this alike and train together.
    InputError if an earlier stage is missing, a setting cannot be met, the disk is full, or another training writes to
    the same folder.
    """
    with distributed.raise_together():
        prepared = _prepare(job)
    config, stage = prepared.config, prepared.stage
    if not distributed.broadcast(lambda: stage.needs_run() and not stage.added_to_plan()):
        return
    with distributed.raise_together():
        device = pick_device(config.run.device)
    device = distributed.set_device(device)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)

    with ExitStack() as opened:
        is_missing, content = distributed.broadcast(lambda: _open_folder(stage, opened))
        if not is_missing:
            return
        with distributed.raise_together():
            setup = _fit_to_data(prepared, device)
            information = _describe(prepared, setup)
            if distributed.is_first():
                configuration.save(config, job.folder / "config.yaml")
                write_json(job.folder / "run.json", information)
            together = f", in {distributed.size()} processes" if distributed.size() > 1 else ""
            log.info("training %s on %s%s", stage.title, device, together)
            data = load_training_data(job, config, prepared.note, prepared.phoneme_data, device)
            setup = replace(setup, class_weights=esc_weights(config, data.cut_sets["emotion"], device))
        run = Run(job.name, job.folder, stage.key)
        if content is not None:
            trainer = Trainer.resume(run, data, setup, content)
        else:
            trainer = Trainer.start(run, data, setup, prepared.start_weights)
        trainer.run()
        if distributed.is_first():
            _finish(prepared, trainer.state, information, data.clips)
