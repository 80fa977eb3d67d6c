"""The command ``speecheq embed``: embeddings of recordings as a file.

What takes long to import is imported when the command runs, so that ``--help`` is quick.
"""

import argparse
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from speecheq.common.command_line import positive, positive_whole
from speecheq.common.device import DEVICES
from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.common.progress import Progress
from speecheq.config.speech_activity import SPEECH_ACTIVITIES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the arguments of the command."""
    add = parser.add_argument
    add(
        "recordings",
        nargs="+",
        metavar="RECORDING",
        help="whatever speecheq predict takes, and lhotse manifests of recordings, cuts or supervisions",
    )
    add("--out", type=Path, required=True, metavar="FILE", help="file to write: .npz, .parquet, or .jsonl.gz (cuts)")
    add(
        "--level",
        choices=("utterance", "segment", "frame"),
        default="utterance",
        help="a vector for each recording (default), for each window of it, or for each frame",
    )
    add(
        "--layer",
        type=int,
        metavar="N",
        help="the states of this layer of the model's encoder, averaged but for frames (default: the model's own)",
    )
    add("--model", metavar="MODEL", help="model to use, named as for speecheq predict (default: the starter)")
    add("--window", type=positive, metavar="SECONDS", help="with --level segment: length of a window (default: 6)")
    add("--hop", type=positive, metavar="SECONDS", help="step from window to window (default: half a window)")
    speakers = parser.add_mutually_exclusive_group()
    speakers.add_argument("--one-speaker", action="store_true", help="all recordings are of one person, as for predict")
    speakers.add_argument("--speaker-from", metavar="folder|FILE", help="whose the recordings are, as for predict")
    add(
        "--speech-activity",
        choices=SPEECH_ACTIVITIES,
        help="what finds the speech, of which alone embeddings are (default: what the model was trained with; for "
        "frames none, so that their times are those of the recording)",
    )
    add("--device", choices=DEVICES, default="auto", help="where the model runs")
    add("--batch-size", type=positive_whole, help="clips at once (default: 8 on a CPU, 32 on a GPU)")
    add("--threads", type=positive_whole, help="CPU threads (default: torch chooses)")


def run(given: argparse.Namespace) -> None:
    """Run the command on the parsed arguments of ``add_arguments``.

    A recording that cannot be read is logged in one line, and one without speech counted; at the end an InputError
    gives the number of those that could not be read.
    """
    import torch

    from speecheq.inference.embedder import FRAME, SEGMENT, Embedder
    from speecheq.inference.embedding_files import check_embeddings_output, check_suffix, open_output
    from speecheq.inference.manifest_clips import find_clips
    from speecheq.inference.recordings import STANDARD_INPUT
    from speecheq.inference.speakers import speakers_of_options
    from speecheq.inference.windows import WINDOW_SECONDS, Windows

    check_suffix(given.out)
    check_embeddings_output(given.out, [Path(name) for name in given.recordings if name != STANDARD_INPUT])
    if (given.window or given.hop) and given.level != SEGMENT:
        raise InputError("--window and --hop are for --level segment; give that, or leave them out.")
    if given.threads:
        torch.set_num_threads(given.threads)
    windows = Windows(given.window or WINDOW_SECONDS, given.hop) if given.level == SEGMENT else None
    speech = given.speech_activity or ("none" if given.level == FRAME else None)
    embedder = Embedder(given.model, given.level, given.layer, windows, given.device, given.batch_size, speech)
    failures: list[InputError] = []
    without: dict[str, list[str]] = defaultdict(list)
    count = 0

    def on_error(error: InputError) -> None:
        failures.append(error)
        log.error("%s", error)

    with ExitStack() as stack:
        segments = find_clips(given.recordings, stack)
        output = stack.enter_context(open_output(given.out, given.level == FRAME))
        shown = stack.enter_context(Progress("embedding", None, unit="rows"))
        speaker_of = speakers_of_options(given.one_speaker, given.speaker_from)
        for embedding in embedder.embed(segments, on_error, speaker_of):
            shown.update()
            if embedding.values is None:
                without[embedding.note].append(embedding.segment.name)
                continue
            output.add(embedding)
            count += 1
        if not count:
            raise InputError(f"{given.out}: is not written, since there is no embedding for it; see the reasons above.")
    for note, names in sorted(without.items()):
        log.warning("%d without an embedding: %s (%s for one)", len(names), note, names[0])
    log.info("%s: %d %s, level %s", given.out, count, "row" if count == 1 else "rows", given.level)
    if failures:
        raise InputError(f"{len(failures)} recordings could not be used, for the reasons above.")
