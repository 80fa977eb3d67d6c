"""The recipe that things happen to, and where kills met it."""

import shutil
from collections import Counter

import pytest
from walks import Walk


@pytest.fixture(scope="session")
def walk(nano, warm_venv, tmp_path_factory):
    """A folder that every test may use alone: the results hold its name."""
    return Walk(tmp_path_factory.mktemp("faults") / "walk", nano("casia", "aishell"), warm_venv)


@pytest.fixture
def fresh(walk):
    shutil.rmtree(walk.folder, ignore_errors=True)
    walk.folder.mkdir()
    return walk


def pytest_terminal_summary(terminalreporter):
    """Where the kills met the recipe, and how it ended."""
    ended = [
        report
        for status in ("passed", "failed")
        for report in terminalreporter.stats.get(status, [])
        if dict(report.user_properties).get("stage") is not None and report.when == "call"
    ]
    if ended:
        stages = Counter(dict(report.user_properties)["stage"] for report in ended)
        hit = ", ".join(f"{number} in stage {stage}" for stage, number in sorted(stages.items()))
        terminalreporter.write_line(
            f"kills: {len(ended)} ({hit}), {sum(report.failed for report in ended)} not gone on with as they should, "
            f"{sum(report.duration for report in ended):.0f} s"
        )
