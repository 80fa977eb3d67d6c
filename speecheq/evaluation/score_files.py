"""The files that stage 5 writes beside a training: scores.tsv, phones.tsv, metrics.json and embeddings.npz."""

import csv
import io
import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speecheq import seqm
from speecheq.common.errors import InputError
from speecheq.common.files import read_json, whole_file, whole_text
from speecheq.config.schema import GENDERS
from speecheq.dataset.phones.phone_table import PhoneTable
from speecheq.evaluation.metrics import phone_errors
from speecheq.evaluation.predictions import ClipPrediction, PhonePrediction

METRICS, SCORES, PHONES = "metrics.json", "scores.tsv", "phones.tsv"
EMBEDDINGS, TRAINING_SCORES = "embeddings.npz", "train_scores.tsv"
TRAINING_CLIPS = "train"  # the only set of train_scores.tsv
POSTERIOR = "p_"  # prefix of the columns with the posteriors of the classes
COLUMNS_BEFORE_POSTERIORS = ["set", "utt", "corpus", "speaker", "esc", "predicted_esc"]
COLUMNS_AFTER_POSTERIORS = ["eis", "predicted_eis", "name", "gender", "predicted_gender"]
NOT_AVAILABLE = "n/a"
SCORE_AGAIN = "remove it and run stage 5 (score) again."


def _columns(classes: Sequence[str]) -> list[str]:
    return [*COLUMNS_BEFORE_POSTERIORS, *(POSTERIOR + name for name in classes), *COLUMNS_AFTER_POSTERIORS]


def _write_table(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    with whole_text(path) as stream:
        csv.writer(stream, delimiter="\t", lineterminator="\n").writerows(rows)


def write_scores(path: Path, sets: Mapping[str, Sequence[ClipPrediction]], classes: seqm.ClassTable) -> None:
    """Write ``scores.tsv``: one line per clip, tab separated, with the gold and predicted labels.

    ``sets`` maps a set's name to its predictions. The column ``name`` is the SEQM name of the predicted class'
    category at the predicted EIS.
    """

    def row(name: str, p: ClipPrediction) -> list[str]:
        return [
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

    rows = [row(name, prediction) for name, predictions in sets.items() for prediction in predictions]
    _write_table(path, [_columns(classes.names), *rows])


def read_scores(path: Path) -> dict[str, list[ClipPrediction]]:
    """Read the file of ``write_scores``: set -> predictions, without embeddings.

    Raises InputError if the file is damaged, with the line if possible.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as fault:
        raise InputError(f"{path}: is no text ({fault}); {SCORE_AGAIN}") from fault
    if not text.endswith("\n"):
        raise InputError(f"{path}: is cut off, its last line does not end; {SCORE_AGAIN}")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t")
    header = next(reader)
    classes = [name.removeprefix(POSTERIOR) for name in header if name.startswith(POSTERIOR)]
    if header != _columns(classes):
        expected = ", ".join((*COLUMNS_BEFORE_POSTERIORS, "...", *COLUMNS_AFTER_POSTERIORS))
        raise InputError(f"{path}: is no table of scores, its columns are not {expected}; {SCORE_AGAIN}")
    sets: dict[str, list[ClipPrediction]] = {}
    for row in reader:
        try:
            prediction = _parse_prediction(dict(zip(header, row, strict=True)), classes)
        except ValueError as fault:
            raise InputError(f"{path}, line {reader.line_num}: is damaged ({fault}); {SCORE_AGAIN}") from fault
        sets.setdefault(row[0], []).append(prediction)
    return sets


def _parse_prediction(row: Mapping[str, str], classes: Sequence[str]) -> ClipPrediction:
    """The prediction of a line of ``scores.tsv``; raises ValueError if a field is invalid."""
    prediction = ClipPrediction(
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
    posterior = prediction.posterior
    if not all(map(math.isfinite, [*posterior, prediction.gold_eis, prediction.predicted_eis])):
        raise ValueError("a number is not finite")
    if posterior[classes.index(row["predicted_esc"])] != max(posterior):
        raise ValueError(f"{row['predicted_esc']} is not its most probable class")
    if prediction.predicted_gender not in GENDERS:
        raise ValueError(f"the gender {prediction.predicted_gender!r}")
    return prediction


def write_phones(path: Path, predictions: Sequence[PhonePrediction], table: PhoneTable) -> None:
    """Write ``phones.tsv``: utterance, number of errors, gold and decoded phones."""
    rows = (
        [
            p.id,
            phone_errors(p.reference, p.hypothesis),
            *(" ".join(table.decode(x)) for x in (p.reference, p.hypothesis)),
        ]
        for p in predictions
    )
    _write_table(path, [["utt", "errors", "phones", "decoded"], *rows])


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read ``metrics.json`` of a scored folder; raises InputError if it is damaged."""
    path = Path(folder) / METRICS
    metrics = read_json(path)
    run = metrics.get("run") if isinstance(metrics, dict) else None
    if not isinstance(run, dict) or not {"fold", "seed", "label_sets"} <= set(run):
        raise InputError(f"{path}: does not say what was run; {SCORE_AGAIN}")
    return metrics


def write_embeddings(path: Path, predictions: Sequence[ClipPrediction]) -> None:
    """Write ``embeddings.npz``: ``ids`` (clips,) and ``embeddings`` (clips, D) float16, in the order given."""
    with whole_file(path) as temporary:
        np.savez_compressed(
            temporary,
            ids=np.array([p.id for p in predictions]),
            embeddings=np.array([p.embedding for p in predictions]),
        )


def read_embeddings(path: Path, ids: Sequence[str]) -> np.ndarray:
    """Read the embeddings (clips, D) float16 that ``write_embeddings`` wrote for the clips ``ids``.

    Raises InputError if the file is damaged or holds other clips.
    """
    try:
        arrays = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        found, embeddings = arrays["ids"].tolist(), arrays["embeddings"]
    except (EOFError, IndexError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as fault:
        raise InputError(f"{path}: is cut off, or no file of embeddings ({fault}); {SCORE_AGAIN}") from fault
    if found != list(ids) or embeddings.ndim != 2 or len(embeddings) != len(found):
        raise InputError(f"{path}: is not of the test clips of {SCORES} beside it; {SCORE_AGAIN}")
    return embeddings
