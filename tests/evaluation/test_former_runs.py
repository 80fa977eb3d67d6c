"""What stage 4 with other settings does to a run in the same folder: it is kept until the new run is scored."""

import json

import pytest
from training_runs import make_toy_data, toy_job

from speecheq.common.errors import InputError
from speecheq.evaluation.former_runs import former_runs
from speecheq.evaluation.score import score
from speecheq.models import checkpoint
from speecheq.reporting.experiment import scored_folders
from speecheq.training import train as stage_4
from speecheq.training.train import train


@pytest.fixture(scope="module")
def data(toys, tmp_path_factory):
    return make_toy_data(toys, tmp_path_factory.mktemp("toy"), "casia", "speaker")


@pytest.fixture
def folder(data, tmp_path):
    """A scored run of two steps."""
    folder = tmp_path / "exp/toy-speecheq/casia.speaker/fold1/seed1"
    run(data, folder, 2)
    return folder


def run(data, folder, steps, scored=True):
    train(toy_job(data, folder, optim__max_steps=steps))
    if scored:
        score(folder, data / "msud/casia.speaker", 1)


def written(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".lock" not in path.name
    }


def break_off(monkeypatch, data, folder, steps):
    """Start a training that fails before its first step."""
    with monkeypatch.context() as patched:
        patched.setattr(stage_4, "_set_up", lambda *_: (_ for _ in ()).throw(InputError("no luck.")))
        with pytest.raises(InputError, match="no luck"):
            run(data, folder, steps)


def test_a_scored_run_is_kept_until_the_new_one_is_scored(data, folder, caplog):
    before = written(folder)
    (folder / "notes.txt").write_text("mine")
    caplog.clear()
    run(data, folder, 3, scored=False)
    (former,) = former_runs(folder)
    assert former.name.startswith("former-seed1-") and (former / "notes.txt").is_file()
    assert written(former).items() >= before.items()
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "optim.max_steps 2, now 3" in warning and f"moved to {former}" in warning and "--exp" in warning
    assert not {path.name for path in folder.iterdir()} & {"metrics.json", "scored", "scored_embeddings", "notes.txt"}
    score(folder, data / "msud/casia.speaker", 1)
    assert "is missing or has changed" not in caplog.text
    assert written(former) == {(former / "notes.txt").relative_to(former): b"mine"}
    assert f"{former}: notes.txt: no stage wrote this, so it stays" in caplog.text


def test_nothing_is_left_of_a_former_run_where_all_was_written_by_stages(data, folder):
    run(data, folder, 3)
    assert former_runs(folder) == [] and json.loads((folder / "run.json").read_text())["steps"] == 3


@pytest.mark.parametrize("new_run", ["finished", "broken off", "without a checkpoint"])
def test_the_former_settings_bring_a_run_back(data, folder, caplog, monkeypatch, new_run):
    before = written(folder)
    if new_run == "without a checkpoint":
        break_off(monkeypatch, data, folder, 3)
    else:
        run(data, folder, 3, scored=False)
        if new_run == "broken off":
            (folder / "stage.json").unlink()
    caplog.clear()
    caplog.set_level("INFO")
    run(data, folder, 2)
    assert written(folder) == before
    assert "is back from" in caplog.text and caplog.text.count("already done") == 3
    assert "is missing or has changed" not in caplog.text
    assert len(former_runs(folder)) == (new_run != "without a checkpoint")
    if new_run == "broken off":  # it goes on where it was
        run(data, folder, 3, scored=False)
        assert checkpoint.read(folder / "last.pt")["step"] == 3 and "resuming after step 3" in caplog.text
        assert written(former_runs(folder)[0]) == before


def test_a_broken_off_training_is_kept_too(data, tmp_path, caplog):
    folder = tmp_path / "run"
    run(data, folder, 2, scored=False)
    (folder / "stage.json").unlink()
    run(data, folder, 3, scored=False)
    (former,) = former_runs(folder)
    assert checkpoint.read(former / "last.pt")["step"] == 2 and "holds a broken-off training" in caplog.text


def test_no_false_alarm_where_a_damaged_training_starts_anew(data, folder, caplog):
    (folder / "last.pt").write_bytes(b"damaged")
    train(toy_job(data, folder, optim__max_steps=2))
    assert former_runs(folder) == []
    caplog.clear()
    score(folder, data / "msud/casia.speaker", 1)
    assert "is missing or has changed" not in caplog.text


def test_the_report_names_a_fold_whose_new_run_is_not_scored(data, folder):
    run(data, folder, 3, scored=False)
    found, left_out = scored_folders(folder.parents[1])
    assert found == [] and len(left_out) == 1
    assert left_out[0].startswith(f"{folder}: its new run is not scored yet, the former one lies in ")
    score(folder, data / "msud/casia.speaker", 1)
    assert scored_folders(folder.parents[1]) == ([folder], [])
