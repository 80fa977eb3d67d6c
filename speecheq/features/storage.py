"""80-dimensional log mel filter banks (section 3.2): stored once a corpus, or computed in batches in training.

``Fbank`` is a lhotse feature extractor over kaldi-native-fbank and fills the archives of stage 2;
``BatchedFbank`` is its twin in torch for the training device. Both take samples in [-1, 1] and agree with
Kaldi's fbank of the same options (the paper uses librosa's mel filter banks; this is a stated deviation).
"""

import io
import math
import os
import shutil
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import count, islice
from pathlib import Path
from typing import Any

import kaldi_native_fbank
import numpy as np
import soundfile
import torch
from lhotse import CutSet, Features, MonoCut, RecordingSet, SupervisionSet
from lhotse.features.base import FeatureExtractor, register_extractor
from lhotse.features.io import LilcomChunkyWriter, MemoryLilcomReader
from lhotse.features.kaldi.layers import Wav2LogFilterBank
from torch import nn

from speecheq.common.errors import InputError
from speecheq.common.files import (
    folder_in_use,
    make_parent,
    note_sizes,
    remove_leftovers,
    sizes_are_as_noted,
    whole_file,
    write_fault_is_an_input_error,
)
from speecheq.common.process_pool import in_processes
from speecheq.common.progress import Progress
from speecheq.common.stages import Drops, Stage, require
from speecheq.corpora.prepare import load_card

# Values are stored as multiples of 2**-10, which keeps them within 0.0005 at 1.8 bytes a value.
TICK_POWER = -10
# torchaudio's filters hold about (source rate) x (target rate) values, both over their common divisor: 70,560 for
# 44,100 Hz, gigabytes for 44,101 Hz. Above this soxr resamples.
LARGEST_FILTERS = 20_000_000
# Archives, and what was read from a shard.
STORED_AS = (LilcomChunkyWriter.name, MemoryLilcomReader.name)
CUTS_A_PART = 250
# On a CPU a batch is turned into features in pieces of so many frames: what lies between then stays in its cache.
FRAMES_A_PIECE = 2000
# Raised when what this stage writes changes its meaning.
FORMAT = 1


@dataclass(frozen=True)
class FbankConfig:
    """Frame size and hop in seconds, sampling rate in Hz, mel bins between two frequencies in Hz."""

    sampling_rate: int = 16000
    num_filters: int = 80
    frame_length: float = 0.025
    frame_shift: float = 0.01
    window_type: str = "hamming"
    low_freq: float = 20.0
    high_freq: float = 8000.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FbankConfig":
        return cls(**values)

    @property
    def shift_samples(self) -> int:
        return round(self.frame_shift * self.sampling_rate)

    @property
    def window_samples(self) -> int:
        return round(self.frame_length * self.sampling_rate)

    def num_frames(self, num_samples):
        """Frames of a clip of ``num_samples`` samples (an int or an integer tensor)."""
        return (num_samples + self.shift_samples // 2) // self.shift_samples


@lru_cache(maxsize=8)
def _kaldi_options(config: FbankConfig) -> kaldi_native_fbank.FbankOptions:
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = config.sampling_rate
    options.frame_opts.frame_length_ms = 1000 * config.frame_length
    options.frame_opts.frame_shift_ms = 1000 * config.frame_shift
    options.frame_opts.window_type = config.window_type
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = config.num_filters
    options.mel_opts.low_freq = config.low_freq
    options.mel_opts.high_freq = config.high_freq
    options.use_energy = False
    return options


@register_extractor
class Fbank(FeatureExtractor):
    """kaldi-native-fbank as a lhotse feature extractor: (samples,) in [-1, 1] -> (frames, 80) float32."""

    name = "speecheq-fbank"
    config_type = FbankConfig

    @property
    def frame_shift(self) -> float:
        return self.config.frame_shift

    def feature_dim(self, sampling_rate: int) -> int:
        return self.config.num_filters

    def extract(self, samples, sampling_rate: int) -> np.ndarray:
        """Features of one mono clip. ValueError for another sampling rate, more channels, or no sample."""
        samples = np.ascontiguousarray(samples, dtype=np.float32)
        if samples.ndim == 2 and samples.shape[0] == 1:
            samples = samples[0]
        if samples.ndim != 1 or samples.size == 0:
            raise ValueError(f"one channel of samples is expected, not an array of shape {samples.shape}")
        if sampling_rate != self.config.sampling_rate:
            raise ValueError(f"samples at {self.config.sampling_rate} Hz are expected, not at {sampling_rate} Hz")
        fbank = kaldi_native_fbank.OnlineFbank(_kaldi_options(self.config))
        # the binding takes any sequence of numbers and reads a memoryview faster than an array or a list
        fbank.accept_waveform(self.config.sampling_rate, memoryview(samples))
        fbank.input_finished()
        return np.array([fbank.get_frame(index) for index in range(fbank.num_frames_ready)])


class BatchedFbank(nn.Module):
    """The same features as ``Fbank`` for a padded batch, differentiable and on any device."""

    def __init__(self, config: FbankConfig = FbankConfig()):
        super().__init__()
        self.config = config
        with warnings.catch_warnings():
            # lhotse warns that its manifests expect snip_edges=False; the edges are laid on in forward
            warnings.simplefilter("ignore")
            self.layer = Wav2LogFilterBank(
                sampling_rate=config.sampling_rate,
                frame_length=config.frame_length,
                frame_shift=config.frame_shift,
                window_type=config.window_type,
                dither=0.0,
                snip_edges=True,
                low_freq=config.low_freq,
                high_freq=config.high_freq,
                num_filters=config.num_filters,
            )

    def forward(self, samples: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Samples (N, S) in [-1, 1], padded, and their lengths (N,) in samples -> features (N, T, 80), frames (N,).

        The frames are on the device of the lengths. Where that is the CPU, nothing waits for the device of the samples.

        Kaldi mirrors a clip at both of its ends. In a padded batch the end of a clip is not the end of its
        row, so the mirrored samples are gathered a clip at a time. Rows beyond their frames are zero.
        """
        window, shift = self.config.window_samples, self.config.shift_samples
        frames = self.config.num_frames(lengths)
        most = int(frames.max())
        lengths, counts = (values.to(samples.device, non_blocking=True) for values in (lengths, frames))
        # frame t is centred on sample t * shift + shift / 2
        position = torch.arange((most - 1) * shift + window, device=samples.device) - (window - shift) // 2
        period = 2 * lengths[:, None]
        position = torch.remainder(position[None, :], period)
        mirrored = torch.where(position < lengths[:, None], position, period - 1 - position)
        features = self._of_whole_frames(samples.float().gather(1, mirrored), most)
        valid = torch.arange(most, device=samples.device)[None, :] < counts[:, None]
        return features * valid[:, :, None], frames

    def _of_whole_frames(self, samples: torch.Tensor, frames: int) -> torch.Tensor:
        if samples.device.type != "cpu":
            return self.layer(samples)
        return torch.cat([self.layer(rows) for rows in samples.split(max(1, FRAMES_A_PIECE // frames))])


def resampler_name() -> str:
    """Who resamples here: torchaudio, or soxr where torchaudio cannot be imported. InputError where neither can."""
    try:
        import torchaudio  # noqa: F401

        return "torchaudio"
    except Exception as error:  # a torchaudio that does not fit torch fails in many ways
        try:
            import soxr  # noqa: F401

            return "soxr"
        except ImportError:
            raise InputError(
                "a corpus with another sampling rate needs torchaudio or soxr to be resampled; torchaudio cannot be "
                f"imported ({error}), soxr is not installed: install it with pip install soxr."
            ) from error


@lru_cache(maxsize=8)
def resampler(source: int, target: int):
    """A function from samples at ``source`` Hz to samples at ``target`` Hz."""
    common = math.gcd(source, target)
    if resampler_name() == "torchaudio" and (source // common) * (target // common) <= LARGEST_FILTERS:
        import torchaudio

        transform = torchaudio.transforms.Resample(source, target)
        return lambda samples: transform(torch.from_numpy(samples)).numpy()
    import soxr

    return lambda samples: soxr.resample(samples, source, target)


def load_waveform(cut: MonoCut, sampling_rate: int = 16000) -> np.ndarray:
    """The samples (S,) float32 of a cut, channels averaged, resampled where its recording has another rate.

    InputError for a file that is gone or holds fewer samples than its manifest says.
    """
    recording, source = cut.recording, cut.recording.sources[0]
    path = file = source.source
    if source.type == "memory":  # of a shard
        path, file = f"the audio of {cut.id}", io.BytesIO(source.source)
    elif not os.path.isfile(path):
        raise InputError(f"{path}: is not there any more; put it back, or run stage 1 again for its corpus.")
    first = round(cut.start * recording.sampling_rate)
    last = round((cut.start + cut.duration) * recording.sampling_rate)  # cut.end is rounded to milliseconds
    try:
        with soundfile.SoundFile(file) as audio:
            frames, source_rate = audio.frames, audio.samplerate
            if first:
                audio.seek(min(first, frames))
            samples = audio.read(last - first, dtype="float32")
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run stage 1 again for its corpus.") from error
    if frames != recording.num_samples or source_rate != recording.sampling_rate or len(samples) != last - first:
        raise InputError(
            f"{path}: holds {min(frames, first + len(samples))} samples at {source_rate} Hz, its manifest says "
            f"{recording.num_samples} at {recording.sampling_rate} Hz; the file is truncated or was replaced: copy it "
            "again and run stage 1 again."
        )
    mono = samples if samples.ndim == 1 else samples.mean(axis=1)
    if source_rate == sampling_rate:
        return mono
    return resampler(source_rate, sampling_rate)(mono)


def load_features(cut: MonoCut) -> torch.Tensor:
    """The stored features (T, D) of a cut; InputError where the archive is gone or not whole, or of another kind."""
    if cut.features.storage_type not in STORED_AS:  # others unpickle, or fetch from a network
        raise InputError(
            f"{cut.features.storage_path}: the features of {cut.id} are stored as {cut.features.storage_type}, not as "
            "stage 2 does; run it again."
        )
    try:
        features = cut.load_features()
    except Exception as error:  # lilcom, the file system and lhotse each have their own, lhotse's of many lines
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        again = "run stage 2" if cut.features.storage_type == LilcomChunkyWriter.name else "remove it and run stage 3"
        raise InputError(
            f"{cut.features.storage_path}: the features of {cut.id} cannot be read ({reason}); {again} again."
        ) from error
    return torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))


def _extract_part(cuts: list[MonoCut], config: FbankConfig, archive: Path) -> int:
    """Write the features of ``cuts`` to ``archive`` and their manifest beside it; returns how many."""
    extractor = Fbank(config)
    done = []
    with whole_file(archive) as temporary, LilcomChunkyWriter(temporary, tick_power=TICK_POWER) as writer:
        for cut in cuts:
            samples = load_waveform(cut, config.sampling_rate)
            features = extractor.extract(samples, config.sampling_rate)
            cut.features = Features(
                type=extractor.name,
                num_frames=len(features),
                num_features=features.shape[1],
                frame_shift=config.frame_shift,
                sampling_rate=config.sampling_rate,
                start=cut.start,
                duration=cut.duration,
                storage_type=writer.name,
                storage_path=str(archive.resolve()),
                storage_key=writer.write(cut.id, features),
                recording_id=cut.recording.id,
                channels=0,
            )
            done.append(cut)
    with whole_file(archive.with_suffix(".jsonl.gz")) as temporary:
        CutSet.from_cuts(done).to_file(temporary)
    # written last: a part counts as done when this file is there and the sizes in it are right
    note_sizes(_note(archive), (archive, archive.with_suffix(".jsonl.gz")))
    return len(done)


def corpus_cuts(manifests: Path, corpus: str, splits: Sequence[str]) -> Iterator[MonoCut]:
    """The cuts of a prepared corpus, one an utterance, without features; read one by one, never all at once."""
    for split in splits:
        recordings = iter(RecordingSet.from_jsonl_lazy(manifests / f"{corpus}_recordings_{split}.jsonl.gz"))
        recording = None
        for supervision in SupervisionSet.from_jsonl_lazy(manifests / f"{corpus}_supervisions_{split}.jsonl.gz"):
            while recording is None or recording.id != supervision.recording_id:  # both are in the same order
                recording = next(recordings, None)
                if recording is None:
                    raise InputError(
                        f"{manifests}: the supervision {supervision.id} has no recording, or they are in another "
                        "order; run stage 1 again."
                    )
            start, duration = supervision.start, supervision.duration
            cut = MonoCut(
                id=supervision.id,
                start=start,
                duration=duration,
                channel=0,
                supervisions=[supervision],
                recording=recording,
            )
            supervision.start = 0.0  # in a cut, times count from its start
            yield cut


def _archive(folder: Path, part: int) -> Path:
    return folder / f"{part:05d}.lca"


def _note(archive: Path) -> Path:
    return archive.with_suffix(".json")


def _in_parts(
    cuts: Iterable[MonoCut], folder: Path, numbers: Collection[int] | None = None
) -> Iterator[tuple[Path, list[MonoCut]]]:
    """(archive, its cuts), CUTS_A_PART at a time; of the parts with these numbers, or of all."""
    cuts = iter(cuts)
    for number in count() if numbers is None else range(max(numbers) + 1):
        part = list(islice(cuts, CUTS_A_PART))
        if not part:
            return
        if numbers is None or number in numbers:
            yield _archive(folder, number), part


def _stage(corpus: str, manifests: Path, out_dir: Path, card: Mapping[str, Any], config: FbankConfig) -> Stage:
    options = {"corpus": corpus, "fbank": config.to_dict(), "tick_power": TICK_POWER}
    if set(card["counts"]["sampling_rate"]) != {str(config.sampling_rate)}:
        options["resampler"] = resampler_name()
    return Stage("features", corpus, out_dir, options, [manifests], FORMAT)


def missing_parts(corpus: str, manifests: Path, out_dir: Path, config: FbankConfig = FbankConfig()) -> list[int] | None:
    """The numbers, from 0, of the parts that ``compute_features`` would compute; None where the corpus is done."""
    manifests, out_dir = Path(manifests), Path(out_dir)
    card = load_card(manifests, corpus)
    stage = _stage(corpus, manifests, out_dir, card, config)
    if not stage.needs_run():
        return None
    parts = range(math.ceil(card["utterances"] / CUTS_A_PART))
    return [part for part in parts if not sizes_are_as_noted(_note(_archive(out_dir / f"parts-{stage.key}", part)))]


def compute_features(
    corpus: str,
    manifests: Path,
    out_dir: Path,
    nj: int = 1,
    config: FbankConfig = FbankConfig(),
    parts: Collection[int] | None = None,
) -> None:
    """Stage 2: the features of one corpus, ``out_dir``/cuts.jsonl.gz and archives beside it.

    ``nj`` processes work on parts of 250 cuts, and no more of the corpus is held at a time; a run that was broken off
    goes on with the parts that are missing or not whole. With ``parts``, numbers from 0, only these are computed, and
    left for a run without to be joined: so jobs share a corpus. Raises InputError where stage 1 has not run or a
    recording cannot be read.
    """
    manifests, out_dir = Path(manifests), Path(out_dir)
    card = load_card(manifests, corpus)
    stage = _stage(corpus, manifests, out_dir, card, config)
    if not stage.needs_run() or stage.added_to_plan():
        return
    if parts is not None:
        make_parent(out_dir)
        with folder_in_use(manifests), folder_in_use(out_dir):  # many jobs may have parts, but none beside a whole run
            _compute(stage, corpus, manifests, out_dir, nj, config, card, parts)
        return
    with stage.locked() as is_missing:
        if is_missing:
            _compute(stage, corpus, manifests, out_dir, nj, config, card, parts)


def _compute(
    stage: Stage,
    corpus: str,
    manifests: Path,
    out_dir: Path,
    nj: int,
    config: FbankConfig,
    card: Mapping[str, Any],
    parts: Collection[int] | None,
) -> None:
    """The archives that are missing, and, of all of them (no ``parts``), their cuts and the stamp."""
    parts_dir = out_dir / f"parts-{stage.key}"
    with write_fault_is_an_input_error(parts_dir):
        parts_dir.mkdir(parents=True, exist_ok=True)
    archives: list[Path] = []
    utterances = card["utterances"] if parts is None else min(card["utterances"], len(parts) * CUTS_A_PART)
    with Progress(f"{corpus}: features", utterances, "clips") as shown:

        def missing() -> Iterator[tuple[Path, list[MonoCut]]]:
            for archive, part in _in_parts(corpus_cuts(manifests, corpus, card["splits"]), parts_dir, parts):
                archives.append(archive)
                if sizes_are_as_noted(_note(archive)):
                    shown.update(len(part))
                else:
                    yield archive, part

        tasks = ((part, config, archive) for archive, part in missing())
        nj = 1 if card["utterances"] <= CUTS_A_PART else nj
        for cuts in in_processes(_extract_part, tasks, nj, str(out_dir)):
            shown.update(cuts)
    if parts is not None:
        return
    stage.invalidate()
    with whole_file(out_dir / "cuts.jsonl.gz") as temporary, open(temporary, "wb") as cuts:
        for archive in archives:  # files of gzip one after the other are a file of gzip
            cuts.write(archive.with_suffix(".jsonl.gz").read_bytes())
    names = [os.path.relpath(archive, out_dir) for archive in archives]
    stage.finish(out_dir, card["utterances"], card["utterances"], Drops(), outputs=["cuts.jsonl.gz", *names])
    for stale in out_dir.glob("parts-*"):
        if stale != parts_dir:
            shutil.rmtree(stale)
    remove_leftovers(parts_dir)


def load_cuts(fbank_dir: Path) -> CutSet:
    """The cuts of a corpus whose features are stored, read lazily; InputError where stage 2 has not run."""
    require(fbank_dir, "features")
    return CutSet.from_jsonl_lazy(Path(fbank_dir) / "cuts.jsonl.gz")
