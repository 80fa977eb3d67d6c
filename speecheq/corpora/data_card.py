"""Data cards: what a corpus is, where it comes from and under which terms.

A card is a file ``local/cards/<corpus>.yaml`` with the fields of ``Card``. The table of corpora in the README, the
downloads of stage 0, and its advice on corpora that cannot be downloaded come from the cards.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from speecheq.common.errors import InputError
from speecheq.common.http_transfer import PublishedFile
from speecheq.common.markdown import markdown_table
from speecheq.common.yaml_files import from_mapping, read_yaml

CARDS = Path(__file__).resolve().parents[2] / "local" / "cards"
# open: anybody who agrees to the terms may download it; request: its owner gives it out; never_released: nobody does
ACCESS = ("open", "request", "never_released")


@dataclass(frozen=True)
class Download(PublishedFile):
    """An archive of a corpus.

    ``part`` is the part of the corpus in it, where parts are chosen one by one; those that are ``optional`` are
    downloaded only when they are asked for. ``into`` is the subfolder of the corpus in which it is unpacked.
    """

    url: str
    part: str | None = None
    optional: bool = False
    into: str = ""

    @property
    def file(self) -> str:
        """The archive's name."""
        return unquote(PurePosixPath(urlsplit(self.url).path).name)


@dataclass(frozen=True)
class Card:
    """What is known of one corpus.

    - ``hours`` and ``sampling_rate`` (Hz) are None where no source gives them.
    - ``labels`` are the corpus' own words; ``intensity`` describes how emotions are graded.
    - ``obtain`` is where or how to obtain the corpus, needed unless there are ``downloads``.
    - ``prep`` is the script that prepares it; ``folder`` is the folder that its archives make, which the script takes.
    - ``recipe_option``: whether a recipe has an option of its name; else it is given by ``--corpus``.
    """

    name: str
    title: str
    language: str
    source: str
    licence: str
    access: str
    clips: int
    hours: float | None
    speakers: int
    labels: tuple[str, ...]
    intensity: str
    sampling_rate: int | None
    used_for: str
    known_faults: tuple[str, ...]
    prep: str
    obtain: str = ""
    folder: str = ""
    downloads: tuple[Download, ...] = ()
    recipe_option: bool = True


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def read_card(path: str | Path) -> Card:
    """The card in a YAML file; raises InputError, which names the file and what is wrong in it."""
    path = Path(path)
    card = from_mapping(Card, read_yaml(path), str(path))
    if card.name != path.stem:
        raise InputError(f"{path}: is the card of {card.name!r}; name the file {card.name}.yaml.")
    if card.access not in ACCESS:
        raise InputError(f"{path}: access is {card.access!r}, but it must be one of {', '.join(ACCESS)}.")
    for key in ("clips", "speakers", "hours", "sampling_rate"):
        value = getattr(card, key)
        if value is not None and not value > 0:
            raise InputError(f"{path}: {key} is {value!r}, but it must be above 0.")
    if card.downloads and (card.access != "open" or not card.folder):
        raise InputError(f"{path}: a corpus with downloads needs 'access: open' and the folder that they make.")
    if not card.downloads and not card.obtain:
        raise InputError(f"{path}: has neither downloads nor obtain, so that nobody learns how to obtain the corpus.")
    if not _is_inside(card.folder):
        raise InputError(f"{path}: folder is {card.folder!r}, which is not a folder inside another.")
    for number, item in enumerate(card.downloads, 1):
        where = f"{path}: downloads, item {number}"
        if not item.url.startswith(("http://", "https://")) or not item.file:
            raise InputError(f"{where}: url is {item.url!r}, which is not that of a file (http or https).")
        if not _is_inside(item.into):
            raise InputError(f"{where}: into is {item.into!r}, which is not a folder inside another.")
        for key, length in (("md5", 32), ("sha256", 64)):
            value = getattr(item, key)
            if value is not None and (len(value) != length or set(value) - set("0123456789abcdef")):
                raise InputError(f"{where}: {key} is {value!r}, which is not {length} digits 0-9 and a-f.")
    return card


def read_cards(folder: str | Path = CARDS) -> dict[str, Card]:
    """All cards of a folder by the names of their corpora, in alphabetical order."""
    paths = sorted(Path(folder).glob("*.yaml"))
    if not paths:
        raise InputError(f"{folder}: holds no data card; run this from a checkout of the repository.")
    return {path.stem: read_card(path) for path in paths}


def find_card(name: str) -> Card:
    """The card of the corpus ``name``; raises InputError for a corpus without one."""
    path = CARDS / f"{name}.yaml"
    if not path.is_file():
        raise InputError(f"{name}: there is no data card of this corpus; there are {', '.join(read_cards())}.")
    return read_card(path)


def where_from(card: Card) -> str:
    """One line: how a corpus is had, from where and under which terms."""
    option = f"--{card.name.replace('_', '-')} " if card.recipe_option else f"--corpus {card.name}="
    corpus = f"{card.title} ({card.source}; licence: {card.licence})"
    if card.downloads:
        sizes = [item.bytes for item in card.downloads if not item.optional]
        size = "it is" if None in sizes else f"{sum(filter(None, sizes)) / 1e9:.1f} GB are"
        return (
            f"{corpus} is open: {size} downloaded by 'speecheq download {card.name} --out DIR'; then give {option}"
            f"DIR/{card.name}/{card.folder}."
        )
    how = {
        "open": "is open, but not downloaded from here",
        "request": "is given out on request",
        "never_released": "was never released",
    }[card.access]
    return f"{corpus} {how}: {card.obtain}; then give {option}DIR."


def table(cards: Mapping[str, Card]) -> str:
    """The table of corpora in Markdown, by title."""
    had = {"open": "open", "request": "on request", "never_released": "never released"}
    headings = ("corpus", "language", "clips, hours, speakers", "intensity", "used for", "licence", "to be had")
    rows = []
    for card in sorted(cards.values(), key=lambda card: card.title):
        hours = "?" if card.hours is None else f"{card.hours:g}"
        size, source = f"{card.clips:,} / {hours} / {card.speakers:,}", f"[{card.title}]({card.source})"
        access = "by stage 0" if card.downloads else had[card.access]
        rows.append([source, card.language, size, card.intensity or "-", card.used_for, card.licence, access])
    return markdown_table(headings, rows)
