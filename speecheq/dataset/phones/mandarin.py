"""Mandarin text to phones: pypinyin's initials and toned finals (section 3.1, 202 symbols)."""

import re
import unicodedata

from pypinyin import Style, pinyin

from speecheq.dataset.phones.phone_table import SILENCE, NoPhones, PhoneTable

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


def text_to_phones(text: str) -> list[str]:
    """The phones of a Mandarin text, segmented into words by spaces or not.

    Empty initials are dropped, ê is read e, a syllabic nasal (嗯) is read en with its tone, the neutral tone is 5.
    Raises NoPhones for Latin letters, digits, brackets, characters without a reading, or a text without any sound.
    """
    spoken = "".join(c for c in unicodedata.normalize("NFC", text) if not c.isspace() and c not in UNSPOKEN)
    if not spoken:
        raise NoPhones("nothing to speak", text)
    _check_is_han(spoken)
    initials = pinyin(spoken, style=Style.INITIALS, strict=True)
    finals = pinyin(spoken, style=Style.FINALS_TONE3, strict=True, neutral_tone_with_five=True)
    whole = pinyin(spoken, style=Style.TONE3, neutral_tone_with_five=True)
    if not len(initials) == len(finals) == len(whole) == len(spoken):
        raise NoPhones("characters without a reading", text)
    phones: list[str] = []
    for character, (initial,), (final,), (syllable,) in zip(spoken, initials, finals, whole):
        nasal = SYLLABIC_NASAL.fullmatch(syllable)
        if not final and nasal:
            initial, final = "", "en" + (nasal.group(1) or "5")
        final = final.replace("ê", "e")
        syllable_phones = ([initial] if initial else []) + [final]
        if not all(phone in TABLE.index for phone in syllable_phones):
            raise NoPhones("characters without a reading", character)
        phones.extend(syllable_phones)
    return phones
