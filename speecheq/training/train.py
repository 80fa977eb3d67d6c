"""A training from its first step to its best model: epochs, dev scores, checkpoints (steps are in step.py)."""

import copy
import logging
import math
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut

from speecheq.cluster import distributed
from speecheq.common.device import pick_device
from speecheq.common.errors import InputError
from speecheq.common.files import write_fault_is_an_input_error, write_json
from speecheq.common.log import log
from speecheq.common.progress import Progress
from speecheq.common.provenance import run_information
from speecheq.common.signals import StopRequest
from speecheq.common.stages import Stage, require
from speecheq.config import layers as configuration
from speecheq.config.schema import Config
from speecheq.corpora.audio_folder import files_and_hours, recordings_manifest
from speecheq.dataset import shard_reader
from speecheq.dataset.batch import MultitaskBatch, Position, join_shares
from speecheq.dataset.classes import class_table
from speecheq.dataset.frontend import Frontend
from speecheq.dataset.lazy_cuts import open_cuts, sample_cuts
from speecheq.dataset.loader import ClipSource, largest_batch, multitask_batches, training_cuts
from speecheq.dataset.msud import load_fold
from speecheq.dataset.phones.phone_table import PhoneTable
from speecheq.dataset.shard_writer import shard_folder
from speecheq.dataset.unlabelled import unlabelled_cuts
from speecheq.evaluation import metrics
from speecheq.evaluation.predictions import emotion_scores, esc_loss, phone_scores, predict_emotions, predict_phones
from speecheq.features.storage import load_features
from speecheq.losses import inverse_weights, resolve_ctc_backend
from speecheq.models import checkpoint
from speecheq.models.normalisation import Normalised
from speecheq.seqm import ClassTable
from speecheq.training.optimizer import AverageModel, build_optimizer
from speecheq.training.precision import NotFinite, Precision, restore, save_batch, snapshot
from speecheq.training.schedule import Schedule
from speecheq.training.state import TrainingState, find_checkpoint, seed_step
from speecheq.training.step import check_memory, in_short, train_step
from speecheq.training.tensorboard import confusion_picture

# Raised when what training writes changes its meaning.
FORMAT = 3
# So many cuts of each set, at most, give the mean and deviation of global normalisation.
CMVN_CUTS = 1000


@dataclass(frozen=True)
class Job:
    """One training: a system on one fold with one seed, and where its folder is."""

    config: Config
    config_name: str
    assignments: tuple[str, ...]  # of --set
    system: str
    msud: Path
    fold: int
    phonemes: Path | None
    folder: Path
    init_from: Path | None = None  # a checkpoint whose weights it starts from
    noise: Path | None = None  # manifests of noises, where waveforms are augmented
    rir: Path | None = None  # manifests of room impulse responses; without them reverberation is simulated
    unlabelled: Path | None = None  # manifests of unlabelled speech
    shards: Path | None = None  # where stage 3 writes training sets as shards

    def sounds(self) -> dict[str, Path]:
        """The folders of sounds that this training really uses, by kind."""
        augment, waveforms = self.config.augment, self.config.data.input == "waveform"
        used = {
            "noise": self.noise if augment.uses("noise") else None,
            "rir": self.rir if augment.uses("rir") else None,
            "unlabelled": self.unlabelled if self.config.data.unlabelled else None,
        }
        return {kind: folder for kind, folder in used.items() if folder is not None and waveforms}

    def training_sets(self) -> list[Path]:
        """What stage 3 left that this training learns from: its fold and, if it learns phonemes, those."""
        return [self.msud / f"fold{self.fold}", *([self.phonemes] if learns_phonemes(self) else [])]

    def shards_of(self, training_set: Path) -> Path:
        """Where the shards of one of them lie."""
        return shard_folder(self.shards, self.config.data.input, training_set)


def check(job: Job, here: bool = True) -> None:
    """InputError for what can be told before training: a fold, a phoneme corpus or a GPU that is not there.

    ``here``: whether this machine is to train; else its GPU does not matter.
    """
    load_fold(job.msud, job.fold)
    if learns_phonemes(job):
        require(job.phonemes, "unify")
    if here:
        Precision(job.config.run.precision, pick_device(job.config.run.device))
    if job.init_from is not None:
        checkpoint.read_start(job.init_from, job.config)
    for folder in job.sounds().values():
        recordings_manifest(folder)
    if job.config.shar.use:
        for training_set in job.training_sets():
            require(job.shards_of(training_set), "shar")
    if job.config.data.unlabelled and job.unlabelled is None:
        raise InputError(
            f"the system {job.system} learns from unlabelled speech (data.unlabelled), but none is given; give "
            "--unlabelled DIR, any folder of recordings of speech, or choose a system without."
        )


def learns_phonemes(job: Job) -> bool:
    """Whether the job trains the phoneme task; InputError if it does and has no phoneme corpus."""
    if "phoneme" not in job.config.tasks():
        return False
    if job.phonemes is None:
        raise InputError(
            f"the system {job.system} learns phonemes (loss.beta is {job.config.loss.beta:g}), but no phoneme corpus "
            "is given; give one (such as --aishell DIR or --librispeech DIR), or choose a system without (wo_mtl, or "
            "--set loss.beta=0)."
        )
    return True


def _phoneme_sets(job: Job) -> tuple[CutSet | None, list[Cut], list[str]]:
    """(training cuts, dev cuts, symbols of the phone table)."""
    if not learns_phonemes(job):
        return None, [], []
    require(job.phonemes, "unify")
    table = PhoneTable.load(job.phonemes / "phones.txt")
    dev: list[Cut] = []
    if (job.phonemes / "dev.jsonl.gz").is_file():
        dev = sample_cuts(open_cuts(job.phonemes / "dev.jsonl.gz"), job.config.data.dev_phoneme_clips)
    return training_cuts(job.phonemes / "train.jsonl.gz"), dev, table.symbols


def global_statistics(cut_sets: dict[str, CutSet]) -> tuple[Any, Any]:
    """Mean and deviation (D,) of the features of the training cuts (of at most CMVN_CUTS of each set).

    Unlabelled speech has no stored features and adds nothing.
    """
    chosen = {
        cut.id: cut for name, cuts in cut_sets.items() if name != "unlabelled" for cut in sample_cuts(cuts, CMVN_CUTS)
    }
    try:
        statistics = CutSet.from_cuts(chosen.values()).compute_global_feature_stats()
    except Exception:
        for cut in chosen.values():
            load_features(cut)  # InputError of what cannot be read
        raise
    return statistics["norm_means"], statistics["norm_stds"]


def esc_weights(config: Config, cuts: CutSet, device: torch.device) -> torch.Tensor | None:
    """The weights (K,) of the ESC classes by ``loss.class_balance``, of the counts in ``cuts``; None: all are 1."""
    if config.loss.class_balance == "none":
        return None
    numbers = (cut.supervisions[0].custom["class"] for cut in cuts)
    weights = inverse_weights(Counter(numbers), config.model.num_esc)
    log.info("weights of the classes: %s", " ".join(f"{weight:.2f}" for weight in weights.tolist()))
    return weights.to(device)


def dev_scores(
    model: Normalised, config: Config, classes: ClassTable, dev: list[Cut], phoneme_dev: list[Cut], device: torch.device
) -> tuple[dict[str, Any], np.ndarray]:
    """All scores of the dev part and of the dev utterances of the phoneme corpus; the dev part's confusion matrix."""
    size = config.data.batch_size
    predictions = distributed.results_of(lambda cuts: predict_emotions(model, cuts, size, device), dev)
    scores = emotion_scores(predictions, "gender" in config.tasks(), classes, config.loss.alpha > 0)
    scores["esc_loss"] = esc_loss(predictions)
    if phoneme_dev:
        decoded = distributed.results_of(lambda cuts: predict_phones(model, cuts, size, device), phoneme_dev)
        scores.update(phone_scores(decoded))
    confusion = metrics.confusion(
        [p.gold_esc for p in predictions], [p.predicted_esc for p in predictions], config.model.num_esc
    )
    return scores, confusion


class Training:
    """A training under way, from its first step or from where a checkpoint leaves it; the first process writes."""

    def __init__(
        self,
        name: str,
        folder: Path,
        key: str,
        config: Config,
        ctc_backend: str,
        device: torch.device,
        classes: ClassTable,
        phones: list[str],
        cut_sets: dict[str, CutSet],
        dev: list[Cut],
        phoneme_dev: list[Cut],
        clips: int,
        frontend: Frontend,
        class_weights: torch.Tensor | None = None,
        shards: Mapping[str, ClipSource] = {},
    ):
        self.name, self.folder, self.key, self.config = name, folder, key, config
        self.ctc_backend, self.device, self.classes, self.phones = ctc_backend, device, classes, phones
        self.cut_sets, self.dev, self.phoneme_dev, self.frontend = cut_sets, dev, phoneme_dev, frontend
        self.class_weights = class_weights
        self.sources = {**cut_sets, **shards}  # of what steps are made
        self.schedule = Schedule(config, math.ceil(clips / config.data.batch_size))

    def begin(self, before: dict[str, Any] | None, start: dict[str, Any] | None = None) -> None:
        """Build model and optimiser: as ``before`` has them, the content of a checkpoint to go on with, or anew.

        A new training starts from the weights of ``start``, the content of another training's checkpoint, if given.
        """
        config = self.config
        random.seed(config.run.seed)
        torch.manual_seed(config.run.seed)
        if before is None and start is not None:
            self.state = TrainingState()
            self.model = checkpoint.new_model(config)
            fresh = checkpoint.start_from(self.model, start, self.classes, self.phones)
            log.info("starting from trained weights; new, for other labels: %s", ", ".join(fresh) or "nothing")
            self.model.to(self.device)
        elif before is None:
            self.state = TrainingState()
            mean = deviation = None
            if config.data.cmvn == "global":
                mean, deviation = distributed.broadcast(lambda: global_statistics(self.cut_sets))
            self.model = checkpoint.new_model(config, mean, deviation).to(self.device)
        else:
            self.state = TrainingState.from_checkpoint(before)
            self.model = checkpoint.new_model(config).to(self.device)
            self.model.load_state_dict(before["model"])
        self.optimizer = build_optimizer(self.model, config.optim)
        self.average = AverageModel(self.model, config.optim.ema) if config.optim.ema else None
        if before is not None:
            self.optimizer.load_state_dict(before["optimizer"])
            if self.average is not None:
                self.average.model.load_state_dict(before["average"])
            log.info("going on after step %d, in epoch %d", self.state.step, self.state.epoch + 1)
        self.precision = Precision(config.run.precision, self.device)
        if before is not None:
            self.precision.scaler.load_state_dict(before["scaler"])
        if self.device.type == "cuda":
            with distributed.raise_together():
                largest = self.frontend(largest_batch(self.cut_sets, config.data))
            check_memory(
                self.model,
                largest,
                config,
                self.ctc_backend,
                self.device,
                self.schedule.loss_weights(0, Position()),
                self.precision,
            )
        parameters = sum(p.numel() for p in self.model.parameters())
        log.info("%.2f M parameters; tasks: %s", parameters / 1e6, ", ".join(config.tasks()))

    def is_over(self) -> bool:
        """Whether as many steps or epochs are done as were asked for."""
        optim = self.config.optim
        return self.state.step == optim.max_steps or self.state.epoch == optim.epochs

    def run(self) -> None:
        """Train to the end; SystemExit after a SIGTERM or SIGINT, with the checkpoint saved."""
        state, config, first = self.state, self.config, distributed.is_first()
        if self.is_over():
            return
        batches = multitask_batches(self.sources, config.data, config.run.seed, state.positions, self.device.type)
        with (
            StopRequest() as stop,
            ExitStack() as opened,
            Progress(self.name, self.schedule.steps(), "steps", None if first else False, state.step) as shown,
        ):
            if first:
                from torch.utils.tensorboard import SummaryWriter

                number_earlier_events(self.folder / "tensorboard")
                # events that were written after the checkpoint will be written again
                curves = SummaryWriter(str(self.folder / "tensorboard"), purge_step=state.step + 1)
                self.curves = opened.enter_context(curves)
            clips, epoch_started, before = 0, time.monotonic(), time.monotonic()
            while not self.is_over():
                with distributed.raise_together():
                    batch = self.frontend(next(batches))
                self._step(batch)
                state.took(batch)
                clips += sum(len(stream.all_ids) for stream in batch.streams().values())
                speed = clips / max(time.monotonic() - epoch_started, 1e-9)
                loss = state.means().get("total", math.nan)
                shown.update(1, f"step {state.step}, epoch {state.epoch + 1}, loss {loss:.3f}, {speed:.1f} clips/s")
                ends_epoch = batch.emotion.last or state.step == config.optim.max_steps
                if ends_epoch:
                    self._end_epoch(speed, batch.emotion.last)
                state.seconds, before = state.seconds + time.monotonic() - before, time.monotonic()
                asked = distributed.any_rank(stop.signal)
                if ends_epoch or asked or state.step % config.run.checkpoint_steps == 0:
                    self._save_last()
                if ends_epoch:
                    clips, epoch_started = 0, time.monotonic()
                if asked and not self.is_over():
                    log.warning(
                        "%s: asked to stop; step %d is saved, and the same command goes on from there",
                        self.name,
                        state.step,
                    )
                    raise SystemExit(128 + asked)  # as a shell reports a process that the signal ended

    def _step(self, batch: MultitaskBatch) -> None:
        state, place = self.state, batch.emotion.position
        seed_step(self.config.run.seed, state.step, distributed.rank())
        learning_rate = self.schedule.learning_rate(state.step, place)
        weights = self.schedule.loss_weights(state.step, place)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        buffers = snapshot(self.model)
        try:
            row = train_step(
                self.model,
                self.optimizer,
                batch,
                self.config,
                self.ctc_backend,
                self.device,
                weights,
                self.precision,
                self.class_weights,
            )
        except NotFinite as error:
            restore(self.model, buffers)
            self._skip(batch, error)
            return
        if self.average is not None:
            self.average.update(self.model, state.step)
        state.bad_steps = 0
        if math.isfinite(row["gradient_norm"]):
            state.add(row)
        # curves count steps that are done, so that a checkpoint after step n has all events up to n
        self._draw("train", {**row, "learning_rate": learning_rate, **asdict(weights)}, state.step + 1)

    def _draw(self, part: str, values: dict[str, float | None], step: int) -> None:
        """Add a point to each curve; None has none."""
        if distributed.is_first():
            for name, value in values.items():
                if value is not None:
                    self.curves.add_scalar(f"{part}/{name}", value, step)

    def _skip(self, batch: MultitaskBatch, error: NotFinite) -> None:
        """Keep the mini-batch of a step that is not finite; InputError if it is one too many."""
        path = self.folder / f"bad_step{self.state.step + 1}.pt"
        shares = {
            name: distributed.all_gather_objects(stream.to(torch.device("cpu")))
            for name, stream in batch.streams().items()
        }
        if distributed.is_first():
            save_batch(path, MultitaskBatch(**{name: join_shares(of) for name, of in shares.items()}), str(error))
        self.state.bad_steps += 1
        if self.state.bad_steps >= self.config.optim.max_bad_steps:
            raise distributed.fault_of_all(
                f"{error} That was step {self.state.step + 1}, the last of {self.state.bad_steps} in a row "
                f"(optim.max_bad_steps); its mini-batch lies in {path}."
            ) from error
        log.warning("%s Step %d is skipped, its mini-batch lies in %s.", error, self.state.step + 1, path)

    def _end_epoch(self, speed: float, whole: bool) -> None:
        """Score the dev part, keep the best; ``whole`` unless the last step came before the epoch's end."""
        state = self.state
        model = self.model if self.average is None else self.average.model
        scores, confusion = dev_scores(model, self.config, self.classes, self.dev, self.phoneme_dev, self.device)
        self._draw("dev", scores, state.step)
        if distributed.is_first():
            self.curves.add_image(
                "dev/confusion", confusion_picture(confusion, self.classes.names), state.step, dataformats="HWC"
            )
        epoch = state.epoch + 1
        log.info(
            "%s: epoch %d, step %d: train %s; dev %s; %.1f clips/s",
            self.name,
            epoch,
            state.step,
            in_short(state.means()),
            in_short(scores),
            speed,
        )
        if state.best is None or _merit(scores) > _merit(state.best["dev"]):
            state.best = {"epoch": epoch, "step": state.step, "dev": scores}
            self._save("best.pt", model, **state.best)
        if whole:
            state.end_epoch()

    def _save_last(self) -> None:
        self._save(
            "last.pt",
            self.model,
            optimizer=self.optimizer.state_dict(),
            scaler=self.precision.scaler.state_dict(),
            average=None if self.average is None else self.average.model.state_dict(),
            **self.state.to_checkpoint(),
        )

    def _save(self, name: str, model: Normalised, **content: Any) -> None:
        if distributed.is_first():
            self.curves.flush()
            checkpoint.save(self.folder / name, model, self.config, self.classes, self.phones, key=self.key, **content)


def _merit(scores: dict[str, Any]) -> tuple[float, float]:
    """What makes one epoch's dev scores better than another's."""
    return scores["ua"], -scores["esc_loss"]


def number_earlier_events(folder: Path) -> None:
    """Name the events of earlier starts so that TensorBoard reads them in order, and before those of this one.

    It reads by name, that is by second and process number, which are wrong where two starts fall into one second or
    the clock was set back; then it would show steps that were done again, and leave out others.
    """
    written = sorted(folder.glob("events.out.tfevents.*"), key=lambda path: path.name)
    for number, path in enumerate(written):
        earlier = path.with_name(f"events.out.tfevents.{number:010d}.earlier")
        if path != earlier:
            path.rename(earlier)


class _LogFile(logging.FileHandler):
    """A log that cannot be written ends the training, as a checkpoint does."""

    def handleError(self, record: logging.LogRecord) -> None:
        with write_fault_is_an_input_error(self.baseFilename):
            raise  # noqa: PLE0704 (logging calls it inside its handler)


@contextmanager
def _log_to(path: Path, mode: str) -> Iterator[None]:
    """While it is entered the log goes to a file as well."""
    with write_fault_is_an_input_error(path):
        handler = _LogFile(path, mode=mode, encoding="utf-8")
    handler.setFormatter(log.handlers[0].formatter if log.handlers else None)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        with write_fault_is_an_input_error(path):
            handler.close()


def _open_folder(folder: Path, stage: Stage, opened: ExitStack) -> tuple[bool, dict[str, Any] | None]:
    """Lock the folder, clear what is of no use any more, log to it.

    Whether there is still something to do, as another process may have ended it meanwhile, and the checkpoint's content
    to go on with, if any.
    """
    if not opened.enter_context(stage.locked(wait=False)):
        return False, None
    with write_fault_is_an_input_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
    before = find_checkpoint(folder, stage.key)
    stage.invalidate()
    # they describe the model that was here before
    for stale in ("scores.tsv", "phones.tsv", "metrics.json", "train_scores.tsv", "embeddings.npz"):
        (folder / stale).unlink(missing_ok=True)
    if before is None:
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        for bad in folder.glob("bad_step*.pt"):
            bad.unlink()
    opened.enter_context(_log_to(folder / "train.log", "w" if before is None else "a"))
    return True, before


def train(job: Job) -> None:
    """Stage 4 for one job: leaves config.yaml, run.json, train.log, TensorBoard events, last.pt and best.pt.

    ``best.pt`` is the epoch with the highest UA on the dev part (of equals, the one with the lower ESC loss).
    A training that was broken off goes on from its last.pt and ends with the weights it would have had anyway. SIGTERM
    and SIGINT end the process after the running step (or the running scoring of the dev part), with that step saved.
    Several processes (distributed.py) call this alike and train together.
    Raises InputError where an earlier stage is missing, a setting cannot be met, the disk is full, or another training
    writes to the same folder.
    """
    config, folder = copy.deepcopy(job.config), job.folder
    with distributed.raise_together():
        note = load_fold(job.msud, job.fold)
        phoneme_train, phoneme_dev, phones = _phoneme_sets(job)
        fold_folder = job.msud / f"fold{job.fold}"
        inputs = [*job.training_sets(), *job.sounds().values()]
        if config.shar.use:
            shard_reader.check_processes(config, distributed.size())
            inputs += [job.shards_of(training_set) for training_set in job.training_sets()]
        start = checkpoint.read_start(job.init_from, config) if job.init_from is not None else None
        options = {
            "config": configuration.learned(config),
            "config_name": job.config_name,
            "system": job.system,
            "fold": job.fold,
            "init_from": checkpoint.fingerprint(job.init_from) if start else None,
        }
        name = f"{job.system}, fold {job.fold}, seed {config.run.seed}"
        title = f"{job.config_name}, {note['name']}: {name}"
        stage = Stage("train", title, folder, options, inputs, FORMAT)
    if not distributed.broadcast(lambda: stage.needs_run() and not stage.added_to_plan()):
        return
    with distributed.raise_together():
        device = pick_device(config.run.device)
    device, first = distributed.set_device(device), distributed.is_first()
    if config.run.threads:
        torch.set_num_threads(config.run.threads)

    with ExitStack() as opened:
        is_missing, before = distributed.broadcast(lambda: _open_folder(folder, stage, opened))
        if not is_missing:
            return
        with distributed.raise_together():
            if phones:
                config.model.num_phones = len(phones)
            classes = class_table(note)
            config.model.num_esc = len(classes.names)
            if start is not None:  # what the weights have learned with
                config.data.cmvn = checkpoint.read_config(start, str(job.init_from)).data.cmvn
            ctc_backend = "none"
            if phoneme_train is not None:
                ctc_backend = resolve_ctc_backend(config.loss.ctc_backend, device)
            information = run_information(
                system=job.system,
                config_name=job.config_name,
                assignments=list(job.assignments),
                phonemes=str(job.phonemes) if phoneme_train is not None else None,
                fold=job.fold,
                seed=config.run.seed,
                msud=note,
                ctc_backend=ctc_backend,
                device=str(device),
                threads=torch.get_num_threads(),
                processes=distributed.size(),
                init_from=str(job.init_from) if start is not None else None,
                sounds={
                    kind: {"manifests": str(folder), **files_and_hours(folder)} for kind, folder in job.sounds().items()
                },
            )
            if first:
                configuration.save(config, folder / "config.yaml")
                write_json(folder / "run.json", information)
            log.info(
                "training %s on %s%s",
                title,
                device,
                f", in {distributed.size()} processes" if distributed.size() > 1 else "",
            )

            target = note["target"] if config.data.corpora == "target" else None
            cut_sets = {
                name: training_cuts(fold_folder / f"{name}.jsonl.gz", target)
                for name in config.tasks()
                if name in ("emotion", "gender")
            }
            if phoneme_train is not None:
                cut_sets["phoneme"] = phoneme_train
            dev = list(CutSet.from_jsonl_lazy(fold_folder / "dev.jsonl.gz"))
            if config.data.unlabelled:
                tests = chain.from_iterable(open_cuts(fold_folder / f"{name}.jsonl.gz") for name in note["tests"])
                cut_sets["unlabelled"] = unlabelled_cuts(job.unlabelled, chain(dev, tests))
            shards: dict[str, ClipSource] = {}
            if config.shar.use:
                emotion = shard_reader.Shards(job.shards_of(fold_folder), config.shar, target)
                # the gender stream takes those that have one
                shards = {name: emotion for name in cut_sets if name in ("emotion", "gender")}
                if phoneme_train is not None:
                    shards["phoneme"] = shard_reader.Shards(job.shards_of(job.phonemes), config.shar)
            counts = note["sets"]["emotion"]
            clips = counts["clips"] if target is None else counts["corpus"][target]
            training = Training(
                name,
                folder,
                stage.key,
                config,
                ctc_backend,
                device,
                classes,
                phones,
                cut_sets,
                dev,
                phoneme_dev,
                clips,
                Frontend(config, device, job.sounds().get("noise"), job.sounds().get("rir")),
                esc_weights(config, cut_sets["emotion"], device),
                shards,
            )
        training.begin(before, start)
        training.run()
        state = training.state
        if first:
            outcome = {"steps": state.step, "train_seconds": round(state.seconds, 1), "best": state.best}
            write_json(folder / "run.json", {**information, **outcome})
            log.info(
                "%s: %d steps in %.0f s (%.2f s a step); best dev UA %.3f at epoch %d",
                name,
                state.step,
                state.seconds,
                state.seconds / state.step,
                state.best["dev"]["ua"],
                state.best["epoch"],
            )
            trained = clips + note["sets"]["dev"]["clips"]
            outputs = ["config.yaml", "run.json", "last.pt", "best.pt"]
            stage.finish(folder, trained, trained, outputs=outputs, unit="clips")
