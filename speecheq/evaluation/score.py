"""Scoring a trained fold (section 3.1): every test set once, with the checkpoint that was best on dev.

For the pictures it keeps the embeddings of the test clips and, on request, scores the training clips (Figure 3).
"""

import csv
import io
import math
import random
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lhotse import CutSet
from torch import nn

from speecheq import seqm
from speecheq.common.device import pick_device
from speecheq.common.errors import InputError
from speecheq.common.files import read_json, remove_leftovers, whole_file, write_fault_is_an_input_error, write_json
from speecheq.common.log import log
from speecheq.common.provenance import git_revision
from speecheq.common.stages import Stage, require
from speecheq.config.schema import GENDERS, Config
from speecheq.dataset.batch import TaskBatch
from speecheq.dataset.lazy_cuts import open_cuts
from speecheq.dataset.msud import EVERY_CORPUS, TEST, class_table
from speecheq.dataset.phones.phone_table import PhoneTable
from speecheq.dataset.protocols import CROSS
from speecheq.evaluation.metrics import greedy_constant, phone_error_rate, phone_errors
from speecheq.evaluation.predictions import (
    ClipPrediction,
    PhonePrediction,
    detailed_scores,
    phone_scores,
    predict_emotions,
    predict_phones,
)
from speecheq.models.checkpoint import load_model

# Raised when what scoring writes changes its meaning.
FORMAT = 3
STAMP_FOLDER = "scored"
METRICS, SCORES, PHONES = "metrics.json", "scores.tsv", "phones.tsv"
# What only pictures need has formats and stamps of its own, so that scores are not made again for their sake.
PICTURES_FORMAT = 1
EMBEDDINGS_STAMP_FOLDER, TRAINING_STAMP_FOLDER = "scored_embeddings", "scored_training"
FORMATS = {STAMP_FOLDER: FORMAT, EMBEDDINGS_STAMP_FOLDER: PICTURES_FORMAT, TRAINING_STAMP_FOLDER: PICTURES_FORMAT}
EMBEDDINGS, TRAINING_SCORES = "embeddings.npz", "train_scores.tsv"
TRAINING_CLIPS = "train"  # the only set of train_scores.tsv
# Of a training's files, those that tables can do without once it is scored.
CHECKPOINTS = ("best.pt", "last.pt")
# The constant output that PER is held against is found on so many utterances, at most, and scored on all.
CONSTANT_FROM = 200
POSTERIOR = "p_"  # begins the column of a class' posterior
BEFORE = ["set", "utt", "corpus", "speaker", "esc", "predicted_esc"]
AFTER = ["eis", "predicted_eis", "name", "gender", "predicted_gender"]
NOT_AVAILABLE = "n/a"
AGAIN = "remove it and run stage 5 (score) again."
# What msud.json says of the labels and the protocol, the same in all folds of an experiment.
EXPERIMENT = (
    "name",
    "target",
    "protocol",
    "partition",
    "dev",
    "classes",
    "class_esc",
    "classes_of",
    "neutral_eis",
    "use",
    "folds_file",
    "left_out",
)


def write_scores(path: Path, sets: dict[str, Sequence[ClipPrediction]], classes: seqm.ClassTable) -> None:
    """``scores.tsv``: one line a clip, tab separated, with true and predicted labels.

    The predicted name is the SEQM name of the predicted class' category at the predicted EIS.
    """
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow([*BEFORE, *(POSTERIOR + name for name in classes.names), *AFTER])
        for name, predictions in sets.items():
            for p in predictions:
                writer.writerow(
                    [
                        name,
                        p.id,
                        p.corpus,
                        p.speaker,
                        classes.names[p.gold_esc],
                        classes.names[p.predicted_esc],
                        *(f"{value:.6f}" for value in p.posterior),
                        f"{p.gold_eis:.4f}" if seqm.is_specified(p.gold_eis) else NOT_AVAILABLE,
                        f"{p.predicted_eis:.4f}",
                        seqm.emotion_name(classes.categories[p.predicted_esc], p.predicted_eis),
                        p.gold_gender or NOT_AVAILABLE,
                        p.predicted_gender,
                    ]
                )


def read_scores(path: Path) -> dict[str, list[ClipPrediction]]:
    """Read what ``write_scores`` wrote: set -> predictions. InputError names the line of a file that is not whole."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as fault:
        raise InputError(f"{path}: is no text ({fault}); {AGAIN}") from fault
    if not text.endswith("\n"):
        raise InputError(f"{path}: is cut off, its last line does not end; {AGAIN}")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t")
    heading = next(reader)
    classes = [name[len(POSTERIOR) :] for name in heading if name.startswith(POSTERIOR)]
    if heading != [*BEFORE, *(POSTERIOR + name for name in classes), *AFTER]:
        raise InputError(
            f"{path}: is no table of scores, its columns are not {', '.join((*BEFORE, '...', *AFTER))}; {AGAIN}"
        )
    sets: dict[str, list[ClipPrediction]] = {}
    for row in reader:
        try:
            made = _prediction(dict(zip(heading, row, strict=True)), classes)
        except ValueError as fault:
            raise InputError(f"{path}, line {reader.line_num}: is damaged ({fault}); {AGAIN}") from fault
        sets.setdefault(row[0], []).append(made)
    return sets


def _prediction(row: Mapping[str, str], classes: Sequence[str]) -> ClipPrediction:
    """A line of ``scores.tsv``; ValueError where it does not say what it should."""
    made = ClipPrediction(
        id=row["utt"],
        corpus=row["corpus"],
        speaker=row["speaker"],
        gold_esc=classes.index(row["esc"]),
        posterior=[float(row[POSTERIOR + name]) for name in classes],
        gold_eis=seqm.UNSPECIFIED if row["eis"] == NOT_AVAILABLE else float(row["eis"]),
        predicted_eis=float(row["predicted_eis"]),
        gold_gender=None if row["gender"] == NOT_AVAILABLE else row["gender"],
        predicted_gender=row["predicted_gender"],
    )
    if not all(map(math.isfinite, [*made.posterior, made.gold_eis, made.predicted_eis])):
        raise ValueError("a number is not finite")
    if made.posterior[classes.index(row["predicted_esc"])] != max(made.posterior):
        raise ValueError(f"{row['predicted_esc']} is not its most probable class")
    if made.predicted_gender not in GENDERS:
        raise ValueError(f"the gender {made.predicted_gender!r}")
    return made


def write_phones(path: Path, predictions: Sequence[PhonePrediction], table: PhoneTable) -> None:
    """``phones.tsv``: utterance, errors, gold and decoded phones."""
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(["utt", "errors", "phones", "decoded"])
        for p in predictions:
            writer.writerow(
                [
                    p.id,
                    phone_errors(p.reference, p.hypothesis),
                    " ".join(table.decode(p.reference)),
                    " ".join(table.decode(p.hypothesis)),
                ]
            )


def read_metrics(folder: Path) -> dict[str, Any]:
    """``metrics.json`` of a scored folder; InputError where it is damaged."""
    path = Path(folder) / METRICS
    metrics = read_json(path)
    run = metrics.get("run") if isinstance(metrics, dict) else None
    if not isinstance(run, dict) or not {"fold", "seed", "label_sets"} <= set(run):
        raise InputError(f"{path}: does not say what was run; {AGAIN}")
    return metrics


def label_set(note: Mapping[str, Any], name: str) -> list[str]:
    """The classes that the corpus of a test set has: those of its labels that are in use.

    Of a test set that is whole in every fold (another corpus', or all of the target) they are those that occur in it.
    """
    classes = class_table(note)
    if name != TEST or note["protocol"] == CROSS:
        return [label for label in classes.names if label in note["sets"][name]["class"]]
    use = note["use"].get(note["target"], note["use"].get(EVERY_CORPUS))
    categories = set(note["target_esc"]) & set(note["target_esc"] if use is None else use)
    return [label for label, category in zip(*classes) if category in categories]


def write_embeddings(path: Path, predictions: Sequence[ClipPrediction]) -> None:
    """``embeddings.npz``: ``ids`` (clips,) and ``embeddings`` (clips, D) float16, in the order of ``predictions``."""
    with whole_file(path) as temporary:
        np.savez_compressed(
            temporary,
            ids=np.array([p.id for p in predictions]),
            embeddings=np.stack([p.embedding for p in predictions]),
        )


def read_embeddings(path: Path, ids: Sequence[str]) -> np.ndarray:
    """What ``write_embeddings`` wrote, (clips, D) float16; InputError where it is not whole or not of these clips."""
    try:
        held = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        found, embeddings = held["ids"].tolist(), held["embeddings"]
    except (EOFError, IndexError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as fault:
        raise InputError(f"{path}: is cut off, or no file of embeddings ({fault}); {AGAIN}") from fault
    if found != list(ids) or embeddings.ndim != 2 or len(embeddings) != len(found):
        raise InputError(f"{path}: is not of the test clips of {SCORES} beside it; {AGAIN}")
    return embeddings


class Trained(NamedTuple):
    """The best model of a training, and what its checkpoint says."""

    model: nn.Module
    config: Config
    content: Mapping[str, Any]
    device: torch.device

    @classmethod
    def load(cls, folder: Path) -> "Trained":
        """InputError where the checkpoint is not as stage 4 left it."""
        require(folder, "train")
        model, config, content = load_model(folder / "best.pt")
        device = pick_device("auto")  # not the training's: another machine may score
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        return cls(model.to(device), config, content, device)

    def predict(
        self,
        cuts: Path,
        corpus: str | None = None,
        embeddings: bool = False,
        of_waveforms: Callable[[TaskBatch], TaskBatch] | None = None,
    ) -> list[ClipPrediction]:
        """Of the cuts of a set, or of those of one corpus (see ``predict_emotions``)."""
        return predict_emotions(
            self.model,
            list(open_cuts(cuts, corpus)),
            self.config.data.batch_size,
            self.device,
            embeddings,
            of_waveforms,
        )


def score(folder: Path, msud: Path, fold: int, training_clips: bool = False) -> dict[str, Any]:
    """Stage 5 for one trained folder: writes scores.tsv, phones.tsv, metrics.json and embeddings.npz there, and, on
    request, train_scores.tsv of the target's training clips; returns the metrics.

    Metrics are keyed ``<set>.<score>``: of each test set what ``detailed_scores`` says, as test.wa of the target and
    test_<corpus>.wa of other corpora with a fixed test part; test.per on the phoneme corpus; dev.* of the checkpoint's
    epoch. None where a score is not defined. A folder that is scored does without its checkpoints, but gets no
    embeddings then if it has none. InputError where stage 4 has not run.
    """
    require(folder, "train", without=CHECKPOINTS)
    run = read_json(folder / "run.json")
    fold_folder = msud / f"fold{fold}"
    require(fold_folder, "unify")
    note = read_json(fold_folder / "msud.json")
    phonemes = Path(run["phonemes"]) if run["ctc_backend"] != "none" else None
    if phonemes is not None:
        require(phonemes, "unify")
    title = f"{run['config_name']}-{run['system']}, {note['name']}, fold {fold}, seed {run['seed']}"
    data = [folder, fold_folder]

    def stage(stamp: str, what: str, inputs: Sequence[Path]) -> Stage:
        return Stage("score", what + title, folder / stamp, {}, inputs, FORMATS[stamp])

    scores = stage(STAMP_FOLDER, "", data + ([phonemes] if phonemes is not None else []))
    embeddings = stage(EMBEDDINGS_STAMP_FOLDER, "embeddings of ", data)
    training = stage(TRAINING_STAMP_FOLDER, "training clips of ", data)
    if training_clips and note["protocol"] == CROSS:
        log.info("%s: trains on no clip of %s, so no training clip of it is scored", title, note["target"])
        training_clips = False
    scored, embedded = not scores.needs_run(), not embeddings.needs_run()
    if scored and not embedded and not (folder / "best.pt").exists():
        log.info("%s: best.pt is not there any more, so no embeddings are made", title)
        embedded = True
    training_scored = not training_clips or not training.needs_run()
    is_done = {scores: scored, embeddings: embedded, training: training_scored}
    missing = [stage for stage, done in is_done.items() if not done]
    if not missing:
        return read_metrics(folder)
    planned = [stage for stage in missing if stage.added_to_plan()]
    if planned:
        return {}

    with scores.locked() as is_missing:  # of all three, for they are made together
        for name in (METRICS, SCORES, PHONES, EMBEDDINGS, TRAINING_SCORES, embeddings.folder, training.folder):
            remove_leftovers(folder / name)
        # another process may have been at it meanwhile
        scored, embedded = scored or not is_missing, embedded or not embeddings.needs_run()
        training_scored = training_scored or not training.needs_run()
        if not (scored and embedded and training_scored):
            trained = Trained.load(folder)
        if not scored:
            predictions = _score_tests(scores, folder, trained, run, note, fold_folder, phonemes)
        if not embedded:
            embeddings.invalidate()
            if scored:
                predictions = trained.predict(fold_folder / f"{TEST}.jsonl.gz", embeddings=True)
            write_embeddings(folder / EMBEDDINGS, predictions)
            _finish(embeddings, folder, [EMBEDDINGS], len(predictions), "test clips")
        if not training_scored:
            training.invalidate()
            predictions = trained.predict(fold_folder / "emotion.jsonl.gz", note["target"])
            write_scores(folder / TRAINING_SCORES, {TRAINING_CLIPS: predictions}, class_table(note))
            _finish(training, folder, [TRAINING_SCORES], len(predictions), "training clips")
    return read_metrics(folder)


def _finish(stage: Stage, folder: Path, written: Sequence[str], clips: int, unit: str) -> None:
    """Stamp a part of stage 5, whose files lie in ``folder``."""
    with write_fault_is_an_input_error(stage.folder):
        stage.folder.mkdir(exist_ok=True)
    stage.finish(stage.folder, clips, clips, outputs=[f"../{name}" for name in written], unit=unit)


def _score_tests(
    stage: Stage,
    folder: Path,
    trained: Trained,
    run: Mapping[str, Any],
    note: Mapping[str, Any],
    fold_folder: Path,
    phonemes: Path | None,
) -> list[ClipPrediction]:
    """Write scores.tsv, phones.tsv and metrics.json; returns the target's test clips with their embeddings."""
    stage.invalidate()
    sets = {name: trained.predict(fold_folder / f"{name}.jsonl.gz", embeddings=name == TEST) for name in note["tests"]}
    scores: dict[str, Any] = {f"dev.{name}": value for name, value in trained.content["dev"].items()}
    genders = "gender" in trained.config.tasks()
    classes = class_table(note)
    label_sets = {name: label_set(note, name) for name in sets}
    for name, predictions in sets.items():
        own_classes = [classes.names.index(label) for label in label_sets[name]]
        found = detailed_scores(predictions, genders, classes, own_classes, trained.config.loss.alpha > 0)
        scores.update({f"{name}.{key}": value for key, value in found.items()})
        scores[f"{name}.clips"] = len(predictions)
    scores["test.per"] = None
    phone_note: dict[str, Any] = {}
    if phonemes is not None:
        phone_note = read_json(phonemes / "phonemes.json")
        cuts = list(CutSet.from_jsonl_lazy(phonemes / f"{phone_note['test']}.jsonl.gz"))
        decoded = predict_phones(trained.model, cuts, trained.config.data.batch_size, trained.device)
        scores.update({f"test.{key}": value for key, value in phone_scores(decoded).items()})
        scores["test.per_utterances"] = len(decoded)
        references = [p.reference for p in decoded]
        some = random.Random(0).sample(references, min(CONSTANT_FROM, len(references)))
        scores["test.per_of_constant"] = phone_error_rate(references, [greedy_constant(some)] * len(references))
        write_phones(folder / PHONES, decoded, PhoneTable.load(phonemes / "phones.txt"))
    write_scores(folder / SCORES, sets, classes)
    metrics = {
        **scores,
        "run": {
            "system": run["system"],
            "config": run["config_name"],
            "set": run["assignments"],
            **{key: note[key] for key in (*EXPERIMENT, "test_speakers_in_training")},
            "label_sets": label_sets,
            "fold": note["fold"],
            "folds": note["folds"],
            "seed": run["seed"],
            "corpora": note["corpora"] if trained.config.data.corpora == "all" else [note["target"]],
            "phonemes": phone_note.get("corpus"),
            "per_set": phone_note.get("test"),
            "units": phone_note.get("units"),
            "sounds": {
                kind: {name: of[name] for name in ("files", "hours")} for kind, of in run.get("sounds", {}).items()
            },
            "ctc_backend": run["ctc_backend"],
            "device": run["device"],
            "threads": run["threads"],
            "steps": run["steps"],
            "train_seconds": run["train_seconds"],
            "best_epoch": trained.content["epoch"],
            "trained_at_git": run["git"],
            "scored_at_git": git_revision(),
        },
    }
    write_json(folder / METRICS, metrics)
    _finish(
        stage,
        folder,
        [METRICS, SCORES] + ([PHONES] if phonemes is not None else []),
        sum(map(len, sets.values())),
        "test clips",
    )
    shown = [f"{set_name}.{name}" for set_name in sets for name in ("wa", "ua", "eis_ccc")] + ["test.per"]
    known = [f"{name} {scores[name]:.4f}" for name in shown if scores[name] is not None]
    log.info("%s: %s", stage.title, " ".join(known))
    return sets[TEST]
