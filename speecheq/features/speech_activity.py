"""Speech activity: where in a recording there is speech, so that silence and noise have no say.

Two detectors, both on frames of 32 ms at 16 kHz:

    silero   Silero VAD 6 (Silero Team, 2021-2025, github.com/snakers4/silero-vad, MIT); the weights are those of the
             package silero-vad, the network is written here so that all frames of a block are computed at once
    energy   frames that are loud for their recording: see ``is_loud``

Before either, a recording is brought to one level, that of its loud frames: its gain changes nothing. Each stretch that
they find then ends where its sound does, so that silence, hiss or room tone beside speech do not move its ends.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from lhotse import MonoCut
from lhotse.cut import Cut
from torch import Tensor, nn

from speecheq.common.errors import InputError
from speecheq.config.speech_activity import SPEECH_ACTIVITIES
from speecheq.features.audio import load_waveform

SILERO, ENERGY, NONE = SPEECH_ACTIVITIES
SAMPLING_RATE = 16000
FRAME = 512  # samples
STEP = 32  # samples, 2 ms: the resolution of the ends of speech
RUMBLE = 128  # samples whose mean does not count: what is below about 100 Hz
CONTEXT = 64  # samples before a frame that Silero VAD is given too
# The frames that make up the level of a recording are at most 20 dB below its loudest; Silero VAD gets -20 dBFS.
LOUD_RANGE = 1e-2
LEVEL = 0.1
# A loudest frame below -110 dBFS is digital silence or rounding noise of 16 bits that were scaled down.
QUIETEST = 1e-11
# Loud frames below -20 dBFS: see ``amplify_quiet``.
QUIET = 1e-2
# Silero VAD: a frame above the first probability begins a stretch of speech, one below the second ends it.
BEGINS, ENDS = 0.5, 0.35
# Speech begins and ends at most 25 dB below its loud frames.
ENDS_RANGE = 10**-2.5
# Energy: speech is at most 30 dB below the loud frames, and at least 9 dB above the quietest twentieth of the frames.
ENERGY_RANGE = 1e-3
ABOVE_FLOOR = 8.0
FLOOR_SHARE = 0.05
# In frames (0.13 s): shorter pauses do not divide speech, shorter stretches are no speech.
SHORTEST_PAUSE = 4
SHORTEST_SPEECH = 4
# In frames (0.1 s): how far a stretch may begin before, and end after, the frames in which it was found.
WIDENED = 3
# The seconds of speech that a clip needs.
LEAST_SPEECH = 0.3
# The keys of ``custom`` of a cut that ``speech_cut`` made.
METHOD_KEY, SECONDS_KEY = "speech_activity", "speech_seconds"

Segments = list[tuple[int, int]]
Blocks = Callable[[], Iterable[np.ndarray]]


class SileroVad(nn.Module):
    """The network of Silero VAD 6 for 16 kHz: STFT, four convolutions, an LSTM over frames."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, frames: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The probability (T,) of speech in successive frames (T, CONTEXT + FRAME), and the state after them."""
        spectrum = self.stft_conv(nn.functional.pad(frames[:, None], (0, CONTEXT), "reflect"))
        x = (spectrum[:, :129] ** 2 + spectrum[:, 129:] ** 2).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = layer(x).relu()
        x, state = self.lstm(x[:, :, 0], state)
        return self.final_conv(x.relu()[:, :, None])[:, 0, 0].sigmoid(), state


@cache
def load_silero() -> SileroVad:
    """Silero VAD with the weights of the package silero-vad, which is not imported: that would set torch's threads.

    Raises InputError if the package is not installed, or holds another network.
    """
    found = find_spec("silero_vad")
    if found is None or found.origin is None:
        raise InputError(
            "the speech activity silero needs silero-vad: install it with pip install silero-vad, or take another "
            "with --speech-activity energy."
        )
    path = Path(found.origin).parent / "data" / "silero_vad.jit"
    model = SileroVad()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated; nothing but its weights is used
            weights = torch.jit.load(str(path), map_location="cpu").state_dict()
        of_16_khz = [weight for name, weight in weights.items() if name.startswith("_model.")]
        model.load_state_dict(dict(zip(model.state_dict(), of_16_khz)))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{path}: is not the network of Silero VAD 6 ({str(error).splitlines()[0]}); install it again: "
            "pip install --force-reinstall silero-vad."
        ) from error
    return model.eval().requires_grad_(False)


def method_of(cuts: Iterable[Cut]) -> str:
    """One of SPEECH_ACTIVITIES: what found the speech of the first of ``cuts``; none of no cut."""
    return next(((cut.custom or {}).get(METHOD_KEY, NONE) for cut in cuts), NONE)


def _frames(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The samples of ``blocks`` in whole frames (T, FRAME), zeros after the last sample."""
    rest = np.zeros(0, np.float32)
    for block in blocks:
        block = np.concatenate((rest, block))
        whole = len(block) // FRAME * FRAME
        if whole:
            yield block[:whole].reshape(-1, FRAME)
        rest = block[whole:]
    if len(rest):
        yield np.pad(rest, (0, FRAME - len(rest)))[None]


def step_powers(frames: np.ndarray) -> np.ndarray:
    """The mean power (T, FRAME / STEP) of each step of frames (T, FRAME), without direct current and rumble."""
    short = frames.reshape(-1, RUMBLE)
    alternating = short - short.mean(axis=1, keepdims=True, dtype=np.float64)
    return (alternating**2).reshape(len(frames), -1, STEP).mean(axis=2)


def _powers(blocks: Blocks) -> np.ndarray:
    """``step_powers`` of all frames."""
    powers = [step_powers(frames) for frames in _frames(blocks())]
    return np.concatenate(powers) if powers else np.zeros((0, FRAME // STEP))


def powers_of(samples: np.ndarray) -> np.ndarray:
    """The mean power (T,) of each frame of samples (S,) at 16 kHz, without direct current and rumble."""
    return _powers(lambda: [samples]).mean(axis=1)


def loud_power(powers: np.ndarray) -> float:
    """The mean power of the loud frames: what is quiet beside them does not change it."""
    return float(powers[powers >= LOUD_RANGE * powers.max()].mean())


def is_loud(powers: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The detector ``energy``: whether frames of these powers (T,) are speech in a recording of ``levels`` (F,)."""
    place = int(FLOOR_SHARE * len(levels))
    floor = np.partition(levels, place)[place]
    return powers > max(ENERGY_RANGE * loud_power(levels), ABOVE_FLOOR * floor)


class SileroFrames:
    """The detector ``silero``: whether successive frames (T, FRAME) are speech, a few or many at a time."""

    def __init__(self) -> None:
        self._network, self._state = load_silero(), None
        self._context = np.zeros(CONTEXT, np.float32)
        self._is_active = False

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Whether each of the next frames (T,) is speech."""
        contexts = np.concatenate((self._context[None], frames[:-1, -CONTEXT:]))
        self._context = frames[-1, -CONTEXT:]
        with torch.inference_mode():
            inputs = torch.from_numpy(np.concatenate((contexts, frames), axis=1))
            probabilities, self._state = self._network(inputs, self._state)
        found = np.zeros(len(frames), bool)
        for frame, probability in enumerate(probabilities.numpy()):
            found[frame] = self._is_active = bool(probability >= (ENDS if self._is_active else BEGINS))
        return found


def _silero_finds(blocks: Blocks, gain: float) -> np.ndarray:
    """Whether each frame (T,) of the blocks, times ``gain``, is speech to Silero VAD."""
    is_speech = SileroFrames()
    return np.concatenate([is_speech(frames * np.float32(gain)) for frames in _frames(blocks())])


def _runs(active: np.ndarray) -> np.ndarray:
    """The runs of true values in ``active`` (T,): first and one past the last, (R, 2)."""
    return np.flatnonzero(np.diff(np.concatenate(([0], active.astype(np.int8), [0])))).reshape(-1, 2)


def find_speech(blocks: Blocks, method: str) -> Segments:
    """The stretches of speech in a recording of which ``blocks()`` gives the samples at 16 kHz, as often as called.

    Returns: (first sample, one past the last) of each stretch, in order; pauses below SHORTEST_PAUSE are inside.
    Raises InputError where ``method`` is not one of SPEECH_ACTIVITIES, or none, or needs a package that is missing.
    """
    if method not in (SILERO, ENERGY):
        raise InputError(f"the speech activity {method!r} finds no speech; choose {SILERO} or {ENERGY}.")
    steps = _powers(blocks)
    powers = steps.mean(axis=1)
    if not len(powers) or not powers.max() >= QUIETEST:
        return []
    gain = LEVEL / loud_power(powers) ** 0.5
    active = is_loud(powers, powers) if method == ENERGY else _silero_finds(blocks, gain)
    return with_exact_ends(found_stretches(active), steps)


def found_stretches(active: np.ndarray) -> np.ndarray:
    """The stretches (R, 2) of frames that are ``active`` (T,), short pauses filled: first frame, one past the last."""
    active = active.copy()
    for first, end in _runs(~active):
        if first > 0 and end < len(active) and end - first < SHORTEST_PAUSE:
            active[first:end] = True
    found = np.array([run for run in _runs(active) if run[1] - run[0] >= SHORTEST_SPEECH], dtype=int)
    return found.reshape(-1, 2)


def with_exact_ends(found: np.ndarray, steps: np.ndarray) -> Segments:
    """The segments of stretches ``found`` (R, 2), in frames: each from its first to its last loud step.

    ``steps`` (T, FRAME / STEP) are the powers. A stretch may grow by WIDENED frames, not into the one before or after.
    """
    if not len(found):
        return []
    a_frame = steps.shape[1]
    # the mean of a frame around each step: without it the ends would depend on where frames happen to lie
    powers = np.convolve(steps.reshape(-1), np.full(a_frame, 1 / a_frame), "same")
    segments = []
    borders = [0, *found.reshape(-1), len(steps)]
    for (first, end), low, high in zip(found, borders[::2], borders[3::2]):
        first = max(low, first - WIDENED) * a_frame
        own = powers[first : min(high, end + WIDENED) * a_frame]
        loud = first + np.flatnonzero(own >= ENDS_RANGE * loud_power(own))
        segments.append((int(loud[0]) * STEP, (int(loud[-1]) + 1) * STEP))
    return segments


def amplify_quiet(samples: np.ndarray) -> np.ndarray:
    """Samples (S,) at 16 kHz, amplified where their loud frames are below QUIET.

    The floor under the logarithm of the filter banks cuts off what is quiet; models whose features are normalised by
    utterance gain, and do not see the level otherwise.
    """
    powers = powers_of(samples)
    loud = loud_power(powers) if len(powers) else 0.0
    if not QUIETEST <= loud < QUIET:
        return samples
    return samples * np.float32((QUIET / loud) ** 0.5)


def seconds_of_speech(segments: Segments) -> float:
    """The seconds of speech in segments of ``find_speech``."""
    return sum(end - first for first, end in segments) / SAMPLING_RATE


def speech_cut(cut: MonoCut, method: str) -> MonoCut:
    """A cut of one utterance from its first to its last speech, of the same id.

    ``custom`` of the cut gets the method, and the seconds of speech that were found. A cut with less than LEAST_SPEECH
    stays whole; with the method none it is returned as it is. Raises InputError as ``load_waveform`` and
    ``find_speech`` do.
    """
    if method == NONE:
        return cut
    samples = load_waveform(cut, SAMPLING_RATE)
    segments = find_speech(lambda: [samples], method)
    seconds = seconds_of_speech(segments)
    if seconds >= LEAST_SPEECH:
        cut = _part(cut, segments[0][0] / SAMPLING_RATE, segments[-1][1] / SAMPLING_RATE)
    cut.custom = {**(cut.custom or {}), METHOD_KEY: method, SECONDS_KEY: round(seconds, 3)}
    return cut


def _part(cut: MonoCut, start: float, end: float) -> MonoCut:
    """A cut from ``start`` to ``end`` seconds of a cut of one utterance, in whole samples of its recording."""
    rate = cut.recording.sampling_rate
    first = round((cut.start + start) * rate)
    last = min(round((cut.start + end) * rate), round((cut.start + cut.duration) * rate))
    cut.start, cut.duration = first / rate, (last - first) / rate
    for supervision in cut.supervisions:
        supervision.start, supervision.duration = 0.0, cut.duration
    return cut
