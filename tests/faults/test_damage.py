"""A file that is cut off, of every kind that one stage writes and another reads: named, and made anew by its stage."""

import json

import pytest
from walks import Stages, check_equal, results

from speecheq.common.log import set_up_logging
from speecheq.common.stages import STAMP

MANIFESTS, FBANK, FOLD = "data/manifests/casia", "data/fbank/casia", "data/msud/casia.random10/fold1"
PHONEMES, TRAINED = "data/phonemes/aishell", "exp/nano-speecheq/casia.random10/fold1/seed1"
# who writes it, the file, who reads it
FILES = [
    *(
        ("manifests", f"{MANIFESTS}/{name}", "features")
        for name in ("casia_recordings_all.jsonl.gz", "casia_supervisions_all.jsonl.gz", "casia_card.json", STAMP)
    ),
    *(("features", f"{FBANK}/{name}", "unify") for name in ("cuts.jsonl.gz", "parts-*/00000.lca", STAMP)),
    *(
        ("unify", f"{FOLD}/{name}", "train")
        for name in ("emotion.jsonl.gz", "gender.jsonl.gz", "dev.jsonl.gz", "msud.json", STAMP)
    ),
    ("unify", f"{FOLD}/test.jsonl.gz", "score"),
    *(("phonemes", f"{PHONEMES}/{name}", "train") for name in ("train.jsonl.gz", "phones.txt", STAMP)),
    *(("phonemes", f"{PHONEMES}/{name}", "score") for name in ("test.jsonl.gz", "phonemes.json")),
    *(("train", f"{TRAINED}/{name}", "score") for name in ("best.pt", "config.yaml", "run.json", STAMP)),
    *(("score", f"{TRAINED}/{name}", "report") for name in ("scores.tsv", "metrics.json", f"scored/{STAMP}")),
]


@pytest.fixture(scope="module")
def stages(nano, prepare, tmp_path_factory):
    return Stages(tmp_path_factory.mktemp("damage"), nano("casia", "aishell"), prepare)


def cut_off(stages, name):
    (path,) = stages.root.glob(name)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


@pytest.mark.parametrize("writer, name, reader", FILES, ids=lambda value: value.rsplit("/", 1)[-1])
def test_a_file_that_is_cut_off(stages, writer, name, reader, capfd):
    set_up_logging()
    path = cut_off(stages, name)
    if reader != "report":
        stages.undo(reader)
    capfd.readouterr()
    assert stages.run(reader) == 1
    told = capfd.readouterr().err
    errors = [line for line in told.splitlines() if " ERROR " in line]
    assert "Traceback" not in told and len(errors) == 1, told
    assert str(path) in errors[0] and "again" in errors[0]
    assert stages.run(writer) == 0
    assert "running the stage again" in capfd.readouterr().err
    stages.run_from(writer)
    check_equal(results(stages.root), stages.expected)


def test_features_that_are_cut_off_after_stage_3(stages, capfd):
    """Training reads them without looking at stage 2's stamp."""
    set_up_logging()
    stages.undo("train")
    path = cut_off(stages, f"{FBANK}/parts-*/00000.lca")
    capfd.readouterr()
    assert stages.run("train") == 1
    told = capfd.readouterr().err
    assert "Traceback" not in told and f"{path}: the features of " in told and "run stage 2 again" in told
    stages.run_from("features")
    stages.run_from("train")
    check_equal(results(stages.root), stages.expected)


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_a_checkpoint_that_is_cut_off(stages, name, capfd):
    """A training that was broken off cannot go on from it."""
    set_up_logging()
    (stages.root / TRAINED / STAMP).unlink()
    path = cut_off(stages, f"{TRAINED}/{name}")
    capfd.readouterr()
    assert stages.run("train") == 0
    assert f"{path}: is not a complete checkpoint" in (told := capfd.readouterr().err) and "from the beginning" in told
    stages.run_from("train")
    check_equal(results(stages.root), stages.expected)


def test_embeddings_that_are_cut_off_cost_a_picture(stages, capfd):
    set_up_logging()
    path = cut_off(stages, f"{TRAINED}/embeddings.npz")
    assert stages.run("report") == 0
    assert f"no picture embeddings: {path}: is cut off" in capfd.readouterr().err
    stages.run_from("score")
    check_equal(results(stages.root), stages.expected)


def test_what_lies_in_stamps_is_what_lies_on_the_disk(stages):
    """Every file that a stage reads of another is in a stamp with its size."""
    noted = {
        (path.parent / name).resolve()
        for path in stages.root.rglob(STAMP)
        for name in json.loads(path.read_text())["outputs"]
    }
    for _, name, _ in FILES:
        (path,) = stages.root.glob(name)
        assert path.name == STAMP or path.resolve() in noted
