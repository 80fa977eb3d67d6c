"""SpeechEQ (section 2.3, Figure 2): one backbone, four heads."""

from speecheq.config.schema import ModelConfig
from speecheq.models.ecapa import EcapaTdnn
from speecheq.models.heads import MultitaskHeads
from speecheq.models.layer_mixture import build_front_end


class SpeechEQ(MultitaskHeads):
    """ECAPA-TDNN with Res-BiGRUs, and the heads; phonemes at the features' frame rate, 100 a second with fbank."""

    def __init__(self, config: ModelConfig):
        front_end, width = build_front_end(config.validate())
        super().__init__(config, EcapaTdnn(config, width), config.mfa_channels, front_end=front_end)
