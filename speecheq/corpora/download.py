"""Stage 0: download the corpora that are open to all, from the addresses on their data cards.

All files of a corpus are in ``<out>/<corpus>``, a folder that holds nothing else:

    ravdess, emodb          unpacked here, into a temporary folder that is renamed when it is whole
    aishell, librispeech    by lhotse's recipes, which know these archives and mark what they have unpacked; the
                            transfer is replaced, as theirs does not check or retry
"""

import contextlib
import importlib
import os
import tarfile
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
from speecheq.common.http_transfer import fetch
from speecheq.common.log import log
from speecheq.common.progress import progress
from speecheq.corpora.data_card import Card, Download, where_from

THROUGH_LHOTSE = ("aishell", "librispeech")


def unpack_zip(archives: Sequence[tuple[Path, str]], folder: Path) -> None:
    """Unpack each archive into its subfolder of ``folder``, which appears as a whole or not at all.

    Raises InputError for a member that would be outside, and for a damaged archive, which is removed.
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
    """Replace attributes of ``module`` for a while."""
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
            f"--download {card.name}: this Python lets an archive write to any place; use a later release of its "
            "version (3.10.12, 3.11.4), or unpack the archives by hand."
        )

    def unpack(archive: tarfile.TarFile, path: Path) -> None:
        # lhotse's own checks names, but neither the targets of links nor devices
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
    """The archives of ``parts``, or those that are not optional; raises InputError for an unknown part."""
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
    """Download and unpack a corpus, unless that is done; returns the folder that its prep script takes.

    ``base_url`` is another server: for AISHELL-1 and LibriSpeech a mirror of openslr.org/resources, else the address of
    a folder with the archive. Raises InputError for a corpus that cannot be downloaded; it says how to obtain it.
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
    log.info("%s: is in %s; the archives beside it may be removed", card.title, corpus)
    return corpus
