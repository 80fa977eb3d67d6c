"""What stands between the loader and the model in training: augmentation and features, on the training device."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from speecheq.common.log import log
from speecheq.config.schema import Config
from speecheq.corpora.audio_folder import recordings_manifest
from speecheq.dataset.batch import LABEL_FREE_STREAMS, MultitaskBatch, TaskBatch
from speecheq.features.augment_features import draw_changes
from speecheq.features.augment_waveforms import Augmenter, draw
from speecheq.features.fbank import BatchedFbank
from speecheq.features.noise_and_rir import load_noises, load_responses


def interpolate_frames(features: Tensor, frames: Tensor, first: Tensor, steps: Tensor, kept: Tensor) -> Tensor:
    """Features (N, T, D), frames (N,) -> ``kept`` (N,) frames of each, every ``steps`` (N,) frames from ``first`` (N,).

    First is counted in the new frames, whose values lie between those of the old: at a step of 1 they are the old. All
    numbers are on the CPU; beyond the kept frames there are zeros.
    """
    number = torch.arange(int(kept.max()))
    place = (first[:, None] + number + 0.5) * steps[:, None].double() - 0.5
    place = place.clamp(min=0).minimum(frames[:, None] - 1.0)
    whole, valid = place.floor().long(), number < kept[:, None]
    between = (place - whole).to(features)[:, :, None]
    whole, following = (
        x.to(features.device)[:, :, None].expand(-1, -1, features.shape[2])
        for x in (whole, (whole + 1).minimum(frames[:, None] - 1))
    )
    read = torch.lerp(features.gather(1, whole), features.gather(1, following), between)
    return read.masked_fill(~valid.to(features.device)[:, :, None], 0.0)


class Frontend:
    """Turns mini-batches of waveforms into mini-batches of features, and draws what is changed in features.

    Mini-batches of stored features pass through.

    ``noises`` and ``responses`` are folders of manifests (None: no noise is added, reverberation is simulated).
    """

    def __init__(self, config: Config, device: torch.device, noises: Path | None, responses: Path | None):
        self.config, self.device = config, device
        self.of_waveforms = config.data.input == "waveform"
        if not self.of_waveforms:
            return
        augment, seed = config.augment, config.run.seed
        self.fbank = BatchedFbank().to(device)
        self.augmenter = None
        if augment.active:
            noise = response = None
            if noises is not None and augment.uses("noise"):
                noise = load_noises(recordings_manifest(noises), augment.noise_hours, seed, device)
            if responses is not None and augment.uses("rir"):
                response = load_responses(recordings_manifest(responses), seed, device)
            if noise is None and augment.uses("noise"):
                log.warning("no noise is given, so none is added (run.sh --noise DIR gives some)")
            self.augmenter = Augmenter(augment, seed, noise, response, device)

    @torch.no_grad()
    def _features(self, name: str, stream: TaskBatch) -> TaskBatch:
        waveforms, lengths = stream.inputs.to(self.device, non_blocking=True), stream.lengths
        if self.augmenter is None:
            features, frames = self.fbank(waveforms, lengths)
            return replace(stream, inputs=features, lengths=frames)
        drawn = draw(self.config.run.seed, name, stream.position.epoch, stream.ids)
        changed = self.fbank(*self.augmenter.apply(waveforms, lengths, drawn))
        types = self.augmenter.types(drawn)
        if types is None:
            return replace(stream, inputs=changed[0], lengths=changed[1])
        stream = replace(stream, targets={**stream.targets, "augmentation": types})
        if name not in LABEL_FREE_STREAMS:  # no head could tell the type by the length, and phones need all frames
            return replace(stream, inputs=changed[0], lengths=changed[1])
        return self._cropped(stream, waveforms, changed, drawn)

    def _cropped(
        self, stream: TaskBatch, waveforms: Tensor, changed: tuple[Tensor, Tensor], drawn: dict[str, Tensor]
    ) -> TaskBatch:
        """The ``changed`` features and frames of ``stream``, cropped, and what they were made of.

        Another speed is another length, by which the type could be told. So of every clip, whatever its type, as many
        frames are kept as any of its versions has, from a random place on.
        """
        features, frames = changed
        before = self.fbank.config.num_frames(stream.lengths)
        kept = before
        if "speed" in self.config.augment.chosen():
            # one frame fewer, as numbers of frames are rounded
            kept = ((before / max(1.0, self.config.augment.speed_high)).long() - 1).clamp(min=1)
        first = (drawn["piece"] * (frames - kept + 1)).long()
        clean = None
        if self.config.loss.reconstruction > 0:
            clean = interpolate_frames(self.fbank(waveforms, stream.lengths)[0], before, first, before / frames, kept)
        return replace(
            stream,
            inputs=interpolate_frames(features, frames, first, torch.ones(len(kept)), kept),
            lengths=kept,
            clean=clean,
        )

    def __call__(self, batch: MultitaskBatch) -> MultitaskBatch:
        """The same mini-batches with features (N, T, D) as inputs and frames (N,), on the CPU, as lengths."""
        made = {}
        for name, stream in batch.streams().items():
            if self.of_waveforms:
                stream = self._features(name, stream)
            made[name] = replace(
                stream,
                changes=draw_changes(
                    self.config,
                    name,
                    stream.position.epoch,
                    stream.ids,
                    stream.lengths,
                    *stream.inputs.shape[1:],
                    stream.targets.get("augmentation"),
                ),
            )
        return MultitaskBatch(**made)
