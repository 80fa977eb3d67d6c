"""Changes of the features in front of the model in training: mixup of pairs of clips, then SpecAugment's masks.

They are drawn on the CPU, per clip from (seed, stream, epoch, utterance id) as in augment.py, and travel with the
mini-batch as tensors; the model applies them to its normalised features, where 0 is the mean.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from speecheq.config.schema import AUGMENTATIONS, Config, MixupConfig, SpecAugmentConfig

FRAMES_A_SECOND = 100
# CTC's labels belong to places in time, so phoneme clips cannot be mixed.
MIXED_STREAMS = ("emotion", "gender", "unlabelled")


class Mixup(NamedTuple):
    """With whom each of N clips is mixed, and how much it keeps of itself."""

    partners: Tensor  # (N,) int64, the rows of the partners
    shares: Tensor  # (N,) float32 in [0.5, 1], of the clip itself

    def of_features(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Features (N, T, D), zeros after ``lengths`` (N,) frames, -> mixed ones of the same lengths.

        A partner that is longer is cut off there, one that is shorter begins anew: each frame is a mix at the same
        shares, which are then those of the labels.
        """
        lengths = lengths.to(features.device, non_blocking=True)
        frame = torch.arange(features.shape[1], device=features.device)
        place = frame % lengths[self.partners][:, None]  # (N, T)
        mixed = torch.lerp(features[self.partners[:, None], place], features, self.shares[:, None, None])
        return mixed.masked_fill((frame >= lengths[:, None])[:, :, None], 0.0)

    def only(self, rows: Tensor) -> "Mixup":
        """The same where ``rows`` (N,) bool says so, and no mix elsewhere."""
        own = torch.arange(len(rows))
        return Mixup(
            torch.where(rows, self.partners, own), torch.where(rows, self.shares, torch.ones_like(self.shares))
        )

    def of_scale(self, gold: Tensor, unlabelled: float) -> Tensor:
        """A scale's gold values (N,) -> mixed ones; ``unlabelled`` where clip or partner is (that is, below 0)."""
        others = gold[self.partners]
        mixed = torch.lerp(others, gold, self.shares)
        return torch.where((gold >= 0) & (others >= 0), mixed, torch.full_like(mixed, unlabelled))


class Masks(NamedTuple):
    """Which frames and which filter banks of N clips are masked."""

    frames: Tensor  # (N, T) bool
    filter_banks: Tensor  # (N, D) bool

    def of_features(self, features: Tensor) -> Tensor:
        """Features (N, T, D) -> the same with 0 where they are masked."""
        return features.masked_fill(self.frames[:, :, None] | self.filter_banks[:, None, :], 0.0)

    def only(self, rows: Tensor) -> "Masks":
        """The same where ``rows`` (N,) bool says so, and no mask elsewhere."""
        return Masks(self.frames & rows[:, None], self.filter_banks & rows[:, None])


class Changes(NamedTuple):
    """What happens to the features of a mini-batch; None for what does not."""

    mixup: Mixup | None = None
    masks: Masks | None = None

    def to(self, device: torch.device) -> "Changes":
        """The same on ``device``."""
        return Changes(
            self.mixup and Mixup(*(tensor.to(device, non_blocking=True) for tensor in self.mixup)),
            self.masks and Masks(*(tensor.to(device, non_blocking=True) for tensor in self.masks)),
        )

    def of_features(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Normalised features (N, T, D), lengths (N,) -> changed ones; lengths stay as they are."""
        if self.mixup is not None:
            features = self.mixup.of_features(features, lengths)
        return features if self.masks is None else self.masks.of_features(features)


def draw_mixup(config: MixupConfig, seed: int, stream: str, epoch: int, ids: Sequence[str]) -> Mixup:
    """Every clip gets another one of the mini-batch as its partner, and a share from Beta(alpha, alpha).

    The larger share is the clip's own, as the mix has its length.
    """
    partners, shares = [], []
    for row, utterance in enumerate(ids):
        randomness = random.Random(f"{seed} mixup {stream} {epoch} {utterance}")
        partners.append((row + 1 + randomness.randrange(max(1, len(ids) - 1))) % len(ids))
        share = randomness.betavariate(config.alpha, config.alpha)
        shares.append(max(share, 1 - share))
    return Mixup(torch.tensor(partners), torch.tensor(shares))


def _intervals(randomness: random.Random, count: int, widest: int, size: int) -> Sequence[range]:
    """``count`` intervals of 0 to ``widest`` places within 0..size-1, widths and places evenly distributed."""
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
    """Masks for clips of ``lengths`` (N,) frames on the CPU, in a mini-batch of ``num_frames`` frames."""
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
    """What ``config`` does to a mini-batch of features (N, T, D) of utterances ``ids``, ``lengths`` (N,) on the CPU.

    ``types`` (N,): the one change of every clip (augment.one_of); others than mixup's are not mixed, and so on.
    """
    seed, mixup, masks = config.run.seed, None, None
    if config.mixup.alpha > 0 and stream in MIXED_STREAMS:
        mixup = draw_mixup(config.mixup, seed, stream, epoch, ids)
    if config.specaugment.active:
        masks = draw_masks(config.specaugment, seed, stream, epoch, ids, lengths, num_frames, feature_dim)
    if types is not None:
        mixup = mixup and mixup.only(types == AUGMENTATIONS.index("mixup"))
        masks = masks and masks.only(types == AUGMENTATIONS.index("specaugment"))
    return Changes(mixup, masks)
