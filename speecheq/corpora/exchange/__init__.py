"""Corpora as Kaldi data folders, tables or EmoBox' metadata: imported (the first two exported), without a script."""

import hashlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.common.stages import Drops
from speecheq.corpora.declaration import Corpus, Utterance
from speecheq.corpora.exchange import csv_table, emobox, kaldi
from speecheq.corpora.exchange.labels_file import LABELS_FILE, read_labels_file
from speecheq.corpora.exchange.table_rows import DELIMITERS, delimiter_of
from speecheq.corpora.layout import as_on_disk
from speecheq.corpora.prepare import PrepareRequest, check_utterances, prepare

TEST_SPLIT = "test"


@dataclass(frozen=True)
class _ImportRequest(PrepareRequest):
    """``content`` is a digest of all that was read: audio may be anywhere, and Kaldi's files have no suffixes."""

    content: str = ""


def _content(utterances: list[Utterance]) -> str:
    found = hashlib.sha256()
    for utterance in utterances:
        found.update(f"{utterance!r}\t{os.path.getsize(utterance.audio)}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()[:16]


def _with_splits(corpus: Corpus, utterances: list[Utterance]) -> Corpus:
    """The corpus with the official parts that its utterances name; raises InputError if only some name one."""
    splits = sorted({utterance.split for utterance in utterances if utterance.split is not None})
    without = next((utterance for utterance in utterances if splits and utterance.split is None), None)
    if without is not None:
        raise InputError(
            f"{without.source}: has no split, but others have ({', '.join(splits)}); give all one, or none."
        )
    return replace(corpus, splits=tuple(splits), test_split=TEST_SPLIT if TEST_SPLIT in splits else None)


def _read(name: str, labels: Path | None, request: PrepareRequest, drops: Drops) -> tuple[Corpus, list[Utterance]]:
    """The corpus that a Kaldi data folder, a table or EmoBox' metadata hold, with its utterances."""
    source = as_on_disk(request.corpus_dir)
    if not source.exists():
        raise InputError(f"{source}: there is neither a Kaldi data folder nor a table.")
    if source.is_dir():
        if not (source / "wav.scp").is_file():
            raise InputError(f"{source}: is no Kaldi data folder, it holds no wav.scp; a table is given by its file.")
        content = read_labels_file(labels or source / LABELS_FILE, name, kaldi.LAYOUT)
        utterances = list(kaldi.find_utterances(source, content, request.partial, drops))
    elif source.suffix == emobox.SUFFIX:
        content = emobox.read_labels(source, labels, name)
        utterances = list(emobox.find_utterances(source, content, request.partial, drops))
    else:
        delimiter_of(source)
        content = read_labels_file(labels or source.parent / LABELS_FILE, name, csv_table.LAYOUT, csv_table.COLUMNS)
        utterances = list(csv_table.find_utterances(source, content, request.partial, drops))
    return _with_splits(content.corpus, utterances), utterances


def import_corpus(
    name: str, request: PrepareRequest, out_dir: Path, labels: Path | None = None, check_only: bool = False
) -> None:
    """Stage 1 without a prep script: prepare the corpus ``name`` from a Kaldi data folder or a table.

    ``request.corpus_dir`` is the folder or the table; ``request.partial`` leaves out, counted, the utterances whose
    audio is missing. ``labels`` is the ``labels.yaml`` that declares the labels, by default the one in the folder or
    beside the table. The parts in ``utt2split`` or in the column ``split`` are the official ones, ``test`` the fixed
    test set. Raises InputError for whatever is wrong; ``out_dir`` then stays as it was.
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise InputError(
            f"{name!r}: is no name for a corpus; take small letters, digits and underscores, a letter first."
        )
    drops = Drops()
    corpus, utterances = _read(name, labels, request, drops)
    if check_only:
        check_utterances(corpus, utterances, request.corpus_dir, drops)
        log.info("%s: %s can be read as %s", name, request.corpus_dir, corpus.layout)
        return

    def found(_source: Path, _partial: bool, left_out: Drops) -> list[Utterance]:
        left_out.by_reason.update(drops.by_reason)
        return utterances

    prepare(corpus, found, _ImportRequest(**vars(request), content=_content(utterances)), Path(out_dir))


def export_corpus(manifests: Path, out: Path) -> None:
    """Write a prepared corpus as a table, if ``out`` is named .csv or .tsv, else as a Kaldi data folder."""
    if Path(out).suffix.lower() in DELIMITERS:
        csv_table.export_table(manifests, out)
    else:
        kaldi.export_kaldi(manifests, out)
