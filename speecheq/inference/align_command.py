"""The command ``speecheq align``: phones and words of recordings with their texts, as TextGrid, CTM and tables.

    <out>/<recording>.TextGrid   tiers words and phones, where praatio is installed
    <out>/phones.ctm, words.ctm  recording, channel, start, seconds, phone or word
    <out>/phones.tsv             recording, word, phone, start, end, seconds, and the EIS of the two seconds around it
    <out>/durations.tsv          each phone: how often, mean, deviation, shortest and longest, in seconds
    <out>/align.html             words, phones and EIS along each recording, and the durations

What takes long to import is imported when the command runs, so that ``--help`` is quick.
"""

import argparse
import csv
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speecheq.common.device import DEVICES
from speecheq.common.errors import InputError
from speecheq.common.files import whole_folder
from speecheq.common.log import log

if TYPE_CHECKING:
    from speecheq.inference.alignment import Alignment, PhoneDuration
    from speecheq.inference.recordings import Segment

# Transcripts beside recordings, as MFA and others have them.
BESIDE = (".txt", ".lab")
LONGEST_SECONDS = 300.0


def _text_of(segment: "Segment", texts: Mapping[str, str]) -> str:
    """The transcript of a recording: by its name, of its cut, by its file's name, or in a file beside it."""
    from speecheq.inference.recordings import CutSegment

    path, supervisions = segment.path, segment.cut.supervisions if isinstance(segment, CutSegment) else []
    own = " ".join(supervision.text or "" for supervision in supervisions).strip()
    for text in (texts.get(segment.name), own, texts.get(path.name), texts.get(path.stem)):
        if text:
            return text
    for suffix in BESIDE:
        beside = segment.path.with_suffix(suffix)
        if beside.is_file():
            text = " ".join(beside.read_text(encoding="utf-8-sig", errors="replace").split())
            if text:
                return text
    raise InputError(
        f"{segment.name}: has no text; give --text FILE with a line '{segment.path.stem} the words', or a file "
        f"{segment.path.stem}.txt beside it."
    )


def align(
    names: Sequence[str], model: str | None, out: Path, text: Path | None, only_first: bool, device: str = "auto"
) -> None:
    """Align recordings (as of ``find_segments``) and write the folder ``out``.

    A recording that cannot be aligned is logged in one line and the others are; at the end an InputError gives the
    number of those that failed.
    """
    from speecheq.corpora.exchange.kaldi import KaldiFile
    from speecheq.inference.alignment import Aligner
    from speecheq.inference.recordings import find_segments
    from speecheq.inference.trained_model import load_trained_model

    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "phones.ctm").is_file())):
        raise InputError(f"{out}: holds something that speecheq align did not write; name another folder for --out.")
    texts = KaldiFile(text, needed=True) if text else {}
    loaded = load_trained_model(model, device)
    aligner = Aligner(loaded, only_first)
    found: dict[str, tuple[Alignment, list[float | None]]] = {}
    failures: list[str] = []
    with ExitStack() as cleanup:
        for segment in find_segments(names, cleanup):
            try:
                if isinstance(segment, InputError):
                    raise segment
                name = segment.path.stem if segment.name == str(segment.path) else segment.name
                if name in found:
                    raise InputError(f"{segment.name}: another recording has the name {name}; align them one by one.")
                alignment = aligner(_samples(segment), _text_of(segment, texts))
                found[name] = alignment, _eis_of_phones(loaded, segment, alignment)
            except InputError as error:
                failures.append(str(error))
                log.error("%s", error)
    if found:
        with whole_folder(out) as folder:
            _write(folder, found, failures)
        log.info("aligned %d recordings -> %s", len(found), out)
    if failures:
        raise InputError(f"{len(failures)} of {len(failures) + len(found)} recordings could not be aligned, see above.")


def _samples(segment: "Segment") -> Any:
    """The samples (S,) of a recording at 16 kHz; raises InputError for one above LONGEST_SECONDS."""
    from speecheq.inference.recordings import read_clip, split_into_clips
    from speecheq.inference.windows import Windows

    clips = split_into_clips(segment, Windows(length=LONGEST_SECONDS))
    if len(clips) != 1:
        raise InputError(f"{segment.name}: is longer than {LONGEST_SECONDS:g} s; cut it, each part with its text.")
    return read_clip(clips[0], 16000).samples


def _eis_of_phones(model: Any, segment: "Segment", alignment: "Alignment") -> list[float | None]:
    """The EIS around the middle of each phone, interpolated between windows; None of a model without EIS."""
    import numpy as np

    from speecheq.inference.alignment import EIS_HOP, EIS_WINDOW
    from speecheq.inference.predictor import Predictor
    from speecheq.inference.windows import Windows

    if not model.labels.intensity:
        return [None] * len(alignment.phones)

    def on_error(error: InputError) -> None:
        raise error

    predictor = Predictor(model, windows=Windows(EIS_WINDOW, EIS_HOP), speech_activity="none")
    middles: list[float] = []
    intensities: list[float] = []
    for window in predictor.predict_segments([segment], on_error):
        if window.eis is not None:
            middles.append((window.start + window.end) / 2 - segment.start)
            intensities.append(window.eis)
    if not middles:
        return [None] * len(alignment.phones)
    values = np.interp([(phone.start + phone.end) / 2 for phone in alignment.phones], middles, intensities)
    return [float(value) for value in values]


def _write(folder: Path, found: dict[str, tuple["Alignment", list[float | None]]], failures: Sequence[str]) -> None:
    """Write all files of the folder."""
    from speecheq.inference.align_page import as_page
    from speecheq.inference.alignment import durations_of

    with ExitStack() as files:

        def opened(name: str) -> Any:
            return files.enter_context(open(folder / name, "w", encoding="utf-8", newline=""))

        phones, words, table = opened("phones.ctm"), opened("words.ctm"), opened("phones.tsv")
        rows = csv.writer(table, delimiter="\t", lineterminator="\n")
        rows.writerow(["recording", "word", "phone", "start", "end", "seconds", "eis"])
        for name, (alignment, intensities) in sorted(found.items()):
            spoken_as = name.replace(" ", "_")  # the fields of CTM are separated by spaces
            for phone, eis in zip(alignment.phones, intensities):
                seconds = f"{phone.end - phone.start:.3f}"
                word = "" if phone.word is None else alignment.words[phone.word]
                intensity = "" if eis is None else f"{eis:.3f}"
                times = f"{phone.start:.3f}", f"{phone.end:.3f}"
                rows.writerow([name, word, phone.phone, *times, seconds, intensity])
                if phone.word is not None:
                    phones.write(f"{spoken_as} 1 {phone.start:.3f} {seconds} {phone.phone}\n")
            for word, start, end in alignment.word_spans():
                words.write(f"{spoken_as} 1 {start:.3f} {end - start:.3f} {word}\n")
        _write_durations(opened("durations.tsv"), durations_of(alignment for alignment, _ in found.values()))
    (folder / "align.html").write_text(as_page(found, failures), encoding="utf-8")
    if importlib.util.find_spec("praatio") is None:
        log.info("no TextGrids are written: they need praatio (utils/install.sh --extras segments)")
        return
    from speecheq.inference.label_formats import textgrid

    for name, (alignment, _) in found.items():
        tiers = [
            ("words", [(start, end, word) for word, start, end in alignment.word_spans()]),
            ("phones", [(phone.start, phone.end, phone.phone) for phone in alignment.spoken()]),
        ]
        (folder / f"{name.replace('/', '_')}.TextGrid").write_text(textgrid(tiers, alignment.seconds), encoding="utf-8")


def _write_durations(stream: Any, durations: Iterable["PhoneDuration"]) -> None:
    rows = csv.writer(stream, delimiter="\t", lineterminator="\n")
    rows.writerow(["phone", "count", "mean", "deviation", "shortest", "longest"])
    for phone, occurrences, *seconds in durations:
        rows.writerow([phone, occurrences, *(f"{value:.3f}" for value in seconds)])


def run(options: argparse.Namespace) -> None:
    """The command with its options."""
    only_first = options.pronunciations == "first"
    align(options.recordings, options.model, options.out, options.text, only_first, options.device)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` the arguments of the command."""
    add = parser.add_argument
    add("recordings", nargs="+", metavar="RECORDING", help="audio files, folders, lhotse manifests, Kaldi data folders")
    add("--model", required=True, metavar="MODEL", help="a best.pt, a model folder or a hub id, trained on phones")
    add("--out", type=Path, required=True, metavar="FOLDER", help="folder to write")
    add(
        "--text",
        type=Path,
        metavar="FILE",
        help="texts, a line each: the name of a recording and its words (default: those of the manifest, or of a file "
        ".txt or .lab beside each recording)",
    )
    add(
        "--pronunciations",
        choices=("all", "first"),
        default="all",
        help="choose among all pronunciations of each word, or take the first (default: all)",
    )
    add("--device", choices=DEVICES, default="auto", help="where the model runs (default: auto)")
