"""The Dockerfiles and Apptainer definitions. None is built here: what they install is installed by .ci/run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTAINERS = ROOT / "utils/containers"
STACKS = {"k2": ("ubuntu:22.04", "3.10"), "modern": ("debian:12", "3.11")}


@pytest.mark.parametrize("stack", STACKS)
def test_hadolint_has_nothing_to_say(stack):
    hadolint = Path(sys.prefix, "bin/hadolint")
    if not hadolint.is_file() and not shutil.which("hadolint"):
        pytest.skip("hadolint is not installed (utils/install.sh --extras test)")
    done = subprocess.run([str(hadolint), str(CONTAINERS / f"Dockerfile.{stack}")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("stack", STACKS)
def test_both_forms_install_the_same_from_the_same_base(stack):
    docker, apptainer = (CONTAINERS / name for name in (f"Dockerfile.{stack}", f"speecheq-{stack}.def"))
    docker, apptainer = docker.read_text(), apptainer.read_text()
    base, python = STACKS[stack]
    assert re.search(rf"^FROM {base}$", docker, re.M) and re.search(rf"^From: {base}$", apptainer, re.M)
    assert f"Python {python}" in docker and f"Python {python}" in apptainer
    command = re.compile(r"/opt/speecheq/(utils/containers/setup\.sh (?:--\w+ [\w/]+ ?)+)")
    (of_docker,), (of_apptainer,) = command.findall(docker), command.findall(apptainer)
    assert of_docker.split() == of_apptainer.split() and f"--stack {stack}" in of_docker
    assert of_docker.split("--venv ")[1].split()[0] == "/opt/venv"
    for text in (docker, apptainer):
        assert re.search(r"SPEECHEQ_VENV=/opt/venv$", text, re.M) and "PATH=/opt/venv/bin:$PATH" in text
    sections = re.findall(r"^%(\w+)$", apptainer, re.M)
    assert sections == ["files", "post", "environment", "runscript", "help"]


@pytest.mark.parametrize("stack", STACKS)
def test_continuous_integration_installs_what_the_containers_do(stack):
    script = (ROOT / ".ci/run").read_text()
    assert re.search(rf"utils/containers/setup\.sh --stack {stack} ", script)


def test_the_modern_container_brings_the_libraries_of_a_gpu():
    # there is none where an image is built, so that the installer's own choice would be the build for CPUs
    assert "--torch cuda" in (CONTAINERS / "Dockerfile.modern").read_text()


def test_the_setup_refuses_what_it_does_not_know():
    script = str(CONTAINERS / "setup.sh")
    told = subprocess.run([script, "--stack", "k2"], capture_output=True, text=True)
    assert told.returncode == 1 and "--venv needs the name of a folder" in told.stderr
    told = subprocess.run([script, "--help"], capture_output=True, text=True)
    assert told.returncode == 0 and "--stack k2|modern" in told.stdout
