"""Versions, git revision, machine and command, for every experiment folder and every table."""

import platform
import shlex
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "k2", "lhotse", "torchaudio", "kaldi_native_fbank", "pypinyin", "numpy", "tensorboard")


def git_revision() -> str:
    """The revision of the code, with ``-dirty`` if it was changed; ``unknown`` outside a checkout."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()

    try:
        revision = git("rev-parse", "--short=10", "HEAD")
        return revision + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def versions() -> dict[str, str]:
    """The installed versions of Python and of the packages that matter."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def run_information(**more: Any) -> dict[str, Any]:
    """All provenance, and ``more``, as one JSON-serialisable mapping."""
    return {
        "versions": versions(),
        "git": git_revision(),
        "machine": f"{platform.system()} {platform.machine()}, {platform.node()}",
        "command": shlex.join(sys.argv),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        **more,
    }
