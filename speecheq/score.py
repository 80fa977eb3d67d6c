"""Scoring a trained fold (section 3.1): every test set once, with the checkpoint that was best on dev."""

import csv
import random
from pathlib import Path
from typing import Any, Dict, List, Sequence

import torch
from lhotse import CutSet

from speecheq import seqm
from speecheq.checkpoint import load_model
from speecheq.evaluate import (
    ClipPrediction,
    PhonePrediction,
    emotion_scores,
    phone_scores,
    pick_device,
    predict_emotions,
    predict_phones,
)
from speecheq.files import read_json, whole_file, write_json
from speecheq.metrics import greedy_constant, phone_error_rate, phone_errors
from speecheq.msud import class_table
from speecheq.phones.table import PhoneTable
from speecheq.progress import log
from speecheq.provenance import git_revision
from speecheq.stages import Stage, require

# Raised when what scoring writes changes its meaning.
FORMAT = 2
STAMP_FOLDER = "scored"
# The constant output that PER is held against is found on so many utterances, at most, and scored on all.
CONSTANT_FROM = 200
POSTERIOR = "p_"  # begins the column of a class' posterior
BEFORE = ["set", "utt", "corpus", "speaker", "esc", "predicted_esc"]
AFTER = ["eis", "predicted_eis", "name", "gender", "predicted_gender"]
NOT_AVAILABLE = "n/a"
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
    """Read what ``write_scores`` wrote: set -> predictions."""
    sets: Dict[str, List[ClipPrediction]] = {}
    with open(path, encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream, delimiter="\t")
        columns = [name for name in reader.fieldnames or () if name.startswith(POSTERIOR)]
        index = {name[len(POSTERIOR) :]: number for number, name in enumerate(columns)}
        for row in reader:
            sets.setdefault(row["set"], []).append(ClipPrediction(
                id=row["utt"],
                corpus=row["corpus"],
                speaker=row["speaker"],
                gold_esc=index[row["esc"]],
                posterior=[float(row[column]) for column in columns],
                gold_eis=seqm.UNSPECIFIED if row["eis"] == NOT_AVAILABLE else float(row["eis"]),
                predicted_eis=float(row["predicted_eis"]),
                gold_gender=None if row["gender"] == NOT_AVAILABLE else row["gender"],
                predicted_gender=row["predicted_gender"],
            ))
    return sets


def write_phones(path: Path, predictions: Sequence[PhonePrediction], table: PhoneTable) -> None:
    """``phones.tsv``: utterance, errors, gold and decoded phones."""
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(["utt", "errors", "phones", "decoded"])
        for p in predictions:
            writer.writerow([p.id, phone_errors(p.reference, p.hypothesis), " ".join(table.decode(p.reference)),
                             " ".join(table.decode(p.hypothesis))])


def score(folder: Path, msud: Path, fold: int) -> Dict[str, Any]:
    """Stage 5 for one trained folder: writes scores.tsv, phones.tsv and metrics.json there, returns the metrics.

    Metrics are keyed ``<set>.<score>``: test.wa, test.ua, test.uai, test.eis_mse, test.eis_ccc, test.gender and test.per
    of the target (test.per on the phoneme corpus), test_<corpus>.* of other corpora with a fixed test set, dev.*
    of the checkpoint's epoch. None where a score is not defined. Raises InputError where stage 4 has not run.
    """
    require(folder, "train")
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
    if stage.is_done() and (folder / "metrics.json").is_file() and (folder / "scores.tsv").is_file():
        return read_json(folder / "metrics.json")

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
    for name, predictions in sets.items():
        found = emotion_scores(predictions, genders, classes)
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
        write_phones(folder / "phones.tsv", predictions, PhoneTable.load(phonemes / "phones.txt"))
    write_scores(folder / "scores.tsv", sets, classes)
    metrics = {
        **scores,
        "run": {
            "system": run["system"], "config": run["config_name"], "set": run["assignments"],
            **{key: note[key] for key in (*EXPERIMENT, "test_speakers_in_training")},
            "fold": fold, "folds": note["folds"], "seed": run["seed"],
            "corpora": note["corpora"] if config.data.corpora == "all" else [note["target"]],
            "phonemes": phone_note.get("corpus"), "per_set": phone_note.get("test"), "units": phone_note.get("units"),
            "ctc_backend": run["ctc_backend"], "device": run["device"], "threads": run["threads"],
            "steps": run["steps"], "train_seconds": run["train_seconds"], "best_epoch": content["epoch"],
            "trained_at_git": run["git"], "scored_at_git": git_revision(),
        },
    }
    write_json(folder / "metrics.json", metrics)
    (folder / STAMP_FOLDER).mkdir(exist_ok=True)
    clips = sum(map(len, sets.values()))
    stage.finish(folder / STAMP_FOLDER, clips, clips, unit="test clips")
    log.info("%s: %s", title, " ".join(f"{k} {v:.4f}" for k, v in scores.items()
                                       if isinstance(v, float) and k.startswith("test")))
    return metrics
