"""What ``speecheq finetune`` makes of tables: labels, folds, and a sentence for whatever is wrong."""

import csv
import itertools

import pytest
import yaml

from speecheq.common.errors import InputError
from speecheq.inference.own_data import labels as own_labels
from speecheq.inference.own_data.table import check_table, corpus_name


@pytest.fixture
def table(tmp_path, toys):
    """``table(rows, columns, name)``: writes a table and the clips that it names; returns its path."""

    def write(rows, columns=("path", "label", "speaker"), name="Own clips.csv", audio=True):
        path = tmp_path / "own" / name
        path.parent.mkdir(exist_ok=True)
        with open(path, "w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([columns, *rows])
        for row in rows if audio else ():
            toys.write_wav(path.parent / row[0], 0.05)
        return path

    return write


def clips(labels=("happy", "Sad"), speakers=("a", "b", "c"), each=4):
    return [
        [f"{label}-{speaker}-{number}.wav", label, speaker]
        for label, speaker, number in itertools.product(labels, speakers, range(each))
    ]


def test_words_for_emotions_need_no_labels_file(table, tmp_path):
    found = check_table(table(clips()), tmp_path / "made")
    assert found.name == "own_clips" and found.clips == 24 and found.classes == {"happy": 12, "Sad": 12}
    assert found.protocol == "speaker" and not found.notes and not found.intensity and not found.gender
    content = yaml.safe_load((tmp_path / "made" / "labels.yaml").read_text())
    assert content["labels"] == {"happy": "joy", "Sad": "sadness"} and content["columns"]["emotion"] == "label"


@pytest.mark.parametrize(
    "name, expected", [("My data.csv", "my_data"), ("2024-calls.tsv", "own_2024_calls"), ("Übung.csv", "bung")]
)
def test_names_of_corpora(tmp_path, name, expected):
    assert corpus_name(tmp_path / name) == expected


def test_unknown_words_are_asked_for(table, tmp_path):
    with pytest.raises(InputError, match=r"the labels W, X are no names of emotions .*labels: \{W: EMOTION, X: "):
        check_table(table(clips(("W", "X"))), tmp_path / "made")


def test_the_labels_file_of_the_user_counts(table, tmp_path):
    path = table(clips(("W", "X", "no")))
    (path.parent / "labels.yaml").write_text(
        "language: German\nlabels: {W: anger, X: boredom, no: null}\ncolumns: {emotion: label}\n"
    )
    found = check_table(path, tmp_path / "made")
    assert found.classes == {"W": 12, "X": 12}
    assert any("12 clips are left out (labels.yaml leaves the label no out)" in note for note in found.notes)


def test_few_speakers_many_speakers_and_none(table, tmp_path):
    two = check_table(table(clips(speakers=("a", "b"))), tmp_path / "two")
    assert two.protocol == "random5" and "with 2 speakers" in two.notes[-1] and "too high" in two.notes[-1]
    many = check_table(table(clips(speakers="abcdefg")), tmp_path / "many")
    assert many.protocol == "speaker5" and not many.notes
    none = check_table(table([row[:2] for row in clips()], ("path", "label")), tmp_path / "none")
    assert none.protocol == "random5" and "names no speakers" in none.notes[0] and "too high" in none.notes[-1]
    assert none.clips == 24, "the copy of the table has a speaker"


def test_small_classes_are_named_or_left_out(table, tmp_path):
    rows = [*clips(), *clips(("angry",), ("a",), 3), ["bored.wav", "bored", "a"]]
    found = check_table(table(rows), tmp_path / "made")
    assert found.classes == {"happy": 12, "Sad": 12, "angry": 3} and found.clips == 27
    assert "the class of one clip is left out" in found.notes[0] and "bored" in found.notes[0]
    assert any("fewer than 10 clips: angry (3)" in note for note in found.notes)
    with pytest.raises(InputError, match="all 12 clips are of one class, happy"):
        check_table(table(clips(("happy",))), tmp_path / "one")


def test_missing_audio_is_left_out_and_counted(table, tmp_path):
    path = table(clips())
    (path.parent / "happy-a-0.wav").unlink()
    found = check_table(path, tmp_path / "made")
    assert found.clips == 23 and any("1 clips are left out (audio missing)" in note for note in found.notes)
    with pytest.raises(InputError, match="all 24 audio files are missing"):
        check_table(table([[f"gone/{row[0]}", *row[1:]] for row in clips()], audio=False), tmp_path / "none")


def test_faults_name_the_line_of_the_users_table(table, tmp_path):
    rows = clips()
    rows[3][2] = ""
    path = table(rows)
    with pytest.raises(InputError, match=f"{path.name}, line 5: the speaker is empty"):
        check_table(path, tmp_path / "made")
    with pytest.raises(InputError, match="line 1: there is no column emotion or label; the columns are path, mood"):
        check_table(table([row[:2] for row in clips()], ("path", "mood")), tmp_path / "made")


def test_intensity_gender_and_splits_are_taken(table, tmp_path):
    rows = [
        [*row, "strong" if number % 2 else "weak", "FM"[row[2] == "a"], "test" if row[2] == "c" else "train"]
        for number, row in enumerate(clips())
    ]
    columns = ("path", "label", "speaker", "intensity", "gender", "split")
    found = check_table(table(rows, columns), tmp_path / "made")
    assert found.intensity and found.gender and found.protocol == "official" and not found.notes
    shared = [[*row[:5], "test" if row[0].endswith("-0.wav") else "train"] for row in rows]
    found = check_table(table(shared, columns), tmp_path / "shared")
    assert "3 of the 3 speakers of the test part are in training too" in found.notes[-1]


def test_intensities(tmp_path):
    def graded(*values):
        return own_labels.content_for(tmp_path / "t.csv", {}, ["joy"], values)

    assert graded("2", "4.5", "1,5")["scale"] == [1.5, 4.5] and "levels" not in graded()
    assert graded("High", "low")["levels"] == ["low", "medium", "High"]
    with pytest.raises(InputError, match="neither numbers nor known words; say in .*labels.yaml"):
        graded("huge", "tiny")
