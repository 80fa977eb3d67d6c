"""What status says of folders whose stamps the stages' own code writes."""

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from speecheq.common.files import is_locked, locked_folder, write_text
from speecheq.common.stages import STAMP, Drops, Stage
from speecheq.corpora import audio_folder, prepare
from speecheq.dataset import msud
from speecheq.evaluation import score
from speecheq.features import storage
from speecheq.reporting.recipe_status import BROKEN_OFF, DAMAGED, DONE, MISSING, RUNNING, STALE, Status, status_lines
from speecheq.training import train

FOLD = Path("data/msud/casia.speaker/fold1")
SEED = Path("exp/small-speecheq/casia.speaker/fold1/seed1")


def ran(name, folder, inputs, version, outputs=("made.txt",), options=None):
    """As if a stage had run: its outputs and its stamp."""
    folder = Path(folder)
    stage = Stage(name, folder.name, folder, options or {}, inputs, version)
    for output in outputs:
        write = (folder / output).resolve()
        write.parent.mkdir(parents=True, exist_ok=True)
        write_text(write, "content\n")
    folder.mkdir(exist_ok=True)
    drops = Drops()
    drops.add("too short", "a1")
    stage.finish(folder, 10, 9, drops, outputs=outputs)


def make_manifests(**options):
    ran("manifests", "data/manifests/casia", ["corpora/casia"], prepare.FORMAT, options=options)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe that was walked through, fold 1 of one system."""
    monkeypatch.chdir(tmp_path)
    write_text(Path("corpora/casia/labels.txt"), "some labels\n")
    make_manifests()
    ran("features", "data/fbank/casia", ["data/manifests/casia"], storage.FORMAT)
    ran("unify", FOLD, ["data/fbank/casia"], msud.FORMAT)
    ran("train", SEED, [FOLD], train.FORMAT, ("best.pt", "last.pt", "run.json"))
    ran("score", SEED / score.STAMP_FOLDER, [SEED, FOLD], score.FORMAT, ("../scores.tsv",))
    return tmp_path


def states(**options):
    return {str(line.folder): line.state for line in Status("data", "exp", **options).all()}


def test_all_is_done(recipe):
    assert states() == {
        "data/manifests/casia": DONE,
        "data/fbank/casia": DONE,
        str(FOLD): DONE,
        str(SEED): DONE,
        f"{SEED}/scored": DONE,
    }
    text = "\n".join(status_lines(Status("data", "exp").all()))
    assert "stage 2 (features): 1 done;" in text and "10 in, 9 out, 1 dropped" in text
    (trained,) = [line for line in Status("data", "exp").all() if line.stage == "train"]
    # scored/ and what lies in it belong to stage 5, whose score table lies beside
    own = ("best.pt", "last.pt", "run.json", "scores.tsv", STAMP)
    assert trained.bytes == sum((SEED / name).stat().st_size for name in own)


@pytest.mark.parametrize("kind", ["noise", "rir", "unlabelled", "test_noise", "test_rir"])
def test_sounds_have_manifests_of_their_own_format_and_no_features(recipe, kind, monkeypatch):
    monkeypatch.setattr(audio_folder, "FORMAT", prepare.FORMAT + 1)
    ran("manifests", f"data/manifests/{kind}", [], audio_folder.FORMAT)
    found = states()
    assert found[f"data/manifests/{kind}"] == DONE and f"data/fbank/{kind}" not in found


def test_what_stage_5_keeps_for_pictures_is_listed_where_there_is_some(recipe):
    folder = SEED / score.EMBEDDINGS_STAMP_FOLDER
    ran("score", folder, [SEED, FOLD], score.FORMATS[folder.name], ("../embeddings.npz",))
    assert states()[str(folder)] == DONE and f"{SEED}/{score.TRAINING_STAMP_FOLDER}" not in states()
    (SEED / "embeddings.npz").unlink()
    assert states()[str(folder)] == DAMAGED and states()[f"{SEED}/scored"] == DONE


@pytest.mark.parametrize(
    "change, first",
    [
        (lambda: write_text(Path("corpora/casia/labels.txt"), "same lengths"), 0),
        (lambda: make_manifests(partial=True), 1),
        (lambda: ran("unify", FOLD, ["data/fbank/casia"], msud.FORMAT, options={"fold_seed": 2}), 3),
    ],
)
def test_what_depends_on_a_change_is_stale_and_nothing_else(recipe, change, first):
    change()
    assert [state == STALE for state in states().values()] == [number >= first for number in range(5)]
    if first == 0:
        assert set(states(corpora=False).values()) == {DONE}
        shutil.rmtree("corpora")  # unmounted: nothing can be said against what was made of it
        assert set(states().values()) == {DONE}


def test_another_version_of_the_program(recipe, monkeypatch):
    monkeypatch.setattr(storage, "FORMAT", storage.FORMAT + 1)
    found = {line.stage: line for line in Status("data", "exp").all()}
    assert found["manifests"].state == DONE and "another version" in found["features"].reason
    assert {found[stage].state for stage in ("features", "unify", "train", "score")} == {STALE}
    assert found["train"].reason == f"{FOLD} is stale"


def test_damage(recipe):
    write_text(Path("data/fbank/casia/made.txt"), "cut")
    assert states()["data/fbank/casia"] == DAMAGED and states()[str(FOLD)] == DONE, "it is made again as it was"
    write_text(SEED / STAMP, '{"key": "a')
    assert states()[str(SEED)] == DAMAGED


def test_checkpoints_may_be_gone_once_a_fold_is_trained(recipe):
    (SEED / "last.pt").unlink()
    assert states()[str(SEED)] == DONE
    (SEED / "run.json").unlink()
    assert states()[str(SEED)] == DAMAGED


def test_missing_folders_are_those_that_the_stage_before_allows(recipe):
    for number in (2, 10):
        ran("unify", FOLD.with_name(f"fold{number}"), ["data/fbank/casia"], msud.FORMAT)
    shutil.rmtree(SEED / "scored")
    shutil.copytree("data/manifests/casia", "data/manifests/esd_zh")
    missing = [folder for folder, state in states().items() if state == MISSING]
    folds = [str(SEED.parents[1] / f"fold{number}/seed1") for number in (2, 10)]
    assert missing == ["data/fbank/esd_zh", *folds, f"{SEED}/scored"]


def _hold(folder, ready, done):
    with locked_folder(folder):
        ready.set()
        done.wait(60)


def test_running_and_broken_off(recipe):
    (SEED / STAMP).unlink()
    assert states()[str(SEED)] == BROKEN_OFF and not is_locked(SEED)
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(SEED, ready, done))
    process.start()
    assert ready.wait(60)
    try:
        assert is_locked(SEED) and states()[str(SEED)] == RUNNING
    finally:
        done.set()
        process.join(60)
    assert states()[str(SEED)] == BROKEN_OFF


def test_an_empty_place(tmp_path):
    assert list(status_lines(Status(tmp_path / "data", tmp_path / "exp").all())) == ["nothing has been run here yet"]


def test_nothing_is_changed(recipe):
    def all_files():
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in Path(".").rglob("*")}

    before = all_files()
    states()
    assert all_files() == before and json.loads((SEED / STAMP).read_text())["stage"] == "train" and os.listdir(".")
