"""The table of docs/recipes.md of what is installed: each row with Pythons that only note what they are told."""

import os
import platform
import re
import shutil
import subprocess
import sys

import pytest
from doc_pages import ROOT, inline_code, tables
from install_stand_in import STAND_IN, make_wheel, name_of

TOOLS = (
    *("awk", "basename", "bash", "cat", "chmod", "cp", "cut", "date", "dirname", "env", "grep", "head", "ln", "ls"),
    *("mkdir", "mktemp", "mv", "paste", "readlink", "realpath", "rm", "sed", "sha256sum", "sort", "tail", "timeout"),
    *("tr", "uname"),
)
WHEELS = {"fits": "2.9.1", "fails": "2.9.1", "other torch": "2.4.0"}
pytestmark = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="the table is that of Linux on x86-64"
)


def rows():
    return next(rows for heading, *rows in tables("docs/recipes.md") if heading[0] == "asked for")


def machine(folder, pythons, gpu):
    """A PATH with tools, the Pythons and the GPU of a row."""
    path = folder / "bin"
    path.mkdir()
    for tool in TOOLS:
        (path / tool).symlink_to(shutil.which(tool))
    programs = {"nvidia-smi": "#!/bin/sh\n" + ("exit 9\n" if gpu == "none" else f"echo {gpu}\n")}
    for version in ("3.10", "3.12") if pythons == "both" else (pythons,):
        programs[f"python{version}"] = STAND_IN.format(log=folder / "pip.log", python=sys.executable)
    for name, content in programs.items():
        (path / name).write_text(content)
        (path / name).chmod(0o755)
    return path


def installed(venv, said_to_pip):
    """The stack, torch and CTC that were installed, as the table has them."""
    stack = (venv / "speecheq-stack").read_text().strip()
    if (venv / "k2-pair").is_file():
        return stack, (venv / "k2-pair").read_text().split()[1], "k2"
    (lock,) = set(re.findall(r"requirements/(k2|modern-cpu|modern-cuda)\.txt", said_to_pip))
    pinned = re.search(r"^torch==([\d.]+)", (ROOT / f"utils/requirements/{lock}.txt").read_text(), re.M)
    return stack, pinned[1], "k2" if stack == "k2" else "torch"


@pytest.mark.parametrize("row", rows(), ids=lambda row: ", ".join(row[:4]).replace("`", ""))
def test_what_is_installed_is_what_the_table_says(row, tmp_path):
    asked, pythons, wheel, gpu, stack, torch, ctc, says = row
    pages = tmp_path / "pages"
    (pages / "cpu.html").mkdir(parents=True)  # folders of wheels stand for pages
    (pages / "cuda.html").mkdir()
    page = "http://127.0.0.1:9/" if wheel in ("no page", "not asked") else f"{pages}/"  # nothing listens there
    name = name_of(WHEELS.get(wheel, "2.9.1"), build="cpu" if gpu == "none" else "cuda12.8")
    make_wheel(pages / ("cpu.html" if gpu == "none" else "cuda.html"), name)
    (tmp_path / "pip.log").write_text("")
    options = " ".join(inline_code(asked)).split()
    environment = {
        "PATH": str(machine(tmp_path, pythons, gpu)),
        "HOME": str(tmp_path),
        "PYENV_ROOT": str(tmp_path / "none"),
        "K2_PAGES": page,
        "K2_FAILS": "1" if wheel == "fails" else "0",
        "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
    }
    command = [ROOT / "utils/install.sh", "--venv", tmp_path / "venv", *options]
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300)
    (line,) = inline_code(says)
    assert (
        line.replace("PAGE", f"{page}{'cpu' if gpu == 'none' else 'cuda'}.html").replace("WHEEL", name) in done.stderr
    )
    assert ("cannot be reached" in done.stderr) == (wheel == "no page"), "the page is asked where the table says so"
    if not stack:
        assert done.returncode == 1 and " error: " in done.stderr.splitlines()[-1]
    else:
        assert done.returncode == 0, done.stderr
        assert installed(tmp_path / "venv", (tmp_path / "pip.log").read_text()) == (stack, torch, ctc)
