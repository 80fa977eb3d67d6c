"""The log: one entry, one line."""

import logging

from speecheq.common.log import log, set_up_logging


def test_log_lines_carry_the_time(capsys):
    before = log.handlers[:]
    try:
        set_up_logging()
        log.info("a line")
        line = capsys.readouterr().err
    finally:
        log.handlers[:] = before
    assert line.endswith("INFO a line\n") and line[:2] == "20" and line[4] == "-"
    assert log.level == logging.INFO
