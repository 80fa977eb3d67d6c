"""How a command's work becomes the tasks of a job array: the same command with narrower options, once per task."""

import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from speecheq.cli.options import Commands, Run, add_command
from speecheq.cluster import job_arrays
from speecheq.cluster.job_files import Task
from speecheq.cluster.job_options import LOCAL, Settings, add_options, without_options
from speecheq.cluster.schedulers import as_ranges
from speecheq.common.stages import NOT_DONE, ONLY_ASK, STAMP, Stage, planning

Item = TypeVar("Item", bound=Hashable)


class Part(NamedTuple):
    """What one task of an array does, its title, the options that narrow the command to it, the folder of its log."""

    work: Callable[[], Any]
    title: str
    options: list[str]
    logs: Path | None = None


def run_part(run: Run, work: Callable[[], Any]) -> Part:
    """``work`` as the task that does one run of a command."""
    options = ["--systems", run.system, "--folds", str(run.fold), "--seeds", str(run.seed)]
    return Part(work, f"{run.system}, fold {run.fold}, seed {run.seed}", options, run.folder)


def speecheq_command(*arguments: str) -> tuple[str, ...]:
    """The command line of ``speecheq`` with ``arguments`` in this environment."""
    return (sys.executable, "-m", "speecheq.cli", *arguments)


def task_with(
    options: Namespace, title: str, changed: Sequence[str], logs: Path | None = None, stages: Iterable[Stage] = ()
) -> Task:
    """The command that was given, run on this machine with some options changed, as a task that does ``stages``."""
    command = speecheq_command(*without_options(options.arguments), *changed)
    return Task(title, command, logs, makes=tuple(stage.folder / STAMP for stage in stages))


def missing_tasks(options: Namespace, parts: Iterable[Part]) -> list[Task]:
    """Tasks for those parts of a command that are not done."""
    tasks = []
    for part in parts:
        with planning() as missing:
            part.work()
        if missing:
            tasks.append(task_with(options, part.title, part.options, part.logs, missing))
    return tasks


def share_out(
    options: Namespace,
    stage: str,
    items: Iterable[Item],
    missing_parts: Callable[[Item], Sequence[int] | None],
    option_names: tuple[str, str],
) -> tuple[list[Item], int]:
    """With ``--cmd``, run the command as an array in which ``--nj`` jobs share the missing parts of each item.

    ``missing_parts`` returns the numbers of the missing parts, None for an item that is done. ``option_names`` are the
    options that name an item and its parts on the command line.

    Returns:
        The items that are left for this process, and the number of processes for each. With ``--cmd`` what is left is
        to join the parts.
    """
    if options.cmd == LOCAL:
        return list(items), options.nj
    missing = {item: numbers for item in items if (numbers := missing_parts(item)) is not None}
    item_option, parts_option = option_names
    tasks = []
    for item, numbers in missing.items():
        size = -(-len(numbers) // options.nj)
        for first in range(0, len(numbers), size or 1):
            share = as_ranges(numbers[first : first + size])
            changed = [item_option, str(item), parts_option, share, "--nj", options.cpus or "1"]
            tasks.append(task_with(options, f"{item}, {parts_option.lstrip('-')} {share}", changed))
    job_arrays.run(stage, tasks, Settings.from_options(options))
    return [] if options.dry_run else list(missing), 1


def listed_tasks(listed: bytes) -> list[Task]:
    """Tasks for those commands of a shell's list that are not done.

    Each command is a title, the file that it makes (or nothing), a number of words and these words, all ended by NUL.
    It is run with stages.ONLY_ASK to learn whether it is done; where it fails, SystemExit with its status.
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


def _run_listed(options: Namespace) -> None:
    job_arrays.run(options.name, listed_tasks(sys.stdin.buffer.read()), Settings.from_options(options))


def add_commands(commands: Commands) -> None:
    """Add ``speecheq jobs``."""
    jobs = add_command(commands, "jobs", _run_listed, "Run commands that standard input lists as jobs, those not done.")
    jobs.add_argument("--name", required=True, help="name of the stage, for messages and the array")
    add_options(jobs)
