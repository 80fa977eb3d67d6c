"""Files that libsndfile cannot read: what they are said to be, and what to do."""

import gzip

import pytest
from other_formats import RARE_WAV

from speecheq.common.errors import InputError
from speecheq.corpora import decoding, read_header
from speecheq.corpora.audio_formats import OtherFormatError


@pytest.mark.parametrize(
    "name, content, kind",
    [
        ("a b.m4a", b"\0\0\0\x20ftypM4A \0\0\0\0", "MPEG-4"),
        ("a.wav", b"\0\0\0\x20ftypM4A \0\0\0\0", "MPEG-4"),
        ("a.webm", b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81", "WebM or Matroska"),
        ("a.amr", b"#!AMR\n\x3c\x91\x17\x16", "AMR"),
        ("a.aac", b"\xff\xf1\x60\x40\x02\x1f\xfc", "AAC"),
        ("a.wma", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9", "Windows Media"),
        ("a.wav", RARE_WAV, "WAV with a rare codec"),
        ("a.mpg", b"\0\0\1\xba\x44\0\4\0", "a mpg file"),
    ],
)
def test_other_formats_are_named_with_the_remedy_without_pyav(tmp_path, monkeypatch, name, content, kind):
    monkeypatch.setattr(decoding, "can_decode", lambda: False)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OtherFormatError) as refused:
        read_header(tmp_path / name)
    sentence = str(refused.value)
    assert sentence.startswith(f"{tmp_path / name}: is {kind}") and "\n" not in sentence
    assert "convert it with ffmpeg -i " in sentence and "the extra av (pip install av)" in sentence
    assert "'" in sentence or " b" not in name, "blanks are quoted"
    assert f"{tmp_path / name} {tmp_path / name}" not in sentence, "the file is not to be written over"


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        ("a.wav", "Gänse sind lustig\n".encode() * 300, "it seems to be text; copy it again"),
        ("a.m4a", b"\n<!DOCTYPE html><html>404", "it seems to be a web page; copy it again"),
        ("._a.wav", b"\0\5\x16\7\0\2\0\0Mac OS X        ", "is a leftover of macOS, which has .* no sound; remove it"),
        ("a.wav", gzip.compress(b"wav", mtime=0), "it seems to be an archive; unpack it"),
        ("a.raw", bytes(range(256)) * 9, "seems to be samples without a header; add one, .* ffmpeg -f s16le"),
        ("a.pcm", bytes(range(256)) * 9, "seems to be samples without a header; add one, .* ffmpeg -f s16le"),
        ("a.wav", bytes(range(255, 0, -1)) * 9, "is not audio that can be read .*; copy it again"),
    ],
)
def test_what_is_no_audio_is_said_to_be_what_it_seems(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: .*{sentence}") as refused:
        read_header(tmp_path / name)
    assert not isinstance(refused.value, OtherFormatError)
