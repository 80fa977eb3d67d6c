"""docs/adding_a_corpus.md: what the page shows is taken from it and run, on a corpus that the package does not know."""

import os
import runpy
import subprocess
import sys

import pytest
from doc_pages import blocks
from lhotse import SupervisionSet

from speecheq.common.files import read_json
from speecheq.corpora.exchange import import_corpus
from speecheq.corpora.prep_script import main
from speecheq.corpora.prepare import PrepareRequest

MOST_LINES = 40


# The page has one block of each of these languages.
BLOCK = dict(blocks("docs/adding_a_corpus.md"))


@pytest.fixture
def harbour(toys, tmp_path):
    folder = tmp_path / "Harbour"
    for name in ("f1_happy_strong_03", "f1_calm_mild_07", "m1_tired_mild_03", "m1_angry_mild_03"):
        toys.write_wav(folder / "clips" / f"{name}.wav")
    (folder / "speakers.txt").write_text("f1 F\nm1 M\n")
    return folder


@pytest.fixture
def script(tmp_path, capsys):
    """Runs the command line of the page's prep script: (exit status, what it said)."""
    path = tmp_path / "prepare_harbour.py"
    path.write_text(BLOCK["python"], encoding="utf-8")
    names = runpy.run_path(str(path))

    def run(*arguments):
        status = main({"": (names["HARBOUR"], names["find_utterances"])}, [str(argument) for argument in arguments])
        return status, capsys.readouterr().err

    run.path = path
    return run


def test_the_script_is_short_and_its_corpus_unknown_to_the_package(toys):
    assert len(BLOCK["python"].splitlines()) <= MOST_LINES
    for path in (*toys.root.glob("speecheq/**/*.py"), *toys.root.glob("local/*.py")):
        assert "harbour" not in path.read_text(encoding="utf-8").lower(), path


def test_the_script_prepares_the_corpus(script, harbour, toys, tmp_path):
    arguments = [sys.executable, script.path, harbour, tmp_path / "out", "--partial", "true"]
    subprocess.run(arguments, check=True, timeout=60, env={**os.environ, "PYTHONPATH": str(toys.root)})
    found = {s.id: s for s in SupervisionSet.from_file(tmp_path / "out" / "harbour_supervisions_all.jsonl.gz")}
    assert {
        name: (s.speaker, s.gender, s.custom["esc"], s.custom["eis"], s.custom["text_id"]) for name, s in found.items()
    } == {
        "harbour-f1_happy_strong_03": ("f1", "F", "joy", 3.0, "03"),
        "harbour-f1_calm_mild_07": ("f1", "F", "neutral", 0.0, "07"),
        "harbour-m1_angry_mild_03": ("m1", "M", "anger", 2.0, "03"),
    }
    assert read_json(tmp_path / "out" / "stage.json")["dropped"] == {
        "tired is not an emotion of SEQM": ["m1_tired_mild_03"]
    }


@pytest.mark.parametrize(
    "spoil, words",
    [
        (None, "1200 (version 1)"),
        ("clips/f1_glad_mild_03.wav", "the label 'glad' is not one of Harbour's"),
        ("clips/f1_happy_huge_03.wav", "the level 'huge' is not one of Harbour's"),
        ("clips/x9_happy_mild_03.wav", "is not named <speaker>_<emotion>_<level>_<sentence>"),
        ("clips/nothing.wav", "is not named"),
    ],
)
def test_faults_of_a_copy_are_sentences(script, harbour, toys, tmp_path, spoil, words):
    if spoil:
        toys.write_wav(harbour / spoil)
    status, said = script(harbour, tmp_path / "out", *(("--partial", "true") if spoil else ()))
    assert status == 1 and words in said and "Traceback" not in said and not (tmp_path / "out").exists()


def test_a_wrong_folder_is_named(script, harbour, tmp_path):
    status, said = script(tmp_path, tmp_path / "out")
    assert status == 1 and f"give {harbour} instead" in said


def test_the_table_is_read_without_code(harbour, tmp_path):
    (harbour / "harbour.csv").write_text(BLOCK["csv"], encoding="utf-8")
    (harbour / "labels.yaml").write_text(BLOCK["yaml"], encoding="utf-8")
    import_corpus("harbour", PrepareRequest(harbour / "harbour.csv"), tmp_path / "out")
    found = list(SupervisionSet.from_file(tmp_path / "out" / "harbour_supervisions_all.jsonl.gz"))
    assert [(s.custom["emotion"], s.custom["eis"], s.custom["text_id"]) for s in found] == [
        ("calm", 0.0, "07"),
        ("happy", 3.0, "03"),
    ]
    assert read_json(tmp_path / "out" / "stage.json")["dropped"] == {
        "labels.yaml leaves the label tired out": ["harbour-clips-m1_tired_mild_03"]
    }
