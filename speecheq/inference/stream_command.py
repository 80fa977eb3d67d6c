"""``speecheq predict --stream -``: predictions for what comes from standard input, each when its segment ends."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from speecheq.common.command_line import positive_whole
from speecheq.common.errors import InputError
from speecheq.common.files import whole_text
from speecheq.common.log import log
from speecheq.common.signals import StopRequest
from speecheq.inference.stream_input import ENCODINGS

if TYPE_CHECKING:
    from speecheq.inference.parts import Channels
    from speecheq.inference.prediction import Prediction
    from speecheq.inference.predictor import Predictor
    from speecheq.inference.stream_input import StreamFormat

SPEECH = "speech"
STREAMED = ("text", "json", "csv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the options of streams."""
    parser.add_argument(
        "--stream",
        action="store_true",
        help="predict - (standard input) while it comes: each segment of speech is answered when it ends; wav, or raw "
        "samples with --rate; Ctrl-C ends it",
    )
    parser.add_argument("--rate", type=positive_whole, metavar="HZ", help="the rate of a stream of raw samples")
    parser.add_argument(
        "--encoding", choices=ENCODINGS, help="the samples of a raw stream, by ffmpeg's names (default: s16le)"
    )
    parser.add_argument(
        "--stream-channels", type=positive_whole, metavar="N", help="the channels of a raw stream (default: 1)"
    )


def check(given: argparse.Namespace) -> None:
    """Raise InputError where the options do not go together."""
    if not given.stream:
        for name in ("rate", "encoding", "stream_channels"):
            if getattr(given, name) is not None:
                raise InputError(f"--{name.replace('_', '-')} describes a stream of raw samples: give --stream too.")
        return
    if given.recordings != ["-"]:
        raise InputError("--stream predicts standard input alone: name - as the recording.")
    if given.rate is None and (given.encoding or given.stream_channels):
        raise InputError("a stream of raw samples needs its --rate too; without, it is wav, whose header says all.")
    if given.format not in STREAMED:
        raise InputError(
            f"--format {given.format} labels a whole recording, and a stream has no end yet; choose --format "
            f"{', '.join(STREAMED[:-1])} or {STREAMED[-1]}."
        )
    if given.plot is not None:
        raise InputError("--plot draws a whole recording, and a stream has no end yet; leave it out.")
    if given.one_speaker or given.speaker_from:
        raise InputError("--one-speaker and --speaker-from need whole recordings, and a stream has no end yet.")
    if given.segments not in (None, SPEECH) or given.window:
        raise InputError("a stream is cut into its speech: leave out --window, and --segments but speech.")


def raw_format(given: argparse.Namespace) -> "StreamFormat | None":
    """The format of raw samples that the options give; None: the stream is wav."""
    from speecheq.inference.stream_input import StreamFormat

    if given.rate is None:
        return None
    return StreamFormat(given.rate, given.encoding or "s16le", given.stream_channels or 1)


def standard_input() -> int:
    """The file descriptor of standard input; InputError where it is closed."""
    if sys.stdin is None:
        raise InputError("standard input is closed, and a stream is to come from it.")
    return sys.stdin.fileno()


def predict_stream(
    predictor: "Predictor",
    descriptor: int,
    raw: "StreamFormat | None",
    channels: "Channels",
    format: str = "text",
    file: Path | None = None,
    whole: bool = False,
) -> None:
    """Write the predictions for what comes from a file descriptor, until it ends, or SIGINT or SIGTERM comes.

    What is open then is answered. They go to ``file``, or to standard output; ``whole`` adds the answer for all of the
    stream. Raises InputError for a stream that cannot be used.
    """
    from speecheq.inference.live import LiveStream
    from speecheq.inference.output_file import check_output
    from speecheq.inference.parts import MIX
    from speecheq.inference.row_formats import ROW_WRITERS, Table
    from speecheq.inference.stream_input import open_stream, read_pieces
    from speecheq.inference.whole_recording import with_wholes

    with ExitStack() as cleanup:
        stop = cleanup.enter_context(StopRequest())
        form, blocks = open_stream(read_pieces(descriptor, lambda: stop.signal), raw)
        stream = LiveStream(predictor, form.rate, form.channels, channels)
        log.info(
            "standard input: %d Hz, %s, %d channel%s; a segment is answered after a pause of %g s",
            form.rate,
            form.encoding,
            form.channels,
            "" if form.channels == 1 else "s",
            predictor.windows.pause,
        )

        def predictions() -> Iterator["Prediction"]:
            for block in blocks:
                yield from stream.add(block)
            yield from stream.finish()

        output = sys.stdout
        if file is not None:
            output = cleanup.enter_context(whole_text(check_output(file, [])))
        table = Table(predictor.labels.classes.names, channels=channels != MIX, whole=whole)
        found = with_wholes(predictions(), predictor.name_of) if whole else predictions()
        ROW_WRITERS[format](found, table, output)
        log.info("standard input: %.1f s were predicted", stream.seconds)
