"""``speecheq predict`` on segments: of files of other tools, of speech, of channels; its labels are read back."""

import csv
import io
import json
import re

import numpy as np
import pytest
import soundfile
from speech_like import RATE, hiss, speech_like

from speecheq import Predictor, Windows
from speecheq.common.errors import InputError
from speecheq.inference.label_formats import LABEL_WRITERS
from speecheq.inference.prediction import LABELS, ROWS, Prediction
from speecheq.inference.results import Predictions
from speecheq.inference.row_formats import ROW_WRITERS
from speecheq.inference.segment_files import read_segments
from speecheq.inference.windows import LONGEST_STRETCH

SUFFIXES = {
    "rttm": "rttm",
    "textgrid": "TextGrid",
    "eaf": "eaf",
    "srt": "srt",
    "vtt": "vtt",
    "audacity": "txt",
    "csv": "csv",
}
SILERO = ("--speech-activity", "silero")
SPEECH = {1: [(1.0, 2.5), (6.0, 8.0)], 2: [(3.5, 5.0), (9.0, 11.0)]}  # of each channel, in seconds
TABLE = "start,end,speaker,mood,emotion\n0.5004,2.25,A,good,x\n2,4.1237,A,bad,y\n9.5,10.75,B & <C>,so,z\n"

TABLE_OF_CHANNELS = """channel,start,end,speaker,mood,emotion
1,0.5004,2.25,A,good,x
1,2,4.1237,A,bad,y
2,9.5,10.75,B,so,z
"""


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    """A recording with a speaker on each of its two channels."""
    samples = np.stack([hiss(12, -75, 1), hiss(12, -75, 2)], axis=1)
    for channel, stretches in SPEECH.items():
        for start, end in stretches:
            first = round(start * RATE)
            samples[first : first + round((end - start) * RATE), channel - 1] += speech_like(
                end - start, 90 + 60 * channel
            )
    path = tmp_path_factory.mktemp("call") / "call.wav"
    soundfile.write(path, samples, RATE)
    return path


@pytest.fixture
def table(tmp_path):
    (tmp_path / "given.csv").write_text(TABLE)
    return tmp_path / "given.csv"


def test_every_format_has_its_writer():
    assert tuple(ROW_WRITERS) == ROWS and tuple(LABEL_WRITERS) == LABELS


def test_segments_of_a_file_are_scored_each_and_keep_their_columns(predict, predictor, call, table):
    status, out, err = predict("--segments", table, "--format", "json", call)
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and [(row["start"], row["end"]) for row in rows] == [(0.5004, 2.25), (2, 4.1237), (9.5, 10.75)]
    assert [row["speaker"] for row in rows] == ["A", "A", "B & <C>"]
    assert rows[0]["columns"] == {"mood": "good", "emotion": "x"} and rows[0]["emotion"] != "x"
    assert "1 segments overlap the one before; each is predicted by itself" in err
    samples = soundfile.read(call, dtype="float32")[0][2 * RATE : round(4.1237 * RATE)]
    assert rows[1]["posterior"] == pytest.approx(predictor(samples, RATE)[0].posterior, abs=1e-5)
    status, out, _ = predict("--segments", table, "--format", "csv", call)
    cells = list(csv.DictReader(io.StringIO(out)))
    assert [(row["speaker"], row["mood"], row["given_emotion"]) for row in cells][1] == ("A", "bad", "y")
    status, out, _ = predict("--segments", table, call)
    assert out.splitlines()[2].startswith(f"{call} B & <C> 9.50-10.75 s: ")


@pytest.mark.parametrize("channels", ["mix", "each"])
@pytest.mark.parametrize("format", SUFFIXES)
def test_what_is_written_is_read_back(predict, call, tmp_path, format, channels):
    """Where the library of the format reads it, what it writes is as Praat and ELAN take it."""
    for package in ("praatio", "pympi", "webvtt"):
        pytest.importorskip(package, reason=f"{package} is not installed (utils/install.sh --extras segments)")
    given = tmp_path / "given.csv"
    given.write_text(TABLE if channels == "mix" else TABLE_OF_CHANNELS)
    output = tmp_path / f"out.{SUFFIXES[format]}"
    options = ("--segments", given, "--channels", channels, call)
    for _ in range(2):  # the second replaces the first
        status, _, err = predict("--format", format, "--output", output, *options)
        assert status == 0, err
    expected, found = read_segments(given), read_segments(output)
    for one, other in zip(expected, found, strict=True):
        assert (other.start, other.end) == pytest.approx((one.start, one.end), abs=1e-3)
        if format in ("textgrid", "eaf", "csv"):
            assert other.speaker == one.speaker and (channels == "mix" or other.channel == one.channel)
    rows = [json.loads(line) for line in predict("--format", "json", *options)[1].splitlines()]
    assert all(row["emotion"] in str(other.columns) for row, other in zip(rows, found))
    again = predict(
        "--format", "json", "--segments", output, "--channels", channels if format == "csv" else "mix", call
    )
    assert again[0] == 0 and len(again[1].splitlines()) == len(rows)


def test_the_libraries_of_the_formats_take_what_is_written(predict, call, table, tmp_path):
    textgrid = pytest.importorskip("praatio.textgrid", reason="praatio is not installed")
    pympi = pytest.importorskip("pympi", reason="pympi-ling is not installed")
    for suffix in ("TextGrid", "eaf"):
        options = ("--format", suffix.lower(), "--output", tmp_path / f"a.{suffix}", "--segments", table, call)
        assert predict(*options)[0] == 0
    grid = textgrid.openTextgrid(str(tmp_path / "a.TextGrid"), includeEmptyIntervals=True, reportingMode="error")
    assert grid.validate("error") and grid.maxTimestamp == 12
    assert grid.tierNames[:3] == ("A emotion", "A posterior", "A EIS") and "A (2) emotion" in grid.tierNames
    assert [(one.start, one.end) for one in grid.getTier("A (2) emotion").entries if one.label] == [(2, 4.124)]
    eaf = pympi.Eaf(str(tmp_path / "a.eaf"))
    assert [one[:2] for one in eaf.get_annotation_data_for_tier("A emotion")] == [(500, 2250)]
    assert eaf.get_parameters_for_tier("A emotion")["PARTICIPANT"] == "A"


def test_labels_that_we_did_not_write_are_kept(predict, call, tmp_path):
    contents = {
        "rttm": "SPEAKER call 1 0.5 1.2 <NA> <NA> S1 <NA> <NA>\n",
        "txt": "0.5\t1.5\tHallo\n",
        "srt": "1\n00:00:01,000 --> 00:00:02,500\nHallo\n",
        "vtt": "WEBVTT\n\n00:01.000 --> 00:02.500\nHallo\n",
        "TextGrid": 'File type = "ooTextFile"\nObject class = "TextGrid"\n    name = "emotion"\n',
        "eaf": '<?xml version="1.0"?>\n<ANNOTATION_DOCUMENT AUTHOR="me">\n',
        "svg": "<svg/>",
        "html": "<!DOCTYPE html>\n",
    }
    for suffix, content in contents.items():
        path = tmp_path / f"mine.{suffix}"
        path.write_text(content)
        option = ("--plot", path) if suffix in ("svg", "html") else ("--format", "csv", "--output", path)
        status, _, err = predict(*option, call)
        assert status == 1 and f"mine.{suffix}: holds something that speecheq predict did not write" in err
        assert path.read_text() == content
    (tmp_path / "a.csv").write_text("start,end\n1,2\n")
    status, _, err = predict("--segments", tmp_path / "a.csv", "--output", tmp_path / "a.csv", call)
    assert status == 1 and "is to be predicted" in err


def test_each_channel_has_its_own_speech_and_timeline(predict, call):
    status, out, _ = predict("--channels", "each", "--segments", "speech", *SILERO, "--format", "json", call)
    rows = [json.loads(line) for line in out.splitlines()]
    expected = [(channel, *stretch) for channel, stretches in SPEECH.items() for stretch in stretches]
    assert status == 0 and [row["channel"] for row in rows] == [channel for channel, _, _ in expected]
    for row, (_, start, end) in zip(rows, expected):
        assert (row["start"], row["end"]) == pytest.approx((start, end), abs=0.2)
    status, out, _ = predict("--channels", 2, "--segments", "speech", *SILERO, "--format", "json", call)
    alone = [json.loads(line) for line in out.splitlines()]
    for row, together in zip(alone, rows[2:], strict=True):  # the mini-batch changes the last digit
        for name in ("posterior", "eis"):
            assert row.pop(name) == pytest.approx(together.pop(name), abs=1e-5)
    assert alone == rows[2:]
    status, out, _ = predict("--segments", "speech", *SILERO, "--format", "json", "--pause", 0.5, call)
    assert [json.loads(line)["channel"] for line in out.splitlines()] == [None] * 4


def test_a_channel_is_predicted_as_its_samples_alone(predict, predictor, call):
    status, out, _ = predict("--channels", 2, "--format", "json", call)
    (alone,) = predictor(soundfile.read(call, dtype="float32")[0][:, 1], RATE)
    assert json.loads(out)["posterior"] == pytest.approx(alone.posterior, abs=1e-5)


def test_recordings_above_30_s_are_cut_into_their_speech(experiment):
    pieces = [speech_like(3, 100), hiss(1.0, -70), speech_like(2, 140), hiss(30, -70), speech_like(20, 120)]
    samples = np.concatenate(pieces)
    starts = np.cumsum([0, *map(len, pieces)]) / RATE
    along = Predictor(experiment / "best.pt", "cpu", speech_activity="silero")
    first, *last = along(samples, RATE)
    assert (first.start, first.end) == pytest.approx((0, 6), abs=0.2), "a pause of 1 s does not end it"
    assert last[0].start == pytest.approx(starts[4], abs=0.2) and last[-1].end == pytest.approx(starts[5], abs=0.2)
    assert len(last) == 2 and max(one.end - one.start for one in last) <= LONGEST_STRETCH
    short = Predictor(experiment / "best.pt", "cpu", windows=Windows(pause=0.5), speech_activity="silero")
    assert [round(one.end - one.start) for one in short(samples, RATE)[:2]] == [3, 2]
    windows = Predictor(experiment / "best.pt", "cpu", windows=Windows(into="windows"), speech_activity="silero")
    assert {round(one.end - one.start) for one in windows(samples, RATE)} == {6}


def test_a_long_segment_of_a_file_has_one_answer(predict, predictor, write_noise, tmp_path):
    wav = write_noise(tmp_path / "long.wav", 45)
    (tmp_path / "a.csv").write_text("start,end\n2,44\n2,44\n")
    status, out, _ = predict("--segments", tmp_path / "a.csv", "--phones", "--gender", "--format", "json", wav)
    row, other = (json.loads(line) for line in out.splitlines())
    assert status == 0 and (row["start"], row["end"]) == (2, 44) and row == other, "rows that are equal are two rows"
    windows = predictor(soundfile.read(wav, dtype="float32")[0][2 * RATE : 44 * RATE], RATE)
    weights = [one.end - one.start for one in windows]
    for name, value in row["posterior"].items():
        assert value == pytest.approx(np.average([one.posterior[name] for one in windows], weights=weights), abs=1e-5)
    assert row["phones"] == [phone for one in windows for phone in one.phones]


def test_a_recording_as_a_whole(predict, call, tmp_path):
    options = ("--channels", "each", "--segments", "speech", *SILERO, "--whole")
    status, out, _ = predict(*options, "--format", "json", call)
    rows = [json.loads(line) for line in out.splitlines()]
    wholes = [row for row in rows if row.get("part") == "recording"]
    assert status == 0 and [row["channel"] for row in wholes] == [1, 2] and len(rows) == 6
    for whole in wholes:
        own = [row for row in rows if "part" not in row and row["channel"] == whole["channel"]]
        weights = [row["speech"] for row in own]
        for name, value in whole["posterior"].items():
            assert value == pytest.approx(
                np.average([row["posterior"][name] for row in own], weights=weights), abs=1e-5
            )
        mean = np.average([row["eis"] for row in own], weights=weights)
        variance = np.average([(row["eis"] - mean) ** 2 for row in own], weights=weights)
        assert (whole["eis"], whole["eis_deviation"]) == pytest.approx((mean, variance**0.5), abs=1e-4)
        assert sum(whole["shares"].values()) == pytest.approx(1, abs=1e-5) and whole["segments"] == len(own)
        assert whole["peaks"][0]["eis"] == pytest.approx(max(row["eis"] for row in own))
    status, out, _ = predict(*options, "--format", "csv", call)
    table = list(csv.DictReader(io.StringIO(out)))
    assert [row["part"] for row in table].count("recording") == 2 and float(table[-1]["eis_deviation"]) >= 0
    for format in ROWS:  # what it wrote is known as its own, and segments are read back without the whole
        for _ in range(2):
            assert predict(*options, "--format", format, "--output", tmp_path / f"out.{format}", call)[0] == 0
    assert len(read_segments(tmp_path / "out.csv")) == 4
    assert predict(*options, call)[1].splitlines()[-1].count(" as a whole: ") == 1


def test_the_timeline_in_python(experiment, call, table):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    along = Predictor(experiment / "best.pt", "cpu", windows=Windows(into="speech"), speech_activity="silero")
    timeline = along.timeline(call, channels="each")
    assert [one.channel for one in timeline.segments] == [1, 1, 2, 2] and [one.channel for one in timeline.whole] == [
        1,
        2,
    ]
    assert json.loads(json.dumps(timeline.to_dict()))["segments"][0] == timeline.segments[0].to_dict()
    frame = along.timeline(call, segments=table).to_frame()
    assert isinstance(frame, pandas.DataFrame) and list(frame["start"]) == [0.5004, 2.0, 9.5]
    assert list(frame["mood"]) == ["good", "bad", "so"] and frame["p_anger"].between(0, 1).all()
    with pytest.raises(InputError, match="the channels 'both' are not mix, each, or the number"):
        along.timeline(call, channels="both")


def test_a_timeline_writes_what_the_command_does(experiment, call, table, predict, tmp_path):
    timeline = Predictor(experiment / "best.pt", "cpu").timeline(call, segments=table)
    for format in (*ROWS, *LABELS):
        whole = ["--whole"] if format in ROWS else []
        path = tmp_path / f"out.{SUFFIXES.get(format, format)}"
        timeline.write(path, format)
        _, out, _ = predict("--segments", table, "--format", format, *whole, call)
        written = path.read_text(encoding="utf-8")
        assert re.sub('DATE="[^"]*"', "", written) == re.sub('DATE="[^"]*"', "", out)
    with pytest.raises(InputError, match="there is no format 'word'; choose one of text, json, "):
        timeline.write(tmp_path / "out.doc", "word")
    with pytest.raises(InputError, match="which is to be predicted"):
        timeline.write(call, "csv")


def test_a_notebook_shows_picture_and_table(experiment, call, table, predict, tmp_path):
    along = Predictor(experiment / "best.pt", "cpu")
    timeline = along.timeline(call, segments=table)
    timeline.plot(tmp_path / "python.html")
    assert predict("--segments", table, "--plot", tmp_path / "command.html", call)[0] == 0
    page = (tmp_path / "command.html").read_text()
    assert (tmp_path / "python.html").read_text() == page
    shown = timeline._repr_html_()
    assert shown.strip() in page and "<img" in shown and shown.count("<tr>") == 4 and "B &amp; &lt;C&gt;" in shown
    assert timeline.segments._repr_html_().count("<tr>") == 4 and "<th>recording" not in timeline.segments._repr_html_()
    assert "<th>recording" in Predictions([*timeline.segments, Prediction("other.wav", 0, 1)])._repr_html_()
    with pytest.raises(InputError, match="a picture is written as .svg, .png or .html"):
        timeline.plot(tmp_path / "out.pdf")


@pytest.mark.parametrize(
    "options, sentence",
    [
        (("--channels", "3"), "call.wav: has 2 channels, and channel 3 is to be predicted"),
        (("--channels", "0"), "the channels '0' are not mix, each, or the number of a channel"),
        (("--segments", "none.csv"), "none.csv: there is no such file"),
        (("--segments", "outside.csv"), "is to go from 11 to 14 s, but the recording lasts 12 s"),
        (("--segments", "other.rttm"), "other.rttm: lists no segments of"),
        (
            ("--segments", "given.csv", "--channels", "each"),
            "given.csv, line 2: names no channel, which --channels each",
        ),
        (("--segments", "given.csv", "two.wav"), "does not say of which recording its segments are, and 2 are given"),
        (("--segments", "given.csv", "--window", "2"), "--window cuts recordings, and --segments names a file"),
        (("--segments", "speech", "--window", "2"), "--segments speech and --window exclude each other"),
        (("--segments", "speech", "--speech-activity", "none"), "cut into their speech, and speech is not looked for"),
        (("--segments", "windows", "--pause", "2"), "--pause ends a segment of speech"),
        (("--tier", "A"), "--tier is a tier of the file of --segments"),
        (("--whole", "--format", "srt"), "--whole has no place in the format srt"),
        (("--format", "srt", "two.wav"), "--format srt is of one recording, and 2 are given"),
        (("--plot", "a.svg", "two.wav"), "--plot is of one recording, and 2 are given"),
        (("--plot", "a.pdf"), "a.pdf: a picture is written as .svg, .png or .html"),
    ],
)
def test_faults_are_one_line(predict, call, table, write_noise, tmp_path, monkeypatch, options, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outside.csv").write_text("start,end\n11,14\n")
    (tmp_path / "other.rttm").write_text("SPEAKER other 1 0.5 1.2 <NA> <NA> S1 <NA> <NA>\n")
    write_noise(tmp_path / "two.wav", 1)
    status, out, err = predict(*options, call)
    assert status == 1 and out == "" and sentence in err and "Traceback" not in err


def test_segments_that_cannot_be_predicted_leave_the_others(predict, call, tmp_path):
    (tmp_path / "a.csv").write_text("file,start,end\ncall.wav,1,2\ncall,11,14\nelse,1,2\n")
    status, out, err = predict("--segments", tmp_path / "a.csv", call)
    assert status == 1 and len(out.splitlines()) == 1 and "1 of 2 segments could not be predicted" in err
    assert "a.csv: 1 segments of other recordings are left out" in err
