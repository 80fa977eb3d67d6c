"""``python -m speecheq.predict RECORDING ...``: the command ``speecheq predict`` without the others."""

import signal
import sys
from collections.abc import Sequence

from speecheq.common.command_line import OneLineParser, exit_status
from speecheq.common.log import set_up_logging
from speecheq.inference import predict_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv`` (default: ``sys.argv``). Returns the exit status: 0, or 1 after an InputError."""
    set_up_logging()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = OneLineParser(prog="python -m speecheq.predict", description="Predict emotions in recordings.")
    predict_command.add_arguments(parser)
    return exit_status(lambda: predict_command.run(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
