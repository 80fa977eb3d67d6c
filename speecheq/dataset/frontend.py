"""The front end of training, between loader and model: augmentation and features on the training device."""

from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from speecheq.common.digests import digest
from speecheq.common.log import log
from speecheq.common.stages import require
from speecheq.config.schema import AUGMENTATIONS, Config
from speecheq.corpora.audio_folder import recordings_manifest
from speecheq.dataset.batch import LABEL_FREE_STREAMS, MultitaskBatch, TaskBatch
from speecheq.dataset.model_inputs import SpeakerStatistics, WaveformExtractor, waveform_extractor
from speecheq.dataset.state_cache import StateCache, Transform
from speecheq.features.augment_features import draw_changes
from speecheq.features.augment_waveforms import Augmenter, draw
from speecheq.features.noise_and_rir import load_noises, load_responses

# Of AUGMENTATIONS those that change the waveform, not the features.
OF_WAVEFORMS = ("speed", "pitch", "noise", "reverberation")


def interpolate_frames(features: Tensor, frames: Tensor, first: Tensor, steps: Tensor, kept: Tensor) -> Tensor:
    """Read ``kept`` (N,) frames of each clip, every ``steps`` (N,) frames from new frame ``first`` (N,) on.

    ``features`` (N, T, D) have ``frames`` (N,) frames. The values of new frames are interpolated between those of the
    old; at a step of 1 they are the old. All tensors but the features are on the CPU.

    Returns: (N, max(kept), D), zeros after the kept frames.
    """
    number = torch.arange(int(kept.max()))
    place = (first[:, None] + number + 0.5) * steps[:, None].double() - 0.5
    place = place.clamp(min=0).minimum(frames[:, None] - 1.0)
    frame, valid = place.floor().long(), number < kept[:, None]
    fraction = (place - frame).to(features)[:, :, None]
    frame, following = (
        x.to(features.device)[:, :, None].expand(-1, -1, features.shape[2])
        for x in (frame, (frame + 1).minimum(frames[:, None] - 1))
    )
    read = torch.lerp(features.gather(1, frame), features.gather(1, following), fraction)
    return read.masked_fill(~valid.to(features.device)[:, :, None], 0.0)


class Frontend:
    """Turns mini-batches of waveforms into mini-batches of features, and draws the augmentation of features.

    Mini-batches of stored features pass through. ``noises`` and ``responses`` are folders of manifests; without them no
    noise is added, and reverberation is simulated. With ``speakers`` features are normalised by speaker. ``trained``
    makes features within the model, as it is trained with it: the waveforms, augmented, are then left as they are.
    ``cache`` is the folder of data.cache_states.
    """

    def __init__(
        self,
        config: Config,
        device: torch.device,
        noises: Path | None,
        responses: Path | None,
        speakers: SpeakerStatistics | None = None,
        trained: WaveformExtractor | None = None,
        cache: Path | None = None,
    ):
        self.config, self.device, self.speakers, self.trained = config, device, speakers, trained
        self.uses_waveforms = config.data.input == "waveform"
        if not self.uses_waveforms:
            return
        augment, seed = config.augment, config.run.seed
        self.extractor = trained or waveform_extractor(config).to(device)
        self.augmenter = self.cache = None
        if augment.active:
            noise = response = None
            if noises is not None and augment.uses("noise"):
                noise = load_noises(recordings_manifest(noises), augment.noise_hours, seed, device)
            if responses is not None and augment.uses("rir"):
                response = load_responses(recordings_manifest(responses), seed, device)
            if noise is None and augment.uses("noise"):
                log.warning("no noise is given, so none is added (run.sh --noise DIR gives some)")
            self.augmenter = Augmenter(augment, seed, noise, response, device)
        if cache is not None:
            self.cache = StateCache(cache, self.extractor, [config.encoder.digest, config.model.kind == "fusion"])
            sounds = [None if folder is None else require(folder, "manifests")["key"] for folder in (noises, responses)]
            self.changed_by = digest([asdict(augment), seed, sounds])

    @torch.no_grad()
    def _features(self, name: str, batch: TaskBatch) -> TaskBatch:
        """The features of a mini-batch of waveforms, augmented."""
        waveforms = batch.inputs.to(self.device, non_blocking=True)
        if self.augmenter is None:
            features, frames = self._extract(waveforms, batch.lengths)
            return replace(batch, inputs=features, lengths=frames)
        drawn = self._draw(name, batch)
        types = self.augmenter.types(drawn)
        features, frames = self._changed(waveforms, batch.lengths, drawn, types)
        augmented = replace(batch, inputs=features, lengths=frames)
        if types is None:
            return augmented
        augmented.targets = {**batch.targets, "augmentation": types}
        if name not in LABEL_FREE_STREAMS:  # no head learns the type from the length, and phones need all frames
            return augmented
        return self._crop(augmented, waveforms, batch.lengths, drawn["piece"])

    def _draw(self, name: str, batch: TaskBatch) -> dict[str, Tensor]:
        """The random numbers of augment_waveforms.draw; with data.versions only the change's kind and place are new."""
        seed, epoch, data = self.config.run.seed, batch.position.epoch, self.config.data
        drawn = draw(seed, name, data.version_of(epoch), batch.ids)
        if data.versions and self.config.augment.one_of:
            anew = draw(seed, name, epoch, batch.ids)
            drawn.update({key: anew[key] for key in ("type", "piece")})
        return drawn

    def _changed(
        self, waveforms: Tensor, lengths: Tensor, drawn: dict[str, Tensor], types: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The features of changed waveforms, and their frames; ``types`` as Augmenter's."""
        augmenter = self.augmenter
        assert augmenter is not None
        if self.cache is None:
            return self._extract(*augmenter.apply(waveforms, lengths, drawn))
        numbers = {key: values for key, values in drawn.items() if key != "piece"}  # which is of the features

        def change(row: int) -> tuple[str, Transform] | None:
            if types is not None and AUGMENTATIONS[types[row]] not in OF_WAVEFORMS:
                return None
            own = {key: values[row : row + 1] for key, values in numbers.items()}
            name = f"{self.changed_by} {[float(values) for key, values in own.items() if key != 'type']}"
            if types is not None:
                name += f" {AUGMENTATIONS[types[row]]}"
            return name, lambda clip, length: augmenter.apply(clip, length, own)

        return self.cache.states(waveforms, lengths, change)

    def _extract(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if self.cache is not None:
            return self.cache.states(waveforms, lengths, lambda row: None)
        return (waveforms, lengths) if self.trained is not None else self.extractor(waveforms, lengths)

    def _crop(self, batch: TaskBatch, waveforms: Tensor, lengths: Tensor, place: Tensor) -> TaskBatch:
        """Crop augmented features, and with them the features of the ``waveforms`` before augmentation.

        Another speed gives another length, which would reveal the type. So every clip, of any type, keeps the number of
        frames of its fastest version. ``place`` (N,), from 0 to 1, is the start of these frames.
        """
        before = self.extractor.num_frames(lengths)
        kept = before
        if "speed" in self.config.augment.chosen():
            # one frame fewer, as numbers of frames are rounded
            kept = ((before / max(1.0, self.config.augment.speed_high)).long() - 1).clamp(min=1)
        first = (place * (batch.lengths - kept + 1)).long()
        clean = None
        if self.config.loss.reconstruction > 0:
            features = self._extract(waveforms, lengths)[0]
            clean = interpolate_frames(features, before, first, before / batch.lengths, kept)
        inputs = interpolate_frames(batch.inputs, batch.lengths, first, torch.ones(len(kept)), kept)
        return replace(batch, inputs=inputs, lengths=kept, clean=clean)

    def __call__(self, batch: MultitaskBatch) -> MultitaskBatch:
        """The same mini-batches with features (N, T, D) as inputs and frames (N,), on the CPU, as lengths.

        With ``trained`` the inputs are waveforms; the changes are those of the features that they become.
        """
        made = {}
        for name, task_batch in batch.streams().items():
            if self.uses_waveforms:
                task_batch = self._features(name, task_batch)
            if self.speakers is not None:
                task_batch = self.speakers.normalise(task_batch)
            if self.trained is None:
                frames = task_batch.lengths
                num_frames, feature_dim = task_batch.inputs.shape[1:]
            else:
                frames = self.trained.num_frames(task_batch.lengths)
                num_frames, feature_dim = int(frames.max()), self.config.model.feature_dim
            changes = draw_changes(
                self.config,
                name,
                task_batch.position.epoch,
                task_batch.ids,
                frames,
                num_frames,
                feature_dim,
                task_batch.targets.get("augmentation"),
            )
            made[name] = replace(task_batch, changes=changes)
        return MultitaskBatch(**made)
