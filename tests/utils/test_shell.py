"""The shell rooms: utils/parse_options.sh, utils/log.sh, path.sh and what utils/install.sh refuses."""

import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UTILS = ROOT / "utils"
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


def run(*command, cwd=None, **environment):
    """Run a command; ``environment`` is added to this process' own, None takes a variable away."""
    env = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=600
    )


def assert_refused(result, *words):
    """Exit 1, and a last line that is one sentence with ``words``."""
    assert result.returncode == 1, (result.stdout, result.stderr)
    sentence = result.stderr.strip().splitlines()[-1]
    assert "error: " in sentence and sentence.endswith("."), result.stderr
    for word in words:
        assert word in sentence


@pytest.fixture
def script(tmp_path):
    """A script with options of every kind that prints what it understood."""
    path = tmp_path / "say.sh"
    path.write_text(
        f"""#!/usr/bin/env bash
# Says its options.
#
#   say.sh [--stage N]
set -euo pipefail
# not part of the help

stage=0
stop_stage=5
casia=
mini=false
options=(stage stop_stage casia)
boolean_options=(mini)
list_options=(set)
. {UTILS}/parse_options.sh

echo "$stage|$stop_stage|$casia|$mini|${{#set_options[@]}}|$#"
for one in "${{set_options[@]}}"; do echo "$one"; done
"""
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], ["0|5||false|0|0"]),
        (["--stage", "2", "--stop-stage", "3"], ["2|3||false|0|0"]),
        (["--stage=2", "--stop_stage=10", "--mini=true"], ["2|10||true|0|0"]),
        (["--casia", "a b", "--casia=/c d=e"], ["0|5|/c d=e|false|0|0"]),
        (["--casia", "x", "--casia="], ["0|5||false|0|0"]),
        (["--casia", "-1"], ["0|5|-1|false|0|0"]),
        (["--casia=--x"], ["0|5|--x|false|0|0"]),
        (["--set", "a=1", "--mini", "true", "--set=b=2 3"], ["0|5||true|2|0", "a=1", "b=2 3"]),
    ],
)
def test_options_are_read(script, arguments, said):
    result = run(script, *arguments)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == said


def test_option_values_are_never_evaluated(script, tmp_path):
    harm = f"$(touch {tmp_path}/harm)`touch {tmp_path}/harm`; touch {tmp_path}/harm"
    result = run(script, "--casia", harm, "--set", harm)
    assert result.stdout.splitlines() == [f"0|5|{harm}|false|1|0", harm]
    for refused in (["--stage", f"a[{harm}]"], ["--mini", harm], [f"--{harm}", "1"]):
        assert run(script, *refused).returncode == 1
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--stge", "1"], ["'--stge'", "--stage", "--stop-stage", "--mini", "--set"]),
        (["--", "1"], ["'--'"]),
        (["--=1"], ["unknown option"]),
        (["--stage stop_stage", "1"], ["unknown option"]),
        (["all"], ["'all'", "--help"]),
        (["-x", "1"], ["'-x'"]),
        (["--casia"], ["--casia", "needs a value"]),
        (["--mini", "--stage", "1"], ["--mini", "needs a value"]),
        (["--mini", "yes"], ["--mini", "true or false", "'yes'"]),
        (["--stage", "two"], ["--stage", "whole number", "'two'"]),
        (["--stage", "-1"], ["--stage", "'-1'"]),
        (["--stop-stage", "08"], ["--stop-stage", "'08'"]),
        (["--stop-stage="], ["--stop-stage", "''"]),
        (["--stage", "6"], ["--stage 6", "--stop-stage 5"]),
    ],
)
def test_bad_options_get_one_sentence(script, arguments, words):
    result = run(script, *arguments)
    assert_refused(result, *words)
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_the_opening_comment(script, option):
    result = run(script, "--stage", "1", option)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "Says its options.\n\n  say.sh [--stage N]\n"


def test_stages_outside_the_asked_range_do_not_run(tmp_path):
    script = tmp_path / "run.sh"
    script.write_text(
        f"""set -euo pipefail
. {UTILS}/log.sh
stage=1
stop_stage=2
for n in 0 1 2 3; do
  if stage $n "number $n"; then echo $n; fi
done
"""
    )
    result = run("bash", script)
    assert result.returncode == 0
    assert result.stdout.split() == ["1", "2"]
    assert re.fullmatch(rf"{TIME}stage 1: number 1\n{TIME}stage 2: number 2\n", result.stderr)


def test_log_goes_to_standard_error_with_its_time_and_die_ends_the_script():
    result = run("bash", "-c", f'. {UTILS}/log.sh; log "two  words"; die "It is wrong."; echo never')
    assert result.returncode == 1
    assert result.stdout == ""
    assert re.fullmatch(rf"{TIME}two  words\n{TIME}error: It is wrong\.\n", result.stderr)


@pytest.fixture
def checkout(tmp_path):
    """A copy of path.sh in a checkout whose recipe links to it, without an environment."""
    root = tmp_path / "a checkout"
    recipe = root / "egs" / "mandarin"
    recipe.mkdir(parents=True)
    shutil.copy(ROOT / "path.sh", root)
    (recipe / "path.sh").symlink_to("../../path.sh")
    return root


def make_environment(folder, stack, stamped):
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text("#!/bin/sh\necho the environment\n")
    python.chmod(0o755)
    if stack:
        (folder / "speecheq-stack").write_text(stack + "\n")
    if stamped:
        (folder / "speecheq-stamp").write_text("whole\n")


SOURCE = 'set -euo pipefail; . ./path.sh; echo "$SPEECHEQ_STACK|$PYTHONPATH|$OMP_WAIT_POLICY|$LC_ALL"; python'


@pytest.mark.parametrize("folder", [".", "egs/mandarin"])
def test_path_without_an_environment(checkout, folder):
    result = run("bash", "-c", SOURCE, cwd=checkout / folder, SPEECHEQ_VENV=None)
    assert_refused(result, f"{checkout}/.venv", "utils/install.sh")
    assert result.stdout == ""


def test_path_refuses_a_broken_off_installation(checkout):
    make_environment(checkout / ".venv", "k2", stamped=False)
    result = run("bash", "-c", SOURCE, cwd=checkout, SPEECHEQ_VENV=None)
    assert_refused(result, "did not finish", "utils/install.sh")


@pytest.mark.parametrize("folder", [".", "egs/mandarin"])
@pytest.mark.parametrize("stack", ["k2", "modern", None])
def test_path_puts_the_environment_in_place(checkout, folder, stack):
    make_environment(checkout / ".venv", stack, stamped=True)
    result = run("bash", "-c", SOURCE, cwd=checkout / folder, SPEECHEQ_VENV=None, PYTHONPATH=None)
    assert result.stderr == ""
    assert result.stdout.splitlines() == [f"{stack or 'unknown'}|{checkout}|PASSIVE|C.UTF-8", "the environment"]


def test_path_takes_another_environment_and_may_be_sourced_twice(checkout):
    make_environment(checkout / "other", "modern", stamped=True)
    twice = '. ./path.sh; . ./path.sh; echo "$PYTHONPATH"; echo "$PATH"; python'
    result = run("bash", "-euc", twice, cwd=checkout, SPEECHEQ_VENV="other", PYTHONPATH="/before")
    paths, path, python = result.stdout.splitlines()
    assert paths == f"{checkout}:/before"
    assert path.split(":").count(f"{checkout}/other/bin") == 1
    assert python == "the environment"


@pytest.mark.parametrize("folder", [".", "egs/mandarin"])
def test_path_works_in_zsh(checkout, folder):
    if not shutil.which("zsh"):
        pytest.skip("needs Debian's zsh")
    make_environment(checkout / ".venv", "modern", stamped=True)
    hooks = "chpwd() { ls; }; setopt nounset; "  # of a user who likes to see each folder
    twice = f"{hooks}. ./path.sh && . ./path.sh && echo $SPEECHEQ_ROOT $SPEECHEQ_STACK; echo $PYTHONPATH; python"
    result = run("zsh", "-f", "-c", twice, cwd=checkout / folder, SPEECHEQ_VENV=None, PYTHONPATH=None)
    assert (result.stderr, result.returncode) == ("", 0)
    assert result.stdout.splitlines() == [f"{checkout} modern", str(checkout), "the environment"]
    shutil.rmtree(checkout / ".venv")
    result = run("zsh", "-f", "-c", ". ./path.sh; exit $?", cwd=checkout / folder, SPEECHEQ_VENV=None)
    assert_refused(result, f"no environment is installed in {checkout}/.venv")


@pytest.mark.parametrize("start", [[], ["-c", ". ./path.sh || exit 1; echo went on"]])
def test_path_in_another_shell_is_one_sentence(checkout, start):
    if not shutil.which("dash"):
        pytest.skip("needs Debian's dash")
    make_environment(checkout / ".venv", "modern", stamped=True)
    result = run("dash", *(start or ["path.sh"]), cwd=checkout, SPEECHEQ_VENV=None)
    assert_refused(result, "bash and zsh")
    assert len(result.stderr.splitlines()) == 1 and result.stdout == ""


@pytest.fixture
def open_checkout(checkout):
    """The same where every user may look, with an environment, and the words to run a command as one who is not root.

    The folders of pytest are its user's alone.
    """
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    shutil.copy(checkout / "path.sh", folder)
    make_environment(folder / "home" / "venv", "modern", stamped=True)
    as_user = ["setpriv", "--reuid", "65534", "--clear-groups"] if os.geteuid() == 0 else []
    if as_user and not shutil.which("setpriv"):
        pytest.skip("root may read everything, and there is no setpriv to be someone else")
    yield folder, as_user
    for path in (folder / "home", folder / "home" / "venv", folder / "home" / "venv" / "bin"):
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize("hidden", ["home", "home/venv", "home/venv/bin", "home/venv/speecheq-stamp"])
def test_path_tells_an_environment_that_may_not_be_read(open_checkout, hidden, shell):
    if not shutil.which(shell):
        pytest.skip(f"needs {shell}")
    folder, as_user = open_checkout
    (folder / hidden).chmod(0)
    result = run(*as_user, shell, "-c", ". ./path.sh; exit $?", cwd=folder, SPEECHEQ_VENV=str(folder / "home" / "venv"))
    assert_refused(result, "may not", f"{folder / hidden};", "cannot be used")
    assert "installed" not in result.stderr and "did not finish" not in result.stderr


def test_path_tells_a_python_that_is_gone(checkout):
    make_environment(checkout / ".venv", "modern", stamped=True)
    python = checkout / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/no/such/python3.10")
    result = run("bash", "-c", SOURCE, cwd=checkout, SPEECHEQ_VENV=None)
    assert_refused(result, "is a link to /no/such/python3.10, which is missing")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_path_in_a_folder_that_was_deleted(checkout, tmp_path, shell):
    if not shutil.which(shell):
        pytest.skip(f"needs {shell}")
    make_environment(checkout / ".venv", "modern", stamped=True)
    (tmp_path / "gone").mkdir()
    command = f"rmdir ../gone; . '{checkout}/path.sh'; exit $?"
    result = run(shell, "-c", command, cwd=tmp_path / "gone", SPEECHEQ_VENV=None)
    assert_refused(result, "the working folder does not exist any more")
    assert len(result.stderr.splitlines()) == 1


def test_install_help():
    result = run(UTILS / "install.sh", "--help")
    assert result.returncode == 0
    for option in ("--stack", "--venv", "--python", "--extras"):
        assert option in result.stdout
    assert "set -euo" not in result.stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--stack", "k3"], ["--stack", "'k3'"]),
        (["--extras", "demo,tests"], ["--extras", "'demo,tests'"]),
        (["--torch", "gpu"], ["--torch", "'gpu'"]),
        (["--stack", "k2", "--torch", "cpu"], ["--torch", "modern"]),
        (["--venv="], ["--venv"]),
        (["--upgrade", "true"], ["'--upgrade'", "--stack"]),
        (["--python", "no-such-python"], ["no-such-python"]),
        (["--python", "/bin/true"], ["/bin/true"]),
        (["--python", "/bin/false"], ["/bin/false", "cannot be run"]),
    ],
)
def test_install_refuses_bad_options(tmp_path, arguments, words):
    result = run(UTILS / "install.sh", *arguments, SPEECHEQ_VENV=str(tmp_path / "venv"))
    assert_refused(result, *words)
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("stack, version", [("k2", "3.11"), ("k2", "3.9"), ("modern", "3.10"), ("auto", "3.9")])
def test_install_refuses_a_python_of_another_version(tmp_path, stack, version):
    """k2's wheel above all must never come onto another Python than 3.10."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {version}\n")
    python.chmod(0o755)
    result = run(UTILS / "install.sh", "--stack", stack, "--python", python, "--venv", tmp_path / "venv")
    assert_refused(result, f"Python {version}", "3.10")
    assert not (tmp_path / "venv").exists()


def test_install_leaves_folders_alone_that_it_did_not_make(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    assert_refused(run(UTILS / "install.sh", "--venv", tmp_path / "mine"), "mine", "--venv")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"


def lock_of(stack):
    """What the installer's stamp says of the files that an installation depends on."""
    state = subprocess.run(
        ["bash", "-c", f"export LC_ALL=C.UTF-8; cat '{UTILS}'/requirements/{stack}*.txt '{ROOT}/pyproject.toml'"],
        capture_output=True,
        check=True,
    ).stdout
    return hashlib.sha256(state).hexdigest()


def test_install_wants_a_wheelhouse_with_wheels(tmp_path):
    result = run(UTILS / "install.sh", "--wheelhouse", tmp_path, "--venv", tmp_path / "venv")
    assert_refused(result, f"--wheelhouse {tmp_path}: there are no wheels", "--make-wheelhouse")
    assert not (tmp_path / "venv").exists()


def test_install_does_nothing_where_all_is_there(tmp_path):
    venv = tmp_path / "venv"
    make_environment(venv, "modern", stamped=False)
    stamp = f"{lock_of('modern')}\ncpu\nav,cited,demo,encoders,export,listen,parquet,segments,test\n{venv}\n"
    (venv / "speecheq-stamp").write_text(stamp)
    for extras in ("", "av", "demo", "test", "encoders", "export", "listen", "parquet", "segments", "demo,test"):
        result = run(UTILS / "install.sh", f"--extras={extras}", "--venv", venv, PATH=path_without_gpu(tmp_path))
        assert result.returncode == 0, result.stderr
        assert "the modern stack" in result.stderr and "is complete" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert (venv / "speecheq-stamp").read_text() == stamp


def test_install_that_fails_half_way_is_not_taken_for_whole(tmp_path):
    venv = tmp_path / "venv"
    make_environment(venv, "modern", stamped=False)
    (venv / "speecheq-stamp").write_text(f"of older requirement files\ncpu\ndemo\n{venv}\n")
    (venv / "bin" / "python").write_text(
        "#!/bin/sh\n[ $1 = -c ] && exit 0\necho 'ERROR: No matching distribution found for wheel.'\nexit 1\n"
    )
    result = run(UTILS / "install.sh", "--venv", venv, PATH=path_without_gpu(tmp_path))
    assert_refused(result, str(venv), "No matching distribution found for wheel", "install.log")
    assert not (venv / "speecheq-stamp").exists()


def path_without_gpu(tmp_path):
    """This machine's PATH behind an nvidia-smi that finds no GPU, so that every machine says the same."""
    folder = tmp_path / "no-gpu"
    folder.mkdir(exist_ok=True)
    (folder / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (folder / "nvidia-smi").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def only_tools(tmp_path):
    """A PATH with the system's tools but no Python, no uv and no nvidia-smi."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in [
        "awk",
        "bash",
        "cat",
        "cut",
        "date",
        "dirname",
        "grep",
        "head",
        "ls",
        "mkdir",
        "mktemp",
        "paste",
        "readlink",
        "realpath",
        "rm",
        "sed",
        "sha256sum",
        "sort",
        "tail",
        "timeout",
        "tr",
        "uname",
    ]:
        (folder / tool).symlink_to(shutil.which(tool))
    return folder


@pytest.mark.parametrize("stack, words", [("k2", ["3.10", "--stack modern"]), ("auto", ["3.11", "--python"])])
def test_install_without_a_python(tmp_path, stack, words):
    path = only_tools(tmp_path)
    for shim in ("python3.10", "python3.11"):  # a pyenv shim of a version that is not switched on
        (path / shim).write_text("#!/bin/bash\necho command not found >&2\nexit 127\n")
        (path / shim).chmod(0o755)
    result = run(
        UTILS / "install.sh",
        "--stack",
        stack,
        "--venv",
        tmp_path / "venv",
        PATH=str(path),
        PYENV_ROOT=str(tmp_path / "no-pyenv"),
        HOME=str(tmp_path),
    )
    assert_refused(result, *words)
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("capability, stack", [("9.0", "modern"), ("12.0", "modern"), ("8.9", "k2"), ("7.5", "k2")])
def test_install_asks_the_gpu(tmp_path, capability, stack):
    """auto must look for the Python of the stack that knows the GPU; no Python is there, so it only says which."""
    path = only_tools(tmp_path)
    (path / "nvidia-smi").write_text(f"#!/bin/bash\necho 6.1\necho {capability}\n")
    (path / "python3.10").write_text('#!/bin/bash\n[[ $2 == *ensurepip* ]] && echo "$0"\n')
    for program in ("nvidia-smi", "python3.10"):
        (path / program).chmod(0o755)
    result = run(
        UTILS / "install.sh",
        "--venv",
        tmp_path / "venv",
        PATH=str(path),
        PYENV_ROOT=str(tmp_path / "no-pyenv"),
        HOME=str(tmp_path),
    )
    if stack == "modern":
        assert_refused(result, "3.11, 3.12 or 3.13")
    else:
        assert "stack k2, because there is a Python 3.10" in result.stderr


@pytest.mark.parametrize(
    "machine, options, words",
    [
        ("Darwin arm64", [], ["3.11, 3.12 or 3.13"]),  # the Python of the modern stack is looked for
        ("Linux aarch64", [], ["3.11, 3.12 or 3.13"]),
        ("Linux aarch64", ["--stack", "k2"], ["Linux on x86-64", "--stack modern"]),
        ("Darwin arm64", ["--k2", "yes"], ["Linux on x86-64", "Darwin arm64"]),
        ("Darwin arm64", ["--torch", "cuda"], ["--device mps"]),
        ("Darwin x86_64", [], ["Macs with Apple's processors", "Darwin x86_64"]),
    ],
)
def test_install_takes_the_modern_stack_on_other_machines(tmp_path, machine, options, words):
    path = only_tools(tmp_path)
    (path / "uname").unlink()
    (path / "uname").write_text(
        f'#!/bin/bash\ncase $1 in -s) echo {machine.split()[0]} ;; *) echo "{machine}" ;; esac\n'
    )
    (path / "python3.10").write_text('#!/bin/bash\n[[ $2 == *ensurepip* ]] && echo "$0"\n')
    for program in ("uname", "python3.10"):
        (path / program).chmod(0o755)
    result = run(
        UTILS / "install.sh",
        "--venv",
        tmp_path / "venv",
        *options,
        PATH=str(path),
        PYENV_ROOT=str(tmp_path / "no-pyenv"),
        HOME=str(tmp_path),
    )
    assert_refused(result, *words)
    assert not (tmp_path / "venv").exists()


def test_a_machine_without_gnu_coreutils_is_told_what_to_install(tmp_path):
    path = only_tools(tmp_path)
    (path / "realpath").unlink()
    (path / "realpath").write_text("#!/bin/bash\nexit 1\n")
    (path / "realpath").chmod(0o755)
    result = run(UTILS / "install.sh", "--venv", tmp_path / "venv", PATH=str(path), HOME=str(tmp_path))
    assert_refused(result, "brew install bash coreutils")


def test_every_requirement_is_pinned_and_k2_is_named_for_its_own_stack_alone():
    files = sorted((UTILS / "requirements").glob("*.txt"))
    assert {file.stem for file in files} >= {"k2", "k2-demo", "k2-test", "modern", "modern-cpu", "modern-cuda"}
    for file in files:
        lines = [line for line in file.read_text().splitlines() if line and not line.startswith(("#", "-r "))]
        assert lines
        if file.stem == "k2-wheel":
            continue
        marker = r"; (python_version >= \"[\d.]+\"|sys_platform == \"\w+\")"
        for line in lines:
            assert re.fullmatch(rf"[\w.-]+==[\w.+]+({marker})?", line), f"{file.name}: {line}"
        assert not any(line.startswith("k2==") for line in lines)
    assert "pip==24.0" in (UTILS / "requirements" / "k2.txt").read_text().splitlines()


def test_the_wheel_of_k2_is_the_one_for_python_310():
    """By name and tag pip cannot tell it from those for other Pythons: both ways to install it name its digest."""
    (line,) = re.findall(r"^[^#\n].*$", (UTILS / "requirements" / "k2-wheel.txt").read_text(), re.MULTILINE)
    digest = re.fullmatch(r"k2==1\.23\.4 --hash=sha256:([0-9a-f]{64})", line).group(1)
    assert f"k2-1.23.4-py3.10-none-any.whl#sha256={digest}" in (ROOT / "pyproject.toml").read_text()


@pytest.mark.skipif(version("pip") != "24.0", reason="is about pip 24.0: later ones refuse wheels of such names")
def test_pip_takes_a_wheel_by_its_digest_whichever_comes_last(tmp_path):
    """What the installer relies on, with wheels as PyPI has k2's: one version, one tag, another content each."""
    wheels = {}
    for python in ("3.9", "3.10", "3.11"):
        path = tmp_path / "index" / "k3" / f"k3-1.0-py{python}-none-any.whl"
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = "Metadata-Version: 2.1\nName: k3\nVersion: 1.0\n"
        wheel = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("k3.py", f"python = '{python}'\n")
            for name, text in (("METADATA", metadata), ("WHEEL", wheel), ("RECORD", "")):
                archive.writestr(f"k3-1.0.dist-info/{name}", text)
        wheels[python] = hashlib.sha256(path.read_bytes()).hexdigest()
    page = tmp_path / "index" / "k3" / "index.html"
    required = tmp_path / "k3.txt"
    required.write_text(f"k3==1.0 --hash=sha256:{wheels['3.10']}\n")
    for order in itertools.permutations(wheels):
        links = (f'<a href="k3-1.0-py{v}-none-any.whl#sha256={wheels[v]}">k3-1.0-py{v}-none-any.whl</a>' for v in order)
        page.write_text(f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>")
        target = tmp_path / "-".join(order)
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-input", "--disable-pip-version-check"]
        pip += ["--isolated", "--no-deps", "--no-cache-dir", "--index-url", (tmp_path / "index").as_uri()]
        subprocess.run([*pip, "--target", target, "-r", required], check=True, capture_output=True, timeout=120)
        assert (target / "k3.py").read_text() == "python = '3.10'\n"
