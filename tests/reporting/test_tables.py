"""A table in its four forms says the same."""

import csv
import io
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speecheq.common.errors import InputError
from speecheq.reporting.tables import (
    Column,
    Section,
    Table,
    csv_table,
    latex_escaped,
    latex_table,
    read_markdown,
    section_markdown,
    slug,
    table_markdown,
    write_tables,
)

TABLE = Table(
    "casia.random10",
    "100 % of CASIA & others",
    [Column("system"), Column("UA %", ("UA %", "UA % deviation"), " ± "), Column("p"), Column("of_what")],
    [["wo_mtl", ("86.67", "1.20"), "<0.001", "a|b"], ["speecheq", ("9.00",), "n/a", "10 of x"]],
)


def test_markdown():
    assert table_markdown(TABLE) == (
        "| system | UA % | p | of_what |\n| --- | --- | --- | --- |\n"
        "| wo_mtl | 86.67 ± 1.20 | <0.001 | a\\|b |\n| speecheq | 9.00 | n/a | 10 of x |\n"
    )


CELLS = st.text(alphabet="ab0 |\\-±", max_size=8).map(str.strip)


@given(st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1)))
def test_markdown_is_read_back(rows):
    made = Table("", "", [Column(heading) for heading in rows[0]], rows[1:])
    found = read_markdown(f"words\n\n{table_markdown(made)}\n| of | another |\n")
    assert ([column.heading for column in found.columns], found.rows) == (rows[0], rows[1:])


@pytest.mark.parametrize("text", ["", "no table", "| one line |\n", "| a | b |\n| --- | --- |\n| 1 |\n"])
def test_what_is_no_table_is_not_read(text):
    with pytest.raises(ValueError, match="no table"):
        read_markdown(text)


def test_a_section_has_its_tables_below_their_captions_then_its_sentences():
    assert section_markdown(Section("A", [replace(TABLE, caption="of all")], ["One.", "Two."])) == (
        f"## A\n\n### Of all\n\n{table_markdown(TABLE)}\n- One.\n- Two.\n"
    )
    assert section_markdown(Section("A", [TABLE])).endswith(table_markdown(TABLE))


def test_labels_are_no_html_in_sentences_and_headings():
    text = section_markdown(Section("<i>A", [replace(TABLE, caption="of </b>")], ["p < 0.05 of <b>W</b>"]))
    assert not re.search("<[a-z/]", text) and "- p < 0.05 of &lt;b>W&lt;/b>" in text


def test_csv_has_a_column_for_each_part():
    assert list(csv.reader(io.StringIO(csv_table(TABLE)))) == [
        ["system", "UA %", "UA % deviation", "p", "of_what"],
        ["wo_mtl", "86.67", "1.20", "<0.001", "a|b"],
        ["speecheq", "9.00", "", "n/a", "10 of x"],
    ]


def test_latex_has_booktabs_rules_and_escapes():
    text = latex_table(TABLE)
    assert r"\caption{100 \% of CASIA \& others}" in text and r"\begin{tabular}{lrrl}" in text
    assert r"wo\_mtl & 86.67 $\pm$ 1.20 & $<$0.001 & a|b \\" in text
    rules = [line for line in text.splitlines() if line.endswith("rule")]
    assert rules == [r"\toprule", r"\midrule", r"\bottomrule"]
    lines = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert [len(re.split(r"(?<!\\)&", line)) for line in lines] == [4, 4, 4]


@given(st.text(alphabet="ab \\&%$#_{}~^<>±", max_size=20))
def test_escaped_text_is_the_text_again(text):
    back = latex_escaped(text)
    named = {
        r"\textbackslash{}": "\\",
        r"\textasciitilde{}": "~",
        r"\textasciicircum{}": "^",
        r"$\pm$": "±",
        "$<$": "<",
        "$>$": ">",
    }
    pattern = "|".join(map(re.escape, named)) + r"|\\[&%$#_{}]"
    assert re.sub(pattern, lambda found: named.get(found[0], found[0][-1]), back) == text
    assert not re.search(r"[&%#_~^±<>\\{}$]", re.sub(pattern, "", back)), "nothing special is left outside of them"


def test_files_take_the_place_of_earlier_ones(tmp_path):
    folder = tmp_path / "tables"
    write_tables(
        folder, [TABLE, Table("small (a=1)", "", TABLE.columns, []), Table("small (a-1)", "", TABLE.columns, [])]
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        "casia.random10.csv",
        "casia.random10.tex",
        "small-a-1-2.csv",
        "small-a-1-2.tex",
        "small-a-1.csv",
        "small-a-1.tex",
    ]
    assert (folder / "casia.random10.tex").read_text() == latex_table(TABLE)
    write_tables(folder, [TABLE])
    assert len(list(folder.iterdir())) == 2
    (folder / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="holds files that are not tables .mine.txt."):
        write_tables(folder, [TABLE])
    assert (folder / "mine.txt").read_text() == "kept"


def test_slug_is_a_file_name():
    assert slug("small (loss.gamma=2)") == "small-loss.gamma-2" and slug("../x/é") == "x"
