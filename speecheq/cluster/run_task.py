"""The entry point of a job: ``python -m speecheq.cluster.run_task FOLDER`` runs one task of the array in FOLDER."""

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from speecheq.cluster.job_files import JobArray, SubmittedTask, Task, file_version, read_array
from speecheq.cluster.schedulers import SCHEDULERS, Scheduler
from speecheq.common.command_line import exit_status
from speecheq.common.files import write_json
from speecheq.common.log import set_up_logging

# How often a warned task is requeued without having saved anything new.
MAX_FUTILE_RESTARTS = 3


def free_port() -> int:
    """A free TCP port of this machine.

    It is above the well-known ports and below Linux' ephemeral ones, so that no other process is assigned it before it
    is used. If there are no such ports, the system assigns one.
    """
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        first = 0
    draw = random.Random()  # not the global generator, which is seeded
    while True:
        with closing(socket.socket()) as tried:
            try:
                tried.bind(("", draw.randrange(10000, first) if first > 11000 else 0))
                return tried.getsockname()[1]
            except OSError:  # the port is taken
                continue


def run_task(folder: Path) -> int:
    """Run the task of ``folder``'s array that the environment names. Returns its exit status.

    Writes the task's log, and its exit status to a file for the waiting process. On several nodes the command is
    started on each, with ``--rendezvous`` at this one, the first. With ``requeue``, a task that was warned is requeued;
    without progress only MAX_FUTILE_RESTARTS times.
    """
    array = read_array(folder)
    scheduler = SCHEDULERS[array.scheduler]
    job, index = os.environ[scheduler.job_variable], int(os.environ[scheduler.index_variable])
    task = array.tasks[index - 1]
    submitted = SubmittedTask(folder.resolve(), array.scheduler, job, index, task)
    os.chdir(array.cwd)
    submitted.result.unlink(missing_ok=True)  # of a start before the job was requeued
    submitted.log.parent.mkdir(parents=True, exist_ok=True)
    saved_before = file_version(task.saves)
    with open(submitted.log, "ab") as output:
        status, warned = _run_command(_command(task, array, scheduler), output)
        if warned and array.requeue and scheduler.requeue:
            # it was preempted and saved in time, which the scheduler takes for a normal end
            restarts = int(os.environ.get(scheduler.restarts_variable, 0))
            requeue = [part.format(job=job, index=index) for part in scheduler.requeue]
            if file_version(task.saves) == saved_before and restarts >= MAX_FUTILE_RESTARTS:
                output.write(f"not requeued: restarted {restarts} times without saving anything new\n".encode())
            elif subprocess.run(requeue, stdout=output, stderr=subprocess.STDOUT).returncode == 0:
                return status
    write_json(submitted.result, {"job": job, "status": status})
    return status


def _command(task: Task, array: JobArray, scheduler: Scheduler) -> list[str]:
    command = [part.format(nodes=array.nodes) for part in scheduler.step]
    if command and "SLURM_CPUS_PER_TASK" in os.environ:  # srun does not inherit this
        command.append(f"--cpus-per-task={os.environ['SLURM_CPUS_PER_TASK']}")
    command += task.command
    if array.nodes > 1:
        command += ["--rendezvous", f"{socket.gethostname()}:{free_port()}"]
    return command


def _run_command(command: Sequence[str], output: BinaryIO) -> tuple[int, bool]:
    """Run a command.

    Schedulers warn a task before its time limit and before preemption. Slurm warns the command itself; when it ends
    the entire job, this process gets the SIGTERM too. Grid Engine warns this process, which sends the command SIGTERM.

    Returns:
        Its exit status as in a shell, and whether it was warned: ended by a SIGTERM that was sent to it alone.
    """
    terminations, warnings = [], []
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _frame: object) -> None:
        if process is not None:
            process.terminate()
        else:
            warnings.append(number)

    # survive a SIGTERM, to report how the command ended
    signal.signal(signal.SIGTERM, lambda number, _: terminations.append(number))
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, pass_on)
    try:
        # in a session of its own: Grid Engine warns the job's process group with signals that would end the command
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    except OSError as error:
        output.write(os.fsencode(f"{command[0]}: {error.strerror}\n"))
        return 127, False
    if warnings:  # they came while the command was started
        process.terminate()
    status = process.wait()
    status = 128 - status if status < 0 else status
    return status, status == 128 + signal.SIGTERM and not terminations


def main(argv: Sequence[str] | None = None) -> int:
    """Run the task of the folder that is the only argument. Returns the task's exit status."""
    set_up_logging()
    status: list[int] = []
    folder = Path((sys.argv[1:] if argv is None else argv)[0])
    return exit_status(lambda: status.append(run_task(folder))) or status[0]


if __name__ == "__main__":
    sys.exit(main())
