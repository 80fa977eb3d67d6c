"""Arrays of jobs without a cluster: command lines, lists of words, Grid Engine through stand-ins of its programs."""

import json
import os
import shlex
import signal
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speecheq.cluster import job_arrays
from speecheq.cluster.job_files import RESULTS, SUBMITTED, TASKS, Task, write_array
from speecheq.cluster.job_options import Settings, add_options, without_options
from speecheq.cluster.schedulers import GRID_ENGINE, SLURM, as_ranges, read_qstat, read_squeue
from speecheq.common.command_line import parse_numbers
from speecheq.common.errors import InputError
from speecheq.common.files import write_json
from speecheq.common.stages import NOT_DONE

ROOT = Path(__file__).resolve().parents[2]
# What could go wrong on the way through a shell.
ODD = [
    "",
    " a  b ",
    "it's",
    '"',
    "$(touch harm)",
    "`touch harm`",
    "a\nb",
    "*",
    "--set",
    "-",
    "\\",
    "汉字",
    "\udcff",
    "%A",
]


def write_program(path, text):
    path.write_text(text)
    path.chmod(0o755)


def run(tasks, cmd="sge", **settings):
    """Run an array of the stage train, from ``jobs`` in the current folder."""
    job_arrays.run("train", tasks, Settings(cmd, Path("jobs").absolute(), **settings))


def parsed(*arguments):
    parser = ArgumentParser()
    add_options(parser)
    return parser.parse_args(arguments)


@given(st.sets(st.integers(0, 60), min_size=1))
def test_ranges_name_the_same_numbers(numbers):
    assert parse_numbers(as_ranges(numbers), "part") == sorted(numbers)


@given(
    st.lists(
        st.sampled_from(
            [
                ["--cmd", "slurm"],
                ["--time=1-0"],
                ["--requeue", "true"],
                ["--job-option=--qos=x"],
                ["--jobs-at-once", ""],
                ["--partition", ""],
            ]
        )
    ),
    st.lists(st.sampled_from([["--folds", "1 2"], ["--set=a=b"], ["--corpora", "casia", "seqd"], ["--set", "c=d"]])),
    st.randoms(),
)
def test_a_task_takes_over_all_but_where_it_runs(mine, others, order):
    """Each word stays in its order."""
    mixed = [(True, words) for words in mine] + [(False, words) for words in others]
    order.shuffle(mixed)
    left = [word for is_mine, words in mixed if not is_mine for word in words]
    assert without_options(["train", *(word for _, words in mixed for word in words)]) == ["train", *left]


def test_the_commands_of_both_schedulers(tmp_path):
    options = shlex.split(
        "--partition p --account us --time 10:00:00 --memory 8G --cpus 4 --requeue true --jobs-at-once 3 "
        "--job-option=--x=y --job-option=-z"
    )
    job = ["job.sh", sys.executable, "-m", "speecheq.cluster.run_task", "."]
    slurm = Settings.from_options(parsed("--cmd", "slurm", "--gpu", "a100", *options), gpus=2, nodes=2)
    expected = (
        "sbatch --parsable --export=ALL --open-mode=append --signal=TERM@60 --ntasks-per-node=1 "
        "--job-name=speecheq-train --output=FOLDER/50%%A/%A.%a.out --array=1-10%3 --requeue --partition=p --account=us "
        "--time=10:00:00 --mem=8G --cpus-per-task=4 --gpus-per-node=a100:2 --nodes=2 --x=y -z"
    ).replace("FOLDER", str(tmp_path))
    assert slurm.command("train", 10, tmp_path / "50%A") == [*expected.split(), *job]
    sge = Settings.from_options(parsed("--cmd", "sge", *options), gpus=2)
    expected = (
        "qsub -terse -V -cwd -S /bin/sh -notify -j y -N speecheq-train -o $JOB_ID.$TASK_ID.out -t 1-10 -tc 3 -r y -q p "
        "-P us -l h_rt=10:00:00 -l h_vmem=8G -pe smp 4 -l gpu=2 --x=y -z"
    )
    assert sge.command("train", 10, tmp_path) == [*expected.split(), *job]
    plain = Settings.from_options(parsed("--cmd", "slurm", "--gpu", "none"), gpus=2).command("score", 1, tmp_path)
    assert plain[7:] == [f"--output={tmp_path}/%A.%a.out", "--array=1-1", "--no-requeue", *job]
    assert "--gpus-per-node=2" in Settings.from_options(parsed("--cmd", "slurm"), gpus=2).command("train", 1, tmp_path)


def test_a_folder_that_slurm_cannot_write_to_is_refused(tmp_path):
    with pytest.raises(InputError, match="Slurm cannot name its output in a folder with a backslash"):
        Settings("slurm", tmp_path).command("train", 1, tmp_path / "a\\b")
    assert "qsub" in Settings("sge", tmp_path).command("train", 1, tmp_path / "a\\b")


def test_what_grid_engine_cannot_do_is_refused():
    with pytest.raises(InputError, match="--cmd sge: nodes cannot be asked for there"):
        Settings.from_options(parsed("--cmd", "sge"), nodes=2)


@pytest.mark.parametrize("inside", [True, False])
def test_of_slurms_variables_jobs_get_those_of_no_other_job(monkeypatch, inside):
    """Outside of an allocation they are the user's own settings."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    given = {"SLURM_CONF": "a", "SLURM_GPUS_PER_NODE": "1", "SBATCH_QOS": "high"}
    given.update({"SLURM_JOB_ID": "1"} if inside else {})
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    left = set(SLURM.environment())
    assert set(os.environ) - left == ({"SLURM_JOB_ID", "SLURM_GPUS_PER_NODE"} if inside else set())
    assert GRID_ENGINE.environment() == dict(os.environ)


def test_without_the_scheduler_the_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is no sbatch on this machine"):
        run([Task("a", ("true",))], cmd="slurm")


def test_the_queue_of_slurm_is_read():
    text = (
        "12|1|RUNNING|None\n12|2|PENDING|Resources\n12|3|TIMEOUT|TimeLimit\n13|N/A|RUNNING|None\n"
        "12|4|COMPLETING|None\n14|1-2,4%2|CANCELLED|None\n"
    )
    assert read_squeue(text) == {
        ("12", 1): ("running", "RUNNING"),
        ("12", 2): ("waiting", "Resources"),
        ("12", 3): ("ended", "TIMEOUT"),
        ("12", 4): ("running", "COMPLETING"),
        **{("14", index): ("ended", "CANCELLED") for index in (1, 2, 4)},
    }


def test_the_queue_of_grid_engine_is_read():
    text = """<?xml version='1.0'?><job_info><queue_info>
    <job_list state="running"><JB_job_number>7</JB_job_number><state>r</state><tasks>1</tasks></job_list></queue_info>
    <job_info><job_list state="pending"><JB_job_number>7</JB_job_number><state>qw</state><tasks>2</tasks></job_list>
    <job_list state="pending"><JB_job_number>7</JB_job_number><state>Eqw</state><tasks>3</tasks></job_list>
    <job_list state="pending"><JB_job_number>9</JB_job_number><state>qw</state><tasks>1-2:1</tasks></job_list>
    <job_list state="running"><JB_job_number>8</JB_job_number><state>r</state></job_list></job_info></job_info>"""
    assert read_qstat(text) == {
        ("7", 1): ("running", "r"),
        ("7", 2): ("waiting", "qw"),
        ("7", 3): ("ended", "Eqw"),
        **{("9", index): ("waiting", "qw") for index in (1, 2)},
    }


# ---- Grid Engine: qsub runs the tasks one after the other, before it answers

QSUB = """#!{python}
import json, os, subprocess, sys
with open({folder!r} + "/qsub.json", "a+") as told:
    print(json.dumps([os.getcwd(), sys.argv[1:]]), file=told)
    told.seek(0)
    job = str(6 + len(told.readlines()))
options = sys.argv[1:sys.argv.index("job.sh")]
last = int(options[options.index("-t") + 1].split("-")[1])
for task in range(1, last + 1):
    with open(f"{{job}}.{{task}}.out", "w") as output:
        subprocess.run(["/bin/sh", *sys.argv[sys.argv.index("job.sh"):]], stdout=output, stderr=output,
                       env={{**os.environ, "JOB_ID": job, "SGE_TASK_ID": str(task)}})
print(f"{{job}}.1-{{last}}:1")
"""
QSTAT = "#!/bin/sh\ncat {folder}/queue.xml\n"
QDEL = '#!/bin/sh\nprintf "%s\\n" "$@" >>{folder}/qdel.txt\n'
EMPTY = "<job_info><queue_info/><job_info/></job_info>"


@pytest.fixture
def grid_engine(tmp_path, monkeypatch):
    """A folder with the stand-ins, and what they were called with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("qsub", QSUB), ("qstat", QSTAT), ("qdel", QDEL)):
        write_program(folder / name, text.format(python=sys.executable, folder=str(folder)))
    (folder / "queue.xml").write_text(EMPTY)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    return folder


SAY = "import json, os, sys; print('told'); json.dump([os.getcwd(), sys.argv[2:]], open(sys.argv[1], 'w'))"


def test_tasks_get_their_words_where_they_were_given(grid_engine, tmp_path):
    odd = tmp_path / " it's \"$(touch harm)\n"
    tasks = [
        Task("odd words", (sys.executable, "-c", SAY, "one.json", *ODD), odd / "logs"),
        Task("none", (sys.executable, "-c", SAY, "two.json")),
    ]
    job_arrays.run("train", tasks, Settings("sge", odd / "jobs"))
    assert json.loads(Path("one.json").read_text()) == [str(tmp_path), ODD]
    assert json.loads(Path("two.json").read_text()) == [str(tmp_path), []]
    assert (odd / "logs/sge-7_1.log").read_text() == "told\n"
    folder, command = json.loads((grid_engine / "qsub.json").read_text())
    assert (Path(folder) / "sge-7_2.log").read_text() == "told\n" and Path(folder).parent == odd / "jobs"
    assert command == Settings("sge", odd).command("train", 2, odd)[1:]
    assert not list(tmp_path.rglob("harm"))
    assert not list(odd.rglob("*.out")), "what is empty is removed"


def test_what_the_cluster_says_of_the_longest_array():
    slurm, sge = SLURM.read_longest, GRID_ENGINE.read_longest
    assert slurm("MaxArraySize            = 1001\nMaxBatchRequeue         = 5\n") == 1000
    assert sge("max_u_jobs                   0\nmax_aj_tasks                 75000\n") == 75000
    assert sge("max_aj_tasks 0\n") is sge("") is slurm("") is None


@pytest.mark.parametrize("largest", [0, 1])
def test_a_cluster_without_arrays_is_told_of(tmp_path, monkeypatch, largest):
    write_program(tmp_path / "scontrol", f"#!/bin/sh\necho 'MaxArraySize            = {largest}'\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--cmd slurm: this cluster takes no arrays of jobs, as its `scontrol show"):
        run([Task("a", ("true",))], cmd="slurm")


QCONF = "#!/bin/sh\necho 'max_aj_instances 2000'\necho 'max_aj_tasks {}'\n"


@pytest.mark.parametrize("at_once", ["", "2"])
def test_what_is_longer_than_an_array_may_be_becomes_several(grid_engine, tmp_path, at_once, capsys):
    """One after the other where only so many may run at once."""
    write_program(grid_engine / "qconf", QCONF.format(3))
    tasks = [Task(f"task {number}", (sys.executable, "-c", SAY, f"{number}.json", str(number))) for number in range(8)]
    with pytest.raises(SystemExit):
        run(tasks, at_once=at_once, dry_run=True)
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in shown if line.startswith("# ")] == [f"{n}:" for n in (1, 2, 3, 1, 2, 3, 1, 2)]
    run(tasks, at_once=at_once)
    assert [json.loads(Path(f"{number}.json").read_text())[1] for number in range(8)] == [[str(n)] for n in range(8)]
    commands = [json.loads(line)[1] for line in (grid_engine / "qsub.json").read_text().splitlines()]
    assert [command[command.index("-t") + 1] for command in commands] == ["1-3", "1-3", "1-2"]
    after = [command[command.index("-hold_jid") + 1] if "-hold_jid" in command else None for command in commands]
    assert after == ([None, "7", "8"] if at_once else [None] * 3)
    assert sum("-hold_jid JOB" in line for line in shown) == (2 if at_once else 0)


def test_where_one_of_several_arrays_is_refused_none_is_left(grid_engine, tmp_path, monkeypatch):
    write_program(grid_engine / "qconf", QCONF.format(2))
    (grid_engine / "qsub").write_text(
        "#!/bin/sh\n[ ! -e ../first ] || { echo 'too many jobs' >&2; exit 1; }\ntouch ../first\necho 7.1-2:1\n"
    )
    with pytest.raises(InputError, match=r"qsub refused its 1 jobs \(too many jobs\)"):
        run([Task(name, ("true", name)) for name in "abc"])
    assert (grid_engine / "qdel.txt").read_text().split() == ["7", "-t", "1-2"]


def test_tasks_that_fail_are_told_of_and_the_others_are_run(grid_engine, tmp_path, caplog):
    tasks = [
        Task("the first", (sys.executable, "-c", "import sys; print(*range(50), sep='\\n'); sys.exit(7)")),
        Task("the second", (sys.executable, "-c", SAY, "two.json")),
        Task("the third", (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")),
        Task("the fourth", ("no-such-program",)),
    ]
    with caplog.at_level("ERROR", "speecheq"), pytest.raises(InputError) as failed:
        run(tasks)
    assert str(failed.value).startswith(
        "train: 3 of 4 jobs failed: 7_1 (the first: exit status 7); 7_3 (the third: was killed (SIGKILL)"
    )
    told = caplog.text
    assert "job 7_1 (the first) exit status 7; the end of" in told and "    49\n" in told and "    30\n" not in told
    assert "    no-such-program: No such file or directory" in told
    assert Path("two.json").is_file()


@pytest.mark.parametrize("before", [None, "old"])
def test_what_jobs_have_made_is_waited_for_until_it_is_seen_here(grid_engine, tmp_path, monkeypatch, caplog, before):
    made, slept = tmp_path / "made", []
    if before:
        made.write_text(before)

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            write_json(made, "new")

    monkeypatch.setattr(job_arrays.time, "sleep", sleep)
    run([Task("a", ("true",), makes=(made,))])
    assert len(slept) == 3
    assert caplog.text.count("waiting for this machine to see what they wrote") == 1


def test_what_is_not_seen_here_is_not_waited_for_without_end(grid_engine, tmp_path, monkeypatch):
    """What is there as it was before may have been made just before it was looked at."""
    monkeypatch.setattr(job_arrays, "LOST_AFTER", 0.0)
    old, missing = tmp_path / "old", tmp_path / "on another disk"
    old.write_text("old")
    run([Task("a", ("true",), makes=(old,))])
    with pytest.raises(InputError, match="train: its jobs ended well, but .*on another disk, which they wrote, is not"):
        run([Task("b", ("true", "b"), makes=(missing,))])


def test_a_job_in_an_error_state_or_lost_has_failed(grid_engine, tmp_path, monkeypatch):
    (grid_engine / "qsub").write_text("#!/bin/sh\necho 7.1-2:1\n")
    (grid_engine / "queue.xml").write_text(
        "<job_info><job_list><JB_job_number>7</JB_job_number><state>Eqw</state><tasks>1</tasks></job_list></job_info>"
    )
    monkeypatch.setattr(job_arrays, "LOST_AFTER", 0.0)
    with pytest.raises(InputError, match=r"2 of 2 .*7_1 \(a: ended in the state Eqw\); 7_2 \(b: ended without a word"):
        run([Task("a", ("true",)), Task("b", ("true",))])


def test_a_refusal_is_one_sentence(grid_engine, tmp_path):
    (grid_engine / "qsub").write_text("#!/bin/sh\necho 'job rejected: no such queue' >&2\nexit 1\n")
    with pytest.raises(InputError, match=r"qsub refused its 1 jobs \(job rejected: no such queue\)"):
        run([Task("a", ("true",))])
    assert not list((tmp_path / "jobs").rglob(SUBMITTED))


def in_queue(*tasks):
    running = "<job_list><JB_job_number>7</JB_job_number><state>r</state><tasks>{}</tasks></job_list>"
    return f"<job_info>{''.join(map(running.format, tasks))}</job_info>"


@pytest.mark.parametrize("keep", [False, True])
def test_an_interrupted_wait_cancels_or_leaves_what_still_runs(grid_engine, tmp_path, monkeypatch, keep):
    (grid_engine / "qsub").write_text("#!/bin/sh\necho 7.1-3:1\n")
    (grid_engine / "queue.xml").write_text(in_queue(1, 3))
    (grid_engine / "qdel").write_text((grid_engine / "qdel").read_text() + f"echo '{EMPTY}' >{grid_engine}/queue.xml\n")
    monkeypatch.setattr(job_arrays, "LOST_AFTER", 0.0)

    def interrupted(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(job_arrays.time, "sleep", interrupted)
    tasks = [Task(name, ("true", name)) for name in "abc"]
    with pytest.raises(KeyboardInterrupt):
        run(tasks, keep_jobs=keep)
    if not keep:
        assert (grid_engine / "qdel.txt").read_text().split() == ["7", "-t", "1,3"]
        return
    assert not (grid_engine / "qdel.txt").exists()
    (grid_engine / "qsub").write_text("#!/bin/sh\necho 8.1-1:1\n")  # what is not in the queue any more
    with pytest.raises(KeyboardInterrupt):
        run(tasks, keep_jobs=True)
    by_job = {
        json.loads(path.read_text())["job"]: json.loads((path.parent / TASKS).read_text())["tasks"]
        for path in (tmp_path / "jobs").rglob(SUBMITTED)
    }
    assert [task["title"] for task in by_job["8"]] == ["b"] and len(by_job["7"]) == 3


STOPPED_WHILE_IT_SUBMITS = """#!/bin/sh
# the {number}th array of two; its session is written down
submits={folder}/submits
cut -d" " -f6 /proc/$$/stat >>$submits
[ "$(wc -l <$submits)" -ne {number} ] || {{ kill -{signal} $PPID; sleep 0.2; }}
echo "$((6 + $(wc -l <$submits))).1-2:1"
"""


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("number, name, raised", [(1, "INT", KeyboardInterrupt), (2, "TERM", SystemExit)])
def test_a_stop_while_jobs_are_submitted_leaves_none_unknown(grid_engine, tmp_path, number, name, raised, keep):
    write_program(grid_engine / "qconf", QCONF.format(2))
    (grid_engine / "qsub").write_text(STOPPED_WHILE_IT_SUBMITS.format(number=number, signal=name, folder=grid_engine))
    tasks = [Task(each, ("true", each)) for each in "abcdef"]
    with pytest.raises(raised):
        run(tasks, keep_jobs=keep)
    sessions = (grid_engine / "submits").read_text().split()
    assert len(sessions) == number and str(os.getsid(0)) not in sessions
    known = sorted(json.loads(path.read_text())["job"] for path in (tmp_path / "jobs").rglob(SUBMITTED))
    assert known == ["7", "8"][:number]
    cancelled = [] if keep else [word for job in known for word in (job, "-t", "1-2")]
    asked = grid_engine / "qdel.txt"
    assert (asked.read_text().split() if asked.exists() else []) == cancelled


def test_what_others_of_an_array_do_is_not_forgotten_when_some_have_ended(grid_engine, tmp_path, monkeypatch):
    """A command that waited for one task of an array leaves the others to the next, which submits none again."""
    (grid_engine / "qsub").write_text("#!/bin/sh\necho submitted >>../../submits\necho 7.1-3:1\n")
    tasks = [Task(name, ("true", name)) for name in "abc"]

    def interrupted(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(job_arrays.time, "sleep", interrupted)
    (grid_engine / "queue.xml").write_text(in_queue(1, 2, 3))
    with pytest.raises(KeyboardInterrupt):
        run(tasks, keep_jobs=True)
    (note,) = (tmp_path / "jobs").rglob(SUBMITTED)
    with pytest.raises(SystemExit):
        run(tasks, dry_run=True)
    assert not (grid_engine / "qdel.txt").exists(), "a dry run cancels nothing"
    for index in (1, 2, 3):
        (note.parent / f"7.{index}.out").touch()

    def end_of_the_first(_seconds):
        write_json(note.parent / RESULTS / "1.json", {"job": "7", "status": 0})
        (grid_engine / "queue.xml").write_text(in_queue(2, 3))

    monkeypatch.setattr(job_arrays.time, "sleep", end_of_the_first)
    run(tasks[:1], keep_jobs=True)
    assert sorted(path.name for path in note.parent.glob("*.out")) == ["7.2.out", "7.3.out"]
    monkeypatch.setattr(job_arrays.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tasks[1:], keep_jobs=True)
    assert (tmp_path / "submits").read_text() == "submitted\n"


def test_a_dry_run_prints_and_ends(grid_engine, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run([Task("a", ("echo", "a b"))], dry_run=True)
    assert ended.value.code == NOT_DONE
    cd, qsub, task = capsys.readouterr().out.splitlines()
    assert cd.startswith("cd ") and qsub.startswith("qsub -terse") and task == "# 1: echo 'a b'"
    assert not (grid_engine / "qsub.json").exists()


def test_what_a_dry_run_prints_is_read_by_a_shell_as_comments(grid_engine, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run([Task("a", ("echo", "a\ntouch harm"))], dry_run=True)
    assert capsys.readouterr().out.splitlines()[2:] == [r"# 1: echo 'a\ntouch harm'"]


# ---- on a node

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
        assert "started again 3 times, it saved nothing new: it stays ended" in (tmp_path / "slurm-7_1.log").read_text()
        assert json.loads((tmp_path / "results/1.json").read_text()) == {"job": "7", "status": 143}
