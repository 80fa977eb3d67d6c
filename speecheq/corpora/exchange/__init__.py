"""What labs already have: corpora as Kaldi data folders or as tables, read and written without a prep script."""

import hashlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.common.stages import Drops
from speecheq.corpora.exchange import csv_table, kaldi
from speecheq.corpora.exchange.csv_table import export_table
from speecheq.corpora.exchange.kaldi import export_kaldi
from speecheq.corpora.exchange.labels_file import LABELS_FILE, read_declaration
from speecheq.corpora.prepare import Corpus, Request, Utterance, check_utterances, prepare

__all__ = ["export_corpus", "export_kaldi", "export_table", "import_corpus"]

TEST_SPLIT = "test"


@dataclass(frozen=True)
class ImportRequest(Request):
    """``content`` is a digest of all that was read: audio may lie anywhere, and Kaldi's files have no suffixes."""

    content: str = ""


def _content(utterances: list[Utterance]) -> str:
    found = hashlib.sha256()
    for utterance in utterances:
        found.update(f"{utterance!r}\t{os.path.getsize(utterance.audio)}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()[:16]


def _with_splits(corpus: Corpus, utterances: list[Utterance]) -> Corpus:
    """The corpus with the official parts that its utterances name; InputError where only some name one."""
    splits = sorted({utterance.split for utterance in utterances if utterance.split is not None})
    without = next((utterance for utterance in utterances if splits and utterance.split is None), None)
    if without is not None:
        raise InputError(
            f"{without.source}: has no split, but others have ({', '.join(splits)}); give all one, or none."
        )
    return replace(corpus, splits=tuple(splits), test_split=TEST_SPLIT if TEST_SPLIT in splits else None)


def import_corpus(
    source: Path,
    name: str,
    out_dir: Path,
    labels: Path | None = None,
    partial: bool = False,
    hours: float | None = None,
    seed: int = 0,
    nj: int = 1,
    check_only: bool = False,
) -> None:
    """Prepare the corpus ``name`` from a Kaldi data folder or a table at ``source``: stage 1 without a prep script.

    ``labels`` is the ``labels.yaml`` that says what its labels mean, by default the one in the folder or beside the
    table. Parts named in ``utt2split`` or in the column ``split`` are the official ones, ``test`` the fixed test set.
    ``partial`` leaves utterances out, counted, whose audio is missing; the other options are a prep script's.
    InputError for whatever is wrong; ``out_dir`` then stays as it was.
    """
    source = Path(source)
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise InputError(
            f"{name!r}: is no name for a corpus; take small letters, digits and underscores, a letter first."
        )
    if not source.exists():
        raise InputError(f"{source}: there is neither a Kaldi data folder nor a table.")
    if source.is_dir() and not (source / "wav.scp").is_file():
        raise InputError(f"{source}: is no Kaldi data folder, it holds no wav.scp; a table is given by its file.")
    if source.is_dir():
        reader, labels, columns = kaldi, labels or source / LABELS_FILE, ()
    else:
        csv_table.delimiter_of(source)
        reader, labels, columns = csv_table, labels or source.parent / LABELS_FILE, csv_table.COLUMNS
    declaration = read_declaration(labels, name, reader.LAYOUT, columns)
    drops = Drops()
    utterances = list(reader.find_utterances(source, declaration, partial, drops))
    corpus = _with_splits(declaration.corpus, utterances)
    if check_only:
        check_utterances(corpus, utterances, Request(source))
        log.info("%s: %s can be read as %s", name, source, reader.LAYOUT)
        return

    def found(_source: Path, _partial: bool, left_out: Drops) -> list[Utterance]:
        left_out.by_reason.update(drops.by_reason)
        return utterances

    request = ImportRequest(source, partial, hours, seed, nj, _content(utterances))
    prepare(corpus, found, request, Path(out_dir))


def export_corpus(manifests: Path, out: Path) -> None:
    """Write a prepared corpus as a table, where ``out`` is named .csv or .tsv, else as a Kaldi data folder."""
    is_table = Path(out).suffix.lower() in csv_table.DELIMITERS
    (export_table if is_table else export_kaldi)(manifests, out)
