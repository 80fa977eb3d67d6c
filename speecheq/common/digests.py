"""Digests of values, files and folders, with which a stage detects changed inputs."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Tables and transcripts are digested by content, since a corrected label often keeps a file's size.
TEXT_SUFFIXES = (".txt", ".tsv", ".csv", ".info")


def digest(value: Any) -> str:
    """A short digest of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def iter_tree(folder: Path, left_out: list[str] | None = None) -> Iterator[str]:
    """The relative names of the files below ``folder`` in a fixed order; links are followed.

    Dead links and unreadable folders are skipped; their names are added to ``left_out``.
    """
    seen = set()
    left_out = [] if left_out is None else left_out

    def cannot_be_listed(error: OSError) -> None:
        left_out.append(os.path.relpath(error.filename, folder))

    for root, folders, names in os.walk(folder, followlinks=True, onerror=cannot_be_listed):
        folders.sort()
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in seen:  # a link to a parent folder: endless
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        inside = os.path.relpath(root, folder)
        for name in sorted(names):
            path = os.path.normpath(os.path.join(inside, name))
            if os.path.isfile(os.path.join(root, name)):
                yield path
            else:
                left_out.append(path)


def tree_sizes(folder: Path) -> dict[str, int]:
    """Sizes in bytes of the files below ``folder`` by relative name."""
    return {name: os.path.getsize(os.path.join(folder, name)) for name in iter_tree(folder)}


def describe_files(path: Path) -> str | int:
    """A value that changes with a file or folder.

    For a table or transcript a digest of its content, for another file its size in bytes, for a folder a digest of all
    names below it and of what this function returns for each. Files are read one at a time: a corpus may have millions.
    """
    if path.is_dir():
        found = hashlib.sha256()
        for name in iter_tree(path):
            found.update(f"{name}\t{describe_files(path / name)}\n".encode("utf-8", "surrogateescape"))
        return found.hexdigest()[:16]
    if path.suffix.lower() in TEXT_SUFFIXES:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return path.stat().st_size
