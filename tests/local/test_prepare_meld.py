"""prepare_meld.py: three tables, clips of several formats, known faults of the release, and what it refuses."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from other_formats import encode, tone
from prepared_manifests import PARTIAL, change, read_manifests

from speecheq.common.errors import InputError
from speecheq.common.files import read_json

HEADING = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
# part, line, then what it means: clip, speaker, gender
LINES = [
    (
        "train",
        '1,"Oh my God, he’s lost it.",Phoebe,sadness,negative,0,0,4,7,"00:20:57,256","00:21:00,049"',
        ("dia0_utt0", "Phoebe", "F"),
    ),
    ("train", '2,"""Wanted."" Nice!",Ross,joy,positive,0,1,4,7,"0:0:1","0:0:2"', ("dia0_utt1", "Ross", "M")),
    ("train", '3,What?,Mona,surprise,negative,125,2,4,7,"0:0:1","0:0:2"', ("dia125_utt2", "Mona", None)),
    ("train", '4,Yeah?,Chandler,neutral,neutral,125,3,4,7,"0:0:1","0:0:2"', None),
    ("dev", '5,Hey!,All,anger,negative,0,0,4,7,"0:0:1","0:0:2"', ("dia0_utt0", "All", None)),
    ("dev", '6,Hey!,Joey,neutral,neutral,110,7,4,7,"0:0:1","0:0:2"', None),
    ("test", '7,Ew!,Rachel,disgust,negative,0,0,4,7,"0:0:1","0:0:2"', ("dia0_utt0", "Rachel", "F")),
    ("test", '8,No!,Monica,fear,negative,108,0,4,7,"0:0:1","0:0:2"', ("dia108_utt0", "Monica", "F")),
]


def table_of(corpus, part):
    """As in the release: that of train is in its archive."""
    return corpus / ("train/train_sent_emo.csv" if part == "train" else f"{part}_sent_emo.csv")


@pytest.fixture
def meld(toys, tmp_path):
    corpus = tmp_path / "MELD.Raw"
    for part, folder in FOLDERS.items():
        table_of(corpus, part).parent.mkdir(parents=True, exist_ok=True)
        lines = [line for one, line, _ in LINES if one == part]
        table_of(corpus, part).write_text("\r\n".join([HEADING, *lines, ""]), encoding="utf-8")
        for one, _, meaning in LINES:
            if one == part and meaning:
                toys.write_wav(corpus / part / folder / f"{meaning[0]}.wav")
    (corpus / "train/train_splits/dia125_utt3.mp4").write_bytes(b"no video")
    toys.write_wav(corpus / "test" / FOLDERS["test"] / "final_videos_testdia108_utt0.wav", seconds=0.4)
    return corpus


def test_the_contract_of_the_manifests(prepare, meld, tmp_path, capsys):
    assert prepare("meld", meld, tmp_path / "out", *PARTIAL) == 0
    assert "1 clips of the test part are those that were cut anew" in capsys.readouterr().err
    found = {}
    for part in FOLDERS:
        found.update(read_manifests(tmp_path / "out", "meld", part))
    assert len(found) == 6
    for part, line, meaning in LINES:
        if not meaning:
            continue
        clip, speaker, gender = meaning
        supervision, custom = found[f"meld-{part}-{clip}"], found[f"meld-{part}-{clip}"].custom
        assert (supervision.speaker, supervision.gender, supervision.language) == (speaker, gender, "English")
        assert custom["emotion"] == custom["esc"] and custom["esc"] in line and custom["eis"] == -1
        dialogue, turn = re.findall("[0-9]+", clip)
        assert (custom["split"], custom["dialogue"], custom["begin"]) == (part, f"{part}-{dialogue}", int(turn))
        assert custom["sentiment"] in line
    assert found["meld-train-dia0_utt0"].text == "Oh my God, he’s lost it."
    assert found["meld-train-dia0_utt1"].text == '"Wanted." Nice!'
    assert found["meld-test-dia108_utt0"].duration == pytest.approx(0.4)
    stamp = read_json(tmp_path / "out" / "stage.json")
    assert stamp["dropped"] == {
        "corrupt in the release": ["train dia125_utt3"],
        "not in the release": ["dev dia110_utt7"],
    }
    card = read_json(tmp_path / "out" / "meld_card.json")
    assert card["test_split"] == "test" and not card["has_transcripts"]


def test_clips_as_the_release_has_them(prepare, meld, tmp_path):
    (meld / "dev/dev_splits_complete/dia0_utt0.wav").unlink()
    encode(meld / "dev/dev_splits_complete/dia0_utt0.mp4", "aac", tone(0.5), picture=True)
    assert prepare("meld", meld, tmp_path / "out", *PARTIAL) == 0
    found = read_manifests(tmp_path / "out", "meld", "dev")["meld-dev-dia0_utt0"]
    assert found.duration == pytest.approx(0.5, abs=0.1)


def test_without_pyav_the_release_is_refused_in_one_sentence(refused, meld, monkeypatch):
    monkeypatch.setattr("speecheq.corpora.decoding.can_decode", lambda: False)
    (meld / "dev/dev_splits_complete/dia0_utt0.wav").rename(meld / "dev/dev_splits_complete/dia0_utt0.mp4")
    (meld / "dev/dev_splits_complete/dia0_utt0.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    sentence = refused("meld", meld, *PARTIAL)
    assert "dia0_utt0.mp4: is MPEG-4" in sentence and "install the extra av" in sentence


def test_the_official_counts_and_parts(refused, meld, toys, tmp_path):
    sentence = refused("meld", meld)
    assert "6 utterances found, 1 left out (corrupt in the release), 1 left out (not in the release)" in sentence
    assert "MELD has 13706" in sentence and "1 of 1607 with the label anger" in sentence
    counts = toys.script("meld").MELD.count_by
    assert sum(counts["label"].values()) == sum(counts["split"].values()) == 13706
    table_of(meld, "dev").unlink()
    assert "MELD.Raw: lacks the part dev; unpack it" in refused("meld", meld)


def test_clips_and_lines_without_counterpart(prepare, meld, toys, tmp_path):
    (meld / "train/train_splits/dia125_utt2.wav").unlink()
    toys.write_wav(meld / "train/train_splits/dia66_utt9.wav")
    assert prepare("meld", meld, tmp_path / "out", *PARTIAL) == 0
    dropped = read_json(tmp_path / "out" / "stage.json")["dropped"]
    assert dropped["audio without line"] == ["dia66_utt9"] and dropped["line without audio"] == ["dia125_utt2"]


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("Dialogue_ID", "Dialogue", "line 1: there is no column 'Dialogue_ID'"),
        ("anger", "rage", "line 2: the emotion 'rage' is not one of anger, disgust"),
        ("negative,0,0", "negative,zero,0", "line 2: expected numbers of a dialogue and an utterance, found 'zero'"),
        ("negative,0,0", "negative,0", "line 2: expected 11 columns, as in line 1, found 10"),
        ("110,7", "0,0", "line 3: dia0_utt0 occurs a second time, first in"),
        ("Hey!,All", '"Hey" !,All', "line 2: cannot be split into fields"),
    ],
)
def test_lines_that_are_wrong(refused, meld, old, new, words):
    table = table_of(meld, "dev")
    change(table, old, new)
    assert refused("meld", meld, *PARTIAL).startswith(f"{table}, {words}")


def test_folders_that_are_not_the_corpus(refused, meld, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "the folder is empty" in refused("meld", tmp_path / "empty")
    assert f"too high, give {meld} instead" in refused("meld", tmp_path)
    assert f"too low inside the corpus, give {meld}" in refused("meld", meld / "dev")


PIECES = st.sampled_from([HEADING, LINES[0][1], LINES[1][1], ",", '"', '""', "\r", "\n", "\ufeff", "\x00", "é", "dia"])


@settings(max_examples=60)
@given(st.lists(st.one_of(PIECES, st.text(max_size=9)), max_size=12), st.sampled_from(["utf-8", "utf-16", "latin-1"]))
def test_any_table_is_read_or_refused_in_one_sentence(toys, tmp_path_factory, pieces, encoding):
    table = tmp_path_factory.getbasetemp() / "meld.csv"
    table.write_bytes("\n".join([HEADING, *pieces]).encode(encoding, "replace"))
    script = toys.script("meld")
    try:
        for clip, utterance in script.read_part("dev", table).items():
            assert re.fullmatch(r"dia[0-9]+_utt[0-9]+", clip) and utterance.label in script.LABELS
    except InputError as error:
        assert re.match(rf"{re.escape(str(table))}(, line \d+: |: holds no utterance)", str(error))
        assert str(error).endswith(".") and "\n" not in str(error)
