"""prepare_ravdess.py: the seven codes of a name, songs and videos left out, the release's faults reported."""

import itertools
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prepared_manifests import PARTIAL, read_manifests

from speecheq.common.errors import InputError
from speecheq.common.files import read_json

SPEECH = "Audio_Speech_Actors_01-24"
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


def names(actor):
    """The 60 clips of an actor."""
    for emotion, intensity, statement, repetition in itertools.product(range(1, 9), (1, 2), (1, 2), (1, 2)):
        if (emotion, intensity) != (1, 2):
            yield f"03-01-{emotion:02d}-{intensity:02d}-{statement:02d}-{repetition:02d}-{actor:02d}.wav"


@pytest.fixture
def ravdess(toys, tmp_path):
    def make(actors=(1, 2), inside=SPEECH):
        for actor in actors:
            for name in names(actor):
                toys.write_wav(tmp_path / "RAVDESS" / inside / f"Actor_{actor:02d}" / name, seconds=0.03)
        return tmp_path / "RAVDESS"

    return make


# name, emotion, category, intensity, EIS, gender, statement, repetition
CHECKED_BY_HAND = [
    ("03-01-01-01-01-01-01", "neutral", "neutral", "normal", 0.0, "M", "01", "01"),
    ("03-01-01-01-02-02-02", "neutral", "neutral", "normal", 0.0, "F", "02", "02"),
    ("03-01-02-01-01-02-01", "calm", "neutral", "normal", 0.0, "M", "01", "02"),
    ("03-01-02-02-01-01-02", "calm", "neutral", "strong", 0.0, "F", "01", "01"),
    ("03-01-03-01-02-01-01", "happy", "joy", "normal", 2.0, "M", "02", "01"),
    ("03-01-03-02-02-02-02", "happy", "joy", "strong", 3.0, "F", "02", "02"),
    ("03-01-04-02-01-01-01", "sad", "sadness", "strong", 3.0, "M", "01", "01"),
    ("03-01-05-01-01-02-02", "angry", "anger", "normal", 2.0, "F", "01", "02"),
    ("03-01-06-02-02-01-01", "fearful", "fear", "strong", 3.0, "M", "02", "01"),
    ("03-01-07-01-01-01-02", "disgust", "disgust", "normal", 2.0, "F", "01", "01"),
    ("03-01-08-02-02-02-01", "surprised", "surprise", "strong", 3.0, "M", "02", "02"),
]


@pytest.mark.parametrize("inside", [SPEECH, SPEECH.lower(), ""])
def test_the_contract_of_the_manifests(prepare, ravdess, tmp_path, inside):
    assert prepare("ravdess", ravdess(inside=inside), tmp_path / "out", *PARTIAL) == 0
    supervisions = read_manifests(tmp_path / "out", "ravdess")
    assert len(supervisions) == 120
    for name, emotion, category, intensity, eis, gender, statement, repetition in CHECKED_BY_HAND:
        supervision = supervisions[f"ravdess-{name}"]
        custom = supervision.custom
        assert (supervision.speaker, supervision.gender) == (name[-2:], gender)
        assert (custom["emotion"], custom["esc"], custom["intensity"], custom["eis"]) == (
            emotion,
            category,
            intensity,
            eis,
        )
        assert (custom["text_id"], custom["repetition"]) == (statement, repetition)
        assert supervision.language == "English" and "split" not in custom


def test_a_whole_copy_needs_no_option_and_a_partial_one_is_told_what_it_lacks(prepare, refused, ravdess, tmp_path):
    corpus = ravdess(range(1, 25))
    assert prepare("ravdess", corpus, tmp_path / "out") == 0
    card = read_json(tmp_path / "out" / "ravdess_card.json")
    assert card["utterances"] == 1440 and card["counts"]["gender"] == {"F": 720, "M": 720}
    (corpus / SPEECH / "Actor_07" / "03-01-05-01-01-02-07.wav").unlink()
    sentence = refused("ravdess", corpus)
    assert "1439 utterances found" in sentence and "--partial true" in sentence
    assert "191 of 192 with the label angry" in sentence and "59 of 60 with the speaker 07" in sentence


def test_a_clip_that_is_there_twice(refused, ravdess, toys):
    corpus = ravdess([1])
    toys.write_wav(corpus / SPEECH / "Actor_01" / "03-01-05-01-01-01-01.WAV", seconds=0.03)
    assert "03-01-05-01-01-01-01 occurs a second time" in refused("ravdess", corpus, *PARTIAL)


def test_songs_and_videos_are_counted_and_left_out(prepare, ravdess, toys, tmp_path, capsys):
    corpus = ravdess()
    actor = corpus / SPEECH / "Actor_01"
    toys.write_wav(actor / "03-02-03-01-01-01-01.wav")
    (actor / "01-01-03-01-01-01-01.mp4").write_bytes(b"pictures")
    (actor / "02-02-03-01-01-01-01.mp4").write_bytes(b"pictures")
    assert prepare("ravdess", corpus, tmp_path / "out", *PARTIAL) == 0
    stamp = read_json(tmp_path / "out" / "stage.json")
    assert stamp["dropped"] == {
        "song": ["03-02-03-01-01-01-01.wav"],
        "video": ["01-01-03-01-01-01-01.mp4", "02-02-03-01-01-01-01.mp4"],
    }
    assert (stamp["in"], stamp["out"]) == (123, 120)
    assert "2 dropped: video" in capsys.readouterr().err


def test_the_songs_archive_beside_the_speech_is_not_read(prepare, ravdess, toys, tmp_path):
    corpus = ravdess()
    toys.write_wav(corpus / "Audio_Song_Actors_01-24" / "Actor_01" / "03-02-03-01-01-01-01.wav")
    assert prepare("ravdess", corpus, tmp_path / "out", *PARTIAL) == 0
    assert len(read_manifests(tmp_path / "out", "ravdess")) == 120


def test_stereo_clips_and_identical_ones_are_reported(prepare, ravdess, toys, tmp_path, capsys):
    corpus = ravdess()
    actor = corpus / SPEECH / "Actor_02"
    assert prepare("ravdess", corpus, tmp_path / "before", *PARTIAL) == 0
    shown = capsys.readouterr().err
    assert "stereo clips" not in shown and "same recording" not in shown
    toys.write_wav(actor / "03-01-02-01-01-01-02.wav", seconds=0.03, rate=48000, channels=2)
    shutil.copy(actor / "03-01-03-01-02-01-02.wav", actor / "03-01-03-01-02-02-02.wav")
    assert prepare("ravdess", corpus, tmp_path / "out", *PARTIAL) == 0
    shown = capsys.readouterr().err
    assert "stereo clips, to be mixed down: 1 (03-01-02-01-01-01-02.wav)" in shown
    assert "03-01-03-01-02-01-02.wav and 03-01-03-01-02-02-02.wav are the same recording, byte for byte" in shown
    assert len(read_manifests(tmp_path / "out", "ravdess")) == 120
    card = read_json(tmp_path / "out" / "ravdess_card.json")
    assert card["counts"]["sampling_rate"] == {"16000": 119, "48000": 1}


# --- Bad input


@pytest.mark.parametrize(
    "name, words",
    [
        ("03-01-05-01-01-01.wav", "is not named by seven codes"),
        ("03-01-05-01-01-01-01-01.wav", "is not named by seven codes"),
        ("03-01-05-01-01-01-1.wav", "is not named by seven codes"),
        ("03-01-05-01-01-01-٠١.wav", "is not named by seven codes"),
        ("03_01_05_01_01_01_01.wav", "is not named by seven codes"),
        ("angry.wav", "is not named by seven codes"),
        ("04-01-05-01-01-01-01.wav", "the modality code 04 is not in 01 to 03"),
        ("03-03-05-01-01-01-01.wav", "the channel code 03 is not in 01 to 02"),
        ("03-01-09-01-01-01-01.wav", "the emotion code 09 is not in 01 to 08"),
        ("03-01-00-01-01-01-01.wav", "the emotion code 00 is not in 01 to 08"),
        ("03-01-05-03-01-01-01.wav", "the intensity code 03 is not in 01 to 02"),
        ("03-01-05-01-03-01-01.wav", "the statement code 03 is not in 01 to 02"),
        ("03-01-05-01-01-03-01.wav", "the repetition code 03 is not in 01 to 02"),
        ("03-01-05-01-01-01-25.wav", "the actor code 25 is not in 01 to 24"),
        ("03-01-01-02-01-01-01.wav", "is strong neutral"),
        ("03-01-05-01-01-01-02.wav", "is named after actor 02; move it to Actor_02"),
    ],
)
def test_names_that_are_wrong(refused, ravdess, toys, name, words):
    clip = toys.write_wav(ravdess([1]) / SPEECH / "Actor_01" / name)
    sentence = refused("ravdess", clip.parents[2], *PARTIAL)
    assert sentence.startswith(f"{clip}: ") and words in sentence


@given(
    st.one_of(
        st.text(), st.from_regex(r"\d{2}(-\d{2}){6}"), st.from_regex(r"0[0-3](-0[0-9]){5}-[0-2][0-9]", fullmatch=True)
    )
)
def test_any_name_is_parsed_or_refused_in_one_sentence(toys, stem):
    clip = Path("Actor_01") / f"{stem.replace('/', '')}.wav"
    try:
        name = toys.script("ravdess").parse_name(clip)
    except InputError as error:
        assert str(error).startswith(f"{clip}: ") and str(error).endswith(".")
    else:
        assert "-".join(name) == clip.stem and 1 <= int(name.emotion) <= 8 and 1 <= int(name.actor) <= 24


@pytest.mark.parametrize("folder", ["Actor_25", "Actor_1", "actor_02", "songs"])
def test_folders_that_are_no_actors(refused, ravdess, folder):
    corpus = ravdess([1])
    (corpus / SPEECH / folder).mkdir()
    assert refused("ravdess", corpus, *PARTIAL).startswith(f"{corpus / SPEECH / folder}: is not an actor of RAVDESS")


def test_folders_that_are_missing_empty_too_high_or_too_low(refused, ravdess, tmp_path):
    corpus = ravdess([1])
    (tmp_path / "empty").mkdir()
    assert "there is no such folder" in refused("ravdess", tmp_path / "missing")
    assert "the folder is empty" in refused("ravdess", tmp_path / "empty")
    assert f"too high, give {corpus} instead" in refused("ravdess", tmp_path)
    assert "is too low" in refused("ravdess", corpus / SPEECH / "Actor_01")


@pytest.mark.parametrize("content, words", [(b"", "the file is empty"), (b"no audio at all", "is not audio")])
def test_audio_that_cannot_be_used(refused, ravdess, content, words):
    clip = ravdess([1]) / SPEECH / "Actor_01" / "03-01-05-01-01-01-01.wav"
    clip.write_bytes(content)
    sentence = refused("ravdess", clip.parents[2], *PARTIAL)
    assert sentence.startswith(f"{clip}: ") and words in sentence


# --- The real clips


def test_the_real_clips(samples, prepare, tmp_path, capsys):
    assert prepare("ravdess", samples("RAVDESS"), tmp_path / "out") == 0
    shown = capsys.readouterr().err
    assert "stereo clips, to be mixed down: 5 (" in shown
    assert "03-01-03-01-02-01-07.wav and 03-01-03-01-02-02-07.wav are the same recording" in shown
    assert shown.count("same recording") == 1
    card = read_json(tmp_path / "out" / "ravdess_card.json")
    assert card["utterances"] == 1440
    assert card["counts"]["emotion"] == {emotion: 96 if emotion == "neutral" else 192 for emotion in sorted(EMOTIONS)}
    assert card["counts"]["speaker"] == {f"{actor:02d}": 60 for actor in range(1, 25)}
    assert card["counts"]["gender"] == {"F": 720, "M": 720}
    assert card["counts"]["eis"] == {"0.0": 288, "2.0": 576, "3.0": 576}
