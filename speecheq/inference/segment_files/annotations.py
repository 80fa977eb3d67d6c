"""Segments from the tiers of Praat's TextGrids and ELAN's .eaf files, which praatio and pympi-ling read."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from speecheq.common.errors import InputError, first_line, optional_package
from speecheq.common.log import log
from speecheq.inference.segment_files.listed import INSTALL, TEXT, ListedSegment, columns_of, read_text

# The tiers that we write for each speaker or channel, and their columns; a name that more than one track has gets a
# number.
EMOTION, POSTERIOR, EIS = "emotion", "posterior", "EIS"
DETAILS = (POSTERIOR, EIS, TEXT)
NUMBER = re.compile(r" \(\d+\)$")
CHANNEL = re.compile(r"(?:^|^(.*) )channel (\d+)$")
# A tier that ends so much before its file, in seconds, was not written to its end.
LACKING = 1e-3


class Interval(NamedTuple):
    """A labelled interval of a tier, in seconds."""

    start: float
    end: float
    label: str
    where: str


class Tier(NamedTuple):
    """A tier with intervals; ``speaker`` where the file names one."""

    name: str
    intervals: list[Interval]
    speaker: str = ""


def tier_name(track: str, kind: str) -> str:
    """The name of a tier that we write: of a track, of one of EMOTION and DETAILS."""
    return f"{track} {kind}".strip()


def _track_of(tier: Tier) -> str:
    return tier.name.removesuffix(EMOTION).rstrip()


def _is_ours(tier: Tier, names: Sequence[str]) -> bool:
    return tier.name.endswith(EMOTION) and tier_name(_track_of(tier), POSTERIOR) in names


def _segments(path: Path, tiers: Sequence[Tier], wanted: Sequence[str]) -> list[ListedSegment]:
    """The segments of all tiers, of the ``wanted`` ones, or of the emotions alone where they are ours."""
    names = [tier.name for tier in tiers]
    for name in wanted:
        if name not in names:
            raise InputError(f"{path}: has no tier {name!r} with intervals; it has {', '.join(names) or 'none'}.")
    ours = [tier for tier in tiers if _is_ours(tier, names)]
    if not wanted and ours:
        return [segment for tier in ours for segment in _segments_of_ours(tier, tiers)]
    chosen = [tier for tier in tiers if (tier.name in wanted if wanted else tier.intervals)]
    if len(chosen) > 1 and not wanted:
        log.info(
            "%s: each of its %d tiers is taken for a speaker (%s); choose with --tier",
            path,
            len(chosen),
            ", ".join(tier.name for tier in chosen),
        )
    found = []
    for tier in chosen:
        speaker, channel = _channel_of(tier.speaker or (tier.name if len(chosen) > 1 else ""))
        for start, end, label, where in tier.intervals:
            columns = columns_of(tier=tier.name, text=label)
            found.append(ListedSegment(start, end, where, "", speaker, channel, columns).checked())
    return found


def _segments_of_ours(tier: Tier, tiers: Sequence[Tier]) -> list[ListedSegment]:
    track = _track_of(tier)
    by_name = {other.name: {each.start: each.label for each in other.intervals} for other in tiers}
    details = {kind: by_name.get(tier_name(track, kind), {}) for kind in DETAILS}
    speaker, channel = _channel_of(NUMBER.sub("", track))
    return [
        ListedSegment(
            start,
            end,
            where,
            "",
            speaker,
            channel,
            columns_of(**{EMOTION: label, **{kind: at.get(start) for kind, at in details.items()}}),
        ).checked()
        for start, end, label, where in tier.intervals
    ]


def _channel_of(name: str) -> tuple[str, int | None]:
    """The speaker and the channel of a track that we named."""
    match = CHANNEL.search(name)
    return (match[1] or "", int(match[2])) if match else (name, None)


def read_textgrid(path: Path, wanted: Sequence[str]) -> list[ListedSegment]:
    """The labelled intervals of a TextGrid, long or short, in UTF-8 or UTF-16; blank ones are pauses."""
    with optional_package("praatio", str(path), INSTALL):
        from praatio.utilities import textgrid_io
    text = read_text(path, ("utf-8-sig", "latin-1"))
    if "ooTextFile" not in text[:200] or "TextGrid" not in text[:200]:
        raise InputError(f"{path}: is no TextGrid as text, which Praat saves by Save as text file or short text file.")
    try:
        content = textgrid_io.parseTextgridStr(text, includeEmptyIntervals=True)
        tiers, points = [], 0
        for tier in content["tiers"]:
            if tier["class"] != "IntervalTier":
                points += 1
                continue
            intervals = [(float(start), float(end), label.strip()) for start, end, label in tier["entries"]]
            if (intervals[-1][1] if intervals else 0.0) < tier["xmax"] - LACKING:
                log.warning("%s: the tier %s has no intervals up to its end; it may be truncated", path, tier["name"])
            where = f"{path}, tier {tier['name']}"
            labelled = [Interval(start, end, label, where) for start, end, label in intervals if label]
            tiers.append(Tier(tier["name"], labelled))
    except Exception as error:  # praatio has no error of its own for a file that is broken
        raise InputError(
            f"{path}: cannot be read as a TextGrid ({first_line(error)}); open it in Praat and save it again."
        ) from error
    if points:
        log.info("%s: %d tiers of points are left out", path, points)
    return _segments(path, tiers, wanted)


def read_eaf(path: Path, wanted: Sequence[str]) -> list[ListedSegment]:
    """The time-aligned annotations of ELAN's .eaf; of tiers that depend on others only where they are ``wanted``.

    InputError for an annotation whose time slots are missing or have no time.
    """
    with optional_package("pympi-ling", str(path), INSTALL):
        from pympi import Eaf
    if "<!ENTITY" in read_text(path):
        raise InputError(f"{path}: declares entities, which no .eaf of ELAN does; save it again from ELAN.")
    try:
        eaf = Eaf(str(path), suppress_version_warning=True)
    except Exception as error:  # pympi raises KeyError, IndexError and others for what is not as ELAN writes it
        raise InputError(
            f"{path}: cannot be read as an .eaf ({type(error).__name__}: {first_line(error)}); open it in ELAN and "
            "save it again."
        ) from error
    tiers, dependent = [], []
    for name, (annotations, _, attributes, _) in eaf.tiers.items():
        if attributes.get("PARENT_REF") and name not in wanted:
            dependent.append(name)
            continue
        intervals = []
        for key, (first, last, label, _) in annotations.items():
            start, end = eaf.timeslots.get(first), eaf.timeslots.get(last)
            if start is None or end is None:
                raise InputError(
                    f"{path}: the annotation {key} of the tier {name} has no time, as its time slot "
                    f"{first if start is None else last} is missing or has no value; give it one in ELAN."
                )
            intervals.append(Interval(start / 1000, end / 1000, label.strip(), f"{path}, annotation {key}"))
        tiers.append(Tier(name, intervals, attributes.get("PARTICIPANT") or ""))
    if dependent:
        log.info("%s: the tiers %s depend on others and are left out", path, ", ".join(dependent))
    return _segments(path, tiers, wanted)
