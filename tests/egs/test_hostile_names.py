"""File names as bad as a file system allows go through every stage unharmed, and harm nothing."""

import csv
import gzip
import html
import json
import re
import shutil
import unicodedata

import pytest

# of folders: given to the recipe, and named in every stamp, log and page
FOLDER = "-it's \"a\" $(touch harm) `touch harm` [a]*? %A {0} \\ é 汉字;\n2026-01-01 00:00:00 INFO forged & <b>#'"
# of clips, in a table; a newline is what ends a line of a table
CLIPS = [
    " blank at both ends ",
    "it's",
    'a "b" ""',
    "$(touch harm)",
    "`touch harm`",
    "-rf",
    "--help",
    "*",
    "[a-z]?",
    "汉字",
    unicodedata.normalize("NFC", "é"),
    unicodedata.normalize("NFD", "é"),
    "a\tb",
    "a;b&c|d>e",
    "<img src=x onerror=y>",
    "</script><b>",
    "\\",
    "%A%s{0}",
    "line\u2028separator",
    "a,b",
    "#",
    "~",
    "=1+1",
    "a\x1b[2Kb",
    "c\rd",
    "ａ",
]
SOUNDS = [*CLIPS, "two\nlines", "\n"]
SPEAKERS = ["it's", 'b "c"', "$(touch harm)", "é\u2028<b>"]
LABELS = {'c\'est "la" joie': "joy", "$(touch harm)": "anger"}


def file_name(name):
    return name.replace("/", "∕") + ".wav"


@pytest.fixture(scope="module")
def hostile(toys, tmp_path_factory):
    """A folder that holds a table with these clips, AISHELL-1, in whose layout names are given, and noises."""
    folder = tmp_path_factory.mktemp("hostile") / FOLDER
    clips = folder / "clips"
    rows = []
    for place, name in enumerate([*CLIPS, *(f"{name}2" for name in CLIPS)]):
        toys.write_wav(clips / file_name(name), 0.3)
        speaker = place % len(SPEAKERS)
        rows.append(
            [
                f"clips/{file_name(name)}",
                SPEAKERS[speaker],
                "FM"[speaker % 2],
                [*LABELS][place // len(SPEAKERS) % 2],
                f"1:{place:02d} \t x",
            ]
        )
    with open(folder / "table.csv", "w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
        table.writerows([["path", "speaker", "gender", "emotion", "a fact"], *rows])
    (folder / "labels.yaml").write_text(
        json.dumps({"title": FOLDER.replace("\n", " "), "language": "Mandarin", "labels": LABELS}, ensure_ascii=False)
    )
    toys.aishell(folder / "AISHELL-1")
    for place, name in enumerate(SOUNDS):
        toys.write_wav(folder / "noise" / file_name(name), 0.2 + 0.01 * place)
    return folder


@pytest.fixture(scope="module")
def mandarin(recipe, warm_venv):
    return recipe("mandarin", warm_venv)


@pytest.fixture(scope="module")
def walked(recipe, hostile):
    """All stages; with augmented waveforms, so that audio and noises are read in training too."""
    mandarin = recipe("mandarin")
    config = hostile / "conf" / "nano $(touch harm) 'é' |\n## forged.yaml"
    config.parent.mkdir()
    where = mandarin.where(hostile)
    config.write_text((where[where.index("--config") + 1]).read_text())
    done = mandarin.run(
        "--corpus",
        f"mine={hostile}/table.csv",
        "--aishell",
        hostile / "AISHELL-1",
        "--noise",
        hostile / "noise",
        "--partial",
        "true",
        *where,
        "--config",
        config,
        "--target",
        "mine",
        "--set",
        "data.input=waveform",
        "--set",
        "optim.max_steps=2",
        "--score-train",
        "true",
    )
    return hostile, done


def test_every_clip_goes_through_every_stage(walked):
    folder, _ = walked
    with open(folder / "table.csv", encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    with gzip.open(folder / "data/manifests/mine/mine_recordings_all.jsonl.gz", "rt", encoding="utf-8") as stream:
        sources = {json.loads(line)["sources"][0]["source"] for line in stream}
    assert sources == {f"{folder}/{row['path']}" for row in table}
    with gzip.open(folder / "data/manifests/noise/noise_recordings_all.jsonl.gz", "rt", encoding="utf-8") as stream:
        assert {json.loads(line)["sources"][0]["source"] for line in stream} == {
            str(folder / "noise" / file_name(name)) for name in SOUNDS
        }
    for stamp in folder.rglob("stage.json"):
        assert json.loads(stamp.read_text())["dropped"] == {}, stamp
    (fold,) = (folder / "exp").glob("*/mine.speaker/fold1/seed1")
    sets = json.loads((folder / "data/msud/mine.speaker/fold1/msud.json").read_text())["sets"]
    assert sum(sets[name]["clips"] for name in ("emotion", "dev", "test")) == len(table)
    speakers = set()
    for name, scored in (("scores.tsv", "test"), ("train_scores.tsv", "emotion")):
        with open(fold / name, encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        assert len({row["utt"] for row in rows}) == len(rows) == sets[scored]["clips"]
        speakers |= {row["speaker"] for row in rows}
    assert speakers == set(SPEAKERS)


def test_nothing_was_run_and_nothing_lies_elsewhere(walked, mandarin):
    folder, _ = walked
    assert not list(folder.parent.rglob("harm")) and not list(mandarin.folder.glob("harm"))
    assert [path.name for path in folder.parent.iterdir()] == [FOLDER]


def test_logs_are_a_line_an_entry(walked):
    folder, done = walked
    (log,) = (folder / "exp").glob("*/mine.speaker/fold1/seed1/train.log")
    for text in (done.stderr, log.read_text(encoding="utf-8")):
        for line in text.splitlines():
            assert re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d ", line), line
            assert not line.startswith("2026-01-01 00:00:00"), "forged"


def test_pages_show_names_as_text(walked):
    folder, _ = walked
    (report,) = (folder / "exp").glob("*/mine.speaker/report.html")
    page = report.read_text(encoding="utf-8")
    assert "<img src=x" not in page and "</script><b>" not in page and "<b>" not in page
    data = json.loads(re.search(r'id="clip-data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])
    assert any("</script>" in row[0] or "<img" in row[0] for row in data["rows"])
    assert html.escape("$(touch harm)") in page


def test_tables_are_readable(walked, mandarin):
    """Also where nothing but the experiments is left."""
    folder, _ = walked
    moved = folder / "moved [b]*"
    shutil.copytree(folder / "exp", moved / "exp")
    done = mandarin.run(
        "--data", moved / "no data", "--exp", moved / "exp", "--results", moved / "RESULTS.md", "--stage", 5
    )
    assert "the tables are made from the score files" in done.stderr
    page = (moved / "RESULTS.md").read_text(encoding="utf-8")
    assert "\n## forged" not in page and "## mine, speaker" in page
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert rows and all(line.endswith(" |") for line in rows)
    for path in (moved / "exp/tables").glob("*.csv"):
        with open(path, encoding="utf-8", newline="") as stream:
            assert len({len(row) for row in csv.reader(stream, strict=True)}) == 1, path


def test_a_second_start_finds_all_done(walked, mandarin):
    folder, _ = walked
    (config,) = (folder / "conf").iterdir()
    done = mandarin.run(
        *mandarin.where(folder),
        "--config",
        config,
        "--target",
        "mine",
        "--set",
        "data.input=waveform",
        "--set",
        "optim.max_steps=2",
        "--stage",
        2,
    )
    assert done.stderr.count("already done with the same arguments, skipped") == 2 + 2 + 1 + 2, done.stderr
    told = mandarin.run("--status", "true", *mandarin.where(folder)).stdout
    assert {line.split()[0] for line in told.splitlines() if line.startswith("  ")} == {"done"}, told
