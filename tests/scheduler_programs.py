"""Stand-ins of the programs of schedulers. Grid Engine's qsub runs the tasks one after the other, before it answers."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
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
QSUB = """#!{python}
import json, os, subprocess, sys
with open({folder!r} + "/qsub.json", "a+") as calls:
    print(json.dumps([os.getcwd(), sys.argv[1:]]), file=calls)
    calls.seek(0)
    job = str(6 + len(calls.readlines()))
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


def write_program(path, text):
    path.write_text(text)
    path.chmod(0o755)


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
