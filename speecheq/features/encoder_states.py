"""Stage 2 with a pretrained encoder: its states of every clip, as lhotse temporal arrays, and how they are read.

    DATA/NAME/encoder.yaml            the encoder: where its files are, layers, options, digest
    DATA/NAME/CORPUS/cuts.jsonl.gz    the cuts of the corpus, with their ``states``, and those at other speeds
    DATA/NAME/CORPUS/parts-<key>/00000.npy    the states (frames, L, D) of the clips of a part, one after the other

An archive is an ordinary .npy file, which is mapped into memory: a clip costs no more than its own frames.
"""

import gzip
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from lhotse import MonoCut
from lhotse.array import Array, TemporalArray
from lhotse.features.io import FeaturesReader, register_reader
from torch.nn.utils.rnn import pad_sequence

from speecheq.common.device import pick_device
from speecheq.common.errors import InputError
from speecheq.common.files import whole_file
from speecheq.common.log import log
from speecheq.common.stages import require
from speecheq.config.encoder import EncoderConfig
from speecheq.features.audio import load_waveform, resampler, resampler_name
from speecheq.features.encoders import Encoder, EncoderSettings, encoder_digest, load_encoder
from speecheq.features.storage import FeatureSet
from speecheq.features.waveform_batch import SAMPLING_RATE

STORAGE_TYPE = "speecheq-npy"
STATES = "states"  # the cuts' field
# The field of a cut that says which of its copies is loaded.
DRAW = "draw"
# Clips of a mini-batch on a GPU hold at most this much audio; a CPU computes clip by clip.
BATCH_SECONDS = 60.0


@register_reader
class NpyReader(FeaturesReader):
    """Reads the rows of one clip from a .npy file; the key is its first row and its number of rows."""

    name = STORAGE_TYPE

    def __init__(self, storage_path: str, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.path = storage_path

    def read(self, key: str, left_offset_frames: int = 0, right_offset_frames: int | None = None) -> np.ndarray:
        """The states (T, L, D) of a clip, or of a piece of it."""
        first, frames = map(int, key.split("+"))
        last = frames if right_offset_frames is None else min(frames, right_offset_frames)
        return np.asarray(_mapped(self.path)[first + left_offset_frames : first + last])


@lru_cache(maxsize=512)
def _mapped(path: str) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


@lru_cache(maxsize=1)
def _encoder(settings: EncoderSettings, device: torch.device) -> Encoder:
    return load_encoder(settings).to(device)


@dataclass(frozen=True)
class EncoderSet(FeatureSet):
    """The states of a pretrained encoder. ``digest`` is that of its files, ``stored_as`` a numpy type."""

    settings: EncoderSettings
    digest: str
    dim: int
    stored_as: str = "float16"
    frame_shift: float = Encoder.frame_shift
    speeds: tuple[float, ...] = ()  # of further copies
    suffix = ".npy"

    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"encoder": self.digest, "stored_as": self.stored_as}
        return {**options, "speeds": self.speeds, "resampler": resampler_name()} if self.speeds else options

    def check(self, corpus: str, seconds: float, out_dir: Path) -> None:
        """Log how much disk the states take. Raises InputError if less is free."""
        # at least a frame a second or so, as each clip has one
        seconds *= sum(1 / speed for speed in (1.0, *self.speeds))
        values = seconds / min(self.frame_shift, 1.0) * len(self.settings.layers) * self.dim
        need = values * np.dtype(self.stored_as).itemsize / 1e9
        free = shutil.disk_usage(_existing_parent(out_dir)).free / 1e9
        log.info("%s: the states take about %.2f GB; %.0f GB are free", corpus, need, free)
        if need > free:
            raise InputError(
                f"{out_dir}: the states of {corpus} take about {need:.1f} GB, but {free:.1f} GB are free; choose fewer "
                "layers in conf/features, another --data, or compute them while training: --store-features false, and "
                "--set data.input=waveform."
            )

    def uses_processes(self) -> bool:
        return pick_device("auto").type == "cpu"

    def extract(self, cuts: list[MonoCut], archive: Path) -> None:
        device = pick_device("auto")
        encoder = _encoder(self.settings, device)
        layers = (len(self.settings.layers), self.dim)
        rows = 0
        with whole_file(archive) as temporary, open(temporary, "wb") as stream:
            _write_header(stream, self.stored_as, (rows, *layers))
            for speed, batch in product((1.0, *self.speeds), _batches(cuts, device)):
                clips = [torch.from_numpy(_waveform(cut, speed)) for cut in batch]
                lengths = torch.tensor([len(clip) for clip in clips])
                with torch.inference_mode():
                    states, frames = encoder(pad_sequence(clips, batch_first=True).to(device), lengths)
                for cut, clip, length in zip(batch, states.cpu().numpy(), frames.tolist()):
                    stream.write(self._as_stored(clip[:length], cut.id))
                    array = Array(STORAGE_TYPE, str(archive.resolve()), f"{rows}+{length}", [length, *layers])
                    stored = TemporalArray(array, 0, self.frame_shift, cut.start)
                    cut.custom = {**(cut.custom or {}), _field(speed): stored}
                    rows += length
            stream.seek(0)  # now the number of rows is known; numpy leaves room for it
            _write_header(stream, self.stored_as, (rows, *layers))

    def _as_stored(self, states: np.ndarray, name: str) -> bytes:
        """The states (T, L*D) of the clip ``name``; raises InputError for values that the type cannot hold."""
        limit = np.finfo(self.stored_as).max
        if not np.abs(states).max(initial=0) <= limit:
            raise InputError(
                f"{name}: its states are not finite or above {limit:g}, which {self.stored_as} cannot hold; set "
                "stored_as: float32 in the feature set."
            )
        return states.astype(self.stored_as).tobytes()


def _field(speed: float) -> str:
    """The cuts' field for the states at a speed."""
    return STATES if speed == 1 else f"{STATES}_speed_{speed:g}"


def _waveform(cut: MonoCut, speed: float) -> np.ndarray:
    """The samples (S / speed,) of a cut at ``speed``, which changes tempo and pitch alike."""
    samples = load_waveform(cut, SAMPLING_RATE)
    return samples if speed == 1 else resampler(round(SAMPLING_RATE * speed), SAMPLING_RATE)(samples)


def encoder_settings(config: EncoderConfig) -> EncoderSettings:
    """The encoder that a configuration describes, as features/encoders takes it."""
    return EncoderSettings(config.model, config.layer_numbers(), config.padding, config.normalise)


def load_trained_encoder(config: EncoderConfig) -> Encoder:
    """The encoder that a model was trained with, from where it was then.

    Raises InputError if it is not there any more, or another one is.
    """
    settings = encoder_settings(config)
    found = encoder_digest(settings)
    if found != config.digest:
        raise InputError(
            f"{config.model}: is not the encoder that the model was trained with (digest {found}, then "
            f"{config.digest}); put that one there."
        )
    return load_encoder(settings)


def open_encoder(config: EncoderConfig) -> tuple[EncoderConfig, EncoderSet]:
    """Load the encoder of a feature set once, to check it. Raises InputError as ``load_encoder`` does.

    Returns:
        the configuration with what was found out, and what stage 2 computes.
    """
    settings = encoder_settings(config)
    encoder, digest = _encoder(settings, pick_device("auto")), encoder_digest(settings)
    found = replace(config, dim=encoder.dim, digest=digest, frame_shift=encoder.frame_shift)
    return found, EncoderSet(
        settings, digest, encoder.dim, config.stored_as, encoder.frame_shift, config.speed_numbers()
    )


def _write_header(stream: BinaryIO, stored_as: str, shape: tuple[int, ...]) -> None:
    descr = np.lib.format.dtype_to_descr(np.dtype(stored_as))
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})


def _batches(cuts: list[MonoCut], device: torch.device) -> Iterator[list[MonoCut]]:
    """The clips of each mini-batch: on a CPU one clip, on a GPU clips of similar lengths."""
    batch: list[MonoCut] = []
    for cut in sorted(cuts, key=lambda cut: cut.duration):
        if batch and (device.type == "cpu" or (len(batch) + 1) * cut.duration > BATCH_SECONDS):
            yield batch
            batch = []
        batch.append(cut)
    if batch:
        yield batch


def _existing_parent(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    path = Path(path).resolve()
    return next(folder for folder in (path, *path.parents) if folder.exists())


class _Stored(NamedTuple):
    """Where the states of a clip are: archive, first row, rows, the second of the recording they begin at, and the
    seconds of the recording from each to the next.
    """

    archive: str
    first: int
    frames: int
    start: float
    shift: float


class StoredStates:
    """The states that stage 2 has stored in ``folder`` (DATA/NAME), by the ids of the clips.

    A corpus' manifest is read when the first of its clips is asked for. Where it holds copies at other speeds, a cut
    with the field ``draw``, a number in [0, 1), gets one of all, each as often.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.corpora: dict[str, dict[str, list[_Stored]]] = {}

    def open(self, corpus: str) -> dict[str, list[_Stored]]:
        """Where the states of each clip of ``corpus`` are, and of its copies at other speeds.

        Raises InputError if stage 2 has not run for it.
        """
        if corpus not in self.corpora:
            folder = self.folder / corpus
            require(folder, "features")
            archives: dict[str, str] = {}  # one string for all clips of an archive
            clips: dict[str, list[_Stored]] = {}
            with gzip.open(folder / "cuts.jsonl.gz", "rb") as lines:
                for line in lines:
                    cut = json.loads(line)
                    copies = clips[cut["id"]] = []
                    for name, states in sorted(cut["custom"].items()):  # the clip itself first
                        if not name.startswith(STATES):
                            continue
                        array = states["array"]
                        path = archives.setdefault(array["storage_path"], array["storage_path"])
                        first, frames = map(int, array["storage_key"].split("+"))
                        shift = states["frame_shift"] * float(name.removeprefix(STATES).removeprefix("_speed_") or 1)
                        copies.append(_Stored(path, first, frames, states["start"], shift))
            self.corpora[corpus] = clips
        return self.corpora[corpus]

    def load(self, cut: MonoCut) -> torch.Tensor:
        """The states (T, L*D) float32 of a cut, which may be a piece of the clip.

        Raises InputError if stage 2 did not store them, or their archive is gone.
        """
        corpus = cut.supervisions[0].custom["corpus"]
        copies = self.open(corpus).get(cut.id)
        if not copies:
            raise InputError(f"{self.folder / corpus}: holds no states of {cut.id}; run stage 2 again.")
        stored = copies[int((cut.custom or {}).get(DRAW, 0.0) * len(copies))]
        shift = stored.shift
        skipped = min(round((cut.start - stored.start) / shift), stored.frames - 1)
        kept = stored.frames - skipped
        if round(cut.duration / shift) < kept - 1:  # a piece; the last frame of an entire clip may be a partial one
            kept = max(1, round(cut.duration / shift))
        first = stored.first + skipped
        try:
            rows = _mapped(stored.archive)[first : first + kept]
        except (OSError, ValueError) as error:
            raise InputError(
                f"{stored.archive}: the states of {cut.id} cannot be read ({error}); run stage 2 again."
            ) from error
        return torch.from_numpy(np.array(rows).reshape(len(rows), -1)).float()  # faster than numpy's own conversion
