"""A training from its first step to its best model: epochs, dev scores, checkpoints (a single step is in step.py)."""

import math
import random
import time
from dataclasses import asdict
from typing import Any

import torch

from speecheq.cluster import distributed
from speecheq.common.log import log
from speecheq.common.progress import Progress
from speecheq.common.signals import StopRequest
from speecheq.common.stages import Stage
from speecheq.dataset.batch import MultitaskBatch, Position, join_shares
from speecheq.dataset.loader import largest_batch, multitask_batches
from speecheq.evaluation import metrics
from speecheq.evaluation.calibration import DevCalibration, fit_calibration
from speecheq.evaluation.predictions import (
    ClipPrediction,
    emotion_scores,
    esc_loss,
    phone_scores,
    predict_emotions,
    predict_phones,
)
from speecheq.losses import FEWEST_EMITTED
from speecheq.models import checkpoint
from speecheq.models.normalisation import Normalised
from speecheq.training.optimizer import AverageModel, build_optimizer
from speecheq.training.precision import NotFinite, copy_buffers, restore_buffers, save_batch
from speecheq.training.schedule import Schedule
from speecheq.training.state import TrainingState, seed_step
from speecheq.training.step import StepSetup, check_memory, format_values, train_step
from speecheq.training.tensorboard import Curves
from speecheq.training.training_data import TrainingData, global_statistics

# Of a model that was trained on all clips.
NO_DEV = DevCalibration(reason="all clips were trained on, so none was left to fit one")


def dev_scores(model: Normalised, data: TrainingData, setup: StepSetup) -> tuple[dict[str, Any], list[ClipPrediction]]:
    """Score the dev part, and the dev utterances of the phoneme corpus.

    Returns: the scores by name; the predictions of the dev part.
    """
    config, device = setup.config, setup.device
    size = config.data.batch_size
    predictions = distributed.map_shared(
        lambda cuts: predict_emotions(model, cuts, size, device, inputs=data.dev_inputs), data.dev
    )
    scores = emotion_scores(predictions, "gender" in config.tasks(), data.classes, config.loss.alpha > 0)
    scores["esc_loss"] = esc_loss(predictions)
    if data.phoneme_dev:
        pause = config.phonemes.pause(config.model.num_phones)
        decoded = distributed.map_shared(
            lambda cuts: predict_phones(model, cuts, size, device, data.phoneme_dev_inputs, pause), data.phoneme_dev
        )
        scores.update(phone_scores(decoded))
    return scores, predictions


class Trainer:
    """A running training, made by ``start`` or ``resume``; only rank 0 writes files."""

    def __init__(
        self, name: str, stage: Stage, data: TrainingData, setup: StepSetup, model: Normalised, state: TrainingState
    ):
        self.name, self.folder, self.key = name, stage.folder, stage.key
        self.data, self.setup, self.config = data, setup, setup.config
        self.model, self.state, self.scaler = model, state, setup.precision.scaler
        self.schedule = Schedule(self.config, math.ceil(data.clips / self.config.data.batch_size))
        self.optimizer = build_optimizer(
            model,
            self.config.optim,
            self.config.encoder.base_learning_rate(),
            self.config.phonemes.learning_rate_factor,
        )
        self.average = AverageModel(model, self.config.optim.ema) if self.config.optim.ema else None
        self.curves = Curves(self.folder / "tensorboard", state.step, distributed.is_first())
        parameters = sum(p.numel() for group in self.optimizer.param_groups for p in group["params"])
        log.info("%.2f M parameters; tasks: %s", parameters / 1e6, ", ".join(self.config.tasks()))

    @classmethod
    def start(
        cls, name: str, stage: Stage, data: TrainingData, setup: StepSetup, weights: dict[str, Any] | None = None
    ) -> "Trainer":
        """A new training, from random weights or from those of another training's checkpoint (its content).

        ``name`` is for log lines; the trainer writes to the folder of ``stage``.
        """
        config = setup.config
        _seed(config.run.seed)
        if weights is not None:
            model = checkpoint.new_model(config, extractor=data.extractor, factors=data.factors)
            fresh = checkpoint.start_from(model, weights, data.classes, data.phones)
            log.info("starting from trained weights; new, for other labels: %s", ", ".join(fresh) or "nothing")
        else:
            mean = deviation = None
            if config.data.cmvn == "global":
                mean, deviation = distributed.broadcast(lambda: global_statistics(data, setup))
            model = checkpoint.new_model(config, mean, deviation, data.extractor, data.factors)
        return cls(name, stage, data, setup, model.to(setup.device), TrainingState())

    @classmethod
    def resume(
        cls, name: str, stage: Stage, data: TrainingData, setup: StepSetup, content: dict[str, Any]
    ) -> "Trainer":
        """A training that resumes after the last step of a checkpoint with this ``content``."""
        _seed(setup.config.run.seed)
        model = checkpoint.new_model(setup.config, extractor=data.extractor, factors=data.factors).to(setup.device)
        model.load_states(content["model"], content.get("encoder"))
        trainer = cls(name, stage, data, setup, model, TrainingState.from_checkpoint(content))
        trainer.optimizer.load_state_dict(content["optimizer"])
        if trainer.average is not None:
            trainer.average.model.load_states(content["average"], content.get("average_encoder"))
        trainer.scaler.load_state_dict(content["scaler"])
        log.info("resuming after step %d, in epoch %d", trainer.state.step, trainer.state.epoch + 1)
        return trainer

    def _check_memory(self) -> None:
        """Raise InputError if the GPU's memory does not hold the largest mini-batches."""
        if self.setup.device.type == "cuda":
            data = self.data
            with distributed.raise_together():
                largest = data.frontend(largest_batch(data.cut_sets, self.config.data, data.load, data.widths))
            check_memory(self.model, largest, self.setup, self.schedule.loss_weights(0, Position()))

    def is_over(self) -> bool:
        """Whether all steps or epochs are done."""
        optim = self.config.optim
        return self.state.step == optim.max_steps or self.state.epoch == optim.epochs

    def run(self) -> None:
        """Train to the end; raises SystemExit after a SIGTERM or SIGINT, with the last step saved."""
        state, config, name, data = self.state, self.config, self.name, self.data
        if self.is_over():
            return
        self._check_memory()
        batches = multitask_batches(
            data.sources, config.data, config.run.seed, state.positions, self.setup.device.type, data.load, data.widths
        )
        on_terminal = None if distributed.is_first() else False  # None: whether standard error is one
        with (
            StopRequest() as stop,
            self.curves,
            Progress(name, self.schedule.steps(), "steps", on_terminal, state.step) as progress,
        ):
            clips, epoch_started, before = 0, time.monotonic(), time.monotonic()
            while not self.is_over():
                with distributed.raise_together():
                    batch = data.frontend(next(batches))
                self._step(batch)
                state.count_step(batch)
                clips += sum(len(stream.all_ids) for stream in batch.streams().values())
                speed = clips / max(time.monotonic() - epoch_started, 1e-9)
                loss = state.means().get("total", math.nan)
                progress.update(1, f"step {state.step}, epoch {state.epoch + 1}, loss {loss:.3f}, {speed:.1f} clips/s")
                ends_epoch = batch.emotion.last or state.step == config.optim.max_steps
                if ends_epoch:
                    self._end_epoch(speed, is_complete=batch.emotion.last)
                state.seconds, before = state.seconds + time.monotonic() - before, time.monotonic()
                stop_signal = distributed.any_rank(stop.signal)
                if ends_epoch or stop_signal or state.step % config.run.checkpoint_steps == 0:
                    self._save_last()
                if ends_epoch:
                    clips, epoch_started = 0, time.monotonic()
                if stop_signal and not self.is_over():
                    log.warning(
                        "%s: asked to stop; step %d is saved; run the same command again to continue", name, state.step
                    )
                    raise SystemExit(128 + stop_signal)  # as a shell reports a process that the signal ended

    def _step(self, batch: MultitaskBatch) -> None:
        state, position = self.state, batch.emotion.position
        seed_step(self.config.run.seed, state.step, distributed.rank())
        learning_rate = self.schedule.learning_rate(state.step, position)
        weights = self.schedule.loss_weights(state.step, position)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group.get("lr_scale", 1.0)
        self.model.extractor_is_frozen = state.step < self.config.encoder.frozen_steps
        buffers = copy_buffers(self.model)
        try:
            row = train_step(self.model, self.optimizer, batch, self.setup, weights)
        except NotFinite as error:
            restore_buffers(self.model, buffers)
            self._skip(batch, error)
            return
        if self.average is not None:
            self.average.update(self.model, state.step)
        state.bad_steps = 0
        if math.isfinite(row["gradient_norm"]):
            state.add_losses(row)
        # curves count completed steps, so that a checkpoint after step n has all events up to n
        self.curves.add("train", {**row, "learning_rate": learning_rate, **asdict(weights)}, state.step + 1)

    def _skip(self, batch: MultitaskBatch, error: NotFinite) -> None:
        """Write the mini-batch of a step that is not finite; raises InputError if it is one too many in a row."""
        step = self.state.step + 1
        path = self.folder / f"bad_step{step}.pt"
        cpu = torch.device("cpu")
        shares = {name: distributed.all_gather_objects(stream.to(cpu)) for name, stream in batch.streams().items()}
        if distributed.is_first():
            complete = MultitaskBatch(**{name: join_shares(parts) for name, parts in shares.items()})
            save_batch(path, complete, str(error))
        self.state.bad_steps += 1
        if self.state.bad_steps >= self.config.optim.max_bad_steps:
            raise distributed.error_on_all_ranks(
                f"{error} That was step {step}, the last of {self.state.bad_steps} in a row (optim.max_bad_steps); its "
                f"mini-batch is in {path}."
            ) from error
        log.warning("%s Step %d is skipped, its mini-batch is in %s.", error, step, path)

    def _end_epoch(self, speed: float, is_complete: bool) -> None:
        """Score the dev part and keep the model that ``optim.select`` says, with the temperature of its posteriors.

        ``is_complete`` unless the training ends within the epoch. Without a dev part it is the last epoch's model.
        """
        state = self.state
        model = self.model if self.average is None else self.average.model
        scores, calibration = self._score_dev(model) if self.data.dev else ({}, NO_DEV)
        epoch = state.epoch + 1
        warn_of_collapse(self.name, state)
        log.info(
            "%s: epoch %d, step %d: train %s; %s; %.1f clips/s",
            self.name,
            epoch,
            state.step,
            format_values(state.means()),
            f"dev {format_values(scores)}" if scores else "no dev part",
            speed,
        )
        before = None if self.config.optim.select == "last" or not self.data.dev else state.best
        if before is None or _merit(scores) > _merit(before["dev"]):
            state.best = {"epoch": epoch, "step": state.step, "dev": scores}
            self._save("best.pt", model, **state.best, calibration=calibration.to_dict())
        if is_complete:
            state.end_epoch()

    def _score_dev(self, model: Normalised) -> tuple[dict[str, Any], DevCalibration]:
        """The scores of the dev part, which go to TensorBoard too, and what it says of the posteriors."""
        scores, predictions = dev_scores(model, self.data, self.setup)
        gold, predicted = [p.gold_esc for p in predictions], [p.predicted_esc for p in predictions]
        confusion = metrics.confusion(gold, predicted, self.config.model.num_esc)
        self.curves.add("dev", scores, self.state.step)
        self.curves.add_confusion(confusion, self.data.classes.names, self.state.step)
        return scores, fit_calibration(predictions)

    def _save_last(self) -> None:
        average: dict[str, Any] = {"average": None}
        if self.average is not None:
            average = {
                "average": self.average.model.state_without_extractor(),
                "average_encoder": self.average.model.extractor_state(),
            }
        self._save(
            "last.pt",
            self.model,
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            **average,
            **self.state.to_checkpoint(),
        )

    def _save(self, name: str, model: Normalised, **content: Any) -> None:
        if distributed.is_first():
            self.curves.flush()
            path, data = self.folder / name, self.data
            checkpoint.save(path, model, self.config, data.classes, data.phones, key=self.key, **content)


def _seed(seed: int) -> None:
    random.seed(seed)
    torch.manual_seed(seed)


def warn_of_collapse(name: str, state: TrainingState) -> None:
    """Warn if CTC of emotions gave little but blank in the running epoch."""
    labels = state.means().get("esc_emitted", FEWEST_EMITTED)
    if labels < FEWEST_EMITTED:
        log.warning(
            "%s: epoch %d: CTC gives nearly nothing but blank (%.2f labels a clip): it has collapsed, or has not begun "
            "to learn; more steps or another learning rate may help",
            name,
            state.epoch + 1,
            labels,
        )


def _merit(scores: dict[str, Any]) -> tuple[float, float]:
    """What makes one epoch's dev scores better than another's."""
    return scores["ua"], -scores["esc_loss"]
