"""prepare_aishell.py: splits, transcripts in both forms, genders, partial copies, and what it refuses."""

import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_manifests import PARTIAL, change, read_manifests

from speecheq.common.errors import InputError
from speecheq.common.files import read_json


def supervisions_of(folder, split):
    return list(read_manifests(folder, "aishell", split).values())


@pytest.fixture
def aishell(toys, tmp_path):
    return toys.aishell(tmp_path / "AISHELL-1")


@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize("info", ["{id} {sex}", "S{id}\t{sex}"])
def test_the_contract_of_the_manifests(prepare, toys, tmp_path, segmented, info):
    corpus = toys.aishell(tmp_path / "c", segmented=segmented, info=info)
    assert prepare("aishell", corpus, tmp_path / "out", *PARTIAL) == 0
    for split, speakers in (("train", "S0002 S0003"), ("dev", "S0004 S0005"), ("test", "S0006 S0007")):
        supervisions = supervisions_of(tmp_path / "out", split)
        assert len(supervisions) == 12 and {s.speaker for s in supervisions} == set(speakers.split())
        for supervision in supervisions:
            assert supervision.gender == ("F" if int(supervision.speaker[1:]) % 2 == 0 else "M")
            assert supervision.text.replace(" ", "") == toys.texts[int(supervision.id[-4:]) - 122]
            assert (" " in supervision.text) == segmented
            custom = supervision.custom
            assert (custom["corpus"], custom["split"], custom["esc"], custom["eis"]) == ("aishell", split, None, -1)
            assert custom["emotion"] is None
    card = read_json(tmp_path / "out" / "aishell_card.json")
    assert card["has_transcripts"] and card["test_split"] == "test" and not card["labels"]
    assert card["splits"] == ["dev", "test", "train"] and card["language"] == "Mandarin"


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(prepare, aishell, toys, tmp_path):
    path = aishell / toys.transcript
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert prepare("aishell", aishell, tmp_path / "out", *PARTIAL) == 0
    assert not any("\r" in s.text for s in supervisions_of(tmp_path / "out", "train"))
    assert len(supervisions_of(tmp_path / "out", "train")) == 12


def test_without_speaker_info_no_gender_is_known(prepare, toys, tmp_path, capsys):
    corpus = toys.aishell(tmp_path / "c", info=None)
    assert prepare("aishell", corpus, tmp_path / "out", *PARTIAL) == 0
    assert "speaker.info is missing" in capsys.readouterr().err
    assert {s.gender for s in supervisions_of(tmp_path / "out", "train")} == {None}


def test_absent_parts_need_partial(prepare, refused, toys, tmp_path):
    corpus = toys.aishell(tmp_path / "c", splits=("train",))
    sentence = refused("aishell", corpus)
    assert "lacks dev and test" in sentence and "--partial true" in sentence
    assert prepare("aishell", corpus, tmp_path / "out", *PARTIAL) == 0
    card = read_json(tmp_path / "out" / "aishell_card.json")
    assert card["splits"] == ["train"] and card["test_split"] is None and card["partial"]


def test_a_copy_with_all_parts_is_held_against_the_official_count(refused, aishell):
    assert "36 utterances found, AISHELL-1 has 141600 (SLR33)" in refused("aishell", aishell)


def test_hours_shorten_the_training_part_alone(prepare, aishell, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        options = ("--hours", "0.00025", "--seed", seed)
        assert prepare("aishell", aishell, tmp_path / name, *PARTIAL, *options) == 0
    chosen = {name: [s.id for s in supervisions_of(tmp_path / name, "train")] for name in "abc"}
    assert len(chosen["a"]) == 5  # 0.9 s in clips of 0.2 s
    assert chosen["a"] == chosen["b"] != chosen["c"]
    assert len(supervisions_of(tmp_path / "a", "dev")) == len(supervisions_of(tmp_path / "a", "test")) == 12


def test_what_has_no_counterpart_is_counted_and_kept_out(prepare, aishell, toys, tmp_path, capsys):
    change(aishell / toys.transcript, f"BAC009S0002W0122 {toys.texts[0]}\n", "")
    (aishell / "data_aishell/wav/dev/S0004/BAC009S0004W0123.wav").unlink()
    assert prepare("aishell", aishell, tmp_path / "out", *PARTIAL) == 0
    stamp = read_json(tmp_path / "out" / "stage.json")
    assert stamp["dropped"] == {
        "audio without transcript": ["BAC009S0002W0122"],
        "transcript without audio": ["BAC009S0004W0123"],
    }
    assert (stamp["in"], stamp["out"]) == (36, 34)
    assert "BAC009S0002W0122" not in {s.id for s in supervisions_of(tmp_path / "out", "train")}
    shown = capsys.readouterr().err
    assert "1 dropped: audio without transcript (BAC009S0002W0122)" in shown and "2 dropped" in shown


def test_most_audio_without_transcript_is_an_error_even_of_a_partial_copy(refused, aishell, toys):
    lines = (aishell / toys.transcript).read_text().splitlines(True)
    (aishell / toys.transcript).write_text("".join(lines[:17]))
    sentence = refused("aishell", aishell, *PARTIAL)
    assert str(toys.transcript) in sentence and "no line for 19 of 36 clips" in sentence


def test_most_transcripts_without_audio_are_an_error_unless_partial(refused, prepare, aishell, tmp_path):
    clips = sorted(aishell.rglob("*.wav"))
    for clip in clips[:19]:
        clip.unlink()
    assert "no audio for 19 of 36 lines" in refused("aishell", aishell)
    assert prepare("aishell", aishell, tmp_path / "out", *PARTIAL) == 0
    for clip in clips[19:]:
        clip.unlink()
    assert "holds no clip" in refused("aishell", aishell, *PARTIAL)


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("BAC009S0002W0124 他", "BAC009S0002W0124他", "line 3: expected '<utterance> <text>'"),
        ("BAC009S0002W0123", "BAC009S0002W0122", "line 2: the utterance BAC009S0002W0122 occurs a second time"),
        ("BAC009S0003W0122 今天天气很好", "BAC009S0003W0122 ", "line 7: expected"),
    ],
)
def test_transcript_lines_that_are_wrong(refused, aishell, toys, old, new, words):
    change(aishell / toys.transcript, old, new)
    sentence = refused("aishell", aishell, *PARTIAL)
    assert sentence.startswith(f"{aishell / toys.transcript}, {words}")


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16"])
def test_files_that_are_not_utf8(refused, aishell, toys, encoding):
    path = aishell / toys.transcript
    text = path.read_text(encoding="utf-8")
    path.write_text(text, encoding=encoding)
    assert refused("aishell", aishell, *PARTIAL).startswith(f"{path}, line 1: is not UTF-8")
    path.write_text(text, encoding="utf-8")
    info = aishell / "resource_aishell" / "speaker.info"
    info.write_text("0002 F\n0003 男\n", encoding="gb18030")
    assert refused("aishell", aishell, *PARTIAL).startswith(f"{info}, line 2: is not UTF-8")


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("0003 M", "0003 X", "line 2: expected '<speaker> F' or '<speaker> M', found '0003 X'"),
        ("0003 M", "0003", "line 2: expected"),
        ("0003 M", "S0002 M", "line 2: the speaker S0002 is M here and F above"),
    ],
)
def test_speaker_lines_that_are_wrong(refused, aishell, old, new, words):
    info = aishell / "resource_aishell" / "speaker.info"
    change(info, old, new)
    assert refused("aishell", aishell, *PARTIAL).startswith(f"{info}, {words}")


def test_a_gender_that_was_corrected_is_not_overlooked(prepare, aishell, tmp_path, capsys):
    assert prepare("aishell", aishell, tmp_path / "out", *PARTIAL) == 0
    change(aishell / "resource_aishell" / "speaker.info", "0003 M", "0003 F")  # the same size
    assert prepare("aishell", aishell, tmp_path / "out", *PARTIAL) == 0
    assert "its inputs changed" in capsys.readouterr().err
    assert {s.gender for s in supervisions_of(tmp_path / "out", "train")} == {"F"}


def test_clips_and_folders_out_of_place(refused, aishell):
    wav = aishell / "data_aishell" / "wav"
    clip = wav / "train" / "S0002" / "BAC009S0002W0122.wav"
    stray = wav / "train" / "S0003" / clip.name
    shutil.copy(clip, stray)
    assert refused("aishell", aishell, *PARTIAL).startswith(f"{stray}: is named after another speaker")
    stray.unlink()
    (wav / "dev" / "S0002").mkdir()
    twin = wav / "dev" / "S0002" / clip.name
    shutil.copy(clip, twin)
    sentence = refused("aishell", aishell, *PARTIAL)
    assert "second time" in sentence and str(twin) in sentence and str(clip) in sentence
    shutil.rmtree(twin.parent)
    (wav / "test" / "speakers").mkdir()
    assert refused("aishell", aishell, *PARTIAL).startswith(f"{wav / 'test' / 'speakers'}: is not a speaker")


def test_without_the_transcript(refused, aishell, toys):
    (aishell / toys.transcript).unlink()
    assert refused("aishell", aishell, *PARTIAL).startswith(f"{aishell / toys.transcript}: is missing")


def test_the_real_clips(samples, prepare, refused, tmp_path):
    folder = samples("AISHELL-1")
    assert "lacks test" in refused("aishell", folder)
    assert prepare("aishell", folder, tmp_path / "out", *PARTIAL) == 0
    card = read_json(tmp_path / "out" / "aishell_card.json")
    assert card["utterances"] == 601 and card["counts"]["split"] == {"dev": 1, "train": 600}
    assert card["counts"]["speaker"] == {"S0150": 300, "S0252": 300, "S0724": 1}
    assert read_json(tmp_path / "out" / "stage.json")["dropped"] == {}


@given(st.binary() | st.text().map(str.encode) | st.text(alphabet="S0001 FM\t\n\r好", max_size=60).map(str.encode))
@settings(max_examples=150)
def test_no_bytes_make_a_table_fail_with_anything_but_a_sentence(toys, tmp_path_factory, content):
    script, path = toys.script("aishell"), tmp_path_factory.getbasetemp() / "table.txt"
    path.write_bytes(content)
    for read in (script.read_transcripts, script.read_genders):
        try:
            read(path)
        except InputError as refused:
            assert str(refused).startswith(f"{path}, line ") and str(refused).endswith(".")
