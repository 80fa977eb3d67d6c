"""The command ``speecheq predict``, also ``python -m speecheq.predict``: predictions as text, tables or labels.

What takes long to import is imported when the command runs, so that ``--help`` is quick.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from speecheq.common.command_line import positive, positive_whole, share
from speecheq.common.device import DEVICES
from speecheq.common.errors import InputError
from speecheq.common.files import whole_text
from speecheq.common.log import log
from speecheq.common.progress import Progress
from speecheq.config.speech_activity import SPEECH_ACTIVITIES
from speecheq.inference import stream_command
from speecheq.inference.prediction import LABELS, ROWS

if TYPE_CHECKING:
    from speecheq.inference.parts import Channels, SegmentsFile
    from speecheq.inference.prediction import Prediction
    from speecheq.inference.predictor import Predictor
    from speecheq.inference.recordings import Segment
    from speecheq.inference.speakers import SpeakerOf
    from speecheq.inference.windows import Windows

SPEECH, WINDOWS = "speech", "windows"  # what recordings are cut into, beside the segments of a file
# From this number of recordings on, progress is shown.
SHOW_PROGRESS_FROM = 20


def _counted(predictions: Iterable["Prediction"], shown: Progress | None) -> Iterator["Prediction"]:
    """Pass predictions on, and report each recording as done with its first answer."""
    before = None
    for prediction in predictions:
        yield prediction
        continues = before is not None and before.source == prediction.source and before.start < prediction.start
        if not (prediction.windowed and continues):
            _count(shown)
        before = prediction


def _count(shown: Progress | None) -> None:
    """Report one more recording as done. One that breaks off after its first answers is reported twice."""
    if shown is not None and (shown.total is None or shown.count < shown.total):
        shown.update()


@dataclass(frozen=True)
class Answers:
    """What is written beside the predictions for segments, and how.

    ``format`` is one of ROWS or LABELS, ``output`` a file (None: standard output). ``whole`` adds the answer for each
    whole recording, and ``plot`` is a picture to draw, of one recording.
    """

    format: str = "text"
    output: Path | None = None
    whole: bool = False
    plot: Path | None = None

    def __post_init__(self) -> None:
        if self.whole and self.format in LABELS:
            raise InputError(
                f"--whole has no place in the format {self.format}; choose --format {', '.join(ROWS[:-1])} or "
                f"{ROWS[-1]}, or leave it out."
            )
        if self.plot is not None:
            from speecheq.inference.output_file import check_picture

            check_picture(self.plot)


def _recording_of(segments: Sequence["Segment | InputError"], given: Answers) -> "Segment | None":
    """The one recording of a format that labels it, or of a picture; InputError where there are several."""
    recordings = {(one.name, one.path): one for one in segments if not isinstance(one, InputError)}
    wants = "--plot" if given.plot else f"--format {given.format}"
    if len(recordings) > 1 and (given.plot or given.format not in (*ROWS, "rttm")):
        raise InputError(f"{wants} is of one recording, and {len(recordings)} are given; predict them one by one.")
    return next(iter(recordings.values()), None)


def predict(
    names: Sequence[str],
    predictor: "Predictor",
    answers: Answers = Answers(),
    speaker_of: "SpeakerOf | None" = None,
    channels: "Channels" = "mix",
    listed: "SegmentsFile | None" = None,
) -> None:
    """Predict recordings and write what ``answers`` says, to its file or to standard output.

    ``names`` are files, folders, manifests or ``-`` (see ``find_segments``); ``channels`` says which of their channels
    are read, and ``listed`` are their segments, if a file lists them. ``speaker_of`` names their speakers, by whom
    features are then normalised. A recording that cannot be read is logged in one line and the others are predicted; at
    the end an InputError gives the number of those that failed. Raises InputError where the output is an input or a
    file of another kind (see ``check_output``).
    """
    from speecheq.inference.output_file import check_output
    from speecheq.inference.parts import find_parts
    from speecheq.inference.recordings import STANDARD_INPUT, find_segments

    failures: list[InputError] = []
    shown: Progress | None = None

    def on_error(error: InputError) -> None:
        failures.append(error)
        _count(shown)
        log.error("%s", error)

    with ExitStack() as cleanup:
        segments = list(find_parts(find_segments(names, cleanup), channels, listed))
        unit = "segments" if listed else "recordings"
        recording = _recording_of(segments, answers)
        inputs = [*(name for name in names if name != STANDARD_INPUT), *segments, *([listed.path] if listed else [])]
        picture = None if answers.plot is None else check_output(answers.plot, inputs, "--plot")
        stream = sys.stdout
        if answers.output is not None:
            stream = cleanup.enter_context(whole_text(check_output(answers.output, inputs)))
        if len(segments) >= SHOW_PROGRESS_FROM:
            shown = cleanup.enter_context(Progress("predicting", len(segments), unit=unit))
        predictions = _counted(predictor.predict_segments(segments, on_error, speaker_of), shown)
        kept = _write(predictions, predictor, answers, segments, stream)
        if picture is not None and recording is not None and kept:
            predictor.timeline_of(recording, kept).plot(picture)
    if failures:
        raise InputError(f"{len(failures)} of {len(segments)} {unit} could not be predicted, for the reasons above.")


def _write(
    predictions: Iterable["Prediction"],
    predictor: "Predictor",
    given: Answers,
    segments: Sequence["Segment | InputError"],
    stream: TextIO,
) -> "list[Prediction]":
    """Write the predictions of ``segments``. Returns those that a picture needs."""
    from speecheq.inference.label_formats import LABEL_WRITERS
    from speecheq.inference.recordings import seconds_of
    from speecheq.inference.row_formats import ROW_WRITERS, Table
    from speecheq.inference.whole_recording import with_wholes

    kept: list[Prediction] = []
    if given.format in LABELS:
        kept = list(predictions)
        recording = _recording_of(segments, given)
        seconds = seconds_of(recording) if recording is not None and kept else 0.0
        LABEL_WRITERS[given.format](kept, seconds, stream)
        return kept
    passed = predictions if given.plot is None else _kept(predictions, kept)
    table = Table.of(predictor.labels.classes.names, segments, given.whole)
    ROW_WRITERS[given.format](with_wholes(passed, predictor.name_of) if given.whole else passed, table, stream)
    return kept


def _kept(predictions: Iterable["Prediction"], kept: "list[Prediction]") -> Iterator["Prediction"]:
    """Pass predictions on, and keep them."""
    for prediction in predictions:
        kept.append(prediction)
        yield prediction


def add_reject(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the option --reject."""
    parser.add_argument(
        "--reject",
        type=share,
        metavar="P",
        help="answer unsure where the posterior is so low that more than the share P of the answers, such as 0.1, "
        "would be wrong, by the model's held-out clips (default: always name a class)",
    )


def log_rejection(predictor: "Predictor", error_rate: float) -> None:
    """Log what --reject means for the model."""
    answers, calibration = predictor.answers, predictor.labels.calibration
    assert answers is not None
    log.info(
        "--reject %g: answers from a posterior of %.3f on; of the model's %d held-out clips %.1f %% have an "
        "answer, %.1f %% of these a wrong one",
        error_rate,
        answers.threshold,
        calibration.clips,
        100 * answers.answered / calibration.clips,
        100 * answers.error_rate,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the arguments of the command."""
    parser.add_argument(
        "recordings",
        nargs="+",
        metavar="RECORDING",
        help="audio files, folders, lhotse manifests (.jsonl, .jsonl.gz), Kaldi data folders, - for standard input",
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="a best.pt, a model folder, an .onnx file, or the id of a model on the hub (default: the model that comes "
        "with the package)",
    )
    parser.add_argument("--gender", action="store_true", help="predict the speaker's gender too")
    parser.add_argument("--phones", action="store_true", help="predict the phones too")
    add_reject(parser)
    parser.add_argument(
        "--window",
        type=positive,
        metavar="SECONDS",
        help="cut recordings that are longer into windows of this length (default: see --segments)",
    )
    parser.add_argument(
        "--hop", type=positive, metavar="SECONDS", help="step from window to window (default: half a window)"
    )
    speakers = parser.add_mutually_exclusive_group()
    speakers.add_argument(
        "--one-speaker",
        action="store_true",
        help="all recordings are of one person, by whose mean and standard deviation features are then "
        "normalised (models with data.cmvn speaker or global)",
    )
    speakers.add_argument(
        "--speaker-from",
        metavar="folder|FILE",
        help="the recordings of a folder are of one person; or a CSV or TSV file with the columns file and speaker",
    )
    parser.add_argument(
        "--speech-activity",
        choices=SPEECH_ACTIVITIES,
        help="what finds the speech, on which alone predictions rest (default: what the model was trained with)",
    )
    _add_parts(parser)
    stream_command.add_arguments(parser)
    _add_output(parser)
    parser.add_argument("--device", choices=DEVICES, default="auto", help="where the model runs")
    parser.add_argument(
        "--batch-size", type=positive_whole, help="clips that are predicted at once (default: 8 on a CPU, 32 on a GPU)"
    )
    parser.add_argument("--threads", type=positive_whole, help="CPU threads (default: torch chooses)")


def _add_parts(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the options that say what is predicted of recordings."""
    parser.add_argument(
        "--segments",
        metavar="speech|windows|FILE",
        help="cut recordings into their speech, at pauses, into windows, or as a file says (RTTM, CSV, TSV, TextGrid, "
        "eaf, SRT, VTT, labels of Audacity in a .txt, Kaldi's segments); default: those above 30 s into their speech, "
        "or windows of 6 s where speech is not looked for",
    )
    parser.add_argument(
        "--pause",
        type=positive,
        metavar="SECONDS",
        help="a pause that is longer ends a segment of speech (default: 1.4)",
    )
    parser.add_argument(
        "--tier",
        action="append",
        default=[],
        metavar="NAME",
        help="a tier of the file of --segments that counts; may be repeated (default: all)",
    )
    parser.add_argument(
        "--channels",
        default="mix",
        metavar="mix|each|N",
        help="predict the mean of all channels, each by itself, or channel N alone (default: mix)",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the options that say what is written."""
    parser.add_argument(
        "--format",
        choices=(*ROWS, *LABELS),
        default="text",
        help="json writes one JSON object a line; from rttm on, the labels of one recording (default: text)",
    )
    parser.add_argument(
        "--whole", action="store_true", help="answer for each recording as a whole too, after its segments"
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw waveform, classes and EIS of a recording, as .svg, .png or .html (of one recording)",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="file to write (default: standard output)")


def _windows(given: argparse.Namespace) -> "Windows":
    """How recordings are cut, by the options."""
    from speecheq.inference.windows import AUTO, PAUSE, Windows

    if given.hop and not given.window:
        raise InputError("--hop is the step from window to window: give --window too.")
    cut_to_speech = given.segments in (None, SPEECH) and not given.window
    if given.pause and not cut_to_speech:
        raise InputError("--pause ends a segment of speech: leave out --window, and --segments but speech.")
    if given.segments == SPEECH and given.window:
        raise InputError("--segments speech and --window exclude each other: leave one out.")
    is_file = given.segments not in (None, SPEECH, WINDOWS)
    if is_file and given.window:
        raise InputError("--window cuts recordings, and --segments names a file that does: leave one out.")
    if given.tier and not is_file:
        raise InputError("--tier is a tier of the file of --segments: give that too.")
    if given.hop and given.hop > given.window:
        log.warning(
            "--hop %g is longer than --window %g: the %g s between two windows are not predicted",
            given.hop,
            given.window,
            given.hop - given.window,
        )
    into = given.segments if given.segments in (SPEECH, WINDOWS) else AUTO
    return Windows(given.window, given.hop, into, given.pause or PAUSE)


def run(given: argparse.Namespace) -> None:
    """Run the command on the parsed arguments of ``add_arguments``."""
    import torch

    from speecheq.inference.parts import SegmentsFile, parse_channels
    from speecheq.inference.predictor import Predictor
    from speecheq.inference.speakers import speakers_of_options

    stream_command.check(given)
    if given.threads:
        torch.set_num_threads(given.threads)
    windows, channels = _windows(given), parse_channels(given.channels)
    answers = Answers(given.format, given.output, given.whole, given.plot)
    listed = None
    if given.segments not in (None, SPEECH, WINDOWS):
        listed = SegmentsFile(Path(given.segments), given.tier)
    predictor = Predictor(
        given.model,
        given.device,
        given.gender,
        given.phones,
        windows,
        given.batch_size,
        given.speech_activity,
        given.reject,
    )
    if given.reject is not None:
        log_rejection(predictor, given.reject)
    if given.stream:
        raw, descriptor = stream_command.raw_format(given), stream_command.standard_input()
        stream_command.predict_stream(predictor, descriptor, raw, channels, given.format, given.output, given.whole)
        return
    speaker_of = speakers_of_options(given.one_speaker, given.speaker_from)
    if predictor.by_speaker and speaker_of is None:
        log.warning(
            "the model is normalised by speaker, and each recording is by itself alone; say whose they are by "
            "--one-speaker or --speaker-from"
        )
    predict(given.recordings, predictor, answers, speaker_of, channels, listed)
