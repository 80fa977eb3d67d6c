"""Speech by espeak-ng, through ctypes, and turning it into what a recording would hold."""

import ctypes
import shutil
import tempfile
from pathlib import Path

import numpy as np

from speecheq.common.errors import InputError
from speecheq.corpora.synthetic.plan import Prosody, Speaker

# Neutral speech in the units of espeak-ng, and how far a step of 1 goes.
PITCH_STEP = 32  # around the speaker's own pitch
PITCH_RANGE, PITCH_RANGE_STEP = 52, 36  # never flat: Mandarin needs its tones
RATE, RATE_OCTAVES = 220, 0.5  # words a minute
VOLUME, VOLUME_DB = 40, 7.0

MARGIN = 0.08  # seconds of silence kept before and after the speech
FLOOR = 1e-4  # standard deviation of the noise floor; digital silence occurs in no recording
PEAK = 0.95

# Of espeak-ng's speak_lib.h
_SYNCHRONOUS, _DO_NOT_EXIT, _UTF8, _CHARACTERS, _OK = 2, 0x8000, 1, 1, 0
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Voice:
    """espeak-ng through ctypes; use it as a context manager.

    The library keeps the state of its pitch flutter and noise in static memory that even its own
    initialisation leaves as it is. Each Voice therefore loads a copy of the library, which starts from
    scratch: the same calls give the same samples, however often the process has synthesised before.
    Raises InputError if the `demo` extra is absent or the library does not load.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise _extra_absent(error) from error
        library = Path(espeakng_loader.get_library_path())
        folder = tempfile.mkdtemp()
        try:
            self._library = ctypes.CDLL(shutil.copy(library, folder))
        except OSError as error:
            raise InputError(f"{library}: espeak-ng does not load ({error}); reinstall espeakng-loader.") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # what is loaded stays loaded
        self._chunks: list[np.ndarray] = []
        self._callback = _CALLBACK(self._collect)  # held here, or it would be freed while in use
        data = str(espeakng_loader.get_data_path()).encode()
        self.sample_rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DO_NOT_EXIT)
        if self.sample_rate <= 0:
            raise InputError(f"{library}: espeak-ng did not start on its data; reinstall espeakng-loader.")
        self._library.espeak_SetSynthCallback(self._callback)

    def __enter__(self) -> "Voice":
        return self

    def __exit__(self, *_error: object) -> None:
        self._library.espeak_Terminate()

    def _collect(self, samples, count: int, events) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, text: str, speaker: Speaker, prosody: Prosody, language: str = "cmn") -> np.ndarray:
        """Speak ``text`` in ``language`` (espeak-ng's code); int16 samples at ``self.sample_rate``.

        RuntimeError where the library refuses the language or the speaker's variant, or returns no sound.
        """
        parameters = {
            _RATE: RATE * 2.0 ** (RATE_OCTAVES * prosody.rate),
            _VOLUME: VOLUME * 10.0 ** (VOLUME_DB * prosody.volume / 20),
            _PITCH: speaker.pitch + PITCH_STEP * prosody.pitch,
            _RANGE: PITCH_RANGE + PITCH_RANGE_STEP * prosody.pitch_range,
        }
        # Setting a voice resets its parameters, so it comes first.
        if self._library.espeak_SetVoiceByName(f"{language}+{speaker.variant}".encode()) != _OK:
            raise RuntimeError(f"espeak-ng has no voice {language} with the variant {speaker.variant}")
        for parameter, value in parameters.items():
            highest = 99 if parameter in (_PITCH, _RANGE) else 450
            self._library.espeak_SetParameter(parameter, min(max(round(value), 0), highest), 0)
        self._chunks.clear()
        spoken = text.encode()
        status = self._library.espeak_Synth(
            spoken, ctypes.c_size_t(len(spoken) + 1), 0, _CHARACTERS, 0, _UTF8, None, None
        )
        if status != _OK or not self._chunks:
            raise RuntimeError(f"espeak-ng returned no sound for {text!r} (status {status})")
        return np.concatenate(self._chunks)


def _extra_absent(error: ImportError) -> InputError:
    return InputError(f"Synthesising needs the package {error.name}, which is absent; install the extra `demo`.")


def recorded(samples: np.ndarray, spoken_rate: int, rate: int, channels: int, noise: np.random.Generator) -> np.ndarray:
    """int16 at ``spoken_rate`` -> (samples, channels) float at ``rate`` below PEAK.

    The silence is trimmed to MARGIN; every channel has the same speech over a faint noise floor of its own.
    """
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise _extra_absent(error) from error
    divisor = np.gcd(rate, spoken_rate)
    signal = resample_poly(samples / 32768.0, rate // divisor, spoken_rate // divisor)
    loud = np.flatnonzero(np.abs(signal) > 0.01 * np.abs(signal).max())
    signal = np.pad(signal[loud[0] : loud[-1] + 1], round(MARGIN * rate))
    signal = signal[:, None] + noise.normal(0.0, FLOOR, (len(signal), channels))
    return signal * min(1.0, PEAK / np.abs(signal).max())
