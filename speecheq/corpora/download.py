"""Stage 0: the corpora that anybody may download, from the addresses of their data cards.

An archive is transferred to ``<archive>.part``, goes on where an earlier transfer stopped, and takes its name when its
size and checksum are those of the card. Everything lies in ``<out>/<corpus>``, a folder of this program alone:

    ravdess, emodb          unpacked here, into a temporary folder that is renamed when it is whole
    aishell, librispeech    lhotse's recipes, which know these archives and mark what they have unpacked; only the
                            transfer is ours, as theirs checks and repeats nothing
"""

import contextlib
import hashlib
import http.client
import importlib
import os
import shutil
import ssl
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from speecheq.common.errors import InputError
from speecheq.common.files import (
    locked_folder,
    remove_leftovers,
    whole_folder,
    write_fault_is_an_input_error,
    write_json,
)
from speecheq.common.log import log
from speecheq.common.progress import Progress, progress
from speecheq.corpora.data_card import Card, Download, where_from

THROUGH_LHOTSE = ("aishell", "librispeech")
# A transfer that breaks is taken up again; after so many times without a byte more it is given up.
TRIES = 4
# Seconds before the second try; doubled for each further one.
WAIT = 2.0
# Seconds without an answer after which a connection counts as broken.
TIMEOUT = 60.0
CHUNK = 1 << 18
MB = 1_000_000
# Answers of an overloaded server: worth another try. All others (404 ...) would be repeated.
PASSING = (408, 429, 500, 502, 503, 504)
AGENT = {"User-Agent": "speecheq (a recipe for speech emotion recognition)"}


class _Broken(Exception):
    """A transfer ended before its file was whole."""


# What a network does that is worth another try; a full disk or a folder that is closed to us is not among it.
NETWORK = (_Broken, urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


def fetch(url: str, path: Path, known: Download | None = None) -> None:
    """The file at ``url`` as ``path``, resumed and repeated as needed; nothing to do where it lies there already.

    ``known`` holds what is known of it. InputError for an address that does not answer or does not have the file,
    a file that is another than the one that is known, and a full disk.
    """
    path, known = Path(path), known or Download(url)
    if path.exists():
        fault = _fault(path, known)
        if fault:
            raise InputError(f"{path}: {fault}; remove it and run the same command again.")
        return
    part, tag = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.tag")
    path.parent.mkdir(parents=True, exist_ok=True)
    most, tries = _size(part), 0
    while not part.exists() or _size(part) != known.bytes:
        try:
            _transfer(url, part, tag, known)
            break
        except NETWORK as error:
            if isinstance(error, urllib.error.HTTPError) and error.code not in PASSING:
                raise InputError(
                    f"{url}: the server answers {error.code} ({error.reason}); look whether the corpus has moved, and "
                    f"save the file as {path} or name another server with --base-url."
                ) from error
            tries = 0 if _size(part) > most else tries + 1
            most = max(most, _size(part))
            problem = getattr(error, "reason", None) or error or type(error).__name__
            if tries >= TRIES:
                raise InputError(
                    f"{url}: could not be downloaded ({problem}); see to the connection and run the same command "
                    "again, it goes on where it stopped."
                ) from error
            wait = WAIT * 2 ** max(0, tries - 1)
            log.warning("%s: %s; the transfer is taken up again in %g s", url, problem, wait)
            time.sleep(wait)
    fault = _fault(part, known)
    if fault:
        part.unlink()
        tag.unlink(missing_ok=True)
        raise InputError(
            f"{url}: what was downloaded was removed, as it {fault}; run the same command again, and if that does not "
            "help, name another server with --base-url."
        )
    os.replace(part, path)
    tag.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _transfer(url: str, part: Path, tag: Path, known: Download) -> None:
    """One connection: append to ``part`` what it lacks of the file, or all of it where the server cannot do that.

    Two versions of a file must not be joined: a checksum would tell; without one ``tag`` keeps the server's name of the
    version, and a part that nothing vouches for is transferred anew.
    """
    have, headers = _size(part), dict(AGENT)
    version = tag.read_text(encoding="utf-8") if tag.exists() else ""
    checked = known.md5 or known.sha256
    if have and (checked or version):
        headers["Range"] = f"bytes={have}-"
        if not checked:
            headers["If-Range"] = version
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or "Range" not in headers:
            raise
        # nothing lies behind what we have: it is all, or it is of another file
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return
        part.unlink()
        raise _Broken("what lay there was of another file") from error
    with answer:
        if answer.status == 206:
            start, total = _content_range(answer.headers.get("Content-Range"))
            if start != have:
                part.unlink()
                raise _Broken(f"the server goes on at byte {start} instead of {have}")
        else:
            have, total = 0, answer.length
            version = answer.headers.get("ETag", "")
            if not version or version.startswith("W/"):  # a weak one does not vouch for every byte
                version = answer.headers.get("Last-Modified", "")
        if known.bytes is not None and total is not None and total != known.bytes:
            raise InputError(
                f"{url}: has {total} bytes, but the published file has {known.bytes}; look whether the corpus has a "
                "new release, or name another server with --base-url."
            )
        _check_room(part, have, total)
        with write_fault_is_an_input_error(part), open(part, "ab" if have else "wb") as out:
            tag.write_text(version, encoding="utf-8")  # now that nothing of another version is left
            with Progress(part.stem, None if total is None else total // MB, "MB") as shown:
                shown.update(have // MB)
                while True:
                    piece = answer.read(CHUNK)
                    if not piece:
                        break
                    out.write(piece)
                    have += len(piece)
                    shown.update(have // MB - shown.count)
    if total is not None and have < total:
        raise _Broken(f"the connection ended after {have} of {total} bytes")


def _content_range(value: str | None) -> tuple[int, int | None]:
    """First byte and size of the whole file from ``bytes 100-199/200``; the size is None where it is ``*``."""
    try:
        span, total = (value or "").replace("bytes", "", 1).split("/")
        return int(span.split("-")[0]), None if total.strip() == "*" else int(total)
    except ValueError:
        raise _Broken(f"the server sends a part of the file, but not which ({value!r})") from None


def _check_room(part: Path, have: int, total: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - have > free:
        raise InputError(
            f"{part.parent}: {(total - have) / 1e9:.1f} GB are to be written and {free / 1e9:.1f} GB are free; make "
            "room or name another folder with --out."
        )


def _fault(path: Path, known: Download) -> str:
    """What distinguishes the file from the published one, in words; nothing where they are the same."""
    if known.bytes is not None and _size(path) != known.bytes:
        return f"has {_size(path)} bytes, but the published file has {known.bytes}"
    for kind, published in (("md5", known.md5), ("sha256", known.sha256)):
        if published is None:
            continue
        digest = hashlib.new(kind)
        with open(path, "rb") as stream, Progress(f"{kind} of {path.name}", _size(path) // MB, "MB") as shown:
            done = 0
            for piece in iter(lambda: stream.read(CHUNK), b""):
                digest.update(piece)
                done += len(piece)
                shown.update(done // MB - shown.count)
        if digest.hexdigest() != published:
            return f"differs from the published file ({kind} {digest.hexdigest()} instead of {published})"
    return ""


def unpack_zip(archives: Sequence[tuple[Path, str]], folder: Path) -> None:
    """Unpack each archive into the folder inside ``folder`` that is named with it; all of it appears, or nothing.

    InputError for a member that would lie outside, and for a damaged archive, which is removed.
    """
    with whole_folder(folder) as new:
        for archive, into in archives:
            inside = os.path.abspath(new / into)
            try:
                with zipfile.ZipFile(archive) as opened:
                    for name in opened.namelist():
                        if os.path.commonpath([inside, os.path.abspath(os.path.join(inside, name))]) != inside:
                            raise InputError(
                                f"{archive}: holds {name!r}, which would lie outside of its folder, so nothing was "
                                "unpacked; remove the archive, it is not the published one."
                            )
                    for member in progress(opened.infolist(), f"unpacking {archive.name}", unit="files"):
                        opened.extract(member, inside)
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                archive.unlink()
                raise InputError(
                    f"{archive}: is damaged ({error}) and was removed; run the same command again."
                ) from error
        (new / ".completed").touch()


@contextlib.contextmanager
def _replaced(module: Any, **values: Any) -> Iterator[None]:
    """Inside, the names in ``module`` mean ``values``."""
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def _through_lhotse(card: Card, items: Sequence[Download], folder: Path, base_url: str) -> None:
    module = importlib.import_module(f"lhotse.recipes.{card.name}")
    known = {item.file: item for item in items}

    def transfer(url: str, filename: Path, **_: Any) -> None:
        fetch(url, filename, known[Path(filename).name])
        log.info("%s: is being unpacked", filename)

    if not hasattr(tarfile, "data_filter"):
        raise InputError(
            f"--download {card.name}: this Python unpacks what an archive likes to any place; take a "
            "later one of its version (3.10.12, 3.11.4), or unpack the archives by hand."
        )

    def unpack(archive: tarfile.TarFile, path: Path) -> None:
        # lhotse's own looks at names, but not where links lead, nor for devices
        archive.extractall(path, filter="data")

    with (
        write_fault_is_an_input_error(folder),
        _replaced(module, resumable_download=transfer, safe_extract=unpack, tqdm=lambda steps, **_: steps),
    ):
        try:
            if card.name == "aishell":
                module.download_aishell(folder, base_url=base_url)
            else:
                module.download_librispeech(folder, [item.part for item in items], base_url=base_url)
        except (tarfile.TarError, zlib.error, EOFError) as error:
            raise InputError(
                f"{folder}: an archive could not be unpacked ({str(error).splitlines()[0]}); remove the folder and run "
                "the same command again."
            ) from error


def _chosen(card: Card, parts: Sequence[str] | None) -> Sequence[Download]:
    """The archives of the parts; those that are not optional, where none is named. InputError for an unknown part."""
    if not parts:
        return [item for item in card.downloads if not item.optional]
    known = [item.part for item in card.downloads if item.part]
    if not known:
        raise InputError(f"{card.title} is downloaded as a whole: leave out --parts {' '.join(parts)}.")
    for part in parts:
        if part not in known:
            raise InputError(f"--parts {part}: is not a part of {card.title}; its parts are {', '.join(known)}.")
    return [item for item in card.downloads if item.part in parts]


def download(card: Card, out_dir: Path, parts: Sequence[str] | None = None, base_url: str | None = None) -> Path:
    """Download and unpack a corpus; returns the folder that its prep script takes. A second call finds it done.

    ``base_url`` is another server: for AISHELL-1 and LibriSpeech one that mirrors openslr.org/resources, else a folder
    that holds the archive. InputError for a corpus that cannot be downloaded says how it is had.
    """
    if not card.downloads:
        raise InputError(where_from(card))
    if base_url is not None and not base_url.startswith(("http://", "https://")):
        raise InputError(f"--base-url {base_url}: is not an address that begins with http:// or https://.")
    items = _chosen(card, parts)
    folder = Path(out_dir) / card.name
    with locked_folder(folder, wait=True):
        remove_leftovers(folder)
        ours = folder / "download.json"
        if folder.exists() and not ours.is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(
                f"{folder}: is there already and was not made by this command; if it is the corpus, give it to the "
                "recipe, else name another folder with --out."
            )
        corpus = folder / card.folder
        write_json(ours, {"corpus": card.name, "licence": card.licence, "source": card.source})
        log.info("%s: %s (licence: %s) to %s", card.title, card.source, card.licence, corpus)
        if card.name in THROUGH_LHOTSE:
            server = base_url or items[0].url.rsplit("/", 2)[0]
            _through_lhotse(card, items, folder, server.rstrip("/"))
        elif not (corpus / ".completed").is_file():
            for item in items:
                fetch(f"{base_url.rstrip('/')}/{quote(item.file)}" if base_url else item.url, folder / item.file, item)
            unpack_zip([(folder / item.file, item.into) for item in items], corpus)
    log.info("%s: lies in %s; the archives beside it may be removed", card.title, corpus)
    return corpus
