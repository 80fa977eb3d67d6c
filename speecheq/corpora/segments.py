"""Segments that do not fit their recordings: cut to its end where rounding explains it, else refused or left out."""

from collections.abc import Sequence
from dataclasses import replace

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.common.stages import Drops
from speecheq.corpora.audio_headers import FRAME_SECONDS, AudioHeader
from speecheq.corpora.declaration import Corpus, Utterance

# A segment that ends at most so many seconds after its recording is cut to its end, as Kaldi's tools do.
OVERHANG_SECONDS = 0.5
# Up to so many seconds nothing is said: tables round their times.
ROUNDING_SECONDS = 0.01


def overhang_is_small(end: float, recording_end: float) -> bool:
    """Whether a segment that ends at ``end`` s can be cut to the end of its recording, at ``recording_end`` s."""
    return end <= recording_end + OVERHANG_SECONDS + 1e-9


def _fault(utterance: Utterance, recording_end: float) -> str | None:
    """Why an utterance cannot be taken from its recording of ``recording_end`` s, or None."""
    end = recording_end if utterance.end is None else utterance.end
    if overhang_is_small(end, recording_end) and 0 <= utterance.start <= min(end, recording_end) - FRAME_SECONDS + 1e-9:
        return None
    return (
        f"{utterance.where}: the segment from {utterance.start:g} to {end:g} s is shorter than one frame of 25 ms or "
        f"leaves its recording of {recording_end:.2f} s"
    )


def fit_segments(
    corpus: Corpus, utterances: Sequence[Utterance], headers: Sequence[AudioHeader], partial: bool, drops: Drops
) -> tuple[list[Utterance], list[AudioHeader]]:
    """The utterances that fit their recordings, with the headers of their files, in their order.

    A segment that ends up to ``OVERHANG_SECONDS`` after its recording is cut to its end; how many were is logged. One
    that lies further outside, or has less than a frame of 25 ms inside, is an InputError; in a ``partial`` copy it is
    added to ``drops`` and named in the log.
    """
    fitting: list[tuple[Utterance, AudioHeader]] = []
    faults: list[str] = []
    cut = 0
    for utterance, header in zip(utterances, headers):
        recording_end = header.frames / header.rate
        fault = _fault(utterance, recording_end)
        if fault is not None:
            faults.append(fault)
            drops.add("segment outside its recording", utterance.id)
            continue
        if utterance.end is not None and utterance.end > recording_end + ROUNDING_SECONDS:
            utterance, cut = replace(utterance, end=recording_end), cut + 1
        fitting.append((utterance, header))
    if faults and (not partial or not fitting):
        others = f" (the first of {len(faults)} such segments)" if len(faults) > 1 else ""
        advice = "correct the times" if partial else "correct the times, or leave such out with --partial true"
        raise InputError(f"{faults[0]}{others}; {advice}.")
    for fault in faults:
        log.warning("%s: left out", fault)
    if cut:
        log.warning(
            "%s: %d segments end up to %g s after their recording and are cut to its end",
            corpus.name,
            cut,
            OVERHANG_SECONDS,
        )
    return [utterance for utterance, _ in fitting], [header for _, header in fitting]
