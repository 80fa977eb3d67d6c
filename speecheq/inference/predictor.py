"""Predictions of a trained model for recordings: emotion (ESC), intensity (EIS), SEQM name, gender, phones."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain, groupby, islice
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from speecheq import seqm
from speecheq.common.errors import InputError
from speecheq.common.process_pool import usable_cores
from speecheq.dataset.phones.phone_table import PhoneTable
from speecheq.features.clip_statistics import clip_statistics
from speecheq.features.speech_activity import NONE, amplify_quiet
from speecheq.features.waveform_batch import SAMPLING_RATE
from speecheq.inference.long_clips import divide, longest_clip
from speecheq.inference.parts import MIX, Channels
from speecheq.inference.prediction import UNSURE, Prediction
from speecheq.inference.recordings import (
    WITHOUT_CLASS,
    AudioClip,
    Segment,
    Waveform,
    prepare_waveform,
    read_clip,
    spans_of,
    split_into_clips,
)
from speecheq.inference.results import Predictions, Timeline
from speecheq.inference.sources import (
    Speakers,
    checked_samples,
    find_sources,
    parts_of_found,
    raise_error,
    recording_of,
    speakers_of_found,
)
from speecheq.inference.speakers import SpeakerMoments, SpeakerOf, each_alone, of_known_speaker
from speecheq.inference.trained_model import TrainedModel, load_trained_model
from speecheq.inference.whole_recording import as_listed, joined, wholes_of
from speecheq.inference.windows import SPEECH, Windows

# Clips of a mini-batch by default; larger ones make a CPU slower.
BATCH_SIZES = {"cpu": 8, "cuda": 32, "mps": 32}
# A mini-batch holds at most this much audio, padding included, and this much is read ahead of the model.
BATCH_SECONDS = 320.0
AHEAD_SECONDS = 600.0
AHEAD_BATCHES = 8
# What samples are called that come from no file.
SAMPLES = Segment("samples", Path("samples"))


class Predictor:
    """A trained model that predicts recordings.

    ``model`` is a checkpoint, a model folder, an ONNX file or a hub id; None is the model that comes with the package.
    ``device`` is auto, cpu, cuda or mps. ``gender`` and ``phones`` request those predictions too. ``windows`` says how
    recordings are cut. ``speech_activity`` finds their speech: silero, energy, or none; None is what the model was
    trained with. ``reject`` is an error rate, such as 0.1: clips are answered as long as at most that share of the
    answers was wrong on its held-out clips, the others are UNSURE. Raises InputError for a model that cannot be used,
    was not trained on what is requested, or does not reach that error rate.

    >>> from speecheq import Predictor
    >>> predictor = Predictor("exp/small-speecheq/casia.random10/fold1/seed1/best.pt", gender=True)
    >>> prediction, = predictor("some.wav")             # a path, or samples: predictor(samples, rate)
    >>> print(f"{prediction.name}: {prediction.emotion} at EIS {prediction.eis:.1f}, spoken by {prediction.gender}")
    rage: anger at EIS 3.6, spoken by M
    >>> for segment in predictor("an-hour.flac"):       # long recordings are cut into their speech
    ...     print(f"{segment.start:.0f} to {segment.end:.0f} s: {segment.emotion}")
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
        speech_activity: str | None = None,
        reject: float | None = None,
    ) -> None:
        self.model = load_trained_model(model, device) if model is None or isinstance(model, (str, Path)) else model
        self.gender, self.phones, self.windows = gender, phones, windows
        self.batch_size = batch_size or BATCH_SIZES[self.model.device.type]
        self.speech_activity = speech_activity or self.model.speech_activity
        self.labels = self.model.labels
        self.answers = None if reject is None else self.labels.calibration.require(reject)
        if windows.into == SPEECH and self.speech_activity == NONE:
            raise InputError(
                "recordings are to be cut into their speech, and speech is not looked for; choose what finds it with "
                "--speech-activity silero."
            )
        self.by_speaker = self.model.cmvn == "speaker"
        self.amplifies = self.speech_activity != NONE and self.model.cmvn == "utterance"
        self.longest = longest_clip(self.model)
        for task, requested, trained in (
            ("gender", gender, self.labels.genders),
            ("phones", phones, self.labels.phones),
        ):
            if requested and not trained:
                raise InputError(
                    f"the model was not trained on {task}: leave --{task} out, or choose a model that was."
                )
        self.phone_table = PhoneTable(self.labels.phones) if phones else None

    def __call__(self, source: str | Path | np.ndarray, rate: int | None = None) -> Predictions:
        """Predict one recording: a file, or samples (S,) or (S, channels) in [-1, 1] at ``rate`` Hz.

        Returns one prediction, or for a recording that is cut one for each window, in order of time. Raises InputError
        where the recording cannot be used.
        """
        if isinstance(source, np.ndarray):
            return self._predict_samples(source, rate)
        return Predictions(self.predict_segments([recording_of(source)], raise_error))

    def _predict_samples(self, samples: np.ndarray, rate: int | None) -> Predictions:
        samples, hertz = checked_samples(samples, rate)
        windowed = self.windows.are_for(len(samples), hertz)
        spans = spans_of(lambda: [samples], len(samples), hertz, self.windows, self.speech_activity)
        clips = [AudioClip(SAMPLES, hertz, span, windowed) for span in spans]
        read = [
            (clip, prepare_waveform(samples[clip.span.first :][: clip.span.frames], clip, SAMPLING_RATE))
            for clip in clips
        ]
        return Predictions(
            self.predict_clips(read, self.speaker_moments([read], each_alone) if self.by_speaker else None)
        )

    def predict(
        self,
        sources: Iterable[str | Path],
        speakers: Speakers = None,
        segments: str | Path | None = None,
        channels: Channels = MIX,
        tiers: Sequence[str] = (),
        on_error: Callable[[InputError], None] = raise_error,
    ) -> Predictions:
        """Predict recordings, in their order.

        ``sources`` are files, folders, manifests, or ``-`` for standard input. ``speakers`` are the names of their
        speakers, one for each source, or ``one``, ``folder``, or a table of files and speakers; features are then
        normalised by them. Without, a model that was trained so (``data.cmvn: speaker``) normalises each recording by
        itself, as its note says. ``segments`` is a file that lists the segments (see ``segment_files``), of which
        ``tiers`` count; without, they are as ``windows`` says. ``channels`` is mix, each, or the number of a channel.
        ``on_error`` gets the InputError of each recording that cannot be used; by default it is raised.
        """
        with ExitStack() as cleanup:
            found = find_sources(sources, cleanup)
            parts = parts_of_found(found, segments, channels, tiers)
            return Predictions(self.predict_segments(parts, on_error, speakers_of_found(found, speakers)))

    def timelines(
        self,
        sources: Iterable[str | Path],
        segments: str | Path | None = None,
        channels: Channels = MIX,
        tiers: Sequence[str] = (),
        speakers: Speakers = None,
        on_error: Callable[[InputError], None] = raise_error,
    ) -> Iterator[Timeline]:
        """The timeline of each recording, as soon as it is there; the arguments are those of ``predict``."""
        with ExitStack() as cleanup:
            found = find_sources(sources, cleanup)
            parts = parts_of_found(found, segments, channels, tiers)
            recordings = {part.name: part for part in parts if isinstance(part, Segment)}
            predictions = self.predict_segments(parts, on_error, speakers_of_found(found, speakers))
            for name, own in groupby(predictions, key=lambda prediction: prediction.source):
                yield self.timeline_of(recordings[name], own)

    def timeline(
        self,
        source: str | Path,
        segments: str | Path | None = None,
        channels: Channels = MIX,
        tiers: Sequence[str] = (),
        speakers: Speakers = None,
    ) -> Timeline:
        """The segments of a recording and its predictions, and the answer for all of it; see ``predict``.

        Raises InputError where the recording or the file cannot be used, and where there is not one recording.
        """
        found = list(self.timelines([source], segments, channels, tiers, speakers))
        if len(found) != 1:
            raise InputError(f"{source}: a timeline is of one recording, and there are {len(found)}; use timelines.")
        return found[0]

    def timeline_of(self, recording: Segment, predictions: Iterable[Prediction]) -> Timeline:
        """The timeline of ``predictions``, all those of one recording."""
        own = Predictions(predictions)
        return Timeline(recording.name, own, wholes_of(own, self.name_of), self.labels.classes.names, recording)

    def name_of(self, posterior: dict[str, float], eis: float | None) -> tuple[str, str | None]:
        """The class of a posterior, or UNSURE, and its SEQM name at an EIS, if there is one."""
        best = max(posterior, key=posterior.__getitem__)
        if self.answers is not None and posterior[best] < self.answers.threshold:
            return UNSURE, None
        classes = self.labels.classes
        category = classes.categories[classes.names.index(best)]
        return best, None if eis is None else seqm.emotion_name(category, eis)

    def predict_segments(
        self,
        segments: Iterable[Segment | InputError],
        on_error: Callable[[InputError], None],
        speaker_of: SpeakerOf | None = None,
    ) -> Iterator[Prediction]:
        """Predict many recordings, in their order.

        ``on_error`` is called once for each recording that cannot be read, and for each InputError among ``segments``.
        A recording is read while the model predicts those before it; at most AHEAD_SECONDS of audio are in memory.
        A segment that a file lists has one prediction, with its times. Raises InputError as ``_with_moments`` does.
        """
        segments, moments = self._with_moments(segments, speaker_of)
        found = (
            (clip.segment, prediction)
            for read in self._read(segments, on_error)
            for (clip, _), prediction in zip(read, self.predict_clips(read, moments))
        )
        for segment, group in groupby(found, key=lambda pair: pair[0]):
            predictions = (prediction for _, prediction in group)
            if segment.listed:
                yield as_listed(segment, joined(list(predictions), self.name_of))
            else:
                yield from predictions

    def _with_moments(
        self, segments: Iterable[Segment | InputError], speaker_of: SpeakerOf | None
    ) -> tuple[Iterable[Segment | InputError], SpeakerMoments | None]:
        """The segments, and the moments of their speakers where features are normalised by these: all are read for it.

        A segment whose speaker is not known has an InputError in its place. Raises InputError for ``speaker_of`` with a
        model that cannot be normalised so.
        """
        if speaker_of is None and not self.by_speaker:
            return segments, None
        if not self.by_speaker and self.model.moments is None:
            raise InputError(
                f"the model, whose features are normalised by {self.model.cmvn or 'itself'}, cannot normalise them by "
                "speaker: data.cmvn speaker or global can, except in an ONNX file; do not say whose the recordings are."
            )
        known = [of_known_speaker(segment, speaker_of) for segment in segments]
        return known, self.speaker_moments(self._read(known, lambda error: None), speaker_of or each_alone)

    def _read(
        self, segments: Iterable[Segment | InputError], on_error: Callable[[InputError], None]
    ) -> Iterator[list[tuple[AudioClip, Waveform]]]:
        """The clips of all recordings, in groups that are in memory at once."""
        failed: set[Segment] = set()
        with ThreadPoolExecutor(usable_cores()) as readers:

            def finish(pending: Sequence[tuple[AudioClip, "Future[Waveform]"]]) -> list[tuple[AudioClip, Waveform]]:
                read = []
                for clip, waveform in pending:
                    try:
                        read.append((clip, waveform.result()))
                    except InputError as error:
                        if clip.segment not in failed:
                            failed.add(clip.segment)
                            on_error(error)
                return read

            pending: list[tuple[AudioClip, Future[Waveform]]] = []
            for group in chain(self._groups(segments, on_error), [[]]):  # the last, empty group finishes the one before
                reading = [(clip, readers.submit(read_clip, clip, SAMPLING_RATE)) for clip in group]
                yield finish(pending)
                pending = reading

    def _groups(
        self, segments: Iterable[Segment | InputError], on_error: Callable[[InputError], None]
    ) -> Iterator[list[AudioClip]]:
        """The clips of all recordings, in groups that are read at once."""
        group: list[AudioClip] = []
        seconds = 0.0
        for segment in segments:
            try:
                if isinstance(segment, InputError):
                    raise segment
                clips = split_into_clips(segment, self.windows, self.speech_activity)
            except InputError as error:
                on_error(error)
                continue
            for clip in clips:
                if group and (seconds > AHEAD_SECONDS / 2 or len(group) >= AHEAD_BATCHES * self.batch_size):
                    yield group
                    group, seconds = [], 0.0
                group.append(clip)
                seconds += clip.span.frames / clip.rate
        if group:
            yield group

    def predict_clips(
        self, clips: Sequence[tuple[AudioClip, Waveform]], moments: SpeakerMoments | None = None
    ) -> Iterator[Prediction]:
        """Predict in mini-batches of clips of similar length; yield in the order of ``clips``.

        Clips longer than those of the training are predicted in parts (see ``long_clips``).
        """
        divided = divide(clips, self.longest)
        clips = list(chain.from_iterable(divided))
        predictions = [
            Prediction(
                clip.segment.name,
                clip.start,
                clip.end,
                speech=clip.span.speech,
                note=waveform.note,
                windowed=clip.windowed,
                channel=clip.segment.channel,
                speaker=clip.segment.speaker or None,
                columns=dict(clip.segment.columns),
            )
            for clip, waveform in clips
        ]
        for batch in self._batches(clips):
            self._fill_in([clips[place] for place in batch], [predictions[place] for place in batch], moments)
        answers = iter(predictions)
        for parts in divided:
            yield joined(list(islice(answers, len(parts))), self.name_of)

    def _batches(self, clips: Sequence[tuple[AudioClip, Waveform]]) -> Iterator[list[int]]:
        """The places in ``clips`` of each mini-batch, without those that get no class."""
        batch: list[int] = []
        speech = [place for place, (_, waveform) in enumerate(clips) if waveform.note not in WITHOUT_CLASS]
        for place in sorted(speech, key=lambda place: len(clips[place][1].samples)):
            padded = (len(batch) + 1) * len(clips[place][1].samples)
            if batch and (len(batch) == self.batch_size or padded > BATCH_SECONDS * SAMPLING_RATE):
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch

    def _features(self, clips: Sequence[tuple[AudioClip, Waveform]]) -> tuple[torch.Tensor, torch.Tensor]:
        """The features (N, T, D) of a mini-batch, on the model's device, and their numbers of frames (N,)."""
        samples = [waveform.samples for _, waveform in clips]
        if self.amplifies:
            samples = [amplify_quiet(each) for each in samples]
        lengths = torch.tensor([len(each) for each in samples])
        padded = pad_sequence([torch.from_numpy(each) for each in samples], batch_first=True)
        with torch.inference_mode():
            return self.model.extractor(padded.to(self.model.device), lengths)

    def speaker_moments(
        self,
        groups: Iterable[Sequence[tuple[AudioClip, Waveform]]],
        speaker_of: SpeakerOf,
        moments: SpeakerMoments | None = None,
    ) -> SpeakerMoments:
        """The mean and deviation of each speaker over all of ``groups``, added to ``moments`` if they are given."""
        moments = moments or SpeakerMoments(speaker_of, None if self.by_speaker else self.model.moments)
        for group in groups:
            clips = list(chain.from_iterable(divide(group, self.longest)))
            for places in self._batches(clips):
                batch = [clips[place] for place in places]
                moments.add([clip.segment for clip, _ in batch], *self._features(batch))
        return moments

    def _fill_in(
        self,
        clips: Sequence[tuple[AudioClip, Waveform]],
        predictions: Sequence[Prediction],
        moments: SpeakerMoments | None,
    ) -> None:
        """Compute the model's output for one mini-batch and write it into ``predictions``."""
        features, frames = self._features(clips)
        if moments is not None:
            segments = [clip.segment for clip, _ in clips]
            features = moments.normalise(segments, features, frames)
            for segment, prediction in zip(segments, predictions):
                prediction.note = "; ".join(filter(None, (prediction.note, moments.note(segment))))
        output = self.model(features, frames, self.phones)
        for row, (_, waveform) in enumerate(clips):
            self._note_range(predictions[row], waveform, None if output.embedding is None else output.embedding[row])
        classes, genders = self.labels.classes, self.labels.genders
        for row, prediction in enumerate(predictions):
            prediction.posterior = dict(zip(classes.names, output.posterior[row].tolist()))
            prediction.eis = None if output.eis is None else float(output.eis[row])
            prediction.emotion, prediction.name = self.name_of(prediction.posterior, prediction.eis)
            if self.gender and output.gender is not None:
                prediction.gender = genders[int(output.gender[row].argmax())]
                prediction.gender_posterior = dict(zip(genders, output.gender[row].tolist()))
            if self.phone_table is not None and output.phones is not None:
                spoken = [number for number in output.phones[row] if number != self.phone_table.pause]
                prediction.phones = self.phone_table.decode(spoken)

    def _note_range(self, prediction: Prediction, waveform: Waveform, embedding: np.ndarray | None) -> None:
        """Note what of a clip is outside of what the model was trained on."""
        if self.labels.trained_range.clips:
            seconds = len(waveform.samples) / SAMPLING_RATE if prediction.speech is None else prediction.speech
            note = self.labels.trained_range.note(clip_statistics(waveform.samples, seconds), embedding)
            prediction.note = "; ".join(filter(None, (prediction.note, note)))
