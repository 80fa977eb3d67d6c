"""README.md and docs/*.md as their tests read them: code blocks, tables, code in the text."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
# Endings of files that the pages name.
FILES = (
    "py",
    "sh",
    "json",
    "yaml",
    "onnx",
    "safetensors",
    "tsv",
    "csv",
    "npz",
    "md",
    "pt",
    "gz",
    "txt",
    "log",
    "scp",
    "wav",
    "png",
    "html",
)
# The heading of the last column of tables that say which options, or what else of a command line, to give for what.
TO_GIVE = "give"


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, code) of each code block."""
    return BLOCK.findall(text_of(page))


def prose(page: str) -> str:
    """The page without its code blocks."""
    return BLOCK.sub("", text_of(page))


def inline_code(text: str) -> list[str]:
    """What stands between back quotes, in one line each."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def tables(page: str) -> Iterator[list[list[str]]]:
    """Each table as rows of cells, the headings first, without the rule."""
    for lines in re.findall(r"(?:^\|.*\n)+", prose(page), re.M):
        rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in lines.splitlines()]
        yield [rows[0], *rows[2:]]


def given(page: str) -> list[str]:
    """The pieces of code in the last column of the tables that end in one headed "give"."""
    return [
        code
        for heading, *rows in tables(page)
        if heading[-1] == TO_GIVE
        for row in rows
        for code in inline_code(row[-1])
    ]


def paths(page: str) -> list[str]:
    """The pieces of code in the text that are paths, or names of files."""
    codes = (code.rstrip("/") for code in inline_code(prose(page)) if " " not in code)
    return [
        code
        for code in codes
        if re.fullmatch(r"[\w<>.*/-]+", code) and ("/" in code or re.search(rf"\w\.({'|'.join(FILES)})$", code))
    ]
