"""Scoring a trained fold (section 3.1): every test set once, with the checkpoint that was best on dev."""

import csv
import io
import math
import random
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence

import torch
from lhotse import CutSet

from speecheq import seqm
from speecheq.checkpoint import load_model
from speecheq.data import GENDERS
from speecheq.errors import InputError
from speecheq.evaluate import (
    ClipPrediction,
    PhonePrediction,
    detailed_scores,
    phone_scores,
    pick_device,
    predict_emotions,
    predict_phones,
)
from speecheq.files import read_json, whole_file, write_json
from speecheq.metrics import greedy_constant, phone_error_rate, phone_errors
from speecheq.msud import EVERY_CORPUS, TEST, class_table
from speecheq.phones.table import PhoneTable
from speecheq.progress import log
from speecheq.protocol import CROSS
from speecheq.provenance import git_revision
from speecheq.stages import Stage, is_only_asked, require

# Raised when what scoring writes changes its meaning.
FORMAT = 3
STAMP_FOLDER = "scored"
METRICS, SCORES, PHONES = "metrics.json", "scores.tsv", "phones.tsv"
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
EXPERIMENT = ("name", "target", "protocol", "partition", "dev", "classes", "class_esc", "classes_of", "neutral_eis",
              "use", "folds_file", "left_out")


def write_scores(path: Path, sets: Dict[str, Sequence[ClipPrediction]], classes: seqm.ClassTable) -> None:
    """``scores.tsv``: one line a clip, tab separated, with true and predicted labels.

    The predicted name is the SEQM name of the predicted class' category at the predicted EIS.
    """
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow([*BEFORE, *(POSTERIOR + name for name in classes.names), *AFTER])
        for name, predictions in sets.items():
            for p in predictions:
                writer.writerow([
                    name, p.id, p.corpus, p.speaker, classes.names[p.gold_esc], classes.names[p.predicted_esc],
                    *(f"{value:.6f}" for value in p.posterior),
                    f"{p.gold_eis:.4f}" if seqm.is_specified(p.gold_eis) else NOT_AVAILABLE, f"{p.predicted_eis:.4f}",
                    seqm.emotion_name(classes.categories[p.predicted_esc], p.predicted_eis),
                    p.gold_gender or NOT_AVAILABLE, p.predicted_gender,
                ])


def read_scores(path: Path) -> Dict[str, List[ClipPrediction]]:
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
        raise InputError(f"{path}: is no table of scores, its columns are not {', '.join((*BEFORE, '...', *AFTER))}; "
                         f"{AGAIN}")
    sets: Dict[str, List[ClipPrediction]] = {}
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
            writer.writerow([p.id, phone_errors(p.reference, p.hypothesis), " ".join(table.decode(p.reference)),
                             " ".join(table.decode(p.hypothesis))])


def read_metrics(folder: Path) -> Dict[str, Any]:
    """``metrics.json`` of a scored folder; InputError where it is damaged."""
    path = Path(folder) / METRICS
    metrics = read_json(path)
    run = metrics.get("run") if isinstance(metrics, dict) else None
    if not isinstance(run, dict) or not {"fold", "seed", "label_sets"} <= set(run):
        raise InputError(f"{path}: does not say what was run; {AGAIN}")
    return metrics


def label_set(note: Mapping[str, Any], name: str) -> List[str]:
    """The classes that the corpus of a test set has: those of its labels that are in use.

    Of a test set that is whole in every fold (another corpus', or all of the target) they are those that occur in it.
    """
    classes = class_table(note)
    if name != TEST or note["protocol"] == CROSS:
        return [label for label in classes.names if label in note["sets"][name]["class"]]
    use = note["use"].get(note["target"], note["use"].get(EVERY_CORPUS))
    categories = set(note["target_esc"]) & set(note["target_esc"] if use is None else use)
    return [label for label, category in zip(*classes) if category in categories]


def score(folder: Path, msud: Path, fold: int) -> Dict[str, Any]:
    """Stage 5 for one trained folder: writes scores.tsv, phones.tsv and metrics.json there, returns the metrics.

    Metrics are keyed ``<set>.<score>``: of each test set what ``detailed_scores`` says, as test.wa of the target and
    test_<corpus>.wa of other corpora with a fixed test part; test.per on the phoneme corpus; dev.* of the checkpoint's
    epoch. None where a score is not defined. A folder that is scored does without its checkpoints. InputError where
    stage 4 has not run.
    """
    require(folder, "train", without=CHECKPOINTS)
    run = read_json(folder / "run.json")
    fold_folder = msud / f"fold{fold}"
    require(fold_folder, "unify")
    note = read_json(fold_folder / "msud.json")
    learns_phones = run["ctc_backend"] != "none"
    phonemes = Path(run["phonemes"]) if learns_phones else None
    inputs = [folder, fold_folder] + ([phonemes] if learns_phones else [])
    if learns_phones:
        require(phonemes, "unify")
    name = f"{run['config_name']}-{run['system']}, {note['name']}"
    title = f"{name}, fold {fold}, seed {run['seed']}"
    stage = Stage("score", title, folder / STAMP_FOLDER, {}, inputs, FORMAT)
    if stage.is_done():
        return {} if is_only_asked() else read_metrics(folder)

    require(folder, "train")  # now with its checkpoint
    stage.begin()
    model, config, content = load_model(folder / "best.pt")
    device = pick_device("auto")  # not the training's: another machine may score
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    model.to(device)
    sets = {
        name: predict_emotions(model, list(CutSet.from_jsonl_lazy(fold_folder / f"{name}.jsonl.gz")),
                               config.data.batch_size, device)
        for name in note["tests"]
    }
    scores: Dict[str, Any] = {f"dev.{name}": value for name, value in content["dev"].items()}
    genders = "gender" in config.tasks()
    classes = class_table(note)
    label_sets = {name: label_set(note, name) for name in sets}
    for name, predictions in sets.items():
        own_classes = [classes.names.index(label) for label in label_sets[name]]
        found = detailed_scores(predictions, genders, classes, own_classes)
        scores.update({f"{name}.{key}": value for key, value in found.items()})
        scores[f"{name}.clips"] = len(predictions)
    scores["test.per"] = None
    phone_note: Dict[str, Any] = {}
    if learns_phones:
        phone_note = read_json(phonemes / "phonemes.json")
        cuts = list(CutSet.from_jsonl_lazy(phonemes / f"{phone_note['test']}.jsonl.gz"))
        predictions = predict_phones(model, cuts, config.data.batch_size, device)
        scores.update({f"test.{key}": value for key, value in phone_scores(predictions).items()})
        scores["test.per_utterances"] = len(predictions)
        references = [p.reference for p in predictions]
        some = random.Random(0).sample(references, min(CONSTANT_FROM, len(references)))
        scores["test.per_of_constant"] = phone_error_rate(references, [greedy_constant(some)] * len(references))
        write_phones(folder / PHONES, predictions, PhoneTable.load(phonemes / "phones.txt"))
    write_scores(folder / SCORES, sets, classes)
    metrics = {
        **scores,
        "run": {
            "system": run["system"], "config": run["config_name"], "set": run["assignments"],
            **{key: note[key] for key in (*EXPERIMENT, "test_speakers_in_training")},
            "label_sets": label_sets, "fold": fold, "folds": note["folds"], "seed": run["seed"],
            "corpora": note["corpora"] if config.data.corpora == "all" else [note["target"]],
            "phonemes": phone_note.get("corpus"), "per_set": phone_note.get("test"), "units": phone_note.get("units"),
            "ctc_backend": run["ctc_backend"], "device": run["device"], "threads": run["threads"],
            "steps": run["steps"], "train_seconds": run["train_seconds"], "best_epoch": content["epoch"],
            "trained_at_git": run["git"], "scored_at_git": git_revision(),
        },
    }
    write_json(folder / METRICS, metrics)
    (folder / STAMP_FOLDER).mkdir(exist_ok=True)
    clips = sum(map(len, sets.values()))
    written = [METRICS, SCORES] + ([PHONES] if learns_phones else [])
    stage.finish(folder / STAMP_FOLDER, clips, clips, outputs=[f"../{name}" for name in written], unit="test clips")
    shown = [f"{set_name}.{name}" for set_name in sets for name in ("wa", "ua", "eis_ccc")] + ["test.per"]
    log.info("%s: %s", title, " ".join(f"{name} {scores[name]:.4f}" for name in shown if scores[name] is not None))
    return metrics
