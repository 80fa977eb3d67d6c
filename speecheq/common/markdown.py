"""Tables in Markdown."""

import re
from collections.abc import Iterable, Sequence

from speecheq.common.log import one_line

# What begins a tag, a comment or a link in HTML and Markdown; a number below another stays as it is.
_TAG = re.compile("<(?=[A-Za-z/!?])")


def without_html(text: str) -> str:
    """A text for Markdown in which what would begin a tag is shown as it is written."""
    return _TAG.sub("&lt;", text)


def markdown_table(headings: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of one line for each row, each with its line end; cells hold no HTML.

    >>> print(markdown_table(["class", "clips"], [["joy", "12"]]), end="")
    | class | clips |
    | --- | --- |
    | joy | 12 |
    """

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(without_html(one_line(cell)).replace("|", "\\|") for cell in cells) + " |\n"

    return line(headings) + line("---" for _ in headings) + "".join(map(line, rows))
