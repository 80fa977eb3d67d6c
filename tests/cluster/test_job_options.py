"""The options of jobs, and the command lines that submit arrays with them."""

import shlex
import sys
from argparse import ArgumentParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speecheq.cluster.job_options import Settings, add_options, without_options
from speecheq.common.errors import InputError


def parsed(*arguments):
    parser = ArgumentParser()
    add_options(parser)
    return parser.parse_args(arguments)


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
    )
    words = [word.replace("FOLDER", str(tmp_path)) for word in expected.split()]
    assert slurm.command("train", 10, tmp_path / "50%A") == [*words, *job]
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
    with pytest.raises(InputError, match="Slurm cannot write its output to a folder with a backslash"):
        Settings("slurm", tmp_path).command("train", 1, tmp_path / "a\\b")
    assert "qsub" in Settings("sge", tmp_path).command("train", 1, tmp_path / "a\\b")


def test_what_grid_engine_cannot_do_is_refused():
    with pytest.raises(InputError, match="--cmd sge: nodes is not available there"):
        Settings.from_options(parsed("--cmd", "sge"), nodes=2)
