"""Stages as job arrays of Slurm or Sun Grid Engine: what is missing is submitted, waited for, and told of.

A stage that can be split gives a list of tasks, each a command line and the folder of its log. They become one array
(or several, where the cluster takes none so long), submitted by the scheduler's own program (sbatch, qsub): such an
array is one command, whereas a library in between (submitit) would pickle functions and knows no Grid Engine. A task's
command line lies as a list in ``tasks.json`` and is never part of a shell's line, so any file name comes through. On
its node ``run_task`` runs it, through srun where there is Slurm, writes its log, and leaves its exit status as a file;
of those that could not, the scheduler tells.
"""

import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple
from xml.etree import ElementTree

from speecheq.common.command_line import OneLineParser, exit_status, positive_whole, true_or_false
from speecheq.common.digests import digest
from speecheq.common.errors import InputError
from speecheq.common.files import locked_folder, read_json, remove_leftovers, write_json, write_text
from speecheq.common.log import log, one_line, set_up_logging
from speecheq.common.progress import Progress
from speecheq.common.signals import sigterm_ends, stopping_put_off
from speecheq.common.stages import NOT_DONE, ONLY_ASK

LOCAL = "local"
# The whole of a job's script: the command comes as its arguments.
SCRIPT = '#!/bin/sh\nexec "$@"\n'
TASKS, SUBMITTED, RESULTS = "tasks.json", "submitted.json", "results"
# Where files are shared over a network, a node's new file may be seen so many seconds later (NFS' acdirmax).
LOST_AFTER = 60.0
# Seconds between two looks at the queue: short ones for short jobs.
SHORTEST_WAIT, LONGEST_WAIT = 0.3, 10.0
LAST_LINES = 12
# So often a task that was warned goes back into the queue though it has saved nothing new since it started.
MOST_IN_VAIN = 3
# Set by a recipe to its process number: where that is gone, nobody waits any more.
RECIPE = "SPEECHEQ_RECIPE_PID"


class State(NamedTuple):
    """What the scheduler says of a task: waiting, running or ended, and its word for that, or why it waits."""

    phase: str
    word: str


WAITING, RUNNING, ENDED = "waiting", "running", "ended"
States = dict[tuple[str, int], State]  # by job and index in the array


def _indices(text: str) -> Iterator[int]:
    """Of ``3``, or of tasks that a scheduler lists together: ``1-3,5%2``, ``1-3:1``; none of a job that is no array."""
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", re.sub(r"[%:]\d+", "", text)):
        yield from range(int(first), int(last or first) + 1)


def _read_squeue(text: str) -> States:
    """Lines of ``array job|index|state|reason``."""
    waiting = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
    running = ("RUNNING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED")
    found: States = {}
    for line in text.splitlines():
        job, indices, word, reason = line.split("|", 3)
        phase = WAITING if word in waiting else RUNNING if word in running else ENDED
        for index in _indices(indices):
            found[job, index] = State(phase, reason if phase == WAITING else word)
    return found


def _read_qstat(text: str) -> States:
    """The XML of ``qstat -xml -g d``; jobs in an error state have ended, they never start."""
    found: States = {}
    for job in ElementTree.fromstring(text).iter("job_list"):
        state = job.findtext("state") or ""
        phase = ENDED if "E" in state else WAITING if "q" in state else RUNNING
        for index in _indices(job.findtext("tasks") or ""):
            found[job.findtext("JB_job_number") or "", index] = State(phase, state)
    return found


def _read_scontrol(text: str) -> int | None:
    """``MaxArraySize = 1001`` of ``scontrol show config``: indices are smaller than that, and ours begin at 1."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", text, re.MULTILINE)
    return max(int(found[1]) - 1, 0) if found else None


def _read_qconf(text: str) -> int | None:
    """``max_aj_tasks 75000`` of ``qconf -sconf``; 0 is no limit."""
    found = re.search(r"^max_aj_tasks\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) or None if found else None


@dataclass(frozen=True)
class Scheduler:
    """How a scheduler is spoken to. ``flags`` are its flags for what can be asked of it, in the words of Settings."""

    submit: tuple[str, ...]
    flags: Mapping[str, tuple[str, ...]]
    queue: tuple[str, ...]  # prints the user's own tasks ...
    read_queue: Callable[[str], States]  # ... and this reads it
    cancel: tuple[str, ...]
    limits: tuple[str, ...]  # prints what it is configured to ...
    read_longest: Callable[[str], int | None]  # ... and this finds in it how many tasks an array may have
    job_variable: str  # of a task's environment
    index_variable: str
    step: tuple[str, ...] = ()  # starts a task's command on all its nodes
    again: tuple[str, ...] = ()  # puts a task that has saved and ended back into the queue ...
    restarts_variable: str = ""  # ... and of its environment, how often it was
    allocation_variable: str = ""  # of the environment inside an allocation: of a job, or of a session on a node ...
    allocation_prefix: str = ""  # ... whose variables begin so, by which jobs would ask for the same as it did ...
    cluster_variables: tuple[str, ...] = ()  # ... but for these

    def environment(self) -> dict[str, str]:
        """That of this process, for the programs of the scheduler, and so for jobs, without what an allocation set."""
        if self.allocation_variable not in os.environ:
            return dict(os.environ)
        return {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(self.allocation_prefix) or name in self.cluster_variables
        }


SCHEDULERS = {
    "slurm": Scheduler(
        # TERM@60: a training has a minute to save before its time is up. It goes to the step, as preemption's does.
        submit=(
            "sbatch",
            "--parsable",
            "--export=ALL",
            "--open-mode=append",
            "--signal=TERM@60",
            "--ntasks-per-node=1",
        ),
        flags={
            "name": ("--job-name={name}",),
            "output": ("--output={folder}/%A.%a.out",),
            "array": ("--array=1-{tasks}",),
            "array_at_once": ("--array=1-{tasks}%{at_once}",),
            "after": ("--dependency=afterany:{after}",),
            "requeue": ("--requeue",),
            "no_requeue": ("--no-requeue",),
            "partition": ("--partition={partition}",),
            "account": ("--account={account}",),
            "time": ("--time={time}",),
            "memory": ("--mem={memory}",),
            "cpus": ("--cpus-per-task={cpus}",),
            "gpus": ("--gpus-per-node={gpus}",),
            "gpus_of_kind": ("--gpus-per-node={gpu}:{gpus}",),
            "nodes": ("--nodes={nodes}",),
        },
        queue=("squeue", "--me", "--array", "--states=all", "--noheader", "--format=%F|%K|%T|%r"),
        read_queue=_read_squeue,
        cancel=("scancel", "{job}_[{indices}]"),
        limits=("scontrol", "show", "config"),
        read_longest=_read_scontrol,
        job_variable="SLURM_ARRAY_JOB_ID",
        index_variable="SLURM_ARRAY_TASK_ID",
        step=("srun", "--nodes={nodes}", "--ntasks={nodes}", "--kill-on-bad-exit=1"),
        again=("scontrol", "requeue", "{job}_{index}"),
        restarts_variable="SLURM_RESTART_COUNT",
        allocation_variable="SLURM_JOB_ID",
        allocation_prefix="SLURM_",
        cluster_variables=("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_MPI_TYPE"),
    ),
    "sge": Scheduler(
        # -notify: SIGUSR2 before SIGKILL, which run_task hands on as SIGTERM
        submit=("qsub", "-terse", "-V", "-cwd", "-S", "/bin/sh", "-notify", "-j", "y"),
        flags={
            "name": ("-N", "{name}"),
            "output": ("-o", "$JOB_ID.$TASK_ID.out"),
            "array": ("-t", "1-{tasks}"),
            "array_at_once": ("-t", "1-{tasks}", "-tc", "{at_once}"),
            "after": ("-hold_jid", "{after}"),
            "requeue": ("-r", "y"),
            "no_requeue": ("-r", "n"),
            "partition": ("-q", "{partition}"),
            "account": ("-P", "{account}"),
            "time": ("-l", "h_rt={time}"),
            "memory": ("-l", "h_vmem={memory}"),
            "cpus": ("-pe", "smp", "{cpus}"),
            "gpus": ("-l", "gpu={gpus}"),
            "gpus_of_kind": ("-l", "{gpu}={gpus}"),
        },
        queue=("qstat", "-xml", "-g", "d"),
        read_queue=_read_qstat,
        cancel=("qdel", "{job}", "-t", "{indices}"),
        limits=("qconf", "-sconf"),
        read_longest=_read_qconf,
        job_variable="JOB_ID",
        index_variable="SGE_TASK_ID",
    ),
}
# What Slurm's words for an end mean.
ENDS = {
    "TIMEOUT": "ran out of its time limit (--time)",
    "DEADLINE": "ran out of its time limit (--time)",
    "OUT_OF_MEMORY": "ran out of memory (--memory)",
    "CANCELLED": "was cancelled",
    "NODE_FAIL": "its node failed",
    "PREEMPTED": "gave way to another's job",
}


@dataclass(frozen=True)
class Task:
    """One task of an array: what it is called, its command line, and where its log and what it saves lie."""

    title: str
    command: tuple[str, ...]
    logs: Path | None = None  # a folder; None: that of the array
    saves: Path | None = None  # the file that it writes anew when it is asked to stop, and goes on from
    makes: tuple[Path, ...] = ()  # files that it writes anew before it ends well


@dataclass(frozen=True)
class Settings:
    """Who runs tasks, and what each of them asks for; empty: the scheduler's own default. See ``add_options``."""

    cmd: str
    jobs_folder: Path
    partition: str = ""
    account: str = ""
    time: str = ""
    memory: str = ""
    cpus: str = ""
    gpu: str = "any"
    at_once: str = ""
    requeue: bool = False
    keep_jobs: bool = False
    dry_run: bool = False
    job_option: tuple[str, ...] = ()
    gpus: int = 0  # a node
    nodes: int = 1

    @classmethod
    def of(cls, given: Namespace, gpus: int = 0, nodes: int = 1) -> "Settings":
        """From a command line; InputError where the scheduler knows nothing of what is asked for."""
        told = {item.name: getattr(given, item.name) for item in fields(cls) if hasattr(given, item.name)}
        made = cls(**{**told, "gpus": 0 if given.gpu == "none" else gpus, "nodes": nodes})
        for name in made._asked():
            if name not in SCHEDULERS[made.cmd].flags:
                raise InputError(f"--cmd {made.cmd}: {name} cannot be asked for there, only with --cmd slurm.")
        return made

    def _asked(self, after: str = "") -> list[str]:
        """The names of the flags."""
        return [
            "name",
            "output",
            "array_at_once" if self.at_once else "array",
            "requeue" if self.requeue else "no_requeue",
            *(name for name in ("partition", "account", "time", "memory", "cpus") if getattr(self, name)),
            *(["gpus" if self.gpu == "any" else "gpus_of_kind"] if self.gpus else []),
            *(["nodes"] if self.nodes > 1 else []),
            *(["after"] if after else []),
        ]

    def command(self, name: str, tasks: int, folder: Path, after: str = "") -> list[str]:
        """The command line that submits an array of ``tasks`` from ``folder``, where its script and its tasks lie.

        ``after``: the scheduler's number of a job for whose end it waits. InputError where the scheduler cannot write
        its output there.
        """
        # to Slurm a % begins what it fills in, and a backslash anywhere means that it fills in nothing
        output_folder = str(folder.absolute()).replace("%", "%%")
        if self.cmd == "slurm" and "\\" in output_folder:
            raise InputError(
                f"{folder.absolute()}: Slurm cannot name its output in a folder with a backslash in its "
                "path; name another (--exp)."
            )
        values = {**asdict(self), "name": f"speecheq-{name}", "tasks": tasks, "folder": output_folder, "after": after}
        scheduler = SCHEDULERS[self.cmd]
        flags = [part.format(**values) for asked in self._asked(after) for part in scheduler.flags[asked]]
        return [
            *scheduler.submit,
            *flags,
            *self.job_option,
            "job.sh",
            sys.executable,
            "-m",
            "speecheq.cluster.job_arrays",
            ".",
        ]


def add_options(made: ArgumentParser) -> None:
    """The options of every command that can send its work to a scheduler."""
    made.add_argument("--cmd", choices=(LOCAL, *SCHEDULERS), default=LOCAL, help="where it runs: here or as jobs")
    made.add_argument("--jobs-folder", type=Path, default=Path("exp/jobs"), help="where arrays are kept, with --cmd")
    for name, help in (
        ("partition", "of Slurm, or queue of Grid Engine"),
        ("account", "or project"),
        ("time", "limit of a job, such as 10:00:00"),
        ("memory", "of a job, such as 8G"),
        ("cpus", "of a job"),
    ):
        made.add_argument(f"--{name}", default="", help=help)
    made.add_argument("--gpu", default="any", help="what a GPU is called there (a100); any; none: ask for none")
    made.add_argument(
        "--jobs-at-once",
        dest="at_once",
        type=_number_or_nothing,
        default="",
        metavar="N",
        help="of an array, at most (default: as many as there is room for)",
    )
    made.add_argument(
        "--requeue",
        type=true_or_false,
        default=False,
        help="true: jobs that had to make room, or whose time is up, save and start again",
    )
    made.add_argument(
        "--keep-jobs",
        type=true_or_false,
        default=False,
        help="true: Ctrl-C and SIGTERM leave the jobs, the same command waits for them again",
    )
    made.add_argument(
        "--job-option",
        action="append",
        default=[],
        metavar="FLAG",
        help="another flag of sbatch or qsub, may be repeated: --job-option=--qos=high",
    )
    made.add_argument("--dry-run", type=true_or_false, default=False, help="true: print what would be submitted")


def _number_or_nothing(value: str) -> str:
    return str(positive_whole(value)) if value else ""


def without_options(arguments: Sequence[str]) -> list[str]:
    """A command's arguments without those of ``add_options``."""
    mine = OneLineParser(add_help=False)
    add_options(mine)
    return mine.parse_known_args(list(arguments))[1]


def missing_of(listed: bytes) -> list[Task]:
    """Of tasks that a shell lists those to be done.

    Each is a title, the file that it makes (or nothing), a number of words and these words, all ended by NUL. Their
    commands are run with stages.ONLY_ASK; SystemExit with the status of one that meets a fault, which it tells.
    """
    words = iter([os.fsdecode(word) for word in listed.split(b"\0")[:-1]])
    tasks = []
    for title in words:
        makes = tuple(Path(path) for path in [next(words)] if path)
        command = tuple(islice(words, int(next(words))))
        status = subprocess.run(command, env={**os.environ, ONLY_ASK: "1"}).returncode
        if status not in (0, NOT_DONE):
            raise SystemExit(status)
        if status == NOT_DONE:
            tasks.append(Task(title, command, makes=makes))
    return tasks


def speecheq(*arguments: str) -> tuple[str, ...]:
    """The command line of ``speecheq`` with ``arguments`` in this environment."""
    return (sys.executable, "-m", "speecheq.cli", *arguments)


# ---- here: submitting and waiting


class _Flight(NamedTuple):
    """A task that was submitted: the folder of its array, the scheduler's number of that, its index from 1."""

    folder: Path
    job: str
    index: int
    task: Task

    @property
    def output(self) -> Path:
        """What the scheduler itself wrote of it."""
        return self.folder / f"{self.job}.{self.index}.out"


def run(name: str, tasks: Sequence[Task], settings: Settings) -> None:
    """Run ``tasks`` as one array and wait for all of them. ``name`` is that of the stage.

    Where the cluster takes no array so long they become several; with ``at_once`` one after the other, so that no more
    run at once than are asked for.

    Tasks that an earlier start left in the queue are not submitted again but waited for. What they make is there when
    this returns. InputError where the scheduler is not there or refuses, tasks failed, after each was told of with the
    last lines of its log, or what they made cannot be seen from here. With ``dry_run`` what would be submitted is
    printed, and SystemExit raised with NOT_DONE. KeyboardInterrupt, and SystemExit after a SIGTERM, cancel the tasks,
    unless ``keep_jobs``, also while they are submitted.
    """
    if not tasks:
        return
    array = _Array(name, settings)
    settings.jobs_folder.mkdir(parents=True, exist_ok=True)
    before = {path: _version(path) for task in tasks for path in task.makes}
    flights: list[_Flight] = []  # those that are waited for, and have not ended
    with sigterm_ends():
        try:
            with locked_folder(settings.jobs_folder):
                earlier = array.in_flight(tasks)
                if earlier:
                    log.info(
                        "%s: %d jobs are in the queue from an earlier start, they are waited for", name, len(earlier)
                    )
                flying = {flight.task.command for flight in earlier}
                new = [task for task in tasks if task.command not in flying]
                if settings.dry_run:
                    array.show(new)
                    raise SystemExit(NOT_DONE)  # what later stages would submit depends on this
                flights += earlier
                array.submit(new, flights)
            array.wait(flights)
        except (KeyboardInterrupt, SystemExit):
            array.stop(flights)
            raise
        _wait_to_see(name, before)


def _wait_to_see(name: str, before: Mapping[Path, tuple[int, int] | None]) -> None:
    """Until these files, of which there were the versions ``before``, are there anew.

    Where files are shared over a network, a machine may remember for LOST_AFTER seconds what there was when it looked.
    InputError where one is not there even then.
    """
    end, told = time.monotonic() + LOST_AFTER, False
    while [path for path, version in before.items() if _version(path) in (None, version)]:
        if time.monotonic() > end:
            missing = [path for path in before if not path.exists()]
            if missing:
                raise InputError(
                    f"{name}: its jobs ended well, but {missing[0]}, which they wrote, is not there for this machine; "
                    "name folders that all machines share."
                )
            return  # another process may have made them between two looks at them
        if not told:
            log.info("%s: its jobs have ended; waiting for this machine to see what they wrote", name)
        told = True
        time.sleep(1.0)


class _Array:
    """A stage's array, or arrays, on a scheduler."""

    def __init__(self, name: str, settings: Settings):
        self.name, self.settings, self.scheduler = name, settings, SCHEDULERS[settings.cmd]
        self.silent = False

    def _ask(self, command: Sequence[str], folder: Path | None = None) -> "subprocess.CompletedProcess[str]":
        try:
            # in a session of its own: Ctrl-C is for this process, which needs the answer
            return subprocess.run(
                command,
                capture_output=True,
                text=True,
                cwd=folder,
                start_new_session=True,
                env=self.scheduler.environment(),
            )
        except FileNotFoundError as error:
            raise InputError(
                f"--cmd {self.settings.cmd}: there is no {command[0]} on this machine; run the recipe on one that "
                "submits jobs, or with --cmd local."
            ) from error

    def _states(self) -> States | None:
        """What the scheduler says of the user's tasks; None where it does not answer at the moment."""
        done = self._ask(self.scheduler.queue)
        if done.returncode == 0:
            self.silent = False
            return self.scheduler.read_queue(done.stdout)
        if not self.silent:
            log.warning("%s does not answer (%s); it is asked again", self.scheduler.queue[0], _last_line(done.stderr))
        self.silent = True
        return None

    def in_flight(self, wanted: Iterable[Task]) -> list[_Flight]:
        """Those of the ``wanted`` tasks that wait or run; notes of arrays that have ended are removed."""
        notes = [
            path
            for path in sorted(self.settings.jobs_folder.glob(f"*/{SUBMITTED}"))
            if read_json(path)["scheduler"] == self.settings.cmd
        ]
        if not notes:
            return []
        states = self._states()
        if states is None:
            raise InputError(
                f"{self.scheduler.queue[0]} does not say whether the jobs of an earlier start still run; try again "
                f"later, or remove {notes[0]} where you know."
            )
        commands = {task.command for task in wanted}
        found = []
        for note in notes:
            job = read_json(note)["job"]
            flights = [
                _Flight(note.parent, job, index, task)
                for index, task in enumerate(_tasks(note.parent), 1)
                if states.get((job, index), State(ENDED, "")).phase != ENDED
            ]
            found += [flight for flight in flights if flight.task.command in commands]
            if not flights:
                note.unlink()
        return found

    def _folder(self, tasks: Sequence[Task]) -> Path:
        return self.settings.jobs_folder / f"{self.name}-{digest([(task.title, task.command) for task in tasks])}"

    def _split(self, tasks: Sequence[Task]) -> list[Sequence[Task]]:
        """Tasks as many at a time as the cluster takes in an array."""
        done = self._ask(self.scheduler.limits) if shutil.which(self.scheduler.limits[0]) else None
        # where it does not say, the program that submits will
        longest = self.scheduler.read_longest(done.stdout) if done and done.returncode == 0 else None
        if longest == 0:
            raise InputError(
                f"--cmd {self.settings.cmd}: this cluster takes no arrays of jobs, as its "
                f"`{shlex.join(self.scheduler.limits)}` says; have them allowed, or give --cmd local."
            )
        longest = longest or len(tasks)
        return [tasks[first : first + longest] for first in range(0, len(tasks), longest)]

    def show(self, tasks: Sequence[Task]) -> None:
        """Print what ``submit`` would do."""
        after = ""
        for part in self._split(tasks) if tasks else []:
            folder = self._folder(part)
            print("cd", shlex.quote(str(folder)))
            print(shlex.join(self.settings.command(self.name, len(part), folder, after)))
            for index, task in enumerate(part, 1):
                print(f"# {index}: {one_line(shlex.join(task.command))}")  # a comment of the shell ends with its line
            after = self.settings.at_once and "JOB"  # the number that the line above prints when it is run

    def submit(self, tasks: Sequence[Task], flights: list[_Flight]) -> None:
        """Add an array of ``tasks``, or several, to the ``flights``.

        InputError where the scheduler refuses one; it stops the others.
        """
        earlier = len(flights)
        for part in self._split(tasks) if tasks else []:
            after = flights[-1].job if len(flights) > earlier and self.settings.at_once else ""
            try:
                with stopping_put_off():  # what is submitted is known, so that it can be cancelled
                    flights += self._submit(part, after)
            except InputError:
                submitted = flights[earlier:]
                del flights[earlier:]
                self.stop(submitted)
                raise

    def _submit(self, tasks: Sequence[Task], after: str) -> list[_Flight]:
        folder = self._folder(tasks)
        command = self.settings.command(self.name, len(tasks), folder, after)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / RESULTS, ignore_errors=True)  # of the same tasks, when they were submitted before
        (folder / RESULTS).mkdir(exist_ok=True)  # here, for a job's new file in it is seen sooner than a new folder
        remove_leftovers(folder)
        write_text(folder / "job.sh", SCRIPT)
        # in ASCII, as a file name need not be UTF-8
        write_text(
            folder / TASKS,
            json.dumps(
                {
                    "scheduler": self.settings.cmd,
                    "cwd": os.getcwd(),
                    "nodes": self.settings.nodes,
                    "requeue": self.settings.requeue,
                    "tasks": [
                        {
                            "title": task.title,
                            "command": task.command,
                            "logs": str(task.logs or folder),
                            "saves": task.saves and str(task.saves),
                        }
                        for task in tasks
                    ],
                },
                indent=1,
            ),
        )
        done = self._ask(command, folder)
        job = re.match(r"\d+", done.stdout)
        if done.returncode or not job:
            raise InputError(f"{self.name}: {command[0]} refused its {len(tasks)} jobs ({_last_line(done.stderr)}).")
        write_json(folder / SUBMITTED, {"scheduler": self.settings.cmd, "job": job[0]})
        log.info("%s: %d jobs submitted to %s as the array %s", self.name, len(tasks), self.settings.cmd, job[0])
        return [_Flight(folder, job[0], index, task) for index, task in enumerate(_tasks(folder), 1)]

    def wait(self, left: list[_Flight]) -> None:
        """Until all have ended, each is taken out of ``left`` then; InputError where some failed."""
        flights, failed = list(left), []
        with Progress(f"{self.name} on {self.settings.cmd}", len(flights), "jobs") as shown:
            for flight, why in self._ends(left, shown):
                if why:
                    failed.append(f"{flight.job}_{flight.index} ({flight.task.title}: {why})")
                    _tell_failure(flight, why, self.settings.cmd)
        for folder, waited_for in Counter(flight.folder for flight in flights).items():
            if waited_for == len(_tasks(folder)):  # else others of the array may still run
                (folder / SUBMITTED).unlink(missing_ok=True)
        for flight in flights:
            if flight.output.is_file() and not flight.output.stat().st_size:
                flight.output.unlink()
        if failed:
            raise InputError(
                f"{self.name}: {len(failed)} of {len(flights)} jobs failed: {'; '.join(failed)}. The same command "
                "submits again what is missing."
            )

    def _ends(self, left: list[_Flight], shown: Progress, cancelled: bool = False) -> Iterator[tuple[_Flight, str]]:
        """Each flight as it ends, with the reason if it failed; takes them out of ``left``.

        One that the scheduler does not know any more may still tell its end for LOST_AFTER seconds, unless it was
        ``cancelled``.
        """
        lost_after = 0.0 if cancelled else LOST_AFTER
        started, gone, failed = time.monotonic(), {}, 0  # gone: since when the scheduler knows nothing of a flight
        while left:
            if not cancelled and os.environ.get(RECIPE, str(os.getppid())) != str(os.getppid()):
                sys.exit(128 + signal.SIGTERM)  # a SIGTERM to a shell does not reach its children
            states = self._states()
            now = time.monotonic()
            phases = {WAITING: 0, RUNNING: 0, ENDED: 0}
            reasons = set()
            for flight in list(left) if states is not None else []:
                state = states.get((flight.job, flight.index))
                if state is not None and state.phase != ENDED:
                    phases[state.phase] += 1
                    reasons |= {state.word} if state.phase == WAITING else set()
                    continue
                why = _end(flight, state)
                if why is None and now - gone.setdefault(flight, now) < lost_after:
                    phases[RUNNING] += 1
                    continue
                left.remove(flight)
                why = "ended without a word: it was killed, or its node is lost" if why is None else why
                phases[ENDED] += 1
                failed += bool(why)
                yield flight, why
            because = f" ({', '.join(sorted(reasons))})" if reasons else ""
            shown.update(
                phases[ENDED], f"{phases[WAITING]} waiting{because}, {phases[RUNNING]} running, {failed} failed"
            )
            if left:
                time.sleep(min(max((now - started) / 20, SHORTEST_WAIT), LONGEST_WAIT))

    def stop(self, left: Sequence[_Flight]) -> None:
        """Cancel what has not ended, unless it is to be kept, and say how to go on."""
        if not left:
            return
        if self.settings.keep_jobs:
            log.warning(
                "%s: %d jobs are left to %s; the same command waits for them again, %s cancels them",
                self.name,
                len(left),
                self.settings.cmd,
                self.scheduler.cancel[0],
            )
            return
        by_job: dict[str, list[int]] = {}
        for flight in left:
            by_job.setdefault(flight.job, []).append(flight.index)
        with stopping_put_off():
            for job, indices in by_job.items():
                values = {"job": job, "indices": as_ranges(indices)}
                done = self._ask([part.format(**values) for part in self.scheduler.cancel])
                if done.returncode:
                    log.warning("%s", _last_line(done.stderr))
        log.warning(
            "%s: its %d jobs are cancelled, and waited for until they have saved (once more: not to wait); the "
            "same command goes on with what is missing",
            self.name,
            len(left),
        )
        with Progress(f"{self.name}: ending", len(left), "jobs") as shown:
            for _ in self._ends(list(left), shown, cancelled=True):
                pass


def _tasks(folder: Path) -> list[Task]:
    # arrays that are still in the queue may have been submitted before tasks had "saves"
    return [
        Task(
            task["title"],
            tuple(task["command"]),
            Path(task["logs"]),
            Path(task["saves"]) if task.get("saves") else None,
        )
        for task in read_json(folder / TASKS)["tasks"]
    ]


def _end(flight: _Flight, state: State | None) -> str | None:
    """How a task ended that neither waits nor runs: "" if well, else why not; None where nothing says so yet."""
    result = flight.folder / RESULTS / f"{flight.index}.json"
    found = read_json(result) if result.is_file() else {}
    status = found["status"] if found.get("job") == flight.job else None
    if status == 0:
        return ""
    if state is not None and state.word != "COMPLETED":
        told = ENDS.get(state.word)
        if told or status is None:
            return told or f"ended in the state {state.word}"
    if status is None:
        return None
    if status == 128 + signal.SIGTERM:
        return "was asked to stop (SIGTERM), as before the end of its time limit"
    if status == 128 + signal.SIGKILL:
        return "was killed (SIGKILL), perhaps for want of memory"
    return f"exit status {status}"


def _tell_failure(flight: _Flight, why: str, cmd: str) -> None:
    """The last lines of a task's log, and of what the scheduler wrote beside it."""
    name = f"{cmd}-{flight.job}_{flight.index}.log"
    for path in (flight.task.logs / name, flight.output):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        if lines:
            log.error("job %s_%d (%s) %s; the end of %s:", flight.job, flight.index, flight.task.title, why, path)
            for line in lines[-LAST_LINES:]:
                log.error("    %s", line)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["without a word"])[-1]


def as_ranges(numbers: Iterable[int]) -> str:
    """``1-3,5`` of 1, 2, 3, 5."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


# ---- there: one task


def free_port() -> int:
    """A TCP port of this machine that nobody has.

    From 10000, above those of well-known services, to those that Linux gives away by itself, so that nobody is given it
    before it is used; where there are no such ports, one that the system gives.
    """
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        first = 0
    draw = random.Random()  # not that which trainings seed
    while True:
        with closing(socket.socket()) as tried:
            try:
                tried.bind(("", draw.randrange(10000, first) if first > 11000 else 0))
                return tried.getsockname()[1]
            except OSError:  # somebody has it
                continue


def _version(path: Path | None) -> tuple[int, int] | None:
    """Another one wherever the file was written anew; None where there is none."""
    if path is None or not path.exists():
        return None
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def run_task(folder: Path) -> int:
    """On a node: run the task of ``folder``'s array that the environment names; returns its exit status.

    Its log is written, and its exit status left for who waits. On several nodes the command is started on each of
    them, with ``--rendezvous`` at this one, the first. With ``requeue`` a task that was warned goes back into the
    queue, where it got further, and MOST_IN_VAIN times where it did not.
    """
    content = read_json(folder / TASKS)
    scheduler = SCHEDULERS[content["scheduler"]]
    job, index = os.environ[scheduler.job_variable], int(os.environ[scheduler.index_variable])
    task = _tasks(folder)[index - 1]
    folder = folder.resolve()
    os.chdir(content["cwd"])
    result = folder / RESULTS / f"{index}.json"
    result.unlink(missing_ok=True)  # of a start before the job was put back into the queue
    nodes = content["nodes"]
    command = [part.format(nodes=nodes) for part in scheduler.step]
    if command and "SLURM_CPUS_PER_TASK" in os.environ:  # which srun does not take over by itself
        command.append(f"--cpus-per-task={os.environ['SLURM_CPUS_PER_TASK']}")
    command += task.command
    if nodes > 1:
        command += ["--rendezvous", f"{socket.gethostname()}:{free_port()}"]
    task.logs.mkdir(parents=True, exist_ok=True)
    before = _version(task.saves)
    with open(task.logs / f"{content['scheduler']}-{job}_{index}.log", "ab") as output:
        status, warned = _run_command(command, output)
        if warned and content["requeue"] and scheduler.again:
            # asked to make room, it saved in time, which the scheduler takes for an end of its own
            values = {"job": job, "index": index}
            again = [part.format(**values) for part in scheduler.again]
            restarts = int(os.environ.get(scheduler.restarts_variable, 0))
            if _version(task.saves) == before and restarts >= MOST_IN_VAIN:
                output.write(f"started again {restarts} times, it saved nothing new: it stays ended\n".encode())
            elif subprocess.run(again, stdout=output, stderr=subprocess.STDOUT).returncode == 0:
                return status
    write_json(result, {"job": job, "status": status})
    return status


def _run_command(command: Sequence[str], output: BinaryIO) -> tuple[int, bool]:
    """The exit status of a command, as a shell has it, and whether it was a SIGTERM that ended it, and it alone.

    So a scheduler warns before a time limit and before a job has to make room; when it ends a job, this process is told
    too. Grid Engine's warnings come to this process, and reach the command as SIGTERM.
    """
    told, started, warned = [], [], []

    def warn(number: int, _frame: object) -> None:
        if started:
            started[0].terminate()
        else:
            warned.append(number)

    # Slurm sends it to the step too; this process stays to tell how that ended
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, warn)
    try:
        # in a session of its own: Grid Engine warns a job's whole process group, with signals that would end it
        started.append(
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        )
    except OSError as error:
        output.write(os.fsencode(f"{command[0]}: {os.strerror(error.errno)}\n"))
        return 127, False
    if warned:  # while the command was started
        started[0].terminate()
    status = started[0].wait()
    status = 128 - status if status < 0 else status
    return status, status == 128 + signal.SIGTERM and not told


def main(argv: Sequence[str] | None = None) -> int:
    """What a job runs: ``python -m speecheq.cluster.job_arrays FOLDER``. Returns the task's exit status."""
    set_up_logging()
    status: list[int] = []
    folder = Path((sys.argv[1:] if argv is None else argv)[0])
    return exit_status(lambda: status.append(run_task(folder))) or status[0]


if __name__ == "__main__":
    sys.exit(main())
