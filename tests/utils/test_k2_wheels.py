"""The choice of k2's wheel and its torch, from pages on this machine and folders of wheels that hold nothing."""

import hashlib
import http.server
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from install_stand_in import PYTHON, STAND_IN, make_wheel, name_of

ROOT = Path(__file__).resolve().parents[2]
OTHER_PYTHON = "cp39"
PAIRS = "# build, torch, least k2\ncpu\t2.9.1\t1.24.4\ncpu\t2.8.0\t1.24.4\ncuda\t2.9.1\t1.24.4\n"
pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="the stand-in wheels are for Linux")


def choose(tmp_path, source, build="cpu"):
    """Run the program; returns its status and what it prints, split at tabs."""
    (tmp_path / "pairs.tsv").write_text(PAIRS)
    (tmp_path / "out").mkdir(exist_ok=True)
    command = [sys.executable, ROOT / "utils/k2_wheels.py", source, tmp_path / "pairs.tsv", build, tmp_path / "out"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
    assert not done.stderr and len(done.stdout.splitlines()) == 1
    return done.returncode, done.stdout.rstrip("\n").split("\t")


class Pages(http.server.SimpleHTTPRequestHandler):
    """A folder over HTTP; /moved/ leads to /pages/."""

    def do_GET(self):
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path.replace("/moved/", "/pages/"))
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path):
    """The address of a server of ``tmp_path``/web."""
    (tmp_path / "web" / "pages").mkdir(parents=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Pages, directory=str(tmp_path / "web")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def write_page(tmp_path, *links):
    lines = "".join(f'<a href="{link}">{link.split("/")[-1]}</a><br/>\n' for link in links)
    (tmp_path / "web" / "pages" / "cpu.html").write_text(f"<html><body>{lines}</body></html>")


def test_the_newest_pair_that_the_code_supports_is_taken(tmp_path):
    names = [
        name_of("2.8.0"),
        name_of("2.9.1", version="1.24.4.dev20250807"),
        name_of("2.9.1"),
        name_of("2.10.0"),  # not in the table
        name_of("2.9.1", build="cuda12.8"),
        name_of("2.9.1", python=OTHER_PYTHON),
        name_of("2.9.1", version="1.24.3.dev20300101"),  # too old a k2
        name_of("2.9.1", tags="macosx_11_0_arm64", version="1.24.4.dev20300101"),
        "torch-2.9.1-cp312-cp312-manylinux2014_x86_64.whl",
    ]
    for name in names:
        make_wheel(tmp_path / "wheels", name)
    status, (torch, path, digest) = choose(tmp_path, tmp_path / "wheels")
    assert status == 0 and torch == "2.9.1" and Path(path) == tmp_path / "out" / names[2]
    assert digest == hashlib.sha256((tmp_path / "wheels" / names[2]).read_bytes()).hexdigest()
    status, (torch, path, _) = choose(tmp_path, tmp_path / "wheels", "cuda")
    assert status == 0 and torch == "2.9.1" and "cuda12.8" in path


@pytest.mark.parametrize("moved", [False, True])
def test_a_page_is_read_also_behind_a_redirect(tmp_path, served, moved):
    wheel = make_wheel(tmp_path / "web" / "wheels", name_of())
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    # the + of a name is written so on k2's pages; the link is relative to where the page is in the end
    write_page(tmp_path, f"../wheels/{wheel.name.replace('+', '%2B')}#sha256={digest}")
    status, found = choose(tmp_path, f"{served}/{'moved' if moved else 'pages'}/cpu.html")
    assert (status, found) == (0, ["2.9.1", str(tmp_path / "out" / wheel.name), digest])


@pytest.mark.parametrize(
    "names, reason",
    [
        ([], "lists no wheel of k2"),
        ([name_of("2.4.0"), name_of("2.10.0")], "for torch 2.4.0, 2.10.0, and the code supports 2.9.1, 2.8.0"),
        ([name_of(python=OTHER_PYTHON)], f"no cpu wheel for Python {PYTHON}"),
        ([name_of(build="cuda12.8")], "no cpu wheel"),
        ([name_of(tags="win_amd64"), name_of(tags="macosx_11_0_arm64")], "no cpu wheel"),
    ],
)
def test_where_nothing_fits_one_line_says_why(tmp_path, served, names, reason):
    write_page(tmp_path, *names)
    status, (line,) = choose(tmp_path, f"{served}/pages/cpu.html")
    assert status == 1 and reason in line


def test_a_truncated_wheel_is_not_taken(tmp_path, served):
    wheel = make_wheel(tmp_path / "web" / "pages", name_of(), content="k2" * 1000)
    write_page(tmp_path, wheel.name)
    wheel.write_bytes(wheel.read_bytes()[:-30])
    status, (line,) = choose(tmp_path, f"{served}/pages/cpu.html")
    assert status == 1 and "is truncated or no wheel" in line


def test_a_wheel_of_another_digest_is_not_taken(tmp_path, served):
    wheel = make_wheel(tmp_path / "web" / "pages", name_of())
    write_page(tmp_path, f"{wheel.name}#sha256={'0' * 64}")
    status, (line,) = choose(tmp_path, f"{served}/pages/cpu.html")
    assert status == 1 and "another SHA-256" in line


def test_a_wheel_that_is_gone_or_a_page_that_cannot_be_reached(tmp_path, served):
    write_page(tmp_path, name_of())
    assert re.search("cannot be fetched .*[Nn]ot [Ff]ound", choose(tmp_path, f"{served}/pages/cpu.html")[1][0])
    assert re.search("cannot be reached .*[Nn]ot [Ff]ound", choose(tmp_path, f"{served}/pages/none.html")[1][0])
    # port 9 of this machine: nothing listens there
    assert re.search("cannot be reached .*refused", choose(tmp_path, "http://127.0.0.1:9/cpu.html")[1][0])
    assert "neither a folder nor an address" in choose(tmp_path, tmp_path / "nowhere")[1][0]


def test_the_table_names_versions_of_both_builds():
    rows = [line.split("\t") for line in (ROOT / "utils/requirements/k2-pairs.tsv").read_text().splitlines()]
    pairs = [row for row in rows if not row[0].startswith("#")]
    assert {row[0] for row in pairs} == {"cpu", "cuda"} and all(re.fullmatch(r"2\.\d+\.\d+", row[1]) for row in pairs)


# ---- utils/install.sh, with a Python that only notes what it is told to install


@pytest.fixture
def install(tmp_path):
    """Run utils/install.sh on a stand-in Python; returns what it says, what pip was told, and the environment."""
    python = tmp_path / "python3.12"
    python.write_text(STAND_IN.format(log=tmp_path / "pip.log", python=sys.executable))
    python.chmod(0o755)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)

    def run_it(*options, status=0, **environment):
        (tmp_path / "pip.log").write_text("")
        words = [ROOT / "utils/install.sh", "--python", python, "--venv", tmp_path / "venv", *options]
        path = f"{tmp_path}:{os.environ['PATH']}"
        done = subprocess.run(
            [str(word) for word in words],
            env={**os.environ, "PATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == status, done.stderr
        return done.stderr, (tmp_path / "pip.log").read_text(), tmp_path / "venv"

    return run_it


def test_k2_and_its_torch_are_installed_and_both_digests_recorded(tmp_path, install):
    wheel = make_wheel(tmp_path / "wheels", name_of())
    said, pip, venv = install("--k2-wheels", tmp_path / "wheels")
    assert f"k2 for the modern stack: {wheel.name}, with torch 2.9.1" in said
    assert "k2 computes the CTC loss that torch does" in said
    assert "torch==2.9.1+cpu" in pip and wheel.name in pip and "modern-cpu.txt" not in pip
    build, torch, k2 = (venv / "k2-pair").read_text().splitlines()
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert build == "cpu 2.9.1" and k2 == f"{digest} {wheel.name}" and "torch-2.9.1+cpu" in torch
    assert (venv / "speecheq-stack").read_text() == "modern\n"
    said, pip, _ = install("--extras", "export")  # later runs leave the pair as it is
    assert "bringing the modern stack" in said and "torch==" not in pip and "modern-cpu" not in pip


@pytest.mark.parametrize(
    "wheels, environment, reason",
    [
        ([name_of("2.4.0")], {}, "its wheels are for torch 2.4.0"),
        ([name_of(python=OTHER_PYTHON)], {}, "it has no cpu wheel for Python"),
        ([name_of()], {"NO_TORCH": "1"}, "torch==2.9.1+cpu, which its wheel is for, cannot be fetched"),
        ([name_of()], {"K2_FAILS": "1"}, "does not work with torch 2.9.1"),
    ],
)
def test_without_a_k2_that_fits_the_stack_is_as_it_was(tmp_path, install, wheels, environment, reason):
    (tmp_path / "wheels").mkdir()
    for name in wheels:
        make_wheel(tmp_path / "wheels", name)
    said, pip, venv = install("--k2-wheels", tmp_path / "wheels", **environment)
    (line,) = (line for line in said.splitlines() if "no k2 for the modern stack: " in line)
    assert reason in line and "modern-cpu.txt" in pip and not (venv / "k2-pair").exists()
    assert "installed the modern stack" in said and "k2 computes" not in said
    refused, _, _ = install("--k2", "yes", "--k2-wheels", tmp_path / "wheels", status=1, **environment)
    assert "error: --k2 yes: " in refused.splitlines()[-1]


def test_a_page_that_cannot_be_reached_is_one_line(install):
    said, pip, _ = install("--k2-wheels", "http://127.0.0.1:9/cpu.html")
    assert "no k2 for the modern stack: http://127.0.0.1:9/cpu.html cannot be reached" in said
    assert "modern-cpu.txt" in pip


def test_a_stack_that_is_asked_for_looks_for_no_k2(install):
    said, pip, _ = install("--stack", "modern")
    assert "k2" not in said and "modern-cpu.txt" in pip


def test_k2_comes_and_goes_as_it_is_asked_for(tmp_path, install):
    make_wheel(tmp_path / "wheels", name_of())
    wheels = ("--k2-wheels", tmp_path / "wheels")
    _, _, venv = install(*wheels)
    said, pip, _ = install("--k2", "no")
    assert "replacing the environment" in said and "as --k2 no asks" in said
    assert "modern-cpu.txt" in pip and not (venv / "k2-pair").exists()
    said, _, _ = install("--k2", "yes", *wheels)
    assert "as --k2 yes asks" in said and (venv / "k2-pair").exists()
    (venv / "bin" / "python").unlink()  # and where it has to be made afresh, k2 is looked for again
    said, _, _ = install("--stack", "modern", K2_PAGES="http://127.0.0.1:9/")
    assert "no k2 for the modern stack: http://127.0.0.1:9/cpu.html cannot be reached" in said


def test_a_wheelhouse_holds_k2_and_its_torch_and_installs_them(tmp_path, install):
    wheel = make_wheel(tmp_path / "wheels", name_of())
    house = tmp_path / "house"
    said, pip, venv = install("--k2-wheels", tmp_path / "wheels", "--make-wheelhouse", house)
    assert f"download --only-binary :all: --dest {house} {venv}/wheels/torch-2.9.1" in pip
    assert (house / wheel.name).is_file()
    said, _, _ = install("--make-wheelhouse", house, status=1)
    assert "has kept neither k2's wheel nor that of its torch" in said.splitlines()[-1]
    shutil.rmtree(venv)
    said, _, _ = install("--wheelhouse", house)
    assert f"k2 for the modern stack: {wheel.name}" in said and (venv / "k2-pair").exists()


def test_a_wheelhouse_gets_no_k2_that_does_not_work(tmp_path, install):
    make_wheel(tmp_path / "wheels", name_of())
    house = tmp_path / "house"
    install("--k2-wheels", tmp_path / "wheels", "--make-wheelhouse", house, K2_FAILS="1")
    assert not list(tmp_path.glob("house/k2-*"))


@pytest.mark.parametrize(
    "options, reason",
    [(["--k2", "maybe"], "--k2 is auto, yes or no"), (["--k2", "no", "--k2-wheels", "x"], "that there is to be none")],
)
def test_install_refuses_options_that_make_no_sense(install, options, reason):
    said, _, venv = install(*options, status=1)
    assert reason in said and not venv.exists()
