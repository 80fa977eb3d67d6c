"""prepare_emov_db.py: both layouts, the style in folder and name, the sleepy clips, and what it refuses."""

import pytest
from prepared_manifests import PARTIAL, read_manifests

from speecheq.common.files import read_json

# speaker, style, name, gender, category (None: left out)
CHECKED_BY_HAND = [
    ("bea", "Amused", "amused_1-15_0001", "F", "joy"),
    ("bea", "Angry", "anger_309-336_0322", "F", "anger"),
    ("jenie", "Disgusted", "disgust_1-28_0011", "F", "disgust"),
    ("josh", "Neutral", "neutral_85-112_0086", "M", "neutral"),
    ("sam", "Sleepy", "sleepiness_1-28_0006", "M", None),
    ("sam", "Neutral", "Neutral_1-28_0006", "M", "neutral"),
]


def make_emov_db(toys, folder, pattern):
    for speaker, style, name, *_ in CHECKED_BY_HAND:
        toys.write_wav(folder / pattern.format(speaker=speaker, style=style) / f"{name}.wav")
    return folder


@pytest.fixture
def emov_db(toys, tmp_path):
    return make_emov_db(toys, tmp_path / "EmoV-DB", "{speaker}/{style}")


@pytest.mark.parametrize("pattern", ["{speaker}/{style}", "{speaker}_{style}"])
def test_the_contract_of_the_manifests(prepare, toys, tmp_path, pattern):
    corpus = make_emov_db(toys, tmp_path / "EmoV-DB", pattern)
    assert prepare("emov_db", corpus, tmp_path / "out", *PARTIAL) == 0
    found = read_manifests(tmp_path / "out", "emov_db")
    assert len(found) == 5
    for speaker, style, name, gender, category in CHECKED_BY_HAND:
        if category:
            supervision = found[f"emov_db-{speaker}-{name.lower()}"]
            assert (supervision.speaker, supervision.gender, supervision.language) == (speaker, gender, "English")
            custom = supervision.custom
            assert (custom["emotion"], custom["esc"], custom["eis"]) == (style.lower(), category, -1)
            assert custom["text_id"] == name[-4:]
    stamp = read_json(tmp_path / "out" / "stage.json")
    assert stamp["dropped"] == {"sleepy is not an emotion of SEQM": ["sam/sleepiness_1-28_0006"]}


def test_the_published_counts(refused, emov_db):
    sentence = refused("emov_db", emov_db)
    assert "5 utterances found, 1 left out (sleepy is not an emotion of SEQM)" in sentence
    assert "EmoV-DB has 5166 (the sorted release) or 5256" in sentence


@pytest.mark.parametrize(
    "name, words",
    [
        ("bea/Amused/amused_0001", "is not named like amused_1-15_0001"),
        ("bea/Amused/happy_1-15_0001", "is not named like amused_1-15_0001"),
        ("bea/Amused/neutral_1-15_0001", "is named after another style than amused"),
    ],
)
def test_names_that_are_wrong(refused, emov_db, toys, name, words):
    clip = toys.write_wav(emov_db / f"{name}.wav")
    sentence = refused("emov_db", emov_db, *PARTIAL)
    assert sentence.startswith(f"{clip}: ") and words in sentence


def test_folders_that_are_wrong(refused, emov_db, toys, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "the folder is empty" in refused("emov_db", tmp_path / "empty")
    assert f"too high, give {emov_db} instead" in refused("emov_db", tmp_path)
    assert f"too low inside the corpus, give {emov_db}" in refused("emov_db", emov_db / "bea" / "Amused")
    toys.write_wav(emov_db / "bea" / "Happy" / "amused_1-15_0002.wav")
    assert "Happy: is not a style of EmoV-DB" in refused("emov_db", emov_db, *PARTIAL)
