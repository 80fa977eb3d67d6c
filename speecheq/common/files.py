"""Atomic writing of files and folders, and locks on folders."""

import errno
import fcntl
import glob
import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from speecheq.common.errors import InputError
from speecheq.common.log import log

PathLike = str | Path

# errno values for: disk full, quota used up, file size limit reached.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# errno values for: writing is not permitted.
NO_WRITING = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def write_fault_is_an_input_error(path: PathLike) -> Iterator[None]:
    """Turn a full disk and a lack of permission into an InputError that names ``path``.

    Other errors name the file that was to be written, where they named a temporary one.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (*NO_SPACE, *NO_WRITING):
            if isinstance(error.filename, str | os.PathLike):
                error.filename = _final_name(error.filename)
            raise
        path = _final_name(path)
        remedy = "free some space" if error.errno in NO_SPACE else "make its folder writable, or name another,"
        raise InputError(
            f"{path}: could not be written, {os.strerror(error.errno).lower()}; {remedy} and run the same command "
            "again."
        ) from error


def _final_name(path: PathLike | os.PathLike[str]) -> str:
    """The name that a temporary file or folder is to have, or that of a file in it."""
    return re.sub(r"\.tmp\d+\.", "", os.fspath(path))


@contextmanager
def whole_file(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, which is renamed to ``path`` on success and removed on failure.

    The temporary path keeps the extension of ``path``, for writers that depend on it (``.jsonl.gz``).
    """
    path = Path(path)
    temporary = path.with_name(f".tmp{os.getpid()}.{path.name}")
    try:
        with write_fault_is_an_input_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
    finally:
        if temporary.exists():
            temporary.unlink()


@contextmanager
def whole_text(path: PathLike) -> Iterator[TextIO]:
    """Yield a stream of UTF-8 text for the file ``path``, which is written as by ``whole_file``; line ends stay."""
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        yield stream


@contextmanager
def whole_folder(path: PathLike) -> Iterator[Path]:
    """Yield a new folder beside ``path``, which replaces ``path`` on success and is removed on failure.

    Raises InputError if ``path`` is a file.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file, but a folder is to be written there; remove it or name another folder.")
    temporary = path.with_name(f".tmp{os.getpid()}.{path.name}")
    previous = path.with_name(f".old{os.getpid()}.{path.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with write_fault_is_an_input_error(path):
            temporary.mkdir(parents=True)
            yield temporary
            for written in temporary.rglob("*"):
                if written.is_file():
                    with open(written, "rb") as stream:
                        os.fsync(stream.fileno())
            if path.exists():
                os.replace(path, previous)
            try:
                os.replace(temporary, path)
            except BaseException:
                if previous.exists():
                    os.replace(previous, path)
                raise
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def whole_output_folder(path: PathLike, kind: str, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Like ``whole_folder``; raises InputError if ``path`` holds files of other suffixes, which would be lost."""
    others = [found.name for found in Path(path).glob("*") if found.suffix not in suffixes]
    if others:
        raise InputError(f"{path}: holds files that are not {kind} ({', '.join(sorted(others))}); move them away.")
    with whole_folder(path) as temporary:
        yield temporary


# Temporary names of whole_file and whole_folder.
LEFTOVERS = (".tmp[0-9]*", ".old[0-9]*")


def remove_leftovers(path: PathLike) -> None:
    """Remove partial files that killed processes left beside ``path`` and, if it is a folder, in it.

    Call it only while holding the lock (``locked_folder``).
    """
    path = Path(path)
    names = glob.escape(path.name)
    found = [left for kind in LEFTOVERS for left in path.parent.glob(f"{kind}.{names}")]
    found += [left for kind in LEFTOVERS for left in path.glob(f"{kind}.*")]
    for left in found:
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


# Bytes of a lock file. A writer locks both exclusively; readers share a lock on the second.
WRITING, IN_USE = 0, 1
# errno values of file systems without locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def _lock_file(folder: PathLike) -> Path:
    """The lock file: beside the folder, which may be replaced while it is locked. It is never removed."""
    folder = Path(os.path.abspath(folder))
    return folder.with_name(f".{folder.name}.lock")


def _is_taken(stream: TextIO, kind: int, byte: int) -> bool:
    """Try to lock one byte of a lock file, without waiting. Returns whether another process holds the lock."""
    try:
        fcntl.lockf(stream, kind | fcntl.LOCK_NB, 1, byte)
    except OSError as error:
        if error.errno in NO_LOCKS:
            log.warning("%s: the file system has no locks; run nothing else in the same folder", stream.name)
            return False
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        return True
    return False


def _holder(stream: TextIO) -> str:
    stream.seek(0)
    return stream.read().strip() or "another process"


def _wait_for(stream: TextIO, kind: int, byte: int, folder: PathLike) -> None:
    if _is_taken(stream, kind, byte):
        log.info("%s: %s is writing there; waiting until it has ended", folder, _holder(stream))
        fcntl.lockf(stream, kind, 1, byte)


@contextmanager
def locked_folder(folder: PathLike, wait: bool = False) -> Iterator[None]:
    """Inside this context, only this process may write to ``folder``.

    Waits for another writer if ``wait``, else raises InputError, which names it. Raises InputError too if another
    process reads there (``folder_in_use``). The lock ends with the process, however that ends; child processes, such as
    a data loader that outlives its training, do not inherit it. A process must not lock a folder twice.
    """
    path = _lock_file(folder)
    with write_fault_is_an_input_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(path, "a+", encoding="utf-8")
    with stream:
        if wait:
            _wait_for(stream, fcntl.LOCK_EX, WRITING, folder)
        elif _is_taken(stream, fcntl.LOCK_EX, WRITING):
            raise InputError(
                f"{folder}: {_holder(stream)} is writing there; wait until it has ended, or name another folder."
            )
        if _is_taken(stream, fcntl.LOCK_EX, IN_USE):
            raise InputError(
                f"{folder}: another process is reading this folder, which would be changed; wait until it has ended, "
                "or name another folder."
            )
        with write_fault_is_an_input_error(path):
            stream.truncate(0)
            # not through the stream, which would write again on close
            os.write(stream.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


@contextmanager
def folder_in_use(folder: PathLike) -> Iterator[None]:
    """Inside this context, no other process may write to ``folder``; waits for one that already does.

    The parent must exist (``make_parent``), or the folder is not locked.
    """
    path = _lock_file(folder)
    try:
        stream = open(path, "r+" if path.exists() else "a+", encoding="utf-8")
    except OSError as error:
        if error.errno not in (*NO_SPACE, *NO_WRITING, errno.ENOENT):
            raise
        yield  # nothing can be written there
        return
    with stream:
        _wait_for(stream, fcntl.LOCK_SH, IN_USE, folder)
        yield


def make_parent(path: PathLike) -> None:
    """Make the parent folder of ``path``."""
    with write_fault_is_an_input_error(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)


def is_locked(folder: PathLike) -> bool:
    """Whether another process is writing to the folder (``locked_folder``)."""
    try:
        with open(_lock_file(folder), encoding="utf-8") as stream:
            return _is_taken(stream, fcntl.LOCK_SH, WRITING)
    except FileNotFoundError:
        return False


def write_text(path: PathLike, text: str) -> None:
    """Write UTF-8 text through ``whole_file``."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: PathLike, value: Any) -> None:
    """Write JSON through ``whole_file``, indented and with sorted keys."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def note_sizes(note: PathLike, paths: Iterable[PathLike]) -> None:
    """Write the sizes of finished files to ``note``, by paths relative to it."""
    folder = Path(note).parent
    write_json(note, {os.path.relpath(path, folder): os.path.getsize(path) for path in paths})


def sizes_are_as_noted(note: PathLike) -> bool:
    """Whether the files still have the sizes that ``note_sizes`` wrote to ``note``; False if there is no note."""
    note = Path(note)
    if not note.is_file():
        return False
    paths = {Path(os.path.normpath(note.parent / name)): size for name, size in read_json(note).items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


def read_json(path: PathLike) -> Any:
    """Read a JSON file. Raises InputError if it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: is not valid JSON ({error}); remove it and run its stage again.") from error
