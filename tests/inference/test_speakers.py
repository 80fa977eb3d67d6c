"""Tables that say whose recordings are whose (``--speaker-from FILE``)."""

from pathlib import Path

import pytest

from speecheq.common.errors import InputError
from speecheq.inference.recordings import Segment
from speecheq.inference.speakers import read_speakers

ROWS = "file\tspeaker\r\nb.wav\ttwo\r\na.wav\tone, or two\r\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("s.tsv", ROWS.encode()),
        ("s.tsv", ROWS.encode("utf-16")),
        ("s.csv", ROWS.replace("\t", ";").encode("utf-8-sig")),
        ("s.txt", ROWS.encode()),
    ],
)
def test_tables_as_spreadsheets_save_them(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    speaker_of = read_speakers(tmp_path / name)
    assert speaker_of(Segment("a.wav", Path("a.wav"))) == "one, or two"
    assert speaker_of(Segment("id", tmp_path / "b.wav")) == "two", "relative to the table's folder"
    with pytest.raises(InputError, match="names no speaker of c.wav; add a line for it"):
        speaker_of(Segment("c.wav", Path("c.wav")))


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ("file,speaker\n\n\na.wav,\n", "line 4: lacks the file or its speaker"),
        ("file,speaker\na.wav,one\n\na.wav,two\n", "line 4: a.wav has two speakers"),
        ("file,speaker\na.wav,one,two\n", "line 2: expected 2 fields, as in the first line, found 3"),
        ("file,sex\na.wav,F\n", "line 1: lacks the column speaker"),
        ("", "line 1: lacks the column file"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(tmp_path, rows, fault):
    (tmp_path / "s.csv").write_text(rows)
    with pytest.raises(InputError, match=fault):
        read_speakers(tmp_path / "s.csv")
