"""A stage is skipped when nothing changed, redone when anything did, and names the stage that it lacks."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from speecheq.common.errors import InputError
from speecheq.common.files import read_json, write_text
from speecheq.common.log import set_up_logging
from speecheq.common.stages import NOT_DONE, NUMBERS, ONLY_ASK, STAMP, Drops, Stage, history, planning, require, status


@pytest.fixture
def source(tmp_path):
    write_text(tmp_path / "source" / "clip.wav", "12345")
    write_text(tmp_path / "source" / "labels.tsv", "a\tF\n")
    return tmp_path / "source"


def make(tmp_path, source, options=None, version=1, name="manifests"):
    return Stage(name, "a toy", tmp_path / "out", options or {"partial": True}, [source], version)


def run(stage, drops=None):
    with stage.replace_folder() as folder:
        write_text(folder / "result.txt", "the result")
        stage.finish(folder, 3, 3 - len(drops or ()), drops)


def test_the_stamp_and_its_stage(tmp_path, source):
    stage = make(tmp_path, source)
    assert stage.needs_run()
    drops = Drops()
    drops.add("too short", "b")
    run(stage, drops)
    assert not make(tmp_path, source).needs_run()
    stamp = require(tmp_path / "out", "manifests")
    assert (stamp["in"], stamp["out"], stamp["dropped"]) == (3, 2, {"too short": ["b"]})
    assert stamp["outputs"] == {"result.txt": len("the result")} and stamp["stage"] == "manifests"


def test_the_log_says_what_went_in_came_out_and_was_dropped(tmp_path, source, capsys):
    set_up_logging()
    drops = Drops()
    for name in "abcd":
        drops.add("too short", name)
    drops.add("silent", "e")
    run(make(tmp_path, source), drops)
    shown = capsys.readouterr().err
    assert "a toy: 4 dropped: too short (a, b, c, ...)" in shown and "1 dropped: silent (e)" in shown
    assert "stage 1 (manifests) of a toy: 3 utterances in, -2 out, 5 dropped" in shown
    assert drops.counts() == {"silent": 1, "too short": 4}


@pytest.mark.parametrize(
    "change, because",
    [
        (lambda tmp_path, source: make(tmp_path, source, {"partial": False}), "its options changed (partial)"),
        (lambda tmp_path, source: make(tmp_path, source, {"partial": True, "seed": 1}), "its options changed (seed)"),
        (lambda tmp_path, source: make(tmp_path, source, {"other": 1}), "its options changed (other, partial)"),
        (lambda tmp_path, source: make(tmp_path, source, version=2), "this version of the program writes"),
        (lambda tmp_path, source: write_text(source / "clip.wav", "123456"), "its inputs changed"),
        (lambda tmp_path, source: write_text(source / "new.wav", "1"), "its inputs changed"),
        (lambda tmp_path, source: (source / "clip.wav").unlink(), "its inputs changed"),
        # a correction that keeps the size
        (lambda tmp_path, source: write_text(source / "labels.tsv", "a\tM\n"), "its inputs changed"),
        (lambda tmp_path, source: write_text(tmp_path / "out" / "result.txt", "cut"), "is missing or has changed"),
        (lambda tmp_path, source: (tmp_path / "out" / "result.txt").unlink(), "is missing or has changed"),
    ],
)
def test_it_is_redone_when_anything_changes(tmp_path, source, change, because, capsys):
    set_up_logging()
    run(make(tmp_path, source))
    stage = change(tmp_path, source)
    stage = stage if isinstance(stage, Stage) else make(tmp_path, source)
    assert stage.needs_run()
    assert because in capsys.readouterr().err
    run(stage)
    assert not stage.needs_run()


def test_planning_lists_the_stages_that_need_a_run(tmp_path, source):
    stage = make(tmp_path, source)
    assert not stage.added_to_plan()
    with planning() as missing:
        assert stage.needs_run() and not missing and status() == 0
        assert stage.added_to_plan() and status() == NOT_DONE
    assert missing == [stage] and not stage.added_to_plan() and status() == 0
    run(make(tmp_path, source))
    with planning() as missing:
        assert not make(tmp_path, source).needs_run() and status() == 0
    assert not missing


def test_a_command_that_only_plans_writes_nothing(tmp_path, toys):
    """The status is its answer."""
    toys.casia(tmp_path / "casia")
    script = toys.root / "local/prepare_casia.py"
    command = [sys.executable, script, tmp_path / "casia", tmp_path / "out", "--partial", "true"]
    path = {**os.environ, "PYTHONPATH": str(toys.root)}
    asked = {**path, ONLY_ASK: "1"}
    assert subprocess.run(command, env=asked).returncode == NOT_DONE and not (tmp_path / "out").exists()
    assert subprocess.run(command, env=path).returncode == 0
    assert subprocess.run(command, env=asked).returncode == 0


def test_a_stage_that_was_broken_off_is_not_done(tmp_path, source):
    stage = make(tmp_path, source)
    run(stage)
    stage.invalidate()
    assert stage.needs_run()
    with pytest.raises(InputError, match=r"stage 1 \(manifests\) has not been run or did not finish"):
        require(tmp_path / "out", "manifests")


def test_a_failure_keeps_the_earlier_result(tmp_path, source):
    run(make(tmp_path, source))
    with pytest.raises(RuntimeError), make(tmp_path, source, version=2).replace_folder():
        raise RuntimeError
    assert not make(tmp_path, source).needs_run()


def test_what_another_hand_wrote_is_not_replaced(tmp_path, source):
    write_text(tmp_path / "out" / "thesis.txt", "mine")
    with pytest.raises(InputError, match="holds files that stage 1"):
        run(make(tmp_path, source))
    (tmp_path / "out" / "thesis.txt").unlink()
    run(make(tmp_path, source))  # an empty folder will do
    with pytest.raises(InputError, match="holds files that stage 3"):
        run(make(tmp_path, source, name="unify"))


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_a_missing_stage_is_named_with_the_way_to_run_it(tmp_path, name):
    with pytest.raises(InputError) as refused:
        require(tmp_path / "nowhere", name)
    number = NUMBERS[name]
    assert f"stage {number} ({name}) has not been run" in str(refused.value)
    assert f"--stage {number} --stop-stage {number}" in str(refused.value)


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_text("cut")])
def test_outputs_that_are_not_whole_are_refused(tmp_path, source, spoil):
    run(make(tmp_path, source))
    spoil(tmp_path / "out" / "result.txt")
    with pytest.raises(
        InputError, match=r"result.txt: is missing or has changed since stage 1 \(manifests\).*run stage 1 again"
    ):
        require(tmp_path / "out", "manifests")


def test_a_stage_whose_input_was_made_anew_is_out_of_date(tmp_path, source):
    run(make(tmp_path, source))
    after = Stage("features", "a toy", tmp_path / "features", {}, [tmp_path / "out"], 1)
    run(after)
    require(tmp_path / "features", "features")
    run(make(tmp_path, source, {"partial": False}))
    with pytest.raises(InputError, match=r"is out of date, .*out was rewritten since; run stage 2 \(features\)"):
        require(tmp_path / "features", "features")
    # without its input a stage's result is still good
    (tmp_path / "out" / STAMP).unlink()
    require(tmp_path / "features", "features")


def test_the_key_follows_the_input_stage_not_its_files(tmp_path, source):
    run(make(tmp_path, source))
    key = read_json(tmp_path / "out" / STAMP)["key"]
    assert Stage("features", "a", tmp_path, {}, [tmp_path / "out"], 1).inputs == {str(tmp_path / "out"): key}


@pytest.mark.parametrize("left", ['{"key": ', "", "[]", '{"stage": "manifests"}'])
def test_a_damaged_stamp_is_named_and_its_stage_redone(tmp_path, source, left, capsys):
    set_up_logging()
    run(make(tmp_path, source))
    (tmp_path / "out" / STAMP).write_text(left)
    with pytest.raises(InputError, match="out/stage.json: is damaged; run its stage again"):
        require(tmp_path / "out", "manifests")
    with pytest.raises(InputError, match="out/stage.json: is damaged; run its stage again"):
        Stage("features", "a toy", tmp_path / "features", {}, [tmp_path / "out"], 1)
    assert make(tmp_path, source).needs_run()
    assert "out/stage.json is damaged: running the stage again" in capsys.readouterr().err
    run(make(tmp_path, source))
    assert not make(tmp_path, source).needs_run()


def test_the_history_of_a_folder_is_what_it_was_made_from(tmp_path, source):
    def stamp(folder, stage, key, inputs):
        folder.mkdir(exist_ok=True)
        (folder / STAMP).write_text(json.dumps({"stage": stage, "title": stage, "key": key, "inputs": inputs}))
        return folder

    manifests = stamp(tmp_path / "z", "manifests", "m", {str(source): "s"})
    features = stamp(tmp_path / "y", "features", "f", {str(manifests): "m"})
    unify = stamp(tmp_path / "x", "unify", "u", {str(features): "f", str(tmp_path / "gone"): "g"})
    assert list(history([unify])) == [manifests, features, unify]
    shutil.copytree(unify, tmp_path / "copy")
    assert list(history([unify, features, tmp_path / "copy"])) == [manifests, features, unify]
    stamp(manifests, "manifests", "made anew", {})
    assert list(history([unify])) == [features, unify]
    stamp(features, "features", "made anew", {str(manifests): "made anew"})
    assert list(history([unify])) == [unify] and history([source]) == {}


def test_a_stage_that_another_process_has_done_meanwhile_is_not_done_again(tmp_path, source):
    stage = make(tmp_path, source)
    assert stage.needs_run()
    with stage.locked() as is_missing:
        assert is_missing
    run(make(tmp_path, source))  # by the other, while this one waited
    with stage.locked() as is_missing:
        assert not is_missing
    other = make(tmp_path, source, version=2)
    assert other.needs_run()
    with other.locked() as is_missing:
        assert is_missing, "what was done was another's work"


def test_a_stage_removes_what_killed_processes_left_of_it(tmp_path, source):
    write_text(tmp_path / ".tmp1.out" / "half", "x")
    write_text(tmp_path / "out" / ".tmp1.cuts", "x")
    with make(tmp_path, source).locked():
        assert not list(tmp_path.rglob(".tmp*"))


def in_use(folder):
    """A process that reads a folder, until its input ends."""
    program = (
        "import sys; from speecheq.common.files import folder_in_use; lock = folder_in_use(sys.argv[1]);"
        "lock.__enter__(); print(flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", program, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def test_what_another_process_reads_is_not_made_anew(tmp_path, source, monkeypatch):
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    stage = make(tmp_path, source)
    assert stage.needs_run()
    run(make(tmp_path, source))
    with in_use(tmp_path / "out") as other:
        with stage.locked() as is_missing:  # it is done already
            assert not is_missing
        changed = make(tmp_path, source, version=2)
        assert changed.needs_run()
        with pytest.raises(InputError, match="is reading this folder"), changed.locked():
            pass
        other.stdin.close()
    with changed.locked() as is_missing:
        assert is_missing


def test_an_input_that_was_made_anew_meanwhile_is_named(tmp_path, source):
    run(make(tmp_path, source))
    after = Stage("features", "a toy", tmp_path / "features", {}, [tmp_path / "out"], 1)
    run(make(tmp_path, source, version=2))
    with pytest.raises(InputError, match="out: was rewritten while a toy was about to read it"), after.locked():
        pass


def test_a_clock_that_goes_back_gives_no_negative_time(tmp_path, source, monkeypatch):
    times = iter(range(10**6, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: next(times))
    run(make(tmp_path, source))
    assert read_json(tmp_path / "out" / STAMP)["seconds"] >= 0


def test_times_of_files_mean_nothing(tmp_path, source):
    """Neither a future time of what was read nor one of what was written makes a stage be done again."""
    run(make(tmp_path, source))
    for path in (source / "clip.wav", source / "labels.tsv", tmp_path / "out" / STAMP, tmp_path / "out" / "result.txt"):
        for moment in (0, 2**32):
            os.utime(path, (moment, moment))
            assert not make(tmp_path, source).needs_run()
            require(tmp_path / "out", "manifests")
