"""What README.md and docs/*.md name is there: options, settings, systems, links; their tables are up to date."""

import re
import shutil
import subprocess
import sys

import pytest
import yaml
from doc_pages import FILES, PAGES, ROOT, blocks, inline_code, prose, tables, text_of

from speecheq.cli.main import parser
from speecheq.cluster.schedulers import SCHEDULERS
from speecheq.config.layers import resolve, setting_names
from speecheq.config.schema import Config
from speecheq.dataset.published_folds import read_folds_file
from speecheq.reporting.readme_tables import with_tables

RECIPES = ("mandarin", "iemocap", "mtl_aug")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
# Options that a page shows as they are typed, of no program, or of a cluster or container.
INVENTED = {"--name", "--qos", "--gres", "--nv", "--shm-size"}


def help_of(*command):
    environment = {"PATH": "/usr/bin:/bin", "SPEECHEQ_VENV": sys.prefix, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def recipe_options():
    """All options of the recipes, as --help has them."""
    return {option for name in RECIPES for option in OPTION.findall(help_of(f"egs/{name}/run.sh", "--help"))}


@pytest.fixture(scope="module")
def options(recipe_options):
    """All options of all programs that the pages speak of."""
    commands = parser()._subparsers._group_actions[0].choices.values()
    texts = [*(command.format_help() for command in commands), help_of("utils/install.sh", "--help")]
    for scheduler in SCHEDULERS.values():
        texts += map(" ".join, (scheduler.submit, *scheduler.flags.values()))
    return {"--help", *recipe_options, *(option for text in texts for option in OPTION.findall(text))}


@pytest.mark.parametrize("page", PAGES)
def test_every_option_of_a_page_is_in_a_help(page, options):
    codes = [*inline_code(prose(page)), *(code for language, code in blocks(page) if language == "sh")]
    named = {option for code in codes for option in OPTION.findall(code)}
    assert named <= options | INVENTED


def test_every_option_of_the_recipes_is_in_their_page(recipe_options):
    told = set(OPTION.findall(text_of("docs/recipes.md")))
    assert len(recipe_options) > 30 and recipe_options <= told, sorted(recipe_options - told)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_one(page):
    commands = parser()._subparsers._group_actions[0].choices
    for code in [*inline_code(prose(page)), *(code for language, code in blocks(page) if language == "sh")]:
        assert set(re.findall(r"^speecheq ([a-z-]+)", code, re.M)) <= set(commands), f"{page}: {code}"


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_of_a_page_exists(page):
    names = setting_names()
    parts = "|".join(vars(Config()))
    for code in inline_code(text_of(page)):
        for name in re.findall(rf"(?:^|[ =])((?:{parts})\.[a-z_0-9]+)(?=$|[ :=])", code):
            assert name in names or name.rpartition(".")[2] in FILES, f"{page}: {name}"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        assert link.startswith(("https://", "http://")) or ((ROOT / page).parent / link.partition("#")[0]).exists(), (
            f"{page}: {link}"
        )


def test_every_page_is_linked_from_the_readme():
    assert set(PAGES) - {"README.md"} == set(re.findall(r"\]\((docs/[a-z_]+\.md)\)", prose("README.md")))


def test_the_systems_of_the_recipes_page_are_those_of_the_recipes():
    heading, *rows = next(table for table in tables("docs/recipes.md") if table[0][0] == "system" and "row" in table[0])
    told = {inline_code(row[0])[0]: yaml.safe_load("\n".join(inline_code(row[-1])) or "{}") for row in rows}
    names = {inline_code(row[0])[0]: row[heading.index("row")] for row in rows}
    for recipe in ("mandarin", "iemocap"):
        conf = ROOT / "egs" / recipe / "conf"
        assert told == yaml.safe_load((conf / "systems.yaml").read_text(encoding="utf-8"))
        for row in yaml.safe_load((conf / "table.yaml").read_text(encoding="utf-8"))["rows"]:
            assert row["system"] in (None, "probe", "majority") or names[row["system"]] == row["name"]


def test_the_systems_of_mtl_aug_are_those_of_its_page():
    _, *rows = next(table for table in tables("docs/mtl_aug.md") if table[0][0] == "system")
    systems = yaml.safe_load((ROOT / "egs/mtl_aug/conf/systems.yaml").read_text(encoding="utf-8"))
    assert {name for row in rows for name in inline_code(row[0])} == set(systems)


@pytest.mark.parametrize("page", ["README.md", "docs/corpora.md"])
def test_the_tables_of_a_page_are_up_to_date(page):
    text = text_of(page)
    assert with_tables(text, page) == text, f"run: speecheq readme {page}"


def test_the_readme_is_short():
    assert len(text_of("README.md").splitlines()) <= 150


def test_the_configuration_of_the_recipes_page_is_one(tmp_path):
    conf = shutil.copytree(ROOT / "egs" / "mandarin" / "conf", tmp_path / "conf")
    (conf / "own.yaml").write_text(dict(blocks("docs/recipes.md"))["yaml"], encoding="utf-8")
    own, small = (resolve(conf / name, conf / "systems.yaml", "speecheq") for name in ("own.yaml", "small.yaml"))
    assert own.model == small.model and own.optim.max_steps == 2 * small.optim.max_steps


def test_the_folds_of_the_protocols_page_are_read(tmp_path):
    (tmp_path / "folds.tsv").write_text(dict(blocks("docs/protocols.md"))["tsv"], encoding="utf-8")
    assert [row.fold for row in read_folds_file(tmp_path / "folds.tsv")] == [1, 2]


@pytest.mark.parametrize("page", PAGES)
def test_lines_are_not_too_long(page):
    assert [line for line in text_of(page).splitlines() if len(line) > 120 and not line.startswith("|")] == []
