"""SpeechEQ (section 2.3, Figure 2): one backbone, four heads."""

from speecheq.config.schema import ModelConfig
from speecheq.models.ecapa import EcapaTdnn
from speecheq.models.heads import MultitaskHeads


class SpeechEQ(MultitaskHeads):
    """ECAPA-TDNN with Res-BiGRUs, and the heads; phonemes at the features' frame rate, 100 a second."""

    def __init__(self, config: ModelConfig):
        super().__init__(config.validate(), EcapaTdnn(config), config.mfa_channels)
