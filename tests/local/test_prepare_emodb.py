"""prepare_emodb.py: the letters of a name, boredom's place in SEQM, and what it refuses."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_manifests import PARTIAL, read_manifests

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.common.stages import Drops

# name, gender, emotion, category, EIS
CHECKED_BY_HAND = [
    ("03a01Wa", "M", "anger", "anger", -1),
    ("03a02Fc", "M", "happiness", "joy", -1),
    ("08a01Na", "F", "neutral", "neutral", -1),
    ("09b03Ta", "F", "sadness", "sadness", -1),
    ("10a04Ad", "M", "fear", "fear", -1),
    ("11b10Lc", "M", "boredom", "disgust", 1.5),
    ("12a05Ea", "M", "disgust", "disgust", -1),
    ("13b09Lb", "F", "boredom", "disgust", 1.5),
    ("14a07Wc", "F", "anger", "anger", -1),
    ("15b02Ac", "M", "fear", "fear", -1),
    ("16b01Eb", "F", "disgust", "disgust", -1),
]


@pytest.fixture
def emodb(toys, tmp_path):
    for name, *_ in CHECKED_BY_HAND:
        toys.write_wav(tmp_path / "EMODB" / "wav" / f"{name}.wav")
    return tmp_path / "EMODB"


@pytest.mark.parametrize("inside", ["", "wav"])
def test_the_contract_of_the_manifests(prepare, emodb, tmp_path, inside):
    assert prepare("emodb", emodb / inside, tmp_path / "out", *PARTIAL) == 0
    found = read_manifests(tmp_path / "out", "emodb")
    assert len(found) == len(CHECKED_BY_HAND)
    for name, gender, emotion, category, eis in CHECKED_BY_HAND:
        supervision = found[f"emodb-{name}"]
        assert (supervision.speaker, supervision.gender, supervision.language) == (name[:2], gender, "German")
        custom = supervision.custom
        assert (custom["emotion"], custom["esc"], custom["eis"]) == (emotion, category, eis)
        assert (custom["text_id"], custom["version"]) == (name[2:5], name[6])


def test_the_official_counts(refused, emodb):
    sentence = refused("emodb", emodb)
    assert "11 utterances found, EMODB has 535" in sentence and "2 of 127 with the label anger" in sentence


@pytest.mark.parametrize(
    "name, words",
    [
        ("03a01W", "is not named like 03a01Wa"),
        ("03a01Waa", "is not named like 03a01Wa"),
        ("3a01Wa", "is not named like 03a01Wa"),
        ("03a01wa", "is not named like 03a01Wa"),
        ("03a01Wa (1)", "is not named like 03a01Wa"),
        ("٠٣a01Wa", "is not named like 03a01Wa"),
        ("04a01Wa", "the speaker 04 is not one of 03, 08"),
        ("03a03Wa", "the sentence a03 is not one of a01, a02"),
        ("03c01Wa", "the sentence c01 is not one of a01, a02"),
        ("03a01Sa", "the emotion S is not one of A, E, F, L, N, T, W"),
    ],
)
def test_names_that_are_wrong(refused, emodb, toys, name, words):
    clip = toys.write_wav(emodb / "wav" / f"{name}.wav")
    sentence = refused("emodb", emodb, *PARTIAL)
    assert sentence.startswith(f"{clip}: ") and words in sentence


def test_a_clip_that_is_there_twice(refused, emodb, toys):
    toys.write_wav(emodb / "wav" / "03a01Wa.WAV")
    sentence = refused("emodb", emodb, *PARTIAL)
    assert "03a01Wa occurs a second time" in sentence and "03a01Wa.wav" in sentence and "03a01Wa.WAV" in sentence


def test_folders_that_are_missing_empty_too_high_or_another_corpus(refused, emodb, toys, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "there is no such folder" in refused("emodb", tmp_path / "missing")
    assert "the folder is empty" in refused("emodb", tmp_path / "empty")
    assert f"too high, give {emodb} instead" in refused("emodb", tmp_path)
    toys.write_wav(tmp_path / "other" / "wav" / "F01" / "1.wav")
    assert "does not look like EMODB" in refused("emodb", tmp_path / "other" / "wav")


@pytest.mark.parametrize("content, words", [(b"", "the file is empty"), (b"no audio at all", "is not audio")])
def test_audio_that_cannot_be_used(refused, emodb, content, words):
    clip = emodb / "wav" / "14a07Wc.wav"
    clip.write_bytes(content)
    sentence = refused("emodb", emodb, *PARTIAL)
    assert sentence.startswith(f"{clip}: ") and words in sentence


def test_the_real_clips(samples, prepare, tmp_path):
    assert prepare("emodb", samples("EMODB"), tmp_path / "out") == 0
    card = read_json(tmp_path / "out" / "emodb_card.json")
    assert card["utterances"] == 535 and len(card["counts"]["speaker"]) == 10
    assert card["counts"]["emotion"] == {
        "anger": 127,
        "boredom": 81,
        "disgust": 46,
        "fear": 69,
        "happiness": 71,
        "neutral": 79,
        "sadness": 62,
    }
    assert card["counts"]["esc"]["disgust"] == 46 + 81 and card["counts"]["eis"] == {"-1.0": 454, "1.5": 81}
    assert card["counts"]["gender"] == {"F": 302, "M": 233}


@given(
    st.text(alphabet=st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), max_size=40)
    | st.text(alphabet="0123456789abWLEAFNT", min_size=7, max_size=7)
)
@settings(max_examples=200)
def test_no_name_fails_with_anything_but_a_sentence(toys, tmp_path_factory, name):
    """Names only: the audio is read later."""
    script = toys.script("emodb")
    clips = [tmp_path_factory.getbasetemp() / f"{stem}.wav" for stem in ("03a01Wa", f"x{name}"[1:] or "x")]
    script.iter_clips = lambda folder: iter(clips)
    try:
        found = list(script.find_utterances(tmp_path_factory.getbasetemp(), True, Drops()))
    except InputError as refused:
        assert str(refused).startswith(str(clips[1])) and str(refused).endswith(".")
    else:
        assert found[1].id == f"emodb-{clips[1].stem}" and found[1].label in script.EMODB.labels
