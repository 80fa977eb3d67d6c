"""What utils/install.sh is tried with: wheels of k2 that hold nothing, and a Python that only notes what it is told."""

import platform
import sys
import zipfile

PYTHON = f"cp{sys.version_info[0]}{sys.version_info[1]}"
LINUX = f"manylinux_2_17_{platform.machine()}.manylinux2014_{platform.machine()}"


def name_of(torch="2.9.1", build="cpu", python=PYTHON, version="1.24.4.dev20251029", tags=LINUX):
    return f"k2-{version}+{build}.torch{torch}-{python}-{python}-{tags}.whl"


def make_wheel(folder, name, content="k2"):
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as wheel:
        wheel.writestr("k2/__init__.py", content)
    return folder / name


STAND_IN = r"""#!/bin/bash
log={log}
case "$*" in
  *k2_wheels.py*) # the real one, on pages of the test in place of k2's
    [[ -z ${{K2_PAGES:-}} ]] || set -- "$1" "${{2/#https:\/\/k2-fsa.github.io\/k2\//$K2_PAGES}}" "${{@:3}}"
    exec {python} "$@" ;;
  "-m venv "*) mkdir -p "$3/bin" && ln -s "$(readlink -f "$0")" "$3/bin/python" ;;
  "-m pip "*" download "*torch==*)
    echo "$*" >>$log
    [[ -n ${{NO_TORCH:-}} && "$*" != *modern-cpu.txt* ]] && exit 1
    while [[ $1 != --dest ]]; do shift; done
    echo torch >"$2/torch-2.9.1+cpu-stand-in.whl" ;;
  "-m pip "*) echo "$*" >>$log ;;
  "- modern "* | "- k2 "*) echo "it runs: stand-in" ;;
  "- "*) exit ${{K2_FAILS:-0}} ;;
  "-c "*) if (($# == 2)); then echo 3.12; else echo "$0"; fi ;;
esac
"""
