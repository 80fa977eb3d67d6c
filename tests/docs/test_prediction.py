"""docs/prediction.md: its commands and its Python are taken from the page and run."""

import shlex
from contextlib import ExitStack

import pytest
from doc_pages import blocks, given, inline_code, prose

from speecheq.cli import main
from speecheq.evaluation.calibration import DevCalibration, RiskPoint
from speecheq.models import checkpoint

PAGE = "docs/prediction.md"
# In place of what stands on the page: a machine without a GPU, and the protocol of the model that lies there.
REPLACED = [
    ("--device cuda", "--device cpu"),
    ("casia.random10", "casia.speaker"),
    ("--segments speech", "--segments speech --speech-activity energy"),  # the model there was trained without any
]


@pytest.fixture
def home(experiment, toys, tmp_path, monkeypatch):
    """A folder in which what the page names lies where the page has it."""
    (tmp_path / "data").symlink_to(experiment.parents[4])
    for name in ("some.wav", "a.wav", "b.flac", "DIR/c.wav"):
        toys.write_wav(tmp_path / name, 0.5)
    (tmp_path / "some.txt").write_text("你", encoding="utf-8")
    (tmp_path / "turns.csv").write_text("file,start,end,speaker,turn\nsome.wav,0,0.25,A,1\nsome,0.2,0.5,B,2\n")
    (tmp_path / "cuts.jsonl.gz").symlink_to(experiment.parents[4] / "msud" / "casia.speaker" / "fold1" / "dev.jsonl.gz")
    monkeypatch.chdir(tmp_path)
    return experiment


@pytest.fixture
def run(home, tmp_path, monkeypatch):
    """Runs a command of the page in this process; one with --reject on a model with a dev part as users have it."""
    content = checkpoint.read(home / "best.pt")
    risks = (RiskPoint(0.0, 60, 30), RiskPoint(0.9, 25, 2))
    calibrated = tmp_path / "calibrated.pt"
    checkpoint.write(calibrated, {**content, "calibration": DevCalibration(1.0, 60, risks, "").to_dict()})

    def run_one(line):
        if "|" in line:  # what another program writes
            line = line.split("|")[1].strip() + " --speech-activity energy"
            content = (tmp_path / "some.wav").read_bytes()
            (tmp_path / "piped").write_bytes(content[44:] if "--rate" in line else content)
            monkeypatch.setattr("sys.stdin", cleanup.enter_context(open(tmp_path / "piped")))
        if "--reject" in line:
            line = line.replace("exp/.../fold1/seed1/best.pt", str(calibrated))
        for text, replacement in [("exp/.../fold1/seed1", str(home)), *REPLACED]:
            line = line.replace(text, replacement)
        words = shlex.split(line)
        assert words[0] == "speecheq" and main.main(words[1:]) == 0, line

    with ExitStack() as cleanup:
        yield run_one


def test_every_command_of_the_page_runs(run, tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="needs the extra `export`")
    pytest.importorskip("onnx", reason="needs the extra `export`")
    lines = [line for language, code in blocks(PAGE) if language == "sh" for line in code.splitlines()]
    assert len(lines) >= 6 and lines[0].startswith(". ./path.sh "), "which the tests of the shell run"
    for line in lines[1:]:
        run(line)
    printed = capsys.readouterr().out
    assert printed.startswith("some.wav: ") and "| model.int8.onnx |" in printed
    for model in ("my-model", "model.onnx"):
        run(f"speecheq predict --model {model} some.wav")
    assert capsys.readouterr().out == 2 * printed.splitlines(keepends=True)[0]
    commands = {code for code in inline_code(prose(PAGE)) if code.startswith("speecheq ")}
    in_test_listen = {"speecheq listen"}
    assert commands - in_test_listen == {"speecheq predict --model model.onnx"}, "run the others here too"


@pytest.mark.parametrize("words", [words for words in given(PAGE) if words != "-"])
def test_what_the_tables_give_is_taken(words, run, capsys):
    recording = "some.wav" if words.startswith("--") else ""
    run(f"speecheq predict --model exp/.../fold1/seed1/best.pt {words} {recording}")
    assert capsys.readouterr().out or words.startswith("--output")


# `python -m speecheq.predict`, which the page names too, is run in tests/inference/test_predict_command.py.
def test_standard_input_is_taken(run, tmp_path, capsys, monkeypatch):
    assert "-" in given(PAGE)
    with open(tmp_path / "some.wav") as stream:
        monkeypatch.setattr("sys.stdin", stream)
        run("speecheq predict --model exp/.../fold1/seed1/best.pt -")
    assert capsys.readouterr().out


def test_the_python_of_the_page_runs(home, capsys):
    code = dict(blocks(PAGE))["python"]
    exec(code.replace("exp/.../fold1/seed1", str(home)), {})
    assert capsys.readouterr().out.startswith("0.0 0.5 ")
