"""prepare_msp_podcast.py: the letters, dominance, parts, unknown speakers, releases, and what it refuses."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_manifests import PARTIAL, change, read_manifests

from speecheq.common.errors import InputError
from speecheq.common.files import read_json

HEADING = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
# line without its first part, then what it means: part, label, category, EIS (1 + (dominance - 1) / 2), speaker, gender
LINES = [
    ("0001_0008.wav,N,2.2,4.0,3.0,30,Male,Test1", ("test", "neutral", "neutral", 2.0, "30", "M")),
    ("0001_0009.wav,A,6.5,1.5,7.0,39,Male,Train", ("train", "angry", "anger", 4.0, "39", "M")),
    ("0002_0001.wav,C,3.0,2.0,1.0,41,Female,Train", ("train", "contempt", "disgust", 1.0, "41", "F")),
    ("0002_0002.wav,D,3.0,2.0,4.0,41,Female,Train", ("train", "disgust", "disgust", 2.5, "41", "F")),
    ("0003_0001.wav,H,5.5,7.0,,Unknown,Unknown,Train", ("train", "happy", "joy", -1, "unknown-0003", None)),
    ("0004_0001.wav,S,2.0,2.0,2.0,50,Male,Development", ("dev", "sad", "sadness", 1.5, "50", None)),
    ("0004_0002.wav,U,2.0,2.0,2.0,50,Female,Development", ("dev", "surprise", "surprise", 1.5, "50", None)),
    ("0005_0001.wav,F,2.0,2.0,2.0,60,Female,Test2", ("test2", "fear", "fear", 1.5, "60", "F")),
    ("0006_0001.wav,O,2.0,2.0,2.0,70,Female,Train", None),
    ("0006_0002_0001.wav,X,2.0,2.0,2.0,70,Female,Test1", None),
]


@pytest.fixture
def podcast(toys, tmp_path):
    corpus = tmp_path / "MSP-PODCAST"
    (corpus / "Labels").mkdir(parents=True)
    lines = [f"MSP-PODCAST_{line}" for line, _ in LINES]
    (corpus / "Labels/labels_consensus.csv").write_text("\n".join([HEADING, *lines]), encoding="utf-8")
    for line in lines:
        toys.write_wav(corpus / "Audios" / line.split(",")[0])
    toys.write_wav(corpus / "Audios" / "MSP-PODCAST_test3_0001.wav")
    return corpus


def table_of(corpus):
    return corpus / "Labels" / "labels_consensus.csv"


@pytest.mark.parametrize("corpus, parts", [("msp_podcast", ("train", "dev", "test")), ("msp_podcast_test2", ("test",))])
def test_the_contract_of_the_manifests(prepare, podcast, tmp_path, corpus, parts, capsys):
    assert prepare(corpus, podcast, tmp_path / "out", *PARTIAL) == 0
    found = {}
    for part in parts:
        found.update(read_manifests(tmp_path / "out", corpus, part))
    test2 = corpus.endswith("test2")
    expected = {line: meaning for line, meaning in LINES if meaning and (meaning[0] == "test2") == test2}
    assert len(found) == len(expected)
    for line, (part, label, category, eis, speaker, gender) in expected.items():
        name, _, activation, valence, *_ = line.split(",")
        supervision = found[f"msp_podcast-{name.removesuffix('.wav')}"]
        assert (supervision.speaker, supervision.gender, supervision.language) == (speaker, gender, "English")
        custom = supervision.custom
        assert (custom["emotion"], custom["esc"], custom["split"]) == (label, category, "test" if test2 else part)
        assert custom["eis"] == pytest.approx(eis)
        assert (custom["activation"], custom["valence"]) == (float(activation), float(valence))
        assert custom["podcast"] == name[:4]
    dropped = read_json(tmp_path / "out" / "stage.json")["dropped"]
    if test2:
        assert {reason: len(names) for reason, names in dropped.items()} == {"the other parts, another corpus": 9}
    else:
        assert dropped == {
            "the part Test2, another corpus": ["msp_podcast-0005_0001"],
            "no agreement": ["msp_podcast-0006_0002_0001"],
            "other emotion": ["msp_podcast-0006_0001"],
        }
        shown = capsys.readouterr().err
        assert "1 segments have no dominance" in shown and "1 segments have no known speaker" in shown
    card = read_json(tmp_path / "out" / f"{corpus}_card.json")
    assert card["scale"] == [1.0, 7.0] and card["neutral_eis"] == "corpus" and card["test_split"] == "test"


def test_the_releases(refused, podcast, toys, tmp_path, capsys):
    sentence = refused("msp_podcast", podcast)
    assert sentence.startswith(f"{table_of(podcast)}: has 10 lines with labels, the releases have 149307 (1.11)")
    script = toys.script("msp_podcast")
    for lines in script.RELEASES:
        script.check_release(table_of(podcast), lines, partial=False)
    with pytest.raises(InputError, match="has 149306 lines"):
        script.check_release(table_of(podcast), 149306, partial=False)


def test_audio_that_is_missing(prepare, refused, podcast, tmp_path, monkeypatch):
    (podcast / "Audios" / "MSP-PODCAST_0001_0008.wav").unlink()
    assert prepare("msp_podcast", podcast, tmp_path / "out", *PARTIAL) == 0
    assert read_json(tmp_path / "out" / "stage.json")["dropped"]["label without audio"] == ["0001_0008"]
    (podcast / "Audios").rename(podcast / "Audio")
    assert prepare("msp_podcast", podcast, tmp_path / "out2", *PARTIAL) == 0
    (podcast / "Audio").rename(podcast / "Sound")
    assert refused("msp_podcast", podcast, *PARTIAL).startswith(f"{podcast}/Audios: there is no such folder")


def test_a_whole_table_without_all_of_its_audio(podcast, toys):
    script = toys.script("msp_podcast")
    script.RELEASES[10] = "10"
    (podcast / "Audios" / "MSP-PODCAST_0001_0008.wav").unlink()
    _, find = script.PARTS[""]
    with pytest.raises(InputError, match="has no audio for 1 of 10 lines of .* \\(0001_0008 for one\\)"):
        list(find(podcast, False, None))


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("EmoDom", "Dominance", "line 1: there is no column 'EmoDom'"),
        ("MSP-PODCAST_0001_0008", "clip1", "line 2: 'clip1.wav' is not named like MSP-PODCAST_0001_0008.wav"),
        (",N,", ",Q,", "line 2: the EmoClass 'Q' is not one of A, C"),
        ("Test1", "Test9", "line 2: the Split_Set 'Test9' is not one of Train, Development"),
        ("4.0,3.0", "4.0,8.0", "line 2: expected a value from 1 to 7, found '8.0'"),
        ("4.0,3.0", "4.0,high", "line 2: expected a value from 1 to 7, found 'high'"),
        ("0001_0009", "0001_0008", "line 3: MSP-PODCAST_0001_0008.wav occurs a second time, first in"),
        (",Male,Test1", ",Test1", "line 2: expected 8 columns, as in line 1, found 7"),
    ],
)
def test_lines_that_are_wrong(refused, podcast, old, new, words):
    change(table_of(podcast), old, new)
    assert refused("msp_podcast", podcast, *PARTIAL).startswith(f"{table_of(podcast)}, {words}")


def test_test3_has_no_labels(prepare, podcast, tmp_path):
    with open(table_of(podcast), "a", encoding="utf-8") as stream:
        stream.write("\nMSP-PODCAST_test3_0001.wav,,,,,,,Test3")
    assert prepare("msp_podcast", podcast, tmp_path / "out", *PARTIAL) == 0
    assert read_json(tmp_path / "out" / "stage.json")["out"] == 7


def test_folders_that_are_not_the_corpus(refused, podcast, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "the folder is empty" in refused("msp_podcast", tmp_path / "empty")
    assert f"too high, give {podcast} instead" in refused("msp_podcast", tmp_path)
    assert f"too low inside the corpus, give {podcast}" in refused("msp_podcast", podcast / "Labels")


PIECES = st.sampled_from(
    [*(f"MSP-PODCAST_{line}" for line, _ in LINES), ",", '"', "nan", "\n", "\r", "\x00", "9" * 400]
)


@settings(max_examples=60)
@given(st.lists(st.one_of(PIECES, st.text(max_size=9)), max_size=12), st.sampled_from(["utf-8", "utf-16"]))
def test_any_table_is_read_or_refused_in_one_sentence(toys, tmp_path_factory, pieces, encoding):
    table = tmp_path_factory.getbasetemp() / "msp_podcast.csv"
    table.write_bytes("\n".join([HEADING, *pieces]).encode(encoding, "replace"))
    script = toys.script("msp_podcast")
    try:
        for segment, utterance in script.read_labels(table).items():
            assert utterance.id.endswith(segment) and utterance.gender in ("F", "M", None)
    except InputError as error:
        assert re.match(rf"{re.escape(str(table))}(, line \d+: |: holds no segment)", str(error))
        assert str(error).endswith(".") and "\n" not in str(error)
