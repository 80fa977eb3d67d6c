"""head_fusion, a re-implementation of [35]: Xu, Zhang and Zhang, "Head fusion" (IEEE Access 2021, first CCWC 2020), by
its code (lessonxmk/head_fusion).

Known from the code: MFCC 26 at 16 kHz, 512 samples a step (feature set mfcc26), in windows of 2 s; two first
convolutions side by side, of 10 x 2 and 2 x 8, then four of 3 x 3; 4 heads of attention of width 64, whose softmax of
Q * K runs over the channels (the code names no axis; ``model.attention_axis``); heads one below the other, ReLU, mean
over the image (in the paper the heads are averaged; ``model.heads_joined``); 155,636 parameters with 4 classes. Windows
each 1 s in training and each 0.4 s in the test, where their logits are averaged. Cross-entropy, Adam 1e-3, weight decay
1e-6, learning rate / 10 every 10 epochs, 50 epochs, mini-batches of 32.

Assumed: in training a random window of 2 s of each clip an epoch (``data.max_seconds``), in place of one each second;
clips shorter than a window are padded with zeros (the code leaves clips of 2 s or less out, of the test too; stage 3
does so with --as-published drop_short); features are normalised by the training data.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad

from speecheq.config.schema import ModelConfig
from speecheq.models.heads import Backbone, FrameLevel, MultitaskHeads
from speecheq.models.padding_mask import Frames

WINDOW, TRAINING_HOP, TEST_HOP = 2.0, 1.0, 0.4  # seconds
ENCODER_SHIFT = 0.02  # seconds from one state of an encoder to the next
HEADS, WIDTH = 4, 64


class _Convolution(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int] = (3, 3), padding: tuple[int, int] = (1, 1)):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.convolution(x)))


class _Head(nn.Module):
    """A head of the attention, images (M, 80, H, W) -> (M, 64, H, W)."""

    def __init__(self, axis: str):
        super().__init__()
        self.axis = axis
        self.query, self.key, self.value = (nn.Conv2d(80, WIDTH, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.query(x) * self.key(x)
        weights = scores.softmax(1) if self.axis == "channel" else scores.flatten(2).softmax(2).view_as(scores)
        return weights * self.value(x)


class AttentionCnn(Backbone):
    """The frame level is the features; the embedding (N, 64), the mean over a clip's windows.

    The mean of the windows' logits is the logit of that mean, as the output is linear.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.shift = ENCODER_SHIFT if config.encoder_layers else config.frame_shift
        self.joined = config.heads_joined
        self.tall, self.wide = _Convolution(1, 8, (10, 2), (4, 0)), _Convolution(1, 8, (2, 8), (0, 3))
        self.pooled = nn.ModuleList([_Convolution(16, 32), _Convolution(32, 48)])
        self.last = nn.Sequential(_Convolution(48, 64), _Convolution(64, 80))
        self.heads = nn.ModuleList(_Head(config.attention_axis) for _ in range(HEADS))

    def aggregate(self, features: Tensor, frames: Frames) -> FrameLevel:
        return FrameLevel(features, frames)

    def windows(self, features: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
        """Features (N, T, D) -> windows (M, 1, D, W), clip by clip; how many each clip has (N,)."""
        width = int(WINDOW / self.shift + 0.5)
        hop = max(1, int((TRAINING_HOP if self.training else TEST_HOP) / self.shift))
        clips = []
        for clip, length in zip(features, lengths):
            own = pad(clip[:length], (0, 0, 0, max(0, width - length)))
            clips.append(own.unfold(0, width, hop))  # (windows, D, W)
        return torch.cat(clips).unsqueeze(1), torch.tensor([len(clip) for clip in clips], device=features.device)

    def images(self, windows: Tensor) -> Tensor:
        """Windows (M, 1, 26, 63) -> (M, 80, 6, 15), or as much of other sizes."""
        x = torch.cat([self.tall(windows), self.wide(windows)], dim=1)
        for convolution in self.pooled:
            x = max_pool2d(convolution(x), 2)
        return self.last(x)

    def embed(self, level: FrameLevel) -> Tensor:
        windows, counts = self.windows(level.x, level.frames.given_lengths.tolist())
        x = self.images(windows)
        found = [head(x) for head in self.heads]
        x = torch.cat(found, dim=2) if self.joined == "concat" else torch.stack(found).mean(0)
        x = torch.relu(x).mean((2, 3)).float()
        clip = torch.repeat_interleave(torch.arange(len(counts), device=x.device), counts)
        return x.new_zeros(len(counts), WIDTH).index_add(0, clip, x) / counts[:, None]


class HeadFusion(MultitaskHeads):
    """Head Fusion, and the heads of the other tasks."""

    def __init__(self, config: ModelConfig):
        config = replace(config, embedding_dim=WIDTH)
        super().__init__(config, AttentionCnn(config), None)
