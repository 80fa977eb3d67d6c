"""The clips of a folder and the lines of a table."""

import pytest

from speecheq.corpora import InputError, iter_clips, read_lines


def test_a_full_folder_of_links_and_hidden_files(toys, tmp_path):
    for name in ("b.wav", "a.WAV", "._a.wav", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [clip.name for clip in iter_clips(tmp_path)] == ["a.WAV", "b.wav"]


def test_lines_have_their_numbers_and_no_other_line_ends(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes("\ufeffone\r\n\n  \nfour\u2028still four\n".encode())
    assert list(read_lines(path)) == [(f"{path}, line 1", "one"), (f"{path}, line 4", "four\u2028still four")]
    path.write_bytes(b"one\n\xff\xfe\n")
    with pytest.raises(InputError, match="line 2: is not UTF-8"):
        list(read_lines(path))
    with pytest.raises(InputError, match="there is no such file"):
        list(read_lines(tmp_path / "u.txt"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_lines_in_the_first_encoding_that_fits(tmp_path, encoding):
    path = tmp_path / "t.txt"
    path.write_bytes("一\t我们\r\n\r\n二\t你好\r\n".encode(encoding))
    expected = [(f"{path}, line 1", "一\t我们"), (f"{path}, line 3", "二\t你好")]
    assert list(read_lines(path, ("utf-16", "utf-8", "gb18030"))) == expected
    assert list(read_lines(path, ("utf-8", "utf-16", "gb18030"))) == expected


def test_lines_that_fit_no_encoding_name_the_line(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(b"good\n\xff\xff\n")
    with pytest.raises(InputError, match="line 2: is not UTF-16 or UTF-8 or GB18030"):
        list(read_lines(path, ("utf-16", "utf-8", "gb18030")))
