import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypinyin import Style, pinyin

from speecheq.common.errors import InputError
from speecheq.dataset.phones.mandarin import FINALS, INITIALS, MOST_READINGS, TABLE, text_to_phones, text_to_words
from speecheq.dataset.phones.phone_table import NoPhones, PhoneTable


def test_the_table_is_the_papers():
    assert (len(INITIALS), len(FINALS), len(TABLE)) == (21, 36, 202)
    assert TABLE.symbols[0] == "sil"


@pytest.mark.parametrize(
    "text, phones",
    [
        ("绿色", "l v4 s e4"),
        ("月亮", "ve4 l iang4"),
        ("好的", "h ao3 d e5"),
        ("中国", "zh ong1 g uo2"),
        ("一 二", "i1 er4"),
        ("嗯好", "en2 h ao3"),
        ("你好，世界！", "n i3 h ao3 sh i4 j ie4"),
    ],
)
def test_phones_of_words(text, phones):
    assert " ".join(text_to_phones(text)) == phones


def test_segmented_and_unsegmented_transcripts_give_the_same_phones():
    assert text_to_phones("上海 市 第一 食品 商店") == text_to_phones("上海市第一食品商店")


@pytest.mark.parametrize(
    "text, reason",
    [
        ("尚街Loft时尚", "letters that are not Han"),
        ("买8折", "digits"),
        ("星巴克(二店)", "brackets"),
        ("万科Ａ", "letters that are not Han"),
        ("百分之五％", "marks of unknown reading"),
        ("龦", "characters without a reading"),
        ("，。", "nothing to speak"),
        ("", "nothing to speak"),
        ("カタカナ", "characters without a reading"),
    ],
)
def test_what_has_no_phones_is_named(text, reason):
    with pytest.raises(NoPhones) as caught:
        text_to_phones(text)
    assert caught.value.reason == reason


HAN = st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5)


@given(st.text(HAN, min_size=1, max_size=12))
def test_every_phone_of_a_han_text_is_in_the_table(text):
    try:
        phones = text_to_phones(text)
    except NoPhones as refused:
        assert refused.reason == "characters without a reading"
        return
    numbers = TABLE.encode(phones)
    assert TABLE.decode(numbers) == phones
    assert 0 not in numbers
    assert sum(phone not in INITIALS for phone in phones) == len(text)  # one final a character


@given(st.text(max_size=20))
def test_any_text_gives_phones_or_a_reason(text):
    try:
        assert text_to_phones(text)
    except NoPhones as refused:
        assert refused.reason


@given(st.text(HAN, min_size=1, max_size=1))
def test_phones_spell_pypinyins_reading(character):
    initial = pinyin(character, style=Style.INITIALS, strict=True)[0][0]
    final = pinyin(character, style=Style.FINALS_TONE3, strict=True, neutral_tone_with_five=True)[0][0]
    if final in TABLE.index:
        assert "".join(text_to_phones(character)) == initial + final


def test_the_table_file_round_trips(tmp_path):
    TABLE.save(tmp_path / "phones.txt")
    assert PhoneTable.load(tmp_path / "phones.txt").symbols == TABLE.symbols


def test_a_broken_table_file_is_named_with_its_line(tmp_path):
    (tmp_path / "phones.txt").write_text("sil 0\nb 2\n")
    with pytest.raises(InputError, match="phones.txt, line 2"):
        PhoneTable.load(tmp_path / "phones.txt")


def readings(text):
    return {word.text: [" ".join(phones) for phones in word.pronunciations] for word in text_to_words(text)}


def test_phrases_have_the_reading_of_the_dictionary_and_characters_all_they_have():
    assert readings("银行，行长 的") == {
        "银行": ["in2 h ang2"],
        "行长": ["h ang2 zh ang3"],
        "的": ["d e5", "d i1", "d i2", "d i4"],
    }
    assert readings("嗯") == {"嗯": ["en2", "en3", "en4"]}  # as n and as ng
    assert readings("欸")["欸"][:3] == ["ai1", "ai3", "e1"]


@settings(max_examples=50)
@given(st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=1, max_size=8))
def test_the_first_readings_are_the_phones_of_the_text(text):
    try:
        phones = text_to_phones(text)
    except NoPhones as refused:
        with pytest.raises(NoPhones, match=re.escape(str(refused))):
            text_to_words(text)
        return
    words = text_to_words(text)
    assert "".join(word.text for word in words) == text
    assert [phone for word in words for phone in word.pronunciations[0]] == phones
    for word in words:
        assert len(set(word.pronunciations)) == len(word.pronunciations) <= MOST_READINGS
        assert all(phone in TABLE.index for each in word.pronunciations for phone in each)
