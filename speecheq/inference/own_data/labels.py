"""What the labels and intensities of a table mean, where no ``labels.yaml`` beside it says so."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import yaml

from speecheq import seqm
from speecheq.common.errors import InputError
from speecheq.corpora.exchange.emotion_words import meaning
from speecheq.corpora.exchange.labels_file import LABELS_FILE, number

# Words for levels of intensity, weak to strong.
LEVELS = (
    ("low", "medium", "high"),
    ("weak", "medium", "strong"),
    ("weak", "normal", "strong"),
    ("low", "normal", "high"),
    ("mild", "medium", "strong"),
    ("low", "high"),
    ("weak", "strong"),
    ("mild", "strong"),
    ("normal", "strong"),
)


def content_for(table: Path, columns: dict[str, str], labels: Iterable[str], intensities: Iterable[str]) -> dict:
    """The content of a ``labels.yaml`` for a table without one; ``columns``: our column -> its name in the table.

    Raises InputError for labels and intensities whose meaning is not known.
    """
    found = {label: meaning(label) for label in sorted(set(labels))}
    unknown = [label for label, name in found.items() if name is None]
    if unknown:
        entries = ", ".join(f"{label}: {name or 'EMOTION'}" for label, name in found.items())
        raise InputError(
            f"{table}: the labels {', '.join(unknown)} are no names of emotions that are known; write what each means "
            f"into {table.parent / LABELS_FILE}: 'language: LANGUAGE' and 'labels: {{{entries}}}', with the categories "
            f"{', '.join(seqm.CATEGORIES)} (null leaves a label out)."
        )
    content: dict[str, Any] = {"title": table.stem, "language": "not stated", "labels": found, "columns": columns}
    return {**content, **_grading(table, {text for text in intensities if text})}


def _grading(table: Path, values: Collection[str]) -> dict[str, Any]:
    """``levels`` or ``scale`` of intensities that are known words or numbers; nothing where there are none."""
    if not values:
        return {}
    words = {value.lower(): value for value in values}
    levels = next((known for known in LEVELS if set(words) <= set(known)), None)
    if levels is not None and len(words) == len(values):
        return {"levels": [words.get(level, level) for level in levels]}
    try:
        numbers = sorted(float(number(value.replace(",", "."))) for value in values)
    except ValueError:
        numbers = []
    if len(numbers) < 2:
        raise InputError(
            f"{table}: the intensities {', '.join(sorted(values)[:6])} are neither numbers nor known words; say in "
            f"{table.parent / LABELS_FILE} how they rise, as in 'levels: [weak, strong]'."
        )
    return {"scale": [numbers[0], numbers[-1]]}


def read_content(path: Path) -> dict[str, Any]:
    """The content of a user's ``labels.yaml``, scalars as they are written, null for what leaves a label out.

    Its faults are found by ``read_labels_file``, with their lines.
    """
    content = yaml.load(path.read_bytes(), Loader=yaml.BaseLoader)
    labels = content.get("labels", {})
    content["labels"] = {label: None if name.lower() in ("", "~", "null") else name for label, name in labels.items()}
    return content


def without(content: dict[str, Any], labels: Collection[str]) -> dict[str, Any]:
    """The same content, in which ``labels`` are left out."""
    kept = {label: None if label in labels else name for label, name in content["labels"].items()}
    return {**content, "labels": kept}
