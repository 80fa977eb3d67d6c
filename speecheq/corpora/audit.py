"""Checking a prepared corpus by its audio: what it holds, and what is wrong with it.

``audit`` reads every clip once and returns a report that JSON can hold; ``as_text`` writes it for people. A corpus with
faults stays as it is.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import MonoCut

from speecheq.corpora.audio_quality import CLIPPED_RUN, AudioQuality, measure_cuts
from speecheq.corpora.counts import ClipCounts, sorted_counts
from speecheq.corpora.prepared_corpus import corpus_cuts, load_card, load_declaration

# A mean of the samples so far from 0 is a direct current (-34 dBFS).
OFFSET = 0.02
PERCENTILES = (5, 25, 50, 75, 95)
BIN_SECONDS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 600, 3600)
MOST_BINS = 15


def _summary(values: Sequence[float]) -> dict[str, float] | None:
    """Lowest, mean, highest and percentiles; None of nothing."""
    array = np.asarray([value for value in values if math.isfinite(value)])
    if not len(array):
        return None
    named = {"min": array.min(), "mean": array.mean(), "max": array.max()}
    named.update(zip((f"p{percentile}" for percentile in PERCENTILES), np.percentile(array, PERCENTILES)))
    return {name: round(float(value), 3) for name, value in named.items()}


def _histogram(seconds: Sequence[float]) -> list[dict[str, float]]:
    """Counts in bins of one round width, from 0 s to the longest."""
    longest = max(seconds)
    width = next((width for width in BIN_SECONDS if longest < MOST_BINS * width), longest / (MOST_BINS - 1))
    counts = Counter(int(value / width) for value in seconds)
    return [
        {"from": round(place * width, 3), "to": round((place + 1) * width, 3), "clips": counts[place]}
        for place in range(min(counts), max(counts) + 1)
    ]


def _overlaps(recordings: dict[str, list[tuple[float, float, str]]]) -> list[list[str]]:
    """Pairs of utterances of one recording of which the later begins before the earlier ends."""
    pairs = []
    for segments in recordings.values():
        latest = None
        for segment in sorted(segments):
            if latest is not None and segment[0] < latest[1] - 1e-6:
                pairs.append([latest[2], segment[2]])
            if latest is None or segment[1] > latest[1]:
                latest = segment
    return pairs


class _Findings:
    """What is collected from the clips of a corpus, one after the other."""

    def __init__(self) -> None:
        self.counts = ClipCounts()
        self.genders: dict[str, str | None] = {}
        self.texts: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.measured: dict[str, list[float]] = {name: [] for name in ("level", "peak", "leading", "trailing")}
        self.samples = self.samples_at_full_scale = 0
        self.labels: dict[str, str | None] = {}
        self.by_content: dict[bytes, list[str]] = defaultdict(list)
        self.by_channels: dict[int, list[str]] = defaultdict(list)
        self.by_rate: dict[int, list[str]] = defaultdict(list)
        self.segments: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
        self.unreadable: list[str] = []
        self.silent: list[str] = []
        self.clipped: list[str] = []
        self.offset: list[str] = []

    def add(self, cut: MonoCut, quality: AudioQuality) -> None:
        """Add a clip with its measurements."""
        supervision = cut.supervisions[0]
        self.counts.add_supervision(supervision)
        self.genders[supervision.speaker] = supervision.gender
        if supervision.text:
            self.texts[supervision.text] += 1
        self.seconds.append(cut.duration)
        if cut.recording.id != cut.id:
            self.segments[cut.recording.id].append((cut.start, cut.start + cut.duration, cut.id))
        if quality.problem:
            self.unreadable.append(f"{cut.id}: {cut.recording.sources[0].source} {quality.problem}")
            return
        self.counts.add_audio(cut.recording.sampling_rate, quality.channels)
        self.by_rate[cut.recording.sampling_rate].append(cut.id)
        self.by_channels[quality.channels].append(cut.id)
        self.by_content[quality.content].append(cut.id)
        self.labels[cut.id] = supervision.custom["emotion"]
        for name, values in self.measured.items():
            if not (quality.is_silent and name in ("leading", "trailing")):
                values.append(getattr(quality, name))
        self.samples += round(cut.duration * cut.recording.sampling_rate) * quality.channels
        self.samples_at_full_scale += quality.full_scale
        if quality.is_silent:
            self.silent.append(cut.id)
        if quality.longest_run >= CLIPPED_RUN:
            self.clipped.append(cut.id)
        if abs(quality.offset) > OFFSET:
            self.offset.append(cut.id)

    def faults(self) -> list[dict[str, Any]]:
        """The faults by kind: what each is, and the utterances (or groups of them) that have it."""
        duplicates = [group for group in self.by_content.values() if len(group) > 1]
        differing = sum(len({self.labels[clip] for clip in group}) > 1 for group in duplicates)
        found: list[tuple[str, str, Sequence[Any]]] = [
            ("unreadable", "clips that cannot be read", self.unreadable),
            ("silent", "silent clips (no 10 ms louder than -60 dBFS)", self.silent),
            ("clipping", f"clipped clips ({CLIPPED_RUN} or more samples in a row at full scale)", self.clipped),
            ("offset", f"clips with a direct current above {OFFSET:g} of full scale", self.offset),
            ("duplicates", f"recordings under several names ({differing} with different labels)", duplicates),
            *_uncommon("channels", self.by_channels, "channels"),
            *_uncommon("sampling rates", self.by_rate, "Hz"),
            ("overlaps", "pairs of segments of one recording that overlap", _overlaps(self.segments)),
        ]
        return [{"kind": kind, "says": says, "utterances": clips} for kind, says, clips in found if clips]


def _uncommon(kind: str, clips: dict[int, list[str]], unit: str) -> list[tuple[str, str, Sequence[str]]]:
    """The clips whose channels or sampling rate are not those of most, as faults."""
    usual = max(clips, key=lambda value: len(clips[value]), default=None)
    return [
        (kind, f"clips with {value} {unit} (most have {usual})", clips[value])
        for value in sorted(clips)
        if value != usual
    ]


def audit(manifests: Path, nj: int = 1) -> dict[str, Any]:
    """Read the audio of the prepared corpus in the folder ``manifests`` and report on it.

    Times are seconds, levels dBFS. Each of ``faults`` has its kind, what it is (``says``) and its utterances.
    Raises InputError if stage 1 has not run.
    """
    name = load_declaration(manifests).name
    card = load_card(manifests, name)
    found = _Findings()
    cuts = corpus_cuts(Path(manifests), name, card["splits"])
    for cut, quality in measure_cuts(cuts, name, card["utterances"], nj):
        found.add(cut, quality)
    with_text = found.texts.total()
    return {
        "corpus": name,
        "title": card["title"],
        "partial": card["partial"],
        "utterances": found.counts.utterances,
        "hours": round(found.counts.seconds / 3600, 4),
        "speakers": len(found.genders),
        "speakers_by_gender": sorted_counts(Counter(map(str, found.genders.values()))),
        "counts": found.counts.as_dict(),
        "texts": {"with": with_text, "without": found.counts.utterances - with_text, "distinct": len(found.texts)},
        "seconds": _summary(found.seconds),
        "histogram": _histogram(found.seconds) if found.seconds else [],
        "level": _summary(found.measured["level"]),
        "peak": _summary(found.measured["peak"]),
        "leading_silence": _summary(found.measured["leading"]),
        "trailing_silence": _summary(found.measured["trailing"]),
        "share_at_full_scale": found.samples_at_full_scale / found.samples if found.samples else 0.0,
        "faults": found.faults(),
    }


def _format_counts(counts: dict[str, int], most: int = 40) -> str:
    if list(counts) == ["None"]:
        return "none"
    items = [f"{name} {count}" for name, count in counts.items()]
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _format_summary(summary: dict[str, float] | None, unit: str) -> str:
    if summary is None:
        return "-"
    middle = ", ".join(f"{percentile} % {summary[f'p{percentile}']:.2f}" for percentile in PERCENTILES)
    return f"{summary['min']:.2f} to {summary['max']:.2f} {unit}, mean {summary['mean']:.2f}; {middle}"


def _format_utterances(utterances: Iterable[Any], most: int = 10) -> str:
    names = [" = ".join(item) if isinstance(item, list) else str(item) for item in utterances]
    return "; ".join(names[:most]) + (f"; and {len(names) - most} more" if len(names) > most else "")


def as_text(report: dict[str, Any]) -> str:
    """The report of ``audit`` for people: a line for each fact, a histogram of the durations, the faults."""
    counts, texts = report["counts"], report["texts"]
    facts = {
        "size": f"{report['utterances']} utterances, {report['hours']:.2f} hours"
        + (" (a partial copy)" if report["partial"] else ""),
        "speakers": f"{report['speakers']} ({_format_counts(report['speakers_by_gender'])})",
        "clips by gender": _format_counts(counts["gender"]),
        "by speaker": _format_counts(counts["speaker"], 24),
        "label": _format_counts(counts["emotion"]),
        "intensity": _format_counts(counts["intensity"]),
        "ESC": _format_counts(counts["esc"]),
        "EIS": _format_counts(counts["eis"]),
        "split": _format_counts(counts["split"]),
        "session": _format_counts(counts["session"]),
        "texts": f"{texts['with']} clips with one, {texts['without']} without, {texts['distinct']} different",
        "sampling rate": _format_counts(counts["sampling_rate"]),
        "channels": _format_counts(counts["channels"]),
        "duration": _format_summary(report["seconds"], "s"),
        "level": _format_summary(report["level"], "dBFS"),
        "leading silence": _format_summary(report["leading_silence"], "s"),
        "trailing silence": _format_summary(report["trailing_silence"], "s"),
        "at full scale": f"{100 * report['share_at_full_scale']:.4f} % of all samples",
    }
    lines = [f"{report['title']} ({report['corpus']})"]
    lines += [f"  {name:<17} {value}" for name, value in facts.items()]
    most = max((entry["clips"] for entry in report["histogram"]), default=1)
    for entry in report["histogram"]:
        bar = "#" * math.ceil(40 * entry["clips"] / most)
        lines.append(f"  {entry['from']:>7g} to {entry['to']:>5g} s {entry['clips']:>7} {bar}".rstrip())
    lines.append(f"  faults: {len(report['faults']) or 'none found'}")
    for fault in report["faults"]:
        lines.append(f"  - {len(fault['utterances'])} {fault['says']}: {_format_utterances(fault['utterances'])}")
    return "\n".join(lines)
