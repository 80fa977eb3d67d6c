"""Stages as job arrays of Slurm or Grid Engine: submit what is missing, wait for it, report what failed.

A stage that can be split gives a list of tasks, each a command line. They become one array, or several where the
cluster takes none so long. ``run_task`` runs each on its node and leaves its exit status as a file.

Beyond Kaldi's queue.pl: a second start waits for jobs that are in the queue already, Ctrl-C cancels them, warned jobs
save and go back into the queue, a task may span nodes, and no word of a command goes through a shell.
Not submitit: it pickles Python functions, where these tasks are command lines, and it knows no Grid Engine.
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

# Where files are shared over a network, a node's new file may be seen so many seconds later (acdirmax of NFS).
LOST_AFTER = 60.0
# Seconds between two looks at the queue; they grow with the time that the jobs have taken so far.
SHORTEST_WAIT, LONGEST_WAIT = 0.3, 10.0
# Lines of a failed task's log that are shown.
LAST_LINES = 12
# Set by a recipe to its process number: once that process is gone, nobody waits for the jobs any more.
RECIPE = "SPEECHEQ_RECIPE_PID"


def run(name: str, tasks: Sequence[Task], settings: Settings) -> None:
    """Run the ``tasks`` of the stage ``name`` as job arrays; wait until all have ended and their files are seen here.

    Tasks that an earlier start left in the queue are waited for, not submitted again. Where tasks need several arrays
    and ``at_once`` is set, each array waits for the one before.

    Raises:
        InputError: the scheduler is not there or refuses; tasks failed, after the end of each one's log was shown; or
            what they made cannot be seen from here.
        SystemExit: with NOT_DONE for ``dry_run``, after what would be submitted was printed; or after a SIGTERM.
        KeyboardInterrupt: after this and SIGTERM the tasks are cancelled, unless ``keep_jobs`` is set.
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
                    log.info(
                        "%s: %d jobs are in the queue from an earlier start, they are waited for", name, len(earlier)
                    )
                queued = {submitted.task.command for submitted in earlier}
                new = [task for task in tasks if task.command not in queued]
                if settings.dry_run:
                    array.show(new)
                    raise SystemExit(NOT_DONE)  # what later stages would submit depends on this
                array.left += earlier
                array.submit(new)
            array.wait()
        except (KeyboardInterrupt, SystemExit):
            array.stop(array.left)
            raise
        _wait_for_files(name, before)


def _wait_for_files(name: str, before: Mapping[Path, tuple[int, int] | None]) -> None:
    """Wait until this machine sees the files anew, whose versions were ``before``.

    Where files are shared over a network, a machine may remember for LOST_AFTER seconds what there was when it looked.
    InputError where a file is not there even then.
    """
    end, announced = time.monotonic() + LOST_AFTER, False
    while any(file_version(path) in (None, version) for path, version in before.items()):
        if time.monotonic() > end:
            missing = [path for path in before if not path.exists()]
            if missing:
                raise InputError(
                    f"{name}: its jobs ended well, but {missing[0]}, which they wrote, is not there for this machine; "
                    "name folders that all machines share."
                )
            return  # another process may have made them before they were looked at
        if not announced:
            log.info("%s: its jobs have ended; waiting for this machine to see what they wrote", name)
        announced = True
        time.sleep(1.0)


class _Array:
    """A stage's array, or arrays, on a scheduler. ``left``: the tasks that are waited for and have not ended."""

    def __init__(self, name: str, settings: Settings):
        self.name, self.settings, self.scheduler = name, settings, SCHEDULERS[settings.cmd]
        self.left: list[SubmittedTask] = []
        self.no_answer = False

    def _call(self, command: Sequence[str], folder: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a program of the scheduler; InputError where it is not there."""
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
        """The user's tasks in the queue; None where the scheduler does not answer at the moment."""
        done = self._call(self.scheduler.queue)
        if done.returncode and not self.no_answer:
            log.warning("%s does not answer (%s); it is asked again", self.scheduler.queue[0], _last_line(done.stderr))
        self.no_answer = bool(done.returncode)
        return None if self.no_answer else self.scheduler.read_queue(done.stdout)

    def in_queue(self, tasks: Iterable[Task]) -> list[SubmittedTask]:
        """Those of the ``tasks`` that wait or run; notes of arrays that have ended are removed."""
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
                f"later, or, if you know that they do not, remove {notes[0]}."
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
        """The tasks in lists that are no longer than an array of the cluster may be."""
        if not tasks:
            return []
        done = self._call(self.scheduler.limits) if shutil.which(self.scheduler.limits[0]) else None
        # where the cluster names no limit, the submitting program will
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
        for part in self._split(tasks):
            folder = self._folder(part)
            print("cd", shlex.quote(str(folder)))
            print(shlex.join(self.settings.command(self.name, len(part), folder, after)))
            for index, task in enumerate(part, 1):
                print(f"# {index}: {one_line(shlex.join(task.command))}")  # a comment of the shell ends with its line
            after = self.settings.at_once and "JOB"  # the number that the line above prints when it is run

    def submit(self, tasks: Sequence[Task]) -> None:
        """Submit arrays of ``tasks``. InputError where the scheduler refuses one; the others are then stopped."""
        earlier, after = len(self.left), ""
        for part in self._split(tasks):
            try:
                with stopping_put_off():  # what is submitted is known, so that it can be cancelled
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
        shutil.rmtree(folder / RESULTS, ignore_errors=True)  # of the same tasks, when they were submitted before
        (folder / RESULTS).mkdir(exist_ok=True)  # here, for a job's new file in it is seen sooner than a new folder
        remove_leftovers(folder)
        write_text(folder / "job.sh", SCRIPT)
        write_array(folder, self.settings.cmd, self.settings.nodes, self.settings.requeue, tasks)
        done = self._call(command, folder)
        job = re.match(r"\d+", done.stdout)
        if done.returncode or not job:
            raise InputError(f"{self.name}: {command[0]} refused its {len(tasks)} jobs ({_last_line(done.stderr)}).")
        write_json(folder / SUBMITTED, {"scheduler": self.settings.cmd, "job": job[0]})
        log.info("%s: %d jobs submitted to %s as the array %s", self.name, len(tasks), self.settings.cmd, job[0])
        return self._submitted(folder, job[0])

    def wait(self) -> None:
        """Wait until all that are ``left`` have ended; InputError where some failed."""
        waited_for, failed = list(self.left), []
        with Progress(f"{self.name} on {self.settings.cmd}", len(waited_for), "jobs") as shown:
            for submitted, why in self._ends(self.left, shown):
                if why:
                    failed.append(f"{submitted.number} ({submitted.task.title}: {why})")
                    _log_failure(submitted, why)
        for folder, number in Counter(submitted.folder for submitted in waited_for).items():
            if number == len(read_array(folder).tasks):  # else others of the array may still run
                (folder / SUBMITTED).unlink(missing_ok=True)
        for submitted in waited_for:
            output = submitted.scheduler_output
            if output.is_file() and not output.stat().st_size:
                output.unlink()
        if failed:
            raise InputError(
                f"{self.name}: {len(failed)} of {len(waited_for)} jobs failed: {'; '.join(failed)}. The same command "
                "submits again what is missing."
            )

    def _ends(
        self, left: list[SubmittedTask], shown: Progress, cancelled: bool = False
    ) -> Iterator[tuple[SubmittedTask, str]]:
        """Each task as it ends, taken out of ``left``, with the reason if it failed, else "".

        The result of a task that the scheduler has forgotten is waited for LOST_AFTER seconds, unless ``cancelled``.
        """
        lost_after = 0.0 if cancelled else LOST_AFTER
        started, failed = time.monotonic(), 0
        gone: dict[SubmittedTask, float] = {}  # since when the scheduler knows nothing of a task
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
                why = "ended without a word: it was killed, or its node is lost" if why is None else why
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
        """Cancel the tasks, unless they are to be kept, and say how to go on."""
        if not tasks:
            return
        if self.settings.keep_jobs:
            log.warning(
                "%s: %d jobs are left to %s; the same command waits for them again, %s cancels them",
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
            "%s: its %d jobs are cancelled, and waited for until they have saved (once more: not to wait); the "
            "same command goes on with what is missing",
            self.name,
            len(tasks),
        )
        with Progress(f"{self.name}: ending", len(tasks), "jobs") as shown:
            for _ in self._ends(list(tasks), shown, cancelled=True):
                pass


def _failure(submitted: SubmittedTask, state: State | None) -> str | None:
    """Why a task failed that neither waits nor runs; "" if it did not; None where nothing says so yet."""
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
        return "was killed (SIGKILL), perhaps for want of memory"
    return f"exit status {status}"


def _log_failure(submitted: SubmittedTask, why: str) -> None:
    """Log the last lines of a task's log, and of what the scheduler wrote beside it."""
    for path in (submitted.log, submitted.scheduler_output):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        if lines:
            log.error("job %s (%s) %s; the end of %s:", submitted.number, submitted.task.title, why, path)
            for line in lines[-LAST_LINES:]:
                log.error("    %s", line)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["without a word"])[-1]
