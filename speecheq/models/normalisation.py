"""Normalisation of features, which the paper does not mention: global, by utterance, by speaker, or none."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from speecheq.models.heads import Predictions
from speecheq.models.padding_mask import Frames

MODES = ("utterance", "global", "none", "speaker")
# A filter bank with a smaller deviation counts as constant and is only centred.
MIN_DEVIATION = 1e-3


class Cmvn(nn.Module):
    """Cepstral mean and variance normalisation, as Kaldi calls it: each filter bank gets mean 0 and deviation 1.

    ``global`` uses the mean and standard deviation (D,) of the training cuts, kept as buffers with the model's weights;
    ``utterance`` those of each utterance's own frames. With ``speaker`` the features come normalised, as the model
    alone does not know the speaker's other clips (dataset/model_inputs.py).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, mode: str, feature_dim: int, mean: Sequence[float] | None = None, deviation: Sequence[float] | None = None
    ):
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"cmvn is {mode!r}; it must be one of {', '.join(MODES)}")
        self.mode = mode
        self.register_buffer("mean", torch.zeros(feature_dim) if mean is None else torch.as_tensor(mean).float())
        self.register_buffer(
            "deviation", torch.ones(feature_dim) if deviation is None else torch.as_tensor(deviation).float()
        )

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Features (N, T, D), lengths (N,) -> normalised features (N, T, D); finite padding becomes 0.

        In training D may be less than feature_dim: the first features of a frame (dataset/model_inputs.py).
        """
        if self.mode in ("none", "speaker"):
            return features
        frames = Frames.from_lengths(lengths, features.shape[1], features.device)
        if self.mode == "global":
            mean, deviation = self.mean, self.deviation
            if self.training:  # an exported model would keep the slices
                mean, deviation = mean[: features.shape[2]], deviation[: features.shape[2]]
            # in place, since new memory takes longer than the quotient
            return frames.zero_padding_((features - mean).div_(deviation.clamp(min=MIN_DEVIATION)))
        centred = features - frames.mean(features).unsqueeze(1)
        return frames.zeroed(centred / frames.mean(centred**2).unsqueeze(1).sqrt().clamp(min=MIN_DEVIATION))


class Normalised(nn.Module):
    """A model with its input normalisation, trained, stored and used together.

    In a training that includes a pretrained encoder, ``extractor`` is the module with that encoder, from waveforms
    (N, S) and lengths (N,) to features and their lengths: the model then takes waveforms. ``factors`` are the names of
    the parameters of the extractor that are trained, each with its factor of the encoder's learning rate.

    Attributes:
        extractor_is_frozen: whether the extractor gets no gradient for the present.
        trained_encoder: of a model that takes features, what its training has made of the encoder that gives them; None
            if it left it as it was.
    """

    def __init__(
        self, cmvn: Cmvn, model: nn.Module, extractor: nn.Module | None = None, factors: Mapping[str, float] = {}
    ):
        super().__init__()
        self.cmvn, self.model, self.extractor, self.factors = cmvn, model, extractor, dict(factors)
        self.extractor_is_frozen = False
        self.trained_encoder: Mapping[str, Tensor] | None = None

    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        change: Callable[[Tensor, Tensor], Tensor] | None = None,
        **options: Any,
    ) -> Predictions:
        """Features (N, T, D), lengths (N,) -> the model's predictions; ``options`` go to the model.

        With an extractor these are waveforms (N, S) and their lengths in samples. ``change`` (in training) turns
        normalised features and their lengths into features of the same shape.
        """
        if self.extractor is not None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.extractor_is_frozen):
                features, lengths = self.extractor(features, lengths)
        normal = self.cmvn(features, lengths)
        return self.model(normal if change is None else change(normal, lengths), lengths, **options)

    def state_without_extractor(self) -> dict[str, Tensor]:
        """The state of normalisation and model, by name."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("extractor.")}

    def extractor_state(self) -> dict[str, Tensor] | None:
        """The trained parameters of the extractor, by their names in it; None without one."""
        if self.extractor is None:
            return None
        state = self.extractor.state_dict()
        return {name: state[name] for name in self.factors}

    def load_states(self, state: Mapping[str, Tensor], extractor_state: Mapping[str, Tensor] | None) -> None:
        """Load what the two methods above return. Raises RuntimeError if it does not fit."""
        own = {f"extractor.{name}": value for name, value in (extractor_state or {}).items()}
        rest = {name: value for name, value in self.state_dict().items() if name.startswith("extractor.")}
        self.load_state_dict({**rest, **state, **own})
