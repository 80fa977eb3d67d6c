"""Encoder, the common face of all families: padded waveforms to states, whatever a family can batch."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from speecheq.features.encoders.settings import EncoderSettings
from speecheq.features.waveform_batch import zero_padding

SAMPLING_RATE = 16000
LEVEL = -26.0  # dBFS, the root mean square that telephony aims at for speech (ITU-T P.56)
SILENCE = 1e-10  # power below which a clip is not amplified further


class Encoder(nn.Module):
    """A pretrained encoder that gives the states of ``settings.layers``, one after the other in each frame.

    Attributes:
        network: from the model's inputs to states; what is trained and exported. ``network.blocks`` are its blocks.
        dim: width D of a layer.
        feature_dim: width of a frame, the number of layers times D.
        frame_shift: seconds from one frame to the next.
        pads_batches: whether clips of different lengths go through the network together. Otherwise padding would change
            a clip's states, and ``forward`` takes clips of equal lengths at a time.
        max_samples: length in samples above which ``forward`` cuts a clip into pieces that do not see each other.
    """

    frame_shift = 0.02
    pads_batches = True
    max_samples: int | None = None

    def __init__(self, settings: EncoderSettings, network: nn.Module, dim: int, normalise: bool) -> None:
        super().__init__()
        self.settings, self.network, self.dim, self.normalise = settings, network, dim, normalise
        self.layers = settings.layers
        self.feature_dim = len(settings.layers) * dim

    @property
    def blocks(self) -> nn.ModuleList:
        """The network's blocks, up to the highest of its layers."""
        blocks = self.network.blocks
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    def inputs(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the network takes: ``samples`` (N, S) in [-1, 1], padded, ``lengths`` (N,) in samples, on the CPU.

        No clip may be longer than ``max_samples``; without ``pads_batches`` all must be equally long.
        """
        raise NotImplementedError

    def frames_of_piece(self, samples: Tensor) -> Tensor:
        """Numbers of samples (N,), none above ``max_samples``, to numbers of frames (N,)."""
        raise NotImplementedError

    def stored_tensors(self) -> dict[str, Tensor]:
        """The network's weights under the names that they have in a file of weights."""
        raise NotImplementedError

    def num_frames(self, lengths: Tensor) -> Tensor:
        """Numbers of samples (N,) to numbers of frames (N,)."""
        if self.max_samples is None:
            return self.frames_of_piece(lengths)
        whole = lengths // self.max_samples
        rest = lengths - whole * self.max_samples
        of_whole = whole * self.frames_of_piece(torch.full_like(lengths, self.max_samples))
        return of_whole + torch.where(rest > 0, self.frames_of_piece(rest), torch.zeros_like(rest))

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The states of a batch: ``samples`` (N, S) float in [-1, 1], padded, and ``lengths`` (N,) on the CPU.

        Returns:
            states (N, T, feature_dim) float32, zero after a clip's frames; numbers of frames (N,), on the CPU.
        """
        if self.max_samples is not None and int(lengths.max()) > self.max_samples:
            rows = [self._in_pieces(row[:length]) for row, length in zip(samples, lengths.tolist())]
            return pad_sequence(rows, batch_first=True), self.num_frames(lengths)
        if self.pads_batches or int(lengths.min()) == int(lengths.max()):
            states, frames = self._states(samples, lengths)
            return states[:, : int(frames.max())], frames
        frames = self.num_frames(lengths)
        states = torch.zeros(len(samples), int(frames.max()), self.feature_dim, device=samples.device)
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0]
            part, _ = self._states(samples[rows.to(samples.device), :length], lengths[rows])
            states[rows.to(samples.device), : part.shape[1]] = part
        return states, frames

    def _states(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What ``forward`` returns, of clips that the network takes together."""
        with torch.autocast(samples.device.type, enabled=False):  # signal processing in single precision, in any case
            inputs = self.inputs(samples, lengths)
        states, frames = self.network(*inputs)
        return states.float(), frames

    def _in_pieces(self, clip: Tensor) -> Tensor:
        """The states (T, feature_dim) of a clip (S,) of any length, piece by piece."""
        pieces = clip.split(self.max_samples)
        return torch.cat([self(piece[None], torch.tensor([len(piece)]))[0][0] for piece in pieces])


def level_clips(samples: Tensor, lengths: Tensor) -> Tensor:
    """Clips (N, S) brought to a level of LEVEL each, over their own ``lengths`` (N,)."""
    counts = lengths.to(samples.device)[:, None]
    power = zero_padding(samples, lengths).square().sum(dim=1, keepdim=True) / counts
    return samples * (10 ** (LEVEL / 10) / power.clamp(min=SILENCE)).sqrt()


def normalise_clips(samples: Tensor, lengths: Tensor, epsilon: float = 1e-7) -> Tensor:
    """Clips (N, S) brought to mean 0 and variance 1 each, over their own ``lengths`` (N,); zero after their ends.

    As transformers' ``Wav2Vec2FeatureExtractor`` does with ``do_normalize``.
    """
    counts = lengths.to(samples.device)[:, None]
    mean = zero_padding(samples, lengths).sum(dim=1, keepdim=True) / counts
    centred = zero_padding(samples - mean, lengths)
    variance = centred.square().sum(dim=1, keepdim=True) / counts
    return centred / (variance + epsilon).sqrt()
