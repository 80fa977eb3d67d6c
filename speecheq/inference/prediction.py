"""What is predicted: for a segment of a recording, and for all of it."""

from dataclasses import asdict, dataclass, field
from typing import Any

# The formats with a line for each prediction, and those that label one recording.
ROWS = ("text", "json", "csv")
LABELS = ("rttm", "textgrid", "eaf", "srt", "vtt", "audacity")
CLASSES_IN_SUMMARY = 3
UNSURE = "unsure"  # in place of a class whose posterior is below the threshold


@dataclass
class Prediction:
    """The prediction for a clip, which is a recording or a segment of one.

    ``emotion`` is the most probable class, ``posterior`` the probability of each class, ``eis`` the intensity from 0 to
    4, and ``name`` the SEQM name of the class at that intensity. ``eis`` and ``name`` are None where the model was not
    trained on EIS; all four are None without speech. If an error rate was asked for (``reject`` of ``Predictor``) and
    the posterior is too low for it, ``emotion`` is UNSURE and ``name`` None. ``gender`` and ``phones`` are None where
    they were not requested.
    ``speech`` is the seconds of speech that the prediction rests on, between ``start`` and ``end``; None where speech
    was not looked for. ``note`` is empty; ``no speech``, ``too short`` or ``silence``, of a clip without a class; or
    some of ``clipping``, ``opposite phase`` and ``normalised by this recording alone`` (of a model that is normalised
    by speaker), separated by ``; ``.
    ``windowed`` says that the recording was cut, and this is one of its segments. ``channel`` is the one that was read,
    None for all; ``speaker`` and ``columns`` are what a file of segments says.

    >>> Prediction("some.wav", 0.0, 1.5, "anger", "rage", 3.6, {"anger": 0.9, "joy": 0.1}).summary()
    'rage (anger 0.90, EIS 3.60); else joy 0.10'
    """

    source: str
    start: float  # seconds from the beginning of the recording
    end: float
    emotion: str | None = None
    name: str | None = None
    eis: float | None = None
    posterior: dict[str, float] | None = None
    gender: str | None = None
    gender_posterior: dict[str, float] | None = None
    phones: list[str] | None = None
    speech: float | None = None
    note: str = ""
    windowed: bool = False
    channel: int | None = None
    speaker: str | None = None
    columns: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The prediction as numbers, texts, lists and dicts, as JSON has it."""
        return asdict(self)

    def summary(self) -> str:
        """The prediction in one line: SEQM name, the most probable classes, EIS, gender, phones, note and speech."""
        parts = []
        if self.posterior is not None:
            unsure = self.emotion == UNSURE
            scores = sorted(self.posterior.items(), key=lambda item: item[1], reverse=True)
            shown = scores if unsure else scores[:CLASSES_IN_SUMMARY]
            best, *others = (f"{name} {probability:.2f}" for name, probability in shown)
            best = best if self.eis is None else f"{best}, EIS {self.eis:.2f}"
            name = UNSURE if unsure else self.name
            parts.append(best if name is None else f"{name} ({best})")
            parts.append("else " + ", ".join(others))
        if self.gender is not None and self.gender_posterior is not None:
            parts.append(f"{self.gender} {self.gender_posterior[self.gender]:.2f}")
        if self.phones is not None:
            parts.append("phones " + (" ".join(self.phones) or "none"))
        if self.note:
            parts.append(self.note)
        if self.speech:
            parts.append(f"{self.speech:.2f} s of speech")
        return "; ".join(parts)


@dataclass
class Peak:
    """A segment with one of the highest EIS of its recording; ``start`` and ``end`` in seconds."""

    start: float
    end: float
    emotion: str
    eis: float


@dataclass
class WholeRecording:
    """The answer for a recording, or for one channel or speaker of it, from the answers for its segments.

    ``posterior`` is the mean of theirs, weighted by the seconds of speech in them (by their lengths where speech was
    not looked for), ``eis`` and ``eis_deviation`` are mean and standard deviation of the EIS with the same weights,
    ``eis_range`` are its lowest and highest values, and ``shares`` the share of that time that each class has.
    ``emotion`` and ``name`` follow from posterior and EIS as for a segment. ``start`` and ``end`` are those of the
    first and the last segment. All are None or empty where no segment has a class.
    """

    source: str
    start: float
    end: float
    emotion: str | None = None
    name: str | None = None
    eis: float | None = None
    eis_deviation: float | None = None
    eis_range: tuple[float, float] | None = None
    posterior: dict[str, float] | None = None
    shares: dict[str, float] = field(default_factory=dict)
    peaks: list[Peak] = field(default_factory=list)
    segments: int = 0
    without_class: int = 0
    seconds: float = 0.0  # of speech, or of the segments with a class
    channel: int | None = None
    speaker: str = ""

    def summary(self) -> str:
        """The answer in one line."""
        count = f"{self.segments} segments"
        if self.without_class:
            count += f", {self.without_class} without a class"
        if self.posterior is None or self.emotion is None:
            return f"no class; {count}"
        best = f"{self.emotion} {max(self.posterior.values()):.2f}"
        if self.eis is not None and self.eis_deviation is not None:
            best += f", EIS {self.eis:.2f} ± {self.eis_deviation:.2f}"
        best = best if self.name is None else f"{self.name} ({best})"
        shares = sorted(self.shares.items(), key=lambda item: item[1], reverse=True)
        parts = [best, "of the time " + ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares if share)]
        if self.peaks:
            parts.append(
                "peaks " + ", ".join(f"{one.start:.1f} s ({one.emotion}, EIS {one.eis:.2f})" for one in self.peaks)
            )
        return "; ".join([*parts, f"{self.seconds:.1f} s in {count}"])

    def to_dict(self) -> dict[str, Any]:
        """The answer as numbers, texts, lists and dicts, as JSON has it; ``part`` is ``recording``."""
        return {"part": "recording", **asdict(self)}
