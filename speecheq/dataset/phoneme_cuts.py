"""Stage 3, its phoneme part: the cuts of an ASR corpus with what the phoneme task predicts of them.

Written once for all folds of a target:

    <phonemes>/{train,dev,test}.jsonl.gz   cuts whose supervision has ``custom['phones']``, numbers of the table
    <phonemes>/phones.txt                  the table: phones of the language, or pieces of its spelling
    <phonemes>/phonemes.json               what went where
    <phonemes>/predicted_words.tsv         words that the dictionary lacks, and their predicted phones
    <phonemes>/bpe.model                   the model of the pieces

The cuts are read and written one at a time: at no moment are all of them in memory.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
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
from speecheq.corpora.prepared_corpus import load_card
from speecheq.dataset.phones.phone_table import NoPhones
from speecheq.dataset.phones.units import UNITS, Phones, Pieces, spelling
from speecheq.features.storage import load_cuts

# Raised when what this module writes changes its meaning.
FORMAT = 2

TRAIN, TEST = "train", "test"
# Where the copy lacks the test part or the training part, so much of each speaker is held out for scoring.
HELD_OUT = "heldout"
HELD_OUT_SHARE = 0.1
# Pieces are trained on so many transcripts at most, for sentencepiece holds all of them (2 kB for a Mandarin one).
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


class _Corpus:
    """The cuts of the phoneme corpus, and the part that each goes to: train, dev, test or heldout."""

    def __init__(self, card: dict, fbank: Path):
        self.card, self.fbank = card, fbank
        # a corpus without official parts ("all") is one for training
        self.pooled = TRAIN not in card["splits"] and card["splits"] != ["all"]
        self.test = TEST if TEST in card["splits"] and not self.pooled else HELD_OUT
        self.held: set[str] = set()

    def cuts(self, doing: str) -> Iterator[MonoCut]:
        return progress(load_cuts(self.fbank), f"{self.card['name']}: {doing}", self.card["utterances"], "texts")

    def part(self, cut: MonoCut) -> str:
        if cut.id in self.held:
            return HELD_OUT
        return TRAIN if self.pooled else cut.supervisions[0].custom.get("split") or TRAIN

    def training_texts(self, doing: str) -> Iterator[str]:
        """The training transcripts, or PIECES_FROM of them, evenly spaced."""
        every = ceil(self.card["utterances"] / PIECES_FROM)
        return islice((_text(cut) for cut in self.cuts(doing) if self.part(cut) == TRAIN), 0, None, every)

    def hold_out(self, readable: Callable[[str], Any]) -> None:
        """Decide what is held out of the utterances whose text ``readable`` accepts."""

        def usable() -> Iterator[tuple[str, str]]:
            for cut in self.cuts("choosing what is held out"):
                if self.part(cut) != TRAIN:
                    continue
                try:
                    readable(_text(cut))
                except NoPhones:
                    continue
                yield cut.id, cut.supervisions[0].speaker

        self.held = hold_out(usable())
        what = "test part: the last 10 % of each training speaker"
        if self.pooled:
            parts = ", ".join(self.card["splits"])
            what = f"training part: what there is ({parts}) is taken for it, but the last 10 % of each speaker"
        name, held = self.card["name"], len(self.held)
        log.warning("%s: the copy has no %s, %d utterances, are held out as %r", name, what, held, HELD_OUT)


def _text(cut: MonoCut) -> str:
    return cut.supervisions[0].text or ""


def _checked_card(corpus: str, manifests: Path) -> dict:
    """The card of a corpus that has transcripts and something to train on, else InputError."""
    card = load_card(manifests / corpus, corpus)
    if not card["has_transcripts"]:
        raise InputError(f"{corpus}: has no transcripts, so it cannot be the phoneme corpus.")
    if TRAIN not in card["splits"] and card["splits"] != ["all"] and not card["partial"]:
        raise InputError(
            f"{corpus}: has no training part, only {', '.join(card['splits'])}; add one, or prepare the corpus with "
            "--partial true to train on what is there."
        )
    return card


def phonemes(
    corpus: str, manifests: Path, fbank: Path, out_dir: Path, units: str = "phone", bpe_size: int = 500
) -> None:
    """Write the phoneme cuts of an ASR corpus: each supervision gets ``custom['phones']``, numbers of the table.

    ``units``: phone, the phones of the corpus' language, or bpe, ``bpe_size`` pieces of its spelling, of a model
    that is trained on its training transcripts. Utterances whose text has no phones are dropped, by reason. Where
    the copy has no test part, the last 10 % of each training speaker's usable utterances are held out, and the set
    is named ``heldout``; where a partial copy has no training part, all its parts are taken for it.
    """
    card = _checked_card(corpus, manifests)
    if units not in UNITS:
        raise InputError(f"--units is {' or '.join(UNITS)}, not {units!r}.")
    language = card["language"]
    options: dict[str, Any] = {"corpus": corpus, "units": units}
    if units == "phone":
        try:
            target: Phones | None = Phones(language)
        except InputError as error:
            raise InputError(f"{corpus}: {error}") from error
        options["table"] = target.table.symbols
    else:
        target, options["bpe_size"] = None, bpe_size
    stage = Stage("unify", f"phonemes of {corpus}", out_dir, options, [fbank / corpus], FORMAT)
    if not stage.needs_run() or stage.added_to_plan():
        return
    with stage.locked() as is_missing:
        if is_missing:
            _write(card, fbank / corpus, units, bpe_size, target, stage)


def _write(card: dict, fbank: Path, units: str, bpe_size: int, phones: Phones | None, stage: Stage) -> None:
    """The phoneme cuts of a corpus, with its ``phones``, or, without them, with pieces that are trained first."""
    corpus, language = card["name"], card["language"]
    source = _Corpus(card, fbank)
    if source.test == HELD_OUT:
        # read with a reader of its own, since each counts what it predicts
        source.hold_out(Phones(language).encode if units == "phone" else partial(spelling, language=language))
    target: Phones | Pieces | None = phones
    if target is None:
        try:
            target = Pieces.train(language, source.training_texts("pieces"), bpe_size)
        except InputError as error:
            raise InputError(f"{corpus}: {error}") from error

    drops, clips = Drops(), Counter()
    with stage.replace_folder() as temporary:
        with ExitStack() as files:
            writers: dict[str, SequentialJsonlWriter] = {}

            def writer(part: str) -> SequentialJsonlWriter:
                if part not in writers:
                    writers[part] = files.enter_context(CutSet.open_writer(temporary / f"{part}.jsonl.gz"))
                return writers[part]

            writer(source.test)  # there, if empty, even where each speaker has one utterance
            for cut in source.cuts("phones" if units == "phone" else "pieces of the transcripts"):
                try:
                    cut.supervisions[0].custom["phones"] = target.encode(_text(cut))
                except NoPhones as refused:
                    drops.add(f"no phones: {refused.reason}", f"{cut.id} {refused.found!r}")
                    continue
                clips[source.part(cut)] += 1
                writer(source.part(cut)).write(cut)
        for part in (TRAIN, source.test):
            if not clips[part] and part != HELD_OUT:
                what = {TRAIN: "training", TEST: "test"}[part]
                raise InputError(f"{corpus}: no {what} utterance could be turned into phones.")
        target.save(temporary)
        note = {
            "corpus": corpus,
            "language": language,
            "units": units,
            "symbols": len(target.table),
            "test": source.test,
            "partial": card["partial"],
            "pooled": source.pooled,
            "clips": {part: clips[part] for part in writers},
            "dropped": drops.counts(),
            **target.note(),
        }
        write_json(temporary / "phonemes.json", note)
        came_out = sum(clips.values())
        stage.finish(temporary, came_out + len(drops), came_out, drops)
