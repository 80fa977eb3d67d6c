"""The answer for a whole recording, from those for its segments, and the answer for a segment, from its parts."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from speecheq.inference.prediction import Peak, Prediction, WholeRecording
from speecheq.inference.recordings import Segment

# The class and the SEQM name of a posterior and an EIS.
Namer = Callable[[dict[str, float], float | None], tuple[str, str | None]]
# As many segments of the highest EIS are peaks, which do not overlap.
PEAKS = 3


class WeightedMeans:
    """The weighted mean of posteriors and the moments of EIS, of answers that come one by one."""

    def __init__(self) -> None:
        self.weight = self.eis_weight = 0.0
        self._posterior: dict[str, float] = {}
        self._eis = self._squares = 0.0

    def add(self, weight: float, posterior: dict[str, float], eis: float | None) -> None:
        """Add an answer of ``weight`` seconds."""
        self.weight += weight
        for name, probability in posterior.items():
            self._posterior[name] = self._posterior.get(name, 0.0) + weight * probability
        if eis is not None and weight > 0:
            self.eis_weight += weight
            step = eis - self._eis
            self._eis += step * weight / self.eis_weight
            self._squares += weight * step * (eis - self._eis)

    @property
    def posterior(self) -> dict[str, float] | None:
        """The mean posterior, None without an answer."""
        return {name: total / self.weight for name, total in self._posterior.items()} if self.weight else None

    @property
    def eis(self) -> float | None:
        """The mean EIS."""
        return self._eis if self.eis_weight else None

    @property
    def eis_deviation(self) -> float | None:
        """The standard deviation of the EIS."""
        return (max(0.0, self._squares) / self.eis_weight) ** 0.5 if self.eis_weight else None


def weight_of(prediction: Prediction) -> float:
    """The seconds that a prediction counts: of speech, or of all where speech was not looked for."""
    return prediction.end - prediction.start if prediction.speech is None else prediction.speech


class _Summary:
    """The answer for a recording while its segments come; its size does not grow with their number."""

    def __init__(self, first: Prediction) -> None:
        self.whole = WholeRecording(
            first.source, first.start, first.end, channel=first.channel, speaker=first.speaker or ""
        )
        self.means = WeightedMeans()

    def add(self, prediction: Prediction) -> None:
        whole, weight = self.whole, weight_of(prediction)
        whole.start, whole.end = min(whole.start, prediction.start), max(whole.end, prediction.end)
        whole.segments += 1
        if prediction.posterior is None or prediction.emotion is None:
            whole.without_class += 1
            return
        self.means.add(weight, prediction.posterior, prediction.eis)
        whole.seconds += weight
        whole.shares[prediction.emotion] = whole.shares.get(prediction.emotion, 0.0) + weight
        if prediction.eis is not None:
            low, high = whole.eis_range or (prediction.eis, prediction.eis)
            whole.eis_range = min(low, prediction.eis), max(high, prediction.eis)
            self._add_peak(Peak(prediction.start, prediction.end, prediction.emotion, prediction.eis))

    def _add_peak(self, new: Peak) -> None:
        kept: list[Peak] = []
        for peak in sorted([*self.whole.peaks, new], key=lambda one: (-one.eis, one.start)):
            if all(peak.end <= other.start or other.end <= peak.start for other in kept):
                kept.append(peak)
        self.whole.peaks = kept[:PEAKS]

    def finish(self, name_of: Namer) -> WholeRecording:
        whole, means = self.whole, self.means
        whole.posterior = means.posterior
        if whole.posterior is not None:
            whole.eis, whole.eis_deviation = means.eis, means.eis_deviation
            whole.emotion, whole.name = name_of(whole.posterior, whole.eis)
            whole.shares = {name: share / whole.seconds for name, share in whole.shares.items()}
        return whole


def with_wholes(predictions: Iterable[Prediction], name_of: Namer) -> Iterator[Prediction | WholeRecording]:
    """The predictions, and after those of a recording the answer for all of it, for each channel and speaker."""
    for _, of_recording in groupby(predictions, key=lambda prediction: prediction.source):
        summaries: dict[tuple[int | None, str | None], _Summary] = {}
        for prediction in of_recording:
            yield prediction
            summaries.setdefault((prediction.channel, prediction.speaker), _Summary(prediction)).add(prediction)
        for summary in summaries.values():
            yield summary.finish(name_of)


def wholes_of(predictions: Iterable[Prediction], name_of: Namer) -> list[WholeRecording]:
    """The answers for whole recordings alone."""
    return [one for one in with_wholes(predictions, name_of) if isinstance(one, WholeRecording)]


def joined(parts: Sequence[Prediction], name_of: Namer) -> Prediction:
    """One prediction for a segment that was predicted in parts, weighted by their seconds."""
    answered = [part for part in parts if part.posterior is not None]
    if len(parts) == 1 or not answered:
        return parts[0]
    first, means, genders = answered[0], WeightedMeans(), WeightedMeans()
    for part in answered:
        assert part.posterior is not None
        means.add(weight_of(part), part.posterior, part.eis)
        if part.gender_posterior is not None:
            genders.add(weight_of(part), part.gender_posterior, None)
    assert means.posterior is not None
    first.posterior, first.eis = means.posterior, means.eis
    first.emotion, first.name = name_of(first.posterior, first.eis)
    first.speech = None if first.speech is None else sum(part.speech or 0.0 for part in parts)
    if genders.posterior is not None:
        first.gender_posterior = genders.posterior
        first.gender = max(genders.posterior, key=genders.posterior.__getitem__)
    if first.phones is not None:
        first.phones = [phone for part in answered for phone in part.phones or []]
    notes = [note for part in answered for note in part.note.split("; ") if note]
    # of notes that differ in their numbers alone, the first
    first.note = "; ".join(note for place, note in enumerate(notes) if _kind(note) not in map(_kind, notes[:place]))
    return first


def _kind(note: str) -> str:
    """A note without its numbers."""
    return re.sub(r"-?[0-9.]+", "", note)


def as_listed(segment: Segment, prediction: Prediction) -> Prediction:
    """The prediction for a segment that a file lists, with the times that it has there."""
    assert segment.end is not None
    prediction.start, prediction.end, prediction.windowed = segment.start, segment.end, True
    return prediction
