"""The tables that the program writes into README.md and docs/corpora.md."""

import shutil
from pathlib import Path

import pytest

from speecheq.cli import main
from speecheq.common.errors import InputError
from speecheq.reporting.readme_tables import replace_between_markers, results_table, update

ROOT = Path(__file__).resolve().parents[2]
PAGE = """# Results of Experiment 9

- a note | with a bar

## casia, speaker

### Categories (ESC)

| system | config | folds | seeds | WA % | UA % | UAI % |
| --- | --- | --- | --- | --- | --- | --- |
| wo_mtl | small (a=1\\|2) | 1 2 of 2 | 1 | 36.00 ± 1.78 | 35.00 ± 2.50 | 1.00 |
| speecheq | small | 1 of 4 | 1 2 | 50.00 | 49.00 | 2.00 |

### Intervals and standard deviations

| system | config | pooled WA % | 95 % interval | pooled UA % | 95 % interval | test speakers |
| --- | --- | --- | --- | --- | --- | --- |
| wo_mtl | small (a=1\\|2) | 36.00 | 30.00 to 40.00 | 34.50 | 27.33 to 46.50 | 2 |
| speecheq | small | 50.00 | n/a | 49.00 | n/a | 1 |

## casia, speaker: test clips of seqd

### Categories (ESC)

| system | config | folds | seeds | WA % | UA % | UAI % |
| --- | --- | --- | --- | --- | --- | --- |
| wo_mtl | small | 1 2 of 4 | 1 | 99.00 | 99.00 | 99.00 |

## How each was run

### small-wo_mtl, casia.speaker

- protocol: casia, speaker
"""


@pytest.fixture
def checkout(tmp_path):
    """Data cards, one page of results, and a README with old tables."""
    shutil.copytree(ROOT / "local" / "cards", tmp_path / "local" / "cards")
    for recipe, target in ("iemocap", "casia"), ("mtl_aug", "emodb"):
        (tmp_path / "egs" / recipe).mkdir(parents=True)
        (tmp_path / "egs" / recipe / "RESULTS.md").write_text(PAGE.replace("casia", target), encoding="utf-8")
    blocks = "\n".join(f"<!-- {name}: begin -->\nold\n<!-- {name}: end -->\n" for name in ("corpora", "results"))
    (tmp_path / "README.md").write_text(f"before\n\n{blocks}\nafter\n", encoding="utf-8")
    return tmp_path


def test_the_results_are_those_of_the_targets_own_test_clips_over_all_folds():
    """Of the two systems, one is over two of two folds, the other over one."""
    assert results_table({"RESULTS.md": PAGE}).splitlines()[2:] == [
        "| casia, speaker | wo_mtl | small (a=1\\|2) | 1 2 of 2 | 1 | 36.00 ± 1.78 | 35.00 ± 2.50 | 27.33 to 46.50 |"
    ]
    for folds in ("1 of 2", "2 of 2"):
        with pytest.raises(InputError, match="hold no results over all folds"):
            results_table({"RESULTS.md": PAGE.replace("1 2 of 2", folds)})


@pytest.mark.parametrize(
    "page",
    [
        PAGE.replace("UA %", "ua"),
        PAGE.replace("| speecheq | small | 50.00 | n/a | 49.00 | n/a | 1 |\n", ""),
        PAGE.replace("| speecheq | small | 1 of 4 | 1 2 | 50.00 | 49.00 | 2.00 |", "| speecheq | small |"),
        PAGE.replace("| system", "system"),
        PAGE.replace("| speecheq | small | 50.00 | n/a", "| wo_mtl | small | 50.00 | n/a"),
    ],
)
def test_a_page_that_is_not_as_stage_5_writes_it_is_refused(page):
    with pytest.raises(InputError, match=r"^egs/x/RESULTS.md: does not hold the tables of stage 5 .*\.$"):
        results_table({"egs/x/RESULTS.md": page})


def test_pages_without_results_are_refused():
    with pytest.raises(InputError, match=r"^a, b: hold no results over all folds; .*\.$"):
        results_table({"a": "# Results\n", "b": ""})


def test_the_tables_are_written_between_their_markers(checkout):
    page = checkout / "README.md"
    assert update(page, checkout) and not update(page, checkout)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n\n<!-- corpora: begin -->\n| corpus")
    assert text.endswith("|\n<!-- results: end -->\n\nafter\n")
    assert "\nold\n" not in text and "| casia, speaker | wo_mtl |" in text and "[RAVDESS](" in text
    assert "emodb, speaker" not in text, "MTL-AUG has its own page"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<!-- a: begin -->",
        "<!-- a: end -->",
        "<!-- a: end --> <!-- a: begin -->",
        "<!-- a: begin --><!-- a: begin --><!-- a: end -->",
    ],
)
def test_a_page_without_markers_is_refused(text):
    with pytest.raises(InputError, match="^README.md: needs one line <!-- a: begin --> and"):
        replace_between_markers(text, "a", "x\n", "README.md")


def test_a_page_that_is_refused_is_kept(checkout):
    (checkout / "README.md").write_text("no markers\n", encoding="utf-8")
    with pytest.raises(InputError, match="README.md: needs one line"):
        update(checkout / "README.md", checkout)
    assert (checkout / "README.md").read_text(encoding="utf-8") == "no markers\n"
    (checkout / "README.md").write_text("<!-- corpora: begin -->\n", encoding="utf-8")
    with pytest.raises(InputError, match="README.md: needs one line <!-- corpora: begin -->"):
        update(checkout / "README.md", checkout)
    with pytest.raises(InputError, match="none.md: there is no such file"):
        update(checkout / "none.md", checkout)


def test_the_command(tmp_path, capsys):
    for name in ("README.md", "docs/corpora.md"):
        page = tmp_path / Path(name).name
        shutil.copy(ROOT / name, page)
        assert main.main(["readme", str(page)]) == 0 and "is up to date" in capsys.readouterr().err
