"""How clips become the features that a model takes: what is stored or computed of waveforms, and by which statistics.

``data.features`` names the feature set, ``data.input`` whether it is stored, ``data.cmvn: speaker`` the normalisation.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lhotse.cut import Cut
from torch import Tensor, nn

from speecheq.common.errors import InputError
from speecheq.config.schema import FBANK, Config
from speecheq.dataset.batch import ClipLoader, TaskBatch, collate, load_samples, scoring_batches
from speecheq.features.encoder_states import StoredStates, load_trained_encoder
from speecheq.features.encoders import Encoder, load_trained
from speecheq.features.fbank import BatchedFbank
from speecheq.features.fbank_and_states import FbankAndStates, beside
from speecheq.features.frame_statistics import FrameSums, normalise_by
from speecheq.features.storage import load_features

# Mini-batch of what was loaded -> mini-batch of features (N, T, D), on the same device.
FeatureExtractor = Callable[[TaskBatch], TaskBatch]


WaveformExtractor = BatchedFbank | Encoder | FbankAndStates


def waveform_extractor(config: Config, trained: Mapping[str, Tensor] | None = None) -> WaveformExtractor:
    """The module that turns waveforms (N, S) and lengths (N,) into the features of ``config`` and their frames (N,).

    ``trained`` is what a training with the encoder has made of it (``Normalised.trained_encoder``); None: the encoder
    is as its files say. Raises InputError if the encoder cannot be loaded, or is not the one that stage 2 found.
    """
    if config.data.features == FBANK:
        return BatchedFbank()
    encoder = load_trained_encoder(config.encoder)
    extractor = FbankAndStates(encoder) if config.model.kind == "fusion" else encoder
    if trained is not None:
        try:
            load_trained(extractor, config.encoder, trained)
        except ValueError as error:
            raise InputError(f"{config.encoder.model}: is not the encoder of the checkpoint: {error}.") from error
    return extractor


def encoder_of(extractor: WaveformExtractor) -> Encoder | None:
    """The encoder that an extractor uses; None for that of filter banks."""
    if isinstance(extractor, FbankAndStates):
        return extractor.encoder
    return extractor if isinstance(extractor, Encoder) else None


@dataclass(frozen=True)
class ModelInputs:
    """``load`` reads a clip (None: its stored filter banks), ``extract`` then makes features of a mini-batch.

    ``dialogues``: whether the mini-batches of emotion clips are dialogues.
    """

    load: ClipLoader | None = None
    extract: FeatureExtractor | None = None
    dialogues: bool = False

    def batches(self, stream: str, cuts: Iterable[Cut], batch_size: int, device: torch.device) -> Iterator[TaskBatch]:
        """Mini-batches of features on ``device`` with every cut once, uncropped."""
        dialogues = self.dialogues and stream == "emotion"
        for batch in scoring_batches(stream, list(cuts), batch_size, self.load, dialogues):
            yield self._extracted(batch.to(device))

    def collate(self, stream: str, cuts: list[Cut], device: torch.device) -> TaskBatch:
        """A mini-batch of features on ``device``."""
        return self._extracted(collate(stream, cuts, self.load).to(device))

    def _extracted(self, batch: TaskBatch) -> TaskBatch:
        return batch if self.extract is None else self.extract(batch)


def stored_states(config: Config, data: Path | None) -> StoredStates | None:
    """The states that stage 2 stored under ``data`` (DATA/NAME); None where they are computed of waveforms."""
    if config.data.features == FBANK or data is None or not any(data.glob("*/stage.json")):
        return None
    return StoredStates(data)


def stored_loader(config: Config, states: StoredStates | None) -> ClipLoader | None:
    """What reads the stored features of a clip; None: its filter banks."""
    if states is None:
        return None
    if config.model.kind == "fusion":
        return lambda cut: beside(load_features(cut), states.load(cut))
    return states.load


def stored_widths(config: Config) -> dict[str, int]:
    """How many values of a frame of stored features a training reads, by stream; all of a stream without an entry.

    light pools the first layers alone for all tasks but phonemes.
    """
    model = config.model
    if model.kind != "light" or model.pooling == "attentive" or config.label_free_tasks():
        return {}
    return dict.fromkeys(("emotion", "gender"), model.pooled_width)


def scoring_inputs(
    config: Config, data: Path | None, device: torch.device, trained: Mapping[str, Tensor] | None = None
) -> ModelInputs:
    """How the clips of dev and test sets become features: stored ones where there are, else of their waveforms.

    ``trained``: see ``waveform_extractor``; stored states are those of the encoder before such a training.
    """
    states, dialogues = stored_states(config, data) if trained is None else None, config.data.batches == "dialogue"
    if states is not None or config.data.features == FBANK:
        return ModelInputs(stored_loader(config, states), dialogues=dialogues)
    return ModelInputs(load_samples, as_extractor(waveform_extractor(config, trained).to(device)), dialogues)


def as_extractor(module: nn.Module) -> FeatureExtractor:
    """A module from waveforms to features, for mini-batches."""

    @torch.no_grad()
    def extract(batch: TaskBatch) -> TaskBatch:
        features, frames = module(batch.inputs, batch.lengths)
        return replace(batch, inputs=features, lengths=frames)

    return extract


def _sums(
    inputs: ModelInputs, cuts: Iterable[Cut], key: Callable[[Cut], str], batch_size: int, device: torch.device
) -> dict[str, FrameSums]:
    """The sums over all frames of the cuts, by ``key``."""
    by_id = {cut.id: cut for cut in cuts}
    sums: dict[str, FrameSums] = defaultdict(FrameSums)
    for batch in inputs.batches("unlabelled", by_id.values(), batch_size, device):
        for name, features, frames in zip(batch.ids, batch.inputs, batch.lengths.tolist()):
            sums[key(by_id[name])].add(features[:frames])
    return sums


def mean_and_deviation(
    inputs: ModelInputs, cuts: Iterable[Cut], batch_size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Mean (D,) and deviation (D,) over all frames of ``cuts``."""
    return _sums(inputs, cuts, lambda _: "", batch_size, device)[""].moments()


def speaker_of(cut: Cut) -> str:
    """The speaker of a cut, with the corpus, as speakers of two corpora may have the same name."""
    supervision = cut.supervisions[0]
    return f"{supervision.custom['corpus']} {supervision.speaker}"


class SpeakerStatistics:
    """Mean and deviation over all clips of each speaker of a set, for ``data.cmvn: speaker``.

    Of test speakers these are the test clips, without their labels: results are marked as those of another protocol.
    """

    def __init__(self, inputs: ModelInputs, cuts: Iterable[Cut], batch_size: int, device: torch.device) -> None:
        known = list(cuts)
        self.speakers = {cut.id: speaker_of(cut) for cut in known}
        sums = _sums(inputs, known, speaker_of, batch_size, device)
        self.moments = {speaker: torch.stack(found.moments()) for speaker, found in sums.items()}

    def normalise(self, batch: TaskBatch) -> TaskBatch:
        """The mini-batch with each clip's features, and those before augmentation, normalised by its speaker's."""
        moments = torch.stack([self.moments[self.speakers[name]] for name in batch.ids])
        clean = None if batch.clean is None else normalise_by(batch.clean, batch.lengths, moments)
        inputs = normalise_by(batch.inputs, batch.lengths, moments[:, :, : batch.inputs.shape[2]])
        return replace(batch, inputs=inputs, clean=clean)


def by_speaker(inputs: ModelInputs, cuts: Iterable[Cut], batch_size: int, device: torch.device) -> ModelInputs:
    """The same inputs, normalised by the statistics of each speaker over all of ``cuts``."""
    statistics = SpeakerStatistics(inputs, cuts, batch_size, device)

    def extract(batch: TaskBatch) -> TaskBatch:
        return statistics.normalise(batch if inputs.extract is None else inputs.extract(batch))

    return replace(inputs, extract=extract)
