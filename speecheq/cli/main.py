"""``speecheq``, the console command: every stage of a recipe is one of its subcommands.

The functions of the subcommands import what they need themselves, so that ``--help`` answers at once.
"""

import argparse
import signal
import sys
from collections.abc import Sequence

from speecheq.cli import corpora, dataset, evaluation, finetune, inference, job_parts, reporting, training
from speecheq.common.command_line import OneLineParser, exit_status
from speecheq.common.log import set_up_logging


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = OneLineParser(prog="speecheq", description="Speech emotion recognition with the SpeechEQ metric and model.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (corpora, dataset, training, job_parts, evaluation, reporting, inference, finetune):
        module.add_commands(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit status, see ``exit_status``."""
    set_up_logging()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)

    def action() -> None:
        options = parser().parse_args(argv)
        options.arguments = sys.argv[1:] if argv is None else list(argv)
        options.run(options)

    return exit_status(action)


if __name__ == "__main__":
    sys.exit(main())
