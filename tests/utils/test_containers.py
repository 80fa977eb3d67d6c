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
# What a container installs otherwise than .ci/run: the libraries of a GPU are some GB, and CI has none.
NOT_IN_CI = {"k2": {}, "modern": {"--torch": "cuda"}}
COMMAND = re.compile(r"utils/containers/setup\.sh ((?:--\w+ [\w/.-]+ ?)+)")


def what_is_installed(text, stack):
    """The options of the one call of setup.sh for a stack, but for the folder."""
    found = [dict(zip(words[::2], words[1::2])) for words in map(str.split, COMMAND.findall(text))]
    (options,) = [options for options in found if options.get("--stack") == stack]
    return {name: value for name, value in options.items() if name != "--venv"}


@pytest.mark.parametrize("stack", [*STACKS, "predict"])
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
    assert what_is_installed(docker, stack) == what_is_installed(apptainer, stack)
    for text in (docker, apptainer):
        assert f"/opt/speecheq/utils/containers/setup.sh --stack {stack} --venv /opt/venv" in text
        assert re.search(r"SPEECHEQ_VENV=/opt/venv$", text, re.M) and "PATH=/opt/venv/bin:$PATH" in text
    # .dockerignore holds for Docker alone
    assert "git clone -q . fresh && (cd fresh && apptainer build" in apptainer
    sections = re.findall(r"^%(\w+)$", apptainer, re.M)
    assert sections == ["files", "post", "environment", "runscript", "help"]


@pytest.mark.parametrize("stack", STACKS)
def test_continuous_integration_installs_what_the_containers_do(stack):
    """But for what NOT_IN_CI names; where an image is built there is no GPU, for which the installer would look."""
    of_ci = what_is_installed((ROOT / ".ci/run").read_text(), stack)
    assert what_is_installed((CONTAINERS / f"Dockerfile.{stack}").read_text(), stack) == {**of_ci, **NOT_IN_CI[stack]}
    assert not set(of_ci) & set(NOT_IN_CI[stack])


def test_the_small_image_is_what_ci_tries():
    """CI installs the same from the wheels that it has, and then predicts with a copy of the package alone."""
    docker, ci = (CONTAINERS / "Dockerfile.predict").read_text(), (ROOT / ".ci/run").read_text()
    install = re.compile(r"utils/install\.sh (--stack modern --venv [\w/.-]+ --torch cpu --extras [\w,]+)")
    (of_docker,), (of_ci,) = (install.findall(text) for text in (docker, ci))
    assert re.sub(r"--venv \S+ ", "", of_docker) == re.sub(r"--venv \S+ ", "", of_ci)
    bases = re.findall(r"^FROM (\S+)", docker, re.M)
    assert len(bases) == 2 and len(set(bases)) == 1, "the environment's Python is that of the base"
    assert re.search(r"^USER 1000$", docker, re.M) and 'ENTRYPOINT ["speecheq"]' in docker


def test_the_setup_refuses_what_it_does_not_know():
    script = str(CONTAINERS / "setup.sh")
    told = subprocess.run([script, "--stack", "k2"], capture_output=True, text=True)
    assert told.returncode == 1 and "--venv needs the name of a folder" in told.stderr
    told = subprocess.run([script, "--help"], capture_output=True, text=True)
    assert told.returncode == 0 and "--stack k2|modern" in told.stdout
