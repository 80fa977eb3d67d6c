"""The commands that show results: report, readme, status."""

from argparse import Namespace
from pathlib import Path

from speecheq.cli.options import Commands, add_command, add_data_option, add_exp_option
from speecheq.common.log import log


def _report(options: Namespace) -> None:
    from speecheq.reporting.report import report

    print(report(options.exp, options.title, options.results, options.table))
    log.info(
        "the tables above are in %s, as LaTeX and CSV in %s; %s links to the report of each experiment",
        options.results,
        options.exp / "tables",
        options.exp / "report.html",
    )


def _readme(options: Namespace) -> None:
    from speecheq.reporting.readme_tables import update

    log.info("%s: %s", options.page, "updated" if update(options.page) else "is up to date")


def _status(options: Namespace) -> None:
    from speecheq.reporting.recipe_status import Status, status_lines

    for line in status_lines(Status(options.data, options.exp, not options.no_corpora).all()):
        print(line)


def add_commands(commands: Commands) -> None:
    """Add report, readme and status."""
    report = add_command(
        commands, "report", _report, "Stage 5: write the tables of all experiments of a recipe from their score files."
    )
    add_exp_option(report)
    add = report.add_argument
    add("--title", required=True, help="title of the page")
    add("--results", type=Path, required=True, help="page to write")
    add("--table", type=Path, help="the paper's table (conf/table.yaml), to be shown beside ours")

    add = add_command(
        commands, "readme", _readme, "Write the tables of corpora and results into README.md."
    ).add_argument
    add("page", type=Path, metavar="README", help="page to bring up to date")

    status = add_command(
        commands, "status", _status, "Show what of a recipe is done, stale or missing, and the time and disk it took."
    )
    add_data_option(status)
    add_exp_option(status)
    add = status.add_argument
    add("--no-corpora", action="store_true", help="do not check whether the corpora have changed")
