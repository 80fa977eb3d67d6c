"""Embeddings of recordings: those of a trained model, or the states of a layer of its encoder."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from speecheq.common.device import pick_device
from speecheq.common.errors import InputError
from speecheq.config.schema import FBANK, Config
from speecheq.dataset.model_inputs import encoder_of
from speecheq.features.encoder_states import encoder_settings
from speecheq.features.encoders import Encoder, load_encoder
from speecheq.inference.long_clips import divide
from speecheq.inference.predictor import Predictor
from speecheq.inference.recordings import AudioClip, Segment, Waveform
from speecheq.inference.sources import as_segments, raise_error
from speecheq.inference.speakers import SpeakerMoments, SpeakerOf
from speecheq.inference.trained_model import TorchModel, find_model, read_weights
from speecheq.inference.windows import WINDOW_SECONDS, Windows
from speecheq.models.heads import MultitaskHeads
from speecheq.models.padding_mask import Frames

FBANK_SHIFT = 0.01  # seconds from one frame of filter banks to the next
UTTERANCE, SEGMENT, FRAME = LEVELS = ("utterance", "segment", "frame")


@dataclass(frozen=True)
class Embedding:
    """What was computed of a recording or a part of it, from ``start`` to ``end`` in seconds.

    ``values`` is (D,), or (T, D) at the level of frames, ``frame_shift`` seconds apart; None where ``note`` says why
    there is none.
    """

    segment: Segment
    start: float
    end: float
    values: np.ndarray | None
    note: str = ""
    frame_shift: float = 0.0
    windowed: bool = False  # the segment was cut, and this is of one of its windows


class Embedder(Predictor):
    """A trained model, or a layer of its encoder, that turns recordings into vectors.

    ``model`` is named as for ``Predictor``; ``level`` is one of LEVELS: a vector for each recording (of one that is
    cut, the mean of its windows by their lengths), for each of ``windows``, or for each frame. ``layer`` is that of the
    model's encoder whose states are taken, averaged over time but for frames; None: the model's own embedding, or the
    output of its backbone for each frame. Raises InputError for a model without that.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        level: str = UTTERANCE,
        layer: int | None = None,
        windows: Windows | None = None,
        device: str = "auto",
        batch_size: int | None = None,
        speech_activity: str | None = None,
    ) -> None:
        path = find_model(model)
        if path.suffix == ".onnx":
            raise InputError(f"{path}: of an ONNX file no embeddings are taken; give its checkpoint or model folder.")
        self.level, self.layer = level, layer
        self.network, self.config, labels = read_weights(path)
        loaded = TorchModel(self.network, self.config, labels, pick_device(device))
        self.frame_shift = FBANK_SHIFT if encoder_of(loaded.extractor) is None else Encoder.frame_shift
        if layer is not None:
            loaded.extractor = _load_layer(self.config, layer, path).to(loaded.device)
        # without a window, long recordings are cut into windows that do not overlap
        whole = Windows(None, WINDOW_SECONDS)
        super().__init__(loaded, windows=windows or whole, batch_size=batch_size, speech_activity=speech_activity)

    def embed(
        self,
        sources: Iterable[str | Path | Segment | InputError],
        on_error: Callable[[InputError], None] = raise_error,
        speaker_of: SpeakerOf | None = None,
    ) -> Iterator[Embedding]:
        """The embeddings of many recordings, in their order; ``on_error`` and ``speaker_of`` as in ``Predictor``.

        ``sources`` are what ``Predictor.predict`` takes, or segments. At most some minutes of audio, and their
        embeddings, are in memory.
        """
        with ExitStack() as cleanup:
            yield from self._embed_segments(as_segments(sources, cleanup), on_error, speaker_of)

    def _embed_segments(
        self,
        segments: Iterable[Segment | InputError],
        on_error: Callable[[InputError], None],
        speaker_of: SpeakerOf | None,
    ) -> Iterator[Embedding]:
        moments = None
        if self.layer is None:
            segments, moments = self._with_moments(segments, speaker_of)
        groups: Iterable[list[tuple[AudioClip, Waveform]]] = self._read(segments, on_error)
        if self.level == UTTERANCE:  # in which long clips are parts, as in predictions
            groups = (list(chain.from_iterable(divide(group, self.longest))) for group in groups)
        found = (each for group in groups for each in self._embed(group, moments))
        if self.level != UTTERANCE:
            yield from found
            return
        for _, parts in groupby(found, key=lambda each: id(each.segment)):
            yield _mean(list(parts))

    def _embed(
        self, clips: Sequence[tuple[AudioClip, Waveform]], moments: SpeakerMoments | None
    ) -> Iterator[Embedding]:
        values: dict[int, np.ndarray] = {}
        shift = 0.0
        for places in self._batches(clips):
            batch = [clips[place] for place in places]
            features, frames = self._features(batch)
            if moments is not None:
                features = moments.normalise([clip.segment for clip, _ in batch], features, frames)
            with torch.inference_mode():
                vectors, shift = self._values(features, frames)
            values.update(zip(places, vectors))
        for place, (clip, waveform) in enumerate(clips):
            yield Embedding(clip.segment, clip.start, clip.end, values.get(place), waveform.note, shift, clip.windowed)

    def _values(self, features: Tensor, frames: Tensor) -> tuple[list[np.ndarray], float]:
        """The values of each clip of a mini-batch, (D,) or (T, D), and the seconds between frames."""
        shift = self.frame_shift
        if self.layer is not None:
            x, lengths = features, frames
        elif self.level == FRAME:
            heads = self.network.model
            assert isinstance(heads, MultitaskHeads)
            x, lengths = heads.frame_level(self.network.cmvn(features, frames), frames)
            shift *= round(features.shape[1] / x.shape[1])  # of a backbone that subsamples
        else:
            embedding = self.network(features, frames, tasks=("esc",)).embedding
            return list(embedding.float().cpu().numpy()), shift
        if self.level == FRAME:
            return [clip[:length].float().cpu().numpy() for clip, length in zip(x, lengths.tolist())], shift
        means = Frames.from_lengths(lengths, x.shape[1], x.device).mean(x)
        return list(means.float().cpu().numpy()), shift


def _load_layer(config: Config, layer: int, path: Path) -> Encoder:
    """The encoder of the model at ``path`` that gives the states of ``layer`` alone; InputError where it has none."""
    if config.data.features == FBANK:
        raise InputError(f"--layer {layer}: the model takes filter banks and has no encoder; leave --layer out.")
    highest = max(config.encoder.layer_numbers())
    if path.is_dir() and layer > highest:
        raise InputError(
            f"--layer {layer}: the model folder holds its encoder up to layer {highest}; choose from 0 on."
        )
    if config.encoder.is_trained:
        raise InputError(
            f"--layer {layer}: the encoder was trained with the model; make a model folder of it (speecheq package), "
            "whose encoder has what it learned, and take the layer of that."
        )
    return load_encoder(replace(encoder_settings(config.encoder), layers=(layer,)))


def _mean(parts: Sequence[Embedding]) -> Embedding:
    """The mean of the windows of a recording, weighted by their lengths; those without values do not count."""
    first, last = parts[0], parts[-1]
    if len(parts) == 1:
        return first
    given = [part for part in parts if part.values is not None]
    values = None
    if given:
        weights = [part.end - part.start for part in given]
        values = np.average([part.values for part in given], axis=0, weights=weights).astype(np.float32)
    notes = first.note if not given or len({part.note for part in parts}) == 1 else ""
    return replace(first, end=last.end, values=values, note=notes, windowed=False)
