"""A training in several processes against the same one in a single process; what happens when one of them fails."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_state import assert_same, job, scalars

from speecheq.cluster import distributed
from speecheq.cluster.run_task import free_port
from speecheq.common.errors import InputError
from speecheq.corpora.prepare import PrepareRequest, prepare
from speecheq.dataset.batch import TaskBatch, join_shares
from speecheq.dataset.loader import training_cuts
from speecheq.dataset.msud import unify
from speecheq.dataset.msud_recipe import Recipe
from speecheq.dataset.phoneme_cuts import phonemes
from speecheq.features.storage import compute_features
from speecheq.models import checkpoint
from speecheq.training.train import train

ROOT = Path(__file__).resolve().parents[2]
# What docs/method.md promises: relative to the largest of a tensor. Ten steps of Adam carry rounding on, so the losses
# of a training are held to TOLERANCE and its parameters to ten times that.
TOLERANCE = 1e-4
# Batch norm, or the softmax of the attention, takes these out again: their gradients are nothing but rounding, which
# Adam turns into whole steps. The running mean behind them moves along.
WITHOUT_EFFECT = ("pooled_norm.bias", "fc.bias", "pooling.scores.bias", "embedding_norm.running_mean")


@pytest.fixture(scope="module")
def data(toys, tmp_path_factory):
    """Stages 1 to 3 on toy SEQD, which has EIS labels, and AISHELL-1: 17 emotion clips, an epoch is three steps."""
    folder = tmp_path_factory.mktemp("toy")
    for name, make in (("seqd", toys.seqd), ("aishell", toys.aishell)):
        script = toys.script(name)
        request = PrepareRequest(make(folder / "corpora" / name), partial=True)
        prepare(getattr(script, name.upper()), script.find_utterances, request, folder / "manifests" / name)
        compute_features(name, folder / "manifests" / name, folder / "fbank" / name)
    unify(Recipe("seqd", "official", ["seqd"]), "1", folder / "manifests", folder / "fbank", folder / "msud")
    phonemes("aishell", folder / "manifests", folder / "fbank", folder / "phonemes" / "aishell")
    return folder


def seqd_job(data, folder, **settings):
    settings = {"model__dropout": 0.0, "optim__max_steps": 10, "optim__learning_rate": 3e-4, **settings}
    return dataclasses.replace(job(data, folder, **settings), msud=data / "msud" / "seqd.official")


# Forks its processes, so that only one process has to import torch; each then has a network of its own.
DRIVER = """
import json, os, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path[:0] = ["tests", "tests/cluster", "tests/dataset", "tests/training"]
import test_distributed
from speecheq.models import checkpoint
from speecheq.cluster import distributed
from speecheq.training import train as training
from speecheq.dataset import batch as batch_module
from speecheq.common.command_line import exit_status
from speecheq.common.errors import InputError
from speecheq.cluster.run_task import free_port
from speecheq.common.log import set_up_logging
import torch.utils.tensorboard

torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # torch 2 imports seconds' worth with the first one
set_up_logging()
data, folder = Path(sys.argv[1]), Path(sys.argv[2])


def processes(size, work, *arguments):
    # runs work(rank) in so many processes; their exit statuses, and the seconds from the first end to the last
    port, children = free_port(), []
    for rank in range(size):
        child = os.fork()
        if child:
            children.append(child)
            continue
        if size > 1:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1",
                              MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
        status = 99
        try:
            def action():
                with distributed.processes():
                    work(rank, *arguments)
            status = exit_status(action)
        except SystemExit as ended:
            status = ended.code
        except BaseException:
            import traceback
            traceback.print_exc()
        os._exit(status)
    statuses, ends = {}, []
    while len(ends) < size:
        child, status = os.wait()
        statuses[child] = os.waitstatus_to_exitcode(status)
        ends.append(time.monotonic())
    return [statuses[child] for child in children], ends[-1] - ends[0]


def trained(size, out, sabotage=lambda rank: None, **settings):
    def work(rank):
        sabotage(rank)
        training.train(test_distributed.seqd_job(data, folder / out, **settings))
    statuses, seconds = processes(size, work)
    print(json.dumps({"statuses": statuses, "seconds": seconds}), flush=True)


def in_step(rank, number, do):
    # a sabotage: in process ``rank``, before its step ``number``
    def sabotage(process):
        whole, calls = training.train_step, []
        def step(*arguments, **named):
            calls.append(1)
            if len(calls) == number:
                do()
            return whole(*arguments, **named)
        if process == rank:
            training.train_step = step
    return sabotage
"""


def drive(data, out, program, timeout=200, driver=DRIVER):
    """(what the program printed, a JSON value a line; what went to standard error)"""
    done = subprocess.run(
        [sys.executable, "-c", driver + textwrap.dedent(program), str(data), str(out)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def errors(shown: str) -> list:
    assert "Traceback" not in shown, shown
    return [line.split(" ERROR ", 1)[1] for line in shown.splitlines() if " ERROR " in line]


# ---- shares


@given(st.integers(1, 9), st.integers(0, 40))
def test_shares_are_disjoint_even_and_come_back_in_order(size, count):
    items, shares = list(range(count)), []
    for rank in range(size):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distributed, "size", lambda: size)
            patch.setattr(distributed, "rank", lambda: rank)
            shares.append(distributed.share(items))
    if count < size:
        assert all(share == items for share in shares)
    else:
        assert distributed.interleaved(shares) == items
        assert max(map(len, shares)) - min(map(len, shares)) <= 1 and min(map(len, shares)) >= 1


@given(st.integers(1, 4), st.lists(st.integers(1, 6), min_size=4, max_size=9))
def test_a_mini_batch_is_put_together_from_its_shares(size, lengths):
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(length, 3, generator=generator) for length in lengths]
    ids = [f"clip{number}" for number in range(len(rows))]

    def stream(numbers):
        return TaskBatch(
            torch.nn.utils.rnn.pad_sequence([rows[n] for n in numbers], batch_first=True),
            torch.tensor([lengths[n] for n in numbers]),
            [ids[n] for n in numbers],
            {"esc": torch.tensor(list(numbers)), "phones": [torch.arange(n) for n in numbers]},
            all_ids=ids,
        )

    found = join_shares([stream(range(len(rows))[rank::size]) for rank in range(size)])
    expected = stream(range(len(rows)))
    assert found.ids == expected.ids and torch.equal(found.inputs, expected.inputs)
    assert torch.equal(found.lengths, expected.lengths) and torch.equal(found.targets["esc"], expected.targets["esc"])
    assert [len(phones) for phones in found.targets["phones"]] == list(range(len(rows)))


def test_one_process_exchanges_nothing():
    value = torch.randn(3, requires_grad=True)
    with distributed.mini_batch(3), distributed.raise_together():
        assert not distributed.is_shared_out()
        assert distributed.gather_rows(value) is value and distributed.whole_mean(value, 3) is value
        assert distributed.scale_for_sum(value) is value
    assert (
        distributed.all_gather_objects(5) == [5]
        and distributed.any_rank(15) == 15
        and distributed.broadcast(lambda: 2) == 2
    )
    assert distributed.results_of(lambda items: [2 * item for item in items], [1, 2]) == [2, 4]
    assert distributed.set_device(torch.device("cuda")) == torch.device("cuda") and distributed.is_first()


@pytest.mark.parametrize(
    "devices, number, nodes, rendezvous, sentence",
    [
        ("cpu", 1, 2, None, "--nodes is 2, so --rendezvous must be HOST:PORT"),
        ("cpu", 1, 2, "here", "HOST:PORT.*, not 'here'"),
        ("cpu", 2, 1, "here:29500", "give --nodes N too"),
        ("cuda", 3, 1, None, "--gpus is 3, but torch finds 2 on this machine"),
    ],
)
def test_numbers_of_processes_that_cannot_be(monkeypatch, devices, number, nodes, rendezvous, sentence):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=sentence):
        distributed.check_numbers([torch.device(devices)], number, nodes, rendezvous)
    distributed.check_numbers([torch.device("cuda")], 2, 2, "node1:29500")
    distributed.check_numbers([torch.device("cpu")], 9, 1, None)


# ---- the same as one process

STEPS = """
import dataclasses, random
from speecheq.config.schema import Config
from speecheq.dataset.batch import MultitaskBatch, TaskBatch
from speecheq.losses import LossWeights
from speecheq.training.precision import Precision
from speecheq.training.step import gradients

CPU = torch.device("cpu")
WEIGHTS = LossWeights(augmentation_weight=0.5, reconstruction_weight=0.5)


def a_config(case):
    config = Config()
    config.model = dataclasses.replace(config.model, channels=16, mfa_channels=32, scale=4, bottleneck=16,
                                       embedding_dim=16, kind=case["kind"])
    config.model.batch_statistics = "per_stream" if case["seed"] % 2 else "shared"
    config.data.cmvn, config.loss.gamma, config.loss.label_ignore = "none", 1.0, case["label_ignore"]
    if "unlabelled" in case["clips"]:  # MTL-AUG
        config.model.num_augmentations, config.model.decoder_channels = 7, 8
        config.loss.augmentation = config.loss.reconstruction = 0.5
    return config


def streams_of(case):
    generator, draws = torch.Generator().manual_seed(case["seed"]), random.Random(case["seed"])
    made = {}
    for name, clips in case["clips"].items():
        lengths = [draws.randint(20, 45) for _ in range(clips)]
        if draws.random() < 0.3:
            lengths = [30] * clips  # no padding
        targets = {
            "emotion": lambda: {"esc": torch.tensor([draws.randint(0, 8) for _ in lengths]),
                                "eis": torch.tensor([draws.choice([-1.0, 0.0, 1.5, 2.5, 3.5]) for _ in lengths])},
            "gender": lambda: {"gender": torch.tensor([draws.randint(0, 1) for _ in lengths])},
            # one of them in five has more phones than frames
            "phoneme": lambda: {"phones": [torch.randint(1, 50, (draws.choice([1, 3, 5, 7, 60]),), generator=generator)
                                           for _ in lengths]},
            "unlabelled": dict,
        }[name]()
        mtl_aug = "unlabelled" in case["clips"] and name in ("emotion", "unlabelled")
        if mtl_aug:
            targets["augmentation"] = torch.tensor([draws.randint(0, 6) for _ in lengths])
        inputs = [torch.randn(length, 80, generator=generator) for length in lengths]
        clean = [torch.randn(length, 80, generator=generator) for length in lengths] if mtl_aug else []
        rows = range(clips) if distributed.size() > clips else range(clips)[distributed.rank() :: distributed.size()]
        made[name] = TaskBatch(
            torch.nn.utils.rnn.pad_sequence([inputs[row] for row in rows], batch_first=True),
            torch.tensor([lengths[row] for row in rows]), [f"{name}{row}" for row in rows],
            {key: value[list(rows)] if torch.is_tensor(value) else [value[row] for row in rows]
             for key, value in targets.items()},
            all_ids=[f"{name}{row}" for row in range(clips)],
            clean=torch.nn.utils.rnn.pad_sequence([clean[row] for row in rows], batch_first=True) if clean else None,
        )
    return MultitaskBatch(**made)


def backward(rank, cases, out):
    found = []
    for case in cases:
        torch.manual_seed(1)
        config = a_config(case)
        model = checkpoint.new_model(config)
        parts, losses, left_out = gradients(model, streams_of(case), config, "torch", CPU, WEIGHTS,
                                            Precision("fp32", CPU))
        distributed.sum_gradients(model.parameters())
        found.append({
            "losses": {**parts, **losses}, "left_out": left_out,
            "gradients": {name: p.grad for name, p in model.named_parameters() if p.grad is not None},
            "buffers": {name: value.clone() for name, value in model.named_buffers()},
        })
    torch.save(found, folder / f"{out}.{rank}.pt")
"""


def test_losses_gradients_and_statistics_are_those_of_one_process(tmp_path):
    drawn = [
        (kind, ignore, sizes)
        for kind in ("speecheq", "baseline")
        for ignore in ("fill", "drop")
        for sizes in ((4, 5, 3), (7, 3, 6), (2, 3, 2), (9, 4, 5))
    ]
    cases = [
        {
            "kind": kind,
            "label_ignore": ignore,
            "seed": seed,
            "clips": dict(zip(("emotion", "gender", "phoneme"), sizes)),
        }
        for seed, (kind, ignore, sizes) in enumerate(drawn)
    ]
    cases += [
        {"kind": kind, "label_ignore": "fill", "seed": seed, "clips": {"emotion": 5, "unlabelled": 4}}
        for seed, kind in enumerate(("speecheq", "speecheq", "cnn_blstm"), len(cases))
    ]
    told, _ = drive(
        tmp_path,
        tmp_path,
        STEPS
        + f"""
for size in (1, 2, 3):
    print(json.dumps(processes(size, backward, {cases!r}, f"of{{size}}")[0]))
""",
    )
    assert told == [[0], [0, 0], [0, 0, 0]]
    alone = torch.load(tmp_path / "of1.0.pt")
    assert any(case["left_out"] for case in alone)
    for size, rank in ((2, 0), (2, 1), (3, 0), (3, 2)):
        for case, one, many in zip(cases, alone, torch.load(tmp_path / f"of{size}.{rank}.pt")):
            assert one["left_out"] == many["left_out"]
            for name, loss in one["losses"].items():
                assert float(many["losses"][name]) == pytest.approx(float(loss), rel=TOLERANCE, abs=1e-6), (case, name)
            # between two clips batch norm leaves nothing but a sign, and rounding is all that its gradient is made of
            tolerance = TOLERANCE if case["clips"]["emotion"] > 2 else 10 * TOLERANCE
            norm = torch.stack([gradient.norm() for gradient in one["gradients"].values()]).norm()
            assert one["gradients"].keys() == many["gradients"].keys()
            for name, gradient in one["gradients"].items():
                assert (many["gradients"][name] - gradient).norm() <= tolerance * norm, (case, size, name)
            for name, buffer in one["buffers"].items():
                torch.testing.assert_close(many["buffers"][name], buffer, rtol=TOLERANCE, atol=1e-5, msg=name)


@pytest.fixture(scope="module")
def trainings(data, tmp_path_factory):
    """The same training in one process, in two and in three; and again with mini-batches of two or three clips."""
    folder = tmp_path_factory.mktemp("trainings")
    told, shown = drive(
        data,
        folder,
        """
        for size in (1, 2, 3):
            trained(size, f"of{size}")
        for size in (1, 3):
            trained(size, f"small{size}", data__batch_size=2, optim__max_steps=4)
    """,
    )
    assert all(set(attempt["statuses"]) == {0} for attempt in told), shown
    return folder


def assert_near(one: Path, other: Path) -> None:
    """Two experiment folders hold nearly the same model, and the same way there as far as the other's curves go."""
    curves = scalars(one)
    for tag, values in scalars(other).items():
        expected = dict(curves[tag])
        assert values[-1][0] == max(expected)
        for step, value in values:
            assert value == pytest.approx(expected[step], rel=TOLERANCE if "norm" not in tag else 0.01, abs=1e-5), tag
    last, other_last = (checkpoint.read(folder / "last.pt") for folder in (one, other))
    assert last["positions"] == other_last["positions"] and last["epoch"] == other_last["epoch"]
    for name, value in last["model"].items():
        difference = (value.double() - other_last["model"][name].double()).abs().max()
        if not name.endswith(WITHOUT_EFFECT):
            assert difference <= 10 * TOLERANCE * max(1e-3, value.abs().max()), (name, difference)


def test_two_and_three_processes_train_the_same_model(trainings):
    assert checkpoint.read(trainings / "of1" / "last.pt")["epoch"] >= 3
    for size in (2, 3):
        assert_near(trainings / "of1", trainings / f"of{size}")
        run = json.loads((trainings / f"of{size}" / "run.json").read_text())
        assert run["processes"] == size and run["steps"] == 10


def test_mini_batches_of_fewer_clips_than_processes(trainings):
    assert_near(trainings / "small1", trainings / "small3")


def test_the_first_process_alone_writes(trainings):
    one, two = ({path.name.split(".1")[0] for path in (trainings / folder).rglob("*")} for folder in ("of1", "of2"))
    assert {name for name in one ^ two if not name.startswith("events")} == set()
    assert len(list((trainings / "of2" / "tensorboard").iterdir())) == 1
    log = (trainings / "of2" / "train.log").read_text()
    assert log.count("epoch 1, step") == 1 and "in 2 processes" in log


# ---- one of them fails, or is asked to stop


@pytest.mark.parametrize("how, status", [("pass", 0), ("raise SystemExit(3)", 3)])
def test_no_thread_of_gloo_outlives_the_training(how, status):
    """One that frees a tensor while Python ends would abort the process, after all is done."""
    program = f"""
import os, sys, torch
from speecheq.cluster import distributed
def threads():
    found = 0
    for task in os.listdir("/proc/self/task"):
        try:
            flags = open(f"/proc/self/task/{{task}}/stat").read().rpartition(")")[2].split()[6]
        except OSError:
            continue
        found += not int(flags) & 4  # PF_EXITING: it has ended, and the kernel has yet to take it out of the list
    return found
try:
    with distributed.processes():
        weight = torch.nn.Parameter(torch.ones(3))
        weight.sum().backward()
        distributed.sum_gradients([weight])
        torch.optim.Adam([weight]).step()  # with torch 2 the first one imports what takes the group as a default
        distributed.all_gather_objects(weight)
        assert threads() > 1
        {how}
finally:
    print(threads())
"""
    places = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **places, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.communicate(timeout=600)[0].split() for process in running] == [["1"], ["1"]]
    assert [process.returncode for process in running] == [status, status]


# Gloo and torchrun see a process that ended at once; nobody waits for the patience of distributed.py to run out.
AT_ONCE = 20.0


def test_a_lost_process_ends_all_and_the_same_command_goes_on(data, trainings, tmp_path):
    settings = "run__checkpoint_steps=3"
    told, shown = drive(
        data,
        tmp_path,
        f"""
        die = lambda: os.kill(os.getpid(), signal.SIGKILL)
        for rank in (1, 0):
            trained(2, "out", in_step(rank, 5, die), {settings})
        (folder / "other").mkdir()
        for name in ("last.pt", "best.pt"):
            (folder / "other" / name).write_bytes((folder / "out" / name).read_bytes())
        trained(2, "out", {settings})
        trained(1, "other", {settings})
    """,
    )
    assert [attempt["statuses"] for attempt in told] == [[1, -signal.SIGKILL], [-signal.SIGKILL, 1], [0, 0], [0]]
    assert max(attempt["seconds"] for attempt in told) < AT_ONCE
    (lost,) = set(errors(shown))  # told by the first process, where that is not the one that is lost
    assert lost == (
        "another process of this training has ended before its time; the same command goes on from the last checkpoint."
    )
    assert len(errors(shown)) == 1
    assert_same(trainings / "of2", tmp_path / "out")
    assert "going on after step 6" in (tmp_path / "other" / "train.log").read_text()
    assert_near(trainings / "of1", tmp_path / "other")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_process_stops_all_after_the_same_step(data, trainings, tmp_path, number):
    told, shown = drive(
        data,
        tmp_path,
        f"""
        trained(2, "out", in_step(1, 4, lambda: os.kill(os.getpid(), {int(number)})))
        print(checkpoint.read(folder / "out" / "last.pt")["step"])
        trained(2, "out")
    """,
    )
    assert told[0]["statuses"] == [128 + number] * 2 and told[0]["seconds"] < AT_ONCE
    assert told[1] == 4 and told[2]["statuses"] == [0, 0]
    assert shown.count("asked to stop; step 4 is saved, and the same command goes on from there") == 1
    assert not errors(shown)
    assert_same(trainings / "of2", tmp_path / "out")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_clip_that_one_process_cannot_read_ends_all_with_its_sentence(data, tmp_path, workers):
    told, shown = drive(
        data,
        tmp_path,
        f"""
        def gone(rank):
            def load(cut, calls=[]):
                calls.append(cut.id)
                in_worker = torch.utils.data.get_worker_info() is not None
                if rank == 1 and len(calls) == 10 and in_worker == bool({workers}):
                    raise InputError("/some/archive.lca: the features of a clip cannot be read; run stage 2 again.")
                return whole(cut)
            whole, batch_module.load_features = batch_module.load_features, load
        trained(2, "out", gone, data__workers={workers})
    """,
    )
    assert told[0]["statuses"] == [1, 1] and told[0]["seconds"] < AT_ONCE
    assert errors(shown) == ["/some/archive.lca: the features of a clip cannot be read; run stage 2 again."]


def test_a_fault_of_the_first_process_alone_ends_all(data, tmp_path):
    told, shown = drive(
        data,
        tmp_path,
        """
        def full(rank):
            def save(path, *arguments, **named):
                raise InputError(f"{path.name}: could not be written, no space left on device.")
            checkpoint.save = save
        trained(3, "out", full)
    """,
    )
    assert told[0]["statuses"] == [1, 1, 1] and told[0]["seconds"] < AT_ONCE
    assert errors(shown) == ["best.pt: could not be written, no space left on device."]


def test_a_step_that_is_not_finite_is_skipped_by_all(data, tmp_path):
    ids = sorted(cut.id for cut in training_cuts(data / "msud/seqd.official/fold1/emotion.jsonl.gz"))
    settings = "data__cmvn='none', loss__beta=0.0, loss__eta=0.0, optim__max_steps=4"
    told, shown = drive(
        data,
        tmp_path,
        f"""
        def poisoned(rank):
            load = batch_module.load_features
            batch_module.load_features = lambda cut: load(cut) * (float("nan") if cut.id == {ids[0]!r} else 1.0)
        for size in (1, 2):
            trained(size, f"of{{size}}", poisoned, {settings})
        trained(2, "ended", poisoned, optim__max_bad_steps=1, {settings})
    """,
    )
    assert [attempt["statuses"] for attempt in told] == [[0], [0, 0], [1, 1]]
    (one,), (two,) = (list((tmp_path / f"of{size}").glob("bad_step*.pt")) for size in (1, 2))
    assert one.name == two.name
    one, two = torch.load(one), torch.load(two)
    assert one["error"] == two["error"] and one["emotion"]["ids"] == two["emotion"]["ids"]
    torch.testing.assert_close(one["emotion"]["inputs"], two["emotion"]["inputs"], equal_nan=True, rtol=0, atol=0)
    assert_near(tmp_path / "of1", tmp_path / "of2")
    (sentence,) = errors(shown)
    assert "the loss of the emotion batch is nan" in sentence
    assert all(name in sentence for name in one["emotion"]["ids"])


# ---- as it is started


def command(data, folder, *options):
    root = ROOT / "tests" / "egs" / "nano.yaml"
    return [
        "train",
        "--data",
        data,
        "--exp",
        folder,
        "--config",
        root,
        "--systems",
        "speecheq",
        "--systems-file",
        ROOT / "egs/mandarin/conf/systems.yaml",
        "--target",
        "seqd",
        "--protocol",
        "official",
        "--folds",
        "1",
        "--phonemes",
        "aishell",
        "--set",
        "loss.ctc_backend=torch",
        *options,
    ]


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        text=True,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def ended(process, timeout=600):
    """(exit status, standard error); it is killed where it does not end in time."""
    try:
        _, shown = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert "Traceback" not in shown, shown
    return process.returncode, shown


def steps_of(folder) -> int:
    return checkpoint.read(folder / "nano-speecheq/seqd.official/fold1/seed1/last.pt")["step"]


def test_processes_share_the_cores_that_this_one_may_use(monkeypatch):
    """A job of a cluster may use some of its machine."""
    from torch.distributed.launcher import api

    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(api, "LocalElasticAgent", api.LocalElasticAgent)
    monkeypatch.setattr(api, "elastic_launch", lambda *_: lambda *_: None)
    distributed.launch(["train"], 2)
    assert environment["OMP_NUM_THREADS"] == "3"


def test_processes_that_cannot_share_the_shards_are_told_of_before_jobs_are_submitted(data, tmp_path):
    options = ["--shar", "--gpus", "3", "--nodes", "2", "--cmd", "slurm", "--jobs-folder", tmp_path / "jobs"]
    status, shown = ended(start("speecheq.cli", *command(data, tmp_path, *options)))
    assert status == 1 and "shar.lanes is 8, but 6 processes train" in shown.splitlines()[-1], shown


def test_gpus_starts_so_many_processes_and_torchrun_does_the_same(data, tmp_path):
    status, shown = ended(start("speecheq.cli", *command(data, tmp_path, "--gpus", "2")))
    assert status == 0 and "on cpu, in 2 processes" in shown and steps_of(tmp_path) == 4, shown
    torchrun = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "speecheq.cli")
    status, shown = ended(start(*torchrun, *command(data, tmp_path)))
    assert status == 0 and shown.count("already done with the same arguments") == 1, shown


def test_two_nodes_meet(data, tmp_path):
    options = ("--nodes", "2", "--rendezvous", f"localhost:{free_port()}")
    nodes = [start("speecheq.cli", *command(data, tmp_path, *options)) for _ in range(2)]
    told = [ended(node) for node in nodes]
    assert [status for status, _ in told] == [0, 0], told
    assert sorted("in 2 processes" in shown for _, shown in told) == [False, True] and steps_of(tmp_path) == 4


def read_until(process, *words):
    """Standard error up to the line after which it holds all ``words``."""
    shown = ""
    while not all(word in shown for word in words):
        line = process.stderr.readline()
        assert line, shown
        shown += line


def children_of(process):
    return [int(number) for number in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_ctrl_c_saves_and_ends_with_130_and_a_killed_process_is_named(data, tmp_path):
    endless = command(data, tmp_path, "--gpus", "2", "--set", "optim.max_steps=100000")
    interrupted = start("speecheq.cli", *endless)
    read_until(interrupted, "epoch 1, step")
    interrupted.send_signal(signal.SIGINT)
    status, shown = ended(interrupted)
    assert status == 130 and shown.count("is saved, and the same command goes on from there") == 1, shown
    step = steps_of(tmp_path)
    killed = start("speecheq.cli", *endless)
    read_until(killed, f"going on after step {step}", "; dev ")
    os.kill(children_of(killed)[1], signal.SIGKILL)
    status, shown = ended(killed)
    assert status == 1
    assert shown.rstrip().endswith(
        "process 1 of the training was ended by signal 9; the same command goes on from the last checkpoint."
    ), shown


@pytest.mark.parametrize(
    "options, sentence",
    [
        (("--gpus", "2", "--jobs", "2"), "--train-jobs is for trainings beside each other, --gpus for one at a time"),
        (("--gpus", "2", "--set", "loss.gama=2"), "'loss.gama' is not a setting; did you mean loss.gamma?"),
        (("--set", "run.seed=3"), "--set run.seed: the seeds are given by --seeds"),
        (("--nodes", "2"), "--nodes is 2, so --rendezvous must be HOST:PORT"),
    ],
)
def test_options_that_cannot_be_are_refused_once(data, tmp_path, options, sentence):
    status, shown = ended(start("speecheq.cli", *command(data, tmp_path, *options)))
    assert status == 1 and sentence in shown and len(errors(shown)) == 1, shown


# ---- one folder, one training


def test_a_second_training_on_the_same_folder_is_refused(data, tmp_path):
    first = start("speecheq.cli", *command(data, tmp_path, "--set", "optim.max_steps=100000"))
    try:
        read_until(first, "epoch 1, step")
        status, shown = ended(start("speecheq.cli", *command(data, tmp_path, "--set", "optim.max_steps=2")))
        folder = tmp_path / "nano-speecheq/seqd.official/fold1/seed1"
        assert status == 1 and errors(shown) == [
            f"{folder}: process {first.pid} on {socket.gethostname()} is writing there; wait until it has ended, or "
            "name another folder."
        ]
        assert "max_steps: 100000" in (folder / "config.yaml").read_text()
    finally:
        first.kill()
        first.communicate()
    train(seqd_job(data, folder, optim__max_steps=1))  # a lock ends with its process
