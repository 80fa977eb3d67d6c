"""The score files that are kept with the project: egs/*/scores, packed by utils/pack_scores.py."""

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from report_data import make

from speecheq.reporting import report

ROOT = Path(__file__).resolve().parents[2]
ARCHIVES = sorted(ROOT.glob("egs/*/scores/*.tar.xz"))
PACK = ROOT / "utils/pack_scores.py"

pytestmark = pytest.mark.usefixtures("no_pictures")


def pack(exp, archive):
    command = [sys.executable, PACK, "--exp", exp, "--archive", archive]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def unpack(archive, folder):
    with tarfile.open(archive) as files:
        files.extractall(folder)  # of our own making
    return folder


def body(page):
    """All lines of a page but its heading, which may have been given a longer title."""
    return page.split("\n", 1)[1]


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_a_page_of_results_follows_from_its_score_files(archive, tmp_path):
    recipe = archive.parents[1]
    made = report.report(unpack(archive, tmp_path / "exp"), "", tmp_path / "page.md", recipe / "conf/table.yaml")
    assert body(made) == body((recipe / f"{archive.name.removesuffix('.tar.xz')}.md").read_text())


def test_the_archive_of_an_experiment_makes_its_page(tmp_path):
    exp = tmp_path / "exp"
    make(exp)
    make(exp, system="wo_mtl", right=0.2)
    page = report.report(exp, "a test", tmp_path / "page.md")
    first, second = tmp_path / "first.tar.xz", tmp_path / "second.tar.xz"
    for archive in (first, second):
        assert pack(exp, archive).returncode == 0
    assert first.read_bytes() == second.read_bytes()
    assert report.report(unpack(first, tmp_path / "again"), "a test", tmp_path / "page.md") == page


def test_what_cannot_be_packed_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    for exp in ("none", "empty"):
        result = pack(tmp_path / exp, tmp_path / "a.tar.xz")
        assert result.returncode == 1 and "has scored no fold in it; run stages 4 and 5" in result.stderr
    make(tmp_path / "exp")
    assert pack(tmp_path / "exp", tmp_path / "a.zip").returncode == 1
    assert not list(tmp_path.glob("a.*"))


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_an_archive_names_no_folder_of_a_machine(archive, tmp_path):
    for file in unpack(archive, tmp_path).rglob("*.*"):
        assert file.is_dir() or not re.search(r"/(home|root|work|tmp|data|mnt|Users)/", file.read_text()), file
