"""Commands as tasks of job arrays."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from scheduler_programs import ODD

from speecheq.cli.job_parts import listed_tasks
from speecheq.cluster.job_files import Task
from speecheq.common.stages import NOT_DONE, ONLY_ASK


def test_of_listed_commands_those_that_are_not_done_become_tasks(tmp_path):
    """A command is asked with its own words, whatever they are."""
    script = tmp_path / "is it done"
    script.write_text(
        f"#!{sys.executable}\nimport os, sys\nassert os.environ['{ONLY_ASK}']\n"
        "sys.exit(int(os.fsencode(sys.argv[1]).decode()))\n"
    )
    script.chmod(0o755)

    def listed(status, made=""):
        words = [str(script), str(status), *ODD]
        return b"".join(os.fsencode(word) + b"\0" for word in (f"title {status}", made, str(len(words)), *words))

    assert listed_tasks(listed(0)) == []
    missing = Task(f"title {NOT_DONE}", (str(script), str(NOT_DONE), *ODD))
    assert listed_tasks(listed(NOT_DONE) + listed(0) + listed(NOT_DONE, "a file")) == [
        missing,
        replace(missing, makes=(Path("a file"),)),
    ]
    with pytest.raises(SystemExit) as ended:
        listed_tasks(listed(0) + listed(1))
    assert ended.value.code == 1
