"""prepare_librispeech.py: any set of whole subsets, genders, transcripts, and what it refuses."""

import re
import shutil
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_manifests import PARTIAL, read_manifests

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.common.stages import Drops

# subset -> its speaker and that one's gender
TOY = {
    "train-clean-100": ("19", "F"),
    "train-other-500": ("20", "M"),
    "dev-clean": ("84", "F"),
    "test-clean": ("1089", "M"),
    "test-other": ("367", "F"),
}
SPEAKERS = """\
; Comment lines begin with a semicolon
;ID  |SEX| SUBSET           |MINUTES| NAME
19   | F | train-clean-100  | 25.19 | Ann Example
20   | M | train-other-500  | 20.18 | |ABC|Ben
84   | F | dev-clean        | 8.02  | Zoë
1089 | M | test-clean       | 8.10  | C. D. | E.
367  | F | test-other       | 8.01  | Nobody
"""


def make_librispeech(toys, folder, subsets=tuple(TOY), speakers=SPEAKERS):
    """Two chapters of two clips in each subset; ``speakers`` is SPEAKERS.TXT, None for a copy without it."""
    for subset in subsets:
        speaker = TOY[subset][0]
        for chapter in ("134686", "7"):
            place = folder / "LibriSpeech" / subset / speaker / chapter
            names = [f"{speaker}-{chapter}-{number:04d}" for number in range(2)]
            for name in names:
                toys.write_wav(place / f"{name}.flac", 0.05)
            lines = [f"{name} SAY {number} DON'T\n" for number, name in enumerate(names)]
            (place / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines))
    if speakers is not None:
        (folder / "LibriSpeech" / "SPEAKERS.TXT").write_text(speakers, encoding="utf-8")
    return folder


def supervisions_of(folder, split):
    return list(read_manifests(folder, "librispeech", split).values())


@pytest.fixture
def librispeech(toys, tmp_path):
    return make_librispeech(toys, tmp_path / "corpus")


@pytest.fixture(scope="module")
def script(toys):
    return toys.script("librispeech")


@pytest.mark.parametrize("inner", ["", "LibriSpeech"])
def test_the_contract_of_the_manifests(prepare, librispeech, tmp_path, inner):
    assert prepare("librispeech", librispeech / inner, tmp_path / "out", *PARTIAL) == 0
    genders = dict(TOY.values())
    for split, speakers in (("train", {"19", "20"}), ("dev", {"84"}), ("test", {"1089", "367"})):
        supervisions = supervisions_of(tmp_path / "out", split)
        assert {s.speaker for s in supervisions} == speakers and len(supervisions) == 4 * len(speakers)
        for s in supervisions:
            assert s.id.startswith(f"{s.speaker}-") and s.text == f"SAY {int(s.id[-4:])} DON'T"
            assert (s.gender, s.language) == (genders[s.speaker], "English")
            assert TOY[s.custom["subset"]][0] == s.speaker and s.custom["subset"].startswith(split)
            assert (s.custom["corpus"], s.custom["split"], s.custom["eis"]) == ("librispeech", split, -1)
            assert s.custom["emotion"] is None and s.custom["esc"] is None
    card = read_json(tmp_path / "out" / "librispeech_card.json")
    assert card["has_transcripts"] and card["test_split"] == "test" and card["splits"] == ["dev", "test", "train"]


def test_a_subset_that_is_not_whole_needs_partial(refused, prepare, toys, tmp_path, capsys):
    folder = make_librispeech(toys, tmp_path / "c", ("train-clean-100", "dev-clean"))
    sentence = refused("librispeech", folder)
    subset = folder / "LibriSpeech" / "train-clean-100"
    assert sentence.startswith(f"{subset}: 4 utterances found (4 clips, 4 transcripts)")
    assert "train-clean-100 has 28539" in sentence and "--partial true" in sentence
    capsys.readouterr()
    assert prepare("librispeech", folder, tmp_path / "out", *PARTIAL) == 0
    shown = capsys.readouterr().err
    assert "dev-clean has 2703" in shown
    assert "without train-clean-360, train-other-500, dev-other, test-clean, test-other" in shown
    assert read_json(tmp_path / "out" / "librispeech_card.json")["test_split"] is None


def make_whole(folder, subset, utterances):
    place = folder / subset / "84" / "1"
    place.mkdir(parents=True)
    names = [f"84-1-{number:04d}" for number in range(utterances)]
    for name in names:
        (place / f"{name}.flac").touch()
    (place / "84-1.trans.txt").write_text("".join(f"{name} YES\n" for name in names))


def test_any_whole_subset_is_a_whole_copy(script, tmp_path):
    make_whole(tmp_path, "dev-clean", 2703)
    found = list(script.find_utterances(tmp_path, False, Drops()))
    assert Counter(utterance.split for utterance in found) == {"dev": 2703}
    (tmp_path / "dev-clean" / "84" / "1" / "84-1-2703.flac").touch()
    with open(tmp_path / "dev-clean" / "84" / "1" / "84-1.trans.txt", "a") as table:
        table.write("84-1-2703 ONE MORE\n")
    with pytest.raises(InputError, match="dev-clean: 2704 utterances found .*dev-clean has 2703"):
        list(script.find_utterances(tmp_path, False, Drops()))


def test_the_official_counts(script):
    assert sum(script.SUBSETS.values()) == 292367
    assert {name.partition("-")[0] for name in script.SUBSETS} == set(script.LIBRISPEECH.splits)


def test_what_has_no_counterpart_is_counted_and_kept_out(prepare, librispeech, tmp_path):
    subset = librispeech / "LibriSpeech" / "dev-clean" / "84"
    table = subset / "7" / "84-7.trans.txt"
    table.write_text(table.read_text().partition("\n")[2])
    (subset / "134686" / "84-134686-0001.flac").unlink()
    assert prepare("librispeech", librispeech, tmp_path / "out", *PARTIAL) == 0
    stamp = read_json(tmp_path / "out" / "stage.json")
    assert stamp["dropped"] == {
        "audio without transcript": ["84-7-0000"],
        "transcript without audio": ["84-134686-0001"],
    }
    assert (stamp["in"], stamp["out"]) == (20, 18)
    assert {s.id for s in supervisions_of(tmp_path / "out", "dev")} == {"84-134686-0000", "84-7-0001"}


def test_most_audio_without_transcript_is_an_error_even_of_a_partial_copy(refused, librispeech):
    speaker = librispeech / "LibriSpeech" / "dev-clean" / "84"
    (speaker / "7" / "84-7.trans.txt").unlink()
    (speaker / "134686" / "84-134686.trans.txt").write_text("84-134686-0000 YES\n")
    sentence = refused("librispeech", librispeech, *PARTIAL)
    assert f"{librispeech}/LibriSpeech/dev-clean" in sentence and "has no line for 3 of 4 clips" in sentence


def test_genders(script, tmp_path):
    path = tmp_path / "SPEAKERS.TXT"
    expected = dict(TOY.values())
    for encoding, ends in (("utf-8", "\n"), ("utf-8-sig", "\r\n"), ("latin-1", "\n\n")):
        path.write_bytes(SPEAKERS.replace("\n", ends).encode(encoding))
        assert script.read_genders(path) == expected


def test_without_speakers_txt_no_gender_is_known(prepare, toys, tmp_path, capsys):
    folder = make_librispeech(toys, tmp_path / "c", speakers=None)
    assert prepare("librispeech", folder, tmp_path / "out", *PARTIAL) == 0
    assert "SPEAKERS.TXT is missing" in capsys.readouterr().err
    assert {s.gender for s in supervisions_of(tmp_path / "out", "train")} == {None}


def test_a_speaker_that_the_table_lacks_has_no_gender(prepare, toys, tmp_path):
    folder = make_librispeech(toys, tmp_path / "c", speakers=SPEAKERS.replace("84 ", "85 "))
    assert prepare("librispeech", folder, tmp_path / "out", *PARTIAL) == 0
    assert {s.gender for s in supervisions_of(tmp_path / "out", "dev")} == {None}


@pytest.mark.parametrize(
    "line, words",
    [
        ("85 | F | dev-clean | 8.0", "line 8: expected '<speaker> | F or M |"),
        ("85 | X | dev-clean | 8.0 | Name", "line 8: expected"),
        ("   | F | dev-clean | 8.0 | Name", "line 8: expected"),
        ("85\tF\tdev-clean\t8.0\tName", "line 8: expected"),
        ("84 | M | dev-clean | 8.0 | Name", "line 8: the speaker 84 is M here and F above"),
    ],
)
def test_speaker_lines_that_are_wrong(refused, librispeech, line, words):
    path = librispeech / "LibriSpeech" / "SPEAKERS.TXT"
    path.write_text(SPEAKERS + line + "\n", encoding="utf-8")
    assert refused("librispeech", librispeech, *PARTIAL).startswith(f"{path}, {words}")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"84-7-0000 YES\n84-7-0001\n", "line 2: expected '<utterance> <text>'"),
        (b"84-7-0000\tYES\n84-7-0000 NO\n", "line 2: the utterance 84-7-0000 occurs a second time"),
        (b"84-7-0000 YES\n84-8-0001 NO\n", "line 2: the utterance '84-8-0001' is not of the chapter 84-7"),
        (b"YES\n", "line 1: expected"),
        (b"84-7-0000 YES\n84-7-0001 S\xc9\n", "line 2: is not UTF-8"),
        ("84-7-0000 YES\n".encode("utf-16"), "line 1: is not UTF-8"),
    ],
)
def test_transcript_lines_that_are_wrong(refused, librispeech, content, words):
    path = librispeech / "LibriSpeech" / "dev-clean" / "84" / "7" / "84-7.trans.txt"
    path.write_bytes(content)
    assert refused("librispeech", librispeech, *PARTIAL).startswith(f"{path}, {words}")


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(script, tmp_path):
    path = tmp_path / "84-7.trans.txt"
    path.write_bytes(b"\xef\xbb\xbf84-7-0000 YES  \r\n\r\n84-7-0001\tNO NO\r\n")
    assert script.read_transcripts(path, "84-7") == {"84-7-0000": "YES", "84-7-0001": "NO NO"}


LINES = st.text() | st.lists(
    st.tuples(st.sampled_from(["84-7-0000", "84-7-0001", "84", ";", "85 | F |", "84 | M | a | 1 | b"]), st.text()).map(
        "".join
    ),
    max_size=4,
).map("\n".join)


@settings(max_examples=150)
@given(content=st.binary() | LINES.map(lambda text: text.encode("utf-8")))
def test_no_content_makes_a_table_fail_but_with_a_sentence(script, tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "librispeech-table.txt"
    path.write_bytes(content)
    for read in (script.read_genders, lambda table: script.read_transcripts(table, "84-7")):
        try:
            rows = read(path)
        except InputError as error:
            assert re.fullmatch(re.escape(str(path)) + r", line \d+: [^\n\r]+\.", str(error))
        else:
            assert all(name and value for name, value in rows.items())


def test_clips_and_folders_out_of_place(refused, librispeech):
    root = librispeech / "LibriSpeech"
    clip = root / "dev-clean" / "84" / "7" / "84-7-0000.flac"
    stray = root / "dev-clean" / "84" / "134686" / clip.name
    shutil.copy(clip, stray)
    assert refused("librispeech", librispeech, *PARTIAL).startswith(f"{stray}: is not of the chapter 84-134686")
    stray.unlink()
    (root / "train-960").mkdir()
    assert refused("librispeech", librispeech, *PARTIAL).startswith(f"{root / 'train-960'}: is not a subset")
    (root / "train-960").rmdir()
    shutil.copytree(root / "dev-clean", root / "dev-other")
    sentence = refused("librispeech", librispeech, *PARTIAL)
    assert "second time" in sentence and "dev-clean" in sentence and "dev-other" in sentence


def test_folders_that_are_missing_empty_too_high_too_low_or_no_folder(refused, librispeech, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / "things").mkdir(parents=True)
    assert "there is no such folder" in refused("librispeech", tmp_path / "missing", *PARTIAL)
    assert "the folder is empty" in refused("librispeech", tmp_path / "empty", *PARTIAL)
    assert "does not look like LibriSpeech" in refused("librispeech", tmp_path / "other", *PARTIAL)
    assert "is a file" in refused("librispeech", librispeech / "LibriSpeech" / "SPEAKERS.TXT", *PARTIAL)
    assert f"give {librispeech} instead" in refused("librispeech", tmp_path, *PARTIAL)
    for inside in ("dev-clean", "dev-clean/84", "dev-clean/84/7"):
        assert "too low" in refused("librispeech", librispeech / "LibriSpeech" / inside, *PARTIAL)


def test_audio_that_cannot_be_used(refused, librispeech):
    clip = librispeech / "LibriSpeech" / "dev-clean" / "84" / "7" / "84-7-0000.flac"
    for content, words in ((b"", "the file is empty"), (b"fLaC and so on" * 9, "is not audio")):
        clip.write_bytes(content)
        sentence = refused("librispeech", librispeech, *PARTIAL)
        assert sentence.startswith(f"{clip}: ") and words in sentence


def test_hours_shorten_the_training_part_alone(prepare, librispeech, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "3")):
        options = ("--hours", "0.00004", "--seed", seed)  # 0.144 s in clips of 0.05 s
        assert prepare("librispeech", librispeech, tmp_path / name, *PARTIAL, *options) == 0
    chosen = {name: [s.id for s in supervisions_of(tmp_path / name, "train")] for name in "abc"}
    assert len(chosen["a"]) == 3 and chosen["a"] == chosen["b"] != chosen["c"]
    assert len(supervisions_of(tmp_path / "a", "test")) == 8


def test_the_real_clips(samples, prepare, refused, tmp_path):
    folder = samples("LibriSpeech")
    assert "test-clean has 2620" in refused("librispeech", folder)
    assert prepare("librispeech", folder, tmp_path / "out", *PARTIAL) == 0
    supervisions = supervisions_of(tmp_path / "out", "test")
    assert Counter(s.custom["subset"] for s in supervisions) == {"test-clean": 4, "test-other": 100}
    assert all(s.text.isupper() for s in supervisions)
    assert read_json(tmp_path / "out" / "stage.json")["dropped"] == {}
