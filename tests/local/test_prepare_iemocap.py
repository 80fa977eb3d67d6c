"""prepare_iemocap.py: who speaks, which label, which dominance; and every fault of its tables as one sentence."""

import os
import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_manifests import PARTIAL, read_manifests

from speecheq.common.errors import InputError
from speecheq.common.files import read_json

HEADING = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
# Ten lines of evaluation as the release writes them, and by hand what each of them means:
# speaker, label, SEQM category, EIS (1 + (dominance - 1) * 3 / 4 with the dominance kept within 1 to 5), V, A, D.
TEN_LINES = [
    (
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]",
        ("Ses01_F", "neu", "neutral", 2.125, 2.5, 2.5, 2.5),
    ),
    (
        "[7.5712 - 10.4750]\tSes01F_impro01_M000\tneu\t[2.5000, 2.5000, 1.0000]",  # a man in a dialog named F
        ("Ses01_M", "neu", "neutral", 1.0, 2.5, 2.5, 1.0),
    ),
    (
        "[140.2250 - 145.6000]\tSes01F_impro05_F019\tang\t[1.5000, 4.0000, 4.5000]",
        ("Ses01_F", "ang", "anger", 3.625, 1.5, 4.0, 4.5),
    ),
    (
        "[39.8900 - 43.5872]\tSes01F_impro01_M011\tang\t[1.5000, 4.6667, 5.5000]",  # above the scale
        ("Ses01_M", "ang", "anger", 4.0, 1.5, 4.6667, 5.5),
    ),
    (
        "[19.2900 - 20.7875]\tSes02F_script03_1_M042\thap\t[4.0000, 3.0000, 3.0000]",
        ("Ses02_M", "hap", "joy", 2.5, 4.0, 3.0, 3.0),
    ),
    (
        "[50.1 - 52.0]\tSes02M_impro03_F001\texc\t[4.5000, 4.0000, 4.0000]",  # a woman in a dialog named M
        ("Ses02_F", "exc", "joy", 3.25, 4.5, 4.0, 4.0),
    ),
    (
        "[1.0000 - 9.9999]\tSes03M_impro02_M007\tsad\t[1.5000, 1.5000, 0.5000]",  # below the scale
        ("Ses03_M", "sad", "sadness", 1.0, 1.5, 1.5, 0.5),
    ),
    (
        "[0.0000 - 2.3000]\tSes04M_script02_2_F020\tsad\t[2.0000, nan, nan]",
        ("Ses04_F", "sad", "sadness", -1, 2.0, None, None),
    ),
    (
        "[310.7200 - 312.1500]\tSes05M_script01_1b_F013\tneu\t[3.0000, 2.0000]",  # which of the three is missing?
        ("Ses05_F", "neu", "neutral", -1, None, None, None),
    ),
    (
        "[4.2000 - 5.1000]\tSes05F_impro07_M101\thap\t[4.0000, , 2.0000]",
        ("Ses05_M", "hap", "joy", 1.75, 4.0, None, 2.0),
    ),
]
ANNOTATORS = (
    "C-E2:\tNeutral;\t()\nC-E4:\tAnger; Frustration;\t(as in Ses01F_impro01_F000)\nC-F1:\tNeutral;\t(curious)\n"
    "A-E3:\tval 3; act 2; dom  2;\t()\nA-E4:\tval 2; act 3; dom   ;\t(mildly aggravated)\n\n"
)
# One of every label that is in none of the four classes.
LEFT_OUT = {
    "fru": "frustration",
    "fea": "fear",
    "sur": "surprise",
    "dis": "disgust",
    "oth": "other emotion",
    "xxx": "no agreement",
}


def dialog_of(utterance):
    return utterance.rpartition("_")[0]


def tables(folder, utterance):
    """The evaluation, the transcript and the audio file that are this utterance's."""
    session, dialog = folder / f"Session{utterance[4]}", dialog_of(utterance)
    return (
        session / "dialog" / "EmoEvaluation" / f"{dialog}.txt",
        session / "dialog" / "transcriptions" / f"{dialog}.txt",
        session / "sentences" / "wav" / dialog / f"{utterance}.wav",
    )


def make_iemocap(toys, folder, lines, audio=True):
    """The release's folders for these lines of evaluation; every utterance says its own name."""
    for line in lines:
        utterance = line.split("\t")[1]
        evaluation, transcript, wav = tables(folder, utterance)
        for path, heading, text in (
            (evaluation, HEADING, f"{line}\n{ANNOTATORS}"),
            (transcript, "", f"{utterance} [001.0000-002.0000]: I am {utterance}.\n"),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            heading = "" if path.is_file() else heading
            with open(path, "a", encoding="utf-8") as stream:
                stream.write(heading + text)
        if audio:
            toys.write_wav(wav, 0.1)
    return folder


@pytest.fixture
def iemocap(toys, tmp_path):
    return make_iemocap(toys, tmp_path / "IEMOCAP", [line for line, _ in TEN_LINES])


def test_ten_lines_checked_by_hand(prepare, iemocap, tmp_path, capsys):
    assert prepare("iemocap", iemocap, tmp_path / "out", *PARTIAL) == 0
    supervisions = read_manifests(tmp_path / "out", "iemocap")
    assert len(supervisions) == len(TEN_LINES)
    for line, (speaker, label, category, eis, valence, activation, dominance) in TEN_LINES:
        utterance = line.split("\t")[1]
        found = supervisions[f"iemocap-{utterance}"]
        custom = found.custom
        assert (found.speaker, found.gender) == (speaker, speaker[-1])
        assert (custom["emotion"], custom["esc"]) == (label, category)
        assert custom["eis"] == pytest.approx(eis)
        assert [custom[name] for name in ("valence", "activation", "dominance")] == [valence, activation, dominance]
        assert custom["session"] == utterance[4] and found.language == "English"
        assert found.text == f"I am {utterance}."
        assert found.duration == pytest.approx(0.1)  # of the clip, not of the dialog
        assert "split" not in custom and "text_id" not in custom
    log = capsys.readouterr().err
    assert "2 utterances have a dominance outside 1 to 5" in log
    assert "2 utterances have no dominance: their EIS is unspecified" in log
    card = read_json(tmp_path / "out" / "iemocap_card.json")
    assert card["labels"] == {"ang": "anger", "hap": "joy", "exc": "joy", "neu": "neutral", "sad": "sadness"}
    assert card["scale"] == [1.0, 5.0] and card["neutral_eis"] == "corpus" and card["has_transcripts"]


def test_other_labels_are_counted_each_with_its_reason(prepare, iemocap, toys, tmp_path):
    names = [f"Ses01F_impro02_F{number:03d}" for number in range(len(LEFT_OUT))]
    lines = [f"[1.0 - 2.0]\t{name}\t{label}\t[2.0, 2.0, 2.0]" for name, label in zip(names, LEFT_OUT)]
    make_iemocap(toys, iemocap, lines)
    assert prepare("iemocap", iemocap, tmp_path / "out", *PARTIAL) == 0
    stamp = read_json(tmp_path / "out" / "stage.json")
    assert stamp["dropped"] == {
        f"{reason} ({label})": [f"iemocap-{name}"] for name, (label, reason) in zip(names, LEFT_OUT.items())
    }
    assert (stamp["in"], stamp["out"]) == (16, 10)


def test_the_official_counts_are_asked_for(prepare, refused, iemocap, toys, tmp_path):
    sentence = refused("iemocap", iemocap)
    assert "10 utterances found, IEMOCAP has 5531 (four classes)" in sentence
    assert "2 of 1103 with the label ang" in sentence
    declared = toys.script("iemocap").IEMOCAP
    assert sum(declared.count_by["label"].values()) == sum(declared.count_by["session"].values()) == 5531
    assert prepare("iemocap", iemocap, tmp_path / "out", *PARTIAL, "--check-only") == 0


def test_a_whole_copy_needs_no_option(prepare, refused, toys, tmp_path):
    # the labels of the release in turn, dealt to sessions of its sizes: 4 s of audio under 5531 names
    declared = toys.script("iemocap").IEMOCAP.count_by
    labels = [label for label, count in declared["label"].items() for _ in range(count)]
    sessions = [session for session, count in declared["session"].items() for _ in range(count)]
    lines = [
        f"[1.0 - 2.0]\tSes0{session}F_impro{number // 1000:02d}_F{number % 1000:03d}\t{label}\t[2.0, 2.0, 2.0]"
        for number, (session, label) in enumerate(zip(sessions, labels))
    ]
    copy = tmp_path / "copy"
    clip = toys.write_wav(tmp_path / "clip.wav", 0.03)
    by_dialog = {}
    for line in lines:
        evaluation, _, wav = tables(copy, line.split("\t")[1])
        by_dialog.setdefault(evaluation, []).append(line)
        wav.parent.mkdir(parents=True, exist_ok=True)
        os.link(clip, wav)
    for evaluation, of_dialog in by_dialog.items():
        evaluation.parent.mkdir(parents=True, exist_ok=True)
        evaluation.write_text(HEADING + "\n".join(of_dialog))
    assert prepare("iemocap", copy, tmp_path / "out") == 0
    card = read_json(tmp_path / "out" / "iemocap_card.json")
    assert card["counts"]["esc"] == {"anger": 1103, "joy": 1636, "neutral": 1708, "sadness": 1084}
    wav.unlink()  # the last, a sad one of session 5
    sentence = refused("iemocap", copy)
    assert "5530 utterances found, 1 left out (evaluation without audio)" in sentence
    assert "1083 of 1084 with the label sad, 1240 of 1241 with the session 5" in sentence


def test_the_release_s_own_folder(prepare, refused, toys, tmp_path):
    make_iemocap(toys, tmp_path / "a" / "b" / "IEMOCAP_full_release", [TEN_LINES[0][0]])
    assert prepare("iemocap", tmp_path / "a" / "b", tmp_path / "out", *PARTIAL) == 0
    assert prepare("iemocap", tmp_path / "a" / "b" / "IEMOCAP_full_release", tmp_path / "out", *PARTIAL) == 0
    assert "is one level too high" in refused("iemocap", tmp_path / "a", *PARTIAL)
    assert "is too low" in refused("iemocap", tmp_path / "a" / "b" / "IEMOCAP_full_release" / "Session1", *PARTIAL)


def test_a_missing_session_is_named(prepare, refused, toys, tmp_path):
    make_iemocap(toys, tmp_path / "c", [line for line, _ in TEN_LINES if line.split("\t")[1][4] not in "24"])
    assert f"{tmp_path}/c: lacks Session2 and Session4" in refused("iemocap", tmp_path / "c")
    assert prepare("iemocap", tmp_path / "c", tmp_path / "out", *PARTIAL) == 0
    assert {s.custom["session"] for s in read_manifests(tmp_path / "out", "iemocap").values()} == {"1", "3", "5"}


def test_what_is_no_table_is_not_read(prepare, iemocap, tmp_path):
    evaluations = iemocap / "Session1" / "dialog" / "EmoEvaluation"
    (evaluations / "._Ses01F_impro01.txt").write_bytes(b"\x00\x05\x16\x07")
    for folder in ("Categorical", "Attribute", "Self-evaluation"):
        (evaluations / folder).mkdir()
        (evaluations / folder / "Ses01F_impro01_e2_cat.txt").write_text("Ses01F_impro01_F000 :Neutral state; ()\n")
    (iemocap / "Session1" / "sentences" / "wav" / "Ses01F_impro01" / "._Ses01F_impro01_F000.wav").write_bytes(b"junk")
    assert prepare("iemocap", iemocap, tmp_path / "out", *PARTIAL) == 0
    assert len(read_manifests(tmp_path / "out", "iemocap")) == 10


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.replace("curious", "blasé").encode("utf-8"),
        lambda text: text.replace("curious", "blasé").encode("latin-1"),
        lambda text: text.replace("\t", " ").encode(),
        lambda text: text.replace(HEADING, "").encode(),
        lambda text: text.rstrip("\n").encode(),
    ],
    ids=["CRLF", "BOM", "UTF-8", "Latin-1", "spaces", "no heading", "no last newline"],
)
def test_evaluations_that_are_written_otherwise_say_the_same(encode, prepare, iemocap, tmp_path):
    assert prepare("iemocap", iemocap, tmp_path / "before", *PARTIAL) == 0
    for table in iemocap.glob("Session*/dialog/EmoEvaluation/*.txt"):
        table.write_bytes(encode(table.read_text(encoding="utf-8")))
    assert prepare("iemocap", iemocap, tmp_path / "after", *PARTIAL) == 0
    assert read_manifests(tmp_path / "after", "iemocap") == read_manifests(tmp_path / "before", "iemocap")


# --- Transcripts


def test_odd_lines_of_the_transcripts(prepare, iemocap, tmp_path, capsys):
    name = "Ses01F_impro01_F000"
    _, transcript, _ = tables(iemocap, name)
    transcript.write_text(
        f"{name} [006.2901-008.2357]: Excuse me.\n"
        "M: Do you have your forms?\n"
        "F: [LAUGHTER]\n"
        f"{name} [006.2901-008.2357]: Something else.\n"
        "Ses01F_impro01_FXX0 [011.0000-011.5000]: Yeah.\n"
        "Ses01F_impro01_M000 [007.5712-010.4750]:\n",
        encoding="utf-8",
    )
    assert prepare("iemocap", iemocap, tmp_path / "out", *PARTIAL) == 0
    log = capsys.readouterr().err
    assert "3 lines of the transcriptions name no utterance, or one a second time" in log
    assert "2 utterances have no transcript" in log  # M000's is empty, M011 has no line
    texts = {name: supervision.text for name, supervision in read_manifests(tmp_path / "out", "iemocap").items()}
    assert texts[f"iemocap-{name}"] == "Excuse me."
    assert texts["iemocap-Ses01F_impro01_M000"] == texts["iemocap-Ses01F_impro01_M011"] == ""


def test_without_transcripts_texts_are_empty(prepare, iemocap, tmp_path, capsys):
    for table in iemocap.glob("Session*/dialog/transcriptions/*.txt"):
        table.unlink()
    (iemocap / "Session1" / "dialog" / "transcriptions").rmdir()
    assert prepare("iemocap", iemocap, tmp_path / "out", *PARTIAL) == 0
    assert "10 utterances have no transcript" in capsys.readouterr().err
    assert not any(supervision.text for supervision in read_manifests(tmp_path / "out", "iemocap").values())


# --- Bad input

GOOD = TEN_LINES[0][0]
EXPECTED = "expected '[start - end] utterance label [valence, activation, dominance]', found"


@pytest.mark.parametrize(
    "line, words",
    [
        (GOOD.replace("\tneu", ""), EXPECTED),
        (GOOD.replace("neu", "neu\tsad"), EXPECTED),
        (GOOD.rpartition("\t")[0], EXPECTED),
        (GOOD.rstrip("]"), EXPECTED),
        (GOOD.lstrip("["), EXPECTED),
        (GOOD.partition("\t")[2], EXPECTED),
        ("[6.2901 - 8.2357]", EXPECTED),
        (GOOD.replace("2.5000, 2.5000]", "2.5000, 77]"), "77 is no value on a scale from 1 to 5"),
        (GOOD.replace("2.5000]", "2.5000, 2.5000]"), "expected [valence, activation, dominance], found 4 values"),
        (GOOD.replace("neu", "joy"), "the label 'joy' is not one of IEMOCAP's: ang, hap, exc, neu, sad, fru, fea"),
        (GOOD.replace("neu", "NEU"), "the label 'NEU' is not one of IEMOCAP's"),
        (GOOD.replace("Ses01F", "Ses02F"), "'Ses02F_impro01_F000' is not the name of an utterance of session 1"),
        (GOOD.replace("_F000", "_X000"), "'Ses01F_impro01_X000' is not the name of an utterance of session 1"),
        (GOOD.replace("_F000", ""), "'Ses01F_impro01' is not the name of an utterance of session 1"),
        (GOOD.replace("2.5000, 2.5000, 2.5000", "good, bad, ugly"), "found 'good, bad, ugly'; correct the line"),
        (GOOD.replace("2.5000, 2.5000, 2.5000", "2.5; 2.5; 2.5"), "expected [valence, activation, dominance], found"),
        (GOOD.replace("2.5000]", "inf]"), "expected [valence, activation, dominance], found"),
        (f"{GOOD}\n{GOOD}", "the utterance Ses01F_impro01_F000 occurs a second time, first in"),
    ],
)
def test_lines_that_are_wrong(line, words, refused, iemocap):
    table, _, _ = tables(iemocap, "Ses01F_impro01_F000")
    table.write_text(table.read_text(encoding="utf-8").replace(GOOD, line), encoding="utf-8")
    number = 4 if line.count("\n") else 3
    sentence = refused("iemocap", iemocap, *PARTIAL)
    assert sentence.startswith(f"{table}, line {number}: ") and words in sentence


@pytest.mark.parametrize("content", [b"", HEADING.encode(), ANNOTATORS.encode(), GOOD.encode("utf-16"), b"\x00" * 99])
def test_a_table_that_evaluates_nothing(content, refused, iemocap):
    table, _, _ = tables(iemocap, "Ses01F_impro01_F000")
    table.write_bytes(content)
    sentence = refused("iemocap", iemocap, *PARTIAL)
    assert sentence.startswith(f"{table}: holds no line that evaluates an utterance")


def test_clips_and_evaluations_without_counterpart(prepare, refused, toys, iemocap, tmp_path):
    _, _, gone = tables(iemocap, "Ses02M_impro03_F001")
    gone.unlink()
    _, _, twin = tables(iemocap, "Ses02F_script03_1_M042")
    toys.write_wav(twin.parent / "Ses02M_impro03_F001.wav")  # in another dialog's folder
    assert prepare("iemocap", iemocap, tmp_path / "out", *PARTIAL) == 0
    assert read_json(tmp_path / "out" / "stage.json")["dropped"] == {
        "audio without evaluation": ["Ses02F_script03_1/Ses02M_impro03_F001"],
        "evaluation without audio": ["Ses02M_impro03/Ses02M_impro03_F001"],
    }
    for table in (iemocap / "Session2" / "dialog" / "EmoEvaluation").glob("*.txt"):
        table.unlink()
    evaluations = iemocap / "Session2" / "dialog" / "EmoEvaluation"
    assert refused("iemocap", iemocap, *PARTIAL).startswith(f"{evaluations}: has no line for 2 of 2 clips")


def test_a_copy_without_audio(refused, toys, iemocap, tmp_path):
    make_iemocap(toys, tmp_path / "c", [GOOD], audio=False)
    wav = tmp_path / "c" / "Session1" / "sentences" / "wav"
    assert refused("iemocap", tmp_path / "c", *PARTIAL).startswith(f"{wav}: is missing from IEMOCAP")
    wav.mkdir(parents=True)
    assert "all 1 utterances are left out (1 for the reason 'evaluation without audio'" in refused(
        "iemocap", tmp_path / "c", *PARTIAL
    )


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "is truncated"),
        (lambda path: path.write_text("no audio at all " * 50), "is not audio"),
    ],
)
def test_audio_that_cannot_be_used(spoil, words, refused, iemocap):
    _, _, clip = tables(iemocap, "Ses01F_impro01_F000")
    spoil(clip)
    sentence = refused("iemocap", iemocap, *PARTIAL)
    assert sentence.startswith(f"{clip}: ") and words in sentence


@pytest.mark.parametrize("options, words", [(("--partial", "yes"), "neither true nor false"), (("--x", "y"), "--x")])
def test_options_that_are_wrong(options, words, refused, iemocap):
    assert words in refused("iemocap", iemocap, *options)


# --- Whatever a table holds


@pytest.fixture(scope="module")
def script(toys):
    return toys.script("iemocap")


PIECES = st.sampled_from(
    [line for line, _ in TEN_LINES]
    + [
        "[",
        "]",
        "\t",
        " - ",
        ", ",
        "nan",
        "2.5000",
        "9" * 400,
        "-1",
        "xxx",
        "neu",
        "Ses01F_impro01_F000",
        "%",
        "C-E2:",
        "\r",
        "\n",
        "\r\n",
        "\ufeff",
        "\u2028",
        "\x00",
        "é",
        "情",
    ]
)


@settings(max_examples=200)
@given(st.lists(st.one_of(PIECES, st.text(max_size=9)), max_size=12), st.sampled_from(["utf-8", "utf-16", "gb18030"]))
def test_no_text_makes_a_parser_fail_but_with_a_sentence(script, tmp_path_factory, pieces, encoding):
    path = tmp_path_factory.getbasetemp() / "Ses01F_impro01.txt"
    path.write_bytes("".join(pieces).encode(encoding, "replace"))
    try:
        for utterance in script.read_evaluations(path, "1", path.parent).values():
            assert utterance.speaker in ("Ses01_F", "Ses01_M") and utterance.gender == utterance.speaker[-1]
            assert utterance.intensity is None or 1 <= utterance.intensity <= 5
    except InputError as error:
        sentence = str(error)
        assert re.match(rf"{re.escape(str(path))}(, line \d+: |: holds no line)", sentence)
        assert "\n" not in sentence and sentence.endswith(".")
    script.read_transcripts(path, script.Counter())


@settings(max_examples=200)
@given(st.text(st.sampled_from(string.digits + ".,-+nasif \t"), max_size=20))
def test_values_are_three_numbers_or_missing_or_refused(script, text):
    try:
        values = script.read_values(text, "a table, line 1")
    except InputError as error:
        assert str(error).startswith("a table, line 1: ") and str(error).endswith(".")
        assert "expected [valence, activation, dominance]" in str(error) or "no value on a scale" in str(error)
    else:
        assert len(values) == 3
        parts = [part.strip() for part in text.split(",")]
        if len(parts) == 3:
            assert values == [None if part.lower() in ("", "nan") else float(part) for part in parts]
        else:
            assert values == [None, None, None]
