"""The command ``speecheq predict``, also ``python -m speecheq.predict``: predictions as text, JSON or CSV.

What takes long to import is imported when the command runs, so that ``--help`` is quick.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from speecheq.common.command_line import positive, positive_whole, share
from speecheq.common.errors import InputError
from speecheq.common.files import whole_file
from speecheq.common.log import log, one_line
from speecheq.common.progress import Progress

if TYPE_CHECKING:
    from speecheq.inference.predictor import Prediction, Predictor
    from speecheq.inference.speakers import SpeakerOf

# From this number of recordings on, progress is shown.
SHOW_PROGRESS_FROM = 20


def _write_text(predictions: Iterable["Prediction"], classes: Sequence[str], stream: TextIO) -> None:
    for p in predictions:
        where = f"{p.source} {p.start:.2f}-{p.end:.2f} s" if p.windowed else p.source
        print(one_line(f"{where}: {p.summary()}"), file=stream, flush=True)


def _write_json(predictions: Iterable["Prediction"], classes: Sequence[str], stream: TextIO) -> None:
    for prediction in predictions:
        print(json.dumps(_rounded(asdict(prediction)), ensure_ascii=False), file=stream, flush=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, 6) if isinstance(value, float) else value


def _write_csv(predictions: Iterable["Prediction"], classes: Sequence[str], stream: TextIO) -> None:
    """One row a prediction; a cell is empty where the prediction has no such value."""
    from speecheq.evaluation.score_files import POSTERIOR
    from speecheq.inference.output_file import FIRST_COLUMNS

    writer = csv.writer(stream, lineterminator="\n")
    posteriors = [POSTERIOR + name for name in classes]
    writer.writerow([*FIRST_COLUMNS, *posteriors, "gender", "phones", "speech", "note"])
    for p in predictions:
        times = (f"{p.start:.3f}", f"{p.end:.3f}")
        eis = None if p.eis is None else f"{p.eis:.4f}"
        posterior = [None if p.posterior is None else f"{p.posterior[name]:.6f}" for name in classes]
        phones = None if p.phones is None else " ".join(p.phones)
        speech = None if p.speech is None else f"{p.speech:.3f}"
        writer.writerow([p.source, *times, p.emotion, p.name, eis, *posterior, p.gender, phones, speech, p.note])
        stream.flush()


WRITERS = {"text": _write_text, "json": _write_json, "csv": _write_csv}


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


def predict(
    names: Sequence[str],
    predictor: "Predictor",
    format: str = "text",
    output: Path | None = None,
    speaker_of: "SpeakerOf | None" = None,
) -> None:
    """Predict recordings and write one line for each clip, to the file ``output`` or to standard output.

    ``names`` are files, folders, manifests or ``-`` (see ``find_segments``); ``format`` is a key of WRITERS;
    ``speaker_of`` names their speakers for a model that is normalised by speaker. InputError
    where ``output`` is an input or a file of another kind (see ``check_output``).
    A recording that cannot be read is logged in one line and the others are predicted; at the end an InputError gives
    the number of those that failed.
    """
    from speecheq.inference.output_file import check_output
    from speecheq.inference.recordings import STANDARD_INPUT, find_segments

    failures: list[InputError] = []
    shown: Progress | None = None

    def on_error(error: InputError) -> None:
        failures.append(error)
        _count(shown)
        log.error("%s", error)

    with ExitStack() as cleanup:
        segments = list(find_segments(names, cleanup))
        stream = sys.stdout
        if output is not None:
            output = check_output(output, [*(name for name in names if name != STANDARD_INPUT), *segments])
            temporary = cleanup.enter_context(whole_file(output))
            stream = cleanup.enter_context(open(temporary, "w", encoding="utf-8", newline=""))
        if len(segments) >= SHOW_PROGRESS_FROM:
            shown = cleanup.enter_context(Progress("predicting", len(segments), unit="recordings"))
        predictions = _counted(predictor.predict_segments(segments, on_error, speaker_of), shown)
        WRITERS[format](predictions, predictor.labels.classes.names, stream)
    if failures:
        raise InputError(
            f"{len(failures)} of {len(segments)} recordings could not be predicted, for the reasons above."
        )


def add_reject(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the option --reject."""
    parser.add_argument(
        "--reject",
        type=share,
        metavar="P",
        help="answer unsure where the posterior is so low that more than the share P of the answers, such as 0.1, "
        "would be wrong, by the model's dev part (default: always name a class)",
    )


def log_rejection(predictor: "Predictor", error_rate: float) -> None:
    """Log what --reject means for the model."""
    answers, calibration = predictor.answers, predictor.labels.calibration
    assert answers is not None
    log.info(
        "--reject %g: answers from a posterior of %.3f on; of the %d clips of the model's dev part %.1f %% have an "
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
        help="cut recordings that are longer into windows of this length (default: cut those above 30 s into windows "
        "of 6 s)",
    )
    parser.add_argument(
        "--hop", type=positive, metavar="SECONDS", help="step from window to window (default: half a window)"
    )
    speakers = parser.add_mutually_exclusive_group()
    speakers.add_argument(
        "--one-speaker",
        action="store_true",
        help="all recordings are of one person, by whose mean and deviation features are then normalised (models with "
        "data.cmvn speaker or global)",
    )
    speakers.add_argument(
        "--speaker-from",
        metavar="folder|FILE",
        help="the recordings of a folder are of one person; or a CSV or TSV file with the columns file and speaker",
    )
    parser.add_argument(
        "--speech-activity",
        choices=("silero", "energy", "none"),
        help="what finds the speech, on which alone predictions rest (default: what the model was trained with)",
    )
    parser.add_argument(
        "--format", choices=tuple(WRITERS), default="text", help="json writes one JSON object a line (default: text)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="file to write (default: standard output)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the model runs")
    parser.add_argument(
        "--batch-size", type=positive_whole, help="clips that are predicted at once (default: 8 on a CPU, 32 on a GPU)"
    )
    parser.add_argument("--threads", type=positive_whole, help="CPU threads (default: torch chooses)")


def run(given: argparse.Namespace) -> None:
    """Run the command on the parsed arguments of ``add_arguments``."""
    import torch

    from speecheq.inference.predictor import Predictor
    from speecheq.inference.windows import Windows

    if given.threads:
        torch.set_num_threads(given.threads)
    if given.hop and not given.window:
        raise InputError("--hop is the step from window to window: give --window too.")
    windows = Windows(given.window, given.hop)
    if given.hop and given.hop > given.window:
        log.warning(
            "--hop %g is longer than --window %g: the %g s between two windows are not predicted",
            given.hop,
            given.window,
            given.hop - given.window,
        )
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
    speaker_of = _speakers(given)
    if predictor.by_speaker and speaker_of is None:
        log.warning(
            "the model is normalised by speaker, and each recording is by itself alone; say whose they are by "
            "--one-speaker or --speaker-from"
        )
    predict(given.recordings, predictor, given.format, given.output, speaker_of)


def _speakers(given: argparse.Namespace) -> "SpeakerOf | None":
    """Whose the recordings are, by the options."""
    from speecheq.inference.speakers import FOLDER, folder_of, one_speaker, read_speakers

    if given.one_speaker:
        return one_speaker
    if given.speaker_from is None:
        return None
    return folder_of if given.speaker_from == FOLDER else read_speakers(Path(given.speaker_from))
