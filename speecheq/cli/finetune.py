"""``speecheq finetune``: from a table of one's own clips to a scored model, through the commands of all stages."""

import os
import shlex
import time
from argparse import Namespace
from pathlib import Path

from speecheq.cli import corpora, dataset, evaluation, inference, reporting, training
from speecheq.cli.options import Commands, add_command
from speecheq.common.command_line import OneLineParser, positive_whole
from speecheq.common.log import log
from speecheq.common.process_pool import usable_cores


def _run_command(arguments: list[str]) -> None:
    """Run a command of another stage in this process, where torch and the package are loaded already."""
    parser = OneLineParser(prog="speecheq")
    commands = parser.add_subparsers(dest="command", required=True)
    for module in (corpora, dataset, training, evaluation, reporting, inference):
        module.add_commands(commands)
    options = parser.parse_args(arguments)
    options.arguments = arguments
    options.run(options)


def _finetune(options: Namespace) -> None:
    from speecheq.inference.own_data.plan import COMMANDS, Request, main_scores, make_plan

    started = time.monotonic()
    out = Path(os.path.abspath(options.out))
    work = Path(os.path.abspath(options.work or f"{out}.work"))
    plan = make_plan(Request(options.table, options.start, out, work, options.nj, options.licence))
    for note in plan.table.notes:
        log.warning("%s", note)
    table = plan.table
    counts = ", ".join(f"{name} {count}" for name, count in sorted(table.classes.items()))
    log.info("%s: %d clips (%s), protocol %s, from %s", table.name, table.clips, counts, table.protocol, options.start)
    for command in plan.commands():
        log.info("speecheq %s", shlex.join(command))
        _run_command(command)
    log.info("the same folds as a recipe: %s", shlex.join(plan.recipe()))
    log.info("all commands are in %s, the report in %s", work / COMMANDS, work / "exp" / "report.html")
    for sentence in (*main_scores(plan), *table.notes):
        print(sentence)
    print(
        f"{options.out}: the model of all {table.clips} clips, after {time.monotonic() - started:.0f} s in all; "
        f"try it: speecheq predict --model {shlex.quote(str(options.out))} some.wav"
    )


def add_commands(commands: Commands) -> None:
    """Add finetune."""
    add = add_command(
        commands, "finetune", _finetune, "From a table of your own clips to a scored model, in one command."
    ).add_argument
    add(
        "table",
        type=Path,
        metavar="TABLE",
        help="a .csv or .tsv with the columns path, label and speaker, and optionally gender, intensity and split",
    )
    add(
        "--from",
        dest="start",
        default="starter",
        metavar="MODEL",
        help="what to start from: starter (default), a best.pt, model folder or hub id, whisper-base or "
        "whisper-base=FOLDER, or nothing, for filter banks and a network from scratch",
    )
    add("--out", type=Path, required=True, metavar="FOLDER", help="model folder to write")
    add("--work", type=Path, metavar="FOLDER", help="folder of all stages and the report (default: OUT.work)")
    add(
        "--nj",
        type=positive_whole,
        default=usable_cores(),
        help="processes, and trainings at once (default: the CPU cores)",
    )
    add("--licence", default="", help="licence of the weights, such as apache-2.0")
