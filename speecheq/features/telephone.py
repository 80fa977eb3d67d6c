"""Telephone speech: the band from 300 to 3400 Hz, at 8 kHz, through the codec of a land line or of GSM."""

import io
from functools import cache

import numpy as np
import soundfile
import torch
from torch import Tensor

from speecheq.features.waveform_batch import SAMPLING_RATE

RATE = 8000  # Hz
BAND = (300.0, 3400.0)  # Hz
# Codecs (ITU-T G.711; GSM 06.10 full rate), by their names, and libsndfile's.
CODECS = {"mu-law": "ULAW", "A-law": "ALAW", "GSM": "GSM610"}


@cache
def _band_pass() -> np.ndarray:
    from scipy import signal  # which takes a second to import, and prediction needs no telephone

    return signal.butter(4, BAND, "bandpass", fs=RATE, output="sos")


def through_telephone(samples: np.ndarray, codec: str) -> np.ndarray:
    """Samples (S,) float32 at 16 kHz, as they come out of a telephone with ``codec``, one of CODECS: (S,) float32."""
    from scipy import signal

    narrow = signal.sosfilt(_band_pass(), signal.resample_poly(samples, RATE, SAMPLING_RATE))
    coded = io.BytesIO()
    soundfile.write(coded, np.clip(narrow, -1, 1), RATE, format="WAV", subtype=CODECS[codec])
    coded.seek(0)
    decoded, _ = soundfile.read(coded, dtype="float32", frames=len(narrow))
    return signal.resample_poly(decoded, SAMPLING_RATE, RATE)[: len(samples)].astype(np.float32)


def telephone_clips(clips: Tensor, lengths: Tensor, codecs: list[str]) -> Tensor:
    """Each of the clips (N, S) of ``lengths`` (N,) through its codec; zeros behind its end. On the CPU, one by one."""
    changed = torch.zeros_like(clips)
    for row, (clip, length, codec) in enumerate(zip(clips.cpu().numpy(), lengths.tolist(), codecs)):
        changed[row, :length] = torch.from_numpy(through_telephone(clip[:length], codec)).to(changed)
    return changed
