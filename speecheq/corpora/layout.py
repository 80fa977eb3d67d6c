"""Finding the clips of a corpus and reading its tables."""

import csv
import io
import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import filterfalse
from pathlib import Path

from speecheq.common.digests import iter_tree
from speecheq.common.errors import InputError
from speecheq.common.files import PathLike
from speecheq.common.log import log
from speecheq.common.stages import Drops
from speecheq.corpora.declaration import Corpus

# The folder that macOS adds to a zip archive; it holds no clip, but files with the names of clips.
MACOS_FOLDER = "__MACOSX"
MACOS_FILES = (".DS_Store", ".localized")  # and all that begin with ._


def is_hidden(name: PathLike) -> bool:
    """Whether a relative name is that of a hidden file, or one in a hidden folder or a leftover of macOS (``._*``)."""
    parts = str(name).split("/")
    return any(part.startswith(".") and part not in (".", "..") or part == MACOS_FOLDER for part in parts)


def is_macos_leftover(path: PathLike) -> bool:
    """Whether a path that a table names, with slashes or backslashes, is a leftover of macOS, which has no sound."""
    parts = str(path).replace("\\", "/").split("/")
    return MACOS_FOLDER in parts or parts[-1].startswith("._") or parts[-1] in MACOS_FILES


def report_hidden(title: str, names: Iterable[str]) -> None:
    """Log how many hidden files are skipped, ``names`` relative to their folder, if any is."""
    hidden = sorted(names)
    if hidden:
        log.info("%s: %d hidden files are skipped (%s for one)", title, len(hidden), hidden[0])


def report_hidden_below(title: str, folder: Path) -> None:
    """Log how many hidden files below ``folder`` are skipped, if any is."""
    report_hidden(title, filter(is_hidden, iter_tree(folder)))


@lru_cache(maxsize=64)
def _names_by_form(folder: str, changed: int) -> dict[str, list[str]]:
    """The names in a folder by their composed form (NFC); ``changed``, its time of change, tells old answers apart."""
    names: dict[str, list[str]] = {}
    for name in os.listdir(folder):
        names.setdefault(composed(name), []).append(name)
    return names


def composed(text: str) -> str:
    """A text with accents in composed characters (NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


class NamesInAnyForm:
    """Finds names among ``known`` whose accents may be composed (NFC) or not (NFD), as a copy from a Mac has them."""

    def __init__(self, known: Collection[str]):
        self.known = known
        self._by_form: dict[str, list[str]] = {}

    def find(self, name: str) -> str:
        """``name`` as it is known: as it is, or in another Unicode form if one name has that; else ``name``."""
        if name.isascii() or name in self.known:
            return name
        if not self._by_form:
            for other in self.known:
                if not other.isascii():
                    self._by_form.setdefault(composed(other), []).append(other)
        same = self._by_form.get(composed(name), [])
        return same[0] if len(same) == 1 else name


def as_on_disk(path: PathLike) -> Path:
    """``path`` in the Unicode form that its names have on disk; ``path`` itself where there is no such file.

    A Mac decomposes accents (NFD), most other systems compose them (NFC), so a copied file may have another name than
    the one in a table.
    """
    path = Path(path)
    if str(path).isascii() or os.path.lexists(path):
        return path
    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        below = found / part
        if not os.path.lexists(below):
            try:
                names = _names_by_form(str(found), os.stat(found).st_mtime_ns)
            except OSError:
                return path
            others = names.get(composed(part), [])
            if len(others) != 1:
                return path
            below = found / others[0]
        found = below
    return found


def find_root(corpus_dir: Path, is_root: Callable[[Path], bool], corpus: Corpus) -> Path:
    """``corpus_dir``, if ``is_root`` accepts it as the folder of the corpus; else InputError.

    ``is_root`` is also tried one level below and up to four levels above, so that a message can name the right folder.
    """

    def looks_right(path: Path) -> bool:
        try:
            return is_root(path)
        except OSError:  # a folder around the given one may be unreadable
            return False

    expected = f"{corpus.title} is expected as {corpus.layout}"
    corpus_dir = as_on_disk(corpus_dir)
    if not corpus_dir.exists():
        raise InputError(f"{corpus_dir}: there is no such folder; {expected}.")
    if not corpus_dir.is_dir():
        raise InputError(f"{corpus_dir}: is a file, not a folder; {expected}.")
    if is_root(corpus_dir):
        return corpus_dir
    below = list(iter_folders(corpus_dir))
    if not below and not any(corpus_dir.iterdir()):
        raise InputError(f"{corpus_dir}: the folder is empty; {expected}.")
    for path in below:
        if looks_right(path):
            raise InputError(f"{corpus_dir}: is one level too high, give {path} instead; {expected}.")
    for path in list(corpus_dir.resolve().parents)[:4]:
        if looks_right(path):
            raise InputError(f"{corpus_dir}: is too low inside the corpus, give {path} instead; {expected}.")
    raise InputError(f"{corpus_dir}: does not look like {corpus.title}; {expected}.")


def iter_folders(folder: Path) -> Iterator[Path]:
    """The folders inside ``folder`` by name, without hidden ones."""
    return (path for path in sorted(Path(folder).iterdir()) if path.is_dir() and not is_hidden(path.name))


def iter_clips(folder: Path, suffix: str = ".wav") -> Iterator[Path]:
    """The audio files inside ``folder`` by name, without hidden ones (macOS leaves ``._*.wav`` files behind)."""
    return (
        path for path in sorted(Path(folder).iterdir()) if path.suffix.lower() == suffix and not is_hidden(path.name)
    )


def decode_lines(path: Path, encodings: Sequence[str] = ("utf-8",)) -> Iterator[tuple[int, str]]:
    """Number and text of every line, in the first of ``encodings`` that fits the whole file.

    Raises InputError where none fits: it names the first line that the last one cannot decode.
    """
    content = path.read_bytes()
    has_bom = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    order = "" if has_bom or "utf-16" not in encodings else _byte_order(content[:64])
    if order:
        log.info("%s: is read as UTF-16, though it has no byte order mark", path)
        return enumerate(content.decode(order, "replace").split("\n"), 1)
    for encoding in encodings[:-1]:
        if (encoding == "utf-16") != has_bom:  # without a byte order mark any bytes pass for UTF-16
            continue
        try:
            return enumerate(content.decode("utf-8-sig" if encoding == "utf-8" else encoding).split("\n"), 1)
        except UnicodeDecodeError:
            continue
    return _decode_line_by_line(path, content, encodings)


def _byte_order(beginning: bytes) -> str:
    """utf-16-le or utf-16-be for a beginning in which every second byte is 0, as in Latin letters; else empty."""
    even, odd = beginning[::2], beginning[1::2]
    if len(beginning) >= 4 and not any(odd) and all(even):
        return "utf-16-le"
    return "utf-16-be" if len(beginning) >= 4 and not any(even) and all(odd) else ""


def _decode_line_by_line(path: Path, content: bytes, encodings: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Number and text of every line in the last of ``encodings``; raises InputError, which names a line that fails."""
    encoding = encodings[-1]
    for number, line in enumerate(io.BytesIO(content), 1):
        try:
            text = line.removesuffix(b"\n").decode("utf-8-sig" if encoding == "utf-8" and number == 1 else encoding)
        except UnicodeDecodeError as error:
            known = " or ".join(name.upper() for name in encodings)
            raise InputError(
                f"{path}, line {number}: is not {known}; convert the file, for instance with iconv."
            ) from error
        yield number, text


def read_lines(path: Path, encodings: Sequence[str] = ("utf-8",)) -> Iterator[tuple[str, str]]:
    """Yields ``<path>, line <number>``, for messages, and the text of every line that is not blank.

    The first of ``encodings`` that fits the whole file is used; utf-16 only fits a file with a byte order mark.
    Raises InputError for a missing file, and where no encoding fits: it names the first line that the last one cannot
    decode.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    for number, text in decode_lines(path, encodings):
        text = text.rstrip("\r")
        if text.strip():
            yield f"{path}, line {number}", text


def read_csv(
    path: Path, columns: Collection[str], encodings: Sequence[str] = ("utf-8",)
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields ``<path>, line <number>`` and the fields by column of every line of a table with commas but its first.

    Raises InputError as ``read_lines`` does, for a table without one of ``columns``, and for a line that has not as
    many fields as the first.
    """
    where = f"{path}, line 1"

    def lines() -> Iterator[str]:
        nonlocal where
        for place, line in read_lines(path, encodings):
            where = place
            yield line + "\n"

    rows = csv.reader(lines(), strict=True)
    try:
        names = [name.strip() for name in next(rows, [])]
        missing = next((name for name in columns if name not in names), None)
        if missing is not None:
            raise InputError(f"{where}: there is no column {missing!r}; expected {', '.join(columns)}, with commas.")
        for row in rows:
            if len(row) != len(names):
                raise InputError(f"{where}: expected {len(names)} columns, as in line 1, found {len(row)}.")
            yield where, dict(zip(names, map(str.strip, row)))
    except csv.Error as error:
        raise InputError(f"{where}: cannot be split into fields ({error}); copy the table again.") from error


def index_clips(folder: Path, prefix: str = "", suffixes: Sequence[str] = (".wav",)) -> dict[str, Path]:
    """Name -> file, of all clips below ``folder`` whose names begin with ``prefix``, but hidden ones.

    The names are without prefix and suffix. A clip in several of ``suffixes`` is taken in the first. Raises InputError
    for one that is there twice.
    """
    clips: dict[str, Path] = {}
    ranks: dict[str, int] = {}
    for clip in map(folder.joinpath, filterfalse(is_hidden, iter_tree(folder))):
        suffix = clip.suffix.lower()
        if suffix not in suffixes or not clip.name.startswith(prefix):
            continue
        name, rank = clip.stem[len(prefix) :], suffixes.index(suffix)
        if ranks.get(name) == rank:
            raise InputError(f"{clip}: occurs a second time, first as {clips[name]}; remove one.")
        if rank < ranks.get(name, len(suffixes)):
            clips[name], ranks[name] = clip, rank
    return clips


def keep_matched(
    clips: Iterable[str], labelled: Iterable[str], table: Path, audio: Path, partial: bool, drops: Drops, what: str
) -> set[str]:
    """The utterances that have both audio (``clips``) and a line in ``table`` (``labelled``).

    The others are added to ``drops``; ``what`` names the content of a line (transcript, label). Raises InputError if
    more than half of the clips have no line, or, unless a ``partial`` copy is accepted, more than half of the lines no
    clip.
    """
    have_audio, have_line = set(clips), set(labelled)
    without_line, without_audio = sorted(have_audio - have_line), sorted(have_line - have_audio)
    if 2 * len(without_line) > len(have_audio):
        raise InputError(
            f"{table}: has no line for {len(without_line)} of {len(have_audio)} clips ({without_line[0]} for one); "
            "it does not belong to this audio."
        )
    if not partial and 2 * len(without_audio) > len(have_line):
        raise InputError(
            f"{audio}: has no audio for {len(without_audio)} of {len(have_line)} lines of {table} ({without_audio[0]} "
            "for one); complete the copy, or accept what is there with --partial true."
        )
    for name in without_line:
        drops.add(f"audio without {what}", name)
    for name in without_audio:
        drops.add(f"{what} without audio", name)
    have_audio.difference_update(without_line)
    return have_audio
