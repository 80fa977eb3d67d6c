"""Downloading a file over HTTP: resumed, retried and checked."""

import hashlib
import http.client
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from speecheq.common.errors import InputError
from speecheq.common.files import write_fault_is_an_input_error
from speecheq.common.log import log
from speecheq.common.progress import Progress

# Connections in a row without a new byte before a download is given up.
TRIES = 4
# Seconds before the first retry; doubled for each further one.
WAIT = 2.0
# Timeout of a connection in seconds.
TIMEOUT = 60.0
CHUNK = 1 << 18
MB = 1_000_000
# Status codes of an overloaded server, which are retried; others (404 ...) would only repeat.
TEMPORARY = (408, 429, 500, 502, 503, 504)
AGENT = {"User-Agent": "speecheq (a recipe for speech emotion recognition)"}


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """Size and checksum of a published file; None where unknown."""

    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None


class _BrokenTransferError(Exception):
    """A transfer ended before its file was complete."""


# Network errors, which are retried; a full disk and missing permissions are not.
NETWORK = (
    _BrokenTransferError,
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
)


def fetch(url: str, path: Path, known: PublishedFile = PublishedFile()) -> None:
    """Download ``url`` to ``path``, resuming and retrying as needed; an existing file is only checked.

    The transfer goes to ``<path>.part``, which is renamed when its size and checksum are those of ``known``.
    Raises InputError for an address that does not answer or has no such file, a file that differs from the published
    one, and a full disk.
    """
    path = Path(path)
    if path.exists():
        difference = _difference(path, known)
        if difference:
            raise InputError(f"{path}: {difference}; remove it and run the same command again.")
        return
    part, tag = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.tag")
    path.parent.mkdir(parents=True, exist_ok=True)
    _transfer_with_retries(url, path, part, tag, known)
    difference = _difference(part, known)
    if difference:
        part.unlink()
        tag.unlink(missing_ok=True)
        raise InputError(
            f"{url}: what was downloaded was removed, as it {difference}; run the same command again, and if that does "
            "not help, name another server with --base-url."
        )
    os.replace(part, path)
    tag.unlink(missing_ok=True)


def _transfer_with_retries(url: str, path: Path, part: Path, tag: Path, known: PublishedFile) -> None:
    """Transfer until ``part`` is complete; InputError after TRIES connections in a row without a new byte."""
    most, tries = _size(part), 0
    while not part.exists() or _size(part) != known.bytes:
        try:
            _transfer(url, part, tag, known)
            return
        except NETWORK as error:
            if isinstance(error, urllib.error.HTTPError) and error.code not in TEMPORARY:
                raise InputError(
                    f"{url}: the server answers {error.code} ({error.reason}); check whether the corpus has moved, and "
                    f"save the file as {path} or name another server with --base-url."
                ) from error
            tries = 0 if _size(part) > most else tries + 1
            most = max(most, _size(part))
            problem = getattr(error, "reason", None) or error or type(error).__name__
            if tries >= TRIES:
                raise InputError(
                    f"{url}: could not be downloaded ({problem}); check the connection and run the same command "
                    "again, which resumes the download."
                ) from error
            wait = WAIT * 2 ** max(0, tries - 1)
            log.warning("%s: %s; resuming in %g s", url, problem, wait)
            time.sleep(wait)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _open(url: str, part: Path, version: str, known: PublishedFile) -> http.client.HTTPResponse | None:
    """The server's response: the rest of the file or all of it; None if ``part`` is already complete."""
    have, headers = _size(part), dict(AGENT)
    has_checksum = known.md5 or known.sha256
    if have and (has_checksum or version):
        headers["Range"] = f"bytes={have}-"
        if not has_checksum:
            headers["If-Range"] = version
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or "Range" not in headers:
            raise
        # nothing follows: ``part`` is complete, or belongs to another file
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return None
        part.unlink()
        raise _BrokenTransferError("the partial file belongs to another version") from error


def _transfer(url: str, part: Path, tag: Path, known: PublishedFile) -> None:
    """One connection: append the missing bytes to ``part``, or write all of it if the server cannot resume.

    Two versions of a file must not be joined. Without a checksum to detect that, ``tag`` keeps the version that the
    server named; without either, ``part`` is downloaded from the beginning.
    """
    version = tag.read_text(encoding="utf-8") if tag.exists() else ""
    answer = _open(url, part, version, known)
    if answer is None:
        return
    with answer:
        if answer.status == 206:
            have = _size(part)
            start, total = _content_range(answer.headers.get("Content-Range"))
            if start != have:
                part.unlink()
                raise _BrokenTransferError(f"the server resumes at byte {start} instead of {have}")
        else:
            have, total = 0, answer.length
            version = answer.headers.get("ETag", "")
            if not version or version.startswith("W/"):  # a weak tag does not identify every byte
                version = answer.headers.get("Last-Modified", "")
        if known.bytes is not None and total is not None and total != known.bytes:
            raise InputError(
                f"{url}: has {total} bytes, but the published file has {known.bytes}; check whether the corpus has a "
                "new release, or name another server with --base-url."
            )
        _check_room(part, have, total)
        with write_fault_is_an_input_error(part), open(part, "ab" if have else "wb") as out:
            tag.write_text(version, encoding="utf-8")  # now that no other version is left
            for piece in _with_progress(answer, part.stem, total, have):
                out.write(piece)
                have += len(piece)
    if total is not None and have < total:
        raise _BrokenTransferError(f"the connection ended after {have} of {total} bytes")


def _with_progress(
    stream: BinaryIO | http.client.HTTPResponse, title: str, total: int | None, done: int = 0
) -> Iterator[bytes]:
    """Read ``stream`` in chunks and show progress in MB; of ``total`` bytes, ``done`` were read before."""
    with Progress(title, None if total is None else total // MB, "MB") as shown:
        shown.update(done // MB)
        while piece := stream.read(CHUNK):
            yield piece
            done += len(piece)
            shown.update(done // MB - shown.count)


def _content_range(value: str | None) -> tuple[int, int | None]:
    """First byte and size of the file from ``bytes 100-199/200``; the size is None for ``*``."""
    try:
        span, total = (value or "").replace("bytes", "", 1).split("/")
        return int(span.split("-")[0]), None if total.strip() == "*" else int(total)
    except ValueError:
        raise _BrokenTransferError(f"the server does not say which part of the file it sends ({value!r})") from None


def _check_room(part: Path, have: int, total: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - have > free:
        raise InputError(
            f"{part.parent}: {(total - have) / 1e9:.1f} GB are to be written and {free / 1e9:.1f} GB are free; free "
            "some space or name another folder with --out."
        )


def _difference(path: Path, known: PublishedFile) -> str:
    """How a file differs from the published one, as a phrase; empty if it does not."""
    if known.bytes is not None and _size(path) != known.bytes:
        return f"has {_size(path)} bytes, but the published file has {known.bytes}"
    for kind, published in (("md5", known.md5), ("sha256", known.sha256)):
        if published is None:
            continue
        digest = hashlib.new(kind)
        with open(path, "rb") as stream:
            for piece in _with_progress(stream, f"{kind} of {path.name}", _size(path)):
                digest.update(piece)
        if digest.hexdigest() != published:
            return f"differs from the published file ({kind} {digest.hexdigest()} instead of {published})"
    return ""
