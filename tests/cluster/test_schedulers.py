"""What the programs of Slurm and Grid Engine print, and the environment that they are given."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speecheq.cluster.schedulers import GRID_ENGINE, SLURM, as_ranges, read_qstat, read_squeue
from speecheq.common.command_line import parse_numbers


@given(st.sets(st.integers(0, 60), min_size=1))
def test_ranges_name_the_same_numbers(numbers):
    assert parse_numbers(as_ranges(numbers), "part") == sorted(numbers)


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


def test_what_the_cluster_says_of_the_longest_array():
    slurm, sge = SLURM.read_longest, GRID_ENGINE.read_longest
    assert slurm("MaxArraySize            = 1001\nMaxBatchRequeue         = 5\n") == 1000
    assert sge("max_u_jobs                   0\nmax_aj_tasks                 75000\n") == 75000
    assert sge("max_aj_tasks 0\n") is sge("") is slurm("") is None
