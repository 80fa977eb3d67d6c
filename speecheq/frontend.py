"""What stands between the loader and the model in training: augmentation and features, on the training device."""

from dataclasses import replace
from pathlib import Path
from typing import Optional

import torch

from speecheq.augment import Augmenter, load_noises, load_responses
from speecheq.config import Config
from speecheq.data import MultitaskBatch, Stream
from speecheq.feature_augment import draw_changes
from speecheq.features import BatchedFbank
from speecheq.progress import log
from speecheq.stages import require


def sounds_manifest(folder: Path) -> Path:
    """The recordings that prepare_noise.py or prepare_rir.py wrote to ``folder``; InputError where it has not."""
    require(folder, "manifests")
    return next(iter(sorted(Path(folder).glob("*_recordings_all.jsonl.gz"))))


class Frontend:
    """Turns mini-batches of waveforms into mini-batches of features, and draws what is changed in features.

    Mini-batches of stored features pass through.

    ``noises`` and ``responses`` are folders of manifests (None: no noise is added, reverberation is simulated).
    """

    def __init__(self, config: Config, device: torch.device, noises: Optional[Path], responses: Optional[Path]):
        self.config, self.device = config, device
        self.of_waveforms = config.data.input == "waveform"
        if not self.of_waveforms:
            return
        augment, seed = config.augment, config.run.seed
        self.fbank = BatchedFbank().to(device)
        self.augmenter = None
        if augment.active:
            noise = response = None
            if noises is not None and augment.noise_probability:
                noise = load_noises(sounds_manifest(noises), augment.noise_hours, seed, device)
            if responses is not None and augment.reverb_probability:
                response = load_responses(sounds_manifest(responses), seed, device)
            if noise is None and augment.noise_probability:
                log.warning("no noise is given, so none is added (run.sh --noise DIR gives some)")
            self.augmenter = Augmenter(augment, seed, noise, response, device)

    @torch.no_grad()
    def _features(self, name: str, stream: Stream) -> Stream:
        waveforms, lengths = stream.inputs.to(self.device, non_blocking=True), stream.lengths
        if self.augmenter is not None:
            waveforms, lengths = self.augmenter(waveforms, lengths, stream.ids, name, stream.position.epoch)
        features, frames = self.fbank(waveforms, lengths)
        return replace(stream, inputs=features, lengths=frames)

    def __call__(self, batch: MultitaskBatch) -> MultitaskBatch:
        """The same mini-batches with features (N, T, D) as inputs and frames (N,), on the CPU, as lengths."""
        made = {}
        for name, stream in batch.streams().items():
            if self.of_waveforms:
                stream = self._features(name, stream)
            made[name] = replace(stream, changes=draw_changes(
                self.config, name, stream.position.epoch, stream.ids, stream.lengths, *stream.inputs.shape[1:]))
        return MultitaskBatch(**made)
