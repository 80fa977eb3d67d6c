"""The command-line options for a scheduler, and the submit command that results from them."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from speecheq.cluster.schedulers import SCHEDULERS
from speecheq.common.command_line import OneLineParser, positive_whole, true_or_false
from speecheq.common.errors import InputError

LOCAL = "local"


@dataclass(frozen=True)
class Settings:
    """The scheduler and the resources of each task; empty: the scheduler's default. See ``add_options``."""

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
    gpus: int = 0  # per node
    nodes: int = 1  # per task

    @classmethod
    def from_options(cls, options: Namespace, gpus: int = 0, nodes: int = 1) -> "Settings":
        """The settings of a parsed command line; raises InputError if the scheduler has no flag for one of them."""
        given = {item.name: getattr(options, item.name) for item in fields(cls) if hasattr(options, item.name)}
        settings = cls(**{**given, "gpus": 0 if options.gpu == "none" else gpus, "nodes": nodes})
        for name in settings._flag_names():
            if name not in SCHEDULERS[settings.cmd].flags:
                raise InputError(f"--cmd {settings.cmd}: {name} is not available there, only with --cmd slurm.")
        return settings

    def _flag_names(self, after: str = "") -> list[str]:
        """The keys of Scheduler.flags that these settings need."""
        names = ["name", "output", "array_at_once" if self.at_once else "array"]
        names.append("requeue" if self.requeue else "no_requeue")
        names += [name for name in ("partition", "account", "time", "memory", "cpus") if getattr(self, name)]
        if self.gpus:
            names.append("gpus" if self.gpu == "any" else "gpus_of_kind")
        if self.nodes > 1:
            names.append("nodes")
        if after:
            names.append("after")
        return names

    def command(self, name: str, tasks: int, folder: Path, after: str = "") -> list[str]:
        """The command line that submits the array ``name`` of ``tasks`` tasks from its ``folder``.

        ``after``: the scheduler's number of a job whose end the array waits for. Raises InputError if the scheduler
        cannot write its output in ``folder``.
        """
        # Slurm replaces patterns that begin with %, and none if there is a backslash anywhere
        output_folder = str(folder.absolute()).replace("%", "%%")
        if self.cmd == "slurm" and "\\" in output_folder:
            raise InputError(
                f"{folder.absolute()}: Slurm cannot write its output to a folder with a backslash in its path; name "
                "another (--exp)."
            )
        values = {**asdict(self), "name": f"speecheq-{name}", "tasks": tasks, "folder": output_folder, "after": after}
        scheduler = SCHEDULERS[self.cmd]
        flags = [part.format(**values) for flag in self._flag_names(after) for part in scheduler.flags[flag]]
        job = ["job.sh", sys.executable, "-m", "speecheq.cluster.run_task", "."]
        return [*scheduler.submit, *flags, *self.job_option, *job]


def add_options(parser: ArgumentParser) -> None:
    """Add the options of commands that can submit jobs to a scheduler."""
    add = parser.add_argument_group("jobs of a scheduler").add_argument
    add(
        "--cmd",
        choices=(LOCAL, *SCHEDULERS),
        default=LOCAL,
        help="run on this machine (local, the default), or as jobs of Slurm (slurm) or Grid Engine (sge)",
    )
    add("--jobs-folder", type=Path, default=Path("exp/jobs"), help="keep the job arrays' files in this folder")
    add("--partition", default="", help="partition of Slurm, or queue of Grid Engine, to submit to")
    add("--account", default="", help="account of Slurm, or project of Grid Engine, to run under")
    add("--time", default="", help="time limit of each job, such as 10:00:00")
    add("--memory", default="", help="memory of each job, such as 8G")
    add("--cpus", default="", help="CPU cores of each job")
    add("--gpu", default="any", help="kind of GPU, by the cluster's name (a100), any, or none")
    add(
        "--jobs-at-once",
        dest="at_once",
        type=_number_or_nothing,
        default="",
        metavar="N",
        help="let at most N jobs of an array run at once (default: no limit)",
    )
    add(
        "--requeue",
        type=true_or_false,
        default=False,
        help="true: jobs that are preempted, or whose time is up, save and start again",
    )
    add(
        "--keep-jobs",
        type=true_or_false,
        default=False,
        help="true: Ctrl-C and SIGTERM leave the jobs in the queue, and the same command waits for them again",
    )
    add(
        "--job-option",
        action="append",
        default=[],
        metavar="FLAG",
        help="pass one more flag to sbatch or qsub, as in --job-option=--qos=high; may be given several times",
    )
    add("--dry-run", type=true_or_false, default=False, help="true: print what would be submitted, and submit nothing")


def _number_or_nothing(value: str) -> str:
    return str(positive_whole(value)) if value else ""


def without_options(arguments: Sequence[str]) -> list[str]:
    """A command's arguments without the options of ``add_options``."""
    parser = OneLineParser(add_help=False)
    add_options(parser)
    return parser.parse_known_args(list(arguments))[1]
