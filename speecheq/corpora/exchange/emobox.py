"""A corpus by EmoBox' metadata (github.com/emo-box/EmoBox): JSON lines over a folder of audio.

    data/cafe/cafe.jsonl       {"key": "cafe-08-P-2-1", "dataset": "cafe", "wav": "downloads/cafe/.../08-P-2-1.wav",
                               "emo": "p", "channel": 1, ...}, one line a clip
    data/cafe/label_map.json   {"p": "Fear", ...}: the words of EmoBox for the corpus' own labels
    data/cafe/fold_1/cafe_test_fold_1.jsonl    the test clips of fold 1, in the same form (dataset/published_folds.py)

The label of a clip here is EmoBox' word. ``wav`` is looked for below the folder of the metadata and its three parents
(EmoBox has ``downloads`` beside ``data``), or below the one that ``audio_root`` of a ``labels.yaml`` names, with and
without its first parts. EmoBox names no speakers: they are those of the key ``speaker`` or ``spk``, where a line has
one.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.common.stages import Drops
from speecheq.corpora.declaration import Corpus, Utterance
from speecheq.corpora.exchange.csv_table import COLUMNS
from speecheq.corpora.exchange.emotion_words import meaning
from speecheq.corpora.exchange.labels_file import LABELS_FILE, LabelsFile, gender, prefixed, read_labels_file
from speecheq.corpora.exchange.missing_audio import MissingAudio
from speecheq.corpora.layout import as_on_disk

SUFFIX = ".jsonl"
LABEL_MAP = "label_map.json"
LAYOUT = f"EmoBox' metadata, data/NAME/NAME{SUFFIX} with {LABEL_MAP} beside it"
UNKNOWN_SPEAKER = "unknown"
PARENTS = 3


def _json(path: Path, text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{where}: is not JSON ({error}).") from error


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (``<path>, line <n>``, its content). Raises InputError for a line that is no JSON object with a key."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8; convert the file, for instance with iconv.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        content = _json(path, line, where)
        if not isinstance(content, dict) or not isinstance(content.get("key"), str) or not content["key"].strip():
            raise InputError(f'{where}: expected an object with a key, as in {{"key": ..., "wav": ...}}.')
        yield where, content


def _label_map(metadata: Path) -> dict[str, str]:
    """Own label -> EmoBox' word; none where there is no such file: labels are EmoBox' words already."""
    path = metadata.parent / LABEL_MAP
    if not path.is_file():
        return {}
    content = _json(path, path.read_text(encoding="utf-8-sig"), str(path))
    if not isinstance(content, dict) or not all(isinstance(word, str) for word in content.values()):
        raise InputError(f'{path}: expected a word for each label, as in {{"ang": "Angry"}}.')
    return content


def read_labels(metadata: Path, labels: Path | None, name: str) -> LabelsFile:
    """``labels``, or the labels.yaml beside the metadata, or those of its words that name an emotion in English."""
    beside = metadata.parent / LABELS_FILE
    if labels is not None or beside.is_file():
        return read_labels_file(labels or beside, name, LAYOUT, COLUMNS)
    own, mapped = _label_map(metadata), {}
    for _, line in read_json_lines(metadata):
        word = own.get(str(line.get("emo")), line.get("emo"))
        if isinstance(word, str) and (emotion := meaning(word)):
            mapped[word] = emotion
    if not mapped:
        raise InputError(
            f"{metadata}: no label is an English word for an emotion that is known; say what they are in a "
            f"{LABELS_FILE} beside it."
        )
    return LabelsFile(Corpus(name, name, "unknown", LAYOUT, labels=dict(sorted(mapped.items()))))


def _audio(metadata: Path, wav: str, root: str) -> Path | None:
    """The audio file that a line names; None if there is none."""
    roots = (
        [metadata.parent / root] if root else [metadata.resolve().parent, *metadata.resolve().parents[1 : PARENTS + 1]]
    )
    parts = Path(wav).parts
    for folder in roots:
        for first in range(len(parts) if root else 1):
            path = as_on_disk(folder.joinpath(*parts[first:]))
            if os.path.isfile(path):
                return path
    return None


def _text(where: str, line: dict[str, Any], *names: str) -> str:
    """The first of the fields with these names that there is, as text; raises InputError if it is none."""
    value = next((line[name] for name in names if line.get(name) is not None), "")
    if not isinstance(value, (str, int)):
        raise InputError(f"{where}: {names[0]} is {value!r}, but it must be a word.")
    return str(value).strip()


def find_utterances(metadata: Path, labels: LabelsFile, partial: bool, drops: Drops) -> Iterator[Utterance]:
    """One utterance for each line; those to leave out are added to ``drops``. Raises InputError as tables do."""
    own, missing, found = _label_map(metadata), MissingAudio(metadata), 0
    seen: dict[str, str] = {}
    speakers: Counter[str] = Counter()
    for where, line in read_json_lines(metadata):
        name = prefixed(labels.corpus.name, line["key"].strip())
        if seen.setdefault(name, where) != where:
            raise InputError(f"{where}: the key {line['key']} occurs a second time, first in {seen[name]}.")
        emotion, wav = _text(where, line, "emo"), _text(where, line, "wav")
        if not wav:
            raise InputError(f"{where}: names no wav.")
        word = own.get(emotion, emotion)
        if word not in labels.corpus.labels:
            drops.add(f"the label {word or 'none'}, which has no place in SEQM's terms", name)
            continue
        audio = _audio(metadata, wav, labels.audio_root)
        if audio is None and not partial:
            raise InputError(
                f"{where}: there is no audio {wav} below the folder of this file or its parents; name the folder as "
                f"audio_root in a {LABELS_FILE} beside it, or accept what is there with --partial true."
            )
        if audio is None:
            drops.add("audio missing", name)
            missing.add(wav)
            continue
        try:
            sex = gender(_text(where, line, "gender", "sex"))
        except ValueError as error:
            raise InputError(f"{where}: {error}.") from error
        found += 1
        speaker = _text(where, line, "speaker", "spk") or UNKNOWN_SPEAKER
        speakers[speaker] += 1
        yield Utterance(id=name, audio=audio, speaker=speaker, gender=sex, label=word, source=where)
    missing.check(found)
    if UNKNOWN_SPEAKER in speakers:
        log.warning(
            "%s: %d clips name no speaker: folds by speaker, and what tables say of test speakers, do not hold for "
            "them; take EmoBox' folds, with --folds-file %s",
            metadata,
            speakers[UNKNOWN_SPEAKER],
            metadata.parent,
        )
