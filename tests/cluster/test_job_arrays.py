"""Arrays of jobs without a cluster: command lines, lists of words, Grid Engine through stand-ins of its programs."""

import json
import os
import sys
from pathlib import Path

import pytest
from scheduler_programs import EMPTY, ODD, write_program

from speecheq.cluster import job_arrays
from speecheq.cluster.job_files import RESULTS, SUBMITTED, TASKS, Task
from speecheq.cluster.job_options import Settings
from speecheq.common.errors import InputError
from speecheq.common.files import write_json
from speecheq.common.stages import NOT_DONE


def run(tasks, cmd="sge", **settings):
    """Run an array of the stage train, from ``jobs`` in the current folder."""
    job_arrays.run("train", tasks, Settings(cmd, Path("jobs").absolute(), **settings))


def test_without_the_scheduler_the_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is no sbatch on this machine"):
        run([Task("a", ("true",))], cmd="slurm")


# ---- Grid Engine: qsub runs the tasks one after the other, before it answers


SAY = "import json, os, sys; print('done'); json.dump([os.getcwd(), sys.argv[2:]], open(sys.argv[1], 'w'))"


def test_tasks_get_their_words_where_they_were_given(grid_engine, tmp_path):
    odd = tmp_path / " it's \"$(touch harm)\n"
    tasks = [
        Task("odd words", (sys.executable, "-c", SAY, "one.json", *ODD), odd / "logs"),
        Task("none", (sys.executable, "-c", SAY, "two.json")),
    ]
    job_arrays.run("train", tasks, Settings("sge", odd / "jobs"))
    assert json.loads(Path("one.json").read_text()) == [str(tmp_path), ODD]
    assert json.loads(Path("two.json").read_text()) == [str(tmp_path), []]
    assert (odd / "logs/sge-7_1.log").read_text() == "done\n"
    folder, command = json.loads((grid_engine / "qsub.json").read_text())
    assert (Path(folder) / "sge-7_2.log").read_text() == "done\n" and Path(folder).parent == odd / "jobs"
    assert command == Settings("sge", odd).command("train", 2, odd)[1:]
    assert not list(tmp_path.rglob("harm"))
    assert not list(odd.rglob("*.out")), "what is empty is removed"


@pytest.mark.parametrize("largest", [0, 1])
def test_a_cluster_without_arrays_is_an_input_error(tmp_path, monkeypatch, largest):
    write_program(tmp_path / "scontrol", f"#!/bin/sh\necho 'MaxArraySize            = {largest}'\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match="--cmd slurm: this cluster does not allow job arrays, according to `scontrol show"
    ):
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
    with pytest.raises(InputError, match=r"qsub rejected its 1 jobs \(too many jobs\)"):
        run([Task(name, ("true", name)) for name in "abc"])
    assert (grid_engine / "qdel.txt").read_text().split() == ["7", "-t", "1-2"]


def test_tasks_that_fail_are_reported_and_the_others_are_run(grid_engine, tmp_path, caplog):
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
    logged = caplog.text
    assert (
        "job 7_1 (the first) exit status 7; the end of" in logged and "    49\n" in logged and "    30\n" not in logged
    )
    assert "    no-such-program: No such file or directory" in logged
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
    assert caplog.text.count("waiting for their files to appear on this machine") == 1


def test_what_is_not_seen_here_is_not_waited_for_without_end(grid_engine, tmp_path, monkeypatch):
    """What is there as it was before may have been made just before it was looked at."""
    monkeypatch.setattr(job_arrays, "LOST_AFTER", 0.0)
    old, missing = tmp_path / "old", tmp_path / "on another disk"
    old.write_text("old")
    run([Task("a", ("true",), makes=(old,))])
    with pytest.raises(InputError, match="train: its jobs succeeded, but .*on another disk, which they wrote, is not"):
        run([Task("b", ("true", "b"), makes=(missing,))])


def test_a_job_in_an_error_state_or_lost_has_failed(grid_engine, tmp_path, monkeypatch):
    (grid_engine / "qsub").write_text("#!/bin/sh\necho 7.1-2:1\n")
    (grid_engine / "queue.xml").write_text(
        "<job_info><job_list><JB_job_number>7</JB_job_number><state>Eqw</state><tasks>1</tasks></job_list></job_info>"
    )
    monkeypatch.setattr(job_arrays, "LOST_AFTER", 0.0)
    with pytest.raises(
        InputError, match=r"2 of 2 .*7_1 \(a: ended in the state Eqw\); 7_2 \(b: ended without a result"
    ):
        run([Task("a", ("true",)), Task("b", ("true",))])


def test_a_refusal_is_one_sentence(grid_engine, tmp_path):
    (grid_engine / "qsub").write_text("#!/bin/sh\necho 'job rejected: no such queue' >&2\nexit 1\n")
    with pytest.raises(InputError, match=r"qsub rejected its 1 jobs \(job rejected: no such queue\)"):
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
