"""What a job does on its node: its log, its exit status, warnings of the scheduler."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from scheduler_programs import ROOT, write_program

from speecheq.cluster.job_files import Task, write_array

SAVES_ON_SIGTERM = """
import os, pathlib, signal, sys, time
def end(*_):
    if "SAVES" in os.environ:
        pathlib.Path("last.new").touch(); os.rename("last.new", "last.pt")
    print("saved"); sys.exit(143)
signal.signal(signal.SIGTERM, end)
pathlib.Path("pid.new").write_text(str(os.getpid()))
os.rename("pid.new", "pid")
while True: time.sleep(0.05)  # signal.pause() would miss a signal that comes just before it
"""


@pytest.fixture
def on_node(tmp_path, monkeypatch):
    """``on_node(scheduler, requeue, **environment)``: the process of a job whose task waits for SIGTERM, the task's."""
    started = []

    def start(scheduler, requeue, **environment):
        task = Task("a", (sys.executable, "-c", SAVES_ON_SIGTERM), tmp_path, Path("last.pt"))
        monkeypatch.chdir(tmp_path)
        write_array(tmp_path, scheduler, 1, requeue, [task])
        process = subprocess.Popen(
            [sys.executable, "-m", "speecheq.cluster.run_task", str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        started.append(process)
        while not (tmp_path / "pid").exists():
            assert process.poll() is None
        return process, int((tmp_path / "pid").read_text())

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_grid_engines_warning_reaches_a_task_as_sigterm(on_node, tmp_path, number):
    process, _ = on_node("sge", False, JOB_ID="7", SGE_TASK_ID="1")
    process.send_signal(number)
    assert process.wait(600) == 143
    assert (tmp_path / "sge-7_1.log").read_text() == "saved\n"
    assert json.loads((tmp_path / "results/1.json").read_text()) == {"job": "7", "status": 143}


def test_a_warning_while_a_task_is_started_reaches_it():
    program = """
import os, signal, subprocess
from speecheq.cluster import run_task
real = subprocess.Popen
def warned(*arguments, **options):
    process = real(*arguments, **options)
    os.kill(os.getpid(), signal.SIGUSR2)
    return process
subprocess.Popen = warned
print(run_task._run_command(["sleep", "1000"], open(os.devnull, "wb")))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "(143, True)\n"


@pytest.fixture
def programs_of_a_node(tmp_path):
    """The environment of a task of Slurm, with stand-ins of srun and scontrol, which notes what it is asked."""
    write_program(tmp_path / "srun", '#!/bin/sh\nwhile :; do case $1 in --*) shift;; *) exec "$@";; esac; done\n')
    write_program(tmp_path / "scontrol", f'#!/bin/sh\necho "$@" >{tmp_path}/asked\n')
    return {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "PATH": f"{tmp_path}:{os.environ['PATH']}"}


@pytest.mark.parametrize("requeue, ended, again", [(True, False, True), (True, True, False), (False, False, False)])
def test_a_task_that_was_warned_goes_back_into_the_queue_if_wanted(
    on_node, programs_of_a_node, tmp_path, requeue, ended, again
):
    """A warning goes to the task alone; a job that is ended or cancelled gets the signal in all its processes."""
    process, task = on_node("slurm", requeue, **programs_of_a_node)
    if ended:
        process.terminate()
    os.kill(task, signal.SIGTERM)
    assert process.wait() == 143
    assert (tmp_path / "asked").exists() == again != (tmp_path / "results/1.json").exists()
    if again:
        assert (tmp_path / "asked").read_text() == "requeue 7_1\n"


@pytest.mark.parametrize("restarts, saves, again", [(2, False, True), (3, False, False), (3, True, True)])
def test_a_task_that_gets_no_further_does_not_go_back_for_ever(
    on_node, programs_of_a_node, tmp_path, restarts, saves, again
):
    (tmp_path / "last.pt").touch()  # of an earlier start
    process, task = on_node(
        "slurm", True, SLURM_RESTART_COUNT=str(restarts), **programs_of_a_node, **({"SAVES": ""} if saves else {})
    )
    os.kill(task, signal.SIGTERM)
    assert process.wait() == 143
    assert (tmp_path / "asked").exists() == again
    if not again:
        assert "not requeued: restarted 3 times without saving anything new" in (tmp_path / "slurm-7_1.log").read_text()
        assert json.loads((tmp_path / "results/1.json").read_text()) == {"job": "7", "status": 143}
