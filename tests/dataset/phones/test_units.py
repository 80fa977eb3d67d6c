"""Units of the phoneme task: phones of a language, or pieces that sentencepiece finds in training transcripts."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speecheq.common.errors import InputError
from speecheq.dataset.phones import english, mandarin
from speecheq.dataset.phones.phone_table import NoPhones, PhoneTable
from speecheq.dataset.phones.units import MODEL, PHONE_LANGUAGES, PREDICTED_WORDS, Phones, Pieces, spelling

ENGLISH = ["THE CAT SAT ON THE MAT", "A DOG AND THE CAT", "BASIL SAT, AND THE DOG DIDN'T", "(LAUGHS)"] * 3
MANDARIN = ["今天 天气 很好", "我们去公园散步", "今天去公园", "第3天"]


@pytest.mark.parametrize(
    "language, module, read", [("Mandarin", mandarin, mandarin.text_to_phones), ("English", english, english.Reader())]
)
def test_phones_are_those_of_the_language(language, module, read, tmp_path):
    phones = Phones(language)
    assert phones.table is module.TABLE and language in PHONE_LANGUAGES
    text = {"Mandarin": "你好", "English": "HELLO"}[language]
    assert phones.table.decode(phones.encode(text)) == read(text)
    with pytest.raises(NoPhones):
        phones.encode("3")
    phones.save(tmp_path)
    assert PhoneTable.load(tmp_path / "phones.txt").symbols == module.TABLE.symbols
    assert not (tmp_path / PREDICTED_WORDS).exists(), "no word was predicted"
    assert phones.note() == {"predicted_words": 0, "predicted_occurrences": 0, "unresolved_words": 0}


def test_predicted_words_are_written_down(tmp_path):
    phones = Phones("English")
    phones.encode("WORKHOUSE AND HELSTONE'S WORKHOUSE")
    with pytest.raises(NoPhones):
        phones.encode("pneumonoultramicroscopicsilicovolcanoconiosis")
    phones.save(tmp_path)
    assert (tmp_path / PREDICTED_WORDS).read_text(encoding="utf-8").splitlines() == [
        "word\tphones\ttimes",
        "helstone\tHH EH1 L S T OW2 N\t1",
        "workhouse\tW ER1 K HH AW2 S\t2",
    ]
    assert phones.note() == {"predicted_words": 2, "predicted_occurrences": 3, "unresolved_words": 1}


def test_a_language_without_phones_has_pieces():
    with pytest.raises(InputError, match="phones of German.*Mandarin, English.*--units bpe"):
        Phones("German")
    assert Pieces.train("German", ["DER HUND", "DIE KATZE"], 20).encode("DIE")


@pytest.mark.parametrize(
    "text, language, spelt",
    [
        ("Hello,  world! ", "English", "HELLO WORLD"),
        ("don’t 'quote' twenty-one", "English", "DON'T QUOTE TWENTY ONE"),
        ("Straße", "German", "STRASSE"),
        ("今天 天气，很好。", "Mandarin", "今天天气很好"),
        ("卡拉ＯＫ", "Mandarin", "卡拉OK"),
    ],
)
def test_spelling(text, language, spelt):
    assert spelling(text, language) == spelt


@pytest.mark.parametrize(
    "text, reason",
    [
        ("room 5", "digits"),
        ("（笑）好", "brackets"),
        ("[x]", "brackets"),
        ("…, '", "nothing to speak"),
        ("", "nothing to speak"),
    ],
)
def test_what_cannot_be_spelt_is_named(text, reason):
    with pytest.raises(NoPhones) as caught:
        spelling(text, "English")
    assert caught.value.reason == reason


@pytest.mark.parametrize("language, texts, size", [("English", ENGLISH, 30), ("Mandarin", MANDARIN, 20)])
def test_pieces_give_the_text_back(language, texts, size, tmp_path):
    pieces = Pieces.train(language, texts, size)
    assert len(pieces.table) == size and pieces.table.symbols[:2] == ["sil", "<unk>"]
    pieces.save(tmp_path)
    assert PhoneTable.load(tmp_path / "phones.txt").symbols == pieces.table.symbols
    again = Pieces.load(language, tmp_path)
    for text in texts[:3]:
        numbers = pieces.encode(text)
        assert again.encode(text) == numbers and not {0, 1} & set(numbers)
        assert again.decode(numbers) == spelling(text, language)
        assert again.decode([0, *numbers, 0]) == spelling(text, language), "blanks are silent"
        assert 1 < len(numbers) < len(spelling(text, language)), "neither letters nor the whole text"
    assert ("▁" in "".join(pieces.table.symbols)) == (language == "English"), "the mark of a word's beginning"
    assert pieces.note() == {"unknown_pieces": 0}


def test_training_is_the_same_every_time_and_on_the_training_texts_alone():
    assert Pieces.train("English", iter(ENGLISH), 30).model == Pieces.train("English", ENGLISH, 30).model
    pieces = Pieces.train("English", ENGLISH, 30)
    assert "(" not in "".join(pieces.table.symbols), "what cannot be spelt is left out"
    assert pieces.encode("ZEBRA").count(1) == 2 and pieces.note() == {"unknown_pieces": 2}  # Z and R
    assert "⁇" in pieces.decode(pieces.encode("ZEBRA"))


def test_silence_is_no_piece_of_a_text():
    pieces = Pieces.train("English", ["basil fossil silo sil sil sil"] * 9, 18)
    assert "SIL" in pieces.table.symbols and pieces.table.symbols[0] == "sil"
    assert pieces.decode(pieces.encode("sil")) == "SIL"


@pytest.mark.parametrize("language, texts", [("English", ENGLISH), ("Mandarin", MANDARIN)])
def test_sizes_that_do_not_fit_are_refused_with_the_one_that_does(language, texts):
    with pytest.raises(InputError) as refused:
        Pieces.train(language, texts, 5000)
    most = int(re.search(r"--bpe-size 5000: .* at most (\d+) are possible\.$", str(refused.value)).group(1))
    assert len(Pieces.train(language, texts, most).table) == most
    with pytest.raises(InputError, match=f"at most {most} "):
        Pieces.train(language, texts, most + 1)
    for size in (1, 2, 3):
        with pytest.raises(InputError) as refused:
            Pieces.train(language, texts, size)
    least = int(re.search(r"too small for .* at least (\d+) are needed\.$", str(refused.value)).group(1))
    assert len(Pieces.train(language, texts, least).table) == least
    with pytest.raises(InputError, match=f"at least {least} "):
        Pieces.train(language, texts, least - 1)


@pytest.mark.parametrize("texts", [[], ["..."], ["5", "(laughs)"]])
def test_nothing_to_train_on(texts):
    with pytest.raises(InputError, match="no training transcript can be spelt"):
        Pieces.train("English", texts, 30)


@pytest.mark.parametrize("content", [None, b"", b"no model", b"\x00" * 100])
def test_a_model_that_cannot_be_read(tmp_path, content):
    if content is not None:
        (tmp_path / MODEL).write_bytes(content)
    with pytest.raises(InputError, match=f"{MODEL}: is no model of sentencepiece"):
        Pieces.load("English", tmp_path)


PIECES = Pieces.train("English", ENGLISH, 30)


@given(st.text(max_size=20))
def test_any_text_gives_pieces_or_a_reason(text):
    try:
        numbers = PIECES.encode(text)
    except NoPhones as refused:
        assert refused.reason
        return
    assert numbers and 0 not in numbers and max(numbers) < 30


@given(st.lists(st.sampled_from(["CAT", "DOG", "THE", "SAT", "DIDN'T", "MAD"]), min_size=1, max_size=8))
def test_texts_of_known_letters_come_back(words):
    assert PIECES.decode(PIECES.encode(" ".join(words))) == " ".join(words)
