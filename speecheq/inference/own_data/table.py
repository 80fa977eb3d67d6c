"""A table of one's own clips, checked: what it holds, what was done about it, and which folds fit it."""

import csv
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from speecheq.common.errors import InputError
from speecheq.common.files import whole_file, write_text
from speecheq.common.stages import Drops
from speecheq.corpora.declaration import Utterance
from speecheq.corpora.exchange import csv_table
from speecheq.corpora.exchange.labels_file import LABELS_FILE, read_labels_file
from speecheq.corpora.exchange.table_rows import TableRows, delimiter_of
from speecheq.corpora.layout import as_on_disk, composed
from speecheq.corpora.prepare import check_utterances
from speecheq.inference.own_data import labels as own_labels

# A class with fewer clips is named; with fewer than LEAST it is left out.
FEW_CLIPS, LEAST = 10, 2
# From this number of speakers on, folds hold several of them.
MANY_SPEAKERS = 7
FEW_SPEAKERS = 3
UNKNOWN_SPEAKER = "unknown"
SPEAKER = "speaker"
# Other names of columns that are taken without a labels.yaml.
NAMES = {"path": ("path", "file"), "emotion": ("emotion", "label"), "speaker": ("speaker",)}


@dataclass(frozen=True)
class OwnTable:
    """A table that can be trained on.

    ``path`` is the copy with its ``labels.yaml`` that the stages read; ``notes`` are sentences on what was found wrong
    and done about it; ``protocol`` are the folds; ``intensity`` and ``gender`` say whether these can be learned.
    """

    name: str
    path: Path
    clips: int
    classes: Counter[str]
    protocol: str
    intensity: bool
    gender: bool
    notes: list[str] = field(default_factory=list)


def corpus_name(table: Path) -> str:
    """The name of a table as a corpus: small letters, digits and underscores, a letter first."""
    name = re.sub(r"[^a-z0-9]+", "_", table.stem.lower()).strip("_")
    return name if re.match("[a-z]", name) else f"own_{name}".rstrip("_")


class _Source:
    """A table as the user has it, with the content of the ``labels.yaml`` for it."""

    def __init__(self, table: Path):
        self.table = as_on_disk(table)
        delimiter_of(self.table)
        if not self.table.is_file():
            raise InputError(f"{self.table}: there is no such table.")
        self.rows = TableRows(self.table, ())
        lines = list(self.rows)
        if len(lines) < 2:
            raise InputError(f"{self.table}: holds no clip; its first line names columns, each other line is a clip.")
        self.heading = [composed(name) for name in lines[0][1]]
        self.lines = lines[1:]
        beside = self.table.parent / LABELS_FILE
        if beside.is_file():
            read_labels_file(beside, corpus_name(self.table), csv_table.LAYOUT, csv_table.COLUMNS)
            self.content = own_labels.read_content(beside)
        else:
            columns = self._columns()
            self.content = own_labels.content_for(
                self.table, columns, self._values(columns["emotion"]), self._values("intensity")
            )
        self.speaker = dict(self.content.get("columns", {})).get(SPEAKER, SPEAKER)
        self.has_speakers = self.speaker in self.heading and any(self._values(self.speaker))

    def _columns(self) -> dict[str, str]:
        columns = {}
        for ours, names in NAMES.items():
            found = next((name for name in names if name in self.heading), None)
            if found is None and ours != SPEAKER:
                raise InputError(
                    f"{self.table}, line 1: there is no column {' or '.join(names)}; the columns are "
                    f"{', '.join(self.heading)} - rename one, or say in {LABELS_FILE} which it is, as in "
                    f"'columns: {{{ours}: NAME}}'."
                )
            columns[ours] = found or ours
        return columns

    def _values(self, column: str) -> list[str]:
        if column not in self.heading:
            return []
        place = self.heading.index(column)
        return [composed(fields[place]) for _, fields in self.lines if place < len(fields) and fields[place]]

    def write(self, folder: Path, content: dict[str, Any]) -> Path:
        """Write the table into ``folder``, with speakers if it has none, beside its ``labels.yaml``; returns its path.

        Relative paths in it still start from where they did.
        """
        root = self.table.parent.absolute() / content.get("audio_root", "")
        text = yaml.safe_dump({**content, "audio_root": str(root)}, sort_keys=False, allow_unicode=True, width=120)
        write_text(folder / LABELS_FILE, text)
        copy = folder / self.table.name
        with whole_file(copy) as temporary:
            if self.has_speakers:
                shutil.copyfile(self.table, temporary)
            else:
                self._write_with_speakers(temporary)
        return copy

    def _write_with_speakers(self, path: Path) -> None:
        kept = [place for place, name in enumerate(self.heading) if name != self.speaker]
        with open(path, "w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, delimiter=delimiter_of(self.table), lineterminator="\n")
            writer.writerow([self.speaker, *(self.heading[place] for place in kept)])
            for where, fields in self.lines:
                if len(fields) != len(self.heading):
                    raise InputError(
                        f"{where}: expected {len(self.heading)} fields, as in the first line, found {len(fields)}."
                    )
                writer.writerow([UNKNOWN_SPEAKER, *(fields[place] for place in kept)])


def check_table(table: Path, folder: Path) -> OwnTable:
    """Check a table, and write what the stages read of it into ``folder``.

    Raises InputError for what cannot be trained on: a line that is wrong, no audio at all, one class.
    """
    source = _Source(table)
    content, notes = source.content, []
    if not source.has_speakers:
        notes.append(
            f"{source.table}: names no speakers (no column {source.speaker!r}, or it is empty), so all clips count as "
            "one person's"
        )
    for _ in range(2):  # a second time without the classes that are too small
        copy = source.write(folder, content)
        labels = read_labels_file(copy.parent / LABELS_FILE, corpus_name(copy), csv_table.LAYOUT, csv_table.COLUMNS)
        drops = Drops()
        # of the user's own table where it can be read as it is, so that errors name its lines
        read = source.table if source.has_speakers else copy
        utterances = list(csv_table.find_utterances(read, labels, True, drops))
        classes = Counter(utterance.label for utterance in utterances if utterance.label)
        small = sorted(name for name, count in classes.items() if count < LEAST)
        if not small:
            break
        content = own_labels.without(content, small)
        one = "the class of one clip is" if len(small) == 1 else "classes of one clip are"
        notes.append(f"{one} left out, as it cannot be both trained on and tested: {', '.join(small)}")
    check_utterances(labels.corpus, utterances, copy, drops)
    if len(classes) < 2:
        raise InputError(
            f"{source.table}: all {len(utterances)} clips are of one class, {', '.join(classes) or 'none'}; emotions "
            "cannot be learned from one; add clips of another."
        )
    notes += _notes(source.table, classes, drops)
    protocol, note = _choose_folds(utterances)
    genders = {utterance.gender for utterance in utterances} >= {"F", "M"}
    graded = any(utterance.level or utterance.intensity is not None for utterance in utterances)
    return OwnTable(
        corpus_name(copy), copy, len(utterances), classes, protocol, graded, genders, [*notes, *filter(None, [note])]
    )


def _notes(table: Path, classes: Counter[str], drops: Drops) -> list[str]:
    """Sentences on clips that are left out, and on classes with few."""
    notes = [
        f"{table}: {len(names)} clips are left out ({reason}), the first is {names[0]}"
        for reason, names in sorted(drops.by_reason.items())
    ]
    few = [f"{name} ({count})" for name, count in sorted(classes.items()) if count < FEW_CLIPS]
    if few:
        notes.append(
            f"classes with fewer than {FEW_CLIPS} clips: {', '.join(few)}; they are trained on and tested, but their "
            "scores say little"
        )
    return notes


def _choose_folds(utterances: Sequence[Utterance]) -> tuple[str, str]:
    """The protocol that fits, and a sentence where it is not one of unheard speakers."""
    speakers = {utterance.speaker for utterance in utterances}
    parts: dict[str | None, set[str]] = defaultdict(set)
    for utterance in utterances:
        parts[utterance.split].add(utterance.speaker)
    if "test" in parts:
        shared = parts["test"] & set().union(*(names for part, names in parts.items() if part != "test"))
        optimistic = (
            f"{len(shared)} of the {len(parts['test'])} speakers of the test part are in training too: for people that "
            "the model does not know the scores are too high"
        )
        return "official", optimistic if shared else ""
    if len(speakers) < FEW_SPEAKERS:
        return "random5", (
            f"with {len(speakers)} speaker{'s' if len(speakers) > 1 else ''} no folds of {FEW_SPEAKERS} or more people "
            "can be made, so folds are by clip: for people that the model does not know the scores are too high"
        )
    return ("speaker" if len(speakers) < MANY_SPEAKERS else "speaker5"), ""
