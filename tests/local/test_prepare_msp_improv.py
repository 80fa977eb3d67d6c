"""prepare_msp_improv.py: who speaks, which label, which dominance; and every fault of its table as one sentence."""

import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_manifests import PARTIAL, read_manifests

from speecheq.common.errors import InputError
from speecheq.common.files import read_json

# Ten lines as the release writes them (its blank before a semicolon too), and by hand what each of them means:
# speaker, session, label, SEQM category, EIS (1 + (dominance - 1) * 3 / 4), sentence, condition; None: left out.
TEN_LINES = [
    (
        "UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:3.200000; V:2.800000; D:2.600000 ; N:3.300000;",
        ("F01", "1", "neutral", "neutral", 2.2, "01", "P"),
    ),
    (
        "UTD-IMPROV-S01A-F01-P-MF01.avi; H; A:2.000000; V:4.500000; D:3.000000 ; N:4.000000;",
        ("F01", "1", "happy", "joy", 2.5, "01", "P"),
    ),
    (
        "UTD-IMPROV-S03H-M01-S-FM03.avi; A; A:1.666667; V:1.333333; D:5.000000 ; N:2.600000;",
        ("M01", "1", "angry", "anger", 4.0, "03", "S"),
    ),
    (
        "UTD-IMPROV-S13N-F02-S-MF02.avi; S; A:4.000000; V:2.000000; D:1.000000 ; N:NaN;",
        ("F02", "2", "sad", "sadness", 1.0, "13", "S"),
    ),
    (
        "UTD-IMPROV-S20S-M06-T-MM01.avi; S; A:3.800000; V:1.800000; D:NaN ; N:3.000000;",
        ("M06", "6", "sad", "sadness", -1, "20", "T"),
    ),
    ("UTD-IMPROV-S07A-M04-R-MF101.avi; A; A:2.0; V:2.0; D:3.4; N:3.0;", ("M04", "4", "angry", "anger", 2.8, "07", "R")),
    (
        "UTD-IMPROV-S07H-F05-R-FF01.avi; N; A:3.0; V:3.0; D:2.2;",  # some copies have no naturalness
        ("F05", "5", "neutral", "neutral", 1.9, "07", "R"),
    ),
    ("UTD-IMPROV-S11A-F03-S-FM07.avi; O; A:2.500000; V:2.500000; D:2.500000 ; N:2.500000;", None),
    ("UTD-IMPROV-S11A-F03-S-FM08.avi; X; A:2.500000; V:2.500000; D:2.500000 ; N:2.500000;", None),
    ("UTD-IMPROV-S16H-M03-T-MM02.avi;H;A:2;V:4;D:4;N:3;", ("M03", "3", "happy", "joy", 3.25, "16", "T")),
]
ANNOTATORS = (
    "WKR_AB12; Neutral; Neutral, Other(calm; at ease); A:3.000000; V:3.000000; D:3.000000; N:3.000000;\n"
    "WKR_CD-3; Happy; Happy,Excited; A:2.000000; V:4.000000; D:NaN; N:NaN;\n\n"
)
GOOD = TEN_LINES[0][0]


def turn_of(line):
    return line.partition(".avi")[0][len("UTD-IMPROV-") :]


def make_msp_improv(toys, folder, lines, table="Evaluation.txt", flat=False):
    folder.mkdir(parents=True)
    (folder / table).write_text("".join(f"{line}\n{ANNOTATORS}" for line in lines), encoding="utf-8")
    for turn in map(turn_of, lines):
        scenario, speaker, condition, _ = turn.split("-")
        inside = "" if flat else f"session{speaker[-1]}/{scenario}/{condition}"
        toys.write_wav(folder / inside / f"MSP-IMPROV-{turn}.wav", 0.1)
    return folder


@pytest.fixture
def corpus(toys, tmp_path):
    return make_msp_improv(toys, tmp_path / "MSP-IMPROV", [line for line, _ in TEN_LINES])


def test_ten_lines_checked_by_hand(prepare, corpus, tmp_path, capsys):
    assert prepare("msp_improv", corpus, tmp_path / "out", *PARTIAL) == 0
    supervisions = read_manifests(tmp_path / "out", "msp_improv")
    assert len(supervisions) == 8
    for line, expected in TEN_LINES:
        found = supervisions.pop(f"msp_improv-{turn_of(line)}", None)
        if expected is None:
            assert found is None
            continue
        speaker, session, label, category, eis, sentence, condition = expected
        custom = found.custom
        assert (found.speaker, found.gender, custom["session"]) == (speaker, speaker[0], session)
        assert (custom["emotion"], custom["esc"]) == (label, category)
        assert custom["eis"] == pytest.approx(eis)
        assert (custom["text_id"], custom["condition"]) == (sentence, condition)
        assert custom["scenario"] == turn_of(line)[:4]
        assert custom["valence"] == pytest.approx(float(re.search("V:([0-9.]+)", line)[1]))
        assert found.language == "English" and "split" not in custom and "activation" not in custom
    assert "1 turns have no dominance: their EIS is unspecified" in capsys.readouterr().err
    stamp = read_json(tmp_path / "out" / "stage.json")
    assert stamp["dropped"] == {"no agreement": ["S11A-F03-S-FM08"], "other emotion": ["S11A-F03-S-FM07"]}
    assert (stamp["in"], stamp["out"]) == (10, 8)
    card = read_json(tmp_path / "out" / "msp_improv_card.json")
    assert card["scale"] == [1.0, 5.0] and card["neutral_eis"] == "corpus" and not card["has_transcripts"]


def test_the_official_counts_are_asked_for(refused, corpus, toys):
    sentence = refused("msp_improv", corpus)
    assert "8 utterances found, 1 left out (no agreement), 1 left out (other emotion)" in sentence
    assert "MSP-IMPROV has 7798 (four classes) - 2 of 792 with the label angry" in sentence
    declared = toys.script("msp_improv").MSP_IMPROV
    assert sum(declared.count_by["label"].values()) == 7798


def test_a_whole_copy_needs_no_option(prepare, toys, tmp_path):
    declared = toys.script("msp_improv").MSP_IMPROV.count_by["label"]
    labels = [label[0].upper() for label, count in declared.items() for _ in range(count)]
    lines = [
        f"UTD-IMPROV-S{number // 500:02d}N-F01-S-FM{number % 500:03d}.avi; {label}; A:3.0; V:3.0; D:3.0 ; N:3.0;"
        for number, label in enumerate(labels)
    ]
    (tmp_path / "copy" / "Audio").mkdir(parents=True)
    (tmp_path / "copy" / "Evaluation.txt").write_text("\n".join(lines))
    clip = toys.write_wav(tmp_path / "clip.wav", 0.03)
    for turn in map(turn_of, lines):
        os.link(clip, tmp_path / "copy" / "Audio" / f"MSP-IMPROV-{turn}.wav")
    assert prepare("msp_improv", tmp_path / "copy", tmp_path / "out") == 0
    card = read_json(tmp_path / "out" / "msp_improv_card.json")
    assert card["counts"]["esc"] == {"anger": 792, "joy": 2644, "neutral": 3477, "sadness": 885}


def test_where_the_clips_lie_and_how_the_table_is_spelt_makes_no_difference(prepare, corpus, toys, tmp_path):
    assert prepare("msp_improv", corpus, tmp_path / "out", *PARTIAL) == 0
    lines = [line for line, _ in TEN_LINES]
    flat = make_msp_improv(toys, tmp_path / "flat", lines, table="Evalution.txt", flat=True)
    assert prepare("msp_improv", flat, tmp_path / "out-flat", *PARTIAL) == 0
    assert read_manifests(tmp_path / "out-flat", "msp_improv") == read_manifests(tmp_path / "out", "msp_improv")
    # the audio may be a link to another disk
    linked = make_msp_improv(toys, tmp_path / "linked", lines, flat=True)
    (tmp_path / "disk").mkdir()
    for clip in linked.glob("*.wav"):
        clip.rename(tmp_path / "disk" / clip.name)
    (linked / "Audio").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert prepare("msp_improv", linked, tmp_path / "out-linked", *PARTIAL) == 0
    assert read_manifests(tmp_path / "out-linked", "msp_improv") == read_manifests(tmp_path / "out", "msp_improv")


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.replace("calm", "blasé").encode("utf-8"),
        lambda text: text.replace("calm", "blasé").encode("latin-1"),
        lambda text: text.rstrip("\n").encode(),
    ],
    ids=["CRLF", "BOM", "UTF-8", "Latin-1", "no last newline"],
)
def test_a_table_that_is_written_otherwise_says_the_same(encode, prepare, corpus, tmp_path):
    assert prepare("msp_improv", corpus, tmp_path / "before", *PARTIAL) == 0
    table = corpus / "Evaluation.txt"
    table.write_bytes(encode(table.read_text(encoding="utf-8")))
    assert prepare("msp_improv", corpus, tmp_path / "after", *PARTIAL) == 0
    assert read_manifests(tmp_path / "after", "msp_improv") == read_manifests(tmp_path / "before", "msp_improv")


# --- Bad input

EXPECTED = "expected 'UTD-IMPROV-<turn>.avi; <label>; A:<value>; V:<value>; D:<value>; N:<value>;', found"
NAMED = "is not <scenario>-<speaker>-<condition>-<turn>, as S01A-F01-P-FM01"


@pytest.mark.parametrize(
    "line, words",
    [
        (GOOD.replace(" N;", ""), EXPECTED),
        (GOOD.replace(" N;", " N; H;"), EXPECTED),
        (GOOD.replace("; D:2.600000 ", ""), EXPECTED),
        (GOOD.replace("D:2.600000", "D:"), EXPECTED),
        (GOOD.replace("D:2.600000", "D:much"), EXPECTED),
        (GOOD.replace("D:2.600000", "D:-2.6"), EXPECTED),
        (GOOD.replace(";", ","), EXPECTED),
        (GOOD.replace(".avi", ".wav"), EXPECTED),
        (GOOD.replace("UTD-", "MSP-"), EXPECTED),
        (GOOD.replace("; N;", "; Q;"), "the label 'Q' is not one of A, H, N, S, O, X"),
        (GOOD.replace("; N;", "; n;"), "the label 'n' is not one of A, H, N, S, O, X"),
        (GOOD.replace("; N;", "; Neutral;"), "the label 'Neutral' is not one of A, H, N, S, O, X"),
        (GOOD.replace("-P-FM01", ""), f"'S01A-F01' {NAMED}"),
        (GOOD.replace("F01-P", "F07-P"), f"'S01A-F07-P-FM01' {NAMED}"),
        (GOOD.replace("S01A", "S01B"), f"'S01B-F01-P-FM01' {NAMED}"),
        (GOOD.replace("-P-", "-Q-"), f"'S01A-F01-Q-FM01' {NAMED}"),
        (GOOD.replace("D:2.600000", "D:5.1"), "the value 5.1 is outside the declared scale 1 to 5"),
        (GOOD.replace("D:2.600000", "D:0.5"), "the value 0.5 is outside the declared scale 1 to 5"),
        (f"{GOOD}\n{GOOD}", "the turn S01A-F01-P-FM01 occurs a second time, first in"),
    ],
)
def test_lines_that_are_wrong(line, words, refused, corpus):
    table = corpus / "Evaluation.txt"
    table.write_text(table.read_text(encoding="utf-8").replace(GOOD, line), encoding="utf-8")
    number = 2 if line.count("\n") else 1
    sentence = refused("msp_improv", corpus, *PARTIAL)
    assert sentence.startswith(f"{table}, line {number}: ") and words in sentence


@pytest.mark.parametrize("content", [b"", ANNOTATORS.encode(), GOOD.encode("utf-16"), b"\x00" * 99])
def test_a_table_that_evaluates_nothing(content, refused, corpus):
    (corpus / "Evaluation.txt").write_bytes(content)
    sentence = refused("msp_improv", corpus, *PARTIAL)
    assert sentence.startswith(f"{corpus / 'Evaluation.txt'}: holds no line that evaluates a turn")


def test_a_clip_that_lies_there_twice(refused, toys, corpus):
    first = corpus / "session1" / "S01A" / "P" / "MSP-IMPROV-S01A-F01-P-FM01.wav"
    second = toys.write_wav(corpus / "session2" / first.name)
    sentence = refused("msp_improv", corpus, *PARTIAL)
    assert sentence == f"{second}: occurs a second time, first as {first}; remove one."


def test_clips_and_evaluations_without_counterpart(prepare, refused, toys, corpus, tmp_path):
    (corpus / "session2" / "S13N" / "S" / "MSP-IMPROV-S13N-F02-S-MF02.wav").unlink()
    toys.write_wav(corpus / "session2" / "MSP-IMPROV-S13N-F02-S-MF99.wav")
    (corpus / "._MSP-IMPROV-S13N-F02-S-MF02.wav").write_bytes(b"junk")
    toys.write_wav(corpus / "noise.wav")
    assert prepare("msp_improv", corpus, tmp_path / "out", *PARTIAL) == 0
    dropped = read_json(tmp_path / "out" / "stage.json")["dropped"]
    assert dropped["audio without evaluation"] == ["S13N-F02-S-MF99"]
    assert dropped["evaluation without audio"] == ["S13N-F02-S-MF02"]
    for clip in corpus.rglob("MSP-IMPROV-*.wav"):
        clip.unlink()
    assert "has no audio for 10 of 10 lines" in refused("msp_improv", corpus)
    assert "all 10 utterances are left out (10 for the reason 'evaluation without audio'" in refused(
        "msp_improv", corpus, *PARTIAL
    )


def test_folders_that_are_not_the_corpus(refused, corpus, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "the folder is empty" in refused("msp_improv", tmp_path / "empty", *PARTIAL)
    assert f"is one level too high, give {corpus} instead" in refused("msp_improv", tmp_path, *PARTIAL)
    assert f"is too low inside the corpus, give {corpus}" in refused("msp_improv", corpus / "session1", *PARTIAL)


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "is truncated"),
        (lambda path: path.write_text("no audio at all " * 50), "is not audio"),
    ],
)
def test_audio_that_cannot_be_used(spoil, words, refused, corpus):
    clip = corpus / "session1" / "S01A" / "P" / "MSP-IMPROV-S01A-F01-P-FM01.wav"
    spoil(clip)
    sentence = refused("msp_improv", corpus, *PARTIAL)
    assert sentence.startswith(f"{clip}: ") and words in sentence


# --- Whatever a table holds


@pytest.fixture(scope="module")
def script(toys):
    return toys.script("msp_improv")


PIECES = st.sampled_from(
    [line for line, _ in TEN_LINES]
    + [
        "UTD-IMPROV-",
        "S01A-F01-P-FM01",
        ".avi",
        "; ",
        "A:",
        "V:",
        "D:",
        "N:",
        "NaN",
        "3.0",
        "9" * 400,
        "X",
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
def test_no_text_makes_the_parser_fail_but_with_a_sentence(script, tmp_path_factory, pieces, encoding):
    path = tmp_path_factory.getbasetemp() / "Evaluation.txt"
    path.write_bytes("".join(pieces).encode(encoding, "replace"))
    try:
        for turn, utterance in script.read_evaluations(path).items():
            assert utterance.speaker in turn and utterance.gender == utterance.speaker[0]
            assert utterance.label in script.LABELS.values()
    except InputError as error:
        sentence = str(error)
        assert re.match(rf"{re.escape(str(path))}(, line \d+: |: holds no line)", sentence)
        assert "\n" not in sentence and sentence.endswith(".")
