"""Clocks that are set back or run ahead: times of files mean nothing, and what is told of time stays sensible."""

import itertools
import os
import re
import time

import pytest
from walks import NAMES, Stages, check_equal, results

from speecheq.common.log import set_up_logging
from speecheq.common.stages import STAMP


@pytest.fixture(scope="module")
def stages(nano, prepare, tmp_path_factory):
    return Stages(tmp_path_factory.mktemp("clock"), nano("casia", "aishell"), prepare)


@pytest.mark.parametrize("order", [1, -1])
def test_no_stage_is_redone_for_the_times_of_files(stages, capfd, order):
    """In the future, and those of later stages before those of earlier ones."""
    set_up_logging()
    for number, path in enumerate(sorted(stages.root.rglob("*"))):
        moment = 2**32 + order * number
        os.utime(path, (moment, moment))
    written = {path: path.stat().st_mtime_ns for path in stages.root.rglob(STAMP)}
    capfd.readouterr()
    for name in NAMES[:-1]:
        assert stages.run(name) == 0
    told = capfd.readouterr().err
    assert "redone" not in told and told.count("skipped") == 1 + 2 + 2 + 1 + 1 + 2 + 1 + 3
    assert written == {path: path.stat().st_mtime_ns for path in stages.root.rglob(STAMP)}


@pytest.mark.parametrize("stage", ["manifests", "train"])
def test_a_clock_that_is_set_back_all_the_time(stages, capfd, monkeypatch, stage):
    set_up_logging()
    stages.undo(stage)
    hours = itertools.count()
    monkeypatch.setattr(time, "time", lambda: 2e9 - 3600 * next(hours))
    capfd.readouterr()
    stages.run_from(stage)
    told = capfd.readouterr().err
    assert not re.search(r"-[\d.]+ s\b|-[\d.]+ clips/s|-[\d.]+/s|\bnan\b|\binf\b", told), told
    check_equal(results(stages.root), stages.expected)
