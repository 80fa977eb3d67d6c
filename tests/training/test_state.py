"""A training that is killed, whenever and however often, ends as if it had never been."""

import json
import os
import signal
import time

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter
from training_runs import STEPS, assert_same, make_toy_data, run_program, scalars, toy_job

from speecheq.common.errors import InputError
from speecheq.common.signals import StopRequest
from speecheq.config.schema import Config
from speecheq.dataset import batch as batch_module
from speecheq.dataset.batch import Position
from speecheq.dataset.loader import endless_stream, training_cuts
from speecheq.models import checkpoint
from speecheq.seqm import SEQM_CLASSES
from speecheq.training.state import TrainingState, find_checkpoint, seed_step
from speecheq.training.tensorboard import number_earlier_events
from speecheq.training.train import train


@pytest.fixture(scope="module")
def data(toys, tmp_path_factory):
    """Stages 1 to 3 on toy CASIA and AISHELL-1: an epoch is five or six steps."""
    return make_toy_data(toys, tmp_path_factory.mktemp("toy"), "casia", "speaker")


@pytest.fixture
def drive(data, tmp_path):
    """``drive(program)``: what a program that kills trainings in tmp_path reported."""
    return lambda program, **named: run_program("killed_training", program, data, tmp_path, **named)[0]


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    """(its folder, the seconds it took)"""
    folder = tmp_path_factory.mktemp("unbroken")
    program = """
        for out in (folder, folder / "again"):
            started = time.monotonic()
            report(status=attempt(out), seconds=time.monotonic() - started)
    """
    told, _ = run_program("killed_training", program, data, folder)
    assert [attempt["status"] for attempt in told] == [0, 0]
    return folder, min(attempt["seconds"] for attempt in told)  # one may have been held up


def test_the_toy_training_has_several_epochs_and_a_best_one(unbroken):
    content = checkpoint.read(unbroken[0] / "last.pt")
    assert content["step"] == STEPS and content["epoch"] >= 2
    assert {name: position[0] for name, position in content["positions"].items()}["gender"] >= 1
    assert scalars(unbroken[0])["train/learning_rate"][-1][1] < 2e-5


@pytest.mark.parametrize("shift", [-5000, 0, 5000])
def test_tensorboard_reads_the_starts_in_order_whatever_clock_and_process_numbers(tmp_path, monkeypatch, shift):
    now = time.time()
    for number, (first, last) in enumerate([(1, 2), (2, 2), (2, 4), (4, 6)]):
        number_earlier_events(tmp_path / "tensorboard")
        monkeypatch.setattr(time, "time", lambda: now + number * shift)
        monkeypatch.setattr(os, "getpid", lambda: 200 - 50 * number)
        with SummaryWriter(str(tmp_path / "tensorboard"), purge_step=first) as curves:
            for step in range(first, last + 1):
                curves.add_scalar("train/total", 10 * number + step, step)
    assert scalars(tmp_path) == {"train/total": [(1, 1), (2, 22), (3, 23), (4, 34), (5, 35), (6, 36)]}


def test_killed_at_random_moments(drive, unbroken, tmp_path):
    told = drive(f"""
        moments = random.Random(4)
        for number in range(7):
            moment = moments.uniform(0.05, 1.0) * {unbroken[1]:.3f}
            report(status=attempt(folder, at_moment, (moment,), data__workers=number % 2))
        report(status=attempt(folder))
    """)
    assert told[-1]["status"] == 0
    assert sum(attempt["status"] == -signal.SIGKILL for attempt in told) >= 2, told
    assert_same(unbroken[0], tmp_path)


def test_workers_do_not_outlive_a_training_killed_while_they_start(drive, tmp_path):
    # drive waits until every process that holds the driver's pipes has ended
    told = drive(
        """
        report(status=attempt(folder, while_workers_start, data__workers=1))
    """,
        timeout=60,
    )
    assert told == [{"status": -signal.SIGKILL}]


def test_killed_in_steps_with_and_without_workers(drive, unbroken, tmp_path):
    told = drive("""
        for number, steps in enumerate((1, 5, 2, 8, 7, 4)):
            settings = dict(data__workers=number % 3, run__checkpoint_steps=1 + number)
            report(status=attempt(folder, in_step, (steps,), **settings))
        report(status=attempt(folder, data__workers=2))
    """)
    assert [attempt["status"] for attempt in told] == [-signal.SIGKILL] * 6 + [0]
    assert "resuming after step" in (tmp_path / "train.log").read_text()
    assert_same(unbroken[0], tmp_path)


def test_killed_while_a_checkpoint_is_written(drive, unbroken, tmp_path):
    told = drive("""
        moments = ((1, "last.pt", "half"), (1, "best.pt", "half"), (1, "best.pt", "before its name"),
                   (1, "best.pt", "after"), (2, "last.pt", "before its name"), (3, "last.pt", "after"))
        for moment in moments:
            report(status=attempt(folder, writing, moment), left=sorted(path.name for path in folder.glob(".tmp*")))
        report(status=attempt(folder), left=sorted(path.name for path in folder.glob(".tmp*")))
    """)
    assert [attempt["status"] for attempt in told[:-1]] == [-signal.SIGKILL] * 6 and told[-1]["status"] == 0
    assert told[0]["left"] and not told[-1]["left"]
    assert_same(unbroken[0], tmp_path)


def test_sigterm_saves_the_step_and_the_next_run_goes_on(drive, unbroken, tmp_path):
    told = drive("""
        report(status=attempt(folder, terminated, (5,), data__workers=1))
        report(step=checkpoint.read(folder / "last.pt")["step"])
        report(status=attempt(folder))
    """)
    assert told == [{"status": 143}, {"step": 5}, {"status": 0}]
    assert "step 5 is saved; run the same command again to continue" in (tmp_path / "train.log").read_text()
    assert_same(unbroken[0], tmp_path)


def assert_killed_and_resumed_is_the_same(drive, folder, **settings):
    """A training that is killed in three of its steps ends as one that is not."""
    shown = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    told = drive(f"""
        report(status=attempt(folder / "unbroken", {shown}))
        for steps in (2, 1, 3):
            report(status=attempt(folder / "broken", in_step, (steps,), run__checkpoint_steps=1, {shown}))
        report(status=attempt(folder / "broken", data__workers=1, {shown}))
    """)
    assert [attempt["status"] for attempt in told] == [0, *[-signal.SIGKILL] * 3, 0]
    assert_same(folder / "unbroken", folder / "broken")


def test_killed_while_waveforms_are_augmented(drive, tmp_path):
    settings = dict(data__input="waveform", optim__max_steps=7, optim__warmup_steps=0)
    assert_killed_and_resumed_is_the_same(drive, tmp_path, **settings)


ALL_OPTIONS = dict(
    optim__optimizer="adamw",
    optim__ema=0.9,
    optim__max_steps=9,
    mixup__alpha=0.3,
    specaugment__time_masks=2,
    specaugment__frequency_masks=1,
    loss__label_smoothing=0.1,
    loss__class_balance="inverse",
)


@pytest.mark.parametrize("more", [{}, {"data__input": "waveform"}, {"model__kind": "baseline"}], ids=str)
def test_killed_with_every_option_that_is_not_the_papers(drive, tmp_path, more):
    assert_killed_and_resumed_is_the_same(drive, tmp_path, **ALL_OPTIONS, **more)
    last = checkpoint.read(tmp_path / "broken" / "last.pt")
    assert any(not torch.equal(value, last["model"][name]) for name, value in last["average"].items())


# ---- what is gone on with


def test_a_finished_training_without_its_stamp_has_nothing_left_to_train(data, tmp_path):
    train(toy_job(data, tmp_path, optim__max_steps=2))
    before = (tmp_path / "last.pt").read_bytes()
    stamp = (tmp_path / "stage.json").read_bytes()
    (tmp_path / "stage.json").unlink()
    train(toy_job(data, tmp_path, optim__max_steps=2))
    assert (tmp_path / "last.pt").read_bytes() == before
    assert json.loads(stamp)["key"] == json.loads((tmp_path / "stage.json").read_text())["key"]


@pytest.mark.parametrize("left", ["last.pt cut short", "another setting", "no best.pt"])
def test_what_cannot_be_gone_on_with_starts_anew(data, tmp_path, caplog, left):
    train(toy_job(data, tmp_path / "run", optim__max_steps=2))
    (tmp_path / "run" / "stage.json").unlink()
    settings = {"optim__max_steps": 2}
    if left == "last.pt cut short":
        (tmp_path / "run" / "last.pt").write_bytes((tmp_path / "run" / "last.pt").read_bytes()[:1000])
    elif left == "no best.pt":
        (tmp_path / "run" / "best.pt").unlink()
    else:
        settings["loss__gamma"] = 2.0
    train(toy_job(data, tmp_path / "run", **settings))
    train(toy_job(data, tmp_path / "fresh", **settings))
    assert "from the beginning" in caplog.text and "resuming" not in caplog.text
    assert_same(tmp_path / "fresh", tmp_path / "run")


def test_settings_that_change_nothing_that_is_learned_go_on(data, tmp_path):
    config = dict(optim__max_steps=2)
    train(toy_job(data, tmp_path, **config))
    key = checkpoint.read(tmp_path / "last.pt")["key"]
    assert find_checkpoint(tmp_path, key)["step"] == 2
    assert find_checkpoint(tmp_path, "another") is None
    train(toy_job(data, tmp_path, run__checkpoint_steps=1, data__workers=1, **config))
    assert checkpoint.read(tmp_path / "last.pt")["key"] == key


def test_nothing_to_go_on_with_is_no_fault(tmp_path, caplog):
    assert find_checkpoint(tmp_path, "key") is None and not caplog.text


def test_the_state_of_a_training_comes_back_from_a_checkpoint(tmp_path):
    state = TrainingState(
        7,
        2,
        {"emotion": Position(2, 1), "gender": Position(3)},
        {"esc": 1 / 3},
        1,
        {"epoch": 2, "dev": {"ua": 0.1, "per": None}},
        1.5,
    )
    checkpoint.save(
        tmp_path / "last.pt", checkpoint.new_model(Config()), Config(), SEQM_CLASSES, [], **state.to_checkpoint()
    )
    assert TrainingState.from_checkpoint(checkpoint.read(tmp_path / "last.pt")) == state


def test_a_step_draws_from_the_seed_and_its_number():
    def draws(seed, step):
        seed_step(seed, step)
        return torch.rand(3).tolist()

    assert draws(1, 5) == draws(1, 5)
    assert len({tuple(draws(seed, step)) for seed in (1, 2) for step in (0, 1, 2)}) == 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_is_noted_and_the_handler_given_back(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.signal
        signal.raise_signal(number)
        assert stop.signal == number
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a job in the background has it
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.signal and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


# ---- streams


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stream", ["emotion", "gender", "phoneme"])
def test_a_stream_goes_on_from_every_position(data, stream, workers):
    file = "phonemes/aishell/train" if stream == "phoneme" else f"msud/casia.speaker/fold1/{stream}"
    path = data / f"{file}.jsonl.gz"
    config = toy_job(data, data).config.data
    whole = endless_stream(stream, training_cuts(path), config, 1)
    batches = [next(whole) for _ in range(14)]
    assert batches[-1].position.epoch >= 1 and batches[0].position == Position(0, 0)
    config.workers = workers
    for taken in (0, 1, 3, 6, 9) if not workers else (5,):
        start = batches[taken].next_position
        rest = endless_stream(stream, training_cuts(path), config, 1, start)
        for expected in batches[taken + 1 : taken + 4]:
            found = next(rest)
            assert (found.position, found.last, found.ids) == (expected.position, expected.last, expected.ids)
            assert torch.equal(found.inputs, expected.inputs)


def test_going_on_reads_no_features_of_what_is_passed_over(data, monkeypatch):
    read, original = [], batch_module.load_features
    monkeypatch.setattr(batch_module, "load_features", lambda cut: read.append(cut.id) or original(cut))
    cuts = training_cuts(data / "msud/casia.speaker/fold1/emotion.jsonl.gz")
    batch = next(endless_stream("emotion", cuts, toy_job(data, data).config.data, 1, Position(1, 3)))
    assert batch.position == Position(1, 3) and read == batch.ids


def first_cuts(data, folder, clips):
    """The first ``clips`` training cuts, as lazy as all of them."""
    cuts = training_cuts(data / "msud/casia.speaker/fold1/emotion.jsonl.gz").subset(first=clips)
    cuts.to_file(folder / "first.jsonl.gz")
    return training_cuts(folder / "first.jsonl.gz")


@pytest.mark.parametrize("clips", [2, 3, 7, 8, 15])
def test_no_batch_is_of_one_clip_and_an_epoch_is_whole(data, tmp_path, clips):
    cuts = first_cuts(data, tmp_path, clips)
    ids, config = sorted(cut.id for cut in cuts), toy_job(data, data).config.data
    assert len(ids) == clips
    stream, seen = endless_stream("emotion", cuts, config, 1), []
    for batch in stream:
        if batch.position.epoch == 3:
            break
        assert 2 <= len(batch.ids) <= config.batch_size + 1
        seen += batch.ids
        if batch.last:
            assert sorted(seen) == ids
            seen = []


def test_a_set_of_one_clip_is_refused(data, tmp_path):
    with pytest.raises(InputError, match="the emotion set holds 1 clip; a mini-batch needs two"):
        next(endless_stream("emotion", first_cuts(data, tmp_path, 1), toy_job(data, data).config.data, 1))
