"""Stages as job arrays of Slurm or Grid Engine: submit missing tasks, wait for them, report failures.

A stage that can be split gives a list of tasks, each a command line. They become one array, or several if the cluster
limits the length of arrays. ``run_task`` runs each task on its node and writes its exit status to a file.

Beyond Kaldi's queue.pl: a second start waits for jobs that are already queued, Ctrl-C cancels them, warned
trainings save (and requeue, if asked to), a task may span nodes, and commands do not go through a shell.
Not submitit: it pickles Python functions, while these tasks are command lines, and it does not support Grid Engine.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from speecheq.cluster.job_files import (
    RESULTS,
    SCRIPT,
    SUBMITTED,
    SubmittedTask,
    Task,
    file_version,
    read_array,
    write_array,
)
from speecheq.cluster.job_options import Settings
from speecheq.cluster.schedulers import ENDED, ENDS, RUNNING, SCHEDULERS, WAITING, State, States, as_ranges
from speecheq.common.digests import digest
from speecheq.common.errors import InputError
from speecheq.common.files import locked_folder, read_json, remove_leftovers, write_json, write_text
from speecheq.common.log import log, one_line
from speecheq.common.progress import Progress
from speecheq.common.signals import sigterm_ends, stopping_put_off
from speecheq.common.stages import NOT_DONE

# Seconds after which a node's new file is visible on a network file system (acdirmax of NFS).
LOST_AFTER = 60.0
# Shortest and longest time between two polls of the queue in seconds; it grows with the jobs' running time.
SHORTEST_WAIT, LONGEST_WAIT = 0.3, 10.0
# Lines shown of a failed task's log.
LAST_LINES = 12
# Set by a recipe to its process number: if that process is gone, nobody waits for the jobs any more.
RECIPE = "SPEECHEQ_RECIPE_PID"


def run(name: str, tasks: Sequence[Task], settings: Settings) -> None:
    """Run the ``tasks`` of the stage ``name`` as job arrays; wait until they have ended and their files are visible.

    Tasks that an earlier start left in the queue are not submitted again. If tasks need several arrays and ``at_once``
    is set, each array waits for the one before.

    Raises:
        InputError: the scheduler is missing or rejects the jobs; tasks failed (the end of their logs is shown); or
            their files are not visible here.
        SystemExit: with NOT_DONE for ``dry_run``, after printing what would be submitted; or after a SIGTERM.
        KeyboardInterrupt: after Ctrl-C. The tasks are then cancelled, as after SIGTERM, unless ``keep_jobs`` is set.
    """
    if not tasks:
        return
    array = _Array(name, settings)
    settings.jobs_folder.mkdir(parents=True, exist_ok=True)
    before = {path: file_version(path) for task in tasks for path in task.makes}
    with sigterm_ends():
        try:
            with locked_folder(settings.jobs_folder):
                earlier = array.in_queue(tasks)
                if earlier:
                    log.info("%s: waiting for %d jobs that an earlier start left in the queue", name, len(earlier))
                queued = {submitted.task.command for submitted in earlier}
                new = [task for task in tasks if task.command not in queued]
                if settings.dry_run:
                    array.show(new)
                    raise SystemExit(NOT_DONE)  # what later stages would submit depends on this one
                array.left += earlier
                array.submit(new)
            array.wait()
        except (KeyboardInterrupt, SystemExit):
            array.stop(array.left)
            raise
        _wait_for_files(name, before)


def _wait_for_files(name: str, before: Mapping[Path, tuple[int, int] | None]) -> None:
    """Wait until this machine sees new versions of the files, whose old versions are ``before``.

    A network file system may cache old versions for LOST_AFTER seconds. Raises InputError if a file is missing even
    then.
    """
    end, announced = time.monotonic() + LOST_AFTER, False
    while any(file_version(path) in (None, version) for path, version in before.items()):
        if time.monotonic() > end:
            missing = [path for path in before if not path.exists()]
            if missing:
                raise InputError(
                    f"{name}: its jobs succeeded, but {missing[0]}, which they wrote, is not visible on this machine; "
                    "use folders that all machines share."
                )
            return  # another process may have written them before ``before`` was taken
        if not announced:
            log.info("%s: its jobs have ended; waiting for their files to appear on this machine", name)
        announced = True
        time.sleep(1.0)


class _Array:
    """A stage's array, or arrays, on a scheduler. ``left``: the tasks that have not ended."""

    def __init__(self, name: str, settings: Settings):
        self.name, self.settings, self.scheduler = name, settings, SCHEDULERS[settings.cmd]
        self.left: list[SubmittedTask] = []
        self.no_answer = False

    def _call(self, command: Sequence[str], folder: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a program of the scheduler; raises InputError if it is not installed."""
        try:
            # in a session of its own: Ctrl-C must not end it
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
        """The user's tasks in the queue; None if the scheduler does not answer at the moment."""
        done = self._call(self.scheduler.queue)
        if done.returncode and not self.no_answer:
            log.warning("%s does not answer (%s); trying again", self.scheduler.queue[0], _last_line(done.stderr))
        self.no_answer = bool(done.returncode)
        return None if self.no_answer else self.scheduler.read_queue(done.stdout)

    def in_queue(self, tasks: Iterable[Task]) -> list[SubmittedTask]:
        """Those of ``tasks`` that are waiting or running; removes the notes of arrays that have ended."""
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
                f"{self.scheduler.queue[0]} does not show whether the jobs of an earlier start still run; try again "
                f"later, or, if they do not run any more, remove {notes[0]}."
            )
        commands = {task.command for task in tasks}
        found = []
        for note in notes:
            queued = [
                submitted
                for submitted in self._submitted(note.parent, read_json(note)["job"])
                if states.get((submitted.job, submitted.index), State(ENDED, "")).phase != ENDED
            ]
            found += [submitted for submitted in queued if submitted.task.command in commands]
            if not queued:
                note.unlink()
        return found

    def _submitted(self, folder: Path, job: str) -> list[SubmittedTask]:
        tasks = read_array(folder).tasks
        return [SubmittedTask(folder, self.settings.cmd, job, index, task) for index, task in enumerate(tasks, 1)]

    def _folder(self, tasks: Sequence[Task]) -> Path:
        return self.settings.jobs_folder / f"{self.name}-{digest([(task.title, task.command) for task in tasks])}"

    def _split(self, tasks: Sequence[Task]) -> list[Sequence[Task]]:
        """The tasks in lists no longer than the cluster's limit for arrays."""
        if not tasks:
            return []
        done = self._call(self.scheduler.limits) if shutil.which(self.scheduler.limits[0]) else None
        # without a known limit, the submitting program checks
        longest = self.scheduler.read_longest(done.stdout) if done and done.returncode == 0 else None
        if longest == 0:
            raise InputError(
                f"--cmd {self.settings.cmd}: this cluster does not allow job arrays, according to "
                f"`{shlex.join(self.scheduler.limits)}`; ask for them to be allowed, or use --cmd local."
            )
        longest = longest or len(tasks)
        return [tasks[first : first + longest] for first in range(0, len(tasks), longest)]

    def show(self, tasks: Sequence[Task]) -> None:
        """Print what ``submit`` would do."""
        after = ""
        for part in self._split(tasks):
            folder = self._folder(part)
            print("cd", shlex.quote(str(folder)))
            print(shlex.join(self.settings.command(self.name, len(part), folder, after)))
            for index, task in enumerate(part, 1):
                print(f"# {index}: {one_line(shlex.join(task.command))}")  # a shell comment ends with its line
            after = self.settings.at_once and "JOB"  # the number that the line above prints when it is run

    def submit(self, tasks: Sequence[Task]) -> None:
        """Submit arrays of ``tasks``. Raises InputError if the scheduler refuses one; the others are then stopped."""
        earlier, after = len(self.left), ""
        for part in self._split(tasks):
            try:
                with stopping_put_off():  # a submitted array must be known, to be cancelled
                    self.left += self._submit(part, after)
            except InputError:
                submitted = self.left[earlier:]
                del self.left[earlier:]
                self.stop(submitted)
                raise
            after = self.settings.at_once and self.left[-1].job

    def _submit(self, tasks: Sequence[Task], after: str) -> list[SubmittedTask]:
        folder = self._folder(tasks)
        command = self.settings.command(self.name, len(tasks), folder, after)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / RESULTS, ignore_errors=True)  # results of an earlier submission
        (folder / RESULTS).mkdir(exist_ok=True)  # made here: on NFS a new file is visible sooner than a new folder
        remove_leftovers(folder)
        write_text(folder / "job.sh", SCRIPT)
        write_array(folder, self.settings.cmd, self.settings.nodes, self.settings.requeue, tasks)
        done = self._call(command, folder)
        job = re.match(r"\d+", done.stdout)
        if done.returncode or not job:
            raise InputError(f"{self.name}: {command[0]} rejected its {len(tasks)} jobs ({_last_line(done.stderr)}).")
        write_json(folder / SUBMITTED, {"scheduler": self.settings.cmd, "job": job[0]})
        log.info("%s: %d jobs submitted to %s as the array %s", self.name, len(tasks), self.settings.cmd, job[0])
        return self._submitted(folder, job[0])

    def wait(self) -> None:
        """Wait until all tasks in ``left`` have ended; raises InputError if some failed."""
        waited_for, failed = list(self.left), []
        with Progress(f"{self.name} on {self.settings.cmd}", len(waited_for), "jobs") as shown:
            for submitted, why in self._ends(self.left, shown):
                if why:
                    failed.append(f"{submitted.number} ({submitted.task.title}: {why})")
                    _log_failure(submitted, why)
        for folder, number in Counter(submitted.folder for submitted in waited_for).items():
            if number == len(read_array(folder).tasks):  # else other tasks of the array may still run
                (folder / SUBMITTED).unlink(missing_ok=True)
        for submitted in waited_for:
            output = submitted.scheduler_output
            if output.is_file() and not output.stat().st_size:
                output.unlink()
        if failed:
            raise InputError(
                f"{self.name}: {len(failed)} of {len(waited_for)} jobs failed: {'; '.join(failed)}. Run the same "
                "command again to submit the missing ones."
            )

    def _ends(
        self, left: list[SubmittedTask], shown: Progress, cancelled: bool = False
    ) -> Iterator[tuple[SubmittedTask, str]]:
        """Yield each task as it ends, with the reason if it failed, else ""; it is removed from ``left``.

        Waits LOST_AFTER seconds for the result of a task that is gone from the queue, unless ``cancelled``.
        """
        lost_after = 0.0 if cancelled else LOST_AFTER
        started, failed = time.monotonic(), 0
        gone: dict[SubmittedTask, float] = {}  # since when a task is missing from the queue
        while left:
            if not cancelled and os.environ.get(RECIPE, str(os.getppid())) != str(os.getppid()):
                sys.exit(128 + signal.SIGTERM)  # a SIGTERM to a shell does not reach its children
            answer = self._states()
            states = answer or {}
            now = time.monotonic()
            phases: Counter[str] = Counter()
            reasons: set[str] = set()
            for submitted in [] if answer is None else list(left):
                state = states.get((submitted.job, submitted.index))
                if state is not None and state.phase != ENDED:
                    phases[state.phase] += 1
                    if state.phase == WAITING:
                        reasons.add(state.word)
                    continue
                why = _failure(submitted, state)
                if why is None and now - gone.setdefault(submitted, now) < lost_after:
                    phases[RUNNING] += 1
                    continue
                left.remove(submitted)
                why = "ended without a result: it was killed, or its node is lost" if why is None else why
                phases[ENDED] += 1
                failed += bool(why)
                yield submitted, why
            because = f" ({', '.join(sorted(reasons))})" if reasons else ""
            shown.update(
                phases[ENDED], f"{phases[WAITING]} waiting{because}, {phases[RUNNING]} running, {failed} failed"
            )
            if left:
                time.sleep(min(max((now - started) / 20, SHORTEST_WAIT), LONGEST_WAIT))

    def stop(self, tasks: Sequence[SubmittedTask]) -> None:
        """Cancel the tasks, unless ``keep_jobs`` is set, and log how to continue."""
        if not tasks:
            return
        if self.settings.keep_jobs:
            log.warning(
                "%s: %d jobs stay in the queue of %s; run the same command to wait for them again, %s to cancel them",
                self.name,
                len(tasks),
                self.settings.cmd,
                self.scheduler.cancel[0],
            )
            return
        by_job: dict[str, list[int]] = defaultdict(list)
        for submitted in tasks:
            by_job[submitted.job].append(submitted.index)
        with stopping_put_off():
            for job, indices in by_job.items():
                values = {"job": job, "indices": as_ranges(indices)}
                done = self._call([part.format(**values) for part in self.scheduler.cancel])
                if done.returncode:
                    log.warning("%s", _last_line(done.stderr))
        log.warning(
            "%s: its %d jobs are cancelled; waiting until they have saved (press again to stop waiting); run the "
            "same command again to continue",
            self.name,
            len(tasks),
        )
        with Progress(f"{self.name}: ending", len(tasks), "jobs") as shown:
            for _ in self._ends(list(tasks), shown, cancelled=True):
                pass


def _failure(submitted: SubmittedTask, state: State | None) -> str | None:
    """Why a task that neither waits nor runs failed; "" if it succeeded; None if that is not known yet."""
    found = read_json(submitted.result) if submitted.result.is_file() else {}
    status = found["status"] if found.get("job") == submitted.job else None
    if status == 0:
        return ""
    if state is not None and state.word != "COMPLETED":
        if state.word in ENDS:
            return ENDS[state.word]
        if status is None:
            return f"ended in the state {state.word}"
    if status is None:
        return None
    if status == 128 + signal.SIGTERM:
        return "was asked to stop (SIGTERM), as before the end of its time limit"
    if status == 128 + signal.SIGKILL:
        return "was killed (SIGKILL), perhaps for lack of memory"
    return f"exit status {status}"


def _log_failure(submitted: SubmittedTask, why: str) -> None:
    """Log the last lines of a task's log and of the scheduler's output."""
    for path in (submitted.log, submitted.scheduler_output):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        if lines:
            log.error("job %s (%s) %s; the end of %s:", submitted.number, submitted.task.title, why, path)
            for line in lines[-LAST_LINES:]:
                log.error("    %s", line)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1]
