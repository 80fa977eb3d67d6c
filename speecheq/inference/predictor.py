"""What a trained model says of recordings: emotion (ESC), intensity (EIS), SEQM name, gender, phones.

The command is ``speecheq predict``, also ``python -m speecheq.predict``; ``Predictor`` is the same in Python.
"""

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from speecheq import seqm
from speecheq.common.errors import InputError
from speecheq.common.files import whole_file
from speecheq.common.log import log, one_line
from speecheq.common.progress import progress
from speecheq.dataset.phones.phone_table import PhoneTable
from speecheq.evaluation.score import POSTERIOR
from speecheq.features.fbank import BatchedFbank
from speecheq.inference.recordings import SILENCE, Clip, Part, Sound, Windows, clips_of, find_parts, heard, listen
from speecheq.inference.trained_model import Labels, TrainedModel, open_model

# Clips that are predicted at once, where nothing is said: more make a CPU slower.
BATCH_SIZES = {"cpu": 8, "cuda": 32}
# A mini-batch holds at most this much sound, padding included, and this much is read ahead of the model.
BATCH_SECONDS = 320.0
AHEAD_SECONDS = 600.0
AHEAD_BATCHES = 8
# From so many recordings on, progress is shown.
MANY = 20
FORMATS = ("text", "json", "csv")
BEST = 3  # classes that a line of text names


@dataclass
class Prediction:
    """What a model says of a clip: a recording, or a window of one.

    ``emotion`` is the most probable class and ``posterior`` the probability of each; ``name`` is the SEQM name of its
    category at ``eis`` (0 to 4), both None for a model that was not trained on EIS. All of them are None for silence,
    of which nothing is said. ``gender`` and ``phones`` are None where they were not asked for. ``note`` is empty,
    ``silence`` or ``clipping``.
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
    note: str = ""
    windowed: bool = False  # one of several of its recording


class Predictor:
    """A trained model and all that stands between it and a recording.

    ``model`` is a checkpoint, a model folder, an ONNX file or a hub id (None: the one that comes with the package);
    ``device`` auto, cpu or cuda. ``gender`` and ``phones`` ask for those too. InputError for a model that cannot be
    used, or that was not trained on what is asked for.

    >>> predictor = Predictor("exp/small-speecheq/casia.random10/fold1/seed1/best.pt", gender=True)
    >>> answer, = predictor("some.wav")                 # a path, or samples: predictor(samples, rate)
    >>> print(f"{answer.name}: {answer.emotion} at EIS {answer.eis:.1f}, spoken by {answer.gender}")
    rage: anger at EIS 3.6, spoken by M
    >>> for window in predictor("an-hour.flac"):        # long recordings: a timeline
    ...     print(f"{window.start:.0f} to {window.end:.0f} s: {window.emotion}")
    0 to 6 s: neutral
    """

    def __init__(
        self,
        model: str | Path | TrainedModel | None = None,
        device: str = "auto",
        gender: bool = False,
        phones: bool = False,
        windows: Windows = Windows(),
        batch_size: int | None = None,
    ):
        self.model = open_model(model, device) if model is None or isinstance(model, (str, Path)) else model
        self.gender, self.phones, self.windows = gender, phones, windows
        self.batch_size = batch_size or BATCH_SIZES[self.model.device.type]
        labels = self.labels = self.model.labels
        for asked, table, task in ((gender, labels.genders, "gender"), (phones, labels.phones, "phones")):
            if asked and not table:
                raise InputError(
                    f"the model was not trained on {task}, so it cannot be asked for {task}; leave "
                    f"--{task} out, or take another model."
                )
        self.phone_table = PhoneTable(labels.phones) if phones else None
        self.rate = self.model.fbank.sampling_rate
        self.fbank = BatchedFbank(self.model.fbank).to(self.model.device)

    def __call__(self, source: str | Path | np.ndarray, rate: int | None = None) -> list[Prediction]:
        """What is said of a recording: a file, or samples (S,) or (S, channels) in [-1, 1] at ``rate`` Hz.

        One prediction; several, in their order, where it is long (see Windows). InputError where it cannot be used.
        """
        if isinstance(source, np.ndarray):
            return self._of_samples(source, rate)
        return list(self.of_parts([Part(str(source), Path(source))], _raise))

    def _of_samples(self, samples: np.ndarray, rate: int | None) -> list[Prediction]:
        samples = np.asarray(samples, dtype=np.float32)
        samples = samples[:, None] if samples.ndim == 1 else samples
        if not rate or samples.ndim != 2 or len(samples) < self.model.fbank.frame_length * rate:
            raise InputError("samples must be (S,) or (S, channels) with their rate in Hz, and last 25 ms at least.")
        cut = self.windows.of(len(samples), rate)
        clips = [Clip("samples", Path("samples"), rate, first, frames, len(cut) > 1) for first, frames in cut]
        sounds = [heard(samples[clip.first : clip.first + clip.frames], rate, self.rate, "samples") for clip in clips]
        return list(self._predict(list(zip(clips, sounds))))

    def of_parts(
        self, parts: Iterable[Part | InputError], failed: Callable[[InputError], None]
    ) -> Iterator[Prediction]:
        """What is said of many recordings, in their order; those that cannot be read are handed to ``failed``.

        A recording is read while the model works on those before it, and no more than AHEAD_SECONDS are in memory.
        """
        broken = set()
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as readers:

            def taken(group: Sequence[tuple[Clip, "Future[Sound]"]]) -> Iterator[Prediction]:
                sounds = []
                for clip, reading in group:
                    try:
                        sounds.append((clip, reading.result()))
                    except InputError as error:
                        if (clip.name, clip.path) not in broken:  # once a recording, not a window
                            broken.add((clip.name, clip.path))
                            failed(error)
                yield from self._predict(sounds)

            before: list[tuple[Clip, Future[Sound]]] = []
            for group in self._groups(parts, failed):
                reading = [(clip, readers.submit(listen, clip, self.rate)) for clip in group]
                yield from taken(before)
                before = reading
            yield from taken(before)

    def _groups(self, parts: Iterable[Part | InputError], failed: Callable[[InputError], None]) -> Iterator[list[Clip]]:
        """The clips of all recordings, in groups that are read at once."""
        group: list[Clip] = []
        seconds = 0.0
        for part in parts:
            try:
                if isinstance(part, InputError):
                    raise part
                clips = clips_of(part, self.windows)
            except InputError as error:
                failed(error)
                continue
            for clip in clips:
                if group and (seconds > AHEAD_SECONDS / 2 or len(group) >= AHEAD_BATCHES * self.batch_size):
                    yield group
                    group, seconds = [], 0.0
                group.append(clip)
                seconds += clip.frames / clip.rate
        if group:
            yield group

    def _predict(self, sounds: Sequence[tuple[Clip, Sound]]) -> Iterator[Prediction]:
        """In the order of ``sounds``; clips of like durations share a mini-batch."""
        answers: dict[int, Prediction] = {}
        for number, (clip, sound) in enumerate(sounds):
            answers[number] = Prediction(clip.name, clip.start, clip.end, note=sound.note, windowed=clip.windowed)
        speaking = [number for number, (_, sound) in enumerate(sounds) if sound.note != SILENCE]
        for batch in self._batches(speaking, [len(sound.samples) for _, sound in sounds]):
            self._answer([sounds[number][1].samples for number in batch], [answers[number] for number in batch])
        yield from answers.values()

    def _batches(self, numbers: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
        batch: list[int] = []
        for number in sorted(numbers, key=lambda number: lengths[number]):
            padded = (len(batch) + 1) * lengths[number]
            if batch and (len(batch) == self.batch_size or padded > BATCH_SECONDS * self.rate):
                yield batch
                batch = []
            batch.append(number)
        if batch:
            yield batch

    def _answer(self, samples: Sequence[np.ndarray], predictions: Sequence[Prediction]) -> None:
        """Fill in what the model says of one mini-batch."""
        lengths = torch.tensor([len(clip) for clip in samples])
        padded = pad_sequence([torch.from_numpy(clip) for clip in samples], batch_first=True)
        with torch.inference_mode():
            features, frames = self.fbank(padded.to(self.model.device), lengths)
        said = self.model(features, frames, self.phones)
        classes = self.labels.classes
        for number, prediction in enumerate(predictions):
            best = int(said.posterior[number].argmax())
            prediction.emotion = classes.names[best]
            if said.eis is not None:
                prediction.eis = float(said.eis[number])
                prediction.name = seqm.emotion_name(classes.categories[best], prediction.eis)
            prediction.posterior = dict(zip(classes.names, said.posterior[number].tolist()))
            if self.gender:
                genders = said.gender[number]
                prediction.gender = self.labels.genders[int(genders.argmax())]
                prediction.gender_posterior = dict(zip(self.labels.genders, genders.tolist()))
            if self.phones:
                prediction.phones = self.phone_table.decode(said.phones[number])


def _raise(error: InputError) -> None:
    raise error


# ---- the command


def _as_text(predictions: Iterable[Prediction], labels: Labels) -> Iterator[str]:
    for p in predictions:
        where = f"{p.source} {p.start:.2f}-{p.end:.2f} s" if p.windowed else p.source
        if p.posterior is None:
            yield one_line(f"{where}: {p.note}") + "\n"
            continue
        first, *others = sorted(p.posterior, key=p.posterior.__getitem__, reverse=True)[:BEST]
        of_class = f"{first} {p.posterior[first]:.2f}"
        words = [of_class if p.eis is None else f"{p.name} ({of_class}, EIS {p.eis:.2f})"]
        words.append("else " + ", ".join(f"{name} {p.posterior[name]:.2f}" for name in others))
        if p.gender is not None:
            words.append(f"{p.gender} {p.gender_posterior[p.gender]:.2f}")
        if p.phones is not None:
            words.append("phones " + (" ".join(p.phones) or "none"))
        yield one_line(f"{where}: " + "; ".join(words + [p.note] * bool(p.note))) + "\n"


def _as_json(predictions: Iterable[Prediction], labels: Labels) -> Iterator[str]:
    for p in predictions:
        yield json.dumps(_rounded(asdict(p)), ensure_ascii=False) + "\n"


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, 6) if isinstance(value, float) else value


def _as_csv(predictions: Iterable[Prediction], labels: Labels) -> Iterator[str]:
    """Empty cells for what was not asked for or cannot be said."""
    names = labels.classes.names
    posteriors = [POSTERIOR + name for name in names]
    yield _csv_line(["source", "start", "end", "emotion", "name", "eis", *posteriors, "gender", "phones", "note"])
    for p in predictions:
        posterior = ["" if p.posterior is None else f"{p.posterior[name]:.6f}" for name in names]
        yield _csv_line(
            [
                p.source,
                f"{p.start:.3f}",
                f"{p.end:.3f}",
                p.emotion,
                p.name,
                "" if p.eis is None else f"{p.eis:.4f}",
                *posterior,
                p.gender,
                "" if p.phones is None else " ".join(p.phones),
                p.note,
            ]
        )


def _csv_line(cells: Sequence[str | None]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


WRITERS = dict(zip(FORMATS, (_as_text, _as_json, _as_csv)))


def predict(names: Sequence[str], predictor: Predictor, format: str = "text", output: Path | None = None) -> None:
    """The command: predict all recordings and write a line each (or a window), to ``output`` or standard output.

    What cannot be read is logged in one line and the rest goes on; an InputError at the end then says how many.
    """
    failures: list[InputError] = []

    def failed(error: InputError) -> None:
        failures.append(error)
        log.error("%s", error)

    with ExitStack() as kept:
        parts = list(find_parts(names, kept))
        shown = progress(parts, "predicting", unit="recordings") if len(parts) >= MANY else parts
        lines = WRITERS[format](predictor.of_parts(shown, failed), predictor.labels)
        if output is None:
            for line in lines:
                sys.stdout.write(line)
                sys.stdout.flush()
        else:
            with whole_file(output) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
                stream.writelines(lines)
    if failures:
        raise InputError(f"{len(failures)} of {len(parts)} recordings could not be predicted, for the reasons above.")
