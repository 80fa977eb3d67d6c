"""Stage 5: score a training on every test set (section 3.1), with the checkpoint of the best epoch on the dev part.

For the figures it also keeps the embeddings of the test clips and, on request, scores the training clips (Figure 3).
"""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lhotse import CutSet
from lhotse.cut import Cut

from speecheq.common.device import pick_device
from speecheq.common.files import read_json, remove_leftovers, write_fault_is_an_input_error, write_json
from speecheq.common.log import log
from speecheq.common.provenance import git_revision
from speecheq.common.stages import Stage, require
from speecheq.config.schema import Config
from speecheq.dataset.classes import class_table
from speecheq.dataset.dialogues import has_dialogues
from speecheq.dataset.lazy_cuts import open_cuts
from speecheq.dataset.model_inputs import ModelInputs, by_speaker, scoring_inputs
from speecheq.dataset.msud_recipe import EVERY_CORPUS, TEST
from speecheq.dataset.phones.phone_table import PhoneTable
from speecheq.dataset.protocols import ALL, CROSS
from speecheq.evaluation.calibration import DevCalibration, calibration_scores
from speecheq.evaluation.former_runs import remove_former
from speecheq.evaluation.metrics import greedy_constant, phone_error_rate
from speecheq.evaluation.predictions import (
    ClipPrediction,
    detailed_scores,
    phone_scores,
    predict_emotions,
    predict_phones,
)
from speecheq.evaluation.score_files import (
    EMBEDDINGS,
    METRICS,
    PHONES,
    SCORES,
    TRAINING_CLIPS,
    TRAINING_SCORES,
    read_metrics,
    write_embeddings,
    write_phones,
    write_scores,
)
from speecheq.models.checkpoint import load_model
from speecheq.models.normalisation import Normalised

FORMAT = 3
STAMP_FOLDER = "scored"
# Data for figures only have their own stamps and format, so that changing them does not redo the scores.
FIGURES_FORMAT = 1
EMBEDDINGS_STAMP_FOLDER, TRAINING_STAMP_FOLDER = "scored_embeddings", "scored_training"
FORMATS = {STAMP_FOLDER: FORMAT, EMBEDDINGS_STAMP_FOLDER: FIGURES_FORMAT, TRAINING_STAMP_FOLDER: FIGURES_FORMAT}
# The files of a training that may be deleted once it is scored.
CHECKPOINTS = ("best.pt", "last.pt")
# PER is compared with that of one constant output, which is chosen on this many utterances at most.
CONSTANT_FROM = 200
# The entries of msud.json that are the same in all folds of an experiment.
CLASS_SETTINGS = ("classes", "class_esc", "classes_of", "neutral_eis")
EXPERIMENT = ("name", "target", "protocol", "partition", "dev", *CLASS_SETTINGS, "use", "folds_file", "left_out")


class TrainedFold(NamedTuple):
    """A finished training and the fold of MsUD that it was trained on.

    ``run`` is the content of run.json in ``folder``, ``msud`` that of msud.json in ``fold_folder``.
    """

    folder: Path
    fold_folder: Path
    run: Mapping[str, Any]
    msud: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path, msud: Path, fold: int) -> "TrainedFold":
        """Raises InputError unless stage 4 has finished ``folder`` and stage 3 the fold; checkpoints may be gone."""
        fold_folder = Path(msud) / f"fold{fold}"
        require(folder, "train", without=CHECKPOINTS)
        require(fold_folder, "unify")
        return cls(folder, fold_folder, read_json(folder / "run.json"), read_json(fold_folder / "msud.json"))

    @property
    def title(self) -> str:
        fold, seed = self.fold_folder.name.removeprefix("fold"), self.run["seed"]
        return f"{self.run['config_name']}-{self.run['system']}, {self.msud['name']}, fold {fold}, seed {seed}"

    @property
    def phonemes(self) -> Path | None:
        """The phoneme corpus' folder; None if the training has no CTC branch."""
        return Path(self.run["phonemes"]) if self.run["ctc_backend"] != "none" else None

    def cuts(self, name: str) -> Path:
        """The cuts of a set of the fold, such as test."""
        return self.fold_folder / f"{name}.jsonl.gz"


class BestModel(NamedTuple):
    """The model of a training's best epoch, in eval mode on ``device``, with its settings and its checkpoint."""

    model: Normalised
    config: Config
    checkpoint: Mapping[str, Any]
    device: torch.device
    inputs: ModelInputs = ModelInputs()  # how clips become its features, before normalisation by speaker

    @classmethod
    def load(cls, folder: Path) -> "BestModel":
        """Raise InputError if the checkpoint is missing or has changed since stage 4."""
        require(folder, "train")
        model, config, checkpoint = load_model(folder / "best.pt")
        device = pick_device("auto")  # not the training's: another machine may score
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        states = read_json(folder / "run.json").get("states")
        inputs = scoring_inputs(config, states and Path(states), device, model.trained_encoder)
        return cls(model.to(device), config, checkpoint, device, inputs)

    @property
    def calibration(self) -> DevCalibration:
        return DevCalibration.from_dict(self.checkpoint.get("calibration"))

    def inputs_of(self, cuts: Sequence[Cut], inputs: ModelInputs | None = None) -> ModelInputs:
        """How a set of cuts becomes features: by ``inputs`` (None: stored ones), normalised as in training."""
        inputs = inputs or self.inputs
        if self.config.data.cmvn != "speaker":
            return inputs
        return by_speaker(inputs, cuts, self.config.data.batch_size, self.device)

    def predict(
        self, cuts: Path, corpus: str | None = None, embeddings: bool = False, inputs: ModelInputs | None = None
    ) -> list[ClipPrediction]:
        """The predictions for a file of cuts, or for those of one ``corpus`` in it (see ``predict_emotions``)."""
        clips = list(open_cuts(cuts, corpus))
        size, inputs = self.config.data.batch_size, self.inputs_of(clips, inputs)
        temperature = self.calibration.temperature
        return predict_emotions(self.model, clips, size, self.device, embeddings, inputs, temperature)


def label_set(msud: Mapping[str, Any], name: str) -> list[str]:
    """The classes of the corpus of the test set ``name`` that are in use; ``msud`` is the content of msud.json.

    For another corpus, and for a target that is tested completely, these are the classes that occur in the set.
    """
    classes = class_table(msud)
    if name != TEST or msud["protocol"] == CROSS:
        return [label for label in classes.names if label in msud["sets"][name]["class"]]
    use = msud["use"].get(msud["target"], msud["use"].get(EVERY_CORPUS))
    categories = set(msud["target_esc"]) & set(msud["target_esc"] if use is None else use)
    return [label for label, category in zip(*classes) if category in categories]


def score(folder: Path, msud: Path, fold: int, training_clips: bool = False) -> dict[str, Any]:
    """Score a training: write scores.tsv, phones.tsv, metrics.json and embeddings.npz to its ``folder``.

    On request also train_scores.tsv of the target's training clips. A scored folder without its checkpoints is done,
    though it gets no embeddings. Raises InputError if an earlier stage has not run.

    Returns: the content of metrics.json (empty if stages are only planned). Keys are ``<set>.<metric>``:
    ``detailed_scores`` and ``calibration_scores`` of each test set (test.wa of the target, test_<corpus>.wa of another
    corpus), test.per of the phoneme corpus, and dev.* of the best epoch; None where a metric is not defined.
    """
    trained = TrainedFold.read(folder, msud, fold)
    if trained.msud["protocol"] == ALL:
        log.info("%s: all clips were trained on, so none is scored", trained.title)
        return {}
    if training_clips and trained.msud["protocol"] == CROSS:
        target = trained.msud["target"]
        log.info("%s: trains on no clip of %s, so no training clip of it is scored", trained.title, target)
        training_clips = False
    scores, embeddings, training = _stages(trained)
    missing = [stage for stage in (scores, embeddings) if stage.needs_run()]
    if missing == [embeddings] and not (folder / "best.pt").exists():
        log.info("%s: best.pt does not exist any more, so no embeddings are made", trained.title)
        missing = []
    if training_clips and training.needs_run():
        missing.append(training)
    if not missing:
        return read_metrics(folder)
    planned = [stage.added_to_plan() for stage in missing]
    if any(planned):
        return {}

    with scores.locked() as scores_missing:  # for all three stages
        for name in (METRICS, SCORES, PHONES, EMBEDDINGS, TRAINING_SCORES, embeddings.folder, training.folder):
            remove_leftovers(folder / name)
        # another process may have scored meanwhile
        missing = [stage for stage in missing if (scores_missing if stage is scores else stage.needs_run())]
        if missing:
            model = BestModel.load(folder)
        if scores in missing:
            tested = _score_tests(scores, trained, model)
        if embeddings in missing:
            embeddings.invalidate()
            if scores not in missing:
                tested = model.predict(trained.cuts(TEST), embeddings=True)
            write_embeddings(folder / EMBEDDINGS, tested)
            _finish(embeddings, [EMBEDDINGS], len(tested), "test clips")
        if training in missing:
            training.invalidate()
            predictions = model.predict(trained.cuts("emotion"), trained.msud["target"])
            write_scores(folder / TRAINING_SCORES, {TRAINING_CLIPS: predictions}, class_table(trained.msud))
            _finish(training, [TRAINING_SCORES], len(predictions), "training clips")
        if scores in missing:
            remove_former(folder)
    return read_metrics(folder)


def _stages(trained: TrainedFold) -> tuple[Stage, Stage, Stage]:
    """The three parts of stage 5, each with a stamp of its own: the scores, the embeddings, the training clips."""
    data = [trained.folder, trained.fold_folder]
    phonemes = []
    if trained.phonemes is not None:
        require(trained.phonemes, "unify")
        phonemes.append(trained.phonemes)

    def stage(stamp: str, prefix: str, inputs: Sequence[Path]) -> Stage:
        return Stage("score", prefix + trained.title, trained.folder / stamp, {}, inputs, FORMATS[stamp])

    return (
        stage(STAMP_FOLDER, "", data + phonemes),
        stage(EMBEDDINGS_STAMP_FOLDER, "embeddings of ", data),
        stage(TRAINING_STAMP_FOLDER, "training clips of ", data),
    )


def _finish(stage: Stage, files: Sequence[str], clips: int, unit: str) -> None:
    """Write the stamp of a part of stage 5, whose ``files`` are in the parent folder."""
    with write_fault_is_an_input_error(stage.folder):
        stage.folder.mkdir(exist_ok=True)
    stage.finish(stage.folder, clips, clips, outputs=[f"../{name}" for name in files], unit=unit)


def _score_tests(stage: Stage, trained: TrainedFold, model: BestModel) -> list[ClipPrediction]:
    """Write scores.tsv, phones.tsv and metrics.json; returns the target's test clips with their embeddings."""
    stage.invalidate()
    tests = _tests(trained, model)
    sets = {name: model.predict(trained.cuts(name), embeddings=name == TEST) for name in tests}
    scores: dict[str, Any] = {f"dev.{name}": value for name, value in model.checkpoint["dev"].items()}
    genders, intensities = "gender" in model.config.tasks(), model.config.loss.alpha > 0
    classes = class_table(trained.msud)
    label_sets = {name: label_set(trained.msud, name) for name in sets}
    for name, predictions in sets.items():
        own_classes = [classes.names.index(label) for label in label_sets[name]]
        found = detailed_scores(predictions, genders, classes, own_classes, intensities)
        found.update(calibration_scores(predictions, model.calibration.temperature))
        scores.update({f"{name}.{key}": value for key, value in found.items()})
        scores[f"{name}.clips"] = len(predictions)
    scores["test.per"] = None
    files, phonemes = [METRICS, SCORES], {}
    if trained.phonemes is not None:
        files.append(PHONES)
        phonemes = read_json(trained.phonemes / "phonemes.json")
        scores.update(_score_phones(trained.folder, trained.phonemes, phonemes["test"], model))
    write_scores(trained.folder / SCORES, sets, classes)
    run = _describe_run(trained, model, label_sets, phonemes)
    write_json(trained.folder / METRICS, {**scores, "run": run})
    _finish(stage, files, sum(map(len, sets.values())), "test clips")
    shown = [f"{set_name}.{name}" for set_name in sets for name in ("wa", "ua", "eis_ccc")] + ["test.per"]
    known = [f"{name} {scores[name]:.4f}" for name in shown if scores[name] is not None]
    log.info("%s: %s; %s", stage.title, " ".join(known), model.calibration.title)
    return sets[TEST]


def _tests(trained: TrainedFold, model: BestModel) -> list[str]:
    """The test sets: for a model of dialogues without those of other corpora that name none."""
    tests = list(trained.msud["tests"])
    if not model.inputs.dialogues:
        return tests
    kept = [name for name in tests if name == TEST or has_dialogues(next(iter(open_cuts(trained.cuts(name)))))]
    for name in tests:
        if name not in kept:
            log.warning("%s: %s is not scored, since its corpus names no dialogues", trained.title, name)
    return kept


def _score_phones(folder: Path, phonemes: Path, name: str, model: BestModel) -> dict[str, Any]:
    """Write phones.tsv of the set ``name`` of the phoneme corpus; returns the metrics of its phones."""
    cuts = list(CutSet.from_jsonl_lazy(phonemes / f"{name}.jsonl.gz"))
    size, inputs = model.config.data.batch_size, model.inputs_of(cuts)
    pause = model.config.phonemes.pause(model.config.model.num_phones)
    decoded = predict_phones(model.model, cuts, size, model.device, inputs, pause)
    references = [p.reference for p in decoded]
    some = random.Random(0).sample(references, min(CONSTANT_FROM, len(references)))
    constant = phone_error_rate(references, [greedy_constant(some)] * len(references))
    write_phones(folder / PHONES, decoded, PhoneTable.load(phonemes / "phones.txt"))
    return {
        **{f"test.{key}": value for key, value in phone_scores(decoded).items()},
        "test.per_utterances": len(decoded),
        "test.per_of_constant": constant,
    }


def _describe_run(
    trained: TrainedFold, model: BestModel, label_sets: Mapping[str, list[str]], phonemes: Mapping[str, Any]
) -> dict[str, Any]:
    """The part "run" of metrics.json; ``phonemes`` is the content of phonemes.json."""
    run, msud = trained.run, trained.msud
    return {
        **{key: run[key] for key in ("system", "seed", "ctc_backend", "device", "threads", "steps", "train_seconds")},
        **{key: msud[key] for key in (*EXPERIMENT, "fold", "folds", "test_speakers_in_training")},
        "config": run["config_name"],
        "set": run["assignments"],
        "features": model.config.data.features,
        "encoder_train": model.config.encoder.train,
        "by_speaker": model.config.data.cmvn == "speaker",
        "speech_activity": model.config.data.speech_activity,
        "as_published": msud.get("as_published", []),
        "context": model.config.model.context,
        "signal": model.config.encoder.model if model.config.encoder.is_signal else "",
        "select": model.config.optim.select,
        "label_sets": label_sets,
        "corpora": msud["corpora"] if model.config.data.corpora == "all" else [msud["target"]],
        "phonemes": phonemes.get("corpus"),
        "per_set": phonemes.get("test"),
        "units": phonemes.get("units"),
        **{name: phonemes[name] for name in ("pronunciations", "silence") if name in phonemes},
        "sounds": {
            kind: {name: sounds[name] for name in ("files", "hours")} for kind, sounds in run.get("sounds", {}).items()
        },
        "parameters": sum(parameter.numel() for parameter in model.model.parameters()),  # without a frozen encoder's
        "best_epoch": model.checkpoint["epoch"],
        "calibration": model.calibration.to_dict(),
        "trained_at_git": run["git"],
        "scored_at_git": git_revision(),
    }
