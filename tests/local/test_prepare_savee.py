"""prepare_savee.py: both layouts, the letters of a name, the counts, and what it refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prepared_manifests import PARTIAL, read_manifests

from speecheq.common.errors import InputError
from speecheq.common.stages import Drops

# speaker, name, emotion, category
CHECKED_BY_HAND = [
    ("DC", "a01", "anger", "anger"),
    ("DC", "sa03", "sadness", "sadness"),
    ("DC", "su15", "surprise", "surprise"),
    ("JE", "d02", "disgust", "disgust"),
    ("JK", "f07", "fear", "fear"),
    ("JK", "h10", "happiness", "joy"),
    ("KL", "n30", "neutral", "neutral"),
]


def make_savee(toys, folder, pattern):
    for speaker, name, *_ in CHECKED_BY_HAND:
        toys.write_wav(folder / pattern.format(speaker=speaker, name=name))
    return folder


@pytest.fixture
def savee(toys, tmp_path):
    return make_savee(toys, tmp_path / "SAVEE", "AudioData/{speaker}/{name}.wav")


@pytest.mark.parametrize("pattern", ["AudioData/{speaker}/{name}.wav", "{speaker}/{name}.wav", "{speaker}_{name}.wav"])
def test_the_contract_of_the_manifests(prepare, toys, tmp_path, pattern):
    corpus = make_savee(toys, tmp_path / "SAVEE", pattern)
    assert prepare("savee", corpus, tmp_path / "out", *PARTIAL) == 0
    found = read_manifests(tmp_path / "out", "savee")
    assert len(found) == len(CHECKED_BY_HAND)
    for speaker, name, emotion, category in CHECKED_BY_HAND:
        supervision = found[f"savee-{speaker}_{name}"]
        assert (supervision.speaker, supervision.gender, supervision.language) == (speaker, "M", "English")
        custom = supervision.custom
        assert (custom["emotion"], custom["esc"], custom["eis"]) == (emotion, category, -1)
        assert custom["sentence"] == name[-2:] and "text_id" not in custom


def test_a_whole_copy_needs_no_option_and_another_is_told_what_it_lacks(prepare, refused, savee, toys, tmp_path):
    sentence = refused("savee", savee)
    assert "7 utterances found, SAVEE has 480" in sentence and "1 of 60 with the label anger" in sentence
    content = (savee / "AudioData/DC/a01.wav").read_bytes()
    for speaker in ("DC", "JE", "JK", "KL"):
        for emotion in ("a", "d", "f", "h", "n", "sa", "su"):
            for number in range(1, 31 if emotion == "n" else 16):
                (savee / "AudioData" / speaker).mkdir(exist_ok=True)
                (savee / "AudioData" / speaker / f"{emotion}{number:02d}.wav").write_bytes(content)
    assert prepare("savee", savee, tmp_path / "out") == 0


@pytest.mark.parametrize(
    "name, words",
    [
        ("DC/s03", "is not named like DC_sa03"),
        ("DC/a1", "is not named like DC_sa03"),
        ("DC/٠١a01", "is not named like DC_sa03"),
        ("DC/JE_a01", "is named after another speaker than DC"),
    ],
)
def test_names_that_are_wrong(refused, savee, toys, name, words):
    clip = toys.write_wav(savee / "AudioData" / f"{name}.wav")
    sentence = refused("savee", savee, *PARTIAL)
    assert sentence.startswith(f"{clip}: ") and words in sentence


def test_folders_that_are_not_the_corpus(refused, savee, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "the folder is empty" in refused("savee", tmp_path / "empty")
    assert f"too high, give {savee} instead" in refused("savee", tmp_path)
    assert "too low inside the corpus" in refused("savee", savee / "AudioData" / "DC")


@given(st.text(alphabet="DCJEKLadfhnsu_0123456789 ", min_size=1, max_size=9))
def test_any_name_is_read_or_refused_in_one_sentence(toys, tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("savee") / "DC"
    folder.mkdir()
    (folder / f"{name}.wav").write_bytes(b"")
    script = toys.script("savee")
    try:
        (found,) = script.find_utterances(folder.parent, True, Drops())
    except InputError as error:
        assert str(error).startswith(f"{folder / name}.wav: ") and str(error).endswith(".")
    else:
        assert found.id.endswith(name.removeprefix("DC_")) and found.label in script.SAVEE.labels
