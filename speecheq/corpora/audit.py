"""What a prepared corpus holds and what is wrong with it, heard from the audio itself.

``check`` reads every clip once, a block at a time, and returns a report that JSON can hold; ``as_text`` writes it
for people. Nothing is changed: a corpus with faults stays as it is, and which of them matter is for its user to say.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from lhotse import MonoCut

from speecheq.common.progress import Progress
from speecheq.common.stages import require
from speecheq.corpora.prepared_corpus import corpus_cuts, load_card

# Silence is heard in frames of 10 ms: 40 dB below the clip's loudest; a clip is silent if that is below -60 dBFS.
FRAMES_A_SECOND = 100
SILENCE_BELOW_LOUDEST = 1e-4
SILENT_POWER = 1e-6
# Full scale is the largest value of 16 bits, on either side; as many such samples in a row are clipping.
FULL_SCALE = 1 - 2**-15
CLIPPED_RUN = 3
# A mean of the samples so far from 0 is a direct current (-34 dBFS).
OFFSET = 0.02
BLOCK_SECONDS = 30
BATCH = 1000
PERCENTILES = (5, 25, 50, 75, 95)
BIN_SECONDS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 600, 3600)
MOST_BINS = 15
COUNTED = ("split", "session", "emotion", "intensity", "esc", "eis")


class Clip(NamedTuple):
    """Where the samples of an utterance lie: ``frames`` of them from ``first``."""

    id: str
    path: str
    rate: int
    first: int
    frames: int


class Sound(NamedTuple):
    """What was heard in a clip; ``problem`` is empty unless it could not be read."""

    problem: str = ""
    channels: int = 0
    content: bytes = b""  # a digest of the samples
    level: float = -math.inf  # RMS, dBFS
    peak: float = 0.0
    offset: float = 0.0
    full_scale: int = 0  # samples at full scale
    longest_run: int = 0  # of such samples
    leading: float = 0.0  # seconds of silence
    trailing: float = 0.0
    is_silent: bool = False


def _clip(cut: MonoCut) -> Clip:
    rate = cut.recording.sampling_rate
    first = round(cut.start * rate)
    return Clip(cut.id, cut.recording.sources[0].source, rate, first, round((cut.start + cut.duration) * rate) - first)


def longest_run(marks: np.ndarray, before: int) -> tuple[int, int]:
    """(longest run of true values, length of the run at the end), where ``before`` true values came before."""
    if not marks.any():
        return before, 0
    borders = np.flatnonzero(np.diff(np.concatenate(([0], marks.astype(np.int8), [0]))))
    lengths = borders[1::2] - borders[::2]
    if marks[0]:
        lengths[0] += before
    return max(before, int(lengths.max())), int(lengths[-1]) if marks[-1] else 0


def frame_powers(block: np.ndarray, frame: int) -> np.ndarray:
    """The mean power (frames,) of the samples (S, channels) in each frame, without direct current."""
    whole = max(1, len(block) // frame)
    frames = block[: whole * frame].reshape(whole, -1, block.shape[1])
    return np.maximum((frames**2).mean(1) - frames.mean(1) ** 2, 0).mean(1)


def measure(clip: Clip) -> Sound:
    """Listen to one clip; at most BLOCK_SECONDS of it are in memory."""
    frame = max(1, clip.rate // FRAMES_A_SECOND)
    size = frame * FRAMES_A_SECOND * BLOCK_SECONDS
    digest, powers = hashlib.blake2b(digest_size=16), []
    seen = full_scale = longest = run = 0
    total = squares = peak = 0.0
    try:
        with soundfile.SoundFile(clip.path) as audio:
            if audio.samplerate != clip.rate:
                return Sound(f"has {audio.samplerate} Hz, its manifest says {clip.rate}")
            channels = audio.channels
            audio.seek(min(clip.first, audio.frames))
            while seen < clip.frames:
                block = audio.read(min(size, clip.frames - seen), dtype="float32", always_2d=True)
                if not len(block):
                    return Sound(f"ends after {seen} of {clip.frames} samples")
                seen += len(block)
                digest.update(block.tobytes())
                loud = np.abs(block)
                peak = max(peak, float(loud.max()))
                at_full = loud >= FULL_SCALE
                full_scale += int(at_full.sum())
                block_longest, run = longest_run(at_full.any(1), run)
                longest = max(longest, block_longest)
                total += float(block.sum(dtype=np.float64))
                squares += float((block**2).sum(dtype=np.float64))
                powers.append(frame_powers(block, frame))
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        return Sound(f"cannot be read ({error})")
    power = np.concatenate(powers)
    heard = np.flatnonzero(power >= max(power.max() * SILENCE_BELOW_LOUDEST, 1e-12))
    samples = seen * channels
    return Sound(
        channels=channels,
        content=digest.digest(),
        level=10 * math.log10(squares / samples) if squares else -math.inf,
        peak=peak,
        offset=total / samples,
        full_scale=full_scale,
        longest_run=longest,
        leading=(heard[0] if len(heard) else len(power)) / FRAMES_A_SECOND,
        trailing=(len(power) - 1 - heard[-1] if len(heard) else len(power)) / FRAMES_A_SECOND,
        is_silent=bool(power.max() < SILENT_POWER),
    )


def _heard(cuts: Iterator[MonoCut], title: str, total: int, nj: int) -> Iterator[tuple[MonoCut, Sound]]:
    """Every cut with what was heard in it, by ``nj`` threads, a batch at a time."""
    with ThreadPoolExecutor(max(1, nj)) as pool, Progress(f"{title}: listening", total, "clips") as shown:
        while True:
            batch = list(islice(cuts, BATCH))
            if not batch:
                return
            for cut, sound in zip(batch, pool.map(measure, map(_clip, batch))):
                shown.update()
                yield cut, sound


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


def _overlaps(parts: dict[str, list[tuple[float, float, str]]]) -> list[list[str]]:
    """Pairs of utterances of one recording of which the later begins before the earlier ends."""
    pairs = []
    for segments in parts.values():
        latest = None
        for segment in sorted(segments):
            if latest is not None and segment[0] < latest[1] - 1e-6:
                pairs.append([latest[2], segment[2]])
            if latest is None or segment[1] > latest[1]:
                latest = segment
    return pairs


class _Faults:
    """The faults by kind: what each is, and the utterances (or groups of them) that have it."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def add(self, kind: str, says: str, utterances: Sequence[Any]) -> None:
        if utterances:
            self.found.append({"kind": kind, "says": says, "utterances": list(utterances)})


def _uncommon(kind: str, clips: dict[Any, list[str]], faults: _Faults, unit: str) -> None:
    """Clips whose channels or sampling rate are not those of most."""
    usual = max(clips, key=lambda value: len(clips[value]), default=None)
    for value in sorted(clips):
        if value != usual:
            faults.add(kind, f"clips with {value} {unit} (most have {usual})", clips[value])


def check(manifests: Path, nj: int = 1) -> dict[str, Any]:
    """Listen to the prepared corpus in the folder ``manifests`` and report on it.

    Times are seconds, levels dBFS. Each of ``faults`` has its kind, what it says and its utterances. InputError where
    stage 1 has not run there.
    """
    name = require(manifests, "manifests")["options"]["corpus"]["name"]
    card = load_card(manifests, name)
    counts: dict[str, Counter] = {
        key: Counter() for key in (*COUNTED, "speaker", "gender", "sampling_rate", "channels")
    }
    genders: dict[str, str | None] = {}
    texts: Counter = Counter()
    by_content, by_channels, by_rate = defaultdict(list), defaultdict(list), defaultdict(list)
    parts: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    values: dict[str, list[float]] = {key: [] for key in ("seconds", "level", "peak", "leading", "trailing")}
    unread, silent, clipped, offset, labels = [], [], [], [], {}
    samples_at_full_scale = samples = 0

    cuts = corpus_cuts(Path(manifests), name, card["splits"])
    for cut, sound in _heard(cuts, name, card["utterances"], nj):
        supervision, rate = cut.supervisions[0], cut.recording.sampling_rate
        custom = {key: supervision.custom.get(key) for key in COUNTED}
        for key, value in custom.items():  # averages of judges have too many values to list
            counts[key][str(round(value, 1) if isinstance(value, float) else value)] += 1
        counts["speaker"][supervision.speaker] += 1
        counts["gender"][str(supervision.gender)] += 1
        genders[supervision.speaker] = supervision.gender
        if supervision.text:
            texts[supervision.text] += 1
        values["seconds"].append(cut.duration)
        if cut.recording.id != cut.id:
            parts[cut.recording.id].append((cut.start, cut.start + cut.duration, cut.id))
        if sound.problem:
            unread.append(f"{cut.id}: {cut.recording.sources[0].source} {sound.problem}")
            continue
        counts["sampling_rate"][str(rate)] += 1
        counts["channels"][str(sound.channels)] += 1
        by_rate[rate].append(cut.id)
        by_channels[sound.channels].append(cut.id)
        by_content[sound.content].append(cut.id)
        labels[cut.id] = custom["emotion"]
        for key in ("level", "peak", "leading", "trailing"):
            if not (sound.is_silent and key in ("leading", "trailing")):
                values[key].append(getattr(sound, key))
        samples += round(cut.duration * rate) * sound.channels
        samples_at_full_scale += sound.full_scale
        if sound.is_silent:
            silent.append(cut.id)
        if sound.longest_run >= CLIPPED_RUN:
            clipped.append(cut.id)
        if abs(sound.offset) > OFFSET:
            offset.append(cut.id)

    duplicates = [group for group in by_content.values() if len(group) > 1]
    differing = sum(len({labels[clip] for clip in group}) > 1 for group in duplicates)
    overlaps = _overlaps(parts)
    faults = _Faults()
    faults.add("unreadable", "clips that cannot be read", unread)
    faults.add("silent", "silent clips (no 10 ms louder than -60 dBFS)", silent)
    faults.add("clipping", f"clipped clips ({CLIPPED_RUN} or more samples in a row at full scale)", clipped)
    faults.add("offset", f"clips with a direct current above {OFFSET:g} of full scale", offset)
    faults.add("duplicates", f"recordings under several names ({differing} with different labels)", duplicates)
    _uncommon("channels", by_channels, faults, "channels")
    _uncommon("sampling rates", by_rate, faults, "Hz")
    faults.add("overlaps", "pairs of segments of one recording that overlap", overlaps)
    with_text = sum(texts.values())
    return {
        "corpus": name,
        "title": card["title"],
        "partial": card["partial"],
        "utterances": len(values["seconds"]),
        "hours": round(sum(values["seconds"]) / 3600, 4),
        "speakers": len(genders),
        "speakers_by_gender": _sorted(Counter(map(str, genders.values()))),
        "counts": {key: _sorted(counter) for key, counter in counts.items()},
        "texts": {"with": with_text, "without": len(values["seconds"]) - with_text, "distinct": len(texts)},
        "seconds": _summary(values["seconds"]),
        "histogram": _histogram(values["seconds"]) if values["seconds"] else [],
        "level": _summary(values["level"]),
        "peak": _summary(values["peak"]),
        "leading_silence": _summary(values["leading"]),
        "trailing_silence": _summary(values["trailing"]),
        "share_at_full_scale": samples_at_full_scale / samples if samples else 0.0,
        "faults": faults.found,
    }


def _sorted(counter: Counter) -> dict[str, int]:
    return dict(sorted(counter.items()))


def _line_of(counts: dict[str, int], most: int = 40) -> str:
    if list(counts) == ["None"]:
        return "none"
    items = [f"{name} {count}" for name, count in counts.items()]
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _line_of_summary(summary: dict[str, float] | None, unit: str) -> str:
    if summary is None:
        return "-"
    middle = ", ".join(f"{percentile} % {summary[f'p{percentile}']:.2f}" for percentile in PERCENTILES)
    return f"{summary['min']:.2f} to {summary['max']:.2f} {unit}, mean {summary['mean']:.2f}; {middle}"


def _named(utterances: Iterable[Any], most: int = 10) -> str:
    names = [" = ".join(item) if isinstance(item, list) else str(item) for item in utterances]
    return "; ".join(names[:most]) + (f"; and {len(names) - most} more" if len(names) > most else "")


def as_text(report: dict[str, Any]) -> str:
    """The report for people: one line a fact, then a histogram of the durations, then the faults."""
    counts, texts = report["counts"], report["texts"]
    said = {
        "size": f"{report['utterances']} utterances, {report['hours']:.2f} hours"
        + (" (a partial copy)" if report["partial"] else ""),
        "speakers": f"{report['speakers']} ({_line_of(report['speakers_by_gender'])})",
        "clips by gender": _line_of(counts["gender"]),
        "by speaker": _line_of(counts["speaker"], 24),
        "label": _line_of(counts["emotion"]),
        "intensity": _line_of(counts["intensity"]),
        "ESC": _line_of(counts["esc"]),
        "EIS": _line_of(counts["eis"]),
        "split": _line_of(counts["split"]),
        "session": _line_of(counts["session"]),
        "texts": f"{texts['with']} clips with one, {texts['without']} without, {texts['distinct']} different",
        "sampling rate": _line_of(counts["sampling_rate"]),
        "channels": _line_of(counts["channels"]),
        "duration": _line_of_summary(report["seconds"], "s"),
        "level": _line_of_summary(report["level"], "dBFS"),
        "leading silence": _line_of_summary(report["leading_silence"], "s"),
        "trailing silence": _line_of_summary(report["trailing_silence"], "s"),
        "at full scale": f"{100 * report['share_at_full_scale']:.4f} % of all samples",
    }
    lines = [f"{report['title']} ({report['corpus']})"]
    lines += [f"  {name:<17} {value}" for name, value in said.items()]
    most = max((entry["clips"] for entry in report["histogram"]), default=1)
    for entry in report["histogram"]:
        bar = "#" * math.ceil(40 * entry["clips"] / most)
        lines.append(f"  {entry['from']:>7g} to {entry['to']:>5g} s {entry['clips']:>7} {bar}".rstrip())
    lines.append(f"  faults: {len(report['faults']) or 'none found'}")
    for fault in report["faults"]:
        lines.append(f"  - {len(fault['utterances'])} {fault['says']}: {_named(fault['utterances'])}")
    return "\n".join(lines)
