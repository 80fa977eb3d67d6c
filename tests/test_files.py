"""Files and folders appear whole or not at all."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from speecheq.errors import InputError
from speecheq.files import read_json, whole_file, whole_folder, write_json, write_text

ROOT = Path(__file__).resolve().parent.parent


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_name_when_it_is_whole(tmp_path):
    with whole_file(tmp_path / "new" / "cuts.jsonl.gz") as temporary:
        assert temporary.name.endswith(".cuts.jsonl.gz") and not (tmp_path / "new" / "cuts.jsonl.gz").exists()
        temporary.write_text("all of it")
    assert (tmp_path / "new" / "cuts.jsonl.gz").read_text() == "all of it"
    assert names(tmp_path / "new") == ["cuts.jsonl.gz"]


def test_a_failure_leaves_the_earlier_file(tmp_path):
    write_text(tmp_path / "a.txt", "earlier")
    with pytest.raises(RuntimeError), whole_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "earlier" and names(tmp_path) == ["a.txt"]


def test_a_folder_takes_the_place_of_the_earlier_one(tmp_path):
    for content in ("first", "second"):
        with whole_folder(tmp_path / "deep" / "folder") as temporary:
            (temporary / content).write_text(content)
    assert names(tmp_path / "deep") == ["folder"] and names(tmp_path / "deep" / "folder") == ["second"]
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "deep" / "folder") as temporary:
        (temporary / "third").write_text("")
        raise RuntimeError
    assert names(tmp_path / "deep") == ["folder"] and names(tmp_path / "deep" / "folder") == ["second"]


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(InputError, match="is a file"), whole_folder(tmp_path / "a"):
        pass
    assert (tmp_path / "a").read_text() == "mine" and names(tmp_path) == ["a"]


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": "愤怒"})
    assert read_json(tmp_path / "a.json") == {"a": "愤怒", "b": 1}
    assert "愤怒" in (tmp_path / "a.json").read_text(encoding="utf-8")
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(InputError, match="a.json: is not readable as JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(tmp_path, kind):
    """The limit on file sizes stands for the end of the disk: the write itself fails."""
    write_text(tmp_path / "a" if kind == "file" else tmp_path / "a" / "inside", "earlier")
    before = names(tmp_path)
    program = textwrap.dedent(f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        from speecheq.errors import InputError
        from speecheq.files import whole_file, whole_folder
        try:
            with whole_{kind}({str(tmp_path / "a")!r}) as temporary:
                path = temporary if {kind == "file"} else temporary / "inside"
                path.write_bytes(b"x" * 5000)
        except InputError as error:
            print(error)
    """)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert ended.stdout.startswith(f"{tmp_path / 'a'}: could not be written, ") and "free some space" in ended.stdout
    assert names(tmp_path) == before
    assert (tmp_path / "a" if kind == "file" else tmp_path / "a" / "inside").read_text() == "earlier"
