"""Stage 5 under other conditions: a trained fold is scored on changed test clips, or on other corpora."""

from pathlib import Path
from typing import Any

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.common.log import log
from speecheq.common.progress import progress
from speecheq.common.stages import STAMP, Stage, require
from speecheq.dataset.classes import class_table
from speecheq.dataset.msud_recipe import TEST
from speecheq.evaluation.predictions import ClipPrediction
from speecheq.evaluation.robustness.attack_trial import AttackTrial
from speecheq.evaluation.robustness.conditions import CLEAN, Condition, masked_gradient_warnings, write
from speecheq.evaluation.robustness.cross_corpus_trial import CorpusTrial
from speecheq.evaluation.robustness.noise_trial import NoiseTrial
from speecheq.evaluation.robustness.training_history import trainings
from speecheq.evaluation.score import CHECKPOINTS, STAMP_FOLDER, BestModel
from speecheq.evaluation.score_files import SCORES, read_scores

Trial = NoiseTrial | AttackTrial | CorpusTrial


def try_conditions(folder: Path, msud: Path, fold: int, trial: Trial) -> None:
    """Score a trained folder under each condition of ``trial`` (see ``conditions.write``).

    InputError where an earlier stage has not run, a sound or corpus of the test was trained on, or the model is gone or
    has no gradient for an attack.
    """
    setting, fold_folder = trial.setting, Path(msud) / f"fold{fold}"
    require(folder, "train", without=CHECKPOINTS)
    require(fold_folder, "unify")
    for source in trial.inputs:
        require(source, trial.inputs_of)
    run, note = read_json(folder / "run.json"), read_json(fold_folder / "msud.json")
    title = f"{run['config_name']}-{run['system']}, {note['name']}, fold {fold}, seed {run['seed']}"
    stage = Stage(
        "score",
        f"{setting.title.lower()} of {title}",
        folder / setting.folder,
        trial.options,
        [folder, fold_folder, *trial.inputs],
        setting.format,
    )
    if not stage.needs_run() or stage.added_to_plan():
        return
    if not (folder / "best.pt").is_file():
        raise InputError(
            f"{folder / 'best.pt'}: is not there any more; put it back or train again: other conditions "
            "need the checkpoint, an exported model (ONNX) cannot take its place."
        )
    trained = BestModel.load(folder)
    if isinstance(trial, CorpusTrial):
        said, facts = trial.said(trainings(folder), note, trained)
    else:
        said, facts = _of_changed(trial, folder, fold_folder, trained, stage.title)
    rows = write(stage, setting, fold, run["seed"], facts, said, class_table(note))
    log.info("%s: UA %s", stage.title, ", ".join(f"{row.condition.name} {row.metrics['ua']:.4f}" for row in rows))
    for sentence in masked_gradient_warnings(rows):
        log.warning("%s: %s", title, sentence)


def _of_changed(
    trial: NoiseTrial | AttackTrial, folder: Path, fold_folder: Path, trained: BestModel, title: str
) -> tuple[dict[Condition, list[ClipPrediction]], dict[str, Any]]:
    """What is said of the test clips under each change of ``trial``, and the facts of that."""
    said = {}
    changes, facts = trial.changes(folder, trained)
    for condition, change in progress(changes.items(), title, unit="conditions"):
        said[condition] = trained.predict(fold_folder / f"{TEST}.jsonl.gz", extractor=change)
    if (folder / STAMP_FOLDER / STAMP).is_file():
        before = {clip.id: clip.predicted_esc for clip in read_scores(folder / SCORES)[TEST]}
        others = sum(clip.predicted_esc != before[clip.id] for clip in said[CLEAN])
        if others:
            log.warning(
                "%s: unchanged, %d of %d clips get another class than in stage 5, which reads stored features "
                "(rounded)",
                title,
                others,
                len(before),
            )
    return said, facts
