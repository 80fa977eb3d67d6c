"""The Mandarin recipe on a real Slurm: its stages as arrays, jobs that fail, are killed, cancelled or run out of time.

Where Slurm is not installed or does not start the module is skipped; with SPEECHEQ_CI=1 in the environment that is a
failure.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from slurm_cluster import LIMIT, Cluster, missing_programs, wait_until

from speecheq.cli.job_parts import speecheq_command
from speecheq.cluster import job_arrays
from speecheq.cluster.job_files import SUBMITTED, Task
from speecheq.cluster.job_options import Settings
from speecheq.common.files import locked_folder
from speecheq.common.stages import NOT_DONE, ONLY_ASK

EXPERIMENT = "exp/nano-speecheq/casia.random10"
# no name here may ever be read by a shell
ODD = 'it\'s "a" $(touch harm) `touch harm` %A;\n&'


@pytest.fixture(scope="module")
def cluster():
    give_up = pytest.fail if os.environ.get("SPEECHEQ_CI") else pytest.skip
    missing = missing_programs()
    if missing:
        give_up(f"needs Slurm (Debian: slurmctld slurmd slurm-client munge): no {', '.join(missing)}")
    with ExitStack() as opened:
        try:
            cluster = opened.enter_context(Cluster())
        except AssertionError as error:
            give_up(f"Slurm does not start: {error}")
        patch = opened.enter_context(pytest.MonkeyPatch.context())
        for name in ("PATH", "SLURM_CONF"):
            patch.setenv(name, cluster.environment[name])
        yield cluster


@pytest.fixture(scope="module")
def beside(cluster, tmp_path_factory):
    """``beside(name, script, *options)``: who waits, while other tests run, for a job with a limit of two minutes.

    Slurm may end a job of one minute as soon as it runs: it warns a minute before the limit, or 30 s sooner.
    """
    with ExitStack() as started:

        def start(name, script, *options):
            folder = tmp_path_factory.mktemp(name)
            (folder / "job.sh").write_text(f'[ -z "${ONLY_ASK}" ] || exit {NOT_DONE}\ncd "$1"\n{script}')
            command = speecheq_command(
                "jobs", "--name", name, "--cmd", "slurm", "--time", "2", "--jobs-folder", str(folder / "jobs"), *options
            )
            waiting = started.enter_context(
                subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
                )
            )
            waiting.stdin.write("\0".join(["a job", "", "3", "sh", str(folder / "job.sh"), str(folder), ""]))
            waiting.stdin.close()
            waiting.stdin = None  # communicate would write to it
            started.callback(waiting.terminate)
            return waiting

        yield start


@pytest.fixture(scope="module")
def out_of_time(beside):
    """A job that heeds no warning and runs into its limit."""
    return beside("stubborn", 'trap "" TERM\necho at work\nwhile :; do sleep 1; done\n')


@pytest.fixture(scope="module")
def back_in_the_queue(beside):
    """A job that ends when it is warned, goes back into the queue, where Slurm lets it wait, and then goes on."""
    return beside(
        "patient", '[ ! -e begun ] || exec mv begun "gone on"\n>begun\nexec sleep 1000\n', "--requeue", "true"
    )


@pytest.fixture(scope="module")
def mandarin(recipe):
    return recipe("mandarin")


@pytest.fixture(scope="module")
def corpora(nano):
    folder = nano("casia", "aishell")
    return ["--casia", folder / "casia", "--aishell", folder / "aishell", "--partial", "true"]


ON_SLURM = ["--cmd", "slurm", "--gpu", "none"]
TWO_FOLDS = ["--folds", "1 2"]


@pytest.fixture(scope="module")
def walked(cluster, mandarin, corpora, tmp_path_factory):
    """Stages 1 to 5 on Slurm, in a folder of an odd name: that folder, and what was told."""
    folder = tmp_path_factory.mktemp("slurm") / ODD
    done = mandarin.run(*corpora, *mandarin.where(folder), *TWO_FOLDS, "--stage", 1, *ON_SLURM)
    return folder, done


@pytest.fixture
def training(mandarin, walked, tmp_path):
    """``training(name, *options)``: the arguments of a stage 4 in an experiment folder of its own, and that folder."""
    folder, _ = walked

    def arguments(*options):
        where = mandarin.where(tmp_path)  # the later option counts
        return [
            *map(str, where),
            "--data",
            str(folder / "data"),
            *TWO_FOLDS,
            "--stage",
            "4",
            "--stop-stage",
            "4",
            *ON_SLURM,
            "--set",
            "run.checkpoint_steps=1",
            *map(str, options),
        ]

    return arguments, tmp_path / EXPERIMENT


class Started:
    """A recipe that was started, and is a process group of its own."""

    def __init__(self, recipe, arguments):
        environment = {**os.environ, "SPEECHEQ_VENV": sys.prefix}
        # SIGINT is ignored by what a script starts in the background, which these tests may be
        self.process = subprocess.Popen(
            [str(recipe.folder / "run.sh"), *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.told = []
        self.reading = threading.Thread(target=lambda: self.told.extend(self.process.stderr))
        self.reading.start()

    def end(self):
        """(exit status, what was told); the process that waits for jobs may outlive the shell."""
        self.reading.join(LIMIT)
        told = "".join(self.told)
        if self.reading.is_alive():
            os.killpg(self.process.pid, signal.SIGKILL)
            pytest.fail(f"waited {LIMIT:.0f} s in vain for the recipe to end, which said: {told}")
        return self.process.wait(), told


def submitted(told):
    """(stage, number of jobs) of each array."""
    return [(name, int(number)) for name, number in re.findall(r"INFO (\w+): (\d+) jobs submitted to slurm", told)]


def test_a_recipe_on_slurm_equals_a_local_one(
    out_of_time, back_in_the_queue, recipe, warm_venv, corpora, walked, tmp_path
):
    folder, done = walked
    assert submitted(done.stderr) == [
        ("manifests", 2),
        ("features", 2),
        ("unify", 2),
        ("phonemes", 1),
        ("train", 2),
        ("score", 2),
    ]
    mandarin = recipe("mandarin", warm_venv)
    mandarin.run(*corpora, *mandarin.where(tmp_path), *TWO_FOLDS, "--stage", 1, "--train-jobs", 2)
    for name in [f"fold{fold}/seed1/{table}" for fold in (1, 2) for table in ("scores.tsv", "phones.tsv")]:
        assert (folder / EXPERIMENT / name).read_text() == (tmp_path / EXPERIMENT / name).read_text()
    ours, other = (json.loads((path / EXPERIMENT / "metrics.json").read_text()) for path in (folder, tmp_path))
    assert {key: value for key, value in ours.items() if key != "run"} == {
        key: value for key, value in other.items() if key != "run"
    }
    for fold in (1, 2):
        logs = [path.read_text() for path in (folder / EXPERIMENT / f"fold{fold}/seed1").glob(f"slurm-*_{fold}.log")]
        assert sorted(len(re.findall(r"stage 4 \(train\)", log)) for log in logs) == [0, 1]
    assert not list(Path(mandarin.folder).glob("harm")) and not list(folder.parent.rglob("harm"))
    assert not list(folder.glob(f"exp/jobs/*/{SUBMITTED}"))


def test_a_second_start_submits_nothing(mandarin, corpora, walked):
    folder, _ = walked
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("stage.json")}
    told = mandarin.run(*corpora, *mandarin.where(folder), *TWO_FOLDS, "--stage", 1, *ON_SLURM).stderr
    assert submitted(told) == []
    assert stamps == {path: path.stat().st_mtime_ns for path in folder.rglob("stage.json")}
    assert told.count("already done with the same arguments, skipped") == len(stamps)


def test_a_failed_job_is_named_with_its_last_lines_and_alone_submitted_again(mandarin, training):
    arguments, folder = training
    (folder / "fold2/seed1").mkdir(parents=True)
    with locked_folder(folder / "fold2/seed1"):  # as by another training
        done = mandarin.run(*arguments(), check=False)
    assert done.returncode == 1 and submitted(done.stderr) == [("train", 2)]
    failure = r"job \d+_2 \(speecheq, fold 2, seed 1\) exit status 1; the end of .*fold2/seed1/slurm-\d+_2.log:\n"
    assert re.search(failure, done.stderr)
    assert "is writing there; wait until it has ended" in done.stderr
    assert "train: 1 of 2 jobs failed" in done.stderr.splitlines()[-1]
    assert (folder / "fold1/seed1/stage.json").is_file()
    assert submitted(mandarin.run(*arguments()).stderr) == [("train", 1)]
    assert (folder / "fold2/seed1/stage.json").is_file()


def trainings(folder):
    """The processes that train in a folder, by their open log."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            opened = {os.readlink(path) for path in (process / "fd").iterdir()} if process.name.isdigit() else set()
        except OSError:  # it has ended, or is not ours
            continue
        if str(folder / "train.log") in opened:
            found.append(int(process.name))
    return found


def was_sent(process, number):
    """Whether a process that was stopped has yet to heed a signal, or has gone on and ended (Slurm may wake it)."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return True
    (pending,) = re.findall(r"^ShdPnd:\s*(\w+)", status, re.M)
    return bool(int(pending, 16) & 1 << number - 1)


def test_a_killed_job_goes_on_from_its_last_step(mandarin, training):
    arguments, folder = training
    long = arguments("--set", "optim.max_steps=100")
    started = Started(mandarin, long)
    wait_until((folder / "fold1/seed1/last.pt").exists, "a first step")
    for process in trainings(folder / "fold1/seed1"):
        os.kill(process, signal.SIGKILL)
    status, told = started.end()
    assert status == 1 and "fold 1, seed 1: was killed (SIGKILL)" in told and "1 of 2 jobs failed" in told
    assert submitted(mandarin.run(*long).stderr) == [("train", 1)]
    assert "resuming after step" in (folder / "fold1/seed1/train.log").read_text()
    assert json.loads((folder / "fold1/seed1/run.json").read_text())["steps"] == 100


def running_array(cluster, started):
    """The number of the array that a recipe waits for."""
    arrays = set(re.findall(r"submitted to slurm as the array (\d+)", "".join(started.told)))
    running = {job.split("_")[0] for job, state in cluster.queue().items() if state == "RUNNING"}
    (array,) = arrays & running  # others run beside it
    return array


def goes_on(log, times):
    """Whether a training has gone on so often, and is at work again."""
    text = log.read_text()
    return text.count("resuming after step") == times and "; dev " in text.rpartition("resuming after step")[2]


def test_time_limit_and_cancelled_array_save_and_go_on(cluster, mandarin, training):
    """A training is warned a minute before its limit, here soon after that was lowered to the next minute but one."""
    arguments, folder = training
    endless = arguments("--set", "optim.max_steps=1000000")
    logs = [folder / f"fold{fold}/seed1/train.log" for fold in (1, 2)]
    began = time.monotonic()
    started = Started(mandarin, [*endless, "--time", "10"])
    for log in logs:
        wait_until((log.parent / "last.pt").exists, f"a first step of {log.parent}")
    minutes = 2 + int(time.monotonic() - began) // 60
    cluster.ask("scontrol", "update", f"JobId={running_array(cluster, started)}", f"TimeLimit={minutes}")
    # they are stopped until they are warned: their steps would keep two cores busy for a minute
    processes = [process for log in logs for process in trainings(log.parent)]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    wait_until(lambda: all(was_sent(process, signal.SIGTERM) for process in processes), "the warning")
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)
    status, told = started.end()
    assert status == 1 and "2 of 2 jobs failed" in told
    assert told.count("asked to stop; step") == 2 and "was asked to stop (SIGTERM)" in told

    started = Started(mandarin, endless)  # with another time limit, it is the same training
    for log in logs:
        wait_until(lambda: goes_on(log, 1), f"{log} to go on")
    cluster.ask("scancel", running_array(cluster, started))
    status, told = started.end()
    assert status == 1 and told.splitlines()[-1].count("seed 1: was cancelled)") == 2, told
    assert all(log.read_text().count("asked to stop; step") == 2 for log in logs)

    started = Started(mandarin, endless)
    for log in logs:
        wait_until(lambda: goes_on(log, 2), f"{log} to go on")
    os.killpg(started.process.pid, signal.SIGINT)  # as Ctrl-C in a terminal
    status, told = started.end()
    assert status != 0 and "its 2 jobs are cancelled" in told
    assert all(log.read_text().count("asked to stop; step") == 3 for log in logs)


def pending(cluster):
    """The jobs of the closed partition."""
    return {job for job, state in cluster.queue("--partition=closed").items() if state == "PENDING"}


def test_the_end_of_the_waiting_recipe_cancels_its_jobs(cluster, mandarin, training):
    arguments, _ = training
    started = Started(mandarin, arguments("--partition", "closed"))
    waiting = wait_until(lambda: pending(cluster), "the jobs")
    assert len(waiting) == 2
    os.kill(started.process.pid, signal.SIGTERM)  # the shell alone
    status, told = started.end()
    assert status == -signal.SIGTERM and "its 2 jobs are cancelled" in told, told
    assert not waiting & pending(cluster)


def test_jobs_that_were_left_are_waited_for(cluster, mandarin, training):
    arguments, folder = training
    left = arguments("--partition", "closed", "--keep-jobs", "true")
    started = Started(mandarin, left)
    waiting = wait_until(lambda: pending(cluster), "the jobs")
    os.killpg(started.process.pid, signal.SIGINT)
    assert "2 jobs stay in the queue of slurm; run the same command to wait for them again" in started.end()[1]
    assert waiting == pending(cluster)
    shown = mandarin.run(*left, "--dry-run", "true")
    assert shown.stdout == "", "nothing to submit"
    started = Started(mandarin, left)
    wait_until(
        lambda: "waiting for 2 jobs that an earlier start left in the queue" in "".join(started.told),
        "the second start",
    )
    cluster.ask("scontrol", "update", "partition=closed", "state=up")
    status, told = started.end()
    cluster.ask("scontrol", "update", "partition=closed", "state=down")
    assert status == 0 and submitted(told) == [], told
    assert all((folder / f"fold{fold}/seed1/stage.json").is_file() for fold in (1, 2))


def test_a_dry_run_prints_the_command_and_submits_nothing(cluster, mandarin, training):
    arguments, folder = training
    asked = [
        "--gpu",
        "a100",
        "--gpus",
        2,
        "--nodes",
        2,
        "--memory",
        "8G",
        "--time",
        "1-0",
        "--account",
        "us",
        "--cpus",
        4,
        "--jobs-at-once",
        3,
        "--job-option=--qos=high",
    ]
    done = mandarin.run(*arguments("--dry-run", "true", *asked))
    cd, sbatch, _ = done.stdout.split("\n", 2)
    for flag in (
        "--array=1-2%3",
        "--gpus-per-node=a100:2",
        "--nodes=2",
        "--mem=8G",
        "--time=1-0",
        "--account=us",
        "--cpus-per-task=4",
        "--qos=high",
        "--signal=TERM@60",
    ):
        assert f" {flag} " in sbatch
    assert "/exp/jobs/train-" in cd and " --folds 2 --seeds 1\n" in done.stdout.split("\n# 2: ")[1]
    assert not folder.exists() and not list((folder.parents[1] / "jobs").glob("train-*"))


def test_more_jobs_than_an_array_may_have_become_several(cluster, tmp_path):
    """The cluster's arrays have at most 8; of the 11 jobs no more than 2 run at once, in whichever array they are."""
    (tmp_path / "count.sh").write_text(
        f'[ -z "${ONLY_ASK}" ] || exit {NOT_DONE}\ncd "$1"\ntouch "runs.$2"\nls runs.* | wc -l >"seen.$2"\n'
        'sleep 0.3\nrm "runs.$2"\n'
    )
    command = speecheq_command(
        "jobs", "--name", "many", "--cmd", "slurm", "--jobs-folder", str(tmp_path / "jobs"), "--jobs-at-once", "2"
    )
    words = [["sh", str(tmp_path / "count.sh"), str(tmp_path), str(number)] for number in range(11)]
    listed = "".join("\0".join([f"job {number}", "", str(len(each)), *each, ""]) for number, each in enumerate(words))
    done = subprocess.run(
        command,
        input=listed,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert done.returncode == 0 and submitted(done.stderr) == [("many", 8), ("many", 3)], done.stderr
    seen = [int((tmp_path / f"seen.{number}").read_text()) for number in range(11)]
    assert max(seen) <= 2 and min(seen) >= 1


def test_jobs_that_are_submitted_from_inside_an_allocation_ask_for_what_they_are_to(cluster, tmp_path, monkeypatch):
    """What the allocation asked for would go on into the job, and there srun refuses, or takes it for its own."""
    for name, value in {
        "JOB_ID": "1000",
        "MEM_PER_CPU": "50",
        "GPUS_PER_NODE": "1",
        "CPUS_PER_TASK": "2",
        "CPU_BIND": "map_cpu:63",
        "NNODES": "2",
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    task = Task(
        "a job",
        ("sh", "-c", 'echo "$SLURM_JOB_ID $SLURM_MEM_PER_NODE $SLURM_NNODES" >"$1"', "-", str(tmp_path / "of job")),
    )
    job_arrays.run("inside", [task], Settings("slurm", tmp_path / ODD, memory="100M"))
    job, *rest = (tmp_path / "of job").read_text().split()
    assert job != "1000" and rest == ["100", "1"]


def test_what_slurm_refuses_is_one_sentence(mandarin, training):
    arguments, _ = training
    refused = mandarin.refused(*arguments("--partition", "none"))
    assert "train: sbatch rejected its 2 jobs (sbatch: error: " in refused and "partition" in refused


def test_one_training_on_two_nodes(mandarin, training):
    arguments, folder = training
    told = mandarin.run(*arguments("--folds", "1", "--nodes", 2)).stderr
    assert submitted(told) == [("train", 1)]
    assert json.loads((folder / "fold1/seed1/run.json").read_text())["processes"] == 2


def test_a_job_that_heeds_no_warning_runs_out_of_time(out_of_time):
    _, told = out_of_time.communicate(timeout=LIMIT)
    assert out_of_time.returncode == 1 and "stubborn: 1 of 1 jobs failed" in told, told
    assert "(a job) ran out of its time limit (--time)" in told and "    at work" in told


def test_a_job_that_was_warned_goes_on_from_the_queue(back_in_the_queue):
    _, told = back_in_the_queue.communicate(timeout=LIMIT)
    assert back_in_the_queue.returncode == 0 and submitted(told) == [("patient", 1)], told
    folder = Path(back_in_the_queue.args[back_in_the_queue.args.index("--jobs-folder") + 1]).parent
    assert (folder / "gone on").is_file()
