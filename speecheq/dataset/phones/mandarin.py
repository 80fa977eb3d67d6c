"""Mandarin text to phones: pypinyin's initials and toned finals (section 3.1, 202 symbols)."""

import re
import unicodedata
from itertools import chain, product
from math import prod

from pypinyin import Style, pinyin
from pypinyin.contrib.tone_convert import to_finals_tone3, to_initials
from pypinyin.seg.simpleseg import seg

from speecheq.dataset.phones.phone_table import SILENCE, NoPhones, PhoneTable, Word

# ü is written v, as pypinyin's FINALS_TONE3 does
INITIALS, FINALS = (
    tuple(symbols.split())
    for symbols in (
        "b p m f d t n l g k h j q x zh ch sh r z c s",
        "i u v a ia ua o uo e ie ve ai uai ei uei ao iao ou iou an ian uan van en in uen vn ang iang uang eng ing ueng "
        "ong iong er",
    )
)
TONES = tuple("12345")

TABLE = PhoneTable([SILENCE, *INITIALS, *(final + tone for final in FINALS for tone in TONES)])

# Marks that are written but not spoken. Brackets are not among them: the text does not say whether what they enclose
# was read aloud.
UNSPOKEN = set("，。！？、；：·…—～“”‘’《》,.!?;:'\"-~")
BRACKETS = set("()（）[]【】{}<>〈〉")

# 嗯, 呣 and the like: pypinyin reads them as the bare nasals n, ng, m, which are no final of the table.
SYLLABIC_NASAL = re.compile(r"(?:h?m|h?ng|n)([1-5]?)")
# A word of more readings than that is taken character by character.
MOST_READINGS = 64


def _check_is_han(text: str) -> None:
    for position, character in enumerate(text):
        if unicodedata.category(character) == "Lo":
            continue
        if character in BRACKETS:
            raise NoPhones("brackets", character)
        run = re.split(r"[\W_]", text[position:], maxsplit=1)[0]  # letters, digits and numbers
        run = "".join(c for c in run if unicodedata.category(c) != "Lo") or character
        if character.isdigit():
            raise NoPhones("digits", run)
        if character.isalpha():
            raise NoPhones("letters that are not Han", run)
        raise NoPhones("marks of unknown reading", character)


def _spoken(text: str) -> str:
    """The characters of a text that are spoken; raises NoPhones where there are none, or others than Han."""
    spoken = "".join(c for c in unicodedata.normalize("NFC", text) if not c.isspace() and c not in UNSPOKEN)
    if not spoken:
        raise NoPhones("nothing to speak", text)
    _check_is_han(spoken)
    return spoken


def _phones(initial: str, final: str, syllable: str) -> list[str]:
    """The phones of a syllable as pypinyin writes it, those of no table included."""
    nasal = SYLLABIC_NASAL.fullmatch(syllable)
    if not final and nasal:
        initial, final = "", "en" + (nasal.group(1) or "5")
    return [*([initial] if initial else []), final.replace("ê", "e")]


def _first_readings(spoken: str, text: str) -> list[list[str]]:
    """The phones of each character; raises NoPhones for one without a reading."""
    initials = pinyin(spoken, style=Style.INITIALS, strict=True)
    finals = pinyin(spoken, style=Style.FINALS_TONE3, strict=True, neutral_tone_with_five=True)
    whole = pinyin(spoken, style=Style.TONE3, neutral_tone_with_five=True)
    if not len(initials) == len(finals) == len(whole) == len(spoken):
        raise NoPhones("characters without a reading", text)
    readings = []
    for character, (initial,), (final,), (syllable,) in zip(spoken, initials, finals, whole):
        readings.append(_phones(initial, final, syllable))
        if not all(phone in TABLE.index for phone in readings[-1]):
            raise NoPhones("characters without a reading", character)
    return readings


def text_to_phones(text: str) -> list[str]:
    """The phones of a Mandarin text, segmented into words by spaces or not.

    Empty initials are dropped, ê is read e, a syllabic nasal (嗯) is read en with its tone, the neutral tone is 5.
    Raises NoPhones for Latin letters, digits, brackets, characters without a reading, or a text without any sound.
    """
    return [phone for reading in _first_readings(_spoken(text), text) for phone in reading]


def text_to_words(text: str) -> list[Word]:
    """The words of a Mandarin text with their readings, of which the first ones are ``text_to_phones``.

    The words are pypinyin's: phrases of its dictionary, whose readings are those of the dictionary, and single
    characters with all readings that they have anywhere. Spaces in the text do not count. Raises NoPhones as
    ``text_to_phones`` does.
    """
    spoken = _spoken(text)
    first = _first_readings(spoken, text)
    syllables = pinyin(spoken, style=Style.TONE3, heteronym=True, neutral_tone_with_five=True)
    characters = [Word(*pair) for pair in zip(spoken, map(_alternatives, first, syllables))]
    words, start = [], 0
    for phrase in seg(spoken):
        inside = characters[start : start + len(phrase)]
        start += len(phrase)
        if prod(len(character.pronunciations) for character in inside) > MOST_READINGS:
            words += inside
        else:
            choices = product(*(character.pronunciations for character in inside))
            words.append(Word(phrase, [tuple(chain.from_iterable(choice)) for choice in choices]))
    return words


def _alternatives(first: list[str], syllables: list[str]) -> list[tuple[str, ...]]:
    """The readings of a character, ``first`` in front; syllables outside of the table are left out."""
    found = [tuple(first)]
    for syllable in syllables:
        final = to_finals_tone3(syllable, strict=True, neutral_tone_with_five=True)
        phones = tuple(_phones(to_initials(syllable, strict=True), final, syllable))
        if all(phone in TABLE.index for phone in phones):
            found.append(phones)
    return list(dict.fromkeys(found))
