"""Training from shards: its settings, several processes, going on, and that it learns the same."""

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from shard_runs import cuts_for, shar_job, shards_folder, sources
from training_runs import assert_near, run_program, scalars

from speecheq.cluster import distributed
from speecheq.common.errors import InputError
from speecheq.common.stages import require
from speecheq.config.layers import learned, resolve
from speecheq.config.schema import Config
from speecheq.dataset.shard_writer import write_shards
from speecheq.models import checkpoint
from speecheq.training import trainer
from speecheq.training.job import check
from speecheq.training.train import train

ROOT = Path(__file__).resolve().parents[2]


CONF = ROOT / "egs" / "mandarin" / "conf"


@pytest.fixture(scope="module")
def data(shards_data):
    return shards_data


def test_the_settings_of_shards_change_a_training_only_where_they_are_used():
    plain, other = Config(), Config()
    other.shar.lanes = 16
    assert learned(plain) == learned(other) and "shar" not in learned(plain)
    plain.shar.use = other.shar.use = True
    assert learned(plain) != learned(other)


@pytest.mark.parametrize(
    "assignments, sentence",
    [
        (
            ["data.batch_size=20"],
            "data.batch_size is 20, but from shards it must be a multiple of shar.lanes, which is 8",
        ),
        (["data.workers=5"], "data.workers is 5, but only shar.parts, which is 4, can load from shards"),
        (["shar.lane=8"], "did you mean shar.lanes"),
    ],
)
def test_settings_that_do_not_fit_are_refused(assignments, sentence):
    with pytest.raises(InputError, match=sentence):
        resolve(CONF / "small.yaml", CONF / "systems.yaml", "speecheq", {"shar.use": True}, assignments)


@pytest.fixture
def in_processes(data, tmp_path):
    """``in_processes(program)``: what a program that reads shards in several processes printed, and its log."""
    return lambda program: run_program("shards_in_processes", program, data, tmp_path)


def test_four_processes_with_two_loaders_each_see_every_clip_of_an_epoch_once(data, in_processes, tmp_path):
    told, shown = in_processes("""
        for size in (4, 1):
            print(json.dumps(processes(size, listing)[0]), flush=True)
    """)
    assert told == [[0] * 4, [0]], shown
    alone = json.loads((tmp_path / "listing1.0.json").read_text())
    of_four = [json.loads((tmp_path / f"listing4.{rank}.json").read_text()) for rank in range(4)]
    for stream, (rows, again) in alone.items():
        clips = Counter(cut.id for cut in cuts_for(data, stream))
        for epoch in (0, 1):
            seen = Counter(name for found in of_four for row in found[stream][0] if row[0] == epoch for name in row[3])
            assert seen == clips, stream
        for number, row in enumerate(rows):
            shares = [found[stream][0][number] for found in of_four]
            assert all([*share[:3], share[4]] == [*row[:3], row[4]] for share in shares)
            assert distributed.interleaved([share[3] for share in shares]) == row[4] == row[3]
        assert all(len(found[stream][0]) == len(rows) for found in of_four), "the same number of steps"
        going_on = [number for number, row in enumerate(rows) if row[:2] == [1, 2]][0]
        assert again == rows[going_on:] and len(again) > 3
        assert all(found[stream][1] == found[stream][0][going_on:] for found in of_four)


@pytest.fixture(scope="module")
def trainings(data, tmp_path_factory):
    """The same training from shards in one process, in two and in four."""
    folder = tmp_path_factory.mktemp("trainings")
    program = """
        for size, workers in ((1, 0), (2, 2), (4, 0)):
            trained_from_shards(size, f"of{size}", data__workers=workers)
        trained_from_shards(3, "three")
    """
    told, shown = run_program("shards_in_processes", program, data, folder)
    assert told == [[0], [0, 0], [0, 0, 0, 0], [1, 1, 1]], shown
    assert "shar.lanes is 4, but 3 processes train" in shown
    return folder


def test_processes_train_from_shards_as_one_does(trainings):
    for size in (2, 4):
        assert_near(trainings / "of1", trainings / f"of{size}")
        one, other = (checkpoint.read(trainings / name / "last.pt") for name in ("of1", f"of{size}"))
        assert one["positions"] == other["positions"] and other["epoch"] == 1


def test_a_training_from_shards_goes_on_with_another_number_of_processes(
    data, trainings, in_processes, tmp_path, monkeypatch
):
    """It is stopped in its second epoch, whose mini-batches before that place are not made again."""
    steps, original = [], trainer.train_step

    def step(*arguments):
        steps.append(1)
        if len(steps) == 15:
            raise InputError("broken off")
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_step", step)
        with pytest.raises(InputError, match="broken off"):
            train(shar_job(data, tmp_path / "broken", run__checkpoint_steps=1))
    told, shown = in_processes("trained_from_shards(2, 'broken', run__checkpoint_steps=1)")
    assert told == [[0, 0]] and "resuming after step 14" in shown, shown
    assert_near(trainings / "of1", tmp_path / "broken")


def test_a_system_of_the_target_alone_learns_from_its_shards_and_a_missing_stage_is_named(data, tmp_path):
    settings_of = {"data__corpora": "target", "loss__beta": 0.0, "optim__max_steps": 2}
    train(shar_job(data, tmp_path / "run", **settings_of))
    stamp = require(tmp_path / "run", "train")
    assert str(shards_folder(data, "emotion")) in stamp["inputs"]
    with pytest.raises(InputError, match=r"stage 3 \(shar\) has not been run"):
        check(dataclasses.replace(shar_job(data, tmp_path / "other"), shards=tmp_path / "nowhere"))
    other = shar_job(data, tmp_path / "run", use=False, **settings_of)
    train(other)  # the mini-batches are others, so it is another training
    assert str(shards_folder(data, "emotion")) not in require(tmp_path / "run", "train")["inputs"]


def test_other_shards_train_anew_and_the_same_do_not(data, tmp_path):
    shutil.copytree(data / "shar", tmp_path / "shar")
    made = shar_job(data, tmp_path / "run", loss__beta=0.0, optim__max_steps=1)
    made = dataclasses.replace(made, shards=tmp_path / "shar")

    def trained():
        train(made)
        return (tmp_path / "run" / "stage.json").stat().st_mtime_ns

    first = trained()
    assert trained() == first
    write_shards(sources(data)["emotion"], made.shards_of(sources(data)["emotion"]), "stored", 30)
    second = trained()
    assert second != first and trained() == second


def test_a_training_on_waveforms_reads_audio_from_shards(data, tmp_path):
    train(shar_job(data, tmp_path, data__input="waveform", augment__noise_probability=0.0, optim__max_steps=2))
    assert "stored" not in " ".join(require(tmp_path, "train")["inputs"])


def test_a_training_from_shards_learns_as_one_from_cuts_does(data, tmp_path):
    """Other mini-batches of the same clips: neither the same steps nor a worse end."""
    last = {}
    for use in (True, False):
        train(shar_job(data, tmp_path / str(use), use, optim__max_steps=40, optim__learning_rate=3e-3))
        curve = [value for _, value in scalars(tmp_path / str(use))["train/total"]]
        last[use] = np.mean(curve[-10:]), np.mean(curve[:5])
    assert last[True][0] != last[False][0]
    assert all(end < 0.9 * beginning for end, beginning in last.values())
    assert last[True][0] == pytest.approx(last[False][0], rel=0.2)
