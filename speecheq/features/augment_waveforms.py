"""Augmentation of waveforms in batches on the training device (section 2.5): pitch, tempo, reverberation and noise.

The changes of a clip are drawn on the CPU from (seed, stream, epoch, utterance id) alone: they are the same in any
batch and on any device. Samples may leave [-1, 1]: the features need no clipping.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from speecheq.config.schema import AUGMENTATIONS, RIR_SECONDS, AugmentConfig
from speecheq.features.noise_and_rir import WaveformBank, add_noise, reverberate, simulate_responses
from speecheq.features.phase_vocoder import change_pitch_and_tempo, pitch_factors
from speecheq.features.telephone import CODECS, telephone_clips
from speecheq.features.waveform_batch import SAMPLING_RATE, change_rows, fit_length

# Random samples from which simulated reverberation is cut.
TAIL_SAMPLES = 1 << 18

# The random numbers of a clip, in drawing order. All are drawn for every clip, so that the settings of one change do
# not affect the others.
DRAWN = (
    "pitch",
    "semitones",
    "tempo",
    "tempo_factor",
    "reverb",
    "response",
    "t60",
    "direct",
    "noise",
    "snr",
    "sound",
    "crop",
    "type",
    "speed_factor",
    "piece",
    "telephone",
    "codec",
)


def draw(seed: int, stream: str, epoch: int, ids: Sequence[str]) -> dict[str, Tensor]:
    """Random numbers in [0, 1) for N utterances: by the names of ``DRAWN``, (N,) float64 on the CPU."""
    rows = []
    for utterance in ids:
        randomness = random.Random(f"{seed} augment {stream} {epoch} {utterance}")
        rows.append([randomness.random() for _ in DRAWN])
    return dict(zip(DRAWN, torch.tensor(rows, dtype=torch.float64).T))


class ClipChanges(NamedTuple):
    """How each of N clips is changed; all on the CPU."""

    semitones: Tensor  # (N,) float64, pitch shift; 0 for none
    tempo: Tensor  # (N,) float64; 1 for none
    is_reverberated: Tensor  # (N,) bool
    is_noisy: Tensor  # (N,) bool
    codecs: list[str]  # N of CODECS, or "" for no telephone


class Augmenter:
    """Augments mini-batches of waveforms: pitch and tempo, then reverberation, then noise, then a telephone.

    With ``config.one_of`` (MTL-AUG) every clip has one change at most, and changes of features (augment_features.py)
    are among them.
    """

    def __init__(
        self,
        config: AugmentConfig,
        seed: int,
        noises: WaveformBank | None = None,
        responses: WaveformBank | None = None,
        device: torch.device = torch.device("cpu"),
    ):
        """Without ``noises`` no noise is added; without ``responses`` reverberation is simulated."""
        config.validate()
        self.config, self.seed, self.noises, self.responses = config, seed, noises, responses
        possible = [name for name in config.chosen() if name != "noise" or noises is not None]
        self.possible = torch.tensor([AUGMENTATIONS.index(name) for name in ("none", *possible)])
        generator = torch.Generator().manual_seed(seed)
        # drawn on the CPU: the same on all devices
        self.tail = torch.randn(TAIL_SAMPLES, generator=generator).to(device)

    def types(self, drawn: dict[str, Tensor]) -> Tensor | None:
        """The one change of every clip, (N,) int64 in AUGMENTATIONS; None without ``config.one_of``.

        All changes, and no change, are equally likely. Noise is among them only if there are noises.
        """
        if not self.config.one_of:
            return None
        return self.possible[(drawn["type"] * len(self.possible)).long()]

    def __call__(
        self, waveforms: Tensor, lengths: Tensor, ids: Sequence[str], stream: str, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Draw and apply the changes of waveforms (N, S) of utterances ``ids``, lengths (N,), as ``apply`` does."""
        return self.apply(waveforms, lengths, draw(self.seed, stream, epoch, ids))

    def apply(self, waveforms: Tensor, lengths: Tensor, drawn: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Change waveforms (N, S), lengths (N,), by the random numbers of ``draw``.

        Returns: waveforms (N, S') on their device, and their lengths (N,) on the CPU.
        """
        changes, noises = self._clip_changes(drawn), self.noises
        waveforms, lengths = change_pitch_and_tempo(waveforms, lengths.cpu(), changes.semitones, changes.tempo)

        def add_reverberation(rows: Tensor, clips: Tensor) -> Tensor:
            return reverberate(clips, lengths[rows], self._responses(drawn, rows))

        waveforms = change_rows(changes.is_reverberated, waveforms, add_reverberation)

        if noises is not None:

            def add_noises(rows: Tensor, clips: Tensor) -> Tensor:
                noise = noises.crops(noises.pick(drawn["sound"][rows]), drawn["crop"][rows], lengths[rows])
                snr = _between(drawn["snr"], self.config.snr_low, self.config.snr_high)[rows]
                return add_noise(clips, lengths[rows], fit_length(noise, clips.shape[1]), snr)

            waveforms = change_rows(changes.is_noisy, waveforms, add_noises)

        def by_telephone(rows: Tensor, clips: Tensor) -> Tensor:
            return telephone_clips(clips, lengths[rows], [changes.codecs[row] for row in rows.tolist()])

        is_by_telephone = torch.tensor([bool(codec) for codec in changes.codecs])
        return change_rows(is_by_telephone, waveforms, by_telephone), lengths

    def _clip_changes(self, drawn: dict[str, Tensor]) -> ClipChanges:
        config, types = self.config, self.types(drawn)
        semitones = _between(drawn["semitones"], config.pitch_low, config.pitch_high)
        never = torch.zeros_like(semitones)
        names, chosen = list(CODECS), (drawn["codec"] * len(CODECS)).long().tolist()
        is_called = (drawn["telephone"] < config.telephone_probability).tolist()
        codecs = [names[number] if called else "" for number, called in zip(chosen, is_called)]
        if types is None:
            tempo = _between(drawn["tempo_factor"], config.tempo_low, config.tempo_high)
            return ClipChanges(
                torch.where(drawn["pitch"] < config.pitch_probability, semitones, never),
                torch.where(drawn["tempo"] < config.tempo_probability, tempo, never + 1),
                drawn["reverb"] < config.reverb_probability,
                drawn["noise"] < config.noise_probability,
                codecs,
            )
        is_type = {name: types == number for number, name in enumerate(AUGMENTATIONS)}
        # speed changes pitch and tempo by the same factor: such a clip is resampled, not stretched
        speed = 12 * torch.log2(_between(drawn["speed_factor"], config.speed_low, config.speed_high))
        return ClipChanges(
            torch.where(is_type["speed"], speed, torch.where(is_type["pitch"], semitones, never)),
            torch.where(is_type["speed"], pitch_factors(speed), never + 1),
            is_type["reverberation"],
            is_type["noise"],
            [""] * len(codecs),
        )

    def _responses(self, drawn: dict[str, Tensor], rows: Tensor) -> Tensor:
        """The RIRs (M, R) of the clips ``rows`` (M,)."""
        config, response = self.config, drawn["response"][rows]
        if self.responses is not None:
            return self.responses.whole(self.responses.pick(response))
        first = (response * (TAIL_SAMPLES - RIR_SECONDS * SAMPLING_RATE)).long()
        t60 = _between(drawn["t60"], config.t60_low, config.t60_high)[rows]
        return simulate_responses(
            self.tail, first, t60, _between(drawn["direct"], config.direct_low, config.direct_high)[rows]
        )


def _between(drawn: Tensor, low: float, high: float) -> Tensor:
    """Random numbers in [0, 1) as numbers from ``low`` to ``high``."""
    return low + (high - low) * drawn
