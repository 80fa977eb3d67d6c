"""Noisy speech: test clips with noise at given SNRs, and with reverberation, by the augmentation of the training.

A clip gets the same noise at every SNR and for every system: it is drawn from a fixed seed and the clip's id.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from lhotse import Recording, RecordingSet

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.common.stages import STAMP, require
from speecheq.config.schema import AugmentConfig
from speecheq.corpora.audio_folder import recordings_manifest
from speecheq.corpora.decoding import open_audio
from speecheq.dataset.batch import TaskBatch
from speecheq.dataset.model_inputs import FeatureExtractor, waveform_extractor
from speecheq.evaluation.robustness.conditions import CLEAN, NOISE, SEED, Condition, Setting
from speecheq.evaluation.robustness.training_history import TrainingRecord, training_history
from speecheq.evaluation.score import BestModel
from speecheq.features.augment_waveforms import Augmenter
from speecheq.features.noise_and_rir import load_noises, load_responses, select_noises

SNRS = (20.0, 15.0, 10.0, 5.0, 0.0)  # dB
HOURS = AugmentConfig().noise_hours  # of noise that are loaded
MOST_NAMED = 12  # if there are more recordings, the report gives only their number
KINDS = ("noise", "rir")  # titles of the manifests of noises and impulse responses
UNCHANGED = AugmentConfig(pitch_probability=0.0, tempo_probability=0.0, reverb_probability=0.0, noise_probability=0.0)


def recording_digests(folder: Path) -> dict[str, str]:
    """Digest of a channel's samples -> file, for the recordings in a folder of manifests.

    They identify a recording in another format, under another name or with other channels, but not cut or resampled.
    Raises InputError for a file that is gone.
    """
    digests: dict[str, str] = {}
    for recording in RecordingSet.from_file(recordings_manifest(folder)):
        path = recording.sources[0].source
        try:
            with open_audio(path) as audio:
                samples = audio.read(dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, RuntimeError, OSError) as error:
            raise InputError(f"{path}: cannot be read ({error}); run stage 1 again.") from error
        for channel in samples.T:
            if channel.any():
                digests.setdefault(hashlib.sha256(np.ascontiguousarray(channel).tobytes()).hexdigest(), path)
    return digests


def training_recordings(training: TrainingRecord) -> list[Path]:
    """The folders of manifests of the noises and impulse responses of a training; raises InputError if one is gone."""
    folders = []
    for source in training.inputs:
        if str(source) == training.run["phonemes"]:
            continue
        if not (source / STAMP).is_file():
            raise InputError(
                f"{source}: does not exist any more, but {training.folder} was trained with it, so it "
                "cannot be checked that no recording of the test was trained on; restore it."
            )
        if read_json(source / STAMP)["title"] in KINDS:
            folders.append(source)
    return folders


def check_recordings_not_trained_on(folder: Path, tested: Sequence[Path]) -> None:
    """Raises InputError if the model in ``folder`` was trained on a recording of ``tested``, folders of manifests.

    That includes the trainings before it whose weights it started from.
    """
    trained_on = {
        digest: path
        for training in training_history(folder)
        for source in training_recordings(training)
        for digest, path in recording_digests(source).items()
    }
    for source in tested if trained_on else ():
        for digest, path in recording_digests(source).items():
            if digest in trained_on:
                raise InputError(
                    f"{path}: was trained on ({trained_on[digest]}), so it does not show how other recordings fare; "
                    "take it out of the folder of the test and run stage 1 again."
                )


@dataclass(frozen=True)
class NoiseTrial:
    """The test clips in noise at ``snrs`` in dB, and with reverberation.

    ``noise`` and ``rir`` are folders of manifests from local/prepare_noise.py and prepare_rir.py; without ``rir``
    reverberation is simulated, as in training.
    """

    noise: Path
    rir: Path | None
    snrs: tuple[float, ...] = SNRS

    setting: Setting = NOISE
    input_stage: str = "manifests"

    @property
    def inputs(self) -> list[Path]:
        """The folders that are read besides the training."""
        return [folder for folder in (self.noise, self.rir) if folder is not None]

    @property
    def options(self) -> Mapping[str, Any]:
        """All settings that the scores depend on, besides the recordings."""
        return {"snrs": list(self.snrs), "rir": self.rir is not None, "seed": SEED}

    def extractors(self, folder: Path, trained: BestModel) -> tuple[dict[Condition, FeatureExtractor], dict[str, Any]]:
        """How to make the features of each condition from waveforms. Raises InputError if a recording was trained on.

        Returns: the extractor of each condition, and the facts for ``conditions.write``.
        """
        check_recordings_not_trained_on(folder, self.inputs)
        device = trained.device
        noises = load_noises(recordings_manifest(self.noise), HOURS, SEED, device)
        responses = load_responses(recordings_manifest(self.rir), SEED, device) if self.rir is not None else None
        features_of = waveform_extractor(trained.config, trained.model.trained_encoder).to(device)
        configs = {CLEAN: UNCHANGED}
        for snr in self.snrs:
            noisy = replace(UNCHANGED, noise_probability=1.0, snr_low=snr, snr_high=snr)
            configs[Condition(f"noise at {snr:g} dB", "noise", snr)] = noisy
        reverberation = Condition("reverberation" if responses is not None else "simulated reverberation")
        configs[reverberation] = replace(UNCHANGED, reverb_probability=1.0)

        def extractor(config: AugmentConfig) -> FeatureExtractor:
            augmenter = Augmenter(config, SEED, noises, responses, device)

            @torch.no_grad()
            def features(batch: TaskBatch) -> TaskBatch:
                made, frames = features_of(*augmenter(batch.inputs, batch.lengths, batch.ids, "test", 0))
                return replace(batch, inputs=made, lengths=frames)

            return features

        keys = [require(folder, "manifests")["key"] for folder in self.inputs]
        facts = {**self.options, "sounds": keys, "notes": self._notes()}
        return {condition: extractor(config) for condition, config in configs.items()}, facts

    def _notes(self) -> list[str]:
        """Sentences for the report."""
        used, available = select_noises(recordings_manifest(self.noise), HOURS, SEED)
        noises = f"{len(used)} recordings of noise"
        if len(used) < available:
            noises = (
                f"{len(used)} of {available} recordings of noise (drawn with seed {SEED}, they fill {HOURS:g} hours)"
            )
        rooms = "simulated"
        if self.rir is not None:
            responses = list(RecordingSet.from_file(recordings_manifest(self.rir)))
            rooms = f"by one of {len(responses)} impulse responses of --test-rir{_names(self.rir, responses)}"
        return [
            f"to each clip a piece of one of {noises}{_names(self.noise, used)} is added, the same at every SNR, which "
            "is the ratio of the powers over the clip; the training used none of them",
            f"reverberation is {rooms}; what a clip gets is drawn with seed {SEED}, the same for all systems",
        ]


def _names(folder: Path, recordings: Sequence[Recording]) -> str:
    """The names of a few recordings in parentheses, relative to their folder, whose manifests are in ``folder``."""
    if len(recordings) > MOST_NAMED:
        return ""
    prefix = f"{require(folder, 'manifests')['title']}-"
    return f" ({', '.join(sorted(recording.id.removeprefix(prefix) for recording in recordings))})"
