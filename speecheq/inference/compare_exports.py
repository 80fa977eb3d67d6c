"""Compare exported models with the checkpoint they came from, on the test clips of its fold."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lhotse import CutSet

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.common.markdown import markdown_table
from speecheq.common.stages import require
from speecheq.dataset.batch import load_samples
from speecheq.dataset.model_inputs import ModelInputs, as_extractor, by_speaker
from speecheq.evaluation.metrics import esc_and_eis_scores
from speecheq.features.fbank import BatchedFbank
from speecheq.inference.trained_model import ModelOutput, TrainedModel, load_trained_model

BATCH_SIZE = 16


@dataclass(frozen=True)
class Comparison:
    """One model on the test clips; ``changed`` and ``difference`` compare it with the checkpoint."""

    name: str
    megabytes: float
    clips: int
    scores: Mapping[str, float | None]  # of ``esc_and_eis_scores``
    changed: int  # clips whose predicted class differs
    difference: float  # largest difference of a posterior
    seconds: float  # with reading the clips


def compare_models(experiment: Path, msud: Path, models: Sequence[str]) -> list[Comparison]:
    """Score best.pt of ``experiment``, then each of ``models``, on the test clips of its fold in ``msud``, on the CPU.

    Raises InputError if a stage has not run, or a model has other classes than the experiment.
    """
    experiment = Path(experiment)
    require(experiment, "train")
    fold = Path(msud) / f"fold{read_json(experiment / 'run.json')['fold']}"
    require(fold, "unify")
    cuts = list(CutSet.from_jsonl_lazy(fold / "test.jsonl.gz"))
    comparisons: list[Comparison] = []
    classes, reference = None, None
    for name in (str(experiment / "best.pt"), *models):
        model = load_trained_model(name, "cpu")
        if classes is not None and model.labels.classes != classes:
            raise InputError(f"{name}: its classes are not those of {experiment}; export the model of that experiment.")
        inputs, cpu = _inputs(model), torch.device("cpu")
        if model.cmvn == "speaker":
            inputs = by_speaker(inputs, cuts, BATCH_SIZE, cpu)
        started = time.perf_counter()
        outputs, gold_esc, gold_eis = [], [], []
        for batch in inputs.batches("emotion", cuts, BATCH_SIZE, cpu):
            outputs.append(model(batch.inputs, batch.lengths))
            gold_esc += batch.targets["esc"].tolist()
            gold_eis += batch.targets["eis"].tolist()
        seconds = time.perf_counter() - started
        posterior = np.concatenate([output.posterior for output in outputs])
        classes = model.labels.classes
        reference = posterior if reference is None else reference
        predicted = posterior.argmax(1)
        scores = esc_and_eis_scores(gold_esc, predicted.tolist(), *_gold_and_predicted_eis(gold_eis, outputs))
        changed, difference = int((predicted != reference.argmax(1)).sum()), float(np.abs(posterior - reference).max())
        comparisons.append(
            Comparison(name, _megabytes(Path(name)), len(gold_esc), scores, changed, difference, seconds)
        )
    return comparisons


def _inputs(model: TrainedModel) -> ModelInputs:
    """How clips become what the model takes: stored filter banks, or all else of their waveforms."""
    if isinstance(model.extractor, BatchedFbank):
        return ModelInputs()
    return ModelInputs(load_samples, as_extractor(model.extractor))


def _gold_and_predicted_eis(gold: list[float], outputs: Sequence[ModelOutput]) -> tuple[list[float], list[float]]:
    """The gold and the predicted EIS of every clip; both empty for a model that was not trained on EIS."""
    predicted = [eis for output in outputs if output.eis is not None for eis in output.eis.tolist()]
    return (gold, predicted) if predicted else ([], [])


def _megabytes(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def as_text(comparisons: Sequence[Comparison]) -> str:
    """A table in Markdown."""

    def shown(value: float | None) -> str:
        return "n/a" if value is None else f"{value:.4f}"

    headings = ("model", "MB", "clips", "UA", "WA", "EIS MSE", "other class", "largest difference", "s")
    rows = []
    for row in comparisons:
        scores = [shown(row.scores[score]) for score in ("ua", "wa", "eis_mse")]
        changes = (str(row.changed), f"{row.difference:.5f}")
        rows.append((row.name, f"{row.megabytes:.2f}", str(row.clips), *scores, *changes, f"{row.seconds:.1f}"))
    return markdown_table(headings, rows).rstrip()
