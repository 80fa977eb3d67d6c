"""The processes of a training as they are started: by --gpus, by torchrun, on two nodes; how they end."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from training_runs import ROOT, error_lines, last_step, seqd_job, train_command

from speecheq.cluster import torchrun
from speecheq.cluster.run_task import free_port
from speecheq.common.errors import InputError
from speecheq.training.train import train


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
        torchrun.check_process_numbers([torch.device(devices)], number, nodes, rendezvous)
    torchrun.check_process_numbers([torch.device("cuda")], 2, 2, "node1:29500")
    torchrun.check_process_numbers([torch.device("cpu")], 9, 1, None)


class Store:
    """Counters as of the store at which nodes meet; after ``lost_after`` calls its node is gone."""

    def __init__(self, lost_after=10**9):
        self.counts, self.calls, self.lost_after = {}, 0, lost_after

    def add(self, key, number):
        self.calls += 1
        if self.calls > self.lost_after:
            raise RuntimeError("Connection reset by peer")
        self.counts[key] = self.counts.get(key, 0) + number
        return self.counts[key]


def agent_at_its_end(store, hosts):
    kind = torchrun._agent_class(hosts)
    agent = kind.__new__(kind)
    agent._store = store
    agent._worker_group = SimpleNamespace(group_world_size=2)
    return agent


def test_the_node_of_the_store_leaves_last():
    store = Store()
    leaving = threading.Thread(target=agent_at_its_end(store, hosts=True)._exit_barrier)
    leaving.start()
    store.add("speecheq/ended", 1)
    leaving.join(0.5)
    assert leaving.is_alive()
    store.add("speecheq/leaving", 1)
    leaving.join(60)
    assert not leaving.is_alive()


def test_a_store_lost_with_its_node_ends_the_wait(monkeypatch):
    for calls in range(4):
        agent_at_its_end(Store(lost_after=calls), hosts=False)._exit_barrier()
    monkeypatch.setattr(torchrun, "EXIT_BARRIER_SECONDS", 0.2)
    agent_at_its_end(Store(), hosts=True)._exit_barrier()  # the other node never ends


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


def test_processes_share_the_cores_that_this_one_may_use(monkeypatch):
    """A job of a cluster may use some of its machine."""
    from torch.distributed import run
    from torch.distributed.launcher import api

    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(api, "LocalElasticAgent", api.LocalElasticAgent)
    monkeypatch.setattr(run, "elastic_launch", lambda config, entrypoint: lambda *_: None)
    torchrun.launch(["train"], 2)
    assert environment["OMP_NUM_THREADS"] == "3"


def test_processes_that_cannot_share_the_shards_are_told_of_before_jobs_are_submitted(data, tmp_path):
    options = ["--shar", "--gpus", "3", "--nodes", "2", "--cmd", "slurm", "--jobs-folder", tmp_path / "jobs"]
    status, shown = ended(start("speecheq.cli", *train_command(data, tmp_path, *options)))
    assert status == 1 and "shar.lanes is 8, but 6 processes train" in shown.splitlines()[-1], shown


def test_gpus_starts_so_many_processes_and_torchrun_does_the_same(data, tmp_path):
    status, shown = ended(start("speecheq.cli", *train_command(data, tmp_path, "--gpus", "2")))
    assert status == 0 and "on cpu, in 2 processes" in shown and last_step(tmp_path) == 4, shown
    torchrun = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "speecheq.cli")
    status, shown = ended(start(*torchrun, *train_command(data, tmp_path)))
    assert status == 0 and shown.count("already done with the same arguments") == 1, shown


def test_two_nodes_meet(data, tmp_path):
    options = ("--nodes", "2", "--rendezvous", f"localhost:{free_port()}")
    nodes = [start("speecheq.cli", *train_command(data, tmp_path, *options)) for _ in range(2)]
    told = [ended(node) for node in nodes]
    assert [status for status, _ in told] == [0, 0], told
    assert sorted("in 2 processes" in shown for _, shown in told) == [False, True] and last_step(tmp_path) == 4


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
    endless = train_command(data, tmp_path, "--gpus", "2", "--set", "optim.max_steps=100000")
    interrupted = start("speecheq.cli", *endless)
    read_until(interrupted, "epoch 1, step")
    interrupted.send_signal(signal.SIGINT)
    status, shown = ended(interrupted)
    assert status == 130 and shown.count("is saved; run the same command again to continue") == 1, shown
    step = last_step(tmp_path)
    killed = start("speecheq.cli", *endless)
    read_until(killed, f"resuming after step {step}", "; dev ")
    os.kill(children_of(killed)[1], signal.SIGKILL)
    status, shown = ended(killed)
    assert status == 1
    assert shown.rstrip().endswith(
        "process 1 of the training was ended by signal 9; run the same command again to continue from the last "
        "checkpoint."
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
    status, shown = ended(start("speecheq.cli", *train_command(data, tmp_path, *options)))
    assert status == 1 and sentence in shown and len(error_lines(shown)) == 1, shown


# ---- one folder, one training


def test_a_second_training_on_the_same_folder_is_refused(data, tmp_path):
    first = start("speecheq.cli", *train_command(data, tmp_path, "--set", "optim.max_steps=100000"))
    try:
        read_until(first, "epoch 1, step")
        status, shown = ended(start("speecheq.cli", *train_command(data, tmp_path, "--set", "optim.max_steps=2")))
        folder = tmp_path / "nano-speecheq/seqd.official/fold1/seed1"
        assert status == 1 and error_lines(shown) == [
            f"{folder}: process {first.pid} on {socket.gethostname()} is writing there; wait until it has ended, or "
            "name another folder."
        ]
        assert "max_steps: 100000" in (folder / "config.yaml").read_text()
    finally:
        first.kill()
        first.communicate()
    train(seqd_job(data, folder, optim__max_steps=1))  # a lock ends with its process
