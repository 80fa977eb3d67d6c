"""Training as Algorithm 1 prints it: three mini-batches a step, four losses, one update."""

import itertools
import logging
import math
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import torch
from lhotse import CutSet
from lhotse.cut import Cut

from speecheq import checkpoint
from speecheq import config as configuration
from speecheq.config import Config
from speecheq.data import MultitaskBatch, Stream, multitask_batches, training_cuts
from speecheq.errors import InputError
from speecheq.evaluate import emotion_scores, esc_loss, phone_scores, pick_device, predict_emotions, predict_phones
from speecheq.files import write_json
from speecheq.losses import LossWeights, combine, ctc_loss, eis_loss, focal_loss, resolve_ctc_backend
from speecheq.models.cmvn import Normalised
from speecheq.msud import class_table, load_fold
from speecheq.phones.table import PhoneTable
from speecheq.progress import Progress, log
from speecheq.provenance import run_information
from speecheq.stages import Stage, require

# Raised when what training writes changes its meaning.
FORMAT = 1
# So many cuts of each set, at most, give the mean and deviation of global normalisation.
CMVN_CUTS = 3000
# The heads that each stream's loss needs.
TASKS = {"emotion": ("esc", "eis"), "gender": ("gender",), "phoneme": ("phoneme",)}


@dataclass(frozen=True)
class Job:
    """One training: a system on one fold with one seed, and where its folder is."""

    config: Config
    config_name: str
    assignments: Tuple[str, ...]  # of --set
    system: str
    msud: Path
    fold: int
    phonemes: Optional[Path]
    folder: Path


def check(job: Job) -> None:
    """InputError for what can be told before training: a fold, a phoneme corpus or a GPU that is not there."""
    load_fold(job.msud, job.fold)
    if learns_phonemes(job):
        require(job.phonemes, "unify")
    pick_device(job.config.run.device)


def learns_phonemes(job: Job) -> bool:
    """Whether the job trains the phoneme task; InputError if it does and has no phoneme corpus."""
    if "phoneme" not in job.config.tasks():
        return False
    if job.phonemes is None:
        raise InputError(
            f"the system {job.system} learns phonemes (loss.beta is {job.config.loss.beta:g}), but no phoneme corpus "
            "is given; give one (such as --aishell DIR or --librispeech DIR), or choose a system without (wo_mtl, or --set loss.beta=0)."
        )
    return True


def seed_everything(seed: int) -> None:
    """Seed torch and Python; the streams have generators of their own."""
    random.seed(seed)
    torch.manual_seed(seed)


def _phoneme_sets(job: Job) -> Tuple[Optional[CutSet], List[Cut], List[str]]:
    """(training cuts, dev cuts, symbols of the phone table)."""
    if not learns_phonemes(job):
        return None, [], []
    require(job.phonemes, "unify")
    table = PhoneTable.load(job.phonemes / "phones.txt")
    dev: List[Cut] = []
    if (job.phonemes / "dev.jsonl.gz").is_file():
        dev = sample(CutSet.from_jsonl_lazy(job.phonemes / "dev.jsonl.gz"), job.config.data.dev_phoneme_clips)
    return training_cuts(job.phonemes / "train.jsonl.gz"), dev, table.symbols


def sample(cuts: CutSet, most: int) -> List[Cut]:
    """At most ``most`` of the cuts, the same ones every time."""
    chosen = list(cuts)
    return chosen if len(chosen) <= most else random.Random(0).sample(chosen, most)


def global_statistics(cut_sets: Dict[str, CutSet]) -> Tuple[Any, Any]:
    """Mean and deviation (D,) of the features of the training cuts (of at most CMVN_CUTS of each set)."""
    chosen = {cut.id: cut for cuts in cut_sets.values() for cut in sample(cuts, CMVN_CUTS)}
    statistics = CutSet.from_cuts(chosen.values()).compute_global_feature_stats()
    return statistics["norm_means"], statistics["norm_stds"]


def stream_loss(
    model: Normalised, name: str, stream: Stream, config: Config, ctc_backend: str
) -> Tuple[torch.Tensor, Dict[str, float], List[str]]:
    """The part of equation 4 that one stream's mini-batch gives, its single losses by task, and who is left out.

    Left out of CTC are utterances with fewer frames than their phones need.
    """
    predictions = model(stream.inputs, stream.lengths, tasks=TASKS[name])
    losses: Dict[str, torch.Tensor] = {}
    left_out: List[str] = []
    if name == "emotion":
        losses["esc"] = focal_loss(predictions.esc_logits, stream.targets["esc"], config.loss.gamma)
        losses["eis"] = eis_loss(predictions.eis, stream.targets["eis"], config.loss.label_ignore)
    elif name == "gender":
        losses["gender"] = focal_loss(predictions.gender_logits, stream.targets["gender"], config.loss.gamma)
    else:
        result = ctc_loss(predictions.phoneme_logits, stream.lengths, stream.targets["phones"], ctc_backend)
        losses["phoneme"] = result.loss
        left_out = [name for name, feasible in zip(stream.ids, result.feasible.tolist()) if not feasible]
    weights = LossWeights(config.loss.alpha, config.loss.beta, config.loss.eta)
    return combine(losses, weights), {task: float(loss.detach()) for task, loss in losses.items()}, left_out


def learning_rate_factor(config: Config, step: int) -> float:
    """What the learning rate of step ``step`` (from 0) is multiplied with: warm-up, then the schedule."""
    optim = config.optim
    if step < optim.warmup_steps:
        return (step + 1) / optim.warmup_steps
    if optim.schedule == "cosine":
        part = (step - optim.warmup_steps) / max(1, optim.max_steps - optim.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, part)))
    return 1.0


def train_step(
    model: Normalised, optimizer: torch.optim.Optimizer, batch: MultitaskBatch, config: Config, ctc_backend: str,
    device: torch.device,
) -> Dict[str, float]:
    """One update (Algorithm 1, lines 4 to 22); returns every loss, their sum and the gradient's norm.

    Each stream is passed backward by itself: the same gradient as that of the sum, in a third of the memory.
    InputError that names the utterances where a loss or the gradient is not finite.
    """
    model.train()
    optimizer.zero_grad(set_to_none=True)
    report: Dict[str, Any] = {"total": 0.0}
    utterances: List[str] = []
    for name in ("emotion", "gender", "phoneme"):
        stream = getattr(batch, name)
        if stream is None:
            continue
        loss, losses, left_out = stream_loss(model, name, stream.to(device), config, ctc_backend)
        utterances += stream.ids
        report["total"] += float(loss.detach())
        report.update(losses)
        if name == "phoneme":
            report["ctc_left_out"] = len(left_out)
            if left_out:
                log.warning("CTC leaves out, for too few frames: %s", " ".join(left_out))
        if not math.isfinite(report["total"]):
            raise InputError(
                f"the loss of the {name} batch is {float(loss.detach())} ({losses}); its utterances: "
                f"{' '.join(stream.ids)}."
            )
        loss.backward()
    limit = config.optim.clip_gradient or float("inf")
    report["gradient_norm"] = float(torch.nn.utils.clip_grad_norm_(model.parameters(), limit))
    if not math.isfinite(report["gradient_norm"]):
        raise InputError(
            f"the gradient's norm is {report['gradient_norm']} (losses: {_short(report)}); the utterances of the step: "
            f"{' '.join(utterances)}."
        )
    optimizer.step()
    return report


def dev_scores(
    model: Normalised, config: Config, dev: List[Cut], phoneme_dev: List[Cut], device: torch.device
) -> Dict[str, Any]:
    """All scores of the dev part, and of the dev utterances of the phoneme corpus."""
    predictions = predict_emotions(model, dev, config.data.batch_size, device)
    scores = emotion_scores(predictions, genders="gender" in config.tasks())
    scores["esc_loss"] = esc_loss(predictions)
    if phoneme_dev:
        scores.update(phone_scores(predict_phones(model, phoneme_dev, config.data.batch_size, device)))
    return scores


def _epochs(batches: Iterator[MultitaskBatch], config: Config) -> Iterator[Tuple[int, Iterator[MultitaskBatch]]]:
    """Batches grouped by the emotion stream's epoch, as many epochs as asked for."""
    for epoch, members in itertools.groupby(batches, key=lambda batch: batch.emotion.epoch):
        if config.optim.epochs is not None and epoch >= config.optim.epochs:
            return
        yield epoch + 1, members


def _mean(rows: List[Dict[str, float]]) -> Dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _short(values: Dict[str, Any]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in values.items() if value is not None)


def train(job: Job) -> None:
    """Stage 4 for one job: leaves config.yaml, run.json, train.log, TensorBoard events, last.pt and best.pt.

    ``best.pt`` is the epoch with the highest UA on the dev part (of equals, the one with the lower ESC loss).
    Raises InputError where an earlier stage is missing, a setting cannot be met, or the disk is full.
    """
    from torch.utils.tensorboard import SummaryWriter

    config, folder = job.config, job.folder
    note = load_fold(job.msud, job.fold)
    phoneme_train, phoneme_dev, phones = _phoneme_sets(job)
    fold_folder = job.msud / f"fold{job.fold}"
    inputs = [fold_folder] + ([job.phonemes] if phoneme_train is not None else [])
    options = {
        "config": configuration.learned(config), "config_name": job.config_name, "system": job.system, "fold": job.fold,
    }
    name = f"{job.system}, fold {job.fold}, seed {config.run.seed}"
    title = f"{job.config_name}, {note['name']}: {name}"
    stage = Stage("train", title, folder, options, inputs, FORMAT)
    if stage.is_done():
        return
    device = pick_device(config.run.device)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)

    folder.mkdir(parents=True, exist_ok=True)
    stage.begin()
    for stale in ("scores.tsv", "phones.tsv", "metrics.json"):  # they describe the model that was here before
        (folder / stale).unlink(missing_ok=True)
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    to_file = logging.FileHandler(folder / "train.log", mode="w", encoding="utf-8")
    to_file.setFormatter(log.handlers[0].formatter if log.handlers else None)
    log.addHandler(to_file)
    try:
        if phones:
            config.model.num_phones = len(phones)
        classes = class_table(note)
        config.model.num_esc = len(classes.names)
        configuration.save(config, folder / "config.yaml")
        ctc_backend = resolve_ctc_backend(config.loss.ctc_backend) if phoneme_train is not None else "none"
        information = run_information(
            system=job.system, config_name=job.config_name, assignments=list(job.assignments),
            phonemes=str(job.phonemes) if phoneme_train is not None else None, fold=job.fold,
            seed=config.run.seed, msud=note, ctc_backend=ctc_backend, device=str(device), threads=torch.get_num_threads(),
        )
        write_json(folder / "run.json", information)
        log.info("training %s on %s", title, device)

        target = note["target"] if config.data.corpora == "target" else None
        cut_sets = {name: training_cuts(fold_folder / f"{name}.jsonl.gz", target)
                    for name in config.tasks() if name != "phoneme"}
        if phoneme_train is not None:
            cut_sets["phoneme"] = phoneme_train
        dev = list(CutSet.from_jsonl_lazy(fold_folder / "dev.jsonl.gz"))

        seed_everything(config.run.seed)
        mean, deviation = global_statistics(cut_sets) if config.data.cmvn == "global" else (None, None)
        model = checkpoint.new_model(config, mean, deviation).to(device)
        parameters = sum(p.numel() for p in model.parameters())
        log.info("%.2f M parameters; tasks: %s", parameters / 1e6, ", ".join(config.tasks()))
        optimizer = torch.optim.Adam(
            model.parameters(), config.optim.learning_rate, weight_decay=config.optim.weight_decay
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(config, step))

        step, best, started = 0, None, time.time()
        batches = multitask_batches(cut_sets, config.data, config.run.seed)
        curves = SummaryWriter(str(folder / "tensorboard"))
        with curves as writer, Progress(name, config.optim.max_steps, "steps") as shown:
            for epoch, members in _epochs(batches, config):
                rows, epoch_started = [], time.time()
                clips = 0
                for batch in members:
                    row = train_step(model, optimizer, batch, config, ctc_backend, device)
                    for loss_name, value in row.items():
                        writer.add_scalar(f"train/{loss_name}", value, step)
                    writer.add_scalar("train/learning_rate", scheduler.get_last_lr()[0], step)
                    scheduler.step()
                    rows.append(row)
                    clips += sum(len(s.ids) for s in (batch.emotion, batch.gender, batch.phoneme) if s is not None)
                    step += 1
                    shown.update(1, f"epoch {epoch}, loss {row['total']:.3f}")
                    if step == config.optim.max_steps:
                        break
                means = _mean(rows)
                speed = clips / (time.time() - epoch_started)
                scores = dev_scores(model, config, dev, phoneme_dev, device)
                for score_name, value in scores.items():
                    if value is not None:
                        writer.add_scalar(f"dev/{score_name}", value, step)
                log.info("%s: epoch %d, step %d: train %s; dev %s; %.1f clips/s", name, epoch, step, _short(means),
                         _short(scores), speed)
                merit = (scores["ua"], -scores["esc_loss"])
                state = dict(epoch=epoch, step=step, dev=scores)
                if best is None or merit > best[0]:
                    best = (merit, state)
                    checkpoint.save(folder / "best.pt", model, config, classes, phones, **state)
                checkpoint.save(
                    folder / "last.pt", model, config, classes, phones, optimizer=optimizer.state_dict(),
                    scheduler=scheduler.state_dict(), best=best[1], **state,
                )
                if step == config.optim.max_steps:
                    break
                if config.optim.epochs is not None:
                    expected = config.optim.epochs * round(step / epoch)
                    shown.expect(min(expected, config.optim.max_steps or expected))
        seconds = time.time() - started
        outcome = {"steps": step, "train_seconds": round(seconds, 1), "best": best[1]}
        write_json(folder / "run.json", {**information, **outcome})
        log.info("%s: %d steps in %.0f s (%.2f s a step); best dev UA %.3f at epoch %d", name, step, seconds,
                 seconds / step, best[1]["dev"]["ua"], best[1]["epoch"])
        trained = sum(note["sets"][name]["clips"] for name in ("emotion", "dev"))
        stage.finish(folder, trained, trained, outputs=["config.yaml", "run.json", "last.pt", "best.pt"], unit="clips")
    finally:
        log.removeHandler(to_file)
        to_file.close()
