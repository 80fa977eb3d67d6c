"""Files of segments: every format as other tools write it, and one sentence for each fault."""

import sys

import pytest

from speecheq.common.errors import InputError
from speecheq.inference.segment_files import read_segments

praatio = pytest.importorskip("praatio", reason="praatio is not installed (utils/install.sh --extras segments)")
pympi = pytest.importorskip("pympi", reason="pympi-ling is not installed (utils/install.sh --extras segments)")
pytest.importorskip("webvtt", reason="webvtt-py is not installed (utils/install.sh --extras segments)")

LONG = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 4
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "Anna"
        xmin = 0
        xmax = 4
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 1.25
            text = ""
        intervals [2]:
            xmin = 1.25
            xmax = 3
            text = "say ""grün"""
        intervals [3]:
            xmin = 3
            xmax = 4
            text = "ja"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 4
        points: size = 1
        points [1]:
            number = 2
            mark = "x"
'''
SHORT = '''File type = "ooTextFile"
Object class = "TextGrid"

0
4
<exists>
1
"IntervalTier"
"Anna"
0
4
3
0
1.25
""
1.25
3
"say ""grün"""
3
4
"ja"
'''
EAF = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2020-01-01T00:00:00+00:00" FORMAT="3.0" VERSION="3.0"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
 xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">
 <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds"/>
 <TIME_ORDER>
  <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="250"/><TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="1000"/>
  <TIME_SLOT TIME_SLOT_ID="ts3"{third}/><TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="2000"/>
 </TIME_ORDER>
 <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="utterances" PARTICIPANT="Anna">
  <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
   <ANNOTATION_VALUE>grün</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="{slot}" TIME_SLOT_REF2="ts4">
   <ANNOTATION_VALUE>ja</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
 </TIER>
 <LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="default-lt" TIME_ALIGNABLE="true"/>
</ANNOTATION_DOCUMENT>
"""
THIRD = ' TIME_VALUE="1500"'
SRT = "1\n00:00:01,000 --> 00:00:02,500\nHallo\nAnna\n\n2\n00:00:03{mark}250 --> 00:00:04{mark}000\nja\n"


def write(path, content, encoding="utf-8"):
    path.write_bytes(content.encode(encoding))
    return path


def times(path, **options):
    return [(one.start, one.end) for one in read_segments(path, **options)]


def test_rttm(tmp_path):
    lines = [
        ";; a comment",
        "SPKR-INFO call 1 <NA> <NA> <NA> unknown S1 <NA>",
        "SPEAKER call 1 0.5 1.25 <NA> <NA> S1 <NA> <NA>",
        "SPEAKER other 2 0.1 0.2 word <NA> S2 0.9",
    ]
    first, second = read_segments(write(tmp_path / "a.rttm", "\n".join(lines)))
    assert (first.recording, first.start, first.end, first.speaker, first.channel) == ("call", 0.5, 1.75, "S1", 1)
    assert first.columns == () and dict(second.columns) == {"text": "word", "confidence": "0.9"}
    assert second.end == 0.3


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.csv", "start,end,speaker,mood\n1,2.5,A,good\n3,4,,bad\n"),
        ("a.csv", "Mood;speaker;start;end\ngood;A;00:00:01;2.5\nbad;;3;4\n"),
        ("a.tsv", "onset\tduration\tspeaker\tmood\n1\t1.5\tA\tgood\n3\t1\t\tbad\n"),
    ],
)
def test_tables(tmp_path, name, content):
    first, second = read_segments(write(tmp_path / name, content))
    assert (first.start, first.end, first.speaker) == (1, 2.5, "A") and (second.start, second.end) == (3, 4)
    assert [value for _, value in first.columns + second.columns] == ["good", "bad"]


def test_labels_of_audacity_and_segments_of_kaldi(tmp_path):
    first, second = read_segments(write(tmp_path / "a.txt", "0.5\t1.5\tHallo\n\\\t100.0\t200.0\n2\t3\t\n"))
    assert (first.start, first.end, dict(first.columns)) == (0.5, 1.5, {"text": "Hallo"}) and second.columns == ()
    first, second = read_segments(write(tmp_path / "segments", "u1 call 0 1.5\nu2 call 2 -1\n"))
    assert (first.recording, first.end, dict(first.columns)) == ("call", 1.5, {"utt": "u1"}) and second.end is None


@pytest.mark.parametrize("mark", [",", "."])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_srt_with_commas_and_with_dots(tmp_path, mark, encoding):
    content = SRT.replace("{mark}", mark).replace("\n", "\r\n")
    first, second = read_segments(write(tmp_path / "a.srt", content, encoding))
    assert (first.start, first.end, dict(first.columns)) == (1, 2.5, {"text": "Hallo Anna"})
    assert (second.start, second.end) == (3.25, 4)


def test_webvtt_has_voices(tmp_path):
    content = "WEBVTT\n\nNOTE x\n\n00:01.000 --> 00:02.500\n<v Anna>Hallo</v>\n\n01:00:03.000 --> 01:00:04.000\nja\n"
    first, second = read_segments(write(tmp_path / "a.vtt", content))
    assert (first.start, first.speaker, dict(first.columns)) == (1, "Anna", {"text": "Hallo"})
    assert (second.start, second.speaker) == (3603, "")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
@pytest.mark.parametrize("content", [LONG, SHORT], ids=["long", "short"])
def test_textgrids(tmp_path, content, encoding):
    first, second = read_segments(write(tmp_path / "a.TextGrid", content, encoding))
    assert (first.start, first.end, second.start, second.end) == (1.25, 3, 3, 4)
    assert dict(first.columns) == {"tier": "Anna", "text": 'say "grün"'}


def test_eaf_and_its_tiers(tmp_path):
    eaf = write(tmp_path / "a.eaf", EAF.format(third=THIRD, slot="ts3"))
    first, second = read_segments(eaf)
    assert (first.start, first.end, second.start, second.end) == (0.25, 1, 1.5, 2)
    assert first.speaker == "Anna" and dict(first.columns) == {"tier": "utterances", "text": "grün"}
    assert times(eaf, tiers=["utterances"]) == [(0.25, 1), (1.5, 2)]
    with pytest.raises(InputError, match="has no tier 'words' with intervals; it has utterances"):
        read_segments(eaf, ["words"])


def test_several_tiers_are_speakers_and_some_can_be_chosen(tmp_path):
    grid = LONG.replace('"TextTier"', '"IntervalTier"').replace("points: size", "intervals: size")
    grid = grid.replace("points [1]", "intervals [1]").replace("number = 2", "xmin = 0\n            xmax = 4")
    path = write(tmp_path / "a.TextGrid", grid.replace("mark =", "text =").replace('"clicks"', '"channel 2"'))
    assert [(one.start, one.speaker, one.channel) for one in read_segments(path)] == [
        (0, "", 2),
        (1.25, "Anna", None),
        (3, "Anna", None),
    ]
    assert times(path, tiers=["channel 2"]) == [(0, 4)]


def test_unsorted_segments_are_sorted_and_that_is_said(tmp_path, caplog):
    assert times(write(tmp_path / "a.csv", "start,end\n5,6\n1,4\n3,4\n")) == [(1, 4), (3, 4), (5, 6)]
    assert "a.csv: its segments are not in the order of time; they are sorted" in caplog.text
    caplog.clear()
    read_segments(write(tmp_path / "a.csv", "file,start,end\nb,1,4\na,3,4\n"))
    assert "sorted" not in caplog.text


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        ("a.pdf", "x", "a.pdf: is no file of segments by its name"),
        ("a.rttm", ";; nothing\n", "a.rttm: lists no segments"),
        ("a.rttm", "SPEAKER call 1 0.5\n", "a.rttm, line 1: has 4 fields; a line of RTTM is"),
        ("a.rttm", "SPEAKER call 1 x 1 <NA> <NA> S <NA> <NA>\n", "line 1: 'x' is not a number"),
        ("a.rttm", "SPEAKER call 0 1 1 <NA> <NA> S <NA> <NA>\n", "line 1: the channel '0' is not a number from 1"),
        ("a.csv", "from,to\n1,2\n", "a.csv: lacks the columns start and end .* it has from, to"),
        ("a.csv", "start,end\n1,2,3\n", "line 2: has 3 fields, and there are 2 columns"),
        ("a.csv", "start,end\n2,2\n", "line 2: the segment from 2 to 2 s is empty or begins before 0"),
        ("a.csv", "start,end\n-1,2\n", "line 2: the segment from -1 to 2 s is empty or begins before 0"),
        ("a.txt", "hello\n", "a.txt, line 1: is no label of Audacity"),
        ("segments", "u call 1\n", "segments, line 1: expected <utt> <recording> <start> <end>, found 3"),
        ("a.srt", "hello\n", "a.srt: cannot be read as SRT"),
        ("a.srt", SRT.replace("{mark}", ";"), "a.srt: 2 lines have times, and 1 cues"),
        ("a.vtt", SRT, "a.vtt: cannot be read as WebVTT, which begins with the line WEBVTT"),
        ("a.TextGrid", "hello", "a.TextGrid: is no TextGrid as text"),
        ("a.TextGrid", LONG[:300], "a.TextGrid: .*"),
        ("a.eaf", "<a", "a.eaf: cannot be read as an .eaf"),
        ("a.eaf", "<a/>", "a.eaf: cannot be read as an .eaf"),
        ("a.eaf", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "a.eaf: declares entities"),
        ("a.eaf", EAF.format(third="", slot="ts3"), "annotation a2 of the tier utterances has no time, .* slot ts3 is"),
        ("a.eaf", EAF.format(third=THIRD, slot="ts9"), "annotation a2 of the tier utterances .* slot ts9 is missing"),
    ],
)
def test_faults_are_one_sentence(tmp_path, name, content, sentence):
    with pytest.raises(InputError, match=sentence) as fault:
        read_segments(write(tmp_path / name, content))
    assert "\n" not in str(fault.value)


def test_a_file_of_bytes_and_one_that_is_missing(tmp_path):
    (tmp_path / "a.srt").write_bytes(b"\x80\x00\xff")
    with pytest.raises(InputError, match=r"a.srt: is no text in UTF-8 or UTF-16"):
        read_segments(tmp_path / "a.srt")
    with pytest.raises(InputError, match="there is no such file"):
        read_segments(tmp_path / "none.csv")
    with pytest.raises(InputError, match="has no tiers"):
        read_segments(write(tmp_path / "a.csv", "start,end\n1,2\n"), ["A"])


@pytest.mark.parametrize(
    "name, package", [("a.TextGrid", "praatio.utilities"), ("a.eaf", "pympi"), ("a.srt", "webvtt"), ("a.vtt", "webvtt")]
)
def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{name} needs .* install it: utils/install.sh --extras segments"):
        read_segments(write(tmp_path / name, "x"))
