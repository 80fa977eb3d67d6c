"""A training as given on the command line, and checks before it starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speecheq.common.device import pick_device
from speecheq.common.errors import InputError
from speecheq.common.files import read_json
from speecheq.common.stages import require
from speecheq.config.schema import Config
from speecheq.corpora.audio_folder import recordings_manifest
from speecheq.dataset.msud import load_fold
from speecheq.dataset.shard_writer import shard_folder
from speecheq.models import checkpoint
from speecheq.training.precision import Precision


@dataclass(frozen=True)
class Job:
    """One training: a system on one fold with one seed, the data that it may use and its folder."""

    config: Config
    config_name: str
    assignments: tuple[str, ...]  # of --set
    system: str
    msud: Path
    fold: int
    phonemes: Path | None
    folder: Path
    init_from: Path | None = None  # a checkpoint with the initial weights
    noise: Path | None = None  # manifests of noises, for the augmentation of waveforms
    rir: Path | None = None  # manifests of room impulse responses; without them reverberation is simulated
    unlabelled: Path | None = None  # manifests of unlabelled speech
    states: Path | None = None  # DATA/NAME of a pretrained encoder's feature set
    shards: Path | None = None  # where stage 3 writes training sets as shards

    @property
    def name(self) -> str:
        """The training's name in log lines."""
        return f"{self.system}, fold {self.fold}, seed {self.config.run.seed}"

    @property
    def fold_folder(self) -> Path:
        """The folder of the fold's cut sets."""
        return self.msud / f"fold{self.fold}"

    def audio_folders(self) -> dict[str, Path]:
        """The manifests of noise, rir and unlabelled speech that this training uses, by kind."""
        augment, waveforms = self.config.augment, self.config.data.input == "waveform"
        used = {
            "noise": self.noise if augment.uses("noise") else None,
            "rir": self.rir if augment.uses("rir") else None,
            "unlabelled": self.unlabelled if self.config.data.unlabelled else None,
        }
        return {kind: folder for kind, folder in used.items() if folder is not None and waveforms}

    def phoneme_folder(self) -> Path | None:
        """The phoneme corpus, None if the system does not use one; raises InputError if it does and none was given."""
        if "phoneme" not in self.config.tasks():
            return None
        if self.phonemes is None:
            raise InputError(
                f"the system {self.system} learns phonemes (loss.beta is {self.config.loss.beta:g}), but no phoneme "
                "corpus is given; give one (such as --aishell DIR or --librispeech DIR), or choose a system without "
                "(wo_mtl, or --set loss.beta=0)."
            )
        return self.phonemes

    def unlabelled_folder(self) -> Path | None:
        """The manifests of unlabelled speech, None if the system uses none; raises InputError if they are missing."""
        if not self.config.data.unlabelled:
            return None
        if self.unlabelled is None:
            raise InputError(
                f"the system {self.system} learns from unlabelled speech (data.unlabelled), but none is given; give "
                "--unlabelled DIR, any folder of recordings of speech, or choose a system without."
            )
        return self.unlabelled

    def training_sets(self) -> list[Path]:
        """The folders of stage 3 that this training learns from: its fold and, if it learns phonemes, their corpus."""
        phonemes = self.phoneme_folder()
        return [self.fold_folder] if phonemes is None else [self.fold_folder, phonemes]

    def states_folders(self) -> list[Path]:
        """The folders of the stored encoder states that this training reads; none where it computes them itself."""
        if self.states is None or self.config.data.input != "stored":
            return []
        note = load_fold(self.msud, self.fold)
        corpora = [note["target"]] if self.config.data.corpora == "target" else list(note["corpora"])
        phonemes = self.phoneme_folder()
        if phonemes is not None:
            corpora.append(read_json(phonemes / "phonemes.json")["corpus"])
        return [self.states / corpus for corpus in dict.fromkeys(corpora)]

    def shards_of(self, training_set: Path) -> Path:
        """The folder of the shards of a training set."""
        assert self.shards is not None, "stage 4 with shar.use names their folder"
        return shard_folder(self.shards, self.config.data.input, training_set)


def _check_lattices(job: Job, note: Mapping[str, Any], folder: Path) -> None:
    """Raise InputError if the phoneme cuts lack the pronunciations or the silence that the settings name."""
    for name, wanted in (("pronunciations", "all"), ("silence", "optional")):
        if getattr(job.config.phonemes, name) == wanted and note.get(name) != wanted:
            raise InputError(
                f"phonemes.{name} is {wanted}, but {folder} was written without; run stages 3 and 4 with "
                f"--{name} {wanted}."
            )


def check(job: Job, trains_here: bool = True) -> None:
    """Check a job before training. Raises InputError if a fold, a phoneme corpus or a GPU is missing.

    The device is checked only if this machine is to train (``trains_here``).
    """
    load_fold(job.msud, job.fold)
    phonemes = job.phoneme_folder()
    if phonemes is not None:
        require(phonemes, "unify")
        _check_lattices(job, read_json(phonemes / "phonemes.json"), phonemes)
    if trains_here:
        Precision(job.config.run.precision, pick_device(job.config.run.device))
    if job.init_from is not None:
        checkpoint.read_start(job.init_from, job.config)
    for folder in job.states_folders():
        require(folder, "features")
    for folder in job.audio_folders().values():
        recordings_manifest(folder)
    if job.config.shar.use:
        for training_set in job.training_sets():
            require(job.shards_of(training_set), "shar")
    job.unlabelled_folder()
