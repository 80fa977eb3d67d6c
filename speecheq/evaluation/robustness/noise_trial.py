"""Noisy speech: test clips with noises at stated SNRs, and with reverberation, changed as in training (augment.py).

A clip has the same noise at every SNR, and every system hears the same: what is drawn follows from a fixed seed and
the clip's id.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from lhotse import Recording, RecordingSet

from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.common.stages import STAMP, require
from speecheq.config.schema import AugmentConfig
from speecheq.corpora.audio_folder import recordings_manifest
from speecheq.dataset.batch import TaskBatch
from speecheq.evaluation.robustness.conditions import CLEAN, NOISE, Condition, Setting
from speecheq.evaluation.robustness.training_history import Training, trainings
from speecheq.evaluation.score import BestModel
from speecheq.features.augment_waveforms import Augmenter
from speecheq.features.fbank import BatchedFbank
from speecheq.features.noise_and_rir import load_noises, load_responses, select_noises

Change = Callable[[TaskBatch], TaskBatch]  # waveforms -> features
SNRS = (20.0, 15.0, 10.0, 5.0, 0.0)  # dB
SEED = 0
HOURS = AugmentConfig().noise_hours  # of noise are held
MOST_NAMED = 12  # of more sounds the pages give the number only
KINDS = ("noise", "rir")  # what stage 1 calls such sounds
UNCHANGED = AugmentConfig(pitch_probability=0.0, tempo_probability=0.0, reverb_probability=0.0, noise_probability=0.0)


def contents(folder: Path) -> dict[str, str]:
    """Of the sounds that a folder of manifests names: digest of a channel's samples -> file.

    The same recording in another format, name or number of channels is found again; cut or resampled it is not.
    InputError for a file that is gone.
    """
    found = {}
    for recording in RecordingSet.from_file(recordings_manifest(folder)):
        path = recording.sources[0].source
        try:
            samples, _ = soundfile.read(path, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, RuntimeError, OSError) as error:
            raise InputError(f"{path}: cannot be read ({error}); run stage 1 again.") from error
        for channel in samples.T:
            if channel.any():
                found.setdefault(hashlib.sha256(np.ascontiguousarray(channel).tobytes()).hexdigest(), path)
    return found


def trained_with(training: Training) -> list[Path]:
    """The folders of manifests of the noises and impulse responses that a training used.

    InputError where one is not there any more: nobody knows then what was in it.
    """
    found = []
    for source in training.inputs:
        if str(source) == training.run["phonemes"]:
            continue
        if not (source / STAMP).is_file():
            raise InputError(
                f"{source}: is not there any more, but {training.folder} was trained with it, so it "
                "cannot be checked that no sound of the test was trained on; put it back."
            )
        if read_json(source / STAMP)["title"] in KINDS:
            found.append(source)
    return found


def check_unheard(folder: Path, tested: Sequence[Path]) -> None:
    """InputError that names a sound of ``tested`` (folders of manifests) with which ``folder`` was trained.

    So it is with the trainings before it whose weights it started from.
    """
    heard = {
        digest: path
        for training in trainings(folder)
        for source in trained_with(training)
        for digest, path in contents(source).items()
    }
    for source in tested if heard else ():
        for digest, path in contents(source).items():
            if digest in heard:
                raise InputError(
                    f"{path}: was trained on ({heard[digest]}), so it tells nothing of other sounds; take "
                    "it out of the folder of the test and run stage 1 again."
                )


@dataclass(frozen=True)
class NoiseTrial:
    """The test clips in noise and with reverberation.

    ``noise`` and ``rir`` are folders of manifests that local/prepare_noise.py and prepare_rir.py wrote; without
    ``rir`` reverberation is simulated, as in training. ``snrs`` are in dB.
    """

    noise: Path
    rir: Path | None
    snrs: tuple[float, ...] = SNRS

    setting: Setting = NOISE
    inputs_of: str = "manifests"  # the stage

    @property
    def inputs(self) -> list[Path]:
        return [folder for folder in (self.noise, self.rir) if folder is not None]

    @property
    def options(self) -> Mapping[str, Any]:
        """All that decides what comes out, but for the sounds."""
        return {"snrs": list(self.snrs), "rir": self.rir is not None, "seed": SEED}

    def changes(self, folder: Path, trained: BestModel) -> tuple[dict[Condition, Change], dict[str, Any]]:
        """Condition -> what makes features of mini-batches of waveforms; and the facts of it.

        InputError where a sound was trained on.
        """
        check_unheard(folder, self.inputs)
        device = trained.device
        noises = load_noises(recordings_manifest(self.noise), HOURS, SEED, device)
        responses = load_responses(recordings_manifest(self.rir), SEED, device) if self.rir is not None else None
        fbank = BatchedFbank().to(device)
        configs = {CLEAN: UNCHANGED}
        for snr in self.snrs:
            configs[Condition(f"noise at {snr:g} dB", "noise", snr)] = replace(
                UNCHANGED, noise_probability=1.0, snr_low=snr, snr_high=snr
            )
        configs[Condition("reverberation" if responses is not None else "simulated reverberation")] = replace(
            UNCHANGED, reverb_probability=1.0
        )

        def features_under(config: AugmentConfig) -> Change:
            augmenter = Augmenter(config, SEED, noises, responses, device)

            def features(stream: TaskBatch) -> TaskBatch:
                waveforms, lengths = augmenter(stream.inputs, stream.lengths, stream.ids, "test", 0)
                made, frames = fbank(waveforms, lengths)
                return replace(stream, inputs=made, lengths=frames)

            return features

        changes = {condition: features_under(config) for condition, config in configs.items()}
        return changes, {
            **self.options,
            "sounds": [require(folder, "manifests")["key"] for folder in self.inputs],
            "notes": self._notes(),
        }

    def _notes(self) -> list[str]:
        """What the pages say of it."""
        held, named = select_noises(recordings_manifest(self.noise), HOURS, SEED)
        noises = f"{len(held)} recordings of noise"
        if len(held) < named:
            noises = f"{len(held)} of {named} recordings of noise (drawn with seed {SEED}, they fill {HOURS:g} hours)"
        rooms = "simulated"
        if self.rir is not None:
            responses = list(RecordingSet.from_file(recordings_manifest(self.rir)))
            rooms = f"by one of {len(responses)} impulse responses of --test-rir{_named(self.rir, responses)}"
        return [
            f"to each clip a piece of one of {noises}{_named(self.noise, held)} is added, the same at every SNR, which "
            "is the ratio of the powers over the clip; the training heard none of them",
            f"reverberation is {rooms}; what a clip gets is drawn with seed {SEED}, the same for all systems",
        ]


def _named(folder: Path, recordings: Sequence[Recording]) -> str:
    """The names of a few sounds below the folder that ``folder`` holds the manifests of; nothing of more."""
    if len(recordings) > MOST_NAMED:
        return ""
    above = f"{require(folder, 'manifests')['title']}-"
    return f" ({', '.join(sorted(recording.id.removeprefix(above) for recording in recordings))})"
