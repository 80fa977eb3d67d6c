"""The folder of a job array, shared by the submitting machine and the nodes.

``job.sh``, the script that the scheduler starts for each task; ``tasks.json``, the tasks' command lines;
``submitted.json``, the array's job number, kept while the array may be in the queue; ``results/INDEX.json``, a task's
exit status; ``JOB.INDEX.out``, the scheduler's output for a task. A task's log is here too, or in a folder that the
task names.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from speecheq.common.files import read_json, write_text

TASKS, SUBMITTED, RESULTS = "tasks.json", "submitted.json", "results"
# The command is passed as arguments.
SCRIPT = '#!/bin/sh\nexec "$@"\n'


@dataclass(frozen=True)
class Task:
    """One task of an array: its title, its command line, and the files that it writes."""

    title: str
    command: tuple[str, ...]
    logs: Path | None = None  # the folder of its log; None: the array's
    saves: Path | None = None  # the checkpoint that it writes when it is asked to stop, and resumes from
    makes: tuple[Path, ...] = ()  # files that it writes if it succeeds


class JobArray(NamedTuple):
    """What ``tasks.json`` holds."""

    scheduler: str
    cwd: str
    nodes: int  # per task
    requeue: bool
    tasks: list[Task]


@dataclass(frozen=True)
class SubmittedTask:
    """A task in the queue: the folder of its array, the scheduler, the array's job number, the index from 1."""

    folder: Path
    scheduler: str
    job: str
    index: int
    task: Task

    @property
    def number(self) -> str:
        """The name of the task in messages and logs."""
        return f"{self.job}_{self.index}"

    @property
    def log(self) -> Path:
        """The log: the command's standard output and error."""
        return (self.task.logs or self.folder) / f"{self.scheduler}-{self.number}.log"

    @property
    def scheduler_output(self) -> Path:
        """The scheduler's output for the task."""
        return self.folder / f"{self.job}.{self.index}.out"

    @property
    def result(self) -> Path:
        """The task's exit status, once it has ended."""
        return self.folder / RESULTS / f"{self.index}.json"


def write_array(folder: Path, scheduler: str, nodes: int, requeue: bool, tasks: Sequence[Task]) -> None:
    """Write ``tasks.json``; the tasks run in the current folder."""
    content = {
        "scheduler": scheduler,
        "cwd": os.getcwd(),
        "nodes": nodes,
        "requeue": requeue,
        "tasks": [
            {
                "title": task.title,
                "command": task.command,
                "logs": str(task.logs or folder),
                "saves": task.saves and str(task.saves),
            }
            for task in tasks
        ],
    }
    write_text(folder / TASKS, json.dumps(content, indent=1))  # ASCII, since file names need not be UTF-8


def read_array(folder: Path) -> JobArray:
    """Read ``tasks.json``; arrays of an earlier version, which may still be queued, lack some entries."""
    content = read_json(folder / TASKS)
    tasks = [
        Task(
            task["title"],
            tuple(task["command"]),
            Path(task["logs"]),
            Path(task["saves"]) if task.get("saves") else None,
        )
        for task in content["tasks"]
    ]
    return JobArray(content["scheduler"], content["cwd"], content["nodes"], content.get("requeue", False), tasks)


def file_version(path: Path | None) -> tuple[int, int] | None:
    """A value that changes whenever the file is rewritten; None if there is no file."""
    if path is None or not path.exists():
        return None
    status = path.stat()
    return status.st_ino, status.st_mtime_ns
