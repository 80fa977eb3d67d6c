"""``labels.yaml``: what a Kaldi data folder or a table does not state about its corpus.

    title: Our call centre            # by default the corpus' name
    language: Mandarin
    labels: {happy: joy, bored: boredom, other: null}   # own label: category or emotion of SEQM; null leaves out
    levels: [weak, strong]            # two or three, weak to strong; or, for continuous intensity,
    scale: [1, 5]                     # its lowest and highest value; neither where intensity is not labelled
    neutral_eis: metric               # or corpus, see ``speecheq.corpora.declaration.Corpus``
    has_transcripts: false
    splits: {Train: train, Validation: dev, Test1: test, Test2: null}   # own part: train, dev or test; null leaves out
    columns: {path: file, emotion: label}   # tables only: our column: its name in the table
    path_template: dia{Dialogue}_utt{Utterance}.wav   # tables only: the path, made of other columns
    audio_root: ../audio                    # tables only: folder of relative paths (default: that of the table)

Every scalar is read as it is written: the labels ``no`` and ``01`` need no quotes. Accents are composed (NFC), in
the labels, parts and levels of clips too.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from speecheq import seqm
from speecheq.common.errors import InputError
from speecheq.common.files import write_text
from speecheq.corpora.declaration import NEUTRAL_RULES, SPLITS, Corpus
from speecheq.corpora.layout import composed

LABELS_FILE = "labels.yaml"
KEYS = ("title", "language", "labels", "levels", "scale", "neutral_eis", "has_transcripts", "splits")
TABLE_KEYS = ("columns", "path_template", "audio_root")
# Other words that corpora have for a part; a message offers them, none is taken without labels.yaml.
SPELLINGS = {
    "train": ("train", "training", "trn"),
    "dev": ("dev", "devel", "development", "val", "valid", "validation"),
    "test": ("test", "tst", "testing", "eval", "evaluation", "test1", "test2"),
}
CLOCK = re.compile(r"(?:\+?([0-9]{1,6}) days? \+?)?([0-9]{1,6}):([0-5]?[0-9]):([0-5]?[0-9](?:[.,][0-9]+)?)")
# A message lists at most so many words.
MOST_LISTED = 12
GENDERS = {"f": "F", "female": "F", "m": "M", "male": "M", "": None}


@dataclass(frozen=True)
class LabelsFile:
    """The content of a ``labels.yaml``: the corpus, the labels whose clips are left out, the parts, the columns."""

    corpus: Corpus
    left_out: frozenset[str] = frozenset()
    columns: Mapping[str, str] = field(default_factory=dict)  # our column -> its name in the table
    splits: Mapping[str, str | None] = field(default_factory=dict)  # the corpus' own word -> official part, None: out
    path_template: str = ""  # the path of a clip, with names of columns in braces
    audio_root: str = ""  # the folder of relative paths, itself relative to that of the table

    def label(self, text: str) -> str:
        """The label that a file gives as ``text``, where 4.0 is 4; ValueError for one that the file does not list."""
        known = [*self.corpus.labels, *sorted(self.left_out)]
        label = _as_listed(composed(text), known)
        if label is None:
            raise ValueError(f"the label {text!r} is not one of {LABELS_FILE}'s: {', '.join(known) or 'none'}")
        return label

    def split(self, word: str, words: Callable[[], Iterable[str]]) -> str | None:
        """The official part that the corpus calls ``word``, None where its clips are left out.

        train, dev and test stand for themselves where the file does not list them. Raises ValueError for any other
        word; the message lists ``words()``, all that the corpus has.
        """
        word = composed(word)
        if word in self.splits:
            return self.splits[word]
        if word in SPLITS:
            return word
        seen = sorted({*map(composed, words()), word})
        unknown = [other for other in seen if other not in self.splits and other not in SPLITS]
        likely = {
            other: part for other in unknown for part, names in SPELLINGS.items() if other.strip().lower() in names
        }
        entries = ", ".join(f"{_as_key(other)}: {likely.get(other, 'PART')}" for other in unknown[:MOST_LISTED])
        listed = ", ".join(seen[:MOST_LISTED]) + (f" and {len(seen) - MOST_LISTED} more" if seen[MOST_LISTED:] else "")
        raise ValueError(
            f"the split {word!r} is none of {', '.join(SPLITS)} (the splits are {listed}); say in {LABELS_FILE} what "
            f"each is, for instance 'splits: {{{entries}}}' (null leaves its clips out)"
        )

    def intensity(self, text: str) -> tuple[str | None, float | None]:
        """The intensity that a file gives as ``text``; ValueError if it is neither a level nor on the scale.

        Returns:
            (level, None), (None, value on the scale), or (None, None) for no text.
        """
        levels, scale = self.corpus.levels, self.corpus.scale
        if not text:
            return None, None
        if levels:
            level = _as_listed(composed(text), levels)
            if level is None:
                raise ValueError(f"the level {text!r} is not one of {LABELS_FILE}'s: {', '.join(levels)}")
            return level, None
        if scale is None:
            raise ValueError(f"has the intensity {text!r}, but {LABELS_FILE} declares neither levels nor a scale")
        value = number(text)
        seqm.eis_from_scale(value, *scale)
        return None, value


def _as_listed(text: str, listed: Collection[str]) -> str | None:
    """The one of ``listed`` that is ``text``, or the same whole number, as pandas' 4.0 and 4; else None."""
    if text in listed:
        return text
    same = [name for name in listed if _without_zeros(name) == _without_zeros(text)]
    return same[0] if len(same) == 1 else None


def _without_zeros(text: str) -> str:
    return re.sub(r"^(-?[0-9]+)\.0+$", r"\1", text)


def seconds(text: str) -> float:
    """Seconds from a number, from hours:minutes:seconds, or from a timedelta as pandas writes it (0 days 00:00:01.5).

    A comma may stand before the milliseconds. ValueError for anything else, and for two numbers with a colon, which
    may be minutes or hours.
    """
    match = CLOCK.fullmatch(text)
    if match:
        days, hours, minutes, rest = match.groups()
        return int(days or 0) * 86400 + int(hours) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))
    if ":" in text:
        raise ValueError(f"{text!r} is not a time; write seconds, or hours:minutes:seconds")
    return number(text)


def _as_key(word: str) -> str:
    """A word as a key of a YAML mapping in braces, in quotation marks where it needs them."""
    return word if re.fullmatch(r"[\w.-]+", word) else json.dumps(word, ensure_ascii=False)


def number(text: str) -> float:
    """The finite number that ``text`` is; else ValueError with a readable message."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a number")
    return value


def gender(text: str) -> str | None:
    """F or M, from f, m, female or male in any case; None for an empty text; ValueError for anything else."""
    if text.lower() not in GENDERS:
        raise ValueError(f"the gender {text!r} is none of F, M, female, male (empty where it is unknown)")
    return GENDERS[text.lower()]


def prefixed(corpus: str, name: str) -> str:
    """The id of an utterance or a recording: it begins with the corpus, as several corpora are used together."""
    name = "_".join(name.split())
    return name if name.startswith(f"{corpus}-") else f"{corpus}-{name}"


class _YamlNodes:
    """The nodes of one labels.yaml as texts, lists and mappings; error messages give the line."""

    def __init__(self, path: Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(
                f"{path}: there is no such file; it declares what the labels mean, for instance "
                "'language: Mandarin' and 'labels: {happy: joy, angry: anger}'."
            )
        try:
            text = self.path.read_bytes().decode("utf-8-sig")
            self.root = yaml.compose(text, Loader=yaml.BaseLoader)
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise InputError(f"{path}, line {line}: is not UTF-8; convert the file.") from error
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            position = getattr(error, "position", None)
            line = mark.line if mark else text.count("\n", 0, position) if position else 0
            problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
            raise InputError(f"{path}, line {line + 1}: is not YAML ({' '.join(str(problem).split())}).") from error
        except RecursionError as error:
            raise InputError(f"{path}, line 1: is nested too deeply to be read.") from error

    def fault(self, node: yaml.Node | None, problem: str) -> InputError:
        return InputError(f"{self.path}, line {node.start_mark.line + 1 if node else 1}: {problem}.")

    def mapping(self, node: yaml.Node | None, what: str) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise self.fault(node, f"{what} must be written as 'key: value'")
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = self.text(key, f"a key of {what}")
            if name in found:
                raise self.fault(key, f"the key {name!r} repeats")
            found[name] = value
        return found

    def sequence(self, node: yaml.Node, what: str) -> list[str]:
        if not isinstance(node, yaml.SequenceNode):
            raise self.fault(node, f"{what} must be a list, such as [1, 5]")
        return [self.text(item, f"an item of {what}") for item in node.value]

    def text(self, node: yaml.Node, what: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value.strip() or "\n" in node.value:
            raise self.fault(node, f"{what} must be one word or one line of text")
        return composed(node.value.strip())

    def choice(self, node: yaml.Node, what: str, choices: Sequence[str]) -> str:
        value = self.text(node, what)
        if value not in choices:
            raise self.fault(node, f"{what} is {value!r}, not one of {', '.join(choices)}")
        return value


def _is_null(node: yaml.Node) -> bool:
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    return plain and node.value.lower() in ("", "~", "null")


def _read_labels(file: _YamlNodes, node: yaml.Node) -> tuple[dict[str, str], frozenset[str]]:
    """Label -> SEQM category or emotion, and the labels that are mapped to null."""
    labels: dict[str, str] = {}
    left_out = set()
    for label, value in file.mapping(node, "labels").items():
        if _is_null(value):
            left_out.add(label)
            continue
        labels[label] = file.text(value, f"what {label!r} means")
        if labels[label] not in seqm.EMOTIONS:
            raise file.fault(
                value,
                f"{label!r} is mapped to {labels[label]!r}, which is not an emotion of SEQM; its categories are "
                f"{', '.join(seqm.CATEGORIES)} (null leaves clips with the label out)",
            )
    return labels, frozenset(left_out)


def _read_splits(file: _YamlNodes, node: yaml.Node | None) -> dict[str, str | None]:
    """The corpus' own word -> official part, None for one that is mapped to null."""
    splits: dict[str, str | None] = {}
    for word, value in ({} if node is None else file.mapping(node, "splits")).items():
        splits[word] = None if _is_null(value) else file.choice(value, f"the part for the split {word!r}", SPLITS)
    return splits


def _read_options(file: _YamlNodes, given: Mapping[str, yaml.Node]) -> dict[str, Any]:
    """The fields of ``Corpus`` that the file may set besides its labels."""
    options: dict[str, Any] = {"language": file.text(given["language"], "language")}
    if "title" in given:
        options["title"] = file.text(given["title"], "title")
    if "levels" in given:
        options["levels"] = tuple(file.sequence(given["levels"], "levels"))
        if len(set(options["levels"])) != len(options["levels"]):
            raise file.fault(given["levels"], "a level repeats")
    if "scale" in given:
        try:
            low, high = map(number, file.sequence(given["scale"], "scale"))
        except ValueError as error:
            raise file.fault(given["scale"], "scale must be two numbers, the lowest and the highest value") from error
        options["scale"] = (low, high)
    if "neutral_eis" in given:
        options["neutral_eis"] = file.choice(given["neutral_eis"], "neutral_eis", NEUTRAL_RULES)
    if "has_transcripts" in given:
        value = file.choice(given["has_transcripts"], "has_transcripts", ("true", "false"))
        options["has_transcripts"] = value == "true"
    return options


def _read_columns(file: _YamlNodes, node: yaml.Node | None, columns: Sequence[str]) -> dict[str, str]:
    """Our column -> its name in the table."""
    names = {column: column for column in columns}
    if node is None:
        return names
    for column, value in file.mapping(node, "columns").items():
        if column not in names:
            raise file.fault(value, f"{column!r} is not a column that can be read; they are {', '.join(columns)}")
        names[column] = file.text(value, f"the name of the column {column}")
    used: dict[str, str] = {}
    for column, name in names.items():
        if used.setdefault(name, column) != column:
            raise file.fault(node, f"the columns {used[name]} and {column} are both named {name!r}")
    return names


def read_labels_file(path: Path, name: str, layout: str, columns: Sequence[str] = ()) -> LabelsFile:
    """The declaration of the corpus ``name`` in the file at ``path``; InputError gives the line of a fault.

    ``columns`` are those that a table can have (none for a Kaldi folder).
    """
    file = _YamlNodes(path)
    given = file.mapping(file.root, f"the content of {LABELS_FILE}")
    known = (*KEYS, *TABLE_KEYS) if columns else KEYS
    for key, node in given.items():
        if key not in known:
            raise file.fault(node, f"{key!r} is not a key of {LABELS_FILE}; they are {', '.join(known)}")
    if "language" not in given or "labels" not in given:
        raise file.fault(file.root, "language and labels are needed (labels: {} for a corpus without emotions)")
    labels, left_out = _read_labels(file, given["labels"])
    options = _read_options(file, given)
    try:
        corpus = Corpus(**{"name": name, "title": name, "layout": layout, "labels": labels, **options})
    except ValueError as error:
        raise file.fault(given.get("levels") or given.get("scale"), str(error)) from error
    return LabelsFile(
        corpus,
        left_out,
        _read_columns(file, given.get("columns"), columns),
        _read_splits(file, given.get("splits")),
        **{key: file.text(given[key], key) for key in TABLE_KEYS[1:] if key in given},
    )


def write_labels_file(corpus: Corpus, path: Path) -> None:
    """Write the ``labels.yaml`` from which ``read_labels_file`` gives the same labels."""
    content: dict[str, Any] = {"title": corpus.title, "language": corpus.language, "labels": dict(corpus.labels)}
    if corpus.levels:
        content["levels"] = list(corpus.levels)
    if corpus.scale:
        content["scale"] = [float(value) for value in corpus.scale]
    content["neutral_eis"] = corpus.neutral_eis
    content["has_transcripts"] = corpus.has_transcripts
    write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120))
