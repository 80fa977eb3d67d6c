"""Counting what the clips of a corpus have: labels, speakers, sampling rates."""

from collections import Counter

from lhotse import SupervisionSegment

LABELS = ("split", "session", "emotion", "intensity", "esc", "eis")
# In the order of a corpus' card.
COUNTED = ("split", "session", "speaker", "gender", "emotion", "intensity", "esc", "eis", "sampling_rate", "channels")


def sorted_counts(counter: Counter[str]) -> dict[str, int]:
    """The counts in the order of what was counted, as cards and reports list them."""
    return dict(sorted(counter.items()))


class ClipCounts:
    """How many clips there are, how many seconds, and how many clips have each value of what is COUNTED."""

    def __init__(self) -> None:
        self.utterances = 0
        self.seconds = 0.0
        self.by_value: dict[str, Counter[str]] = {name: Counter() for name in COUNTED}

    def add_supervision(self, supervision: SupervisionSegment) -> None:
        """Count a clip with its labels and its speaker."""
        self.utterances += 1
        self.seconds += supervision.duration
        values = {name: supervision.custom.get(name) for name in LABELS}
        for name, value in {**values, "speaker": supervision.speaker, "gender": supervision.gender}.items():
            # averages over judges have too many values to list
            self.by_value[name][str(round(value, 1) if isinstance(value, float) else value)] += 1

    def add_audio(self, sampling_rate: int, channels: int) -> None:
        """Count the sampling rate (Hz) and the channels of a clip."""
        self.by_value["sampling_rate"][str(sampling_rate)] += 1
        self.by_value["channels"][str(channels)] += 1

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Name -> value -> clips that have it."""
        return {name: sorted_counts(counter) for name, counter in self.by_value.items()}
