"""The paper's tables with our figures: the right experiment in the right cell, nothing made up."""

from pathlib import Path

import pytest

from speecheq.common.errors import InputError
from speecheq.reporting.experiment import LATER
from speecheq.reporting.published_results import PUBLISHED, paper_tables, published_sections, read_table
from speecheq.reporting.tables import csv_table, table_markdown

EGS = Path(__file__).resolve().parents[2] / "egs"
TABLE = """
title: Table 9
columns:
  - {heading: A %, target: casia, protocol: random10, score: wa}
  - {heading: MSE, target: seqd, protocol: official, score: eis_mse}
rows:
  - {name: Cited, system: null, figures: [50, null]}
  - {name: Full, system: speecheq, figures: [96.45, 0.68]}
published:
  - {name: Better, target: casia, protocols: [random10, text], classes: 6, wa: null, ua: 91, how: in some way}
  - {name: Worse, target: casia, protocols: [random10], classes: 6, wa: 34.5, ua: null, how: in another}
  - {name: Unseen, target: casia, protocols: [speaker], classes: 6, wa: 50, ua: 49, how: in a third}
parts:
  - {name: doing it, system: speecheq, without: wo_mtl}
notes: [All of this is made up.]
"""
PROBE_ROW = "  - {name: SVM, system: probe, figures: [null, null]}\n"


def summary(system="speecheq", target="casia", protocol="random10", config="small", assignments=(), **changes):
    run = {
        **LATER,
        "system": system,
        "target": target,
        "protocol": protocol,
        "config": config,
        "set": list(assignments),
        "classes_of": "seqm",
        "neutral_eis": "declared",
        "folds": [1, 2],
        "of_folds": 10,
        "seeds": [1],
        "corpora": ["casia", "seqd"],
        "trained_at_git": ["abc"],
        "test_speakers_in_training": [4],
        "train_seconds": 84.0,
        "trainings": 2,
        "parameters": 823_456,
        "label_sets": {"test": list("abcdef")},
        **changes,
    }
    return {"test.wa": 0.8765, "test.eis_mse": 0.4321, "test.restricted_wa": 0.9, "test.restricted_ua": 0.8, "run": run}


def table(tmp_path, text=TABLE):
    (tmp_path / "table.yaml").write_text(text)
    return tmp_path / "table.yaml"


def test_each_figure_stands_beside_the_papers(tmp_path):
    ((made, notes),) = paper_tables(
        read_table(table(tmp_path)), [summary(), summary(target="seqd", protocol="official", of_folds=1)]
    )
    assert made.caption == "Table 9, small"
    assert "| Cited | - / 50.00 | - / - |" in table_markdown(made)
    assert "| Full (speecheq) | 87.65 / 96.45 | 0.43 / 0.68 |" in table_markdown(made)
    assert "Full (speecheq),87.65,96.45,0.43,0.68" in csv_table(made)
    assert notes[0] == "speecheq, casia random10: folds 1 2 of 10, seeds 1, emotion data casia, seqd, git abc"


@pytest.mark.parametrize(
    "other",
    [
        dict(protocol="speaker"),
        dict(system="wo_mtl"),
        dict(target="ravdess"),
        dict(classes_of="corpus"),
        dict(neutral_eis="metric"),
    ],
)
def test_experiments_of_another_kind_stay_out(tmp_path, other):
    assert paper_tables(read_table(table(tmp_path)), [summary(**other)]) == []


def test_configurations_are_not_mixed(tmp_path):
    made = paper_tables(read_table(table(tmp_path)), [summary(), summary(config="paper"), summary(assignments=["a=1"])])
    assert [beside.caption for beside, _ in made] == ["Table 9, paper", "Table 9, small", "Table 9, small (a=1)"]


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("title: Table 9", "", "lacks the key title"),
        ("score: wa", "score: f1", "column 1: the score 'f1' is not one of"),
        ("heading: A %, ", "", "columns, item 1: lacks the key heading"),
        ("figures: [50, null]", "figures: [50]", "row 1: expected 2 figures"),
        (
            "figures: [50, null]",
            "figures: [50, good]",
            "rows, item 1: figures, item 2 is 'good', but it must be a number",
        ),
        ("{name: Cited, system: null, figures: [50, null]}", "Cited", "rows, item 1: must be 'key: value' lines"),
        ("[speaker]", "speaker", "published, item 3: protocols is 'speaker', but it must be a list"),
        ("ua: 91", "ua: high", "published, item 1: ua is 'high', but it must be a number"),
        ("ua: 91", "ua: null", "published figure 1: its wa or its ua must be a number"),
        ("classes: 6", "classes: six", "published, item 1: classes is 'six', but it must be a whole number"),
        ("[All of this is made up.]", "All", "notes is 'All', but it must be a list"),
        ("how: in some way", "why: in some way", "published, item 1: 'why' is not a key; the keys are name, target"),
        ("system: speecheq, without", "system: null, without", "parts, item 1: system is None, but it must be text"),
        ("without: wo_mtl", "minus: wo_mtl", "parts, item 1: 'minus' is not a key; the keys are name, system, without"),
    ],
)
def test_tables_that_are_wrong(tmp_path, old, new, words):
    with pytest.raises(InputError) as refused:
        read_table(table(tmp_path, TABLE.replace(old, new)))
    assert str(refused.value).startswith(str(tmp_path / "table.yaml")) and words in str(refused.value)


@pytest.mark.parametrize("recipe, rows, columns", [("mandarin", 6, 6), ("iemocap", 10, 5)])
def test_the_recipes_tables_name_systems_that_are_there(recipe, rows, columns):
    from speecheq.config.layers import read_systems

    made = read_table(EGS / recipe / "conf" / "table.yaml")
    assert (len(made.rows), len(made.columns)) == (rows, columns)
    assert {row.system for row in made.rows} - {None, "probe", "majority"} <= set(
        read_systems(EGS / recipe / "conf" / "systems.yaml")
    )
    full = next(row for row in made.rows if row.system == "speecheq")
    mse = [column.score for column in made.columns].index("eis_mse")
    assert full.figures[mse] == {"mandarin": 0.68, "iemocap": 0.74}[recipe]


def test_cited_and_reference_systems_stand_beside_every_configuration(tmp_path):
    text = TABLE.replace("system: null", "system: hgfm").replace("published:", PROBE_ROW + "published:")
    paper = read_table(table(tmp_path, text))
    cited = [summary("hgfm", config="cited-hgfm33"), summary("hgfm", config="cited"), summary("hgfm", config="paper")]
    svm = summary("probe", config="egemaps", probe={"kernel": "rbf"})
    made = paper_tables(paper, [summary(), *cited[:2], svm])
    assert [beside.caption for beside, _ in made] == ["Table 9, small"]
    assert [row[0] for row in made[0].table.rows] == [
        "Cited (hgfm, cited)",
        "Cited (hgfm, cited-hgfm33)",
        "Full (speecheq)",
        "SVM (probe, egemaps)",
    ]
    alone = paper_tables(paper, [*cited[:2], svm])
    assert [beside.caption for beside, _ in alone] == ["Table 9, cited and reference systems"]
    assert alone[0].table.rows[2][1] == ("-", "96.45")
    own = paper_tables(paper, [cited[2]])
    assert [beside.caption for beside, _ in own] == ["Table 9, paper"], "another configuration is one of its own"


def test_the_protocol_of_a_paper_is_in_no_table_of_a_strict_one(tmp_path):
    paper = read_table(table(tmp_path))
    assert paper_tables(paper, [summary(as_published=["best_test"])]) == []
    assert published_sections(paper.published, [summary(as_published=["best_test"])]) == []


def test_ours_stand_among_published_figures_of_the_same_corpus_and_kind_of_folds(tmp_path):
    published = read_table(table(tmp_path)).published
    (made,) = published_sections(published, [summary(), summary(protocol="official"), summary(target="seqd")])
    assert made.heading == "casia, random10: our results among published ones"
    (among,) = made.tables
    assert among.caption == "6 classes, test speakers seen in training" and among.rows == [
        ["Better", "n/a", "91.00", "n/a", "n/a", "in some way"],
        ["small-speecheq", "90.00", "80.00", "0.82", "42 s", "ours: folds 1 2 of 10, seeds 1, git abc"],
        ["Worse", "34.50", "n/a", "n/a", "n/a", "in another"],
    ]
    assert made.sentences == [PUBLISHED]


def test_of_a_reference_and_of_earlier_scores_no_size_is_stated(tmp_path):
    published = read_table(table(tmp_path)).published
    earlier = summary(protocol="speaker", test_speakers_in_training=[0], parameters=None)
    probe = summary("probe", protocol="speaker", test_speakers_in_training=[0], probe={"kernel": "rbf"})
    (made,) = published_sections(published, [earlier, probe])
    (among,) = made.tables
    assert among.caption == "6 classes, unseen test speakers"
    assert [row[:5] for row in among.rows] == [
        ["small-speecheq", "90.00", "80.00", "n/a", "42 s"],
        ["small-probe", "90.00", "80.00", "n/a", "n/a"],
        ["Unseen", "50.00", "49.00", "n/a", "n/a"],
    ]


def test_figures_over_other_numbers_of_classes_are_not_put_beside_each_other(tmp_path):
    """Where SEQM merges two of a corpus' classes the task is an easier one."""
    published = read_table(table(tmp_path)).published
    merged = [summary(system, label_sets={"test": list("abcde")}) for system in ("wo_mtl", "wo_msud")]
    apart = (
        "over 5 classes, and so not comparable with the published results over 6 (--classes corpus keeps the classes "
        "of a corpus): small-wo_mtl, small-wo_msud"
    )
    (made,) = published_sections(published, [summary(), *merged])
    assert [row[0] for row in made.tables[0].rows] == ["Better", "small-speecheq", "Worse"]
    assert made.sentences == [PUBLISHED, apart]
    (made,) = published_sections(published, merged)
    assert (made.tables, made.sentences) == ([], [apart])


@pytest.mark.parametrize("recipe, targets", [("mandarin", {"casia"}), ("iemocap", {"ravdess", "emodb"})])
def test_published_figures_of_the_recipes(recipe, targets):
    published = read_table(EGS / recipe / "conf" / "table.yaml").published
    assert {result.target for result in published} == targets and all(
        30 < (result.wa or result.ua) < 95 for result in published
    )


@pytest.mark.parametrize("recipe", ["mandarin", "iemocap", "mtl_aug"])
def test_the_parts_of_the_recipes_are_of_systems_that_are_there(recipe):
    from speecheq.config.layers import read_systems

    parts = read_table(EGS / recipe / "conf" / "table.yaml").parts
    assert parts and {name for part in parts for name in (part.system, part.without)} <= set(
        read_systems(EGS / recipe / "conf" / "systems.yaml")
    )
