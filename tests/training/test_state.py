"""A training that is killed, whenever and however often, ends as if it had never been."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from speecheq.common.errors import InputError
from speecheq.common.signals import StopRequest
from speecheq.config.schema import Config
from speecheq.corpora.prepare import PrepareRequest, prepare
from speecheq.dataset import batch as batch_module
from speecheq.dataset.batch import Position
from speecheq.dataset.loader import endless_stream, training_cuts
from speecheq.dataset.msud import unify
from speecheq.dataset.msud_recipe import Recipe
from speecheq.dataset.phoneme_cuts import phonemes
from speecheq.features.storage import compute_features
from speecheq.models import checkpoint
from speecheq.seqm import SEQM_CLASSES
from speecheq.training.state import TrainingState, find_checkpoint, seed_step
from speecheq.training.train import Job, number_earlier_events, train

ROOT = Path(__file__).resolve().parents[2]
STEPS = 27


def job(data: Path, folder: Path, **settings) -> Job:
    config = Config()
    config.model = dataclasses.replace(
        config.model, channels=8, mfa_channels=16, scale=2, bottleneck=8, embedding_dim=8, dropout=0.3
    )
    config.optim.epochs, config.optim.max_steps, config.optim.learning_rate = None, STEPS, 1e-3
    config.optim.warmup_steps, config.optim.finetune = 3, 0.3
    config.data.batch_size, config.data.workers, config.data.max_seconds = 7, 0, 0.15
    config.loss.gamma, config.loss.ctc_backend, config.run.checkpoint_steps = 1.0, "torch", 3
    config.run.threads = 1
    for name, value in settings.items():
        part, key = name.split("__")
        setattr(getattr(config, part), key, value)
    return Job(config, "toy", (), "speecheq", data / "msud/casia.speaker", 1, data / "phonemes/aishell", folder)


@pytest.fixture(scope="module")
def data(toys, tmp_path_factory):
    """Stages 1 to 3 on toy CASIA and AISHELL-1: an epoch is five or six steps."""
    folder = tmp_path_factory.mktemp("toy")
    for name, make in (("casia", toys.casia), ("aishell", toys.aishell)):
        script = toys.script(name)
        request = PrepareRequest(make(folder / "corpora" / name), partial=True)
        prepare(getattr(script, name.upper()), script.find_utterances, request, folder / "manifests" / name)
        compute_features(name, folder / "manifests" / name, folder / "fbank" / name)
    unify(Recipe("casia", "speaker", ["casia"]), "1", folder / "manifests", folder / "fbank", folder / "msud")
    phonemes("aishell", folder / "manifests", folder / "fbank", folder / "phonemes" / "aishell")
    return folder


# A process that never trains itself, so that it may fork: every attempt is a child that is as fresh as a new process,
# without the seconds that importing torch takes.
DRIVER = """
import json, os, random, signal, sys, threading, time
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path[:0] = ["tests", "tests/cluster", "tests/training"]
from test_state import job
from speecheq.common import files
from speecheq.training import train as training
from speecheq.common.files import write_json
from speecheq.common.log import set_up_logging
import torch.utils.tensorboard

set_up_logging()
data, folder = Path(sys.argv[1]), Path(sys.argv[2])


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def at_moment(seconds):
    threading.Timer(seconds, die).start()


def in_step(number):
    whole, calls = training.train_step, []
    def step(*arguments, **named):
        result = whole(*arguments, **named)  # the optimiser has stepped, nothing else knows of it
        calls.append(1)
        if len(calls) == number:
            die()
        return result
    training.train_step = step


def writing(number, name, when):
    # the number-th write of a file: half of it is there, or all of it but its name, or its name too
    from speecheq.models import checkpoint
    whole, calls = checkpoint.whole_file, []
    def file(path):
        context = whole(path)
        if Path(path).name != name:
            return context
        calls.append(1)
        if len(calls) < number:
            return context
        class Dying:
            def __enter__(self):
                self.temporary = context.__enter__()
                if when != "half":
                    return self.temporary
                class Half:
                    def write_bytes(half, content):
                        self.temporary.write_bytes(content[: len(content) // 2])
                        die()
                return Half()
            def __exit__(self, *error):
                if when == "before its name":
                    die()
                context.__exit__(*error)
                die()
        return Dying()
    checkpoint.whole_file = file


def terminated(number):
    whole, calls = training.train_step, []
    def step(*arguments, **named):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(*arguments, **named)
    training.train_step = step


def attempt(out, sabotage=None, arguments=(), **settings):
    child = os.fork()
    if not child:
        try:
            if sabotage:
                sabotage(*arguments)
            training.train(job(data, out, **settings))
            os._exit(0)
        except SystemExit as ended:
            os._exit(ended.code)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def report(**what):
    print(json.dumps(what), flush=True)
"""


def drive(data: Path, out: Path, program: str, limit: float = 300) -> list:
    """What a driver's ``report`` calls told; ``limit`` in seconds."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER + textwrap.dedent(program), str(data), str(out)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=limit,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def scalars(folder: Path) -> dict:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def assert_same(one: Path, other: Path) -> None:
    """Two experiment folders hold the same model, bit by bit, and the same way there."""

    def compare(a, b, where):
        assert type(a) is type(b), where
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b), where
        elif isinstance(a, dict):
            assert a.keys() == b.keys(), where
            for key in a:
                if where + [key] not in (["last.pt", "seconds"], ["last.pt", "config"], ["best.pt", "config"]):
                    compare(a[key], b[key], where + [key])
        elif isinstance(a, (list, tuple)):
            assert len(a) == len(b), where
            for index, (x, y) in enumerate(zip(a, b)):
                compare(x, y, where + [index])
        else:
            assert a == b, where

    for name in ("last.pt", "best.pt"):
        compare(checkpoint.read(one / name), checkpoint.read(other / name), [name])
    runs = [json.loads((folder / "run.json").read_text()) for folder in (one, other)]
    assert runs[0]["best"] == runs[1]["best"] and runs[0]["steps"] == runs[1]["steps"]
    curves = [scalars(folder) for folder in (one, other)]
    assert curves[0].keys() == curves[1].keys()
    for tag, values in curves[0].items():
        assert values == curves[1][tag], tag
        assert tag.startswith("dev/") or [step for step, _ in values] == list(range(1, len(values) + 1)), tag


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    """(its folder, the seconds it took)"""
    folder = tmp_path_factory.mktemp("unbroken")
    told = drive(
        data,
        folder,
        """
        for out in (folder, folder / "again"):
            started = time.monotonic()
            report(status=attempt(out), seconds=time.monotonic() - started)
    """,
    )
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


def test_killed_at_random_moments(data, unbroken, tmp_path):
    told = drive(
        data,
        tmp_path,
        f"""
        moments = random.Random(4)
        for number in range(7):
            moment = moments.uniform(0.05, 1.0) * {unbroken[1]:.3f}
            report(status=attempt(folder, at_moment, (moment,), data__workers=number % 2))
        report(status=attempt(folder))
    """,
    )
    assert told[-1]["status"] == 0
    assert sum(attempt["status"] == -signal.SIGKILL for attempt in told) >= 2, told
    assert_same(unbroken[0], tmp_path)


def test_workers_do_not_outlive_a_training_killed_while_they_start(data, tmp_path):
    # drive waits until every process that holds the driver's pipes has ended
    told = drive(
        data,
        tmp_path,
        """
        def while_workers_start():
            from speecheq.dataset import loader as loading
            set_up = loading._end_with_training
            def late(worker):
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(0.3)
                set_up(worker)
            loading._end_with_training = late
        report(status=attempt(folder, while_workers_start, data__workers=1))
    """,
        limit=60,
    )
    assert told == [{"status": -signal.SIGKILL}]


def test_killed_in_steps_with_and_without_workers(data, unbroken, tmp_path):
    told = drive(
        data,
        tmp_path,
        """
        for number, steps in enumerate((1, 5, 2, 8, 7, 4)):
            settings = dict(data__workers=number % 3, run__checkpoint_steps=1 + number)
            report(status=attempt(folder, in_step, (steps,), **settings))
        report(status=attempt(folder, data__workers=2))
    """,
    )
    assert [attempt["status"] for attempt in told] == [-signal.SIGKILL] * 6 + [0]
    assert "going on after step" in (tmp_path / "train.log").read_text()
    assert_same(unbroken[0], tmp_path)


def test_killed_while_a_checkpoint_is_written(data, unbroken, tmp_path):
    told = drive(
        data,
        tmp_path,
        """
        moments = ((1, "last.pt", "half"), (1, "best.pt", "half"), (1, "best.pt", "before its name"),
                   (1, "best.pt", "after"), (2, "last.pt", "before its name"), (3, "last.pt", "after"))
        for moment in moments:
            report(status=attempt(folder, writing, moment), left=sorted(path.name for path in folder.glob(".tmp*")))
        report(status=attempt(folder), left=sorted(path.name for path in folder.glob(".tmp*")))
    """,
    )
    assert [attempt["status"] for attempt in told[:-1]] == [-signal.SIGKILL] * 6 and told[-1]["status"] == 0
    assert told[0]["left"] and not told[-1]["left"]
    assert_same(unbroken[0], tmp_path)


def test_sigterm_saves_the_step_and_the_next_run_goes_on(data, unbroken, tmp_path):
    told = drive(
        data,
        tmp_path,
        """
        from speecheq.models import checkpoint
        report(status=attempt(folder, terminated, (5,), data__workers=1))
        report(step=checkpoint.read(folder / "last.pt")["step"])
        report(status=attempt(folder))
    """,
    )
    assert told == [{"status": 143}, {"step": 5}, {"status": 0}]
    assert "step 5 is saved, and the same command goes on from there" in (tmp_path / "train.log").read_text()
    assert_same(unbroken[0], tmp_path)


def test_killed_while_waveforms_are_augmented(data, tmp_path):
    settings = "data__input='waveform', optim__max_steps=7, optim__warmup_steps=0"
    told = drive(
        data,
        tmp_path,
        f"""
        report(status=attempt(folder / "unbroken", {settings}))
        for steps in (2, 1, 3):
            report(status=attempt(folder / "broken", in_step, (steps,), run__checkpoint_steps=1, {settings}))
        report(status=attempt(folder / "broken", data__workers=1, {settings}))
    """,
    )
    assert [attempt["status"] for attempt in told] == [0, *[-signal.SIGKILL] * 3, 0]
    assert_same(tmp_path / "unbroken", tmp_path / "broken")


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
def test_killed_with_every_option_that_is_not_the_papers(data, tmp_path, more):
    settings = ", ".join(f"{name}={value!r}" for name, value in {**ALL_OPTIONS, **more}.items())
    told = drive(
        data,
        tmp_path,
        f"""
        report(status=attempt(folder / "unbroken", {settings}))
        for steps in (2, 1, 3):
            report(status=attempt(folder / "broken", in_step, (steps,), run__checkpoint_steps=1, {settings}))
        report(status=attempt(folder / "broken", data__workers=1, {settings}))
    """,
    )
    assert [attempt["status"] for attempt in told] == [0, *[-signal.SIGKILL] * 3, 0]
    assert_same(tmp_path / "unbroken", tmp_path / "broken")
    last = checkpoint.read(tmp_path / "broken" / "last.pt")
    assert any(not torch.equal(value, last["model"][name]) for name, value in last["average"].items())


# ---- what is gone on with


def test_a_finished_training_without_its_stamp_has_nothing_left_to_train(data, tmp_path):
    train(job(data, tmp_path, optim__max_steps=2))
    before = (tmp_path / "last.pt").read_bytes()
    stamp = (tmp_path / "stage.json").read_bytes()
    (tmp_path / "stage.json").unlink()
    train(job(data, tmp_path, optim__max_steps=2))
    assert (tmp_path / "last.pt").read_bytes() == before
    assert json.loads(stamp)["key"] == json.loads((tmp_path / "stage.json").read_text())["key"]


@pytest.mark.parametrize("left", ["last.pt cut short", "another setting", "no best.pt"])
def test_what_cannot_be_gone_on_with_starts_anew(data, tmp_path, caplog, left):
    train(job(data, tmp_path / "run", optim__max_steps=2))
    (tmp_path / "run" / "stage.json").unlink()
    settings = {"optim__max_steps": 2}
    if left == "last.pt cut short":
        (tmp_path / "run" / "last.pt").write_bytes((tmp_path / "run" / "last.pt").read_bytes()[:1000])
    elif left == "no best.pt":
        (tmp_path / "run" / "best.pt").unlink()
    else:
        settings["loss__gamma"] = 2.0
    train(job(data, tmp_path / "run", **settings))
    train(job(data, tmp_path / "fresh", **settings))
    assert "starts anew" in caplog.text and "going on" not in caplog.text
    assert_same(tmp_path / "fresh", tmp_path / "run")


def test_settings_that_change_nothing_that_is_learned_go_on(data, tmp_path):
    config = dict(optim__max_steps=2)
    train(job(data, tmp_path, **config))
    key = checkpoint.read(tmp_path / "last.pt")["key"]
    assert find_checkpoint(tmp_path, key)["step"] == 2
    assert find_checkpoint(tmp_path, "another") is None
    train(job(data, tmp_path, run__checkpoint_steps=1, data__workers=1, **config))
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
    config = job(data, data).config.data
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
    batch = next(endless_stream("emotion", cuts, job(data, data).config.data, 1, Position(1, 3)))
    assert batch.position == Position(1, 3) and read == batch.ids


def first_cuts(data, folder, clips):
    """The first ``clips`` training cuts, as lazy as all of them."""
    cuts = training_cuts(data / "msud/casia.speaker/fold1/emotion.jsonl.gz").subset(first=clips)
    cuts.to_file(folder / "first.jsonl.gz")
    return training_cuts(folder / "first.jsonl.gz")


@pytest.mark.parametrize("clips", [2, 3, 7, 8, 15])
def test_no_batch_is_of_one_clip_and_an_epoch_is_whole(data, tmp_path, clips):
    cuts = first_cuts(data, tmp_path, clips)
    ids, config = sorted(cut.id for cut in cuts), job(data, data).config.data
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
        next(endless_stream("emotion", first_cuts(data, tmp_path, 1), job(data, data).config.data, 1))
