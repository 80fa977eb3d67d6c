"""``speecheq predict --stream -``: what programs write into a pipe, the output line by line, and its end."""

import csv
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from speech_like import RATE, hiss, silence, speech_like

from speecheq.common.errors import InputError
from speecheq.inference import stream_command
from speecheq.inference.stream_input import ENCODINGS, StreamFormat, open_stream

SPEECH = np.concatenate((silence(0.5), speech_like(2), silence(2), speech_like(1.5, 180), silence(0.5)))
SPEECH = SPEECH + hiss(len(SPEECH) / RATE, -70)
PCM = (SPEECH * 32767).round().astype("<i2").tobytes()
ENERGY = ("--speech-activity", "energy")


@pytest.fixture
def stream(predict, tmp_path, monkeypatch):
    """``stream(bytes, arguments...)``: what predict --stream - does with these bytes on standard input."""

    def run(content, *arguments):
        (tmp_path / "input").write_bytes(content)
        descriptor = os.open(tmp_path / "input", os.O_RDONLY)
        monkeypatch.setattr(stream_command, "standard_input", lambda: descriptor)
        try:
            return predict("--stream", *ENERGY, *arguments, "-")
        finally:
            os.close(descriptor)

    return run


def wav(length, content=PCM, tag=1, channels=1, bits=16, extra=b""):
    """A wav stream whose header gives ``length``; ``extra`` chunks stand before the samples."""
    frame = channels * bits // 8
    header = struct.pack("<4sIHHIIHH", b"fmt ", 16, tag, channels, RATE, RATE * frame, frame, bits)
    return (
        b"RIFF" + struct.pack("<I", length) + b"WAVE" + header + extra + b"data" + struct.pack("<I", length) + content
    )


@pytest.fixture(scope="module")
def of_file(experiment, tmp_path_factory):
    """The rows for the same samples as a file."""
    from speecheq.inference.predictor import Predictor
    from speecheq.inference.windows import Windows

    path = tmp_path_factory.mktemp("file") / "some.wav"
    soundfile.write(path, np.frombuffer(PCM, "<i2"), RATE)
    predictor = Predictor(experiment / "best.pt", "cpu", windows=Windows(into="speech"), speech_activity="energy")
    return [(round(one.start, 6), round(one.end, 6), one.emotion) for one in predictor(path)]


def rows(text):
    lines = map(json.loads, text.splitlines())
    return [(line["start"], line["end"], line["emotion"]) for line in lines]


@pytest.mark.parametrize(
    "content",
    [
        wav(0xFFFFFFFF),  # ffmpeg
        wav(0x7FFFF000),  # sox
        wav(0x80000000),  # arecord
        wav(0),
        wav(len(PCM), PCM + b"LIST\4\0\0\0abcd"),
        wav(0xFFFFFFFF, extra=b"LIST\5\0\0\0abcde\0"),
    ],
)
def test_wav_streams_are_answered_as_the_file(stream, of_file, content):
    status, text, errors = stream(content, "--format", "json")
    assert (status, rows(text)) == (0, of_file) and len(of_file) == 2
    assert "ends" not in errors.replace("ends at", "")


def test_raw_samples(stream, of_file):
    assert rows(stream(PCM, "--rate", RATE, "--format", "json")[1]) == of_file
    floats = np.frombuffer(PCM, "<i2").astype("<f4") / 32768
    assert rows(stream(floats.tobytes(), "--rate", RATE, "--encoding", "f32le", "--format", "json")[1]) == of_file
    stereo = np.repeat(np.frombuffer(PCM, "<i2")[:, None], 2, axis=1).tobytes()
    options = ("--rate", RATE, "--stream-channels", 2, "--channels", "each", "--format", "csv")
    table = list(csv.DictReader(io.StringIO(stream(stereo, *options)[1])))
    assert [row["channel"] for row in table] == ["1", "2", "1", "2"]
    assert all(
        sum(float(row[name]) for name in row if name.startswith("p_")) == pytest.approx(1, abs=1e-4) for row in table
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_is_read_as_libsndfile_writes_it(encoding):
    subtype, order, size = ENCODINGS[encoding]
    written = io.BytesIO()
    soundfile.write(written, SPEECH[:999], RATE, format="RAW", subtype=subtype, endian=order)
    content = written.getvalue()
    assert len(content) == 999 * size
    pieces = iter([content[:1], content[1:700], content[700:]])
    _, blocks = open_stream(pieces, StreamFormat(RATE, encoding))
    read = np.concatenate(list(blocks))
    assert read.shape == (999, 1)
    assert np.abs(read[:, 0] - SPEECH[:999]).max() < (0.02 if size == 1 else 1e-4)


def test_a_sample_that_is_not_whole_is_left_out(stream, of_file):
    status, text, errors = stream(PCM + b"\1", "--rate", RATE, "--format", "json")
    assert (status, rows(text)) == (0, of_file)
    assert "ends inside a sample; its last 1 bytes are left out" in errors
    status, _, errors = stream(wav(len(PCM) + 100), "--format", "json")
    assert status == 0 and "ends 100 bytes before its header says" in errors


def test_the_whole_and_text(stream):
    status, text, _ = stream(PCM, "--rate", RATE, "--whole")
    assert status == 0 and text.splitlines()[-1].startswith("- 0.") and " as a whole: " in text
    assert len(text.splitlines()) == 3


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--format", "textgrid"), "labels a whole recording, and a stream has no end yet"),
        (("--plot", "a.html"), "--plot draws a whole recording"),
        (("--window", "4"), "cut into its speech"),
        (("--one-speaker",), "need whole recordings"),
        (("--encoding", "u8"), "needs its --rate"),
        ((), "is not wav; raw samples need their format: --rate 16000 --encoding s16le"),
        (("--rate", RATE, "--channels", "2"), "has 1 channels?, and channel 2"),
    ],
)
def test_what_does_not_do_is_one_sentence(stream, arguments, words):
    status, text, errors = stream(PCM, *arguments)
    assert status == 1 and text == "" and re.search(words, errors) and "Traceback" not in errors


def test_other_input_that_is_no_stream(stream, predict):
    assert "ends before its first sample" in stream(b"", "--rate", RATE)[2]
    assert "ends before its first sample" in stream(b"RIFF", "--format", "json")[2]
    assert "leave out --rate" in stream(wav(0), "--rate", RATE)[2]
    assert "are none that a stream may have" in stream(wav(0, tag=2, bits=4))[2]
    assert "give --stream too" in predict("--rate", RATE, "some.wav")[2]
    assert "standard input alone" in predict("--stream", "some.wav")[2]
    with pytest.raises(InputError, match="does not end"):
        open_stream(iter([wav(0)[:36] + b"junk" + struct.pack("<I", 1 << 30) + bytes(64)]), None)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, None])
def test_lines_come_while_the_stream_goes_on_and_what_is_open_is_answered_at_its_end(experiment, ending):
    command = [sys.executable, "-m", "speecheq.cli", "predict", "--model", str(experiment / "best.pt"), *ENERGY]
    command += ["--stream", "--rate", str(RATE), "--format", "json", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        try:
            running.stdin.write(PCM)
            running.stdin.flush()
            assert json.loads(running.stdout.readline())["end"] == pytest.approx(2.5, abs=0.1)
            if ending is None:
                running.stdin.close()
            else:
                running.send_signal(ending)
            assert json.loads(running.stdout.readline())["end"] == pytest.approx(6, abs=0.1)
            assert running.wait(120) == 0
            assert b"Traceback" not in running.stderr.read() and running.stdout.read() == b""
        finally:
            running.kill()
