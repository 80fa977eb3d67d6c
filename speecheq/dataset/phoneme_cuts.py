"""Stage 3, phonemes: the cuts of an ASR corpus with their phoneme targets.

Written once for all folds of a target:

    <phonemes>/{train,dev,test}.jsonl.gz   cuts whose supervision has ``custom['phones']``, numbers of the table, and
                                           on request ``custom['words']``, all pronunciations of each word
    <phonemes>/phones.txt                  the table: phones of the language, or pieces of its spelling
    <phonemes>/phonemes.json               counts and settings
    <phonemes>/predicted_words.tsv         words that the dictionary lacks, and their predicted phones
    <phonemes>/bpe.model                   the model of the pieces

Cuts are read and written one at a time.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache, partial
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

from lhotse import CutSet, MonoCut
from lhotse.serialization import SequentialJsonlWriter

from speecheq.common.errors import InputError
from speecheq.common.files import write_json
from speecheq.common.log import log
from speecheq.common.progress import progress
from speecheq.common.stages import Drops, Stage
from speecheq.config.phonemes import PRONUNCIATIONS, SILENCES, lattice_options
from speecheq.corpora.prepared_corpus import load_card
from speecheq.dataset.phones.lattice import first_labels
from speecheq.dataset.phones.phone_table import NoPhones
from speecheq.dataset.phones.units import UNITS, Phones, Pieces, spelling
from speecheq.features.storage import load_cuts

FORMAT = 2

TRAIN, TEST = "train", "test"
# The part of each speaker that is held out for scoring if the copy has no test or no training part.
HELD_OUT = "heldout"
HELD_OUT_SHARE = 0.1
# The most transcripts for training pieces: sentencepiece holds all of them in memory (2 kB for a Mandarin one).
PIECES_FROM = 300_000


def hold_out(utterances: Iterable[tuple[str, str]]) -> set[str]:
    """Of (id, speaker) pairs the ids of the last 10 % of each speaker; at least one, none of a speaker with one."""
    by_speaker: dict[str, list[str]] = defaultdict(list)
    for name, speaker in utterances:
        by_speaker[speaker].append(name)
    held: set[str] = set()
    for names in by_speaker.values():
        if len(names) > 1:
            held.update(sorted(names)[-max(1, round(HELD_OUT_SHARE * len(names))) :])
    return held


def _text(cut: MonoCut) -> str:
    return cut.supervisions[0].text or ""


class _Corpus:
    """The cuts of the phoneme corpus, and the part that each goes to: train, dev, test or heldout."""

    def __init__(self, card: dict, fbank: Path):
        self.card, self.name, self.fbank = card, card["name"], fbank
        # a corpus without official parts ("all") is used for training
        self.pooled = TRAIN not in card["splits"] and card["splits"] != ["all"]
        self.test = TEST if TEST in card["splits"] and not self.pooled else HELD_OUT
        self.held: set[str] = set()

    def cuts(self, purpose: str) -> Iterator[MonoCut]:
        return progress(load_cuts(self.fbank), f"{self.name}: {purpose}", self.card["utterances"], "texts")

    def part(self, cut: MonoCut) -> str:
        if cut.id in self.held:
            return HELD_OUT
        return TRAIN if self.pooled else cut.supervisions[0].custom.get("split") or TRAIN

    def training_texts(self) -> Iterator[str]:
        """The training transcripts, or PIECES_FROM of them, evenly spaced."""
        every = ceil(self.card["utterances"] / PIECES_FROM)
        return islice((_text(cut) for cut in self.cuts("pieces") if self.part(cut) == TRAIN), 0, None, every)

    def hold_out(self, encode: Callable[[str], Any]) -> None:
        """Choose the held-out utterances among the training utterances whose text ``encode`` accepts."""

        def usable() -> Iterator[tuple[str, str]]:
            for cut in self.cuts("choosing what is held out"):
                if self.part(cut) == TRAIN:
                    with suppress(NoPhones):
                        encode(_text(cut))
                        yield cut.id, cut.supervisions[0].speaker

        self.held = hold_out(usable())
        what = "test part: the last 10 % of each training speaker"
        if self.pooled:
            parts = ", ".join(self.card["splits"])
            what = f"training part: all there is ({parts}) is taken for it, but the last 10 % of each speaker"
        log.warning(
            "%s: the copy has no %s, %d utterances, are held out as %r", self.name, what, len(self.held), HELD_OUT
        )


def _load_checked_card(corpus: str, manifests: Path) -> dict:
    """The card of a corpus; raises InputError if it has no transcripts or nothing to train on."""
    card = load_card(manifests / corpus, corpus)
    if not card["has_transcripts"]:
        raise InputError(f"{corpus}: has no transcripts, so it cannot be the phoneme corpus.")
    if TRAIN not in card["splits"] and card["splits"] != ["all"] and not card["partial"]:
        raise InputError(
            f"{corpus}: has no training part, only {', '.join(card['splits'])}; add one, or prepare the corpus with "
            "--partial true to train on what is there."
        )
    return card


@contextmanager
def _naming(corpus: str) -> Iterator[None]:
    """Prefix the message of an InputError with the corpus' name."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{corpus}: {error}") from error


def phonemes(
    corpus: str,
    manifests: Path,
    fbank: Path,
    out_dir: Path,
    units: str = "phone",
    bpe_size: int = 500,
    pronunciations: str = "first",
    silence: str = "none",
) -> None:
    """Write the phoneme cuts of an ASR corpus: each supervision gets ``custom['phones']``, numbers of the table.

    ``units``: phone, the phones of the corpus' language, or bpe, ``bpe_size`` pieces of its spelling, of a model
    that is trained on its training transcripts. Utterances whose text has no phones are dropped, by reason. Where
    the copy has no test part, the last 10 % of each training speaker's usable utterances are held out, and the set
    is named ``heldout``; where a partial copy has no training part, all its parts are taken for it.

    With ``pronunciations`` all or ``silence`` optional each supervision also gets ``custom['words']``: for each word
    the rows of labels that it may be, of which the first ones make ``custom['phones']``. With ``silence`` optional the
    table has a symbol for silence between words. (Pieces have one spelling a word.)
    """
    card = _load_checked_card(corpus, manifests)
    given = {"units": units, "pronunciations": pronunciations, "silence": silence}
    for (option, value), allowed in zip(given.items(), (UNITS, PRONUNCIATIONS, SILENCES)):
        if value not in allowed:
            raise InputError(f"--{option} is {' or '.join(allowed)}, not {value!r}.")
    options: dict[str, Any] = {"corpus": corpus, "units": units}
    options.update(lattice_options(pronunciations, silence))
    phones = None
    if units == "phone":
        with _naming(corpus):
            phones = Phones(card["language"])
        options["table"] = phones.table.symbols
    else:
        options["bpe_size"] = bpe_size
    stage = Stage("unify", f"phonemes of {corpus}", out_dir, options, [fbank / corpus], FORMAT)
    if not stage.needs_run() or stage.added_to_plan():
        return
    with stage.locked() as is_missing:
        if is_missing:
            source = _Corpus(card, fbank / corpus)
            _write(source, _prepare_units(source, phones, bpe_size), stage)


def _set_labels(cut: MonoCut, target: Phones | Pieces, options: Mapping[str, Any]) -> bool:
    """Add the labels of its transcript to a cut; returns whether a word of it has several pronunciations.

    Raises NoPhones where it has none.
    """
    custom = cut.supervisions[0].custom
    if "pronunciations" not in options and "silence" not in options:  # where they are the defaults
        custom["phones"] = target.encode(_text(cut))
        return False
    words = target.encode_words(_text(cut))
    if "pronunciations" not in options:
        words = [word[:1] for word in words]
    custom["phones"] = first_labels(words)
    custom["words"] = words
    return any(len(word) > 1 for word in words)


def _prepare_units(source: _Corpus, phones: Phones | None, bpe_size: int) -> Phones | Pieces:
    """Hold out what is needed, and without ``phones`` train pieces on the rest."""
    language = source.card["language"]
    if source.test == HELD_OUT:
        # Phones of its own, since each counts the words that it predicts
        source.hold_out(partial(spelling, language=language) if phones is None else Phones(language).encode)
    if phones is not None:
        return phones
    with _naming(source.name):
        return Pieces.train(language, source.training_texts(), bpe_size)


def _write(source: _Corpus, target: Phones | Pieces, stage: Stage) -> None:
    """Write the cuts of each part, the table and ``phonemes.json``."""
    units = stage.options["units"]
    drops, clips, several = Drops(), Counter[str](), 0
    with stage.replace_folder() as temporary:
        with ExitStack() as files:

            @cache
            def writer(part: str) -> SequentialJsonlWriter:
                clips[part] += 0
                return files.enter_context(CutSet.open_writer(temporary / f"{part}.jsonl.gz"))

            writer(source.test)  # the file exists, possibly empty, even if each speaker has one utterance
            for cut in source.cuts("phones" if units == "phone" else "pieces of the transcripts"):
                try:
                    several += _set_labels(cut, target, stage.options)
                except NoPhones as refused:
                    drops.add(f"no phones: {refused.reason}", f"{cut.id} {refused.found!r}")
                    continue
                writer(source.part(cut)).write(cut)
                clips[source.part(cut)] += 1
        for part, what in ((TRAIN, "training"), (TEST, "test")):
            if not clips[part] and part in (TRAIN, source.test):
                raise InputError(f"{source.name}: no {what} utterance could be turned into phones.")
        if "silence" in stage.options:
            target.table = target.table.with_pause()
        target.save(temporary)
        note: dict[str, Any] = {
            "corpus": source.name,
            "language": source.card["language"],
            "units": units,
            "symbols": len(target.table),
            "test": source.test,
            "partial": source.card["partial"],
            "pooled": source.pooled,
            "clips": dict(clips),
            "dropped": drops.counts(),
            **target.note(),
            **{name: stage.options[name] for name in ("pronunciations", "silence") if name in stage.options},
        }
        if "pronunciations" in stage.options:
            note["several_pronunciations"] = several
            log.info(
                "%s: %d of %d utterances have words of several pronunciations",
                source.name,
                several,
                sum(clips.values()),
            )
        write_json(temporary / "phonemes.json", note)
        came_out = sum(clips.values())
        stage.finish(temporary, came_out + len(drops), came_out, drops)
