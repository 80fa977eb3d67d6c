"""Predictions as labels of a recording: RTTM, Praat's TextGrid, ELAN's .eaf, SRT, WebVTT, Audacity.

Times are written to the millisecond. Formats whose tiers hold no overlapping intervals get a track for each speaker and
channel, and further ones where segments of one track overlap.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TextIO

from speecheq.common.errors import optional_package
from speecheq.common.log import log
from speecheq.inference.prediction import Prediction
from speecheq.inference.recordings import SILENCE
from speecheq.inference.segment_files.annotations import EIS, EMOTION, POSTERIOR, tier_name
from speecheq.inference.segment_files.listed import INSTALL, TEXT
from speecheq.inference.segment_files.subtitles import import_webvtt
from speecheq.inference.windows import NO_SPEECH

AUTHOR = "speecheq predict"
NOT_GIVEN = "<NA>"


class Track(NamedTuple):
    """Predictions of one speaker and channel that do not overlap."""

    name: str
    predictions: list[Prediction]


def milliseconds(seconds: float) -> int:
    """Seconds in whole milliseconds."""
    return round(seconds * 1000)


def labelled(predictions: Iterable[Prediction]) -> list[Prediction]:
    """The predictions in the order of time, without the recordings in which there is no speech."""
    kept = [one for one in predictions if one.columns or one.speaker or one.note not in (NO_SPEECH, SILENCE)]
    return sorted(kept, key=lambda one: (one.start, one.end))


def track_name(prediction: Prediction) -> str:
    """The speaker and the channel of a prediction."""
    channel = "" if prediction.channel is None else f"channel {prediction.channel}"
    return f"{prediction.speaker or ''} {channel}".strip()


def tracks_of(predictions: Iterable[Prediction]) -> list[Track]:
    """The predictions in tracks: one for each speaker and channel, and further ones for those that overlap."""
    tracks: dict[str, list[Track]] = {}
    for one in labelled(predictions):
        name = track_name(one)
        own = tracks.setdefault(name, [])
        free = (track for track in own if track.predictions[-1].end <= one.start + 5e-4)
        track = next(free, None)
        if track is None:
            number = f" ({len(own) + 1})" if own else ""
            track = Track(name + number, [])
            own.append(track)
        track.predictions.append(one)
    found = [track for own in tracks.values() for track in own]
    if len(found) > len(tracks):
        log.info("segments overlap, so that they have %d tracks", len(found))
    return found or [Track("", [])]


def label_of(prediction: Prediction) -> str:
    """The class, or the note in its place."""
    return prediction.emotion or prediction.note.split(";")[0]


def words_of(prediction: Prediction) -> str:
    """The class with its posterior, and SEQM name and EIS where there are some."""
    if prediction.posterior is None:
        return prediction.note
    words = f"{prediction.emotion} {max(prediction.posterior.values()):.2f}"
    words = words if prediction.eis is None else f"{words}, EIS {prediction.eis:.2f}"
    return words if prediction.name is None else f"{prediction.name} ({words})"


def _with_speaker(prediction: Prediction, words: str) -> str:
    name = track_name(prediction)
    return f"{name}: {words}" if name else words


def _tiers(track: Track) -> list[tuple[str, list[tuple[int, int, str]]]]:
    """The name and the intervals, in milliseconds, of each tier of a track."""

    def intervals(labels: Iterable[str | None]) -> list[tuple[int, int, str]]:
        times = [(milliseconds(one.start), milliseconds(one.end)) for one in track.predictions]
        return [(start, end, label) for (start, end), label in zip(times, labels) if label]

    predictions = track.predictions
    scores = [None if one.posterior is None else f"{max(one.posterior.values()):.2f}" for one in predictions]
    tiers = [(EMOTION, intervals(map(label_of, predictions))), (POSTERIOR, intervals(scores))]
    if any(one.eis is not None for one in predictions):
        tiers.append((EIS, intervals(None if one.eis is None else f"{one.eis:.2f}" for one in predictions)))
    if any(one.columns.get(TEXT) for one in predictions):
        tiers.append((TEXT, intervals(_one_line(one.columns.get(TEXT, "")) for one in predictions)))
    return [(tier_name(track.name, kind), found) for kind, found in tiers]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def textgrid(tiers: Sequence[tuple[str, Sequence[tuple[float, float, str]]]], seconds: float) -> str:
    """A TextGrid of the long form, of a recording of ``seconds``: interval tiers, each a name and (start, end, label).

    Times are in seconds and written to the millisecond. Raises InputError where praatio is absent.
    """
    with optional_package("praatio", "a TextGrid", INSTALL):
        from praatio.data_classes.interval_tier import IntervalTier
        from praatio.utilities import textgrid_io
        from praatio.utilities.constants import INTERVAL_TIER
    last = round(seconds, 3)
    made = []
    for name, intervals in tiers:
        entries = [(round(start, 3), round(min(end, last), 3), label) for start, end, label in intervals]
        tier = IntervalTier(name, entries, 0, last)  # checks that nothing overlaps
        made.append({"class": INTERVAL_TIER, "name": name, "xmin": 0, "xmax": last, "entries": list(tier.entries)})
    grid = {"xmin": 0, "xmax": last, "tiers": made}
    text: str = textgrid_io.getTextgridAsStr(grid, "long_textgrid", includeBlankSpaces=True)
    return text


def write_textgrid(predictions: Sequence[Prediction], seconds: float, stream: TextIO) -> None:
    """A TextGrid with the tiers of ``_tiers`` for each track."""
    last = max([milliseconds(seconds), *(milliseconds(one.end) for one in predictions)]) / 1000
    tiers = [
        (name, [(start / 1000, end / 1000, label) for start, end, label in intervals])
        for track in tracks_of(predictions)
        for name, intervals in _tiers(track)
    ]
    stream.write(textgrid(tiers, last))


def write_eaf(predictions: Sequence[Prediction], seconds: float, stream: TextIO) -> None:
    """An .eaf with the tiers of ``_tiers`` for each track; its name is the participant."""
    with optional_package("pympi-ling", "an .eaf", INSTALL):
        from pympi.Elan import Eaf, to_string
    eaf = Eaf(author=AUTHOR)
    eaf.remove_tier("default")
    for track in tracks_of(predictions):
        for name, intervals in _tiers(track):
            eaf.add_tier(name, part=track.name or None)
            for start, end, label in intervals:
                eaf.add_annotation(name, start, end, _xml_text(label))
    stream.write('<?xml version="1.0" encoding="UTF-8"?>\n' + to_string(eaf) + "\n")


def _xml_text(text: str) -> str:
    """A text without the characters that XML cannot hold."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def write_rttm(predictions: Sequence[Prediction], seconds: float, stream: TextIO) -> None:
    """RTTM: the class, or the note, stands in the place of the words, its posterior in that of the confidence."""
    for one in labelled(predictions):
        start, end = milliseconds(one.start), milliseconds(one.end)
        score = NOT_GIVEN if one.posterior is None else f"{max(one.posterior.values()):.4f}"
        recording = _word(one.source.rsplit("/", 1)[-1].rsplit(".", 1)[0])
        speaker = _word(one.speaker or (track_name(one) or "speaker"))
        times = f"{start / 1000:.3f} {(end - start) / 1000:.3f}"
        words = f"SPEAKER {recording} {one.channel or 1} {times} {_word(label_of(one))} {NOT_GIVEN} {speaker} {score}"
        stream.write(f"{words} {NOT_GIVEN}\n")


def _word(text: str) -> str:
    return "_".join(text.split()) or NOT_GIVEN


def write_audacity(predictions: Sequence[Prediction], seconds: float, stream: TextIO) -> None:
    """Labels of Audacity: start, end and text."""
    for one in labelled(predictions):
        words = _one_line(_with_speaker(one, words_of(one)))
        stream.write(f"{milliseconds(one.start) / 1000:.3f}\t{milliseconds(one.end) / 1000:.3f}\t{words}\n")


def _time(time: int) -> str:
    return f"{time // 3600000:02d}:{time // 60000 % 60:02d}:{time // 1000 % 60:02d}.{time % 1000:03d}"


def _write_subtitles(predictions: Sequence[Prediction], stream: TextIO, kind: str) -> None:
    webvtt = import_webvtt("a subtitle file")
    captions = []
    for one in labelled(predictions):
        words, name = words_of(one), track_name(one)
        lines = [words if kind == "vtt" else _with_speaker(one, words), _one_line(one.columns.get(TEXT, ""))]
        text = "\n".join(_escaped(line) if kind == "vtt" else line.replace("-->", "->") for line in lines if line)
        if kind == "vtt" and name:
            text = f"<v {_escaped(name)}>{text}</v>"
        captions.append(webvtt.Caption(_time(milliseconds(one.start)), _time(milliseconds(one.end)), text))
    subtitles = webvtt.WebVTT(captions=captions, header_comments=[AUTHOR])
    subtitles.write(stream, format=kind)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def write_srt(predictions: Sequence[Prediction], seconds: float, stream: TextIO) -> None:
    """SRT: the class, and below it what is said, where the file of segments has it."""
    _write_subtitles(predictions, stream, "srt")


def write_vtt(predictions: Sequence[Prediction], seconds: float, stream: TextIO) -> None:
    """WebVTT, as ``write_srt``, with the speaker as voice."""
    _write_subtitles(predictions, stream, "vtt")


# Writes the predictions of one recording, which lasts so many seconds; as RTTM those of several. Raises InputError
# where the package for the format is not installed.
Writer = Callable[[Sequence[Prediction], float, TextIO], None]
LABEL_WRITERS: dict[str, Writer] = {
    "rttm": write_rttm,
    "textgrid": write_textgrid,
    "eaf": write_eaf,
    "srt": write_srt,
    "vtt": write_vtt,
    "audacity": write_audacity,
}
