"""Stage 4: one training, from the data of stage 3 to its checkpoints."""

import copy
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch

from speecheq.cluster import distributed
from speecheq.common.device import pick_device
from speecheq.common.files import write_fault_is_an_input_error, write_json
from speecheq.common.log import log
from speecheq.common.provenance import run_information
from speecheq.common.stages import Stage, require
from speecheq.config import layers as configuration
from speecheq.config.schema import Config
from speecheq.corpora.audio_folder import files_and_hours
from speecheq.dataset import shard_reader
from speecheq.dataset.msud import load_fold
from speecheq.evaluation.former_runs import make_room
from speecheq.evaluation.score import FORMATS
from speecheq.evaluation.score_files import EMBEDDINGS, METRICS, PHONES, SCORES, TRAINING_SCORES
from speecheq.losses import resolve_ctc_backend
from speecheq.models import checkpoint
from speecheq.training.job import Job
from speecheq.training.log_file import log_to_file
from speecheq.training.precision import Precision
from speecheq.training.range_of_clips import add_range
from speecheq.training.state import find_checkpoint
from speecheq.training.step import StepSetup
from speecheq.training.trainer import Trainer
from speecheq.training.training_data import TrainingData, esc_weights, load_training_data

FORMAT = 3


def _make_stage(job: Job, note: Mapping[str, Any]) -> Stage:
    """Raise InputError if an earlier stage is missing or a setting cannot be met."""
    phonemes = job.phoneme_folder()
    if phonemes is not None:
        require(phonemes, "unify")
    inputs = [*job.training_sets(), *job.audio_folders().values(), *job.states_folders()]
    if job.config.shar.use:
        shard_reader.check_processes(job.config, distributed.size())
        inputs += [job.shards_of(training_set) for training_set in job.training_sets()]
    options = {
        "config": configuration.learned(job.config),
        "config_name": job.config_name,
        "system": job.system,
        "fold": job.fold,
        "init_from": None if job.init_from is None else checkpoint.fingerprint(job.init_from),
    }
    return Stage("train", f"{job.config_name}, {note['name']}: {job.name}", job.folder, options, inputs, FORMAT)


def _open_folder(stage: Stage, opened: ExitStack) -> tuple[bool, dict[str, Any] | None]:
    """Lock the training's folder, keep a run with other settings aside, remove what is out of date, log to it.

    Returns: whether the training still needs to run (another process may have done it meanwhile); the content of the
    checkpoint to resume from, None if there is none.
    """
    folder = stage.folder
    if not opened.enter_context(stage.locked(wait=False)):
        return False, None
    with write_fault_is_an_input_error(folder):
        if make_room(stage) and not stage.needs_run():
            return False, None
        folder.mkdir(parents=True, exist_ok=True)
    content = find_checkpoint(folder, stage.key)
    stage.invalidate()
    # they describe the earlier model
    for stamps in FORMATS:
        shutil.rmtree(folder / stamps, ignore_errors=True)
    for stale in (SCORES, PHONES, METRICS, TRAINING_SCORES, EMBEDDINGS):
        (folder / stale).unlink(missing_ok=True)
    if content is None:
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        for bad in folder.glob("bad_step*.pt"):
            bad.unlink()
    opened.enter_context(log_to_file(folder / "train.log", "w" if content is None else "a"))
    return True, content


def _set_up(config: Config, data: TrainingData, device: torch.device) -> StepSetup:
    """Set the data-dependent settings in ``config``, the CTC backend and the class weights."""
    config.model.num_esc = len(data.classes.names)
    config.data.speech_activity = data.speech_activity
    ctc_backend = "none"
    if data.phones:
        config.model.num_phones = len(data.phones)
        ctc_backend = resolve_ctc_backend(config.loss.ctc_backend, device, config.phonemes.lattices)
    weights = esc_weights(config, data.cut_sets["emotion"], device)
    return StepSetup(config, ctc_backend, Precision(config.run.precision, device), weights)


def _describe(job: Job, note: Mapping[str, Any], setup: StepSetup) -> dict[str, Any]:
    """The content of run.json: the model, data, versions and machine."""
    return run_information(
        system=job.system,
        config_name=job.config_name,
        assignments=list(job.assignments),
        phonemes=None if setup.ctc_backend == "none" else str(job.phonemes),
        fold=job.fold,
        seed=setup.config.run.seed,
        msud=note,
        ctc_backend=setup.ctc_backend,
        device=str(setup.device),
        threads=torch.get_num_threads(),
        processes=distributed.size(),
        init_from=None if job.init_from is None else str(job.init_from),
        states=None if job.states is None else str(job.states),
        sounds={
            kind: {"manifests": str(folder), **files_and_hours(folder)} for kind, folder in job.audio_folders().items()
        },
    )


def _finish(stage: Stage, trainer: Trainer, information: dict[str, Any]) -> None:
    """Write the outcome to run.json, and the stage's stamp."""
    state, best = trainer.state, trainer.state.best
    assert best is not None, "the last step ends an epoch"
    outcome = {"steps": state.step, "train_seconds": round(state.seconds, 1), "best": best}
    write_json(stage.folder / "run.json", {**information, **outcome})
    log.info(
        "%s: %d steps in %.0f s (%.2f s a step); %s",
        trainer.name,
        state.step,
        state.seconds,
        state.seconds / state.step,
        f"best dev UA {best['dev']['ua']:.3f} at epoch {best['epoch']}" if best["dev"] else "without a dev part",
    )
    clips = trainer.data.clips + len(trainer.data.dev)
    stage.finish(stage.folder, clips, clips, outputs=["config.yaml", "run.json", "last.pt", "best.pt"], unit="clips")


def train(job: Job) -> None:
    """Stage 4 for one job: leaves config.yaml, run.json, train.log, TensorBoard events, last.pt and best.pt.

    ``best.pt`` is the epoch with the highest UA on the dev part (of equals, the one with the lower ESC loss). An
    interrupted training resumes from its last.pt and ends with the same weights as without the interruption. SIGTERM
    and SIGINT end the process after the running step (or the running scoring of the dev part), with that step saved.
    Several processes (distributed.py) call this alike and train together. Raises InputError if an earlier stage is
    missing, a setting cannot be met, the disk is full, or another training writes to the same folder.
    """
    config = copy.deepcopy(job.config)
    with distributed.raise_together():
        note = load_fold(job.msud, job.fold)
        stage = _make_stage(job, note)
        weights = None if job.init_from is None else checkpoint.read_start(job.init_from, config)
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
            if weights is not None:  # what they have learned with
                config.data.cmvn = checkpoint.read_config(weights, str(job.init_from)).data.cmvn
            together = f", in {distributed.size()} processes" if distributed.size() > 1 else ""
            log.info("training %s on %s%s", stage.title, device, together)
            data = load_training_data(job, config, note, device)
            setup = _set_up(config, data, device)
            information = _describe(job, note, setup)
            if distributed.is_first():
                configuration.save(config, job.folder / "config.yaml")
                write_json(job.folder / "run.json", information)
        if content is not None:
            trainer = Trainer.resume(job.name, stage, data, setup, content)
        else:
            trainer = Trainer.start(job.name, stage, data, setup, weights)
        trainer.run()
        if distributed.is_first():
            add_range(job.folder / "best.pt", data, job.states, device)
            _finish(stage, trainer, information)
