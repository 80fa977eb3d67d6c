"""Tables in Markdown."""

from collections.abc import Iterable, Sequence

from speecheq.common.log import one_line


def markdown_table(headings: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of one line for each row, each with its line end.

    >>> print(markdown_table(["class", "clips"], [["joy", "12"]]), end="")
    | class | clips |
    | --- | --- |
    | joy | 12 |
    """

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in cells) + " |\n"

    return line(headings) + line("---" for _ in headings) + "".join(map(line, rows))
