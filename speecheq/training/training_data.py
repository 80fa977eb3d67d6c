"""The training and dev data of a training."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from torch import nn

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.config.schema import FBANK, Config
from speecheq.dataset.batch import ClipLoader, load_samples
from speecheq.dataset.classes import class_table
from speecheq.dataset.frontend import Frontend
from speecheq.dataset.lazy_cuts import open_cuts, sample_cuts
from speecheq.dataset.loader import ClipSource, StoredCuts, training_cuts
from speecheq.dataset.model_inputs import (
    ModelInputs,
    SpeakerStatistics,
    as_extractor,
    by_speaker,
    mean_and_deviation,
    scoring_inputs,
    stored_widths,
    waveform_extractor,
)
from speecheq.dataset.phones.phone_table import PhoneTable
from speecheq.dataset.shard_reader import Shards
from speecheq.dataset.unlabelled import unlabelled_cuts
from speecheq.features.encoders import make_trainable
from speecheq.features.speech_activity import NONE, method_of
from speecheq.features.storage import load_features
from speecheq.losses import inverse_weights
from speecheq.seqm import ClassTable
from speecheq.training.job import Job
from speecheq.training.step import StepSetup

# The most cuts of each set for the mean and deviation of global normalisation.
CMVN_CUTS = 1000


@dataclass(frozen=True)
class TrainingData:
    """Training data, and the data for scoring after each epoch."""

    cut_sets: dict[str, CutSet]  # by stream
    sources: dict[str, ClipSource]  # of the mini-batches, by stream: the cut sets, or shards of them
    load: ClipLoader | None  # reads the stored features of a clip; None: its filter banks
    widths: Mapping[str, int]  # how many of them, by stream
    frontend: Frontend  # makes the model's inputs of a mini-batch
    inputs: ModelInputs  # features of any clips, as an untrained encoder gives them
    dev_inputs: ModelInputs  # what the model takes of the dev part
    phoneme_dev_inputs: ModelInputs
    clips: int  # emotion clips in an epoch
    dev: list[Cut]
    phoneme_dev: list[Cut]  # utterances of the phoneme corpus
    classes: ClassTable
    phones: list[str]  # none: no phonemes are learned
    extractor: nn.Module | None = None  # the encoder that is trained with the model
    factors: Mapping[str, float] = field(default_factory=dict)  # of the learning rates of its parameters
    speech_activity: str = NONE  # what found the speech of the clips


def load_training_data(job: Job, config: Config, note: Mapping[str, Any], device: torch.device) -> TrainingData:
    """Open the data of stage 3 for a training; ``note`` is the result of ``msud.load_fold``.

    Raises InputError if something is missing or cannot be read.
    """
    target = note["target"] if config.data.corpora == "target" else None
    cut_sets = {
        name: training_cuts(job.fold_folder / f"{name}.jsonl.gz", target)
        for name in config.tasks()
        if name in ("emotion", "gender")
    }
    if config.loss.soft_labels:
        _check_votes(cut_sets["emotion"], job)
    phoneme_dev: list[Cut] = []
    phones: list[str] = []
    phonemes = job.phoneme_folder()
    if phonemes is not None:
        cut_sets["phoneme"] = training_cuts(phonemes / "train.jsonl.gz")
        phones = PhoneTable.load(phonemes / "phones.txt").symbols
        if (phonemes / "dev.jsonl.gz").is_file():
            phoneme_dev = sample_cuts(open_cuts(phonemes / "dev.jsonl.gz"), config.data.dev_phoneme_clips)
    dev = list(CutSet.from_jsonl_lazy(job.fold_folder / "dev.jsonl.gz"))
    unlabelled = job.unlabelled_folder()
    if unlabelled is not None:
        tests = chain.from_iterable(open_cuts(job.fold_folder / f"{name}.jsonl.gz") for name in note["tests"])
        cut_sets["unlabelled"] = unlabelled_cuts(unlabelled, chain(dev, tests))
    shards = _shards(job, target) if config.shar.use else {}
    folders, counts = job.audio_folders(), note["sets"]["emotion"]
    extractor, factors = None, {}
    if config.encoder.is_trained:
        extractor = waveform_extractor(config).to(device)
        inputs = ModelInputs(load_samples, as_extractor(extractor))
        factors = make_trainable(extractor, config.encoder, config.run.seed)
        dev_inputs = phoneme_dev_inputs = ModelInputs(load_samples)
    else:
        inputs = dev_inputs = phoneme_dev_inputs = scoring_inputs(config, job.states, device)
    speakers = None
    if config.data.cmvn == "speaker":
        size = config.data.batch_size
        training = chain.from_iterable(cut_sets.values())
        speakers = SpeakerStatistics(inputs, training, size, device)
        dev_inputs = by_speaker(inputs, dev, size, device)
        phoneme_dev_inputs = by_speaker(inputs, phoneme_dev, size, device)
    cache = job.states / "cache" if job.states is not None and config.data.cache_states else None
    return TrainingData(
        cut_sets=cut_sets,
        sources={name: shards.get(name) or StoredCuts(cuts, note["target"]) for name, cuts in cut_sets.items()},
        load=inputs.load if config.data.input == "stored" else None,
        widths=stored_widths(config) if config.data.input == "stored" else {},
        frontend=Frontend(config, device, folders.get("noise"), folders.get("rir"), speakers, extractor, cache),
        inputs=inputs,
        dev_inputs=dev_inputs,
        phoneme_dev_inputs=phoneme_dev_inputs,
        clips=counts["clips"] if target is None else counts["corpus"][target],
        dev=dev,
        phoneme_dev=phoneme_dev,
        classes=class_table(note),
        phones=phones,
        extractor=extractor,
        factors=factors,
        speech_activity=method_of(chain(dev, cut_sets["emotion"])),
    )


def _check_votes(cuts: CutSet, job: Job) -> None:
    """Raise InputError if none of the emotion clips has listeners' votes."""
    if not any("class_shares" in cut.supervisions[0].custom for cut in cuts):
        raise InputError(
            f"{job.fold_folder}: loss.soft_labels is true, but no training clip has listeners' votes; give CREMA-D "
            "with --soft-labels true, from stage 1 on, or set it to false."
        )


def _shards(job: Job, target: str | None) -> dict[str, ClipSource]:
    """The shards by stream; of the emotion clips the gender stream takes those that have a gender."""
    emotion = Shards(job.shards_of(job.fold_folder), job.config.shar, target)
    shards: dict[str, ClipSource] = {"emotion": emotion, "gender": emotion}
    phonemes = job.phoneme_folder()
    if phonemes is not None:
        shards["phoneme"] = Shards(job.shards_of(phonemes), job.config.shar)
    return shards


def global_statistics(data: TrainingData, setup: StepSetup) -> tuple[list[float], list[float]]:
    """The mean (D,) and the deviation (D,) of the features of the training cuts (at most CMVN_CUTS of each set).

    Unlabelled speech has no stored features and adds nothing. Raises InputError if features cannot be read.
    """
    stored = [cuts for name, cuts in data.cut_sets.items() if name != "unlabelled"]
    chosen = {cut.id: cut for cuts in stored for cut in sample_cuts(cuts, CMVN_CUTS)}
    if setup.config.data.features != FBANK:
        mean, deviation = mean_and_deviation(data.inputs, chosen.values(), setup.config.data.batch_size, setup.device)
        return mean.tolist(), deviation.tolist()
    try:
        statistics = CutSet.from_cuts(chosen.values()).compute_global_feature_stats()
    except Exception:
        for cut in chosen.values():
            load_features(cut)  # raises InputError for what cannot be read
        raise
    return statistics["norm_means"].tolist(), statistics["norm_stds"].tolist()


def esc_weights(config: Config, cuts: CutSet, device: torch.device) -> torch.Tensor | None:
    """The weights (K,) of the ESC classes that ``loss.class_balance`` gives ``cuts``; None: all are 1."""
    if config.loss.class_balance == "none":
        return None
    numbers = (cut.supervisions[0].custom["class"] for cut in cuts)
    weights = inverse_weights(Counter(numbers), config.model.num_esc)
    log.info("weights of the classes: %s", " ".join(f"{weight:.2f}" for weight in weights.tolist()))
    return weights.to(device)
