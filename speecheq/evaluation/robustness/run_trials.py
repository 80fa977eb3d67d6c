"""Stage 5 under other conditions: score a trained fold on changed test clips, or on other corpora."""

from pathlib import Path
from typing import Any

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.common.progress import progress
from speecheq.common.stages import STAMP, Stage, require
from speecheq.dataset.batch import load_samples
from speecheq.dataset.classes import class_table
from speecheq.dataset.model_inputs import ModelInputs
from speecheq.dataset.msud_recipe import TEST
from speecheq.evaluation.predictions import ClipPrediction
from speecheq.evaluation.robustness.attack_trial import AttackTrial
from speecheq.evaluation.robustness.conditions import CLEAN, Condition, masked_gradient_warnings, write
from speecheq.evaluation.robustness.cross_corpus_trial import CorpusTrial
from speecheq.evaluation.robustness.noise_trial import NoiseTrial
from speecheq.evaluation.robustness.telephone_trial import TelephoneTrial
from speecheq.evaluation.robustness.training_history import training_history
from speecheq.evaluation.score import STAMP_FOLDER, BestModel, TrainedFold
from speecheq.evaluation.score_files import SCORES, read_scores

Trial = NoiseTrial | TelephoneTrial | AttackTrial | CorpusTrial


def run_trial(folder: Path, msud: Path, fold: int, trial: Trial) -> None:
    """Score the training in ``folder`` under each condition of ``trial`` (see ``conditions.write``).

    Raises InputError if an earlier stage has not run, if a recording or corpus of the test was trained on, or if the
    model is gone or has no gradient for an attack.
    """
    for source in trial.inputs:
        require(source, trial.input_stage)
    trained = TrainedFold.read(folder, msud, fold)
    setting, title = trial.setting, f"{trial.setting.title.lower()} of {trained.title}"
    inputs = [folder, trained.fold_folder, *trial.inputs]
    stage = Stage("score", title, folder / setting.folder, trial.options, inputs, setting.format)
    if not stage.needs_run() or stage.added_to_plan():
        return
    if not (folder / "best.pt").is_file():
        raise InputError(
            f"{folder / 'best.pt'}: does not exist any more; restore it or train again: other conditions "
            "need the checkpoint, an exported model (ONNX) cannot take its place."
        )
    model = BestModel.load(folder)
    if isinstance(trial, CorpusTrial):
        predictions, facts = trial.predict(training_history(folder), trained.msud, model)
    else:
        predictions, facts = _predict_changed(trial, trained, model, title)
    rows = write(stage, setting, fold, trained.run["seed"], facts, predictions, class_table(trained.msud))
    log.info("%s: UA %s", title, ", ".join(f"{row.condition.name} {row.metrics['ua']:.4f}" for row in rows))
    for sentence in masked_gradient_warnings(rows):
        log.warning("%s: %s", trained.title, sentence)


def _predict_changed(
    trial: NoiseTrial | TelephoneTrial | AttackTrial, trained: TrainedFold, model: BestModel, title: str
) -> tuple[dict[Condition, list[ClipPrediction]], dict[str, Any]]:
    """The predictions for the test clips under each condition of ``trial``, and the facts for ``conditions.write``."""
    extractors, facts = trial.extractors(trained.folder, model)
    predictions = {
        condition: model.predict(trained.cuts(TEST), inputs=ModelInputs(load_samples, extractor))
        for condition, extractor in progress(extractors.items(), title, unit="conditions")
    }
    if (trained.folder / STAMP_FOLDER / STAMP).is_file():
        before = {clip.id: clip.predicted_esc for clip in read_scores(trained.folder / SCORES)[TEST]}
        changed = sum(clip.predicted_esc != before[clip.id] for clip in predictions[CLEAN])
        if changed:
            log.warning(
                "%s: unchanged, %d of %d clips get another class than in stage 5, which reads stored features "
                "(rounded)",
                title,
                changed,
                len(before),
            )
    return predictions, facts
