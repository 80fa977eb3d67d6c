"""The targets of the phoneme task: the phones of a language, or pieces of its spelling.

``Phones`` (the paper's) turns a text into phones with the rules and dictionary of its language. ``Pieces`` cuts its
spelling into the units of a byte-pair encoding that sentencepiece has trained on the training transcripts; it needs no
dictionary, so it serves any language. Both number their symbols by a ``PhoneTable``.
"""

import io
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from speecheq.common.errors import InputError
from speecheq.common.files import whole_file, write_text
from speecheq.dataset.phones.phone_table import SILENCE, NoPhones, PhoneTable, Word

UNITS = ("phone", "bpe")
PHONE_LANGUAGES = ("Mandarin", "English")
# Files beside the phoneme cuts: the model of the pieces, and the predicted words that the dictionary lacks.
MODEL = "bpe.model"
PREDICTED_WORDS = "predicted_words.tsv"
# Languages written without spaces between words: in transcripts that have some, such as AISHELL's, they do not count.
WITHOUT_SPACES = ("Mandarin",)
WORD_START = "\u2581"  # in front of the first piece of a word


class Phones:
    """The phones of a language; raises InputError for an unsupported language."""

    def __init__(self, language: str):
        self.predicted: Counter[str] = Counter()  # words that the dictionary lacks, and how often they were predicted
        self.unresolved: Counter[str] = Counter()  # words without a prediction
        self.read: Callable[[str], list[str]]
        self.read_words: Callable[[str], list[Word]]
        if language == "Mandarin":
            from speecheq.dataset.phones import mandarin

            self.table, self.read = mandarin.TABLE, mandarin.text_to_phones
            self.read_words = mandarin.text_to_words
        elif language == "English":
            from speecheq.dataset.phones import english

            reader = english.Reader()
            self.table, self.read, self.read_words = english.TABLE, reader, reader.words
            self.predicted, self.unresolved = reader.predicted, reader.unresolved
        else:
            raise InputError(
                f"there are no phones of {language}, only of {', '.join(PHONE_LANGUAGES)}; pieces are possible for "
                "every language, with --units bpe."
            )

    def encode(self, text: str) -> list[int]:
        """A transcript to numbers of the table; raises NoPhones where a part of it has no reading."""
        return self.table.encode(self.read(text))

    def encode_words(self, text: str) -> list[list[list[int]]]:
        """The pronunciations of each word in numbers of the table; the first ones are those of ``encode``."""
        return [[self.table.encode(phones) for phones in word.pronunciations] for word in self.read_words(text)]

    def note(self) -> dict[str, Any]:
        """How many words were predicted (different ones, and in all), and how many could not be."""
        return {
            "predicted_words": len(self.predicted),
            "predicted_occurrences": sum(self.predicted.values()),
            "unresolved_words": len(self.unresolved),
        }

    def save(self, folder: Path) -> None:
        """Write phones.txt, and predicted_words.tsv (word, phones, how often) where words were predicted."""
        self.table.save(folder / "phones.txt")
        if self.predicted:
            from speecheq.dataset.phones.english import predict

            words = sorted(self.predicted.items())
            lines = [f"{word}\t{' '.join(predict(word))}\t{times}\n" for word, times in words]
            write_text(folder / PREDICTED_WORDS, "word\tphones\ttimes\n" + "".join(lines))


def spelling(text: str, language: str) -> str:
    """A transcript as its pieces spell it: capitals, without marks but the apostrophes inside words.

    Raises NoPhones for what has no one reading: brackets, digits, or nothing to speak at all.
    """
    kept = []
    for character in unicodedata.normalize("NFKC", text).replace("’", "'").upper():
        kind = unicodedata.category(character)
        if kind in ("Ps", "Pe"):
            raise NoPhones("brackets", character)
        if kind.startswith("N"):
            raise NoPhones("digits", character)
        kept.append(character if kind[0] in "LM" or character == "'" else " ")
    words = [word.strip("'") for word in "".join(kept).split()]
    spelt = ("" if language in WITHOUT_SPACES else " ").join(word for word in words if word)
    if not spelt:
        raise NoPhones("nothing to speak", text)
    return spelt


class Pieces:
    """Pieces of a language's spelling; 0 is silence and the blank, 1 a character that is not in training."""

    def __init__(self, language: str, model: bytes):
        from sentencepiece import SentencePieceProcessor

        self.language, self.model = language, model
        self.processor = SentencePieceProcessor(model_proto=model)
        self.table = PhoneTable([self.processor.id_to_piece(number) for number in range(len(self.processor))])
        self.unknown = 0

    @classmethod
    def train(cls, language: str, texts: Iterable[str], size: int) -> "Pieces":
        """``size`` pieces of the transcripts ``texts``, those without a spelling left out; the same ones every time.

        Raises InputError if the texts hold too few different pieces for the size, or too many different characters.
        """
        from sentencepiece import SentencePieceTrainer

        written = io.BytesIO()
        try:
            SentencePieceTrainer.train(
                sentence_iterator=_spellings(language, texts),
                model_writer=written,
                model_type="bpe",
                vocab_size=max(size, 2),  # with less, sentencepiece does not report the least size
                character_coverage=1.0,
                normalization_rule_name="identity",  # done by ``spelling``
                add_dummy_prefix=language not in WITHOUT_SPACES,
                max_sentence_length=2**20,
                pad_id=0,
                pad_piece=SILENCE,  # never a piece of a text: those are in capitals
                unk_id=1,
                bos_id=-1,
                eos_id=-1,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise _refusal(size, error) from error
        return cls(language, written.getvalue())

    @classmethod
    def load(cls, language: str, folder: Path) -> "Pieces":
        """The pieces that ``save`` wrote to ``folder``; raises InputError if the model cannot be read."""
        path = Path(folder) / MODEL
        try:
            return cls(language, path.read_bytes())
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"{path}: is no model of sentencepiece ({error}); run stage 3 again.") from error

    def encode(self, text: str) -> list[int]:
        """A transcript to numbers of the table; raises NoPhones if it cannot be spelt."""
        numbers = self.processor.encode(spelling(text, self.language))
        self.unknown += numbers.count(self.processor.unk_id())
        return numbers

    def encode_words(self, text: str) -> list[list[list[int]]]:
        """The pieces of each word, which has one spelling; where no spaces are written, of each piece."""
        words: list[list[list[int]]] = []
        for number in self.encode(text):
            begins = self.language in WITHOUT_SPACES or self.table.symbols[number].startswith(WORD_START)
            if begins or not words:
                words.append([[]])
            words[-1][0].append(number)
        return words

    def decode(self, numbers: list[int]) -> str:
        """Numbers back to the text as ``spelling`` writes it; blanks and pauses give nothing."""
        return self.processor.decode([number for number in numbers if number < len(self.processor)])

    def note(self) -> dict[str, Any]:
        """How often a character occurred that the training transcripts do not hold."""
        return {"unknown_pieces": self.unknown}

    def save(self, folder: Path) -> None:
        """Write phones.txt, the table, and the model."""
        self.table.save(folder / "phones.txt")
        with whole_file(folder / MODEL) as temporary:
            temporary.write_bytes(self.model)


def _spellings(language: str, texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        try:
            yield spelling(text, language)
        except NoPhones:
            continue


def _refusal(size: int, error: RuntimeError) -> Exception:
    """An InputError for a size that does not fit; any other error unchanged."""
    most = re.search(r"size too high.*<= (\d+)", str(error))
    if most:
        return InputError(
            f"--bpe-size {size}: the training transcripts have too few different pieces; at most {most.group(1)} are "
            "possible."
        )
    least = re.search(r"smaller than required_chars\. \d+ vs (\d+)", str(error))
    if least:
        return InputError(
            f"--bpe-size {size}: is too small for the different characters of the training transcripts; at least "
            f"{least.group(1)} are needed."
        )
    if "sentences_.empty()" in str(error):
        return InputError("no training transcript can be spelt, so there are no pieces of them.")
    return error
