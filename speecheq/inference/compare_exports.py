"""What a form of a model costs: exported models scored on a fold's test clips, beside the checkpoint they came from."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lhotse import CutSet

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.common.stages import require
from speecheq.dataset.batch import scoring_batches
from speecheq.evaluation.metrics import esc_and_eis_scores
from speecheq.inference.trained_model import Answers, load_model

BATCH_SIZE = 16


@dataclass(frozen=True)
class Comparison:
    """The scores of one model over the same test clips; ``changed`` and ``difference`` are against the checkpoint."""

    name: str
    megabytes: float
    clips: int
    ua: float | None
    wa: float | None
    eis_mse: float | None
    changed: int  # clips that get another class
    difference: float  # the largest of a posterior
    seconds: float


def compare_models(experiment: Path, msud: Path, models: Sequence[str]) -> list[Comparison]:
    """best.pt of ``experiment``, then each of ``models``, over the test clips of its fold in ``msud``, on the CPU.

    InputError where a stage has not run, or a model has other classes than the experiment's.
    """
    experiment = Path(experiment)
    require(experiment, "train")
    fold = Path(msud) / f"fold{read_json(experiment / 'run.json')['fold']}"
    require(fold, "unify")
    batches = list(scoring_batches("emotion", list(CutSet.from_jsonl_lazy(fold / "test.jsonl.gz")), BATCH_SIZE))
    gold = np.concatenate([batch.targets["esc"].numpy() for batch in batches])
    gold_eis = np.concatenate([batch.targets["eis"].numpy() for batch in batches])
    found: list[Comparison] = []
    classes, reference = None, None
    for name in (str(experiment / "best.pt"), *models):
        model = load_model(name, "cpu")
        if classes is not None and model.labels.classes != classes:
            raise InputError(f"{name}: its classes are not those of {experiment}; export that experiment's model.")
        started = time.perf_counter()
        answers = [model(batch.inputs, batch.lengths) for batch in batches]
        seconds = time.perf_counter() - started
        posterior = np.concatenate([answer.posterior for answer in answers])
        classes = model.labels.classes
        reference = posterior if reference is None else reference
        predicted = posterior.argmax(1)
        scores = esc_and_eis_scores(gold, predicted, *_intensities(gold_eis, answers))
        found.append(
            Comparison(
                name,
                _megabytes(Path(name)),
                len(gold),
                scores["ua"],
                scores["wa"],
                scores["eis_mse"],
                int((predicted != reference.argmax(1)).sum()),
                float(np.abs(posterior - reference).max()),
                seconds,
            )
        )
    return found


def _intensities(gold: np.ndarray, answers: Sequence[Answers]) -> tuple[np.ndarray, np.ndarray]:
    """Gold and predicted EIS; of a model that was not trained on it none, so that nothing is scored."""
    if answers[0].eis is None:
        return np.zeros(0), np.zeros(0)
    return gold, np.concatenate([answer.eis for answer in answers])


def _megabytes(path: Path) -> float:
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def as_text(comparisons: Sequence[Comparison]) -> str:
    """A table in Markdown."""

    def shown(value: float | None) -> str:
        return "n/a" if value is None else f"{value:.4f}"

    lines = [
        "| model | MB | clips | UA | WA | EIS MSE | other class | largest difference | s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in comparisons:
        lines.append(
            f"| {row.name} | {row.megabytes:.2f} | {row.clips} | {shown(row.ua)} | {shown(row.wa)} | "
            f"{shown(row.eis_mse)} | {row.changed} | {row.difference:.5f} | {row.seconds:.1f} |"
        )
    return "\n".join(lines)
