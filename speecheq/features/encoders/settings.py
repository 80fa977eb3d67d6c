"""EncoderSettings: which model, which of its layers, and how waveforms are given to it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EncoderSettings:
    """What decides the states that an encoder gives.

    Args:
        model: a folder with config.json, preprocessor_config.json and model.safetensors, or the id of a hub model.
        layers: layers whose states are taken, in this order; 0 is the input of the first block.
        padding: ``none``: clips as long as they are; ``30s`` (Whisper only): clips padded to 30 s, the states of the
            padding cut off. The two give different states.
        normalise: whether each clip is brought to mean 0 and variance 1; ``auto``: as preprocessor_config.json says;
            ``level`` (Whisper only): to a level of LEVEL dBFS, since Whisper's states change with the level.
    """

    model: str
    layers: tuple[int, ...]
    padding: str = "none"
    normalise: str = "auto"

    def __post_init__(self) -> None:
        if not self.layers or min(self.layers) < 0 or len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers is {self.layers}, but it must be different numbers of layers, from 0 on")
        if self.padding not in ("none", "30s"):
            raise ValueError(f"padding is {self.padding!r}, but it must be none or 30s")
        if self.normalise not in ("auto", "yes", "no", "level"):
            raise ValueError(f"normalise is {self.normalise!r}, but it must be auto, yes, no or level")
