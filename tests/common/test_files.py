"""Files and folders appear whole or not at all."""

import errno
import fcntl
import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest

from speecheq.common.errors import InputError
from speecheq.common.files import (
    folder_in_use,
    is_locked,
    locked_folder,
    read_json,
    remove_leftovers,
    whole_file,
    whole_folder,
    write_json,
    write_text,
)
from speecheq.common.log import set_up_logging

ROOT = Path(__file__).resolve().parents[2]


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
    with pytest.raises(InputError, match="a.json: is not valid JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(tmp_path, kind):
    """The limit on file sizes stands for the end of the disk: the write itself fails."""
    write_text(tmp_path / "a" if kind == "file" else tmp_path / "a" / "inside", "earlier")
    before = names(tmp_path)
    program = textwrap.dedent(f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        from speecheq.common.errors import InputError
        from speecheq.common.files import whole_file, whole_folder
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


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path):
    folder = tmp_path / "fold[1]"
    kept = ["notes.txt", ".tmp.mine", "fold[1]/last.pt", "fold[1]/.hidden", "fold1/x", ".tmp12.other/half"]
    left = [".tmp12.fold[1]/half", ".old345.fold[1]/before", "fold[1]/.tmp123.last.pt", "fold[1]/.tmp6.pictures/half"]
    for name in (*kept, *left):
        write_text(tmp_path / name, "x")
    remove_leftovers(folder)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    remove_leftovers(tmp_path / "nothing here")


@contextmanager
def elsewhere(lock, folder):
    """Another process that enters a lock and then keeps it until its input ends."""
    program = (
        f"import sys; from speecheq.common.files import {lock.split('(')[0]}; from speecheq.common.log import *;"
        f"set_up_logging(); lock = {lock}; lock.__enter__(); print('has it', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        yield process
        process.stdin.close()


def has_it(process):
    return process.stdout.readline() == "has it\n"


def test_one_process_writes_to_a_folder(tmp_path):
    folder = tmp_path / "new" / "folder"
    with elsewhere("locked_folder(sys.argv[1])", folder) as other:
        assert has_it(other) and is_locked(folder)
        with pytest.raises(InputError, match=f"folder: process {other.pid} on .* is writing there; wait until it has"):
            locked_folder(folder).__enter__()
    assert not is_locked(folder) and not is_locked(tmp_path / "nowhere")
    with locked_folder(folder):
        pass


def test_who_writes_is_waited_for(tmp_path):
    with locked_folder(tmp_path / "a"), elsewhere("locked_folder(sys.argv[1], wait=True)", tmp_path / "a") as other:
        assert f"a: process {os.getpid()} on " in other.stderr.readline()
        fcntl.lockf(own_lock(tmp_path / "a"), fcntl.LOCK_UN)
        assert has_it(other)


def own_lock(folder):
    """The open file of a lock that this process has."""
    name = str(folder.with_name(f".{folder.name}.lock"))
    return next(
        int(number)
        for number in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{number}") and os.readlink(f"/proc/self/fd/{number}") == name
    )


def test_many_may_read_while_nobody_writes(tmp_path):
    with elsewhere("folder_in_use(sys.argv[1])", tmp_path / "a") as first:
        assert has_it(first)
        with elsewhere("folder_in_use(sys.argv[1])", tmp_path / "a") as second:
            assert has_it(second)
        for wait in (False, True):
            with pytest.raises(InputError, match="a: another process is reading this folder.* wait until it"):
                locked_folder(tmp_path / "a", wait).__enter__()
        with folder_in_use(tmp_path / "a"):
            pass
    with locked_folder(tmp_path / "a"), elsewhere("folder_in_use(sys.argv[1])", tmp_path / "a") as other:
        assert "is writing there; waiting until it has ended" in other.stderr.readline()
        fcntl.lockf(own_lock(tmp_path / "a"), fcntl.LOCK_UN)
        assert has_it(other)


def test_a_file_system_without_locks_is_named_in_a_warning(tmp_path, monkeypatch, capsys):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    set_up_logging()
    monkeypatch.setattr(fcntl, "lockf", none)
    with locked_folder(tmp_path / "a", wait=True), folder_in_use(tmp_path / "b"):
        assert "has no locks; run nothing else in the same folder" in capsys.readouterr().err


def test_other_faults_name_the_file_and_not_the_temporary_one(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as refused, whole_file(tmp_path / "folder") as temporary:
        temporary.touch()
    assert refused.value.filename == str(tmp_path / "folder") and names(tmp_path) == ["folder"]
    with pytest.raises(FileNotFoundError) as missing, whole_file(tmp_path / "a.txt") as temporary:
        open(temporary / "b")
    assert missing.value.filename == str(tmp_path / "a.txt" / "b")
