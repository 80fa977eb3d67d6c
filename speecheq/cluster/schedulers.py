"""Slurm and Grid Engine: the command lines of their programs, and parsers for their output.

To add a scheduler, or a site's names for resources, add an entry to ``SCHEDULERS``.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from xml.etree import ElementTree

WAITING, RUNNING, ENDED = "waiting", "running", "ended"


class State(NamedTuple):
    """A task in the scheduler's queue. ``word``: the scheduler's name for the state, or why the task waits."""

    phase: str  # WAITING, RUNNING or ENDED
    word: str


States = dict[tuple[str, int], State]  # by job number and index in the array


def as_ranges(numbers: Iterable[int]) -> str:
    """``1-3,5`` for 1, 2, 3, 5."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _indices(text: str) -> Iterator[int]:
    """The indices in ``3``, ``1-3,5%2`` or ``1-3:1``; none for the N/A of a job without an array."""
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", re.sub(r"[%:]\d+", "", text)):
        yield from range(int(first), int(last or first) + 1)


def read_squeue(text: str) -> States:
    """Read lines of ``array job|index|state|reason``."""
    waiting = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
    running = ("RUNNING", "COMPLETING", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED")
    found: States = {}
    for line in text.splitlines():
        job, indices, word, reason = line.split("|", 3)
        phase = WAITING if word in waiting else RUNNING if word in running else ENDED
        for index in _indices(indices):
            found[job, index] = State(phase, reason if phase == WAITING else word)
    return found


def read_qstat(text: str) -> States:
    """Read the XML of ``qstat -xml -g d``. A job in an error state counts as ended, for it never starts."""
    found: States = {}
    for job in ElementTree.fromstring(text).iter("job_list"):
        state = job.findtext("state") or ""
        phase = ENDED if "E" in state else WAITING if "q" in state else RUNNING
        for index in _indices(job.findtext("tasks") or ""):
            found[job.findtext("JB_job_number") or "", index] = State(phase, state)
    return found


def _read_scontrol(text: str) -> int | None:
    """``MaxArraySize = 1001`` of ``scontrol show config``: indices are smaller than that, and ours start at 1."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", text, re.MULTILINE)
    return max(int(found[1]) - 1, 0) if found else None


def _read_qconf(text: str) -> int | None:
    """``max_aj_tasks 75000`` of ``qconf -sconf``; 0 means no limit."""
    found = re.search(r"^max_aj_tasks\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) or None if found else None


@dataclass(frozen=True)
class Scheduler:
    """The programs of a scheduler. Words in braces are placeholders.

    ``flags`` are those of ``submit``, by setting: the names of job_options.Settings, and some more.
    """

    submit: tuple[str, ...]
    flags: Mapping[str, tuple[str, ...]]
    queue: tuple[str, ...]  # lists the user's own tasks ...
    read_queue: Callable[[str], States]  # ... which this parses
    cancel: tuple[str, ...]
    limits: tuple[str, ...]  # prints the scheduler's configuration ...
    read_longest: Callable[[str], int | None]  # ... from which this parses the largest length of an array
    job_variable: str  # in a task's environment, the number of its array ...
    index_variable: str  # ... and its index in it
    step: tuple[str, ...] = ()  # starts a task's command on all of its nodes
    requeue: tuple[str, ...] = ()  # requeues a task that has saved and ended
    restarts_variable: str = ""  # in a task's environment, the number of requeues
    allocation_variable: str = ""  # set inside an allocation (a job, or a session on a node) ...
    allocation_prefix: str = (
        ""  # ... with variables of this prefix, from which new jobs would take the same settings ...
    )
    cluster_variables: tuple[str, ...] = ()  # ... except these

    def environment(self) -> dict[str, str]:
        """This process's environment without an allocation's settings, for the scheduler's programs and so for jobs."""
        if self.allocation_variable not in os.environ:
            return dict(os.environ)
        return {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(self.allocation_prefix) or name in self.cluster_variables
        }


SLURM = Scheduler(
    # TERM@60: a training has a minute to save before its time is up. The step gets the signal, as for preemption.
    submit=("sbatch", "--parsable", "--export=ALL", "--open-mode=append", "--signal=TERM@60", "--ntasks-per-node=1"),
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
    read_queue=read_squeue,
    cancel=("scancel", "{job}_[{indices}]"),
    limits=("scontrol", "show", "config"),
    read_longest=_read_scontrol,
    job_variable="SLURM_ARRAY_JOB_ID",
    index_variable="SLURM_ARRAY_TASK_ID",
    step=("srun", "--nodes={nodes}", "--ntasks={nodes}", "--kill-on-bad-exit=1"),
    requeue=("scontrol", "requeue", "{job}_{index}"),
    restarts_variable="SLURM_RESTART_COUNT",
    allocation_variable="SLURM_JOB_ID",
    allocation_prefix="SLURM_",
    cluster_variables=("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_MPI_TYPE"),
)
GRID_ENGINE = Scheduler(
    # -notify: SIGUSR2 before SIGKILL, which run_task passes on as SIGTERM
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
    read_queue=read_qstat,
    cancel=("qdel", "{job}", "-t", "{indices}"),
    limits=("qconf", "-sconf"),
    read_longest=_read_qconf,
    job_variable="JOB_ID",
    index_variable="SGE_TASK_ID",
)
SCHEDULERS = {"slurm": SLURM, "sge": GRID_ENGINE}
# Slurm's words for the end of a task.
ENDS = {
    "TIMEOUT": "ran out of its time limit (--time)",
    "DEADLINE": "ran out of its time limit (--time)",
    "OUT_OF_MEMORY": "ran out of memory (--memory)",
    "CANCELLED": "was cancelled",
    "NODE_FAIL": "its node failed",
    "PREEMPTED": "was preempted by another job",
}
