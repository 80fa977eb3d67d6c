"""Writing files so that what stands under the final name is always whole."""

import errno
import fcntl
import json
import os
import shutil
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterable, Iterator, Tuple, Union

from speecheq.errors import InputError

PathLike = Union[str, Path]

# What the system reports when a write does not fit: disk full, quota used up, file size limit reached.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def no_space_is_an_input_error(path: PathLike) -> Iterator[None]:
    """Turn "no room for this file" into an InputError that names ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise InputError(
            f"{path}: could not be written, {os.strerror(error.errno).lower()}; free some space and run "
            "the same command again."
        ) from error


@contextmanager
def whole_file(path: PathLike) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; on success it is renamed to ``path``, on failure removed.

    The temporary name ends like ``path``, so that writers that look at the extension (``.jsonl.gz``) work.
    """
    path = Path(path)
    temporary = path.with_name(f".tmp{os.getpid()}.{path.name}")
    try:
        with no_space_is_an_input_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        if temporary.exists():
            temporary.unlink()


@contextmanager
def whole_folder(path: PathLike) -> Iterator[Path]:
    """Yield a new empty folder beside ``path``; on success it takes the place of ``path``.

    On failure it is removed and what was at ``path`` stays. InputError where ``path`` is a file.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: is a file where a folder is to be written; remove it or name another folder.")
    temporary = path.with_name(f".tmp{os.getpid()}.{path.name}")
    previous = path.with_name(f".old{os.getpid()}.{path.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with no_space_is_an_input_error(path):
            temporary.mkdir(parents=True)
            yield temporary
        if path.exists():
            os.replace(path, previous)
        try:
            os.replace(temporary, path)
        except OSError:
            if previous.exists():
                os.replace(previous, path)
            raise
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def whole_folder_of(path: PathLike, kind: str, suffixes: Tuple[str, ...]) -> Iterator[Path]:
    """As ``whole_folder``; InputError where ``path`` holds files of other endings, which would be lost."""
    others = [found.name for found in Path(path).glob("*") if found.suffix not in suffixes]
    if others:
        raise InputError(f"{path}: holds files that are no {kind} ({', '.join(sorted(others))}); move them away.")
    with whole_folder(path) as temporary:
        yield temporary


# Held by the process that writes to a folder; the file stays.
LOCK = ".lock"


@contextmanager
def locked_folder(folder: PathLike) -> Iterator[None]:
    """Keep a folder for this process while it is entered; InputError that names the process that has it already.

    The lock ends with the process, however that ends. It is one of fcntl's, which a child does not inherit: a data
    loader that outlives its training for some seconds holds nothing.
    """
    path = Path(folder) / LOCK
    with open(path, "a+", encoding="utf-8") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            stream.seek(0)
            raise InputError(
                f"{folder}: {stream.read().strip() or 'another process'} is writing there; wait until it has ended, or "
                "name another folder."
            ) from error
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        stream.flush()
        yield


def is_locked(folder: PathLike) -> bool:
    """Whether another process has the folder (``locked_folder``)."""
    try:
        with open(Path(folder) / LOCK, "rb") as stream:
            fcntl.lockf(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        return True
    return False


def write_text(path: PathLike, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: PathLike, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def note_sizes(note: PathLike, paths: Iterable[PathLike]) -> None:
    """Note the sizes of files, by names relative to the note; to be written last, when they are whole."""
    folder = Path(note).parent
    write_json(note, {os.path.relpath(path, folder): os.path.getsize(path) for path in paths})


def sizes_are_as_noted(note: PathLike) -> bool:
    """Whether ``note_sizes`` has written that note and the files still have these sizes."""
    note = Path(note)
    if not note.is_file():
        return False
    paths = {Path(os.path.normpath(note.parent / name)): size for name, size in read_json(note).items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


def read_json(path: PathLike) -> Any:
    """Read one JSON file; a file that is not JSON raises InputError."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: is not readable as JSON ({error}); remove it and run its stage again.") from error
