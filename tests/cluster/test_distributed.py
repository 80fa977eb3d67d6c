"""A training in several processes against the same one in a single process; what happens when one of them fails."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_runs import ROOT, TOLERANCE, assert_near, assert_same, error_lines, run_program

from speecheq.cluster import distributed
from speecheq.cluster.run_task import free_port
from speecheq.dataset.batch import TaskBatch, join_shares
from speecheq.dataset.loader import training_cuts
from speecheq.models import checkpoint

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
        assert distributed.gather_rows(value) is value and distributed.mini_batch_mean(value, 3) is value
        assert distributed.scale_for_sum(value) is value
    assert (
        distributed.all_gather_objects(5) == [5]
        and distributed.any_rank(15) == 15
        and distributed.broadcast(lambda: 2) == 2
    )
    assert distributed.map_shared(lambda items: [2 * item for item in items], [1, 2]) == [2, 4]
    assert distributed.set_device(torch.device("cuda")) == torch.device("cuda") and distributed.is_first()


# ---- the same as one process


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
    program = f"""
for size in (1, 2, 3):
    print(json.dumps(processes(size, backward, {cases!r}, f"of{{size}}")[0]))
    """
    told, _ = run_program("step_in_processes", program, tmp_path, tmp_path)
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


@pytest.fixture
def drive(data, tmp_path):
    """``drive(program)``: what a program that trains in several processes printed, and its log."""
    return lambda program: run_program("several_processes", program, data, tmp_path)


@pytest.fixture(scope="module")
def trainings(data, tmp_path_factory):
    """The same training in one process, in two and in three; and again with mini-batches of two or three clips."""
    folder = tmp_path_factory.mktemp("trainings")
    program = """
        for size in (1, 2, 3):
            trained(size, f"of{size}")
        for size in (1, 3):
            trained(size, f"small{size}", data__batch_size=2, optim__max_steps=4)
    """
    told, shown = run_program("several_processes", program, data, folder)
    assert all(set(attempt["statuses"]) == {0} for attempt in told), shown
    return folder


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
    with distributed.process_group():
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


def test_a_lost_process_ends_all_and_the_same_command_goes_on(drive, trainings, tmp_path):
    settings = "run__checkpoint_steps=3"
    told, shown = drive(f"""
        die = lambda: os.kill(os.getpid(), signal.SIGKILL)
        for rank in (1, 0):
            trained(2, "out", in_step(rank, 5, die), {settings})
        (folder / "other").mkdir()
        for name in ("last.pt", "best.pt"):
            (folder / "other" / name).write_bytes((folder / "out" / name).read_bytes())
        trained(2, "out", {settings})
        trained(1, "other", {settings})
    """)
    assert [attempt["statuses"] for attempt in told] == [[1, -signal.SIGKILL], [-signal.SIGKILL, 1], [0, 0], [0]]
    assert max(attempt["seconds"] for attempt in told) < AT_ONCE
    (lost,) = set(error_lines(shown))  # told by the first process, where that is not the one that is lost
    assert lost == (
        "another process of this training has ended early; run the same command again to continue from the "
        "last checkpoint."
    )
    assert len(error_lines(shown)) == 1
    assert_same(trainings / "of2", tmp_path / "out")
    assert "resuming after step 6" in (tmp_path / "other" / "train.log").read_text()
    assert_near(trainings / "of1", tmp_path / "other")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_process_stops_all_after_the_same_step(drive, trainings, tmp_path, number):
    told, shown = drive(f"""
        trained(2, "out", in_step(1, 4, lambda: os.kill(os.getpid(), {int(number)})))
        print(checkpoint.read(folder / "out" / "last.pt")["step"])
        trained(2, "out")
    """)
    assert told[0]["statuses"] == [128 + number] * 2 and told[0]["seconds"] < AT_ONCE
    assert told[1] == 4 and told[2]["statuses"] == [0, 0]
    assert shown.count("asked to stop; step 4 is saved; run the same command again to continue") == 1
    assert not error_lines(shown)
    assert_same(trainings / "of2", tmp_path / "out")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_clip_that_one_process_cannot_read_ends_all_with_its_sentence(drive, tmp_path, workers):
    told, shown = drive(f"""
        def gone(rank):
            def load(cut, calls=[]):
                calls.append(cut.id)
                in_worker = torch.utils.data.get_worker_info() is not None
                if rank == 1 and len(calls) == 10 and in_worker == bool({workers}):
                    raise InputError("/some/archive.lca: the features of a clip cannot be read; run stage 2 again.")
                return whole(cut)
            whole, batch_module.load_features = batch_module.load_features, load
        trained(2, "out", gone, data__workers={workers})
    """)
    assert told[0]["statuses"] == [1, 1] and told[0]["seconds"] < AT_ONCE
    assert error_lines(shown) == ["/some/archive.lca: the features of a clip cannot be read; run stage 2 again."]


def test_a_fault_of_the_first_process_alone_ends_all(drive, tmp_path):
    told, shown = drive("""
        def full(rank):
            def save(path, *arguments, **named):
                raise InputError(f"{path.name}: could not be written, no space left on device.")
            checkpoint.save = save
        trained(3, "out", full)
    """)
    assert told[0]["statuses"] == [1, 1, 1] and told[0]["seconds"] < AT_ONCE
    assert error_lines(shown) == ["best.pt: could not be written, no space left on device."]


def test_a_step_that_is_not_finite_is_skipped_by_all(data, drive, tmp_path):
    ids = sorted(cut.id for cut in training_cuts(data / "msud/seqd.official/fold1/emotion.jsonl.gz"))
    settings = "data__cmvn='none', loss__beta=0.0, loss__eta=0.0, optim__max_steps=4"
    told, shown = drive(f"""
        def poisoned(rank):
            load = batch_module.load_features
            batch_module.load_features = lambda cut: load(cut) * (float("nan") if cut.id == {ids[0]!r} else 1.0)
        for size in (1, 2):
            trained(size, f"of{{size}}", poisoned, {settings})
        trained(2, "ended", poisoned, optim__max_bad_steps=1, {settings})
    """)
    assert [attempt["statuses"] for attempt in told] == [[0], [0, 0], [1, 1]]
    (one,), (two,) = (list((tmp_path / f"of{size}").glob("bad_step*.pt")) for size in (1, 2))
    assert one.name == two.name
    one, two = torch.load(one), torch.load(two)
    assert one["error"] == two["error"] and one["emotion"]["ids"] == two["emotion"]["ids"]
    torch.testing.assert_close(one["emotion"]["inputs"], two["emotion"]["inputs"], equal_nan=True, rtol=0, atol=0)
    assert_near(tmp_path / "of1", tmp_path / "of2")
    (sentence,) = error_lines(shown)
    assert "the loss of the emotion batch is nan" in sentence
    assert all(name in sentence for name in one["emotion"]["ids"])
