"""prepare_mead.py: actors, levels, neutral's only level, other formats of audio, and what it refuses."""

import pytest
from other_formats import encode, tone
from prepared_manifests import PARTIAL, read_manifests

from speecheq.common.stages import Drops

# actor, gender, emotion, level, number, category, EIS
CHECKED_BY_HAND = [
    ("M003", "M", "angry", "level_1", "001", "anger", 1.5),
    ("M003", "M", "contempt", "level_2", "002", "disgust", 2.5),
    ("M003", "M", "neutral", "level_1", "040", "neutral", 0.0),
    ("W009", "F", "disgusted", "level_3", "030", "disgust", 3.5),
    ("W009", "F", "fear", "level_1", "001", "fear", 1.5),
    ("W009", "F", "happy", "level_3", "001", "joy", 3.5),
    ("W009", "F", "sad", "level_2", "001", "sadness", 2.5),
    ("W009", "F", "surprised", "level_2", "011", "surprise", 2.5),
]


@pytest.fixture
def mead(toys, tmp_path):
    for actor, _, emotion, level, number, *_ in CHECKED_BY_HAND:
        toys.write_wav(tmp_path / "MEAD" / actor / "audio" / emotion / level / f"{number}.wav")
    return tmp_path / "MEAD"


def test_the_contract_of_the_manifests(prepare, mead, tmp_path):
    assert prepare("mead", mead, tmp_path / "out", *PARTIAL) == 0
    found = read_manifests(tmp_path / "out", "mead")
    assert len(found) == len(CHECKED_BY_HAND)
    for actor, gender, emotion, level, number, category, eis in CHECKED_BY_HAND:
        supervision = found[f"mead-{actor}-{emotion}-{level}-{number}"]
        assert (supervision.speaker, supervision.gender, supervision.language) == (actor, gender, "English")
        custom = supervision.custom
        assert (custom["emotion"], custom["esc"], custom["eis"]) == (emotion, category, eis)
        assert custom["intensity"] == (None if emotion == "neutral" else level)


def test_the_published_count(refused, mead):
    assert "8 utterances found, MEAD has 31729 (part 0, 48 actors)" in refused("mead", mead)


def test_clips_as_the_release_has_them(prepare, mead, tmp_path):
    encode(mead / "M003/audio/angry/level_1/002.m4a", "aac", tone(0.5))
    encode(mead / "M003/audio/angry/level_1/001.m4a", "aac", tone(0.5))  # beside 001.wav, which is taken
    assert prepare("mead", mead, tmp_path / "out", *PARTIAL) == 0
    found = read_manifests(tmp_path / "out", "mead")
    assert len(found) == len(CHECKED_BY_HAND) + 1
    assert found["mead-M003-angry-level_1-002"].duration == pytest.approx(0.5, abs=0.1)
    assert found["mead-M003-angry-level_1-001"].duration == pytest.approx(0.2)


def test_without_pyav_the_release_is_refused_in_one_sentence(refused, mead, monkeypatch):
    monkeypatch.setattr("speecheq.corpora.decoding.can_decode", lambda: False)
    (mead / "M003/audio/angry/level_1/002.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(100))
    sentence = refused("mead", mead, *PARTIAL)
    assert "002.m4a: is MPEG-4" in sentence and "install the extra av" in sentence


@pytest.mark.parametrize(
    "name, words",
    [
        ("M003/audio/bored/level_1/001.wav", "bored: is not an emotion of MEAD (angry, contempt"),
        ("M003/audio/angry/level_4/001.wav", "level_4: is not a level of angry (level_1, level_2, level_3)"),
        ("M003/audio/neutral/level_2/001.wav", "level_2: is not a level of neutral (level_1)"),
        ("M003/audio/angry/level_1/0001.wav", "0001.wav: is not named by a number of three digits"),
    ],
)
def test_names_that_are_wrong(refused, mead, toys, name, words):
    toys.write_wav(mead / name)
    assert words in refused("mead", mead, *PARTIAL)


def test_folders_that_are_wrong(refused, mead, toys, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "the folder is empty" in refused("mead", tmp_path / "empty")
    assert f"too high, give {mead} instead" in refused("mead", tmp_path)
    assert f"too low inside the corpus, give {mead}" in refused("mead", mead / "M003" / "audio")
    (mead / "W011").mkdir()
    (mead / "W011" / "audio.tar").write_bytes(b"")
    assert "W011/audio: there is no such folder; unpack audio.tar" in refused("mead", mead, *PARTIAL)


def test_hidden_files_are_no_clips(toys, mead):
    (mead / "M003/audio/angry/level_1/._001.wav").write_bytes(b"junk")
    assert len(list(toys.script("mead").find_utterances(mead, True, Drops()))) == len(CHECKED_BY_HAND)
