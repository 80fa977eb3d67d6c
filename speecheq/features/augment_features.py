"""Augmentation of features in training: mixup of pairs of clips, then SpecAugment's masks.

The changes of a clip are drawn on the CPU from (seed, stream, epoch, utterance id), as in augment_waveforms.py, and
stored in the mini-batch as tensors. The model applies them to its normalised features, in which 0 is the mean.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from speecheq.config.schema import AUGMENTATIONS, FBANK, Config, MixupConfig, SpecAugmentConfig

FRAMES_A_SECOND = 100  # of filter banks
# CTC targets are sequences in time, so phoneme clips cannot be mixed.
MIXED_STREAMS = ("emotion", "gender", "unlabelled")


class Mixup(NamedTuple):
    """The partner of each of N clips, and the clip's own weight in the mix."""

    partners: Tensor  # (N,) int64, the rows of the partners
    shares: Tensor  # (N,) float32 in [0.5, 1]

    def mix_features(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Features (N, T, D), zero after ``lengths`` (N,) frames -> mixed features of the same lengths.

        A longer partner is cut and a shorter one repeated, so all frames, and the labels, are mixed with the same
        weights.
        """
        lengths = lengths.to(features.device, non_blocking=True)
        frame = torch.arange(features.shape[1], device=features.device)
        place = frame % lengths[self.partners][:, None]  # (N, T)
        shares = self.shares[:, None, None]
        # in place, since new memory takes longer than the sums; lerp is slow with a weight for each clip
        mixed = features[self.partners[:, None], place].mul_(1 - shares).addcmul_(features, shares)
        return mixed.mul_((frame < lengths[:, None])[:, :, None])

    def only(self, rows: Tensor) -> "Mixup":
        """The mixup of the clips where ``rows`` (N,) is True; the others are not mixed."""
        own = torch.arange(len(rows))
        return Mixup(
            torch.where(rows, self.partners, own), torch.where(rows, self.shares, torch.ones_like(self.shares))
        )

    def mix_eis(self, gold: Tensor, unlabelled: float) -> Tensor:
        """Gold EIS (N,) -> mixed EIS (N,), ``unlabelled`` if the clip or its partner has no EIS (a value below 0)."""
        others = gold[self.partners]
        mixed = torch.lerp(others, gold, self.shares)
        return torch.where((gold >= 0) & (others >= 0), mixed, torch.full_like(mixed, unlabelled))


class Masks(NamedTuple):
    """The masked frames and filter banks of N clips."""

    frames: Tensor  # (N, T) bool
    filter_banks: Tensor  # (N, D) bool

    def mask_features(self, features: Tensor) -> Tensor:
        """Features (N, T, D) -> features with 0 where masked."""
        return features.masked_fill(self.frames[:, :, None] | self.filter_banks[:, None, :], 0.0)

    def only(self, rows: Tensor) -> "Masks":
        """The masks of the clips where ``rows`` (N,) is True; the others are not masked."""
        return Masks(self.frames & rows[:, None], self.filter_banks & rows[:, None])


class Changes(NamedTuple):
    """The changes of a mini-batch's features; None for no change of that kind."""

    mixup: Mixup | None = None
    masks: Masks | None = None

    def to(self, device: torch.device) -> "Changes":
        """The same on ``device``."""
        return Changes(
            self.mixup and Mixup(*(tensor.to(device, non_blocking=True) for tensor in self.mixup)),
            self.masks and Masks(*(tensor.to(device, non_blocking=True) for tensor in self.masks)),
        )

    def apply(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Normalised features (N, T, D), lengths (N,) -> changed features (N, T, D) of the same lengths."""
        if self.mixup is not None:
            features = self.mixup.mix_features(features, lengths)
        return features if self.masks is None else self.masks.mask_features(features)


def draw_mixup(config: MixupConfig, seed: int, stream: str, epoch: int, ids: Sequence[str]) -> Mixup:
    """Draw for each utterance another one of the mini-batch as its partner, and a share from Beta(alpha, alpha).

    The clip's own share is the larger one, since the mix has the clip's length.
    """
    partners, shares = [], []
    for row, utterance in enumerate(ids):
        randomness = random.Random(f"{seed} mixup {stream} {epoch} {utterance}")
        partners.append((row + 1 + randomness.randrange(max(1, len(ids) - 1))) % len(ids))
        share = randomness.betavariate(config.alpha, config.alpha)
        shares.append(max(share, 1 - share))
    return Mixup(torch.tensor(partners), torch.tensor(shares))


def _intervals(randomness: random.Random, count: int, widest: int, size: int) -> Sequence[range]:
    """Draw ``count`` intervals within 0..size-1, of 0 to ``widest``; width and place are evenly distributed."""
    found = []
    for _ in range(count):
        width = randomness.randint(0, min(widest, size))
        first = randomness.randint(0, size - width)
        found.append(range(first, first + width))
    return found


def draw_masks(
    config: SpecAugmentConfig,
    seed: int,
    stream: str,
    epoch: int,
    ids: Sequence[str],
    lengths: Tensor,
    num_frames: int,
    feature_dim: int,
) -> Masks:
    """Draw masks for utterances of ``lengths`` (N,) frames, on the CPU, in a mini-batch of ``num_frames`` frames."""
    frames = torch.zeros(len(ids), num_frames, dtype=torch.bool)
    filter_banks = torch.zeros(len(ids), feature_dim, dtype=torch.bool)
    for row, (utterance, length) in enumerate(zip(ids, lengths.tolist())):
        randomness = random.Random(f"{seed} specaugment {stream} {epoch} {utterance}")
        widest = int(min(config.time_width * FRAMES_A_SECOND, config.time_share * length))
        for interval in _intervals(randomness, config.time_masks, widest, length):
            frames[row, interval.start : interval.stop] = True
        for interval in _intervals(randomness, config.frequency_masks, config.frequency_width, feature_dim):
            filter_banks[row, interval.start : interval.stop] = True
    return Masks(frames, filter_banks)


def draw_changes(
    config: Config,
    stream: str,
    epoch: int,
    ids: Sequence[str],
    lengths: Tensor,
    num_frames: int,
    feature_dim: int,
    types: Tensor | None = None,
) -> Changes:
    """Draw the changes of a mini-batch of features (N, T, D) of utterances ``ids``.

    ``lengths`` (N,) are on the CPU. With ``types`` (N,), the one change of every clip (augment.one_of), only the clips
    of the type mixup are mixed, and only those of the type specaugment masked.
    """
    seed, mixup, masks = config.run.seed, None, None
    if config.mixup.alpha > 0 and stream in MIXED_STREAMS:
        mixup = draw_mixup(config.mixup, seed, stream, epoch, ids)
    if config.specaugment.active:
        specaugment = config.specaugment
        if config.data.features != FBANK:  # states of an encoder: half as many frames a second
            specaugment = replace(specaugment, time_width=specaugment.time_width / 2)
        masks = draw_masks(specaugment, seed, stream, epoch, ids, lengths, num_frames, feature_dim)
    if types is not None:
        mixup = mixup and mixup.only(types == AUGMENTATIONS.index("mixup"))
        masks = masks and masks.only(types == AUGMENTATIONS.index("specaugment"))
    return Changes(mixup, masks)
