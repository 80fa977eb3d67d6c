"""Features of other systems, computed by librosa and openSMILE, in the place of an encoder: clips to frames.

A feature set of conf/features whose ``model`` is ``librosa:NAME`` or ``opensmile:NAME`` is one of these. They have no
parameters, and every model takes their frames as it takes filter banks. Those of openSMILE are functionals, one vector
a clip, for an SVM (``speecheq probe``).
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from speecheq.common.digests import digest
from speecheq.common.errors import InputError, optional_package
from speecheq.common.files import locked_folder
from speecheq.config.encoder import ONE_A_CLIP, SIGNALS
from speecheq.features.audio import resampler
from speecheq.features.encoders.encoder import SAMPLING_RATE, Encoder
from speecheq.features.encoders.settings import EncoderSettings

INSTALL = "utils/install.sh --extras cited"
FORMAT = 1


@dataclass(frozen=True)
class FrameSet:
    """Frames of librosa: ``dim`` values each ``hop`` samples at ``rate`` Hz; ``compute`` gives them, (D, T)."""

    dim: int
    rate: int
    hop: int
    compute: Callable[[Any, np.ndarray], np.ndarray]

    @property
    def shift(self) -> float:
        return self.hop / self.rate

    def frames(self, librosa: Any, samples: np.ndarray) -> np.ndarray:
        """Samples (S,) -> (T, D), without librosa's warnings of windows that are longer than a short clip."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.compute(librosa, samples).T


def _mfcc26(librosa: Any, samples: np.ndarray) -> np.ndarray:
    return librosa.feature.mfcc(y=samples, sr=16000, n_mfcc=26, hop_length=512)


def _logmel40(librosa: Any, samples: np.ndarray) -> np.ndarray:
    mel = librosa.feature.melspectrogram(y=samples, sr=16000, n_fft=512, win_length=400, hop_length=160, n_mels=40)
    return np.log(mel + 1e-10)


def _hgfm33(librosa: Any, samples: np.ndarray) -> np.ndarray:
    """Zero-crossing rate (which the authors' code names f0), 20 MFCCs as HTK's, 12 chroma values of constant Q."""
    rates = librosa.feature.zero_crossing_rate(samples, hop_length=512)
    mfcc = librosa.feature.mfcc(y=samples, sr=22050, n_mfcc=20, hop_length=512, htk=True)
    chroma = librosa.feature.chroma_cqt(y=samples, sr=22050, hop_length=512)
    frames = min(part.shape[1] for part in (rates, mfcc, chroma))
    return np.concatenate([part[:, :frames] for part in (rates, mfcc, chroma)])


FRAME_SETS = {
    "mfcc26": FrameSet(26, 16000, 512, _mfcc26),  # of [35]
    "hgfm33": FrameSet(33, 22050, 512, _hgfm33),  # of [34]
    "logmel40": FrameSet(40, 16000, 160, _logmel40),  # 25 ms each 10 ms
}
FUNCTIONALS = {"eGeMAPSv02": 88, "ComParE_2016": 6373}


def is_signal(model: str) -> bool:
    """Whether the ``model`` of a feature set is one of these, and no encoder."""
    return model.startswith(SIGNALS)


def _parse(model: str) -> tuple[str, str]:
    """Package and name; raises InputError for a name that there is not."""
    package, _, name = model.partition(":")
    known = FRAME_SETS if package == "librosa" else FUNCTIONALS
    if name not in known:
        raise InputError(f"{model}: there is no such feature set of {package}; it has {', '.join(known)}.")
    return package, name


def _import(package: str) -> Any:
    with optional_package(package, f"this feature set, of {package},", INSTALL):
        if package == "librosa":
            return _import_librosa()
        import opensmile

        return opensmile


@cache
def _import_librosa() -> Any:
    """librosa, with all code compiled that its features need.

    numba keeps what it compiles in files whose names two processes may choose alike; who reads the wrong one crashes.
    So one process at a time compiles, into a cache of our own, and those that it forks need not.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = os.environ.setdefault("NUMBA_CACHE_DIR", str(caches / "speecheq" / "numba"))
    with locked_folder(folder, wait=True):
        import librosa

        for frame_set in FRAME_SETS.values():
            frame_set.frames(librosa, np.sin(np.arange(frame_set.rate, dtype=np.float32)))
    return librosa


def signal_digest(settings: EncoderSettings) -> str:
    """A digest of all that decides the features: which they are, and the version of the package."""
    package, name = _parse(settings.model)
    return digest({"format": FORMAT, "features": f"{package}:{name}", "version": _import(package).__version__})


class SignalFeatures(Encoder):
    """The features of librosa or openSMILE of padded waveforms, clip by clip, on the CPU."""

    def __init__(self, settings: EncoderSettings) -> None:
        self.package, self.name = _parse(settings.model)
        self.frame_set = FRAME_SETS.get(self.name)
        dim = FUNCTIONALS[self.name] if self.frame_set is None else self.frame_set.dim
        super().__init__(settings, nn.Identity(), dim, False)
        self.frame_shift = ONE_A_CLIP if self.frame_set is None else self.frame_set.shift
        _import(self.package)  # an error before the first clip

    @cached_property
    def smile(self) -> Any:
        opensmile = _import("opensmile")
        return opensmile.Smile(
            feature_set=opensmile.FeatureSet[self.name], feature_level=opensmile.FeatureLevel.Functionals
        )

    def num_frames(self, lengths: Tensor) -> Tensor:
        if self.frame_set is None:
            return torch.ones_like(lengths)
        samples = torch.div(lengths * self.frame_set.rate, SAMPLING_RATE, rounding_mode="floor")
        return 1 + torch.div(samples, self.frame_set.hop, rounding_mode="floor")  # centred, as librosa has them

    def _of_clip(self, samples: np.ndarray) -> np.ndarray:
        """Samples (S,) -> features (T, D) float32."""
        if self.frame_set is None:
            return self.smile.process_signal(samples, SAMPLING_RATE).to_numpy(dtype=np.float32)
        frames = int(self.num_frames(torch.tensor(len(samples))))
        if self.frame_set.rate != SAMPLING_RATE:
            samples = resampler(SAMPLING_RATE, self.frame_set.rate)(samples)
        found = self.frame_set.frames(_import("librosa"), samples)[:frames]
        # resampling may round to one sample, and so to one frame, fewer
        return np.pad(found, ((0, frames - len(found)), (0, 0)), mode="edge").astype(np.float32)

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (N, S) and lengths (N,) -> features (N, T, D), zero after a clip's frames; frames (N,)."""
        clips = [row[:length] for row, length in zip(samples.detach().cpu().float().numpy(), lengths.tolist())]
        found = [torch.from_numpy(self._of_clip(np.ascontiguousarray(clip))) for clip in clips]
        return pad_sequence(found, batch_first=True).to(samples.device), self.num_frames(lengths)
